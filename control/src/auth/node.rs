//! The Node authorizer: a node reads the secrets and config maps that its own pods name, one by one, and no others.
//!
//! Everything else that a node may do is the role `system:node`; whose objects it may write is admission's to say.

use gantry_kube::Object;
use gantry_kube::resource::{CONFIG_MAP, POD, SECRET};
use serde_json::Value;

use super::{Action, Lookup};

/// How an action stands to the node that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Not of the kinds that are granted by relation.
    Unrelated,
    Granted,
    Missing,
}

/// What a denied node is told.
pub fn no_relation(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

/// Whether a pod on `node` names what is asked for.
pub fn relation(lookup: &dyn Lookup, node: &str, action: &Action<'_>) -> Relation {
    let Action::Resource { verb, group: "", resource, subresource: "", namespace, name } = *action else {
        return Relation::Unrelated;
    };
    let names: fn(&Object, &str) -> bool = if resource == SECRET.plural {
        names_secret
    } else if resource == CONFIG_MAP.plural {
        names_config_map
    } else {
        return Relation::Unrelated;
    };
    let one = matches!(verb, "get" | "list" | "watch") && !namespace.is_empty() && !name.is_empty();
    let mut is_its_own = |pod: &Object| pod.str_at("/spec/nodeName") == node && names(pod, name);
    if one && lookup.any(&POD, namespace, &[node, name], &mut is_its_own) {
        Relation::Granted
    } else {
        Relation::Missing
    }
}

fn names_secret(pod: &Object, name: &str) -> bool {
    pod.array_at("/spec/imagePullSecrets").iter().any(|secret| secret["name"] == name)
        || volumes(pod).any(|source| source["secret"]["secretName"] == name || source["secret"]["name"] == name)
        || environment(pod).any(|source| source["secretRef"]["name"] == name || source["secretKeyRef"]["name"] == name)
}

fn names_config_map(pod: &Object, name: &str) -> bool {
    volumes(pod).any(|source| source["configMap"]["name"] == name)
        || environment(pod)
            .any(|source| source["configMapRef"]["name"] == name || source["configMapKeyRef"]["name"] == name)
}

/// The sources of all volumes, those of a projection each by itself.
fn volumes(pod: &Object) -> impl Iterator<Item = &Value> {
    pod.array_at("/spec/volumes").iter().flat_map(|volume| {
        let projected = volume["projected"]["sources"].as_array().into_iter().flatten();
        std::iter::once(volume).chain(projected)
    })
}

/// Where the environment of any container comes from.
fn environment(pod: &Object) -> impl Iterator<Item = &Value> {
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod.array_at(list))
        .flat_map(|container| {
            let single = container["env"].as_array().into_iter().flatten().map(|env| &env["valueFrom"]);
            single.chain(container["envFrom"].as_array().into_iter().flatten())
        })
}
