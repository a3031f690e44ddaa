//! A v2 document as gnostic's `openapi.v2.Document`, the only form that old clients ask for.
//!
//! The numbers are those of gnostic's published OpenAPIv2.proto; what our documents do not use is not written. Extensions
//! are YAML there, and JSON is YAML.

use serde_json::{Map, Value};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u32, inner: Message) {
        self.bytes(number, &inner.0);
    }

    /// A string field, left out where the JSON has none.
    fn text(&mut self, number: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// The whole document.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, json.get("swagger"));
    if let Some(info) = json.get("info") {
        let mut message = Message::default();
        message.text(1, info.get("title"));
        message.text(2, info.get("version"));
        out.message(2, message);
    }
    let mut paths = Message::default();
    for (path, item) in entries(json.get("paths")) {
        paths.message(2, named(path, path_item(item)));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, item) in entries(json.get("definitions")) {
        definitions.message(1, named(name, schema(item)));
    }
    out.message(9, definitions);
    out.0
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// Every `x-` key, as name and YAML.
fn extensions(out: &mut Message, number: u32, json: &Value) {
    for (name, value) in entries(Some(json)).filter(|(name, _)| name.starts_with("x-")) {
        out.message(number, named(name, any(value)));
    }
}

fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out
}

fn path_item(json: &Value) -> Message {
    let mut out = Message::default();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(json) = json.get(method) {
            out.message(number, operation(json));
        }
    }
    parameters(&mut out, 9, json);
    out
}

fn operation(json: &Value) -> Message {
    let mut out = Message::default();
    out.text(5, json.get("operationId"));
    out.texts(6, json.get("produces"));
    out.texts(7, json.get("consumes"));
    parameters(&mut out, 8, json);
    let mut responses = Message::default();
    for (code, json) in entries(json.get("responses")) {
        let mut response = Message::default();
        response.text(1, json.get("description"));
        if let Some(json) = json.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(json));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.message(1, named(code, value));
    }
    out.message(9, responses);
    extensions(&mut out, 13, json);
    out
}

/// ParametersItem → Parameter → body, or query or path parameter.
fn parameters(out: &mut Message, number: u32, json: &Value) {
    for json in json.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut parameter = Message::default();
        let place = json.get("in").and_then(Value::as_str).unwrap_or("");
        if place == "body" {
            let mut body = Message::default();
            body.text(2, json.get("name"));
            body.text(3, json.get("in"));
            body.flag(4, json.get("required"));
            if let Some(json) = json.get("schema") {
                body.message(5, schema(json));
            }
            parameter.message(1, body);
        } else {
            let query = place == "query";
            let mut sub = Message::default();
            sub.flag(1, json.get("required"));
            sub.text(2, json.get("in"));
            sub.text(4, json.get("name"));
            sub.text(if query { 6 } else { 5 }, json.get("type"));
            sub.flag(if query { 20 } else { 19 }, json.get("uniqueItems"));
            let mut other = Message::default();
            other.message(if query { 3 } else { 4 }, sub);
            parameter.message(2, other);
        }
        let mut item = Message::default();
        item.message(1, parameter);
        out.message(number, item);
    }
}

fn schema(json: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, json.get("$ref"));
    out.text(2, json.get("format"));
    out.text(3, json.get("title"));
    out.text(4, json.get("description"));
    if let Some(default) = json.get("default") {
        out.message(5, any(default));
    }
    out.texts(19, json.get("required"));
    if let Some(inner) = json.get("additionalProperties") {
        let mut item = Message::default();
        match inner {
            Value::Bool(_) => item.flag(2, Some(inner)),
            inner => item.message(1, schema(inner)),
        }
        out.message(21, item);
    }
    if json.get("type").is_some() {
        let mut kind = Message::default();
        kind.text(1, json.get("type"));
        out.message(22, kind);
    }
    if let Some(inner) = json.get("items") {
        let mut items = Message::default();
        items.message(1, schema(inner));
        out.message(23, items);
    }
    let properties: Option<&Map<String, Value>> = json.get("properties").and_then(Value::as_object);
    if let Some(properties) = properties {
        let mut all = Message::default();
        for (name, json) in properties {
            all.message(1, named(name, schema(json)));
        }
        out.message(25, all);
    }
    extensions(&mut out, 31, json);
    out
}
