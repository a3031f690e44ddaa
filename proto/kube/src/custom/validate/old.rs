//! What a value was before, found by its place: by name in objects, by the keys of lists that are maps; items of other lists have no
//! place that would tell. Source: the Kubernetes documentation "Validation ratcheting".

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Json;
use crate::custom::structural::Structural;
use crate::schema::ListType;

/// The old value beside its schema.
#[derive(Clone, Copy)]
pub(in crate::custom) struct Old<'a> {
    schema: &'a Structural,
    value: Json<'a>,
}

impl<'a> Old<'a> {
    pub(in crate::custom) fn of_object(schema: &'a Structural, object: &'a Map<String, Value>) -> Old<'a> {
        Old { schema, value: Json::Object(object) }
    }

    pub(in crate::custom) fn of_value(schema: &'a Structural, value: &'a Value) -> Old<'a> {
        Old { schema, value: value.into() }
    }

    /// What was under a key. Of what has no schema nothing is told.
    pub(in crate::custom) fn key(self, key: &str) -> Option<Old<'a>> {
        let Json::Object(map) = self.value else { return None };
        Some(Old { schema: self.schema.under(key)?, value: map.get(key)?.into() })
    }

    /// The items of a list that is a map, by their keys.
    pub(in crate::custom) fn items(self) -> Option<OldItems<'a>> {
        let Json::Array(items) = self.value else { return None };
        if self.schema.list_type != Some(ListType::Map) {
            return None;
        }
        let schema = self.schema.items.as_deref()?;
        let mut by_keys = BTreeMap::new();
        for item in items {
            if let Some(keys) = keys(self.schema, item) {
                by_keys.entry(keys).or_insert(item);
            }
        }
        Some(OldItems { list: self.schema, schema, by_keys })
    }

    pub(in crate::custom) fn is_object(self, new: &Map<String, Value>) -> bool {
        self.is(Json::Object(new))
    }

    pub(in crate::custom) fn is_value(self, new: &Value) -> bool {
        self.is(new.into())
    }

    /// Whether nothing changed, as far as places tell: lists that are maps may have another order.
    pub(super) fn is(self, new: Json<'_>) -> bool {
        match (self.value, new) {
            (Json::Array(before), Json::Array(after)) => {
                if before.len() != after.len() {
                    return false;
                }
                let Some(items) = self.items() else { return before == after };
                after.iter().all(|item| items.of(item).is_some_and(|old| old.is(item.into())))
            }
            (Json::Object(before), Json::Object(after)) => {
                before.len() == after.len()
                    && after.iter().all(|(key, value)| self.key(key).is_some_and(|old| old.is(value.into())))
            }
            (Json::Null, Json::Null) => true,
            (Json::Bool(before), Json::Bool(after)) => before == after,
            (Json::String(before), Json::String(after)) => before == after,
            (Json::Number(before), Json::Number(after)) => before == after,
            _ => false,
        }
    }
}

pub(in crate::custom) struct OldItems<'a> {
    list: &'a Structural,
    schema: &'a Structural,
    by_keys: BTreeMap<String, &'a Value>,
}

impl<'a> OldItems<'a> {
    pub(in crate::custom) fn of(&self, item: &Value) -> Option<Old<'a>> {
        Some(Old::of_value(self.schema, self.item(item)?))
    }

    /// What an item with these keys was before.
    pub(in crate::custom) fn item(&self, item: &Value) -> Option<&'a Value> {
        self.by_keys.get(&keys(self.list, item)?).copied()
    }
}

/// The keys of an item, as one text; defaults of keys were filled in before.
fn keys(list: &Structural, item: &Value) -> Option<String> {
    let item = item.as_object()?;
    let own: Vec<&Value> = list.list_map_keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null)).collect();
    serde_json::to_string(&own).ok()
}
