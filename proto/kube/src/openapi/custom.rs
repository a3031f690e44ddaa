//! Custom kinds in the documents: their paths, and their definitions made of the schema that the kind came with.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::paths::{
    Answer, Body, DELETE, DELETE_COLLECTION, GET, Kind, LIST, Operation, Query, Served, WRITE, capital,
};
use super::schemas::{Dialect, reference};
use crate::schema::{self, TypeRef};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// What `explain` shows of the fields that every object has.
const OF_API_VERSION: &str = "The group and version whose schema this object is written in.";
const OF_KIND: &str = "The kind of this object, in CamelCase.";

/// What is done at a path: the method, `x-kubernetes-action`, and the name that operations of the kind begin with.
struct Verb {
    method: &'static str,
    action: &'static str,
    name: &'static str,
    query: &'static [Query],
}

const LISTING: Verb = Verb { method: "get", action: "list", name: "list", query: LIST };
const LISTING_ALL: Verb = Verb { name: "listAll", ..LISTING };
const CREATING: Verb = Verb { method: "post", action: "post", name: "create", query: WRITE };
const READING: Verb = Verb { method: "get", action: "get", name: "read", query: GET };
const REPLACING: Verb = Verb { method: "put", action: "put", name: "replace", query: WRITE };
const PATCHING: Verb = Verb { method: "patch", action: "patch", name: "patch", query: WRITE };
const DELETING: Verb = Verb { method: "delete", action: "delete", name: "delete", query: DELETE };
const DELETING_ALL: Verb =
    Verb { method: "delete", action: "deletecollection", name: "deleteCollection", query: DELETE_COLLECTION };

/// A served version of a custom kind.
#[derive(Clone, Debug)]
pub struct CustomVersion {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// The JSONSchemaProps; null where there is none.
    pub schema: Arc<Value>,
    pub status: bool,
    pub scale: bool,
    /// Paths of the fields that objects can be selected by (`.spec.color`).
    pub selectable: Vec<String>,
}

impl CustomVersion {
    /// `com.example.v1.Widget`: the group turned around, as definitions are named.
    pub(super) fn name(&self, kind: &str) -> String {
        let group: Vec<&str> = self.group.split('.').rev().collect();
        format!("{}.{}.{kind}", group.join("."), self.version)
    }

    /// Built-in definitions that this one leads to.
    pub(super) fn roots() -> Vec<TypeRef> {
        ["ObjectMeta", "ListMeta"].iter().filter_map(|name| schema::by_name(&format!("{META}{name}"))).collect()
    }

    pub(super) fn served(&self) -> Vec<Served> {
        let root = format!("/apis/{}/{}", self.group, self.version);
        let all = format!("{root}/{}", self.plural);
        let collection = match self.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{}", self.plural),
            false => all.clone(),
        };
        let one = format!("{collection}/{{name}}");
        let list = || Answer::Custom(self.name(&self.list_kind));
        let object = || Answer::Custom(self.name(&self.kind));
        let status = || schema::by_name(&format!("{META}Status")).map_or(Answer::Text, Answer::Object);
        let options = || schema::for_kind("", "v1", "DeleteOptions").map_or(Body::None, Body::Object);
        let body = || Body::Custom(self.name(&self.kind));
        let mut served = vec![
            Served {
                path: collection.clone(),
                operations: vec![
                    self.operation(&LISTING, "", Body::None, list()),
                    self.operation(&CREATING, "", body(), object()),
                    self.operation(&DELETING_ALL, "", options(), status()),
                ],
            },
            Served {
                path: one.clone(),
                operations: vec![
                    self.operation(&READING, "", Body::None, object()),
                    self.operation(&REPLACING, "", body(), object()),
                    self.operation(&PATCHING, "", Body::CustomPatch, object()),
                    self.operation(&DELETING, "", options(), status()),
                ],
            },
        ];
        if self.namespaced {
            let operation = self.operation(&LISTING_ALL, "", Body::None, list());
            served.push(Served { path: all, operations: vec![operation] });
        }
        let mut sub = |path: &str, suffix: &str, body: &dyn Fn() -> Body, answer: &dyn Fn() -> Answer| {
            let operations = vec![
                self.operation(&READING, suffix, Body::None, answer()),
                self.operation(&REPLACING, suffix, body(), answer()),
                self.operation(&PATCHING, suffix, Body::CustomPatch, answer()),
            ];
            served.push(Served { path: format!("{one}/{path}"), operations });
        };
        if self.status {
            sub("status", "Status", &body, &object);
        }
        if let Some(scale) = schema::for_kind("autoscaling", "v1", "Scale").filter(|_| self.scale) {
            sub("scale", "Scale", &|| Body::Object(scale), &|| Answer::Object(scale));
        }
        served
    }

    fn operation(&self, verb: &Verb, suffix: &str, body: Body, answer: Answer) -> Operation {
        let group: String = self.group.split('.').map(capital).collect();
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let id = format!("{}{group}{}{scope}{}{suffix}", verb.name, capital(&self.version), self.kind);
        let kind = Kind {
            group: self.group.clone().into(),
            version: self.version.clone().into(),
            kind: self.kind.clone().into(),
        };
        Operation { method: verb.method, action: verb.action, id, kind, query: verb.query, body, answer }
    }

    /// The definitions of the kind and of its list.
    pub(super) fn definitions(&self, dialect: Dialect) -> [(String, Value); 2] {
        let mut own = self.definition(dialect);
        let mut list = json!({"type": "object", "required": ["items"], "properties": {
            "apiVersion": {"type": "string", "description": OF_API_VERSION},
            "kind": {"type": "string", "description": OF_KIND},
            "items": {"type": "array", "items": reference(&self.name(&self.kind), dialect)},
            "metadata": reference(&format!("{META}ListMeta"), dialect),
        }});
        for (definition, kind) in [(&mut own, &self.kind), (&mut list, &self.list_kind)] {
            definition["x-kubernetes-group-version-kind"] =
                json!([{"group": self.group, "version": self.version, "kind": kind}]);
            if !self.selectable.is_empty() {
                let field = |path: &String| json!({"fieldPath": path.strip_prefix('.').unwrap_or(path)});
                let fields: Vec<Value> = self.selectable.iter().map(field).collect();
                definition["x-kubernetes-selectable-fields"] = fields.into();
            }
        }
        [(self.name(&self.kind), own), (self.name(&self.list_kind), list)]
    }

    fn definition(&self, dialect: Dialect) -> Value {
        let Some(schema) = self.schema.as_object() else { return json!({"type": "object"}) };
        // Named fields would make clients of v2 refuse all others.
        if dialect == Dialect::V2 && is_true(schema, "x-kubernetes-preserve-unknown-fields") {
            return json!({"type": "object"});
        }
        let mut own = schema.clone();
        convert(&mut own, dialect);
        object_fields(&mut own, dialect);
        own.insert("type".to_owned(), "object".into());
        Value::Object(own)
    }
}

fn is_true(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn object_fields(schema: &mut Map<String, Value>, dialect: Dialect) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": OF_API_VERSION}));
        properties.insert("kind".to_owned(), json!({"type": "string", "description": OF_KIND}));
        properties.insert("metadata".to_owned(), reference(&format!("{META}ObjectMeta"), dialect));
    }
}

/// Brings a schema, and what stands in it, into what a dialect can say.
fn convert(schema: &mut Map<String, Value>, dialect: Dialect) {
    match dialect {
        Dialect::V2 => to_v2(schema),
        Dialect::V3 => unfold(schema),
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            convert(property, dialect);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = schema.get_mut(key) {
            convert(inner, dialect);
        }
    }
    let is_open = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if is_true(schema, "x-kubernetes-embedded-resource") && !(is_open && dialect == Dialect::V2) {
        object_fields(schema, dialect);
        let required = schema.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            for name in ["kind", "apiVersion"] {
                if !required.iter().any(|known| known == name) {
                    required.push(name.into());
                }
            }
        }
    }
}

/// An integer or a text: said in full.
fn unfold(schema: &mut Map<String, Value>) {
    if !is_true(schema, "x-kubernetes-int-or-string") {
        return;
    }
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf"));
    if schema.get("anyOf") == Some(&both) || first == Some(&both) {
        return;
    }
    match schema.contains_key("anyOf") {
        false => {
            schema.insert("anyOf".to_owned(), both);
        }
        true => {
            let all = schema.entry("allOf").or_insert_with(|| json!([]));
            if let Some(all) = all.as_array_mut() {
                all.insert(0, json!({"anyOf": both}));
            }
        }
    }
}

/// v2 has no alternatives and no nulls; and where there is no way to say that other fields may come, none are named.
fn to_v2(schema: &mut Map<String, Value>) {
    for key in ["allOf", "anyOf", "oneOf", "not"] {
        schema.remove(key);
    }
    let is_nullable = |schema: Option<&Value>| schema.is_some_and(|schema| schema["nullable"] == true);
    let is_open = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if is_true(schema, "nullable") {
        schema.remove("type");
    }
    if is_open || is_true(schema, "nullable") {
        schema.remove("items");
        schema.remove("properties");
    }
    schema.remove("nullable");
    let ty = schema.get("type").and_then(Value::as_str);
    if ty == Some("array") && !schema.contains_key("items") || ty == Some("object") && is_open {
        schema.remove("type");
    }
    let nullable: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_nullable(Some(property)))
        .map(|(name, _)| name.clone())
        .collect();
    let all = is_nullable(schema.get("additionalProperties"));
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !all && !nullable.iter().any(|own| name == own));
        if required.is_empty() {
            schema.remove("required");
        }
    }
}
