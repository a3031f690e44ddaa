//! APIService (apiregistration.k8s.io/v1).
//!
//! - Its name is its version and its group; a group is a subdomain (only `v1` has none), a version a label.
//! - `groupPriorityMinimum` is 1 to 20000, `versionPriority` 1 to 1000.
//! - One that this server serves itself has no certificates to check another by. One behind a service names it with its
//!   namespace and port, and either its certificates or that they are not checked.
//! - Conditions are true, false or unknown.

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{PORT_LAST, subdomain};
use super::meta::{NameRule, name_problem};
use crate::{FieldError, Object};

pub fn service(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let (group, version) = (spec.field("group"), spec.field("version"));
    let name = format!("{}.{}", version.text(), group.text());
    if object.name() != name {
        let why = format!("must be `spec.version+\".\"+spec.group`: {name:?}");
        errors.push(FieldError::invalid("metadata.name", object.name(), why));
    }
    if group.text().is_empty() && version.text() != "v1" {
        group.required(errors, "only v1 may have an empty group and it better be legacy kube");
    }
    group.optional_as(errors, subdomain);
    if let Some(why) = name_problem(NameRule::Dns1035, version.text()) {
        errors.push(FieldError::invalid(version.path.as_str(), version.text(), why));
    }
    for (field, last) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.field(field);
        let number = priority.int().unwrap_or(0);
        if !(1..=last).contains(&number) {
            let why = format!("must be positive and less than {last}");
            errors.push(FieldError::invalid(priority.path.as_str(), number, why));
        }
    }
    let (bundle, insecure) = (spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    match spec.get("service") {
        None => {
            if !bundle.text().is_empty() {
                bundle.invalid(errors, "local APIServices may not have a caBundle");
            }
            if insecure.value == &Value::Bool(true) {
                insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
            }
        }
        Some(service) => {
            service.field("namespace").present(errors);
            service.field("name").present(errors);
            let port = service.field("port");
            if port.int().is_none_or(|port| !(1..=PORT_LAST).contains(&port)) {
                port.invalid(errors, format!("port is not valid: must be between 1 and {PORT_LAST}, inclusive"));
            }
            if insecure.value == &Value::Bool(true) && !bundle.text().is_empty() {
                insecure.invalid(errors, "may not be true if caBundle is present");
            }
        }
    }
}

pub fn status(object: &Object, errors: &mut Errors) {
    for condition in At::of(object, "status").field("conditions").items() {
        let status = condition.field("status");
        if !["True", "False", "Unknown"].contains(&status.text()) {
            let words = ["True", "False", "Unknown"];
            errors.push(FieldError::not_supported(status.path.as_str(), status.text(), &words));
        }
    }
}
