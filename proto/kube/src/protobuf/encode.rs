//! Objects written in protobuf, as Go's generated code writes them: fields in the order of their numbers, maps in the order
//! of their keys, structs and scalars that are no pointers whether they are set or not.
//!
//! A message is written from its end to its beginning ([`Tail`]): a length stands before what it measures, and is known
//! by then. A list is written from the messages of its items, and a watch event around one object's body, so that an
//! object is encoded once for all that goes out of it.

mod tail;
#[cfg(test)]
mod tests;

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::MAGIC;
use crate::object::Object;
use crate::schema::{self, Field, OnWire, Ty, Type, TypeRef};
use crate::time;
use tail::{Tail, varint_bytes};

/// What a body ends with: its encoding and its content type, which nobody sets.
const BODY_END: [u8; 4] = [0x1a, 0, 0x22, 0];
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// The number of a list's items, in every list.
const ITEMS: u32 = 2;

/// Why an object has no form in protobuf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("field {field:?} holds {found}, which it cannot in protobuf")]
    FieldType { field: &'static str, found: &'static str },
}

type Result<T> = std::result::Result<T, EncodeError>;

/// Writes an object as a whole body. It names its kind itself, and is canonical.
pub fn encode(object: &Object) -> Result<Vec<u8>> {
    let (api_version, kind) = (object.api_version(), object.kind());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let unknown = || EncodeError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let ty = schema::for_kind(group, version, kind).ok_or_else(unknown)?;
    body(api_version, kind, |out| message(ty.get(), &object.0, out))
}

/// Writes an object's metadata as the whole body of a PartialObjectMetadata.
pub fn partial_metadata(api_version: &str, metadata: &Map<String, Value>) -> Result<Vec<u8>> {
    body(api_version, "PartialObjectMetadata", |out| nested(1, known(OBJECT_META)?.get(), metadata, out))
}

/// Where in a body the object's own message is: what stands in a list, without the body's frame.
pub fn raw(body: &[u8]) -> Option<Range<usize>> {
    // The frame is ours: magic, kind, message, and the same end always.
    let mut rest = body.strip_prefix(&MAGIC)?.strip_prefix(&[0x0a])?;
    let kind_bytes = usize::try_from(super::wire::varint(&mut rest).ok()?).ok()?;
    let mut rest = rest.get(kind_bytes..)?.strip_prefix(&[0x12])?;
    let message_bytes = usize::try_from(super::wire::varint(&mut rest).ok()?).ok()?;
    let start = body.len() - rest.len();
    (rest.get(message_bytes..)? == BODY_END).then_some(start..start + message_bytes)
}

/// What a list's body begins with: all before its items, whose messages are of these lengths.
pub fn list_head(
    api_version: &str,
    kind: &str,
    metadata: &Map<String, Value>,
    items_bytes: impl Iterator<Item = usize>,
) -> Result<Vec<u8>> {
    let mut meta = Tail::default();
    nested(1, known(LIST_META)?.get(), metadata, &mut meta)?;
    let items: usize = items_bytes.map(|bytes| 1 + varint_bytes(bytes as u64) + bytes).sum();
    let mut out = Tail::default();
    out.put(meta.written());
    out.length(2, meta.len() + items);
    frame_head(api_version, kind, &mut out);
    Ok(out.into_vec())
}

/// Writes one item of a list behind the others.
pub fn put_item(out: &mut Vec<u8>, raw: &[u8]) {
    let mut head = Tail::default();
    head.length(ITEMS, raw.len());
    out.extend_from_slice(head.written());
    out.extend_from_slice(raw);
}

/// What a list's body ends with.
pub fn put_list_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&BODY_END);
}

/// Writes one event of a watch: its length in four bytes, the first the highest, and a WatchEvent that has no frame of
/// its own around the object's whole body.
pub fn put_event(out: &mut Vec<u8>, change: &str, body: &[u8]) {
    let mut head = Tail::default();
    head.length(1, body.len());
    head.length(2, head.len() + body.len());
    head.text(1, change);
    let bytes = u32::try_from(head.len() + body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&bytes.to_be_bytes());
    out.extend_from_slice(head.written());
    out.extend_from_slice(body);
}

fn known(name: &'static str) -> Result<TypeRef> {
    let unknown = || EncodeError::UnknownKind { api_version: "v1".to_owned(), kind: name.to_owned() };
    schema::by_name(name).ok_or_else(unknown)
}

fn body(api_version: &str, kind: &str, message: impl FnOnce(&mut Tail) -> Result<()>) -> Result<Vec<u8>> {
    let mut out = Tail::default();
    out.put(&BODY_END);
    let end = out.len();
    message(&mut out)?;
    out.length(2, out.len() - end);
    frame_head(api_version, kind, &mut out);
    Ok(out.into_vec())
}

fn frame_head(api_version: &str, kind: &str, out: &mut Tail) {
    let end = out.len();
    out.text(2, kind);
    out.text(1, api_version);
    out.length(1, out.len() - end);
    out.put(&MAGIC);
}

/// A message's fields, the last first.
fn message(ty: &'static Type, map: &Map<String, Value>, out: &mut Tail) -> Result<()> {
    for (number, what) in ty.wire().rev() {
        match what {
            OnWire::Inlined(inner) => nested(number, inner.get(), map, out)?,
            OnWire::Field(field) => match map.get(field.name).filter(|value| !value.is_null()) {
                Some(value) => put(number, field.name, &field.ty, value, out)?,
                None => absent(number, field, out)?,
            },
        }
    }
    Ok(())
}

/// A message in its field.
fn nested(number: u32, ty: &'static Type, map: &Map<String, Value>, out: &mut Tail) -> Result<()> {
    let end = out.len();
    message(ty, map, out)?;
    out.length(number, out.len() - end);
    Ok(())
}

/// What is written of a field that is not set: of what is no pointer in Go, its zero.
fn absent(number: u32, field: &'static Field, out: &mut Tail) -> Result<()> {
    match &field.ty {
        Ty::Struct(inner) if field.zero => nested(number, inner.get(), &Map::new(), out)?,
        Ty::Int32 | Ty::Int64 | Ty::Bool if !field.pointer => out.number(number, 0),
        Ty::Double if !field.pointer => out.double(number, 0.0),
        Ty::String if !field.pointer => out.text(number, ""),
        Ty::Quantity if field.zero => quantity(number, "0", out),
        Ty::IntOrString if field.zero => int_or_string(number, &Value::from(0), field.name, out)?,
        _ => {}
    }
    Ok(())
}

fn put(number: u32, name: &'static str, ty: &'static Ty, value: &Value, out: &mut Tail) -> Result<()> {
    match (ty, value) {
        (Ty::List(inner), Value::Array(items)) => {
            for item in items.iter().rev() {
                element(number, name, inner, item, out)?;
            }
        }
        (Ty::Map(inner), Value::Object(map)) => {
            // The map is sorted by its keys.
            for (key, item) in map.iter().rev() {
                let end = out.len();
                map_value(name, inner, item, out)?;
                out.text(1, key);
                out.length(number, out.len() - end);
            }
        }
        (Ty::Struct(inner), Value::Object(map)) => nested(number, inner.get(), map, out)?,
        (Ty::String, Value::String(text)) => out.text(number, text),
        (Ty::Bool, Value::Bool(set)) => out.number(number, u64::from(*set)),
        (Ty::Int32 | Ty::Int64, Value::Number(value)) => {
            // Negative numbers are sign-extended on the wire.
            out.number(number, value.as_i64().ok_or_else(|| wrong(name, "a number that is not whole"))? as u64);
        }
        (Ty::Double, Value::Number(value)) => out.double(number, value.as_f64().unwrap_or_default()),
        (Ty::Bytes, Value::String(text)) => {
            out.bytes(number, &STANDARD.decode(text).map_err(|_| wrong(name, "what is not base64"))?);
        }
        (Ty::Quantity, Value::String(text)) => quantity(number, text, out),
        (Ty::Time | Ty::MicroTime, Value::String(text)) => {
            let end = out.len();
            if !time::is_zero(text) {
                timestamp(ty, time::parse(text).map_err(|_| wrong(name, "what is not a time"))?, out);
            }
            out.length(number, out.len() - end);
        }
        (Ty::IntOrString, value) => int_or_string(number, value, name, out)?,
        (Ty::Either(of), value) => {
            let end = out.len();
            either(name, of, ty.chosen(value), value, out)?;
            out.length(number, out.len() - end);
        }
        (Ty::Any | Ty::Json, value) => {
            let end = out.len();
            out.bytes(1, &serde_json::to_vec(value).map_err(|_| wrong(name, "what is not JSON"))?);
            out.length(number, out.len() - end);
        }
        (_, value) => return Err(wrong(name, kind_of(value))),
    }
    Ok(())
}

/// One of two, under the number of its place. A schema in the place of true is true as well.
fn either(
    name: &'static str,
    (first, second): &'static (Ty, Ty),
    chosen: &'static Ty,
    value: &Value,
    out: &mut Tail,
) -> Result<()> {
    if chosen == first {
        return put(1, name, first, value, out);
    }
    put(2, name, second, value, out)?;
    if *first == Ty::Bool {
        out.number(1, 1);
    }
    Ok(())
}

/// One of a list, or of a map: null is a message of nothing there.
fn element(number: u32, name: &'static str, ty: &'static Ty, value: &Value, out: &mut Tail) -> Result<()> {
    if value.is_null() {
        out.length(number, 0);
        return Ok(());
    }
    put(number, name, ty, value, out)
}

/// A map's value. A list as one stands in a message of its own, whose only field is the list.
fn map_value(name: &'static str, ty: &'static Ty, value: &Value, out: &mut Tail) -> Result<()> {
    if !matches!(ty, Ty::List(_)) {
        return element(2, name, ty, value, out);
    }
    let end = out.len();
    put(1, name, ty, value, out)?;
    out.length(2, out.len() - end);
    Ok(())
}

fn quantity(number: u32, text: &str, out: &mut Tail) {
    let end = out.len();
    out.text(1, text);
    out.length(number, out.len() - end);
}

/// Seconds, and of a MicroTime its microseconds, as nanoseconds.
fn timestamp(ty: &Ty, at: Timestamp, out: &mut Tail) {
    let micros = at.as_microsecond();
    let nanos = if *ty == Ty::MicroTime { micros.rem_euclid(1_000_000) * 1000 } else { 0 };
    out.number(2, nanos as u64);
    out.number(1, micros.div_euclid(1_000_000) as u64);
}

fn int_or_string(number: u32, value: &Value, name: &'static str, out: &mut Tail) -> Result<()> {
    let (kind, int, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        Value::Number(int) => (0, int.as_i64().ok_or_else(|| wrong(name, "a number that is not whole"))?, ""),
        other => return Err(wrong(name, kind_of(other))),
    };
    let end = out.len();
    out.text(3, text);
    out.number(2, int as u64);
    out.number(1, kind);
    out.length(number, out.len() - end);
    Ok(())
}

fn wrong(field: &'static str, found: &'static str) -> EncodeError {
    EncodeError::FieldType { field, found }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
