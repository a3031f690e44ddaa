//! The few fields that selectors ask for, without parsing the rest: what is kept beside an object's bytes.

use std::collections::BTreeMap;

use gantry_kube::Object;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What every kind can be selected by.
const COMMON: [&str; 3] = ["metadata.name", "metadata.namespace", "metadata.labels"];

/// The object reduced to its name, namespace, labels, and `fields` (`spec.nodeName`).
pub fn outline(json: &[u8], fields: &[&str]) -> Object {
    let wanted: Vec<&str> = COMMON.iter().chain(fields).copied().collect();
    let text = std::str::from_utf8(json).unwrap_or("{}");
    Object(pick(text, &wanted))
}

fn pick(json: &str, wanted: &[&str]) -> Map<String, Value> {
    // What is not a map has none of the fields.
    let found: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
    let mut picked = Map::new();
    for (key, raw) in found {
        let below: Vec<&str> = wanted.iter().filter_map(|path| path.strip_prefix(&*key)?.strip_prefix('.')).collect();
        if wanted.contains(&&*key) {
            picked.insert(key, serde_json::from_str(raw.get()).unwrap_or_default());
        } else if !below.is_empty() {
            picked.insert(key, Value::Object(pick(raw.get(), &below)));
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_fields_that_are_asked_for_and_no_more() {
        let pod = json!({
            "kind": "Pod", "type": "t", "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}, "annotations": {"z": "z"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}], "hostNetwork": true}, "status": null,
        });
        let fields = ["spec.nodeName", "spec.hostNetwork", "status.phase", "type"];
        let expected = json!({
            "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}}, "type": "t",
            "spec": {"nodeName": "n", "hostNetwork": true}, "status": {},
        });
        assert_eq!(outline(pod.to_string().as_bytes(), &fields).into_value(), expected);
    }
}
