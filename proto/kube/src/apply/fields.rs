//! A set of fields, as `fieldsV1` holds it: a tree of path elements, `f:NAME` of a field, `k:{…}` of a list's item by its keys,
//! `v:…` by its value. A field below which others are named is itself in the set where it has a `.`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The element that this is below is itself in the set.
    pub(super) member: bool,
    pub(super) below: BTreeMap<String, Fields>,
}

impl Fields {
    pub(super) fn leaf() -> Fields {
        Fields { member: true, below: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// What `fieldsV1` says; what is none of it is passed over.
    pub fn read(fields: &Map<String, Value>) -> Fields {
        let mut all = Fields::default();
        for (element, value) in fields {
            if element == "." {
                all.member = true;
                continue;
            }
            let below = match value.as_object() {
                Some(map) if !map.is_empty() => Fields::read(map),
                _ => Fields::leaf(),
            };
            all.below.insert(element.clone(), below);
        }
        all
    }

    pub fn write(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        if self.member && !self.below.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, below) in &self.below {
            fields.insert(element.clone(), Value::Object(below.write()));
        }
        fields
    }

    pub(super) fn at(&self, element: &str) -> Option<&Fields> {
        self.below.get(element)
    }

    pub(super) fn put(&mut self, element: String, fields: Fields) {
        if !fields.is_empty() {
            self.below.insert(element, fields);
        }
    }

    /// Takes the whole of a field out.
    pub fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.below.remove(*first);
        } else if let Some(below) = self.below.get_mut(*first) {
            below.remove(rest);
            if below.is_empty() {
                self.below.remove(*first);
            }
        }
    }

    pub fn union(&mut self, other: &Fields) {
        self.member |= other.member;
        for (element, theirs) in &other.below {
            match self.below.get_mut(element) {
                Some(own) => own.union(theirs),
                None => {
                    self.below.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    pub fn subtract(&mut self, other: &Fields) {
        self.member &= !other.member;
        for (element, theirs) in &other.below {
            let emptied = self.below.get_mut(element).is_some_and(|own| {
                own.subtract(theirs);
                own.is_empty()
            });
            if emptied {
                self.below.remove(element);
            }
        }
    }

    pub fn intersection(&self, other: &Fields) -> Fields {
        let mut both = Fields { member: self.member && other.member, below: BTreeMap::new() };
        for (element, own) in &self.below {
            if let Some(theirs) = other.below.get(element) {
                both.put(element.clone(), own.intersection(theirs));
            }
        }
        both
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        usize::from(self.member) + self.below.values().map(Fields::count).sum::<usize>()
    }

    /// Leaves of the top fields only that one.
    pub fn keep(&mut self, element: &str) {
        self.below.retain(|own, _| own == element);
    }

    /// The path of each, as messages have it: `.spec.containers[name="a"].image`. No more than [`PATHS_MAX`].
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect_paths(&mut String::new(), &mut all);
        all
    }

    fn collect_paths(&self, at: &mut String, all: &mut Vec<String>) {
        if self.member && all.len() < PATHS_MAX {
            all.push(cut(at.clone()));
        }
        let length = at.len();
        for (element, below) in &self.below {
            if all.len() >= PATHS_MAX {
                return;
            }
            // What is cut anyway is not written out.
            if length < PATH_MAX_BYTES {
                say(element, at);
            }
            below.collect_paths(at, all);
            at.truncate(length);
        }
    }
}

/// In messages: names in a path are anybody's to choose, and so is how many there are.
pub const PATHS_MAX: usize = 100;
const PATH_MAX_BYTES: usize = 1 << 10;

pub(super) fn cut(mut path: String) -> String {
    if path.len() > PATH_MAX_BYTES {
        path.truncate(path.floor_char_boundary(PATH_MAX_BYTES));
        path.push('…');
    }
    path
}

pub(super) fn said(element: &str) -> String {
    let mut text = String::new();
    say(element, &mut text);
    text
}

fn say(element: &str, into: &mut String) {
    match element.split_once(':') {
        Some(("f", name)) => {
            into.push('.');
            into.push_str(name);
        }
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let _ = write!(into, "[{}]", keys.join(","));
        }
        Some(("v", value)) => {
            let _ = write!(into, "[={value}]");
        }
        Some(("i", index)) => {
            let _ = write!(into, "[{index}]");
        }
        _ => into.push_str(element),
    }
}
