//! RuntimeClass (node.k8s.io/v1).
//!
//! - `handler` is a DNS label, and never changes.
//! - `overhead.podFixed` holds what containers may be limited to.
//! - `scheduling.nodeSelector` holds labels, `scheduling.tolerations` tolerations as pods have them.

use std::collections::BTreeSet;

use serde_json::json;

use super::at::{At, Errors};
use super::format::{label, labels};
use super::pod::{resources, scheduling};
use crate::Object;

pub fn create(object: &Object, errors: &mut Errors) {
    let handler = At::of(object, "handler");
    if let Some(why) = label(handler.text()) {
        handler.invalid(errors, why);
    }
    let fixed = At::of(object, "overhead").field("podFixed");
    if fixed.is_set() {
        // What a class adds is checked, and named, as what a container is limited to.
        let limits = json!({"limits": fixed.value});
        resources::resources(&At { path: "overhead".to_owned(), value: &limits }, &BTreeSet::new(), errors);
    }
    let where_to = At::of(object, "scheduling");
    labels(&where_to.field("nodeSelector"), errors);
    for toleration in where_to.field("tolerations").items() {
        scheduling::toleration(&toleration, errors);
    }
}

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "handler").immutable(errors, &At::of(old, "handler"));
}
