//! Which files a volume made from objects holds. Pure.

use std::collections::BTreeMap;

use gantry_kube::Object;
use gantry_kube::pod::containers;
use serde_json::Value;

use super::VolumeError;
use super::atomic::{File, Payload, is_safe_path};
use crate::pod::env::{PodFacts, data_of, field, resource_field};

const MODE_DEFAULT: i64 = 0o644;

fn mode_of(value: &Value, default: i64) -> u32 {
    u32::try_from(value.as_i64().unwrap_or(default)).unwrap_or(0o644) & 0o777
}

pub fn default_mode(source: &Value) -> i64 {
    source["defaultMode"].as_i64().unwrap_or(MODE_DEFAULT)
}

/// The files of a ConfigMap or Secret: all of them, or those that `items` names, at the paths it gives.
pub fn from_object(
    object: Option<&Object>,
    kind: &'static str,
    source: &Value,
    default: i64,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let name = source["name"].as_str().or_else(|| source["secretName"].as_str()).unwrap_or("");
    let optional = source["optional"] == true;
    let Some(object) = object else {
        return if optional { Ok(()) } else { Err(VolumeError::Missing { kind, name: name.to_owned() }) };
    };
    let mut data: BTreeMap<String, Vec<u8>> = data_of(object);
    let items = source["items"].as_array().map(Vec::as_slice).unwrap_or(&[]);
    if items.is_empty() {
        for (key, data) in data {
            insert(out, &key, data, mode_of(&Value::Null, default))?;
        }
        return Ok(());
    }
    for item in items {
        let key = item["key"].as_str().unwrap_or("");
        match data.remove(key) {
            Some(data) => insert(out, item["path"].as_str().unwrap_or(""), data, mode_of(&item["mode"], default))?,
            None if optional => {}
            None => return Err(VolumeError::Key { kind, name: name.to_owned(), key: key.to_owned() }),
        }
    }
    Ok(())
}

pub fn from_downward(
    pod: &Object,
    source: &Value,
    default: i64,
    facts: &PodFacts,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    for item in source["items"].as_array().into_iter().flatten() {
        let text = match item["fieldRef"]["fieldPath"].as_str() {
            Some(path) => field(pod, path, facts)?,
            None => {
                let first = containers(pod).first().unwrap_or(&Value::Null);
                resource_field(pod, first, &item["resourceFieldRef"], &facts.node_allocatable)?
            }
        };
        insert(out, item["path"].as_str().unwrap_or(""), text.into_bytes(), mode_of(&item["mode"], default))?;
    }
    Ok(())
}

pub fn insert(out: &mut Payload, path: &str, data: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
    if !is_safe_path(path) {
        return Err(VolumeError::Path(path.to_owned()));
    }
    out.insert(path.to_owned(), File { data, mode });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_choose_rename_and_set_modes() {
        let map = Object::from_value(json!({"kind": "ConfigMap", "data": {"a": "1", "b": "2"}})).unwrap();
        let mut out = Payload::new();
        let source = json!({"name": "m", "items": [{"key": "b", "path": "x/y", "mode": 0o400}]});
        from_object(Some(&map), "configmap", &source, 0o644, &mut out).unwrap();
        assert_eq!(out["x/y"], File { data: b"2".to_vec(), mode: 0o400 });
        assert_eq!(out.len(), 1);
        let source = json!({"name": "m", "items": [{"key": "c", "path": "c"}]});
        let refused = from_object(Some(&map), "configmap", &source, 0o644, &mut out).unwrap_err();
        assert_eq!(refused.to_string(), "configmap references non-existent config key: c (in \"m\")");
        assert!(from_object(None, "secret", &json!({"secretName": "s", "optional": true}), 0o644, &mut out).is_ok());
    }
}
