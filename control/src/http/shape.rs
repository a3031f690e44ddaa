//! The forms of an answer: the object, its metadata alone, or rows of a table.

use std::sync::Arc;

use bytes::Bytes;
use gantry_env::Clock;
use gantry_kube::custom::columns::{Cell, Column};
use gantry_kube::{Object, Resource, Status, versions};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::media::{BodyFormat, Form, Wanted};
use super::query::Query;
use crate::custom::{self, Custom};
use crate::registry::list::ProtobufList;
use crate::registry::watch::Shape;
use crate::registry::{Answer, Listed, columns, encoded};
use crate::store::Stored;

/// What stands beside the cells of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    fn read(query: &Query) -> Result<Include, Status> {
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

/// How the rows of a table are made.
pub struct Rows {
    include: Include,
    /// Of a custom kind, the version that is asked for.
    custom: Option<Custom>,
}

impl Rows {
    pub fn read(query: &Query, custom: Option<Custom>) -> Result<Rows, Status> {
        Ok(Rows { include: Include::read(query)?, custom })
    }

    fn definitions(&self, resource: &Resource) -> Vec<Value> {
        let defined = |name: &str, kind: &str, priority: u8| {
            let format = if name == "Name" { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
        };
        match &self.custom {
            Some(custom) => {
                [defined("Name", "string", 0)].into_iter().chain(custom.columns.iter().map(Column::head)).collect()
            }
            None => columns::of(resource).columns.iter().map(|c| defined(c.name, c.kind, c.priority)).collect(),
        }
    }

    fn cells(&self, resource: &Resource, object: &Object, now: Timestamp) -> Vec<Value> {
        match &self.custom {
            Some(custom) => {
                let whole = Value::Object(object.0.clone());
                let cell = |column: &Column| match column.cell(&whole) {
                    Cell::Value(value) => value,
                    Cell::Since(then) => json!(columns::human_duration(now.duration_since(then).as_secs())),
                };
                [json!(object.name())].into_iter().chain(custom.columns.iter().map(cell)).collect()
            }
            None => (columns::of(resource).cells)(object, now),
        }
    }

    fn row(&self, resource: &Resource, object: &Object, version: &str, now: Timestamp) -> Value {
        let mut row = json!({ "cells": self.cells(resource, object, now) });
        let beside = match self.include {
            Include::Nothing => return row,
            Include::Metadata => encoded::partial_of(object, version).into_value(),
            Include::Object if self.custom.is_some() => object.clone().into_value(),
            Include::Object => versions::from_stored(resource, object).into_value(),
        };
        row["object"] = beside;
        row
    }
}

fn table(metadata: Value, definitions: Vec<Value>, rows: Vec<Value>, version: &str) -> Value {
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

/// One object in the form that is wanted.
pub fn object(
    resource: &Resource,
    answer: &Answer,
    wanted: Wanted,
    rows: &Rows,
    now: Timestamp,
) -> Result<Bytes, Status> {
    match (wanted.form, answer) {
        (Form::Object, answer) => whole(resource, answer, wanted.format),
        (Form::PartialMetadata { version }, Answer::Stored(stored)) => encoded::partial(stored, version, wanted.format),
        (Form::PartialMetadata { version }, Answer::Made(object)) => {
            encoded::made(&encoded::partial_of(object, version), wanted.format)
        }
        (Form::Table { version }, answer) => {
            let object = match answer {
                Answer::Stored(stored) => custom::prepared(resource, stored),
                Answer::Made(object) => Arc::new(object.clone()),
            };
            let metadata = json!({"resourceVersion": object.resource_version()});
            let row = rows.row(resource, &object, version, now);
            made(&table(metadata, rows.definitions(resource), vec![row], version), wanted.format)
        }
    }
}

fn whole(resource: &Resource, answer: &Answer, format: BodyFormat) -> Result<Bytes, Status> {
    match (format, answer) {
        (BodyFormat::Json, answer) => Ok(answer.json_as(resource)),
        (BodyFormat::Yaml, answer) => encoded::yaml(&answer.json_as(resource)),
        (BodyFormat::Protobuf, Answer::Stored(stored)) => encoded::protobuf_as(resource, stored),
        (BodyFormat::Protobuf, Answer::Made(object)) => {
            encoded::made(&versions::from_stored(resource, object), BodyFormat::Protobuf)
        }
    }
}

/// What is a table is in one of the two texts.
fn made(value: &Value, format: BodyFormat) -> Result<Bytes, Status> {
    let json = serde_json::to_vec(value).map_err(Status::internal)?;
    if format == BodyFormat::Yaml { encoded::yaml(&json) } else { Ok(json.into()) }
}

/// A list in the form that is wanted, in one of the two texts.
pub fn list(
    resource: &'static Resource,
    listed: &Listed,
    wanted: Wanted,
    rows: &Rows,
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
                out.extend_from_slice(&encoded::partial(item, version, BodyFormat::Json)?);
            }
            out.extend_from_slice(b"]}\n");
            out.into()
        }
        Form::Table { version } => {
            let row = |item: &Arc<Stored>| rows.row(resource, &custom::prepared(resource, item), version, now);
            let all = listed.items.iter().map(row).collect();
            return made(&table(listed.metadata(), rows.definitions(resource), all, version), wanted.format);
        }
    };
    if wanted.format == BodyFormat::Yaml { encoded::yaml(&bytes) } else { Ok(bytes) }
}

/// A list of whole objects, or of their metadata, in protobuf.
pub async fn protobuf_list(resource: &'static Resource, listed: &Listed, form: Form) -> Result<ProtobufList, Status> {
    if let Form::PartialMetadata { version } = form {
        let (api_version, kind) = (format!("meta.k8s.io/{version}"), "PartialObjectMetadataList");
        let body = |stored: &Stored| encoded::partial(stored, version, BodyFormat::Protobuf);
        return listed.in_protobuf(&api_version, kind, body).await;
    }
    let kind = format!("{}List", resource.kind);
    let body = |stored: &Stored| encoded::protobuf_as(resource, stored);
    listed.in_protobuf(&resource.api_version(), &kind, body).await
}

/// The objects of a watch in the form that is wanted.
pub struct WatchShape {
    pub resource: &'static Resource,
    pub wanted: Wanted,
    pub rows: Rows,
    pub clock: Clock,
    /// The columns go out with the first event alone.
    pub headers: bool,
}

impl Shape for WatchShape {
    fn format(&self) -> BodyFormat {
        self.wanted.format
    }

    fn object(&mut self, stored: &Arc<Stored>) -> Result<Bytes, Status> {
        match (self.wanted.form, self.wanted.format) {
            (Form::Object, BodyFormat::Protobuf) => encoded::protobuf_as(self.resource, stored),
            (Form::Object, BodyFormat::Json | BodyFormat::Yaml) => Ok(encoded::json_as(self.resource, stored)),
            (Form::PartialMetadata { version }, format) => encoded::partial(stored, version, format),
            (Form::Table { version }, format) => {
                let object = custom::prepared(self.resource, stored);
                let metadata = json!({"resourceVersion": object.resource_version()});
                let row = self.rows.row(self.resource, &object, version, self.clock.now());
                let headers = std::mem::take(&mut self.headers);
                let definitions = if headers { self.rows.definitions(self.resource) } else { Vec::new() };
                made(&table(metadata, definitions, vec![row], version), format)
            }
        }
    }

    fn bookmark(&mut self, mut bookmark: Value) -> Value {
        match self.wanted.form {
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
                table(metadata, Vec::new(), vec![row], version)
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
        let wanted = Wanted { form: Form::Table { version: "v1" }, format: BodyFormat::Json };
        let bytes = super::object(
            &resource::CONFIG_MAP,
            &Answer::Made(object),
            wanted,
            &Rows { include: Include::Metadata, custom: None },
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["columnDefinitions"].as_array().unwrap().len(), 3);
        assert_eq!(value["rows"][0]["cells"].as_array().unwrap()[..2], [json!("a"), json!(1)]);
        assert_eq!(value["rows"][0]["object"]["metadata"]["name"], "a");
    }
}
