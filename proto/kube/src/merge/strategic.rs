//! Strategic merge patch: what merges, and by which key, is told by the schema; directives (`$patch`, `$retainKeys`,
//! `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) are told by the patch.
//!
//! A list merges when its field says so, else it is replaced. Merged lists keep the patch's order for what the patch names
//! and the live order for the rest, interleaved by the live order where both sides are known to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::MergeError;
use crate::schema::{Field, Ty, Type, TypeRef};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Fields = Map<String, Value>;
type Result<T> = std::result::Result<T, MergeError>;

/// The original with the patch applied.
pub fn strategic(ty: TypeRef, original: Value, patch: Value) -> Result<Value> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            Ok(Value::Object(merge_map(original, patch, Some(ty.get()))?))
        }
        _ => Err(malformed("a strategic merge patch and what it patches are JSON maps")),
    }
}

fn malformed(problem: impl Into<String>) -> MergeError {
    MergeError::Malformed(problem.into())
}

fn merge_map(mut original: Fields, mut patch: Fields, ty: Option<&'static Type>) -> Result<Fields> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => return Ok(patch),
            "delete" => return Ok(Fields::new()),
            "merge" => {}
            _ => return Err(malformed(format!("unknown patch type: {directive} in map"))),
        },
        Some(other) => return Err(malformed(format!("unknown patch type: {other} in map"))),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, ty)?;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, name, value)?;
        } else if value.is_null() {
            original.remove(&key);
        } else {
            let merged = match original.remove(&key) {
                None => fresh(value)?,
                Some(live) => merge_value(live, value, ty.and_then(|ty| ty.field(&key)))?,
            };
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// A value under a key that both sides have.
fn merge_value(live: Value, patch: Value, field: Option<&'static Field>) -> Result<Value> {
    let merge_list = field.is_some_and(|f| f.patch_strategy.merge);
    match (live, patch) {
        (Value::Object(live), Value::Object(patch)) => {
            let ty = field.and_then(|f| match &f.ty {
                Ty::Struct(ty) => Some(ty.get()),
                _ => None,
            });
            Ok(Value::Object(merge_map(live, patch, ty)?))
        }
        (Value::Array(live), Value::Array(patch)) if merge_list => Ok(Value::Array(merge_list_of(live, patch, field)?)),
        (_, patch) => fresh(patch),
    }
}

/// A value that meets nothing: its nulls and directives mean nothing and are taken out.
fn fresh(value: Value) -> Result<Value> {
    Ok(match value {
        Value::Object(map) => {
            let mut kept = Fields::new();
            for (key, value) in map {
                if key != PATCH
                    && key != RETAIN_KEYS
                    && !key.starts_with(SET_ORDER)
                    && !key.starts_with(DELETE_FROM)
                    && !value.is_null()
                {
                    kept.insert(key, fresh(value)?);
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                match item.get(PATCH).and_then(Value::as_str) {
                    Some("delete") => {}
                    // An element that is nothing but the directive only said that the list is replaced.
                    Some("replace") if item.as_object().is_some_and(|m| m.len() == 1) => {}
                    _ => kept.push(fresh(item)?),
                }
            }
            Value::Array(kept)
        }
        other => other,
    })
}

/// `$retainKeys` lists all the fields that may stay: what else the live map has goes, and the patch may set nothing else.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(malformed("the $retainKeys directive is not a list")) };
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch.iter() {
        let directive = key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
        if !value.is_null() && !directive && !keys.contains(key.as_str()) {
            return Err(malformed(format!("the $retainKeys directive does not list {key:?}, which the patch sets")));
        }
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

/// Lists for which the patch gives an order: merged, then put into that order.
fn merge_ordered_lists(original: &mut Fields, patch: &mut Fields, ty: Option<&'static Type>) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let name = &directive[SET_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(malformed(format!("{directive} is not a list")));
        };
        let field = ty.and_then(|ty| ty.field(name));
        let key = field.and_then(|f| f.merge_key);
        let live = list_under(original, name)?;
        let patched = list_under(patch, name)?;
        if let Some(patched) = &patched {
            check_order(patched, &order, key, name)?;
        }
        let merged = match (live.clone(), patched) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(patched)) => match fresh(Value::Array(patched))? {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            (Some(live), Some(patched)) => match merge_value(Value::Array(live), Value::Array(patched), field)? {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
        };
        let ordered = in_order(merged, &order, &live.unwrap_or_default(), key);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// The list under a key, taken out; null counts as absent here, since an order says that the list is to be there.
fn list_under(map: &mut Fields, name: &str) -> Result<Option<Vec<Value>>> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_)) => match map.remove(name) {
            Some(Value::Array(items)) => Ok(Some(items)),
            _ => Ok(None),
        },
        Some(_) => Err(malformed(format!("{SET_ORDER}{name} orders what is not a list"))),
    }
}

/// What the patch sets in a list must stand in the order that it gives, in that order.
fn check_order(patched: &[Value], order: &[Value], key: Option<&str>, name: &str) -> Result<()> {
    let places = places(order, key);
    let mut last = None;
    for item in patched.iter().filter(|item| item.get(PATCH).is_none()) {
        let place = places.get(&identity(item, key)).copied();
        if place.is_none() || place < last {
            return Err(malformed(format!(
                "the order in patch list {name:?} doesn't match {SET_ORDER}{name}: {item} is not where it says"
            )));
        }
        last = place;
    }
    Ok(())
}

fn delete_from(original: &mut Fields, name: &str, value: Value) -> Result<()> {
    let Value::Array(gone) = value else { return Err(malformed(format!("{DELETE_FROM}{name} is not a list"))) };
    let gone: BTreeSet<String> = gone.iter().map(Value::to_string).collect();
    if let Some(Value::Array(items)) = original.get_mut(name) {
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

fn merge_list_of(live: Vec<Value>, patch: Vec<Value>, field: Option<&'static Field>) -> Result<Vec<Value>> {
    if live.iter().chain(&patch).all(|item| !item.is_object()) {
        let mut seen = BTreeSet::new();
        let both = live.iter().chain(&patch).filter(|item| seen.insert(item.to_string())).cloned().collect();
        return Ok(in_order(both, &patch, &live, None));
    }
    let name = field.map_or("", |f| f.name);
    let Some(key) = field.and_then(|f| f.merge_key) else {
        return Err(malformed(format!("cannot merge lists without merge key for {name}")));
    };
    let element = field.and_then(|f| match &f.ty {
        Ty::List(inner) => match &**inner {
            Ty::Struct(ty) => Some(ty.get()),
            _ => None,
        },
        _ => None,
    });
    let before = live.clone();
    let (live, patch) = special_elements(live, patch, key)?;
    let Some(patch) = patch else { return Ok(live) };
    let order: Vec<Value> = patch.iter().map(|item| item.as_object().map_or(Value::Null, |m| only(m, key))).collect();
    let mut merged: Vec<Value> = live;
    let mut index = places(&merged, Some(key));
    for item in patch {
        let Value::Object(item) = item else {
            return Err(malformed(format!("expected a map in list {name}, got {item}")));
        };
        if !item.contains_key(key) {
            let item = Value::Object(item);
            return Err(malformed(format!("map: {item} does not contain declared merge key: {key}")));
        }
        let id = identity_of(&item, key);
        match index.get(&id) {
            Some(at) => {
                let Value::Object(was) = merged[*at].take() else {
                    return Err(malformed(format!("expected a map in list {name}")));
                };
                merged[*at] = Value::Object(merge_map(was, item, element)?);
            }
            None => {
                index.insert(id, merged.len());
                merged.push(fresh(Value::Object(item))?);
            }
        }
    }
    Ok(in_order(merged, &order, &before, Some(key)))
}

/// Acts on the elements of the patch that carry `$patch`. The second list is None when the first is the result already.
fn special_elements(mut live: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Option<Vec<Value>>)> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut gone = BTreeSet::new();
    let mut replace = false;
    for mut item in patch {
        let directive = item.as_object_mut().and_then(|map| map.remove(PATCH));
        match directive.as_ref().map(|d| d.as_str().unwrap_or("")) {
            None | Some("merge") => plain.push(item),
            Some("replace") => {
                replace = true;
                // Beside the directive an element may carry a value of the new list.
                if item.as_object().is_some_and(|map| !map.is_empty()) {
                    plain.push(item);
                }
            }
            Some("delete") => match item.as_object().filter(|map| map.contains_key(key)) {
                Some(map) => {
                    gone.insert(identity_of(map, key));
                }
                None => return Err(malformed(format!("map: {item} does not contain declared merge key: {key}"))),
            },
            Some(other) => return Err(malformed(format!("unknown patch type: {other} in list"))),
        }
    }
    if replace {
        let Value::Array(plain) = fresh(Value::Array(plain))? else { return Ok((live, None)) };
        return Ok((plain, None));
    }
    live.retain(|item| !gone.contains(&identity(item, Some(key))));
    Ok((live, Some(plain)))
}

/// Puts a merged list in order: elements that `order` names in its order, the others in the live one's, interleaved.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (wanted, lived) = (places(order, key), places(live, key));
    let (mut named, mut rest): (Vec<_>, Vec<_>) =
        merged.into_iter().map(|item| (identity(&item, key), item)).partition(|(id, _)| wanted.contains_key(id));
    named.sort_by_key(|(id, _)| wanted.get(id).copied());
    rest.sort_by_key(|(id, _)| lived.get(id).copied().unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((left, _)), Some((right, _))) => match (lived.get(left), lived.get(right)) {
                (Some(left), Some(right)) => left < right,
                _ => false,
            },
        };
        result.extend(if rest_first { rest.next() } else { named.next() }.map(|(_, item)| item));
    }
}

/// Where each element stands first.
fn places(list: &[Value], key: Option<&str>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (at, item) in list.iter().enumerate() {
        places.entry(identity(item, key)).or_insert(at);
    }
    places
}

/// What tells elements of one list apart: the merge key's value, or the whole value.
fn identity(item: &Value, key: Option<&str>) -> String {
    match (item, key) {
        (Value::Object(map), Some(key)) => identity_of(map, key),
        _ => item.to_string(),
    }
}

fn identity_of(map: &Fields, key: &str) -> String {
    map.get(key).map(Value::to_string).unwrap_or_default()
}

fn only(map: &Fields, key: &str) -> Value {
    let mut one = Fields::new();
    if let Some(value) = map.get(key) {
        one.insert(key.to_owned(), value.clone());
    }
    Value::Object(one)
}
