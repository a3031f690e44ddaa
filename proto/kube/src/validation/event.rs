//! Event: as the core group has it, and as events.k8s.io/v1 does.
//!
//! Both
//! - An event is in the namespace of what it is about; what is in none has its events in `default` (one with an `eventTime`
//!   also in `kube-system`).
//! - One with an `eventTime` says who reports (a qualified name), which instance, what was done and why, in at most 128 bytes
//!   each, and has a note of at most 1024.
//!
//! Through events.k8s.io/v1 alone
//! - A new one has an `eventTime`, is `Normal` or `Warning`, a series of two or more with the time of the last, and nothing
//!   that is deprecated.
//! - Nothing changes but the series. Fields are called as the core group calls them.

use super::at::{At, Errors};
use super::format::qualified;
use crate::{FieldError, Object};

const TEXT_MAX_BYTES: usize = 128;
const NOTE_MAX_BYTES: usize = 1024;
/// Of an event that is in the namespace of nothing.
const FIXED: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
];

/// What holds in both groups; the reporter's field is called by its name in the one that was asked.
pub fn event(object: &Object, reporter: &str, errors: &mut Errors) {
    let involved = At::of(object, "involvedObject").field("namespace");
    let (own, about) = (object.namespace(), involved.text());
    let newer = At::of(object, "eventTime").is_set();
    let agrees = match about {
        "" => own == "default" || (newer && own == "kube-system"),
        about => newer || own == about,
    };
    if !agrees {
        errors.push(FieldError::invalid(involved.path.as_str(), about, "does not match event.namespace"));
    }
    if !newer {
        return;
    }
    let component = At { path: reporter.to_owned(), ..At::of(object, "reportingComponent") };
    component.required_as(errors, qualified);
    for field in ["reportingInstance", "action", "reason"] {
        let at = At::of(object, field);
        if at.present(errors) && at.text().len() > TEXT_MAX_BYTES {
            let why = format!("can have at most {TEXT_MAX_BYTES} characters");
            errors.push(FieldError::invalid(at.path.as_str(), "", why));
        }
    }
    if object.str_at("/message").len() > NOTE_MAX_BYTES {
        let why = format!("can have at most {NOTE_MAX_BYTES} characters");
        errors.push(FieldError::invalid("message", "", why));
    }
}

pub fn create_strict(object: &Object, errors: &mut Errors) {
    series(object, errors);
    let time = At::of(object, "eventTime");
    if !time.is_set() {
        time.required(errors, "");
    }
    let kind = object.str_at("/type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
    let old_source = At::of(object, "source").map().is_some_and(|source| !source.is_empty());
    for (field, set) in [
        ("firstTimestamp", At::of(object, "firstTimestamp").is_set()),
        ("lastTimestamp", At::of(object, "lastTimestamp").is_set()),
        ("count", At::of(object, "count").is_set()),
        ("source", old_source),
    ] {
        if set {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
}

fn series(object: &Object, errors: &mut Errors) {
    let series = At::of(object, "series");
    if !series.is_set() {
        return;
    }
    if series.int_of("count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    let last = series.field("lastObservedTime");
    if !last.is_set() {
        last.required(errors, "");
    }
}

pub fn update_strict(new: &Object, old: &Object, errors: &mut Errors) {
    if At::of(new, "series").value != At::of(old, "series").value {
        series(new, errors);
    }
    for field in FIXED {
        let at = At::of(new, field);
        let path = if field == "reportingComponent" { "reportingController" } else { field };
        At { path: path.to_owned(), ..at }.immutable(errors, &At::of(old, field));
    }
    At::of(new, "reportingInstance").immutable(errors, &At::of(old, "reportingInstance"));
}
