//! ServiceAccount: every pod runs as an account that is there, and finds its token, the cluster's CA and its namespace
//! where client libraries look for them.

mod secrets;

use std::sync::Arc;

use gantry_kube::resource::{POD, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref, Status};
use serde_json::{Map, Value, json};

use super::{AdmissionContext, MIRROR_ANNOTATION, Operation};
use crate::auth::token::service_account_of;

/// The account of pods that name none.
pub const DEFAULT_ACCOUNT: &str = "default";
pub const TOKEN_MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const VOLUME_SUFFIX_LENGTH: usize = 5;
/// An hour and a little: recognisable as a token that nobody asked for by hand.
const TOKEN_EXPIRATION_SECONDS: u64 = 60 * 60 + 7;

pub fn provide(context: &AdmissionContext<'_>, pod: &mut Object) -> Result<(), Status> {
    if !context.is(&POD, "") || context.operation != Operation::Create {
        return Ok(());
    }
    if pod.annotation(MIRROR_ANNOTATION).is_some() {
        return check(context, pod);
    }
    let name = match service_account_of(pod) {
        "" => DEFAULT_ACCOUNT.to_owned(),
        name => name.to_owned(),
    };
    let account = find(context, pod, &name)?;
    let spec = pod.map_mut("spec");
    spec.insert("serviceAccountName".to_owned(), json!(name));
    spec.insert("serviceAccount".to_owned(), json!(name));
    let automount = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if automount.or_else(|| account.bool_at("/automountServiceAccountToken")).unwrap_or(true) {
        mount_token(context, spec);
    }
    let pull_secrets = account.array_at("/imagePullSecrets");
    let has_own = spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !has_own && !pull_secrets.is_empty() {
        spec.insert("imagePullSecrets".to_owned(), json!(pull_secrets));
    }
    Ok(())
}

fn find(context: &AdmissionContext<'_>, pod: &Object, name: &str) -> Result<Arc<Object>, Status> {
    context.lookup.get(&SERVICE_ACCOUNT, &Ref::new(context.namespace, name)).ok_or_else(|| {
        let at = format!("{}/{name}", context.namespace);
        let why = format!("error looking up service account {at}: serviceaccount {name:?} not found");
        context.forbidden(pod, &why)
    })
}

/// A pod runs as somebody, who may be bound to the secrets that the account names.
pub fn check(context: &AdmissionContext<'_>, pod: &Object) -> Result<(), Status> {
    let created = context.is(&POD, "") && context.operation == Operation::Create;
    let looked_at = context.is(&POD, "ephemeralcontainers") && context.operation == Operation::Update;
    if !created && !looked_at {
        return Ok(());
    }
    if pod.annotation(MIRROR_ANNOTATION).is_some() {
        return check_mirror(context, pod);
    }
    let name = service_account_of(pod);
    if name.is_empty() {
        let at = format!("{}/{}", context.namespace, pod.name());
        return Err(context.forbidden(pod, &format!("no service account specified for pod {at}")));
    }
    let account = find(context, pod, name)?;
    if !secrets::is_bound(&account) {
        return Ok(());
    }
    let strange = if created { secrets::strange(pod, &account) } else { secrets::strange_to_watch(pod, &account) };
    strange.map_or(Ok(()), |why| Err(context.forbidden(pod, &why)))
}

/// A mirror pod is the shadow of what runs already: nothing that it references would ever reach it.
fn check_mirror(context: &AdmissionContext<'_>, pod: &Object) -> Result<(), Status> {
    if !service_account_of(pod).is_empty() {
        return Err(context.forbidden(pod, "a mirror pod may not reference service accounts"));
    }
    if secrets::references_any(pod) {
        return Err(context.forbidden(pod, "a mirror pod may not reference secrets"));
    }
    let reads_token = |volume: &Value| {
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        sources.into_iter().any(|source| !source["serviceAccountToken"].is_null())
    };
    if pod.array_at("/spec/volumes").iter().any(reads_token) {
        return Err(context.forbidden(pod, "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn mount_token(context: &AdmissionContext<'_>, spec: &mut Map<String, Value>) {
    let found =
        spec.get("volumes").and_then(Value::as_array).into_iter().flatten().find_map(|volume| {
            volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
        });
    let is_new = found.is_none();
    let volume =
        found.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", context.env.rng.name_suffix(VOLUME_SUFFIX_LENGTH)));
    let mut used = false;
    for key in ["initContainers", "containers"] {
        for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = list(container, "volumeMounts");
            // A mount of the pod's own at this place stands.
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_MOUNT_PATH}));
                used = true;
            }
        }
    }
    if used && is_new {
        list(spec, "volumes").push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// The array under `key`, made where it is absent or no array.
pub(super) fn list<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("made an array above"),
    }
}
