//! Kinds that are served for reading and whose effect is not built: an object that would be kept and not honoured is
//! refused instead.

use gantry_kube::{Object, Resource, Status};

pub(super) fn webhooks(_: &Object) -> Option<&'static str> {
    Some("admission webhooks are not called")
}

pub(super) fn policies(_: &Object) -> Option<&'static str> {
    Some("admission policies are not enforced")
}

pub(super) fn aggregation(object: &Object) -> Option<&'static str> {
    object.get("/spec/service").is_some().then_some("requests are not passed on to API servers behind a service")
}

/// The answer to such a write.
pub(super) fn refusal(resource: &Resource, name: &str, why: &str) -> Status {
    let message = format!("{} {name:?} is not accepted: {why} by this server yet", resource.qualified());
    let details = serde_json::json!({"name": name, "group": resource.group, "kind": resource.plural});
    Status { details, ..Status::new(501, "NotImplemented", message) }
}
