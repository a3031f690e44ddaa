//! ClusterRoles that are the sum of others: what the others grant is written into their own rules, where people and tools
//! look for it.

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, Informer, Patch, Scope};
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, resource};
use serde_json::{Value, json};

use super::Context;
use super::frame::{Controller, Frame};

const COMPONENT: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 1;

struct Sums {
    client: Client,
    roles: Informer<Object>,
}

pub async fn run(context: Context) {
    let client = context.client.named(COMPONENT);
    let (env, stop) = (context.env.clone(), context.stop.clone());
    let roles = Informer::spawn(client.clone(), &resource::CLUSTER_ROLE, Scope::default(), env, stop, |role| role);
    let all = roles.clone();
    // Any role may be part of any sum, and there are few sums.
    let frame = Frame::new(COMPONENT, &context).hears_together(&roles, move |_| {
        all.list().iter().filter(|role| is_sum(role)).map(|role| role.reference()).collect()
    });
    frame.run(WORKERS, Arc::new(Sums { client, roles })).await;
}

impl Controller for Sums {
    type Key = Ref;

    async fn turn(&self, at: &Ref, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(role) = self.roles.get(at) else { return Ok(()) };
        let Some(rules) = plan(&role, &self.roles.list()) else { return Ok(()) };
        let patch =
            json!({"metadata": {"uid": role.uid(), "resourceVersion": role.resource_version()}, "rules": rules});
        self.client.patch(&resource::CLUSTER_ROLE, at, "", Patch::Merge(patch)).await.map(drop)
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
