//! The forms of an answer: the object, its metadata alone, or rows of a table.

use std::sync::Arc;

use bytes::Bytes;
use gantry_env::Clock;
use gantry_kube::{Object, Resource, Status, versions};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::media::{Form, Wanted};
use super::query::Query;
use crate::registry::watch::Shape;
use crate::registry::{self, Answer, Listed, columns};
use crate::store::Stored;
use crate::store::cache::Encoding;

/// What stands beside the cells of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub fn read(query: &Query) -> Result<Include, Status> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::Nothing),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(Status::bad_request(format!(
                "includeObject: Unsupported value: {other:?}: supported values: \"Metadata\", \"None\", \"Object\""
            ))),
        }
    }
}

fn partial(object: &Object, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.0.get("metadata")})
}

fn partial_bytes(stored: &Stored, version: &'static str) -> Bytes {
    let encoding = Encoding { api_version: version, media: "application/json;as=PartialObjectMetadata" };
    let made: Result<Bytes, std::convert::Infallible> = stored.encoded(encoding, |stored| {
        Ok(serde_json::to_vec(&partial(&stored.object(), version)).unwrap_or_default().into())
    });
    match made {
        Ok(bytes) => bytes,
    }
}

fn row(resource: &Resource, object: &Object, include: Include, version: &str, now: Timestamp) -> Value {
    let cells = (columns::of(resource).cells)(object, now);
    let mut row = json!({ "cells": cells });
    let beside = match include {
        Include::Nothing => return row,
        Include::Metadata => partial(object, version),
        Include::Object => versions::from_stored(resource, object).into_value(),
    };
    row["object"] = beside;
    row
}

fn table(resource: &Resource, metadata: Value, rows: Vec<Value>, version: &str, headers: bool) -> Value {
    let definitions: Vec<Value> = columns::of(resource)
        .columns
        .iter()
        .filter(|_| headers)
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": "", "priority": c.priority})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

pub fn yaml(bytes: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(bytes).map_err(Status::internal)?;
    serde_saphyr::to_string(&value).map(Into::into).map_err(Status::internal)
}

/// One object in the form that is wanted.
pub fn object(
    resource: &Resource,
    answer: &Answer,
    wanted: Wanted,
    include: Include,
    now: Timestamp,
) -> Result<Bytes, Status> {
    let bytes = match (wanted.form, answer) {
        (Form::Object, answer) => answer.json_as(resource),
        (Form::PartialMetadata { version }, Answer::Stored(stored)) => partial_bytes(stored, version),
        (Form::PartialMetadata { version }, Answer::Made(object)) => {
            serde_json::to_vec(&partial(object, version)).unwrap_or_default().into()
        }
        (Form::Table { version }, answer) => {
            let object = answer.object();
            let metadata = json!({"resourceVersion": object.resource_version()});
            let rows = vec![row(resource, &object, include, version, now)];
            serde_json::to_vec(&table(resource, metadata, rows, version, true)).unwrap_or_default().into()
        }
    };
    if wanted.yaml { yaml(&bytes) } else { Ok(bytes) }
}

/// A list in the form that is wanted.
pub fn list(
    resource: &'static Resource,
    listed: &Listed,
    wanted: Wanted,
    include: Include,
    now: Timestamp,
) -> Result<Bytes, Status> {
    let bytes: Bytes = match wanted.form {
        Form::Object => listed.json(resource).into(),
        Form::PartialMetadata { version } => {
            let head = json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": listed.metadata()});
            let mut out = serde_json::to_vec(&head).unwrap_or_default();
            out.pop();
            out.extend_from_slice(b",\"items\":[");
            for (i, item) in listed.items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&partial_bytes(item, version));
            }
            out.extend_from_slice(b"]}\n");
            out.into()
        }
        Form::Table { version } => {
            let rows = listed.items.iter().map(|item| row(resource, &item.object(), include, version, now)).collect();
            serde_json::to_vec(&table(resource, listed.metadata(), rows, version, true)).unwrap_or_default().into()
        }
    };
    if wanted.yaml { yaml(&bytes) } else { Ok(bytes) }
}

/// The objects of a watch in the form that is wanted.
pub struct WatchShape {
    pub resource: &'static Resource,
    pub form: Form,
    pub include: Include,
    pub clock: Clock,
    /// The columns go out with the first event alone.
    pub headers: bool,
}

impl Shape for WatchShape {
    fn object(&mut self, stored: &Arc<Stored>) -> Bytes {
        match self.form {
            Form::Object => registry::json_as(self.resource, stored),
            Form::PartialMetadata { version } => partial_bytes(stored, version),
            Form::Table { version } => {
                let object = stored.object();
                let metadata = json!({"resourceVersion": object.resource_version()});
                let rows = vec![row(self.resource, &object, self.include, version, self.clock.now())];
                let headers = std::mem::take(&mut self.headers);
                serde_json::to_vec(&table(self.resource, metadata, rows, version, headers)).unwrap_or_default().into()
            }
        }
    }

    fn bookmark(&mut self, mut bookmark: Value) -> Value {
        match self.form {
            Form::Object => bookmark,
            Form::PartialMetadata { version } => {
                bookmark["kind"] = json!("PartialObjectMetadata");
                bookmark["apiVersion"] = json!(format!("meta.k8s.io/{version}"));
                bookmark
            }
            Form::Table { version } => {
                let metadata = bookmark["metadata"].clone();
                let row = json!({"cells": [], "object": {"kind": "PartialObjectMetadata",
                    "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}});
                let metadata = json!({"resourceVersion": metadata["resourceVersion"]});
                table(self.resource, metadata, vec![row], version, false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;

    #[test]
    fn a_table_has_a_cell_for_each_column() {
        let object =
            Object::from_value(json!({"metadata": {"name": "a", "namespace": "b"}, "data": {"x": "y"}})).unwrap();
        let wanted = Wanted { form: Form::Table { version: "v1" }, yaml: false };
        let bytes = super::object(
            &resource::CONFIG_MAP,
            &Answer::Made(object),
            wanted,
            Include::Metadata,
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["columnDefinitions"].as_array().unwrap().len(), 3);
        assert_eq!(value["rows"][0]["cells"].as_array().unwrap()[..2], [json!("a"), json!(1)]);
        assert_eq!(value["rows"][0]["object"]["metadata"]["name"], "a");
    }
}
