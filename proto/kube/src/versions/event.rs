//! Event: the core group's form is stored, that of events.k8s.io has other names for the same things. What only older
//! reporters fill is called deprecated there.

use std::borrow::Cow;

use serde_json::json;

use crate::Object;

/// Fields of the core form, and of the other one.
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];
/// What the core form says even where it is empty, and the other does not.
const EMPTY: [&str; 2] = ["reportingController", "reportingInstance"];

fn renamed(mut object: Object, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Object {
    let fields = std::mem::take(&mut object.0);
    object.0 = fields.into_iter().map(|(key, value)| (name(&key).map_or(key, str::to_owned), value)).collect();
    object.0.insert("apiVersion".to_owned(), json!(api_version));
    object
}

pub(super) fn to_core(served: Object) -> Object {
    renamed(served, "v1", |key| NAMES.iter().find(|(_, other)| *other == key).map(|(core, _)| *core))
}

pub(super) fn from_core(stored: &Object) -> Object {
    let other = |key: &str| NAMES.iter().find(|(core, _)| *core == key).map(|(_, other)| *other);
    let mut served = renamed(stored.clone(), "events.k8s.io/v1", other);
    served.0.retain(|key, value| !(EMPTY.contains(&key.as_str()) && *value == ""));
    served
}

pub(super) fn core_field(path: &str) -> Option<Cow<'_, str>> {
    let (first, rest) = path.split_at(path.find('.').unwrap_or(path.len()));
    match NAMES.iter().find(|(core, other)| *core == first || *other == first) {
        None => Some(path.into()),
        Some((core, other)) if *other == first => Some(format!("{core}{rest}").into()),
        Some(_) => None,
    }
}
