//! managedFields: who owns which fields, one entry a manager, operation and subresource. Who updates an object owns what it changed;
//! who applies one (server-side apply) owns what it said of it, and may not change what another owns unless it insists.

use gantry_kube::apply::{Changes, Fields, Typed, compare_objects, merge, prune};
use gantry_kube::{Object, Status, schema};
use serde_json::{Map, Value, json};

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
const ANCIENT: &str = "ancient-changes";
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

    fn said(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == UPDATE { format!("{text} using {}", self.api_version) } else { text }
    }
}

/// Who writes, through what, and when.
pub(super) struct Manager<'a> {
    pub name: &'a str,
    pub subresource: &'a str,
    pub time: &'a str,
}

impl<'a> Manager<'a> {
    pub(super) fn new(name: &'a str, subresource: &'a str, time: &'a str) -> Manager<'a> {
        Manager { name: if name.is_empty() { "unknown" } else { name }, subresource, time }
    }

    /// Takes out what is nobody's, and what this subresource does not write.
    fn own(&self, fields: &mut Fields) {
        for path in self.foreign() {
            fields.remove(&path);
        }
    }

    fn own_changes(&self, changes: &mut Changes) {
        for path in self.foreign() {
            changes.remove(&path);
        }
    }

    fn foreign(&self) -> impl Iterator<Item = Vec<&'static str>> {
        let other = match self.subresource {
            "" => Some("f:status"),
            "status" => Some("f:spec"),
            _ => None,
        };
        let system = SYSTEM_METADATA.iter().map(|field| vec!["f:metadata", field]);
        system.chain(["f:apiVersion", "f:kind"].into_iter().chain(other).map(|field| vec![field]))
    }
}

/// What the schema says of an object of that version; one that it does not know is owned as a whole, top field by top field.
fn typed(object: &Object) -> Typed {
    let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
    schema::for_kind(group, version, object.kind()).map_or(Typed::Whole, Typed::kind)
}

fn entries(object: &Object) -> Vec<Entry> {
    object.array_at("/metadata/managedFields").iter().filter_map(Entry::read).collect()
}

/// Those who apply first, then by time.
fn put(object: &mut Object, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (e.operation.clone(), e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        };
        key(a).cmp(&key(b))
    });
    let updaters = entries.iter().filter(|entry| entry.operation == UPDATE).count();
    let mut excess = updaters.saturating_sub(UPDATERS_MAX);
    while excess > 0 {
        // Two become one: the oldest, and the oldest of its version beside it.
        let Some(first) = entries.iter().position(|entry| entry.operation == UPDATE) else { break };
        let oldest = entries.remove(first);
        let next = entries.iter_mut().find(|e| e.operation == UPDATE && e.api_version == oldest.api_version);
        match next {
            Some(next) => {
                next.fields.union(&oldest.fields);
                ANCIENT.clone_into(&mut next.manager);
                next.subresource.clear();
            }
            None => entries.insert(first, oldest),
        }
        excess -= 1;
    }
    restore(object, entries.iter().map(Entry::write).collect());
}

pub(super) fn restore(object: &mut Object, entries: Vec<Value>) {
    if entries.is_empty() {
        object.metadata_mut().remove("managedFields");
    } else {
        object.metadata_mut().insert("managedFields".to_owned(), Value::Array(entries));
    }
}

pub(super) fn on_create(object: &mut Object, writer: &Manager<'_>) {
    let mut fields = typed(object).fields_of(&object.0);
    writer.own(&mut fields);
    let entry = Entry {
        manager: writer.name.to_owned(),
        operation: UPDATE.to_owned(),
        api_version: object.api_version().to_owned(),
        subresource: String::new(),
        time: writer.time.to_owned(),
        fields,
    };
    put(object, vec![entry]);
}

/// Notes what the manager changed; what others owned of it is the manager's now.
pub(super) fn on_update(new: &mut Object, old: &Object, writer: &Manager<'_>) {
    // A client may write the record itself, and an empty one drops it.
    let told = new.get("/metadata/managedFields").and_then(Value::as_array).cloned();
    let dropped = told.as_ref().is_some_and(|told| told.iter().all(|entry| Entry::read(entry).is_none()));
    let kept = match told {
        _ if dropped => Vec::new(),
        Some(told) => told,
        None => old.array_at("/metadata/managedFields").to_vec(),
    };
    let typed = typed(new);
    let mut changes = compare_objects(typed, &old.0, &new.0);
    writer.own_changes(&mut changes);
    if changes.is_empty() && !dropped {
        restore(new, kept);
        return;
    }
    let mut entries: Vec<Entry> = kept.iter().filter_map(Entry::read).collect();
    let mut own = Fields::default();
    let api_version = new.api_version().to_owned();
    entries.retain_mut(|entry| {
        let mine = entry.is_of(writer, UPDATE, &api_version);
        if mine {
            own.union(&entry.fields);
        }
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
        api_version,
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

/// A new object that is applied.
pub(super) fn on_create_by_apply(wanted: &Wanted<'_>, writer: &Manager<'_>) -> Object {
    let mut object = wanted.canonical.clone();
    let fields = applied_fields(wanted.said, writer);
    put(&mut object, vec![applied(wanted.said.api_version(), writer, writer.time, fields)]);
    object
}

fn applied_fields(said: &Object, writer: &Manager<'_>) -> Fields {
    let mut fields = typed(said).fields_of(&said.0);
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
    let typed = typed(live);
    let (mine, mut others): (Vec<Entry>, Vec<Entry>) =
        entries(live).into_iter().partition(|entry| entry.is_of(writer, APPLY, ""));
    let last = mine.into_iter().next();
    let before = last.as_ref().map(|entry| entry.fields.clone()).unwrap_or_default();
    let now = applied_fields(wanted.said, writer);
    let mut owned = now.clone();
    others.iter().for_each(|entry| owned.union(&entry.fields));
    let standing = Value::Object(live.0.clone());
    let merged = merge(typed, &standing, &Value::Object(own_body(wanted.canonical)));
    let Value::Object(pruned) = prune(typed, merged, &before, &owned) else { return Ok(live.clone()) };
    let mut changes = compare_objects(typed, &live.0, &pruned);
    writer.own_changes(&mut changes);
    let mut touched = changes.added.clone();
    touched.union(&changes.modified);
    let conflicts = others.iter().map(|entry| (entry.said(), entry.fields.intersection(&touched)));
    let conflicts: Vec<(String, Fields)> = conflicts.filter(|(_, fields)| !fields.is_empty()).collect();
    if !wanted.force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    for entry in &mut others {
        entry.fields.subtract(&touched);
        entry.fields.subtract(&changes.removed);
    }
    let mut object = Object::from(pruned);
    let unchanged = changes.is_empty() && before == now;
    let time = last.as_ref().filter(|_| unchanged).map_or(writer.time, |entry| entry.time.as_str());
    others.push(applied(wanted.said.api_version(), writer, time, now));
    if unchanged {
        return Ok(live.clone());
    }
    put(&mut object, others);
    Ok(object)
}

/// What nobody writes is not merged either, but for what says which object is meant.
fn own_body(wanted: &Object) -> Map<String, Value> {
    let mut body = wanted.0.clone();
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        let kept = ["name", "namespace", "uid", "resourceVersion"];
        metadata.retain(|key, _| kept.contains(&key.as_str()) || !SYSTEM_METADATA.iter().any(|f| f[2..] == **key));
    }
    body
}

/// 409 with a cause for each field that another owns.
fn conflict(conflicts: &[(String, Fields)]) -> Status {
    let fields =
        conflicts.iter().flat_map(|(manager, fields)| fields.paths().into_iter().map(move |path| (manager, path)));
    let fields: Vec<(&String, String)> = fields.collect();
    let causes: Vec<Value> = fields
        .iter()
        .map(|(manager, path)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path}))
        .collect();
    let message = match fields.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        _ => {
            let mut lines = Vec::new();
            for (manager, fields) in conflicts {
                lines.push(format!("conflicts with {manager}:"));
                lines.extend(fields.paths().into_iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {} conflicts: {}", fields.len(), lines.join("\n"))
        }
    };
    let mut status = Status::new(409, "Conflict", message);
    status.details = json!({"causes": causes});
    status
}

#[cfg(test)]
mod tests;
