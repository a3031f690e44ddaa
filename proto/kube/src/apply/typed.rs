//! Values with what the schema says of them: the fields that they have, two of them merged, compared, and one without what nobody
//! wants any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::custom::{self, Items, Place};
use super::fields::Fields;
use crate::custom::Structural;
use crate::schema::{Field, ListType, Ty, Type, TypeRef};

/// How a value is owned.
#[derive(Clone, Copy, Debug)]
pub enum Typed<'a> {
    /// As a whole: scalars, and what the schema calls atomic or knows nothing of.
    Whole,
    /// Field by field.
    Struct(&'static Type),
    /// Entry by entry, each of that type.
    Map(&'static Ty),
    /// Item by item, told apart by their values.
    Set,
    /// Item by item, told apart by these fields of theirs.
    Keyed(&'static Ty, &'static [&'static str]),
    /// Field by field, as the schema of a custom kind has them.
    Custom(Place<'a>),
    /// Item by item, the same.
    CustomKeyed(Items<'a>),
    /// As the value itself is: a map entry by entry, anything else as a whole.
    Deduced,
}

impl Typed<'static> {
    /// A built-in kind's own object.
    pub fn kind(ty: TypeRef) -> Typed<'static> {
        Typed::Struct(ty.get())
    }

    fn of(ty: &'static Ty, field: Option<&'static Field>) -> Typed<'static> {
        let whole = field.is_some_and(|field| field.map_atomic);
        match ty {
            Ty::Struct(ty) if !whole && !ty.atomic => Typed::Struct(ty.get()),
            Ty::Map(value) if !whole => Typed::Map(value),
            Ty::List(item) => match field.map(|field| (field.list_type, field.map_keys.as_slice())) {
                Some((Some(ListType::Set), _)) => Typed::Set,
                Some((Some(ListType::Map), keys)) if !keys.is_empty() => Typed::Keyed(item, keys),
                _ => Typed::Whole,
            },
            _ => Typed::Whole,
        }
    }
}

impl<'a> Typed<'a> {
    /// A custom kind's own object.
    pub fn custom(schema: &'a Structural) -> Typed<'a> {
        custom::root(schema)
    }

    /// Whether a map is owned by what is in it.
    fn is_by_entry(self) -> bool {
        matches!(self, Typed::Struct(_) | Typed::Map(_) | Typed::Custom(_) | Typed::Deduced)
    }

    /// Whether a list is owned by what is in it.
    fn is_by_item(self) -> bool {
        matches!(self, Typed::Set | Typed::Keyed(..) | Typed::CustomKeyed(_))
    }

    /// What stands under a key of a struct or map; of a struct's unknown fields nothing is known.
    fn under(self, key: &str) -> Typed<'a> {
        match self {
            Typed::Struct(ty) => ty.field(key).map_or(Typed::Whole, |field| Typed::of(&field.ty, Some(field))),
            Typed::Map(value) => Typed::of(value, None),
            Typed::Custom(place) => place.under(key),
            Typed::Deduced => Typed::Deduced,
            _ => Typed::Whole,
        }
    }

    fn item(self) -> Typed<'a> {
        match self {
            Typed::Keyed(item, _) => Typed::of(item, None),
            Typed::CustomKeyed(items) => items.item(),
            _ => Typed::Whole,
        }
    }

    /// A field that the schema names is there with what is below it; an entry of a map is something of its own.
    fn names(self, key: &str) -> bool {
        match self {
            Typed::Struct(ty) => ty.field(key).is_some(),
            Typed::Custom(place) => place.names(key),
            _ => false,
        }
    }

    /// Whether the schema leaves room for a field of that name.
    fn allows(self, key: &str) -> bool {
        match self {
            Typed::Struct(_) => self.names(key),
            Typed::Custom(place) => place.allows(key),
            _ => true,
        }
    }
}

fn field(key: &str) -> String {
    format!("f:{key}")
}

/// What a list calls an item: by its keys, for which the schema may have defaults, or by its value.
fn element(typed: Typed<'_>, item: &Value) -> String {
    let mut own = Map::new();
    let mut put = |key: &str, default: &dyn Fn() -> Option<Value>| {
        if let Some(value) = item.get(key).cloned().or_else(default) {
            own.insert(key.to_owned(), value);
        }
    };
    match typed {
        Typed::Keyed(ty, keys) => keys.iter().for_each(|key| {
            put(key, &|| {
                let Ty::Struct(ty) = ty else { return None };
                let text = ty.get().field(key)?.default?;
                Some(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
            });
        }),
        Typed::CustomKeyed(items) => items.keys().for_each(|(key, default)| put(key, &|| default.clone())),
        _ => return format!("v:{item}"),
    }
    format!("k:{}", Value::Object(own))
}

/// A list's items by what it calls them: more than one only where a client wrote an item twice.
fn by_name<'v>(typed: Typed<'_>, items: &'v [Value]) -> BTreeMap<String, Vec<&'v Value>> {
    let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in items {
        all.entry(element(typed, item)).or_default().push(item);
    }
    all
}

/// The keys of a list, where an item has none of them and the schema no default for one.
fn omitted_keys(typed: Typed<'_>, item: &Value) -> Option<String> {
    let Typed::Keyed(ty, keys) = typed else { return None };
    let default = |key: &str| matches!(ty, Ty::Struct(ty) if ty.get().field(key).is_some_and(|f| f.default.is_some()));
    let omitted = keys.iter().all(|key| item.get(*key).is_none() && !default(key));
    omitted.then(|| format!("[{}]", keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(" ")))
}

fn is_bare(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

impl Typed<'_> {
    /// The fields that an object has.
    pub fn fields_of(self, object: &Map<String, Value>) -> Fields {
        let mut all = Fields::default();
        for (key, value) in object {
            all.put(field(key), self.fields_under(key, value));
        }
        all
    }

    /// The fields that a value has.
    pub fn fields(self, value: &Value) -> Fields {
        let mut all = Fields::default();
        match (self, value) {
            (_, Value::Object(map)) if self.is_by_entry() => return self.fields_of(map),
            (_, Value::Array(items)) if self.is_by_item() => {
                for (name, items) in by_name(self, items) {
                    all.put(name, self.fields_of_items(&items));
                }
            }
            (Typed::Whole | Typed::Deduced, _) => all.member = true,
            // A list or map that is null, or is not what the schema says, is its parent's to name.
            _ => {}
        }
        all
    }

    fn fields_under(self, key: &str, value: &Value) -> Fields {
        let mut fields = self.under(key).fields(value);
        fields.member |= is_bare(value) || !self.names(key);
        fields
    }

    /// Several that are called the same are owned as one.
    fn fields_of_items(self, items: &[&Value]) -> Fields {
        match items {
            [item] => self.fields_of_item(item),
            _ => Fields::leaf(),
        }
    }

    fn fields_of_item(self, item: &Value) -> Fields {
        let mut fields = self.item().fields(item);
        fields.member = true;
        fields
    }
}

/// What is wrong, and the path that leads there from where one looks.
type Wrong = (String, String);

impl Typed<'_> {
    /// What of an object the schema knows nothing of, or could not tell apart, in Kubernetes' words; the first of it.
    pub fn wrong(self, object: &Map<String, Value>) -> Option<String> {
        let (path, problem) = self.wrong_below(object)?;
        Some(format!("{}: {problem}", super::fields::cut(path)))
    }

    fn wrong_below(self, object: &Map<String, Value>) -> Option<Wrong> {
        object.iter().find_map(|(key, value)| {
            let (path, problem) = match !self.allows(key) {
                true => (String::new(), "field not declared in schema".to_owned()),
                false => self.under(key).wrong_in(value)?,
            };
            Some((format!(".{key}{path}"), problem))
        })
    }

    fn wrong_in(self, value: &Value) -> Option<Wrong> {
        match (self, value) {
            (_, Value::Object(map)) if self.is_by_entry() => self.wrong_below(map),
            (_, Value::Array(items)) if self.is_by_item() => {
                let mut seen = BTreeSet::new();
                items.iter().enumerate().find_map(|(at, item)| {
                    if let Some(keys) = omitted_keys(self, item) {
                        let problem = format!(
                            "element {at}: associative list with keys has an element that omits all key fields {keys} \
                             (and doesn't have default values for any key fields)"
                        );
                        return Some((String::new(), problem));
                    }
                    let name = element(self, item);
                    let shown = || super::fields::cut(super::fields::said(&name));
                    if let Some((path, problem)) = self.item().wrong_in(item) {
                        return Some((format!("{}{path}", shown()), problem));
                    }
                    let twice = (String::new(), format!("duplicate entries for key {}", shown()));
                    (!seen.insert(name.clone())).then_some(twice)
                })
            }
            _ => None,
        }
    }
}

/// What was said, with its values as the server writes them: `canonical` is the same object without what means nothing in Go
/// (zeros, nulls, empty lists), which here means that it is to be so, and with what it had to have.
pub fn in_canonical_values(said: &Value, canonical: &Value) -> Value {
    match (said, canonical) {
        (Value::Object(said), Value::Object(canonical)) => {
            let value = |(key, value): (&String, &Value)| match canonical.get(key) {
                Some(canonical) => (key.clone(), in_canonical_values(value, canonical)),
                None => (key.clone(), value.clone()),
            };
            Value::Object(said.iter().map(value).collect())
        }
        (Value::Array(said), Value::Array(canonical)) if said.len() == canonical.len() => Value::Array(
            said.iter().zip(canonical).map(|(said, canonical)| in_canonical_values(said, canonical)).collect(),
        ),
        (_, canonical) => canonical.clone(),
    }
}

/// `live` with what `wanted` says of it.
pub fn merge(typed: Typed<'_>, live: &Value, wanted: &Value) -> Value {
    match (typed, live, wanted) {
        (_, Value::Object(live), Value::Object(wanted)) if typed.is_by_entry() => {
            let mut merged = live.clone();
            for (key, value) in wanted {
                let value = match live.get(key) {
                    Some(before) => merge(typed.under(key), before, value),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (_, Value::Array(live), Value::Array(wanted)) if typed.is_by_item() => {
            Value::Array(merge_items(typed, live, wanted))
        }
        _ => wanted.clone(),
    }
}

/// What both have stands in the order of `wanted`; what only the live list has stays behind what it was behind.
fn merge_items(typed: Typed<'_>, live: &[Value], wanted: &[Value]) -> Vec<Value> {
    let name = |item: &Value| element(typed, item);
    let named: Vec<(String, &Value)> = wanted.iter().map(|item| (name(item), item)).collect();
    let asked: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let live: Vec<(String, &Value)> = live.iter().map(|item| (name(item), item)).collect();
    let places: BTreeMap<&str, usize> =
        live.iter().enumerate().rev().map(|(at, (name, _))| (name.as_str(), at)).collect();
    let mut known = BTreeSet::new();
    let twice: BTreeSet<&str> =
        live.iter().map(|(name, _)| name.as_str()).filter(|name| !known.insert(*name)).collect();
    let mut merged = Vec::with_capacity(live.len().max(wanted.len()));
    let mut taken = 0;
    let mut seen = BTreeSet::new();
    for (name, item) in &named {
        if !seen.insert(name.as_str()) {
            continue;
        }
        let place = places.get(name.as_str()).copied();
        // Before one that is new, those that stand where it comes; before one that is known, all that stand before it.
        while let Some((name, item)) = live.get(taken) {
            let is_asked = asked.contains(name.as_str());
            if place.map_or(is_asked, |place| taken >= place) {
                break;
            }
            if !is_asked {
                merged.push((*item).clone());
            }
            taken += 1;
        }
        merged.push(match place {
            // Of several that are called the same none is meant.
            Some(place) if !twice.contains(name.as_str()) => merge(typed.item(), live[place].1, item),
            _ => (*item).clone(),
        });
        taken += usize::from(place == Some(taken));
    }
    let rest = live[taken..].iter().filter(|(name, _)| !asked.contains(name.as_str()));
    merged.extend(rest.map(|(_, item)| (*item).clone()));
    merged
}

/// Which fields one value has and another has not, or has otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Fields,
    pub modified: Fields,
    pub removed: Fields,
}

impl Changes {
    fn put(&mut self, element: &str, below: Changes) {
        self.added.put(element.to_owned(), below.added);
        self.modified.put(element.to_owned(), below.modified);
        self.removed.put(element.to_owned(), below.removed);
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// The same of two objects of a kind.
pub fn compare_objects(typed: Typed<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Changes {
    let mut changes = Changes::default();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => changes.put(&field(key), compare(typed.under(key), before, value)),
            None => changes.added.put(field(key), typed.fields_under(key, value)),
        }
    }
    for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        changes.removed.put(field(key), typed.fields_under(key, value));
    }
    changes
}

pub fn compare(typed: Typed<'_>, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    if old == new {
        return changes;
    }
    match (typed, old, new) {
        (_, Value::Object(old), Value::Object(new)) if typed.is_by_entry() => {
            return compare_objects(typed, old, new);
        }
        (_, Value::Array(old), Value::Array(new)) if typed.is_by_item() => {
            let (old, new) = (by_name(typed, old), by_name(typed, new));
            for (name, items) in &new {
                match (old.get(name).map(Vec::as_slice), items.as_slice()) {
                    (Some([before]), [item]) => changes.put(name, compare(typed.item(), before, item)),
                    (Some(before), now) if before.len() > 1 && now.len() > 1 => {
                        let modified = if before == now { Fields::default() } else { Fields::leaf() };
                        changes.modified.put(name.clone(), modified);
                    }
                    (before, now) => {
                        changes.added.put(name.clone(), typed.fields_of_items(now));
                        if let Some(before) = before {
                            changes.removed.put(name.clone(), typed.fields_of_items(before));
                        }
                    }
                }
            }
            for (name, items) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                changes.removed.put(name.clone(), typed.fields_of_items(items));
            }
        }
        _ => changes.modified.member = true,
    }
    changes
}

/// A value without what one manager had applied before (`last`) and nobody owns any more (`owned`, all managers together).
pub fn prune(typed: Typed<'_>, value: Value, last: &Fields, owned: &Fields) -> Value {
    let nothing = Fields::default();
    match (typed, value) {
        (_, Value::Object(map)) if typed.is_by_entry() => {
            let mut kept = Map::new();
            for (key, value) in map {
                let element = field(&key);
                let (before, still) = (last.at(&element), owned.at(&element).unwrap_or(&nothing));
                let Some(before) = before else {
                    kept.insert(key, value);
                    continue;
                };
                // A field that the schema names counts with what is below it.
                let is_in = |fields: &Fields| if typed.names(&key) { !fields.is_empty() } else { fields.member };
                if is_in(before) && !is_in(still) {
                    continue;
                }
                let value = prune(typed.under(&key), value, before, still);
                kept.insert(key, value);
            }
            Value::Object(kept)
        }
        (_, Value::Array(items)) if typed.is_by_item() => {
            let keep = |item: Value| {
                let name = element(typed, &item);
                let Some(before) = last.at(&name) else { return Some(item) };
                let still = owned.at(&name).unwrap_or(&nothing);
                if before.member && !still.member { None } else { Some(prune(typed.item(), item, before, still)) }
            };
            Value::Array(items.into_iter().filter_map(keep).collect())
        }
        (_, value) => value,
    }
}
