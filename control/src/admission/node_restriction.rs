//! NodeRestriction: a node's credential writes its own Node, its own Lease, and the status of the pods that run there.
//!
//! RBAC says which kinds a node may write at all; here is whose. A node that is taken over must not be able to draw pods
//! to itself, to change another node, or to get a token of a pod that it does not run.

use std::collections::BTreeSet;

use gantry_kube::resource::{CSI_NODE, LEASE, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref, Status, storage};
use serde_json::{Map, Value};

use super::{AdmissionContext, MIRROR_ANNOTATION, NODE_LEASE_NAMESPACE, Operation};
use crate::auth::Action;
use crate::auth::identity::NODES_GROUP;
use crate::auth::policy::Policy;
use crate::auth::token::service_account_of;

const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io/";
/// The labels of Kubernetes' own that a node may say of itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub fn check(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
    if !context.identity.in_group(NODES_GROUP) {
        return Ok(());
    }
    let Some(node) = context.identity.node() else {
        return Err(
            context.forbidden(object, &format!("could not determine node from user {:?}", context.identity.user))
        );
    };
    let refuse = |why: String| Err(context.forbidden(object, &why));
    match (context.resource, context.subresource) {
        (r, "") if r == &POD => pod(context, node, object, old).or_else(refuse),
        (r, "status") if r == &POD => pod_status(node, object, old).or_else(refuse),
        (r, "eviction") if r == &POD => {
            let pod = context.lookup.get(&POD, &Ref::new(context.namespace, context.name));
            match pod {
                Some(pod) if pod.str_at("/spec/nodeName") == node => Ok(()),
                Some(_) => refuse(format!("node {node:?} can only evict pods with spec.nodeName set to itself")),
                None => Err(Status::not_found(&POD, context.name)),
            }
        }
        (r, part) if r == &POD => {
            refuse(format!("unexpected pod subresource {part:?}, only 'status' and 'eviction' are allowed"))
        }
        (r, "status") if r == &PERSISTENT_VOLUME_CLAIM && context.operation == Operation::Update => Ok(()),
        (r, _) if r == &PERSISTENT_VOLUME_CLAIM => refuse("may only update PVC status".to_owned()),
        (r, _) if r == &NODE => own_node(context, node, object, old).or_else(refuse),
        (r, _) if r == &PERSISTENT_VOLUME => volume(node, object, old).or_else(refuse),
        (r, _) if r == &CSI_NODE => csi_node(context, node, object).or_else(refuse),
        (r, _) if r == &LEASE => lease(context, node, object).or_else(refuse),
        (r, "token") if r == &SERVICE_ACCOUNT => token(context, node, object).or_else(refuse),
        _ => Ok(()),
    }
}

fn pod(context: &AdmissionContext<'_>, node: &str, pod: &Object, old: Option<&Object>) -> Result<(), String> {
    match context.operation {
        Operation::Create => mirror(context, node, pod),
        Operation::Delete if old.unwrap_or(pod).str_at("/spec/nodeName") == node => Ok(()),
        Operation::Delete => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        Operation::Update | Operation::Connect => {
            let operation = context.operation.word();
            Err(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"))
        }
    }
}

/// A node may only add the shadow of a static pod of its own, which can draw on nothing.
fn mirror(context: &AdmissionContext<'_>, node: &str, pod: &Object) -> Result<(), String> {
    if pod.annotation(MIRROR_ANNOTATION).is_none() {
        return Err(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.str_at("/spec/nodeName") != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.array_at("/metadata/ownerReferences");
    let own = context.lookup.get(&NODE, &Ref::cluster(node));
    for owner in owners {
        let is_itself = owner["apiVersion"] == "v1"
            && owner["kind"] == NODE.kind
            && owner["name"] == node
            && own.as_ref().is_some_and(|own| owner["uid"] == own.uid());
        if !is_itself {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"] == true {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
    }
    if owners.len() > 1 {
        return Err(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    }
    if !service_account_of(pod).is_empty() {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    match reference_in(pod) {
        Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The first kind of object that a pod draws on.
fn reference_in(pod: &Object) -> Option<&'static str> {
    let set = |value: &Value| !value.is_null();
    for volume in pod.array_at("/spec/volumes") {
        if set(&volume["persistentVolumeClaim"]) || set(&volume["ephemeral"]) {
            return Some("persistentvolumeclaims");
        }
        if set(&volume["secret"]) {
            return Some("secrets");
        }
        if set(&volume["configMap"]) {
            return Some("configmaps");
        }
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            for (key, what) in
                [("secret", "secrets"), ("configMap", "configmaps"), ("serviceAccountToken", "serviceaccounts")]
            {
                if set(&source[key]) {
                    return Some(what);
                }
            }
        }
    }
    if !pod.array_at("/spec/imagePullSecrets").is_empty() {
        return Some("secrets");
    }
    if !pod.array_at("/spec/resourceClaims").is_empty() {
        return Some("resourceclaims");
    }
    let containers = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|key| pod.array_at(&format!("/spec/{key}")));
    for container in containers {
        let env = container["env"].as_array().into_iter().flatten().map(|env| &env["valueFrom"]);
        for (keys, what) in
            [(["secretRef", "secretKeyRef"], "secrets"), (["configMapRef", "configMapKeyRef"], "configmaps")]
        {
            let from = container["envFrom"].as_array().into_iter().flatten();
            if env.clone().chain(from).any(|source| keys.iter().any(|key| set(&source[*key]))) {
                return Some(what);
            }
        }
    }
    None
}

fn pod_status(node: &str, pod: &Object, old: Option<&Object>) -> Result<(), String> {
    let Some(old) = old else { return Err(format!("node {node:?} can only update pod status")) };
    if old.str_at("/spec/nodeName") != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if pod.labels().cloned().unwrap_or_default() != old.labels().cloned().unwrap_or_default() {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if pod.get("/status/resourceClaimStatuses") != old.get("/status/resourceClaimStatuses") {
        return Err(format!("node {node:?} cannot update resource claim statuses"));
    }
    Ok(())
}

fn own_node(context: &AdmissionContext<'_>, node: &str, object: &Object, old: Option<&Object>) -> Result<(), String> {
    let asked = if context.name.is_empty() { object.name() } else { context.name };
    if asked != node || (context.operation == Operation::Create && object.name() != node) {
        return Err(format!("node {node:?} is not allowed to modify node {asked:?}"));
    }
    if !matches!(context.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let source = |node: Option<&Object>| node.and_then(|node| node.get("/spec/configSource")).cloned();
    if source(Some(object)).is_some_and(|asked| Some(asked) != source(old)) {
        let what = if old.is_some() { "update configSource to a new" } else { "create pods with a" };
        return Err(format!("node {node:?} is not allowed to {what} non-nil configSource"));
    }
    let refused = restricted_labels(object.labels(), old.and_then(Object::labels));
    if !refused.is_empty() {
        let list: Vec<&str> = refused.into_iter().collect();
        let list = list.join(", ");
        return Err(if old.is_some() {
            format!("is not allowed to modify labels: {list}")
        } else {
            format!("node {node:?} is not allowed to set the following labels: {list}")
        });
    }
    // An owner that does not exist would have the garbage collector delete the node, and its taints with it.
    if object.array_at("/metadata/ownerReferences") != old.map_or(&[][..], |o| o.array_at("/metadata/ownerReferences"))
    {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    match old {
        Some(old) if object.array_at("/spec/taints") != old.array_at("/spec/taints") => {
            Err(format!("node {node:?} is not allowed to modify taints"))
        }
        _ => Ok(()),
    }
}

/// The labels that differ from before and are not a node's to say.
fn restricted_labels<'a>(
    new: Option<&'a Map<String, Value>>,
    old: Option<&'a Map<String, Value>>,
) -> BTreeSet<&'a str> {
    let keys = |map: Option<&'a Map<String, Value>>| map.into_iter().flat_map(Map::keys);
    let value = |map: Option<&'a Map<String, Value>>, key: &str| map.and_then(|map| map.get(key)).cloned();
    keys(new)
        .chain(keys(old))
        .filter(|key| value(new, key) != value(old, key))
        .filter(|key| is_restricted(key))
        .map(String::as_str)
        .collect()
}

fn is_restricted(key: &str) -> bool {
    if key.starts_with(RESTRICTED_PREFIX) {
        return true;
    }
    let Some((domain, _)) = key.split_once('/') else { return false };
    let within = |root: &str| domain == root || domain.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    of_kubernetes && !OWN_LABELS.contains(&key) && !OWN_LABEL_DOMAINS.iter().any(|own| within(own))
}

/// Of a volume that the node keeps, and that is on its way out, it may say that the folder is gone.
fn volume(node: &str, object: &Object, old: Option<&Object>) -> Result<(), String> {
    let Some(old) = old else { return Err(format!("node {node:?} can only release persistent volumes")) };
    let mut released = old.clone();
    let kept: Vec<Value> =
        old.finalizers().filter(|finalizer| *finalizer != storage::LOCAL_PATH).map(Value::from).collect();
    if kept.is_empty() {
        released.metadata_mut().remove("finalizers");
    } else {
        released.metadata_mut().insert("finalizers".to_owned(), Value::Array(kept));
    }
    let own = old.label(storage::LOCAL_PATH_NODE) == Some(node) && old.deletion_timestamp().is_some();
    let same = |key: &str| object.0.get(key) == released.0.get(key);
    let finalizers = object.array_at("/metadata/finalizers") == released.array_at("/metadata/finalizers");
    let names = |key: &str| object.get(&format!("/metadata/{key}")) == old.get(&format!("/metadata/{key}"));
    let unchanged = ["labels", "annotations", "ownerReferences"].into_iter().all(names);
    if own && finalizers && unchanged && same("spec") && same("status") {
        return Ok(());
    }
    Err(format!("node {node:?} can only take the finalizer {:?} from its own volumes", storage::LOCAL_PATH))
}

fn csi_node(context: &AdmissionContext<'_>, node: &str, object: &Object) -> Result<(), String> {
    let name = if context.operation == Operation::Create { object.name() } else { context.name };
    if name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn lease(context: &AdmissionContext<'_>, node: &str, lease: &Object) -> Result<(), String> {
    if context.namespace != NODE_LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {NODE_LEASE_NAMESPACE:?} system namespace"));
    }
    let name = if context.operation == Operation::Create { lease.name() } else { context.name };
    if name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn token(context: &AdmissionContext<'_>, node: &str, request: &Object) -> Result<(), String> {
    let reference = request.get("/spec/boundObjectRef").filter(|reference| !reference.is_null());
    let Some(reference) = reference.filter(|r| r["kind"] == POD.kind && r["apiVersion"] == "v1") else {
        return Err("node requested token not bound to a pod".to_owned());
    };
    let (name, uid) = (reference["name"].as_str().unwrap_or(""), reference["uid"].as_str().unwrap_or(""));
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    let Some(pod) = context.lookup.get(&POD, &Ref::new(context.namespace, name)) else {
        return Err(format!("pod {name:?} not found"));
    };
    if pod.uid() != uid {
        return Err(format!("the UID in the bound object reference ({uid}) does not match the UID in record"));
    }
    if pod.str_at("/spec/nodeName") != node {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    if service_account_of(&pod) != context.name {
        return Err("node requested token bound to a pod that runs as a different service account".to_owned());
    }
    audience(context, &pod, request)
}

/// A token is for whom the pod presents it to, or for whom the node was granted to ask.
fn audience(context: &AdmissionContext<'_>, pod: &Object, request: &Object) -> Result<(), String> {
    let asked = match request.array_at("/spec/audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or(""),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    let sources = pod.array_at("/spec/volumes").iter().flat_map(|volume| volume["projected"]["sources"].as_array());
    let mut tokens = sources.flatten().map(|source| &source["serviceAccountToken"]).filter(|token| !token.is_null());
    if tokens.any(|token| token["audience"].as_str().unwrap_or("") == asked) {
        return Ok(());
    }
    let action = Action::Resource {
        verb: "request-serviceaccounts-token-audience",
        group: "",
        resource: asked,
        subresource: "",
        namespace: context.namespace,
        name: context.name,
        fields: "",
        labels: "",
    };
    if Policy::compile(context.lookup).authorize(context.identity, &action).is_allowed() {
        return Ok(());
    }
    Err(format!("audience {asked:?} not found in pod spec volume"))
}
