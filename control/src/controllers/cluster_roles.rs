//! ClusterRoles that are the sum of others: what the others grant is written into their own rules, where people and tools
//! look for it.

use std::sync::Arc;

use gantry_client::{ClientError, Informer, Patch, Scope, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, resource};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::Context;

const COMPONENT: &str = "clusterrole-aggregation-controller";

pub async fn run(context: Context) {
    let client = context.client.named(COMPONENT);
    let (env, stop) = (context.env.clone(), context.stop.clone());
    let roles = Informer::spawn(client.clone(), &resource::CLUSTER_ROLE, Scope::default(), env, stop.clone(), |o| o);
    roles.synced().await;
    let queue = WorkQueue::new();
    tokio::spawn(feed(roles.clone(), queue.clone(), stop.clone()));
    run_workers(queue, 1, stop, move |at: Ref| {
        let (client, roles) = (client.clone(), roles.clone());
        async move {
            let (Some(role), all) = (roles.get(&at), roles.list()) else { return Ok(()) };
            let Some(rules) = plan(&role, &all) else { return Ok(()) };
            let patch =
                json!({"metadata": {"uid": role.uid(), "resourceVersion": role.resource_version()}, "rules": rules});
            let written = client.patch(&resource::CLUSTER_ROLE, &at, "", Patch::Merge(patch)).await;
            written.map(drop).map_err(|error| told(&at, &error))
        }
    })
    .await;
}

fn told(at: &Ref, error: &ClientError) {
    // Changed meanwhile: what the informer brings queues the key again, and so does the back-off.
    if error.is_conflict() || error.is_not_found() {
        debug!(role = %at, error = %chain(error), "turn overtaken");
    } else {
        warn!(role = %at, error = %chain(error), "turn failed");
    }
}

/// Any role may be part of any sum, and there are few sums.
async fn feed(roles: Informer<Object>, queue: WorkQueue<Ref>, stop: tokio_util::sync::CancellationToken) {
    let mut changes = roles.subscribe();
    while stop.run_until_cancelled(changes.changes()).await.is_some() {
        for role in roles.list().iter().filter(|role| is_sum(role)) {
            queue.add(role.reference());
        }
    }
}

fn is_sum(role: &Object) -> bool {
    role.get("/aggregationRule").is_some_and(|rule| !rule.is_null())
}

/// The rules that the role should have, where it has others: those of every role that one of its selectors chooses, in the
/// order of selectors and of names, each once.
fn plan(role: &Object, all: &[Arc<Object>]) -> Option<Value> {
    if !is_sum(role) {
        return None;
    }
    let mut others: Vec<&Arc<Object>> = all.iter().filter(|other| other.name() != role.name()).collect();
    others.sort_by_key(|other| other.name().to_owned());
    let mut rules: Vec<&Value> = Vec::new();
    for selector in role.array_at("/aggregationRule/clusterRoleSelectors") {
        let Ok(selector) = LabelSelector::from_value(selector) else { continue };
        for rule in others.iter().filter(|other| selector.matches_object(other)).flat_map(|o| o.array_at("/rules")) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    let same = role.array_at("/rules").iter().eq(rules.iter().copied());
    (!same).then(|| json!(rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::policy::cluster_roles;

    /// What is planned happens, until nothing is.
    fn settled(mut all: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
        for _ in 0..8 {
            let seen = all.clone();
            let mut quiet = true;
            for role in &mut all {
                if let Some(rules) = plan(role, &seen) {
                    Arc::make_mut(role).0.insert("rules".into(), rules);
                    quiet = false;
                }
            }
            if quiet {
                return all;
            }
        }
        panic!("it never settles");
    }

    fn rules<'a>(all: &'a [Arc<Object>], name: &str) -> &'a [Value] {
        all.iter().find(|role| role.name() == name).unwrap().array_at("/rules")
    }

    #[test]
    fn who_may_edit_may_view_and_who_administers_may_both() {
        let mut all = settled(cluster_roles().into_iter().map(Arc::new).collect());
        let [view, edit, admin] = ["view", "edit", "admin"].map(|name| rules(&all, name).to_vec());
        assert!(!view.is_empty() && view.iter().all(|rule| edit.contains(rule)));
        assert!(edit.len() > view.len() && edit.iter().all(|rule| admin.contains(rule)) && admin.len() > edit.len());
        // What comes later reaches all of them; what goes, goes from all of them.
        let added = json!({"metadata": {"name": "x", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}]});
        all.push(Arc::new(Object::from_value(added).unwrap()));
        let with = settled(all.clone());
        assert_eq!(rules(&with, "admin").len(), admin.len() + 1);
        let without = settled(with.into_iter().filter(|role| role.name() != "x").collect());
        assert_eq!(rules(&without, "view"), view);
    }

    #[test]
    fn what_is_no_sum_is_left_alone() {
        let all = settled(cluster_roles().into_iter().map(Arc::new).collect());
        assert!(!rules(&all, "cluster-admin").is_empty());
        assert_eq!(plan(all.iter().find(|role| role.name() == "view").unwrap(), &all), None);
    }
}
