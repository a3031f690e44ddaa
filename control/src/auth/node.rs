//! The Node authorizer: a node reads the secrets, config maps and claims that its own pods name, one by one, the volumes of
//! such claims and those that it keeps itself, the accounts that its pods run as, its own pods, its own Node and its own
//! Lease, and no others.
//!
//! Everything else that a node may do is the role `system:node`; whose objects it may write is admission's to say.

use gantry_kube::resource::{
    CONFIG_MAP, LEASE, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE_ACCOUNT,
};
use gantry_kube::selector::{FieldSelector, LabelSelector, Requirement};
use gantry_kube::{Object, Ref, storage};
use serde_json::Value;

use super::token::service_account_of;
use super::{Action, Lookup};
use crate::admission::{MIRROR_ANNOTATION, NODE_LEASE_NAMESPACE};

/// How an action stands to the node that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Not of the kinds that are granted by relation.
    Unrelated,
    Granted,
    /// With what the node is told, unless its roles allow it.
    Missing(String),
}

/// Whether what is asked for is the node's own.
pub fn relation(lookup: &dyn Lookup, node: &str, action: &Action<'_>) -> Relation {
    let Action::Resource { verb, group, resource, subresource: "", namespace, name, fields, labels } = *action else {
        return Relation::Unrelated;
    };
    let is = |known: &gantry_kube::Resource| (group, resource) == (known.group, known.plural);
    let reads = matches!(verb, "get" | "list" | "watch");
    let granted = |granted: bool, why: &dyn Fn() -> String| {
        if granted { Relation::Granted } else { Relation::Missing(why()) }
    };
    let unrelated = || format!("no relationship found between node '{node}' and this object");
    if is(&SECRET) || is(&CONFIG_MAP) {
        let names = if is(&SECRET) { names_secret } else { names_config_map };
        let one = reads && !namespace.is_empty() && !name.is_empty();
        let mut is_its_own = |pod: &Object| runs_on(pod, node) && names(pod, name);
        granted(one && lookup.any(&POD, namespace, &[node, name], &mut is_its_own), &unrelated)
    } else if is(&SERVICE_ACCOUNT) && reads {
        let mut runs_as = |pod: &Object| runs_on(pod, node) && service_account_of(pod) == name;
        let one = verb == "get" && !name.is_empty();
        granted(one && lookup.any(&POD, namespace, &[node, name], &mut runs_as), &unrelated)
    } else if is(&PERSISTENT_VOLUME_CLAIM) {
        granted(verb == "get" && !name.is_empty() && uses_claim(lookup, node, namespace, name), &unrelated)
    } else if is(&PERSISTENT_VOLUME) {
        let listed = matches!(verb, "list" | "watch") && name.is_empty() && selects_kept(labels, node);
        granted(listed || volume(lookup, node, verb, name), &unrelated)
    } else if is(&POD) && reads {
        let bound = || lookup.get(&POD, &Ref::new(namespace, name)).is_some_and(|p| p.str_at("/spec/nodeName") == node);
        if !name.is_empty() {
            return granted(bound() || (verb != "get" && selects_node(fields, node)), &unrelated);
        }
        let why = || "can only list/watch pods with spec.nodeName field selector".to_owned();
        granted(verb != "get" && selects_node(fields, node), &why)
    } else if is(&NODE) && reads {
        granted(name == node, &|| format!("node '{node}' cannot read '{name}', only its own Node object"))
    } else if is(&LEASE) {
        // What a create is called is in its body, which admission looks at.
        let own = namespace == NODE_LEASE_NAMESPACE && (name == node || verb == "create");
        let why = || format!("node '{node}' can only access its own lease in {NODE_LEASE_NAMESPACE}");
        granted(own && matches!(verb, "get" | "create" | "update" | "patch" | "delete"), &why)
    } else {
        Relation::Unrelated
    }
}

/// Whether the pod was given to the node. A mirror pod is what the node itself says, and opens nothing.
fn runs_on(pod: &Object, node: &str) -> bool {
    pod.str_at("/spec/nodeName") == node && pod.annotation(MIRROR_ANNOTATION).is_none()
}

/// Whether a pod of the node uses the claim.
fn uses_claim(lookup: &dyn Lookup, node: &str, namespace: &str, name: &str) -> bool {
    let names = |pod: &Object| storage::claims_of(pod).any(|used| used.claim == name);
    lookup.any(&POD, namespace, &[node], &mut |pod| runs_on(pod, node) && names(pod))
}

/// A node reads the volumes that its pods use, and those whose folders it keeps; of these, admission lets it take away its
/// own finalizer.
fn volume(lookup: &dyn Lookup, node: &str, verb: &str, name: &str) -> bool {
    let Some(volume) = lookup.get(&PERSISTENT_VOLUME, &Ref::cluster(name)) else { return false };
    let kept = volume.label(storage::LOCAL_PATH_NODE) == Some(node);
    let claim = |part: &str| volume.str_at(&format!("/spec/claimRef/{part}"));
    match verb {
        "get" => kept || uses_claim(lookup, node, claim("namespace"), claim("name")),
        "update" | "patch" => kept,
        _ => false,
    }
}

/// Whether a label selector asks for the volumes that this node keeps.
fn selects_kept(labels: &str, node: &str) -> bool {
    let selector = LabelSelector::parse(labels).unwrap_or_default();
    let own = Requirement::In(storage::LOCAL_PATH_NODE.to_owned(), vec![node.to_owned()]);
    selector.0.contains(&own)
}

/// Whether a field selector asks for pods of this node alone.
fn selects_node(fields: &str, node: &str) -> bool {
    let selector = FieldSelector::parse(fields).unwrap_or_default();
    selector.0.iter().any(|term| term.path == "spec.nodeName" && term.equal && term.value == node)
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
