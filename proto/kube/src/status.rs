//! metav1.Status as an error: the code, the reason and the words of Kubernetes for everything an API call can refuse.

use serde_json::{Value, json};

use crate::{FieldError, Resource};

/// A refusal (or, rarely, a success) as the API answers it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
    /// `metadata`-less body of `details`; null where there is none.
    pub details: Value,
    /// With which a list that has expired can go on all the same (`metadata.continue`); empty where there is none.
    pub continue_token: String,
}

impl Status {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: Value::Null,
            continue_token: String::new(),
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Status {
        self.details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    pub fn not_found(resource: &Resource, name: &str) -> Status {
        Status::new(404, "NotFound", format!("{} {name:?} not found", resource.qualified())).about(resource, name)
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Status {
        Status::new(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified()))
            .about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Status::new(409, "Conflict", message).about(resource, name)
    }

    /// A write that carries a resourceVersion other than the stored one.
    pub fn stale(resource: &Resource, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Status {
        let subject = if name.is_empty() { resource.qualified() } else { format!("{} {name:?}", resource.qualified()) };
        Status::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(resource, name)
    }

    /// 422 with a cause for each broken rule.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Status {
        Status::invalid_kind(resource.group, resource.kind, name, errors)
    }

    /// The same of what a request asks for beside its object: `kind` is that of its options (`ListOptions`).
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Status {
        Status::invalid_kind("meta.k8s.io", kind, "", errors)
    }

    /// The same of any kind, which may be one that has no resource.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let list: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let body = match list.len() {
            1 => list[0].clone(),
            _ => format!("[{}]", list.join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status = Status::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {body}"));
        status.details = json!({
            "name": name, "group": group, "kind": kind,
            "causes": errors.iter().map(FieldError::cause).collect::<Vec<_>>(),
        });
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn method_not_allowed() -> Status {
        Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(supported: &str) -> Status {
        Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {supported}"))
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Status {
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// A body in none of the media types that are read.
    pub fn unknown_body(supported: &[&str]) -> Status {
        let supported = supported.join(", ");
        Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}"
        ))
    }

    pub fn too_large(limit_bytes: usize) -> Status {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit_bytes}"))
    }

    /// A watch or a page from before the oldest revision that is kept.
    pub fn gone(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Status::new(429, "TooManyRequests", message);
        status.details = json!({"retryAfterSeconds": retry_after_seconds});
        status
    }

    pub fn timeout(message: impl Into<String>) -> Status {
        Status::new(504, "Timeout", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::new(503, "ServiceUnavailable", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Status {
        Status::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": if self.code < 400 { "Success" } else { "Failure" },
        });
        if !self.continue_token.is_empty() {
            value["metadata"]["continue"] = json!(self.continue_token);
        }
        if !self.message.is_empty() {
            value["message"] = json!(self.message);
        }
        if !self.reason.is_empty() {
            value["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            value["details"] = self.details.clone();
        }
        value["code"] = json!(self.code);
        value
    }

    /// Reads what [`Status::to_value`] wrote, or what any API server did.
    pub fn from_value(value: &Value) -> Option<Status> {
        if value["kind"] != "Status" {
            return None;
        }
        Some(Status {
            code: u16::try_from(value["code"].as_u64()?).ok()?,
            reason: value["reason"].as_str().unwrap_or("").to_owned(),
            message: value["message"].as_str().unwrap_or("").to_owned(),
            details: value["details"].clone(),
            continue_token: value["metadata"]["continue"].as_str().unwrap_or("").to_owned(),
        })
    }
}
