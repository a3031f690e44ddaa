//! A namespace that is being deleted is emptied, kind by kind, and then finalized.

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions, Query};
use gantry_kube::{Object, Ref, Resource, resource};
use serde_json::{Value, json};
use tracing::info;

use super::Context;
use super::frame::{Controller, Frame};

const COMPONENT: &str = "namespace-controller";
const WORKERS: usize = 4;
/// What is left is looked at again after this, and when one of the pods, which take their grace period, has gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Requests that came in before the namespace began to go may still be writing: it is empty once it is so twice.
const SETTLE: Duration = Duration::from_millis(200);
const FINALIZER: &str = "kubernetes";

/// Kinds in the order in which they are emptied: what makes objects goes before what it makes.
fn kinds() -> impl Iterator<Item = &'static Resource> {
    let first = [
        &resource::DEPLOYMENT,
        &resource::REPLICA_SET,
        &resource::REPLICATION_CONTROLLER,
        &resource::DAEMON_SET,
        &resource::STATEFUL_SET,
        &resource::CRON_JOB,
        &resource::JOB,
        &resource::SERVICE,
    ];
    let rest = resource::ALL.iter().copied().filter(move |r| r.namespaced && !r.virtual_only && !first.contains(r));
    first.into_iter().chain(rest)
}

struct Namespaces {
    context: Context,
    client: Client,
}

pub async fn run(context: Context) {
    let (informers, namespaces) = (&context.informers, context.informers.namespaces.clone());
    let goes = move |at: &Ref| namespaces.get(at).is_some_and(|o| o.deletion_timestamp().is_some());
    let goes_too = goes.clone();
    let frame = Frame::new(COMPONENT, &context)
        .hears(&informers.namespaces, move |change| Some(change.at).filter(&goes))
        .reads(&informers.custom_kinds)
        .hears(&informers.pods, move |change| {
            let left = change.now.is_none().then(|| Ref::cluster(change.at.namespace));
            left.filter(&goes_too)
        });
    let client = context.client.named(COMPONENT);
    frame.run(WORKERS, Arc::new(Namespaces { context, client })).await;
}

impl Controller for Namespaces {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        if !empty(self, at).await? {
            *again = Some(LOOK_AGAIN);
        }
        Ok(())
    }
}

/// One pass over every kind; true when the namespace is empty and finalized, or gone.
async fn empty(this: &Namespaces, at: &Ref) -> Result<bool, ClientError> {
    let client = &this.client;
    let Some(namespace) = client.find(&resource::NAMESPACE, at).await? else { return Ok(true) };
    if namespace.deletion_timestamp().is_none()
        || !namespace.array_at("/spec/finalizers").iter().any(|f| f == FINALIZER)
    {
        return Ok(true);
    }
    let mut left = clear(this, &at.name).await?;
    if left.is_empty() {
        tokio::time::sleep(SETTLE).await;
        left = clear(this, &at.name).await?;
    }
    if left.is_empty() {
        let mut done = namespace;
        let kept: Vec<Value> = done.array_at("/spec/finalizers").iter().filter(|f| *f != FINALIZER).cloned().collect();
        done.map_mut("spec").insert("finalizers".to_owned(), json!(kept));
        client.put(&resource::NAMESPACE, at, "finalize", &done).await?;
        info!(namespace = %at, "namespace finalized");
        return Ok(true);
    }
    tell(this, &namespace, &left).await?;
    Ok(false)
}

/// Deletes what is there; what remains of it, by kind.
async fn clear(this: &Namespaces, namespace: &str) -> Result<Vec<(&'static Resource, usize)>, ClientError> {
    let client = &this.client;
    let mut left = Vec::new();
    let custom: Vec<_> = this.context.informers.custom_kinds.list().iter().filter_map(|kind| kind.resource).collect();
    for kind in custom.into_iter().filter(|kind| kind.namespaced).chain(kinds()) {
        let found = match client.list(kind, Some(namespace), &Query { limit: 1, ..Query::default() }).await {
            // A custom kind that has gone has taken its objects along.
            Err(error) if error.is_not_found() && kind.custom => continue,
            found => found?,
        };
        if found.items.is_empty() {
            continue;
        }
        client.delete_collection(kind, namespace, &Query::default(), &DeleteOptions::default()).await?;
        let remains = client.list(kind, Some(namespace), &Query::default()).await?.items.len();
        if remains > 0 {
            left.push((kind, remains));
        }
    }
    Ok(left)
}

/// Says in the conditions what is waited for.
async fn tell(this: &Namespaces, namespace: &Object, left: &[(&Resource, usize)]) -> Result<(), ClientError> {
    let list: Vec<String> =
        left.iter().map(|(kind, n)| format!("{} has {n} resource instances", kind.qualified())).collect();
    let message = format!("Some resources are remaining: {}", list.join(", "));
    let old = namespace.array_at("/status/conditions");
    if old.iter().any(|c| c["type"] == "NamespaceContentRemaining" && c["message"] == message) {
        return Ok(());
    }
    let mut wanted = namespace.clone();
    let condition = json!({"type": "NamespaceContentRemaining", "status": "True", "reason": "SomeResourcesRemain",
                           "message": message, "lastTransitionTime": this.context.env.clock.now_rfc3339()});
    wanted.map_mut("status").insert("conditions".to_owned(), json!([condition]));
    match this.client.update_status(&resource::NAMESPACE, &wanted).await {
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespaced_kind_is_emptied_once() {
        let mut all: Vec<&str> = kinds().map(|k| k.plural).collect();
        assert_eq!(&all[..2], ["deployments", "replicasets"]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.contains(&"secrets") && !all.contains(&"nodes") && !all.contains(&"localsubjectaccessreviews"));
    }
}
