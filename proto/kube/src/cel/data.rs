//! JSON as expressions see it: by its declaration, read when it is asked for.

use base64::Engine as _;
use serde_json::{Map as JsonMap, Value as Json};

use super::decl::{Decl, DeclKind, ListDecl, ObjectDecl};
use super::library::time;
use super::value::{Key, List, Map, Outcome, Text, Value, raise};

/// A list of the data.
#[derive(Clone, Copy, Debug)]
pub struct ListData<'a> {
    pub items: &'a [Json],
    /// None for a list of which nothing is known.
    pub decl: Option<&'a ListDecl>,
}

/// A map or an object of the data.
#[derive(Clone, Copy, Debug)]
pub struct MapData<'a> {
    pub entries: &'a JsonMap<String, Json>,
    pub shape: Shape<'a>,
}

/// What is known of the entries.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    Any,
    Values(&'a Decl),
    Object(&'a ObjectDecl),
}

/// The value that the JSON is by its declaration.
pub fn read<'a>(json: &'a Json, decl: &'a Decl) -> Outcome<'a> {
    if json.is_null() && !matches!(decl.kind, DeclKind::Any) {
        return if decl.nullable {
            Ok(Value::Null)
        } else {
            raise("invalid data, got null for schema with nullable=false")
        };
    }
    match &decl.kind {
        DeclKind::Any => Ok(read_any(json)),
        DeclKind::IntOrString => match json {
            Json::String(text) => Ok(Value::borrowed(text)),
            Json::Number(_) if integer(json).is_some() => Ok(Value::Int(integer(json).unwrap_or_default())),
            _ => raise("invalid data, expected XIntOrString value to be either a string or integer"),
        },
        DeclKind::Bool => json.as_bool().map(Value::Bool).ok_or(()).or_else(|()| unfit("bool", json)),
        DeclKind::Int => integer(json).map(Value::Int).ok_or(()).or_else(|()| unfit("int", json)),
        DeclKind::Double => json.as_f64().map(Value::Double).ok_or(()).or_else(|()| unfit("float", json)),
        DeclKind::List(list) => match json {
            Json::Array(items) => Ok(Value::List(List::Data(ListData { items, decl: Some(list) }))),
            _ => raise("invalid data, expected an array for the provided schema with type=array"),
        },
        DeclKind::Map(values) => map(json, Shape::Values(values)),
        DeclKind::Object(object) => map(json, Shape::Object(object)),
        DeclKind::String | DeclKind::Bytes | DeclKind::Duration | DeclKind::Date | DeclKind::DateTime => {
            let Json::String(text) = json else { return unfit("string", json) };
            read_text(text, &decl.kind)
        }
    }
}

fn map<'a>(json: &'a Json, shape: Shape<'a>) -> Outcome<'a> {
    match json {
        Json::Object(entries) => Ok(Value::Map(Map::Data(MapData { entries, shape }))),
        _ => raise("invalid data, expected a map for the provided schema with type=object"),
    }
}

fn read_text<'a>(text: &'a str, kind: &DeclKind) -> Outcome<'a> {
    let invalid = |what: &str| raise(format!("Invalid {what} {text}"));
    match kind {
        DeclKind::Bytes => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(_) => invalid("byte formatted string"),
        },
        DeclKind::Duration => {
            time::parse_lenient_duration(text).map_or_else(|| invalid("duration"), |d| Ok(Value::Duration(d)))
        }
        DeclKind::Date => {
            time::parse_date(text).map_or_else(|| invalid("date formatted string"), |d| Ok(Value::Timestamp(d)))
        }
        DeclKind::DateTime => time::parse_date_time(text)
            .map_or_else(|| invalid("date-time formatted string"), |d| Ok(Value::Timestamp(d))),
        _ => Ok(Value::borrowed(text)),
    }
}

/// JSON of which nothing is known, as what it is.
pub fn read_any(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            (None, None) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::borrowed(text),
        Json::Array(items) => Value::List(List::Data(ListData { items, decl: None })),
        Json::Object(entries) => Value::Map(Map::Data(MapData { entries, shape: Shape::Any })),
    }
}

/// A number without a fraction, however it was written.
fn integer(json: &Json) -> Option<i64> {
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;
    json.as_i64().or_else(|| json.as_f64().filter(whole).map(|number| number as i64))
}

fn unfit<'a>(expected: &str, json: &Json) -> Outcome<'a> {
    let got = match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    raise(format!("invalid data, expected {expected}, got {got}"))
}

impl<'a> ListData<'a> {
    pub fn get(&self, index: usize) -> Option<Outcome<'a>> {
        let json = self.items.get(index)?;
        Some(match self.decl {
            Some(list) => read(json, &list.items),
            None => Ok(read_any(json)),
        })
    }
}

impl<'a> MapData<'a> {
    /// By the name that expressions use. A field that is null is as good as absent.
    pub fn get(&self, key: &str) -> Option<Outcome<'a>> {
        match self.shape {
            Shape::Any => self.entries.get(key).map(|json| Ok(read_any(json))),
            Shape::Values(decl) => self.entries.get(key).map(|json| read(json, decl)),
            Shape::Object(object) => {
                let field = object.fields.get(key)?;
                let json = self.entries.get(&field.name).filter(|json| !json.is_null())?;
                Some(read(json, &field.decl))
            }
        }
    }

    /// Those that expressions can see.
    pub fn keys(&self) -> Vec<Key<'a>> {
        let key = |name: &'a str| Key::String(Text::Borrowed(name));
        match self.shape {
            Shape::Any | Shape::Values(_) => self.entries.keys().map(|name| key(name)).collect(),
            Shape::Object(object) => {
                let present = object.fields.iter().filter(|(_, field)| self.entries.contains_key(&field.name));
                present.map(|(escaped, _)| key(escaped)).collect()
            }
        }
    }
}
