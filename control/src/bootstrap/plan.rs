//! Which writes bring the cluster's own objects to where they should be. Pure; empty when nothing is missing.

use gantry_kube::{Object, Ref, Resource};
use serde_json::{Map, Value};

use super::objects::{Seed, Upkeep};
use crate::auth::rules::Rule;

/// Set to "false" on a role or binding, it keeps a start from touching it.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create {
        resource: &'static Resource,
        object: Object,
    },
    /// The object carries the resourceVersion that it was read with.
    Update {
        resource: &'static Resource,
        object: Object,
    },
}

/// Creates come in the order of the seeds: namespaces before what lives in them.
pub fn plan<'a>(seeds: &[Seed], observed: impl Fn(&Resource, &Ref) -> Option<&'a Object>) -> Vec<Step> {
    seeds.iter().filter_map(|seed| step(seed, observed(seed.resource, &seed.object.reference()))).collect()
}

fn step(seed: &Seed, found: Option<&Object>) -> Option<Step> {
    let Some(found) = found else {
        return Some(Step::Create { resource: seed.resource, object: seed.object.clone() });
    };
    let mended = match seed.upkeep {
        Upkeep::Once => return None,
        Upkeep::Add if found.annotation(AUTOUPDATE) == Some("false") => return None,
        Upkeep::Add => added(found, &seed.object),
        Upkeep::Exact => exact(found, &seed.object),
    };
    (mended != *found).then_some(Step::Update { resource: seed.resource, object: mended })
}

/// `found` with the wanted labels, annotations, aggregation, rules and subjects that it lacks. What a binding refers to
/// cannot be changed, so one that refers elsewhere is left alone.
fn added(found: &Object, wanted: &Object) -> Object {
    if found.get("/roleRef/name") != wanted.get("/roleRef/name") {
        return found.clone();
    }
    let mut mended = found.clone();
    for key in ["labels", "annotations"] {
        add_missing_entries(mended.metadata_mut(), metadata(wanted), key);
    }
    if let Some(aggregation) = wanted.0.get("aggregationRule")
        && !mended.0.contains_key("aggregationRule")
    {
        mended.0.insert("aggregationRule".to_owned(), aggregation.clone());
    }
    add_missing_rules(&mut mended, wanted);
    let lacking: Vec<Value> = wanted
        .array_at("/subjects")
        .iter()
        .filter(|subject| {
            !found.array_at("/subjects").iter().any(|s| s["kind"] == subject["kind"] && s["name"] == subject["name"])
        })
        .cloned()
        .collect();
    append(&mut mended, "subjects", lacking);
    mended
}

fn add_missing_rules(mended: &mut Object, wanted: &Object) {
    let owned: Vec<Rule> = mended.array_at("/rules").iter().map(Rule::from_value).collect();
    let lacking = wanted
        .array_at("/rules")
        .iter()
        .filter(|rule| !Rule::from_value(rule).atoms().iter().all(|atom| owned.iter().any(|own| own.covers(atom))))
        .cloned()
        .collect();
    append(mended, "rules", lacking);
}

fn append(object: &mut Object, key: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match object.0.get_mut(key) {
        Some(Value::Array(list)) => list.extend(items),
        _ => {
            object.0.insert(key.to_owned(), Value::Array(items));
        }
    }
}

fn add_missing_entries(into: &mut Map<String, Value>, from: Option<&Map<String, Value>>, key: &str) {
    let Some(Value::Object(wanted)) = from.and_then(|from| from.get(key)) else { return };
    let slot = into.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(entries) = slot {
        for (name, value) in wanted {
            entries.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// `found` with the wanted content: every field of `wanted` but metadata, where labels are added.
fn exact(found: &Object, wanted: &Object) -> Object {
    let mut mended = found.clone();
    add_missing_entries(mended.metadata_mut(), metadata(wanted), "labels");
    for (key, value) in wanted.0.iter().filter(|(key, _)| *key != "metadata") {
        if !holds(mended.0.get(key).unwrap_or(&Value::Null), value) {
            mended.0.insert(key.clone(), value.clone());
        }
    }
    mended
}

/// Whether `found` says all that `wanted` does; defaults that the server has added beside it do not count.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| holds(found.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| holds(f, w))
        }
        _ => found == wanted,
    }
}

fn metadata(object: &Object) -> Option<&Map<String, Value>> {
    object.0.get("metadata")?.as_object()
}
