//! Every namespace has a `default` ServiceAccount and the cluster's CA in `kube-root-ca.crt`.

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, Patch};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;

use super::Context;
use super::frame::{Controller, Frame};

const WORKERS: usize = 1;
const ROOT_CA: &str = "kube-root-ca.crt";

/// What one namespace lacks.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    CreateAccount,
    CreateRootCa,
    MendRootCa,
}

fn plan(namespace: Option<&Object>, has_account: bool, root_ca: Option<&Object>, ca_pem: &str) -> Vec<Action> {
    let Some(namespace) = namespace else { return Vec::new() };
    if namespace.deletion_timestamp().is_some() || namespace.str_at("/status/phase") == "Terminating" {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if !has_account {
        actions.push(Action::CreateAccount);
    }
    match root_ca {
        None => actions.push(Action::CreateRootCa),
        Some(map) if map.0.get("data") != Some(&json!({"ca.crt": ca_pem})) => actions.push(Action::MendRootCa),
        Some(_) => {}
    }
    actions
}

struct Accounts {
    context: Context,
    ca_pem: String,
}

pub async fn run(context: Context, ca_pem: String) {
    let informers = &context.informers;
    let frame = Frame::new("service-account-controller", &context)
        .hears(&informers.namespaces, |change| [change.at.name])
        .hears(&informers.service_accounts, |change| [change.at.namespace])
        .hears(&informers.root_cas, |change| [change.at.namespace]);
    frame.run(WORKERS, Arc::new(Accounts { context, ca_pem })).await;
}

impl Controller for Accounts {
    /// A namespace.
    type Key = String;

    async fn turn(&self, namespace: &String, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        reconcile(&self.context, namespace, &self.ca_pem).await
    }
}

async fn reconcile(context: &Context, namespace: &str, ca_pem: &str) -> Result<(), ClientError> {
    let informers = &context.informers;
    let root_ca = informers.root_cas.get(&Ref::new(namespace, ROOT_CA));
    let has_account = informers.service_accounts.get(&Ref::new(namespace, "default")).is_some();
    let found = informers.namespaces.get(&Ref::cluster(namespace));
    for action in plan(found.as_deref(), has_account, root_ca.as_deref(), ca_pem) {
        let done = match action {
            Action::CreateAccount => {
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                                     "metadata": {"name": "default", "namespace": namespace}});
                let client = context.client.named("service-account-controller");
                client.create(&resource::SERVICE_ACCOUNT, &Object::from_value(account).unwrap_or_default()).await
            }
            Action::CreateRootCa => {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": {
                        "kubernetes.io/description": "The certificates that a pod verifies the API server with.",
                    }},
                    "data": {"ca.crt": ca_pem},
                });
                let client = context.client.named("root-ca-cert-publisher");
                client.create(&resource::CONFIG_MAP, &Object::from_value(map).unwrap_or_default()).await
            }
            Action::MendRootCa => {
                let patch = Patch::Json(json!([{"op": "add", "path": "/data", "value": {"ca.crt": ca_pem}}]));
                let client = context.client.named("root-ca-cert-publisher");
                client.patch(&resource::CONFIG_MAP, &Ref::new(namespace, ROOT_CA), "", patch).await
            }
        };
        match done {
            // Somebody else was faster, or the namespace began to go: the informers will tell.
            Err(error) if error.is_already_exists() || error.is_not_found() || is_terminating(&error) => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

fn is_terminating(error: &ClientError) -> bool {
    error.status().is_some_and(|s| s.code == 403 && s.message.contains("being terminated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_gets_both_and_then_nothing() {
        let namespace = Object::from_value(json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}})).unwrap();
        assert_eq!(plan(Some(&namespace), false, None, "pem"), [Action::CreateAccount, Action::CreateRootCa]);
        let map = |pem: &str| Object::from_value(json!({"data": {"ca.crt": pem}})).unwrap();
        assert_eq!(plan(Some(&namespace), true, Some(&map("pem")), "pem"), []);
        assert_eq!(plan(Some(&namespace), true, Some(&map("old")), "pem"), [Action::MendRootCa]);
        assert_eq!(plan(None, false, None, "pem"), []);
    }
}
