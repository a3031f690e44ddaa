//! Bootstrap tokens do not outlive what they say: the Secret that holds one goes at the moment that it names.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions, Informer, Scope};
use gantry_env::Env;
use gantry_kube::{Object, Ref, resource};
use tracing::info;

use super::Context;
use super::frame::{Controller, Frame};
use plan::Verdict;

const COMPONENT: &str = "token-cleaner";
const WORKERS: usize = 1;

struct Tokens {
    client: Client,
    env: Env,
    secrets: Informer<Object>,
}

pub async fn run(context: Context) {
    let client = context.client.named(COMPONENT);
    // No other Secret is kept in memory for this.
    let scope = Scope {
        namespace: Some("kube-system".to_owned()),
        field_selector: "type=bootstrap.kubernetes.io/token".to_owned(),
        ..Scope::default()
    };
    let (env, stop) = (context.env.clone(), context.stop.clone());
    let secrets = Informer::spawn(client.clone(), &resource::SECRET, scope, env.clone(), stop, plan::slim);
    let frame = Frame::new(COMPONENT, &context).hears(&secrets, |change| [change.at]);
    frame.run(WORKERS, Arc::new(Tokens { client, env, secrets })).await;
}

impl Controller for Tokens {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(secret) = self.secrets.get(at) else { return Ok(()) };
        match plan::judge(&secret, self.env.clock.now()) {
            Verdict::Stays => Ok(()),
            Verdict::EndsIn(wait) => {
                *again = Some(wait);
                Ok(())
            }
            Verdict::Ended => {
                info!(secret = %at, "bootstrap token is over");
                // Whoever gives it more time meanwhile keeps it.
                let options = DeleteOptions {
                    uid: Some(secret.uid().to_owned()),
                    resource_version: Some(secret.resource_version().to_owned()),
                    ..DeleteOptions::default()
                };
                self.client.delete(&resource::SECRET, at, &options).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::house::House;
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use gantry_client::Patch;
    use serde_json::{Value, json};

    fn data(expiration: &str) -> Value {
        json!({"token-id": STANDARD.encode("abcdef"), "expiration": STANDARD.encode(expiration)})
    }

    async fn secret(house: &House, namespace: &str, name: &str, kind: &str, data: Value) -> Ref {
        let metadata = json!({"name": name, "namespace": namespace});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data});
        house.make(&resource::SECRET, secret).await.reference()
    }

    /// Each goes when its time has come and no sooner, by the controllers' own identity; nothing else goes.
    #[tokio::test(start_paused = true)]
    async fn a_token_goes_at_its_moment() {
        const TOKEN: &str = "bootstrap.kubernetes.io/token";
        let house = House::new().await;
        let token = async |name: &str, data| secret(&house, "kube-system", name, TOKEN, data).await;
        let hour = token("bootstrap-token-hourly", data("2026-01-01T01:00:00Z")).await;
        let longer = token("bootstrap-token-longer", data("2026-01-01T01:00:00Z")).await;
        let sooner = token("bootstrap-token-sooner", data("2026-01-01T01:00:00Z")).await;
        let riddle = token("bootstrap-token-riddle", data("tomorrow")).await;
        let forever = token("bootstrap-token-always", json!({"token-id": "YWJjZGVm"})).await;
        let other = secret(&house, "kube-system", "other", "Opaque", data("2025-01-01T00:00:00Z")).await;
        let elsewhere = secret(&house, "default", "elsewhere", TOKEN, data("2025-01-01T00:00:00Z")).await;
        let all = [&hour, &longer, &sooner, &riddle, &forever, &other, &elsewhere];
        let left = async || {
            let mut left = Vec::new();
            for at in all {
                if house.has(&resource::SECRET, at).await {
                    left.push(at.name.as_str());
                }
            }
            left
        };
        tokio::spawn(run(house.context()));
        house.settle().await;
        let names = ["bootstrap-token-hourly", "bootstrap-token-longer", "bootstrap-token-sooner"];
        let kept = ["bootstrap-token-always", "other", "elsewhere"];
        assert_eq!(left().await, [&names[..], &kept[..]].concat());

        for (at, expiration) in [(&longer, "2026-01-01T02:00:00Z"), (&sooner, "2026-01-01T00:30:00Z")] {
            let patch = Patch::Merge(json!({"data": data(expiration)}));
            house.admin().patch(&resource::SECRET, at, "", patch).await.unwrap();
        }
        for (second, gone) in [(1799, 0), (1801, 1), (3599, 1), (3601, 2), (7199, 2), (7201, 3)] {
            house.until(second).await;
            let alive = [&["bootstrap-token-sooner"][..], &["bootstrap-token-hourly"], &["bootstrap-token-longer"]];
            let left = left().await;
            for (order, name) in alive.concat().into_iter().enumerate() {
                assert_eq!(left.contains(&name), order >= gone, "{name} after {second} s");
            }
        }
        assert_eq!(left().await, kept);
    }
}
