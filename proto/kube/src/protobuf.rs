//! `application/vnd.kubernetes.protobuf`: bodies read into the same JSON maps as all others, and objects written so.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`: apiVersion and kind, and the object's own message. Which field
//! a number stands for is told by the schema table; numbers that it does not have are skipped, as protobuf asks. What is
//! read is uncanonical ([`crate::canonical::normalize`] comes next): the wire carries zeros that JSON leaves out.

pub mod encode;
mod wire;

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use crate::canonical::MAPS_MAX;
use crate::object::{DecodeError, Object};
use crate::schema::{self, OnWire, Ty, Type};
use crate::time;
use wire::{Fields, Payload};

/// The content type of such bodies.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What such bodies begin with.
pub const MAGIC: [u8; 4] = *b"k8s\0";
/// Messages inside one another. Most built-in kinds need some twenty; the schema in a definition of a custom kind nests as
/// its author likes, and needs two for each level.
const DEPTH_MAX: usize = 120;

/// Why bytes are not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("content encoding {0:?} is not supported inside a protobuf body")]
    Encoding(String),
    #[error("the protobuf message ends before its field does")]
    Truncated,
    #[error("a protobuf number is longer than ten bytes")]
    Varint,
    #[error("protobuf wire type {0} is not one of those in use")]
    WireType(u8),
    #[error("field {0:?} has another protobuf type than its kind says")]
    FieldType(&'static str),
    #[error("field {0:?} is not UTF-8")]
    Utf8(&'static str),
    #[error("field {0:?} holds an extension that is neither JSON nor an object in protobuf")]
    Extension(&'static str),
    #[error("more than {MAPS_MAX} messages in one protobuf body")]
    TooMany,
    #[error("protobuf messages stand more than {DEPTH_MAX} deep in one another")]
    Depth,
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// Reads a body that names its own kind.
pub fn decode(body: &[u8]) -> Result<Object> {
    decode_as(body, "", "")
}

/// Reads a body, which may leave out its apiVersion and kind where the endpoint tells them.
pub fn decode_as(body: &[u8], api_version: &str, kind: &str) -> Result<Object> {
    let value = decode_at(body, api_version, kind, &mut Bounds { depth: 0, messages: 0 })?.into_value();
    // Extensions bring JSON of their own into the depth.
    match (crate::canonical::check_bounds(&value), value) {
        (Ok(()), Value::Object(map)) => Ok(Object(map)),
        (Err(DecodeError::TooManyMaps), _) => Err(ProtobufError::TooMany),
        _ => Err(ProtobufError::Depth),
    }
}

/// How deep we are, and how many messages have become maps.
struct Bounds {
    depth: usize,
    messages: usize,
}

impl Bounds {
    /// Does what is one level further down.
    fn inside<T>(&mut self, read: impl FnOnce(&mut Bounds) -> Result<T>) -> Result<T> {
        self.messages += 1;
        if self.messages > MAPS_MAX {
            return Err(ProtobufError::TooMany);
        }
        if self.depth >= DEPTH_MAX {
            return Err(ProtobufError::Depth);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }
}

fn decode_at(body: &[u8], api_version: &str, kind: &str, bounds: &mut Bounds) -> Result<Object> {
    let unknown = body.strip_prefix(&MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut meta, mut raw, mut encoding): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    for field in Fields::of(unknown) {
        match field? {
            (1, Payload::Bytes(bytes)) => meta = bytes,
            (2, Payload::Bytes(bytes)) => raw = bytes,
            (3, Payload::Bytes(bytes)) => encoding = bytes,
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(ProtobufError::Encoding(String::from_utf8_lossy(encoding).into_owned()));
    }
    let (mut api_version, mut kind) = (api_version.to_owned(), kind.to_owned());
    for field in Fields::of(meta) {
        match field? {
            (1, Payload::Bytes(bytes)) if !bytes.is_empty() => api_version = string("apiVersion", bytes)?,
            (2, Payload::Bytes(bytes)) if !bytes.is_empty() => kind = string("kind", bytes)?,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(ty) = schema::for_kind(group, version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut map = Map::new();
    bounds.inside(|bounds| message(ty.get(), raw, &mut map, bounds))?;
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    Ok(Object(map))
}

/// Reads a message's fields into the map, inlined messages included.
fn message(ty: &'static Type, bytes: &[u8], map: &mut Map<String, Value>, bounds: &mut Bounds) -> Result<()> {
    for field in Fields::of(bytes) {
        let (number, payload) = field?;
        match (ty.numbered(number), payload) {
            (None, _) => {}
            (Some(OnWire::Field(field)), payload) => {
                // A list or a map comes element by element, a message may come in parts.
                let mut slot = map.remove(field.name).unwrap_or(Value::Null);
                read(field.name, &field.ty, payload, &mut slot, bounds)?;
                if !slot.is_null() {
                    map.insert(field.name.to_owned(), slot);
                }
            }
            (Some(OnWire::Inlined(inner)), Payload::Bytes(bytes)) => {
                bounds.inside(|bounds| message(inner.get(), bytes, map, bounds))?;
            }
            (Some(OnWire::Inlined(inner)), _) => return Err(ProtobufError::FieldType(inner.short())),
        }
    }
    Ok(())
}

/// Reads one occurrence of a field into its slot.
fn read(
    name: &'static str,
    ty: &'static Ty,
    payload: Payload<'_>,
    slot: &mut Value,
    bounds: &mut Bounds,
) -> Result<()> {
    match (ty, payload) {
        (Ty::List(inner), payload) => {
            if slot.is_null() {
                *slot = Value::Array(Vec::new());
            }
            let Value::Array(items) = slot else { return Err(ProtobufError::FieldType(name)) };
            match (&**inner, payload) {
                // Lists of numbers may come packed.
                (Ty::Int32 | Ty::Int64, Payload::Bytes(packed)) => {
                    for number in wire::varints(packed) {
                        items.push(integer(inner, number?));
                    }
                }
                (_, payload) => {
                    let mut item = Value::Null;
                    read(name, inner, payload, &mut item, bounds)?;
                    items.push(item);
                }
            }
        }
        (Ty::Map(inner), Payload::Bytes(entry)) => {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(map) = slot else { return Err(ProtobufError::FieldType(name)) };
            let (key, value) = bounds.inside(|bounds| map_entry(name, inner, entry, bounds))?;
            map.insert(key, value);
        }
        (Ty::Struct(inner), Payload::Bytes(bytes)) => {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(map) = slot else { return Err(ProtobufError::FieldType(name)) };
            bounds.inside(|bounds| message(inner.get(), bytes, map, bounds))?;
        }
        (Ty::Int32 | Ty::Int64, Payload::Varint(number)) => *slot = integer(ty, number),
        (Ty::Bool, Payload::Varint(number)) => *slot = Value::Bool(number != 0),
        (Ty::Double, Payload::Fixed64(bits)) => {
            *slot = Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number);
        }
        (Ty::String, Payload::Bytes(bytes)) => *slot = Value::String(string(name, bytes)?),
        (Ty::Bytes, Payload::Bytes(bytes)) => *slot = Value::String(STANDARD.encode(bytes)),
        (Ty::Quantity, Payload::Bytes(bytes)) => *slot = Value::String(quantity(name, bytes)?),
        (Ty::Time | Ty::MicroTime, Payload::Bytes(bytes)) => *slot = timestamp(ty, bytes)?,
        (Ty::IntOrString, Payload::Bytes(bytes)) => *slot = int_or_string(name, bytes)?,
        (Ty::Any | Ty::Json, Payload::Bytes(bytes)) => *slot = extension(name, bytes, bounds)?,
        (Ty::Either(of), Payload::Bytes(bytes)) => bounds.inside(|bounds| choice(name, of, bytes, slot, bounds))?,
        _ => return Err(ProtobufError::FieldType(name)),
    }
    Ok(())
}

/// One of two. The second counts where both are there; where neither is, it is the first one's zero.
fn choice(
    name: &'static str,
    (first, second): &'static (Ty, Ty),
    bytes: &[u8],
    slot: &mut Value,
    bounds: &mut Bounds,
) -> Result<()> {
    let (mut one, mut other) = (if *first == Ty::Bool { Value::Bool(false) } else { Value::Null }, Value::Null);
    for field in Fields::of(bytes) {
        match field? {
            (1, payload) => read(name, first, payload, &mut one, bounds)?,
            (2, payload) => read(name, second, payload, &mut other, bounds)?,
            _ => {}
        }
    }
    *slot = if other.is_null() { one } else { other };
    Ok(())
}

fn map_entry(name: &'static str, ty: &'static Ty, entry: &[u8], bounds: &mut Bounds) -> Result<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::Null);
    for field in Fields::of(entry) {
        match (field?, ty) {
            ((1, Payload::Bytes(bytes)), _) => key = string(name, bytes)?,
            // A list as a map's value stands in a message of its own, whose only field is the list.
            ((2, Payload::Bytes(bytes)), Ty::List(_)) => {
                for item in Fields::of(bytes) {
                    if let (1, payload) = item? {
                        read(name, ty, payload, &mut value, bounds)?;
                    }
                }
            }
            ((2, payload), _) => read(name, ty, payload, &mut value, bounds)?,
            _ => {}
        }
    }
    if value.is_null() {
        value = match ty {
            Ty::List(_) => Value::Array(Vec::new()),
            Ty::String | Ty::Bytes => Value::String(String::new()),
            Ty::Quantity => Value::String("0".into()),
            _ => Value::Null,
        };
    }
    Ok((key, value))
}

fn integer(ty: &Ty, number: u64) -> Value {
    // The wire sign-extends, so the low bits are the number.
    if *ty == Ty::Int32 { Value::from(number as i32) } else { Value::from(number as i64) }
}

fn string(name: &'static str, bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Utf8(name))
}

fn quantity(name: &'static str, bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for field in Fields::of(bytes) {
        if let (1, Payload::Bytes(bytes)) = field? {
            text = string(name, bytes)?;
        }
    }
    Ok(if text.is_empty() { "0".to_owned() } else { text })
}

fn timestamp(ty: &Ty, bytes: &[u8]) -> Result<Value> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in Fields::of(bytes) {
        match field? {
            (1, Payload::Varint(number)) => seconds = number as i64,
            (2, Payload::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    // Go's zero time is no bytes at all; 1970 is a time like others.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let at = time::from_parts(seconds, nanos).ok_or(ProtobufError::FieldType("time"))?;
    let text = if *ty == Ty::MicroTime { time::micros(at) } else { time::seconds(at) };
    Ok(if time::is_zero(&text) { Value::Null } else { Value::String(text) })
}

fn int_or_string(name: &'static str, bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut number, mut text) = (false, 0i32, String::new());
    for field in Fields::of(bytes) {
        match field? {
            (1, Payload::Varint(kind)) => is_text = kind != 0,
            (2, Payload::Varint(value)) => number = value as i32,
            (3, Payload::Bytes(bytes)) => text = string(name, bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(text) } else { Value::from(number) })
}

/// An extension's raw bytes: JSON, or an object in the same framing as a whole body.
fn extension(name: &'static str, bytes: &[u8], bounds: &mut Bounds) -> Result<Value> {
    let mut raw: &[u8] = &[];
    for field in Fields::of(bytes) {
        if let (1, Payload::Bytes(bytes)) = field? {
            raw = bytes;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(&MAGIC) {
        return Ok(bounds.inside(|bounds| decode_at(raw, "", "", bounds))?.into_value());
    }
    crate::canonical::parse_value(raw).map(|(value, _)| value).map_err(|_| ProtobufError::Extension(name))
}
