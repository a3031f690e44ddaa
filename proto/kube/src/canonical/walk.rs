//! The walker: an object beside its definition.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::object::Object;
use crate::quantity::Quantity;
use crate::schema::{Field, Ty, Type, TypeRef};
use crate::time;

/// Unknown fields that are named; the rest are dropped all the same.
pub(crate) const UNKNOWN_MAX: usize = 100;
/// Values of a wrong type that are named.
pub(crate) const WRONG_MAX: usize = 16;
/// What a finding shows of a path. Keys are the client's, and one that is long would stand in each of a hundred findings.
const NAMED_MAX_BYTES: usize = 1024;

/// What a walk found. Neither list is an error by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Paths of fields that the kind does not have (`spec.foo`); they are gone from the object.
    pub unknown: Vec<String>,
    /// Values that cannot be what their field is; they are gone from the object too.
    pub wrong: Vec<Wrong>,
}

/// A value of the wrong type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `spec.containers[0].image`.
    pub path: String,
    pub message: String,
}

impl Findings {
    /// What to answer when the object cannot be decoded at all: the first wrong value.
    pub fn decode_error(&self) -> Option<&str> {
        self.wrong.first().map(|w| w.message.as_str())
    }

    /// What strict validation refuses and warn mode warns of: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub fn strict(&self, duplicates: &[String]) -> Vec<String> {
        let duplicate = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
        duplicate.chain(self.unknown.iter().map(|path| format!("unknown field {path:?}"))).collect()
    }
}

/// Brings an object into its canonical form.
pub fn normalize(ty: TypeRef, object: &mut Object) -> Findings {
    let mut walk = Walk::default();
    walk.fields(ty.get(), &mut object.0);
    walk.findings
}

/// The same for a value that is not a whole object (a patch's result under a path, a template).
pub fn normalize_value(ty: TypeRef, map: &mut Map<String, Value>) -> Findings {
    let mut walk = Walk::default();
    walk.fields(ty.get(), map);
    walk.findings
}

#[derive(Default)]
struct Walk {
    findings: Findings,
    /// Where we are, as findings name it.
    path: String,
    /// The same without list indices, as Go's decoder names it.
    fields: Vec<&'static str>,
    /// The struct that we are in.
    owner: &'static str,
}

/// What becomes of a value: it stays (perhaps rewritten), or it is as good as absent.
enum Verdict {
    Keep,
    Drop,
}

impl Walk {
    fn fields(&mut self, ty: &'static Type, map: &mut Map<String, Value>) {
        let kept = self.path.len();
        let owner = std::mem::replace(&mut self.owner, ty.short());
        map.retain(|key, value| {
            push_key(&mut self.path, key);
            let keep = match ty.field(key) {
                None => {
                    if self.findings.unknown.len() < UNKNOWN_MAX {
                        self.findings.unknown.push(named(&self.path));
                    }
                    false
                }
                Some(_) if value.is_null() => false,
                Some(field) => self.field(field, value),
            };
            self.path.truncate(kept);
            keep
        });
        if ty.name == "io.k8s.api.core.v1.Secret" {
            merge_string_data(map);
        }
        fill_zeros(ty, map);
        self.owner = owner;
    }

    fn field(&mut self, field: &'static Field, value: &mut Value) -> bool {
        self.fields.push(field.name);
        let verdict = self.value(&field.ty, value);
        self.fields.pop();
        match verdict {
            Verdict::Drop => false,
            // A time that is none.
            Verdict::Keep if value.is_null() => false,
            Verdict::Keep if field.zero || field.pointer => true,
            Verdict::Keep => match (&field.ty, &*value) {
                (Ty::String | Ty::Bytes, Value::String(text)) => !text.is_empty(),
                (Ty::Int32 | Ty::Int64 | Ty::Double, Value::Number(number)) => number.as_f64() != Some(0.0),
                (Ty::Bool, Value::Bool(set)) => *set,
                (Ty::List(_), Value::Array(items)) => !items.is_empty(),
                (Ty::Map(_), Value::Object(map)) => !map.is_empty(),
                _ => true,
            },
        }
    }

    fn value(&mut self, ty: &'static Ty, value: &mut Value) -> Verdict {
        match (ty, &mut *value) {
            (Ty::Any | Ty::Json, _) | (Ty::Bool, Value::Bool(_)) | (Ty::String, Value::String(_)) => Verdict::Keep,
            (Ty::Struct(ty), Value::Object(map)) => {
                self.fields(ty.get(), map);
                Verdict::Keep
            }
            (Ty::List(inner), Value::Array(items)) => {
                let kept = self.path.len();
                let mut index = 0;
                items.retain_mut(|item| {
                    push_index(&mut self.path, index);
                    index += 1;
                    let verdict = self.element(inner, item);
                    self.path.truncate(kept);
                    matches!(verdict, Verdict::Keep)
                });
                Verdict::Keep
            }
            (Ty::Map(inner), Value::Object(map)) => {
                let kept = self.path.len();
                map.retain(|key, item| {
                    push_key(&mut self.path, key);
                    let verdict = self.element(inner, item);
                    self.path.truncate(kept);
                    matches!(verdict, Verdict::Keep)
                });
                Verdict::Keep
            }
            (Ty::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Verdict::Keep,
            (Ty::Int64, Value::Number(n)) if n.as_i64().is_some() => Verdict::Keep,
            (Ty::Double, Value::Number(_)) => Verdict::Keep,
            (Ty::IntOrString, Value::String(_)) => Verdict::Keep,
            (Ty::IntOrString, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Verdict::Keep
            }
            (Ty::Quantity, Value::String(text)) => match Quantity::parse(text) {
                Ok(quantity) => self.rewrite(value, quantity.to_string()),
                Err(error) => self.wrong(error.to_string()),
            },
            (Ty::Quantity, Value::Number(number)) => match Quantity::parse(&number.to_string()) {
                Ok(quantity) => self.rewrite(value, quantity.to_string()),
                Err(error) => self.wrong(error.to_string()),
            },
            (Ty::Time, Value::String(text)) => match time::parse(text) {
                Ok(at) => self.rewrite_time(value, time::seconds(at)),
                Err(error) => self.wrong(error.to_string()),
            },
            (Ty::MicroTime, Value::String(text)) => match time::parse(text) {
                Ok(at) => self.rewrite_time(value, time::micros(at)),
                Err(error) => self.wrong(error.to_string()),
            },
            (Ty::Bytes, Value::String(text)) => match decode_base64(text) {
                Ok(bytes) => self.rewrite(value, STANDARD.encode(bytes)),
                Err(at) => self.wrong(format!("illegal base64 data at input byte {at}")),
            },
            (Ty::Either(of), _) => match ty.chosen(value) {
                Ty::Either(_) => self.wrong(format!("{} expected", choice(&of.0, &of.1))),
                chosen => {
                    // What Go's decoder of such a choice does not know it drops without a word.
                    let known = self.findings.unknown.len();
                    let verdict = self.value(chosen, value);
                    self.findings.unknown.truncate(known);
                    verdict
                }
            },
            _ => self.mismatch(ty, value),
        }
    }

    /// An element of a list or a map: null is the zero of its type there, and resource lists hold whole thousandths.
    fn element(&mut self, ty: &'static Ty, value: &mut Value) -> Verdict {
        if value.is_null() {
            match ty {
                Ty::Any | Ty::Json | Ty::Either(_) | Ty::Time | Ty::MicroTime => return Verdict::Keep,
                _ => *value = zero_of(ty),
            }
        }
        let verdict = self.value(ty, value);
        if let (Verdict::Keep, Ty::Quantity, Value::String(text)) = (&verdict, ty, &*value)
            && let Ok(quantity) = Quantity::parse(text)
        {
            return self.rewrite(value, quantity.round_up_milli().to_string());
        }
        verdict
    }

    fn rewrite(&self, value: &mut Value, canonical: String) -> Verdict {
        // Most values are canonical already, and keep their memory.
        if value.as_str() != Some(canonical.as_str()) {
            *value = Value::String(canonical);
        }
        Verdict::Keep
    }

    /// Go's zero time is null when it is printed.
    fn rewrite_time(&self, value: &mut Value, canonical: String) -> Verdict {
        if time::is_zero(&canonical) {
            *value = Value::Null;
            return Verdict::Keep;
        }
        self.rewrite(value, canonical)
    }

    fn mismatch(&mut self, ty: &'static Ty, value: &Value) -> Verdict {
        let got = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if matches!(ty, Ty::Int32 | Ty::Int64 | Ty::IntOrString) => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let (owner, fields, want) = (self.owner, self.fields.join("."), go_type(ty));
        let message = format!("json: cannot unmarshal {got} into Go struct field {owner}.{fields} of type {want}");
        self.wrong(message)
    }

    fn wrong(&mut self, message: String) -> Verdict {
        if self.findings.wrong.len() < WRONG_MAX {
            self.findings.wrong.push(Wrong { path: named(&self.path), message });
        }
        Verdict::Drop
    }
}

/// What Kubernetes writes whether it was set or not: structs that are no pointers, and some scalars.
fn fill_zeros(ty: &'static Type, map: &mut Map<String, Value>) {
    for field in &ty.fields {
        if !field.zero || map.contains_key(field.name) {
            continue;
        }
        let zero = match &field.ty {
            Ty::Struct(inner) => {
                let mut empty = Map::new();
                fill_zeros(inner.get(), &mut empty);
                Value::Object(empty)
            }
            // Without a value these are null to Kubernetes, which is absent to us.
            Ty::List(_) | Ty::Map(_) | Ty::Any | Ty::Json | Ty::Either(_) | Ty::Time | Ty::MicroTime | Ty::Bytes => {
                continue;
            }
            scalar => zero_of(scalar),
        };
        map.insert(field.name.to_owned(), zero);
    }
}

fn zero_of(ty: &Ty) -> Value {
    match ty {
        Ty::String | Ty::Bytes => Value::String(String::new()),
        Ty::Quantity => Value::String("0".into()),
        Ty::Int32 | Ty::Int64 | Ty::Double | Ty::IntOrString => Value::Number(0.into()),
        Ty::Bool => Value::Bool(false),
        Ty::Struct(_) | Ty::Map(_) => Value::Object(Map::new()),
        Ty::List(_) => Value::Array(Vec::new()),
        Ty::Time | Ty::MicroTime | Ty::Any | Ty::Json | Ty::Either(_) => Value::Null,
    }
}

/// `stringData` is for writing only: it goes into `data`, where it wins.
fn merge_string_data(map: &mut Map<String, Value>) {
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(data) = data {
        for (key, text) in texts {
            data.insert(key, Value::String(STANDARD.encode(text.as_str().unwrap_or_default())));
        }
    }
}

/// Standard base64 with padding; line breaks are skipped, as Go's decoder skips them. The error is the offset of the fault.
fn decode_base64(text: &str) -> Result<Vec<u8>, usize> {
    let plain: std::borrow::Cow<'_, str> =
        if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text.into() };
    STANDARD.decode(plain.as_bytes()).map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        base64::DecodeError::InvalidLength(at) => at,
        base64::DecodeError::InvalidPadding => plain.len(),
    })
}

/// What may stand where there is a choice, as Go's decoders of the three choices say it.
fn choice(first: &Ty, second: &Ty) -> &'static str {
    match (first, second) {
        (Ty::Bool, _) => "boolean or JSON schema",
        (_, Ty::List(item)) if **item == Ty::String => "JSON schema or string array",
        _ => "JSON schema or array",
    }
}

/// The type as Go's decoder names it in its errors.
fn go_type(ty: &Ty) -> String {
    match ty {
        Ty::String => "string".to_owned(),
        Ty::Int32 => "int32".to_owned(),
        Ty::Int64 => "int64".to_owned(),
        Ty::Bool => "bool".to_owned(),
        Ty::Double => "float64".to_owned(),
        Ty::Bytes => "[]uint8".to_owned(),
        Ty::Quantity => "resource.Quantity".to_owned(),
        Ty::Time => "v1.Time".to_owned(),
        Ty::MicroTime => "v1.MicroTime".to_owned(),
        Ty::IntOrString => "intstr.IntOrString".to_owned(),
        Ty::Any => "runtime.RawExtension".to_owned(),
        Ty::Json => "v1.JSON".to_owned(),
        Ty::Either(of) => choice(&of.0, &of.1).to_owned(),
        Ty::Struct(ty) => ty.go_name().to_owned(),
        Ty::List(inner) => format!("[]{}", go_type(inner)),
        Ty::Map(inner) => format!("map[string]{}", go_type(inner)),
    }
}

/// A path as a finding names it.
pub(crate) fn named(path: &str) -> String {
    if path.len() <= NAMED_MAX_BYTES {
        return path.to_owned();
    }
    format!("{}…", &path[..path.floor_char_boundary(NAMED_MAX_BYTES)])
}

pub(crate) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

pub(crate) fn push_index(path: &mut String, index: usize) {
    use std::fmt::Write;
    let _ = write!(path, "[{index}]");
}
