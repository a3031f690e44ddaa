//! managedFields: who owns which fields, one entry a manager, operation and subresource. Who updates an object owns what it changed;
//! who applies one (server-side apply) owns what it said of it, and may not change what another owns unless it insists.

pub(super) mod scale;
mod versions;

use std::borrow::Cow;
use std::collections::BTreeMap;

use gantry_kube::apply::{Changes, Fields, PATHS_MAX, Typed, compare_objects, in_canonical_values, merge, prune};
use gantry_kube::{Object, Status, schema};
use serde_json::{Map, Value, json};

use crate::custom::Custom;
use versions::{Between, in_version};

/// Fields of metadata that nobody owns.
const SYSTEM_METADATA: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:uid",
    "f:resourceVersion",
    "f:creationTimestamp",
    "f:generation",
    "f:managedFields",
    "f:selfLink",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:generateName",
];
/// Of those who update: the oldest beyond them are one entry together.
const UPDATERS_MAX: usize = 10;
/// Of what a record calls somebody, his version, part and time.
const NAME_MAX_BYTES: usize = 512;
const ANCIENT: &str = "ancient-changes";
/// Who owns what there was before anybody's fields were noted.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

impl Entry {
    fn read(value: &Value) -> Option<Entry> {
        let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
        Some(Entry {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Fields::read(value["fieldsV1"].as_object()?),
        })
    }

    fn write(&self) -> Value {
        let mut entry = json!({"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.write()});
        for (name, value) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                entry[name] = json!(value);
            }
        }
        entry
    }

    /// Whose: of those who apply, whichever version they speak.
    fn is_of(&self, writer: &Manager<'_>, operation: &str, api_version: &str) -> bool {
        self.manager == writer.name
            && self.operation == operation
            && self.subresource == writer.subresource
            && (operation == APPLY || self.api_version == api_version)
    }

    fn place(&self) -> (&str, &str, &str, &str, &str) {
        (&self.operation, &self.time, &self.manager, &self.api_version, &self.subresource)
    }

    fn said(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == UPDATE { format!("{text} using {}", self.api_version) } else { text }
    }
}

/// Who writes, through what, and when.
#[derive(Clone, Copy)]
pub(super) struct Manager<'a> {
    pub name: &'a str,
    pub subresource: &'a str,
    pub time: &'a str,
    /// Of a custom kind, what its schema is.
    pub custom: Option<&'a Custom>,
}

impl<'a> Manager<'a> {
    pub(super) fn new(name: &'a str, subresource: &'a str, time: &'a str, custom: Option<&'a Custom>) -> Manager<'a> {
        Manager { name: if name.is_empty() { "unknown" } else { name }, subresource, time, custom }
    }

    /// What the schema says of an object of that version; one that it does not know is owned as a whole, top field by top field.
    fn typed(&self, object: &Object) -> Typed<'a> {
        if let Some(custom) = self.custom {
            return Typed::custom(&custom.schema);
        }
        let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
        schema::for_kind(group, version, object.kind()).map_or(Typed::Whole, Typed::kind)
    }

    /// Takes out what is nobody's, and what this subresource does not write.
    fn own(&self, fields: &mut Fields) {
        match self.scope() {
            Scope::Only(element) => fields.keep(element),
            Scope::AllBut(element) => fields.remove(&[element]),
        }
        for field in SYSTEM_METADATA {
            fields.remove(&["f:metadata", field]);
        }
        ["f:apiVersion", "f:kind"].iter().for_each(|field| fields.remove(&[field]));
    }

    fn own_changes(&self, changes: &mut Changes) {
        [&mut changes.added, &mut changes.modified, &mut changes.removed]
            .into_iter()
            .for_each(|fields| self.own(fields));
    }

    fn scope(&self) -> Scope {
        match self.subresource {
            "" => Scope::AllBut("f:status"),
            "status" | "approval" => Scope::Only("f:status"),
            _ => Scope::Only("f:spec"),
        }
    }
}

/// What of an object is written through a subresource.
enum Scope {
    Only(&'static str),
    AllBut(&'static str),
}

fn is_entry(value: &Value) -> bool {
    let known = |name: &str, all: &[&str]| value[name].as_str().is_some_and(|own| all.contains(&own));
    let is_short = |name: &str| value[name].as_str().unwrap_or("").len() <= NAME_MAX_BYTES;
    let named = ["manager", "apiVersion", "subresource", "time"].into_iter().all(is_short);
    named && known("operation", &[APPLY, UPDATE]) && known("fieldsType", &["FieldsV1"]) && Entry::read(value).is_some()
}

fn entries(object: &Object) -> Vec<Entry> {
    object.array_at("/metadata/managedFields").iter().filter_map(Entry::read).collect()
}

/// Those who apply first, then by time.
fn put(object: &mut Object, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| a.place().cmp(&b.place()));
    let updaters = entries.iter().filter(|entry| entry.operation == UPDATE).count();
    let mut excess = updaters.saturating_sub(UPDATERS_MAX);
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len() - excess);
    // Where in `kept` the oldest of a version is, which takes up those after it.
    let mut oldest: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        if entry.operation != UPDATE || excess == 0 {
            kept.push(entry);
            continue;
        }
        match oldest.get(&entry.api_version) {
            Some(at) => {
                let bucket = &mut kept[*at];
                bucket.fields.union(&entry.fields);
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time = entry.time;
                excess -= 1;
            }
            None => {
                oldest.insert(entry.api_version.clone(), kept.len());
                kept.push(entry);
            }
        }
    }
    restore(object, kept.iter().map(Entry::write).collect());
}

pub(super) fn restore(object: &mut Object, entries: Vec<Value>) {
    if entries.is_empty() {
        object.metadata_mut().remove("managedFields");
    } else {
        object.metadata_mut().insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// `api_version` is that in which the manager spoke, as it is everywhere here.
pub(super) fn on_create(object: &mut Object, api_version: &str, writer: &Manager<'_>) {
    let said = in_version(object, api_version).unwrap_or(Cow::Borrowed(object));
    let entry = Entry { subresource: String::new(), ..whole(&said, writer) };
    put(object, vec![entry]);
}

/// The entry of who has everything of an object that is to be had.
fn whole(object: &Object, writer: &Manager<'_>) -> Entry {
    let mut fields = writer.typed(object).fields_of(&object.0);
    writer.own(&mut fields);
    Entry {
        manager: writer.name.to_owned(),
        operation: UPDATE.to_owned(),
        api_version: object.api_version().to_owned(),
        subresource: writer.subresource.to_owned(),
        time: writer.time.to_owned(),
        fields,
    }
}

/// Notes what the manager changed; what others owned of it is the manager's now. Of an object without a record nothing is
/// noted, until somebody applies it.
pub(super) fn on_update(new: &mut Object, old: &Object, api_version: &str, writer: &Manager<'_>) {
    // A client may write the record itself, and an empty one drops it. What is no record changes nothing.
    let told = new.get("/metadata/managedFields").and_then(Value::as_array).cloned();
    let dropped =
        told.as_ref().is_some_and(|told| told.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)));
    let kept = match told.filter(|told| dropped || told.iter().all(is_entry)) {
        _ if dropped => Vec::new(),
        Some(told) => told,
        None => old.array_at("/metadata/managedFields").to_vec(),
    };
    let mut between = Between::new(old, new, writer);
    let changes = between.changes(api_version).cloned().unwrap_or_default();
    if kept.is_empty() || changes.is_empty() {
        restore(new, kept);
        return;
    }
    let mut entries: Vec<Entry> = kept.iter().filter_map(Entry::read).collect();
    let mut own = Fields::default();
    entries.retain_mut(|entry| {
        let mine = entry.is_of(writer, UPDATE, api_version);
        if mine {
            own.union(&entry.fields);
        }
        let Some(changes) = between.changes(&entry.api_version) else { return false };
        entry.fields.subtract(&changes.added);
        entry.fields.subtract(&changes.modified);
        entry.fields.subtract(&changes.removed);
        !mine
    });
    own.subtract(&changes.removed);
    own.union(&changes.added);
    own.union(&changes.modified);
    entries.push(Entry {
        manager: writer.name.to_owned(),
        operation: UPDATE.to_owned(),
        api_version: api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: writer.time.to_owned(),
        fields: own,
    });
    put(new, entries);
}

/// What somebody applies: as it came, and as the server would write the same.
pub(super) struct Wanted<'a> {
    pub said: &'a Object,
    pub canonical: &'a Object,
    pub force: bool,
}

impl Wanted<'_> {
    /// What is merged: all that was said and nothing else, in the server's own values. What nobody writes is left out, but for what
    /// says which object is meant.
    fn body(&self) -> Value {
        let (said, canonical) = (Value::Object(self.said.0.clone()), Value::Object(self.canonical.0.clone()));
        let mut body = in_canonical_values(&said, &canonical);
        if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
            let kept = ["name", "namespace", "uid", "resourceVersion"];
            metadata.retain(|key, _| kept.contains(&key.as_str()) || !SYSTEM_METADATA.iter().any(|f| f[2..] == **key));
        }
        body
    }
}

/// A new object that is applied.
pub(super) fn on_create_by_apply(wanted: &Wanted<'_>, writer: &Manager<'_>) -> Object {
    let mut object = wanted.canonical.clone();
    let fields = applied_fields(wanted.said, writer);
    put(&mut object, vec![applied(wanted.said.api_version(), writer, writer.time, fields)]);
    object
}

fn applied_fields(said: &Object, writer: &Manager<'_>) -> Fields {
    let mut fields = writer.typed(said).fields_of(&said.0);
    writer.own(&mut fields);
    fields
}

fn applied(api_version: &str, writer: &Manager<'_>, time: &str, fields: Fields) -> Entry {
    Entry {
        manager: writer.name.to_owned(),
        operation: APPLY.to_owned(),
        api_version: api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: time.to_owned(),
        fields,
    }
}

/// What is live with what is wanted of it, without what the same manager wanted before and nobody else does. Both are of the version
/// that the request is about.
pub(super) fn apply(live: &Object, wanted: &Wanted<'_>, writer: &Manager<'_>) -> Result<Object, Status> {
    let typed = writer.typed(live);
    let (mine, mut others): (Vec<Entry>, Vec<Entry>) =
        entries(live).into_iter().partition(|entry| entry.is_of(writer, APPLY, ""));
    let last = mine.into_iter().next();
    if last.is_none() && others.is_empty() {
        // Whose the fields are is not known, but that they are somebody's.
        others.push(whole(live, &Manager { name: BEFORE_FIRST_APPLY, ..*writer }));
    }
    let now = applied_fields(wanted.said, writer);
    let standing = Value::Object(live.0.clone());
    let Value::Object(merged) = merge(typed, &standing, &wanted.body()) else { return Ok(live.clone()) };
    let mut object = without_what_nobody_wants(Object::from(merged), last.as_ref(), &now, &others, writer);
    let client_side = ClientSide::of(live, typed, writer);
    let unchanged = {
        let mut between = Between::new(live, &object, writer);
        // Of a version that is served no more nothing is known.
        others.retain(|entry| between.changes(&entry.api_version).is_some());
        let mut conflicts = Vec::new();
        for entry in &others {
            let Some(changes) = between.changes(&entry.api_version) else { continue };
            let mut touched = changes.added.clone();
            touched.union(&changes.modified);
            let mut fields = entry.fields.intersection(&touched);
            if let Some(client_side) = &client_side {
                // What was applied by kubectl itself, before the server did, is kubectl's own.
                fields.subtract(&client_side.fields);
            }
            conflicts.push((entry.said(), fields));
        }
        conflicts.retain(|(_, fields)| !fields.is_empty());
        if !wanted.force && !conflicts.is_empty() {
            return Err(conflict(&conflicts));
        }
        for entry in &mut others {
            let Some(changes) = between.changes(&entry.api_version) else { continue };
            entry.fields.subtract(&changes.added);
            entry.fields.subtract(&changes.modified);
            entry.fields.subtract(&changes.removed);
        }
        let same = last.as_ref().is_some_and(|last| last.fields == now && last.api_version == live.api_version());
        same && between.changes(live.api_version()).is_none_or(Changes::is_empty)
    };
    if unchanged {
        return Ok(live.clone());
    }
    if client_side.is_some() {
        ClientSide::renew(&mut object, wanted.said);
    }
    others.push(applied(wanted.said.api_version(), writer, writer.time, now));
    put(&mut object, others);
    Ok(object)
}

/// What was merged, without what the manager applied before (`last`) and does not now, unless somebody else owns it.
fn without_what_nobody_wants(
    merged: Object,
    last: Option<&Entry>,
    now: &Fields,
    others: &[Entry],
    writer: &Manager<'_>,
) -> Object {
    let Some(last) = last else { return merged };
    // It is taken away in the version in which it was wanted.
    let Some(before) = in_version(&merged, &last.api_version).map(Cow::into_owned) else { return merged };
    let wanting = |api_version: &str| {
        let theirs = others.iter().filter(|entry| entry.api_version == api_version).map(|entry| &entry.fields);
        let mut owned = Fields::default();
        theirs.chain(Some(now).filter(|_| merged.api_version() == api_version)).for_each(|fields| owned.union(fields));
        owned
    };
    // Most fields are called alike in all versions; those that are not are seen to below.
    let mut owned = now.clone();
    others.iter().for_each(|entry| owned.union(&entry.fields));
    let typed = writer.typed(&before);
    let Value::Object(pruned) = prune(typed, Value::Object(before.0), &last.fields, &owned) else { return merged };
    let pruned = Object::from(pruned);
    let mut versions: Vec<&str> = others.iter().map(|entry| entry.api_version.as_str()).collect();
    versions.push(merged.api_version());
    versions.retain(|version| *version != last.api_version);
    versions.sort_unstable();
    versions.dedup();
    for version in versions {
        // What another version has otherwise is not taken apart: nothing goes that somebody wants there.
        let (Some(whole), Some(less)) = (in_version(&merged, version), in_version(&pruned, version)) else { continue };
        let gone = compare_objects(writer.typed(&whole), &whole.0, &less.0).removed;
        if !gone.intersection(&wanting(version)).is_empty() {
            return merged;
        }
    }
    match in_version(&pruned, merged.api_version()) {
        Some(pruned) => pruned.into_owned(),
        None => merged,
    }
}

/// What kubectl keeps of its own, client-side apply in an annotation. Where an object has it, and kubectl applies on the server, it is
/// kept up to date, so that there is a way back.
struct ClientSide {
    fields: Fields,
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The name by which kubectl applies on the server.
const KUBECTL: &str = "kubectl";
/// Of all annotations of an object (Kubernetes: TotalAnnotationSizeLimitB).
const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;

impl ClientSide {
    fn of(live: &Object, typed: Typed<'_>, writer: &Manager<'_>) -> Option<ClientSide> {
        let text = live.annotation(LAST_APPLIED).filter(|_| writer.name == KUBECTL && writer.subresource.is_empty())?;
        let last: Map<String, Value> = serde_json::from_str(text).ok()?;
        Some(ClientSide { fields: typed.fields_of(&last) })
    }

    fn renew(object: &mut Object, said: &Object) {
        let Some(annotations) = object.metadata_mut().get_mut("annotations").and_then(Value::as_object_mut) else {
            return;
        };
        let mut last = said.clone();
        if let Some(own) = last.metadata_mut().get_mut("annotations").and_then(Value::as_object_mut) {
            own.remove(LAST_APPLIED);
        }
        let text = format!("{}\n", Value::Object(last.0));
        let others = annotations.iter().filter(|(name, _)| *name != LAST_APPLIED);
        let bytes: usize = others.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
        // Without room it is empty, which client-side apply takes for none.
        let fits = bytes + LAST_APPLIED.len() + text.len() <= ANNOTATIONS_MAX_BYTES;
        annotations.insert(LAST_APPLIED.to_owned(), Value::from(if fits { text } else { String::new() }));
    }
}

/// Whether all that differs is when somebody wrote.
pub(super) fn differ_in_times_alone(new: &Object, old: &Object) -> bool {
    let timeless = |object: &Object| {
        let mut entries = entries(object);
        entries.iter_mut().for_each(|entry| entry.time.clear());
        entries.sort_by(|a, b| a.place().cmp(&b.place()));
        entries
    };
    let rest = |object: &Object| {
        let mut rest = object.clone();
        rest.metadata_mut().remove("managedFields");
        rest
    };
    rest(new) == rest(old) && timeless(new) == timeless(old)
}

/// 409 with a cause for each field that another owns.
fn conflict(conflicts: &[(String, Fields)]) -> Status {
    let all: usize = conflicts.iter().map(|(_, fields)| fields.count()).sum();
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (manager, fields) in conflicts {
        lines.push(format!("conflicts with {manager}:"));
        for path in fields.paths().into_iter().take(PATHS_MAX - causes.len()) {
            lines.push(format!("- {path}"));
            causes.push(
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path}),
            );
        }
        if causes.len() == PATHS_MAX {
            break;
        }
    }
    if all > causes.len() {
        lines.push(format!("and {} more", all - causes.len()));
    }
    let message = match (conflicts, causes.as_slice()) {
        ([(manager, _)], [cause]) if all == 1 => {
            let path = cause["field"].as_str().unwrap_or("");
            format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
        }
        _ => format!("Apply failed with {all} conflicts: {}", lines.join("\n")),
    };
    let mut status = Status::new(409, "Conflict", message);
    status.details = json!({"causes": causes});
    status
}

#[cfg(test)]
mod tests;
