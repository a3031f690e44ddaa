//! Which secrets a pod draws on, and whether its account lets it.

use gantry_kube::{Object, pod};
use serde_json::Value;

/// An account with this annotation binds its pods to the secrets that it names.
const BOUND: &str = "kubernetes.io/enforce-mountable-secrets";

/// The volume sources that name a secret, and where in them.
const SOURCES: [(&str, &str); 11] = [
    ("secret", "/secretName"),
    ("azureFile", "/secretName"),
    ("cephfs", "/secretRef/name"),
    ("cinder", "/secretRef/name"),
    ("flexVolume", "/secretRef/name"),
    ("rbd", "/secretRef/name"),
    ("scaleIO", "/secretRef/name"),
    ("iscsi", "/secretRef/name"),
    ("storageos", "/secretRef/name"),
    ("csi", "/nodePublishSecretRef/name"),
    ("projected", "/sources"),
];

pub fn is_bound(account: &Object) -> bool {
    matches!(account.annotation(BOUND), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Whether a pod draws on any secret at all.
pub fn references_any(pod: &Object) -> bool {
    let named = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let by_volume = pod.array_at("/spec/volumes").iter().any(|volume| {
        SOURCES.iter().any(|(source, at)| match volume[*source].pointer(at) {
            Some(Value::Array(sources)) => sources.iter().any(|source| named(source.pointer("/secret/name"))),
            value => named(value),
        })
    });
    let pulled = pod.array_at("/spec/imagePullSecrets").iter().any(|secret| named(secret.get("name")));
    by_volume || pulled || pod::all_containers(pod).any(|container| drawn(container).next().is_some())
}

/// The secrets of a container's environment: for which variable, or for all of the secret.
fn drawn(container: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let one = container["env"].as_array().into_iter().flatten().filter_map(|variable| {
        let secret = variable["valueFrom"]["secretKeyRef"]["name"].as_str()?;
        Some((variable["name"].as_str(), secret))
    });
    let all = container["envFrom"].as_array().into_iter().flatten();
    one.chain(all.filter_map(|source| Some((None, source["secretRef"]["name"].as_str()?))))
}

fn names<'a>(account: &'a Object, list: &str) -> Vec<&'a str> {
    account.array_at(list).iter().filter_map(|secret| secret["name"].as_str()).collect()
}

/// The first secret of a pod's that its account does not name.
pub fn strange(pod: &Object, account: &Object) -> Option<String> {
    let known = names(account, "/secrets");
    let by_volume = pod.array_at("/spec/volumes").iter().find_map(|volume| {
        let secret = volume["secret"].as_object()?.get("secretName").and_then(Value::as_str).unwrap_or("");
        (!known.contains(&secret)).then(|| refusal(&format!("volume with secret.secretName={secret:?}"), account))
    });
    let by_container = || {
        let starting = pod::init_containers(pod).iter().map(|container| ("init container", container));
        let running = pod::containers(pod).iter().map(|container| ("container", container));
        strange_to(starting.chain(running), &known, account)
    };
    by_volume.or_else(by_container).or_else(|| {
        let pulled = names(account, "/imagePullSecrets");
        pod.array_at("/spec/imagePullSecrets").iter().enumerate().find_map(|(index, secret)| {
            let name = secret["name"].as_str().unwrap_or("");
            (!pulled.contains(&name)).then(|| {
                let account = account.name();
                format!(
                    "imagePullSecrets[{index}].name={name:?} is not allowed because service account {account} does not \
                     reference that imagePullSecret"
                )
            })
        })
    })
}

/// The same of the containers that are there to look at the others.
pub fn strange_to_watch(pod: &Object, account: &Object) -> Option<String> {
    let watching = pod::ephemeral_containers(pod).iter().map(|container| ("ephemeral container", container));
    strange_to(watching, &names(account, "/secrets"), account)
}

fn strange_to<'a>(
    mut containers: impl Iterator<Item = (&'static str, &'a Value)>,
    known: &[&str],
    account: &Object,
) -> Option<String> {
    containers.find_map(|(called, container)| {
        let (variable, secret) = drawn(container).find(|(_, secret)| !known.contains(secret))?;
        let container = container["name"].as_str().unwrap_or("");
        let by = variable.map_or("envFrom".to_owned(), |name| format!("envVar {name}"));
        Some(refusal(&format!("{called} {container} with {by} referencing secret.secretName={secret:?}"), account))
    })
}

fn refusal(what: &str, account: &Object) -> String {
    format!("{what} is not allowed because service account {} does not reference that secret", account.name())
}
