//! The few fields that selectors ask for, without parsing the rest: what is kept beside an object's bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gantry_kube::Object;
use gantry_kube::selector::field_text;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const LABELS: &str = "metadata.labels";

/// An object's labels and selectable fields as text: a few hundred bytes, where a parsed object's maps take kilobytes. Its name and
/// namespace stand in its key.
#[derive(Debug)]
pub struct Outline {
    labels: Box<[(Box<str>, Box<str>)]>,
    paths: &'static [&'static str],
    /// One for each of the paths.
    texts: Box<[Option<Box<str>>]>,
}

impl Outline {
    /// Of the object in `json`, with the fields at `paths` (`spec.nodeName`).
    pub fn read(json: &[u8], paths: &'static [&'static str]) -> Outline {
        let wanted: Vec<&str> = paths.iter().copied().chain([LABELS]).collect();
        let picked = Object(pick(std::str::from_utf8(json).unwrap_or("{}"), &wanted));
        let labels = picked.labels().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())));
        let text =
            |path: &str| picked.get(&path.replace('.', "/")).and_then(field_text).map(|text| text.as_ref().into());
        Outline { labels: labels.collect(), paths, texts: paths.iter().map(|path| text(path)).collect() }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value)
    }

    /// By the text that a field selector compares with.
    pub fn field(&self, path: &str) -> Option<Cow<'_, str>> {
        let number = self.paths.iter().position(|own| *own == path)?;
        self.texts.get(number)?.as_deref().map(Cow::Borrowed)
    }
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
        const FIELDS: &[&str] = &["spec.nodeName", "spec.hostNetwork", "status.phase", "type", "spec.containers"];
        let outline = Outline::read(pod.to_string().as_bytes(), FIELDS);
        let fields = FIELDS.iter().map(|path| outline.field(path));
        let expected = [Some("n"), Some("true"), None, Some("t"), None].map(|text| text.map(Cow::Borrowed));
        assert!(fields.eq(expected), "{outline:?}");
        assert_eq!((outline.label("x"), outline.label("z"), outline.field("metadata.name")), (Some("y"), None, None));
    }
}
