//! Owners of one object may speak of it in different versions of its kind: what changed is told to each in its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gantry_kube::apply::{Changes, compare_objects};
use gantry_kube::{Object, Resource, versions};

use super::Manager;

/// The object as another version of its kind has it; `None` where there is no such version. Of a kind that has no table of its
/// versions, every version has it as it is.
pub(super) fn in_version<'a>(object: &'a Object, api_version: &str) -> Option<Cow<'a, Object>> {
    if object.api_version() == api_version {
        return Some(Cow::Borrowed(object));
    }
    let served = |api_version: &str| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Resource::by_kind(group, version, object.kind())
    };
    let Some(own) = served(object.api_version()) else { return Some(Cow::Borrowed(object)) };
    let other = served(api_version).filter(|other| other.group == own.group)?;
    let stored = versions::to_stored(own, object.clone()).ok()?;
    Some(Cow::Owned(versions::from_stored(other, &stored)))
}

/// What lies between two states of an object, as far as it is the manager's to write.
pub(super) struct Between<'a> {
    old: &'a Object,
    new: &'a Object,
    writer: &'a Manager<'a>,
    known: BTreeMap<String, Option<Changes>>,
}

impl<'a> Between<'a> {
    pub fn new(old: &'a Object, new: &'a Object, writer: &'a Manager<'a>) -> Between<'a> {
        Between { old, new, writer, known: BTreeMap::new() }
    }

    /// As a version has them; `None` where there is no such version.
    pub fn changes(&mut self, api_version: &str) -> Option<&Changes> {
        if !self.known.contains_key(api_version) {
            let changes = self.made(api_version);
            self.known.insert(api_version.to_owned(), changes);
        }
        self.known.get(api_version)?.as_ref()
    }

    fn made(&self, api_version: &str) -> Option<Changes> {
        let (old, new) = (in_version(self.old, api_version)?, in_version(self.new, api_version)?);
        let mut changes = compare_objects(self.writer.typed(&new), &old.0, &new.0);
        self.writer.own_changes(&mut changes);
        Some(changes)
    }
}
