//! Values of expressions. What comes as JSON is borrowed and read when it is asked for; what an expression makes is shared.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::library::time::Moment;
use ipnet::IpNet;

use super::data::{ListData, MapData};
use super::library::{format::Format, semver::Semver, url::Url};
use super::types::{Opaque, Type};
use crate::quantity::Quantity;

/// One value. The lifetime is that of the data it was read from.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(Moment),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(Text<'static>),
    Quantity(Arc<Quantity>),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(IpNet),
    Semver(Arc<Semver>),
    Format(&'static Format),
}

/// Text of the data or text that was made.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Data(ListData<'a>),
    Made {
        items: Arc<Vec<Value<'a>>>,
        /// How a list was declared that this one was made from by adding to it: sets stay sets.
        like: Option<&'a super::decl::ListDecl>,
    },
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Data(MapData<'a>),
    Made(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// What can be the key of a map. Numbers are one key if they are one number, whatever their type.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error of the language, which `&&` and `||` may absorb.
    Raised(Cow<'static, str>),
    /// The cost limit is reached: nothing absorbs that.
    Exhausted,
}

pub type Outcome<'a> = Result<Value<'a>, Fault>;

/// An error of the language.
pub fn raise<T>(message: impl Into<Cow<'static, str>>) -> Result<T, Fault> {
    Err(Fault::Raised(message.into()))
}

/// The error of a function that is asked for values that it has no answer for.
pub fn no_such_overload<T>() -> Result<T, Fault> {
    raise("no such overload")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Raised(message) => f.write_str(message),
            Fault::Exhausted => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text::Shared(text.into())
    }
}

impl Key<'_> {
    fn rank(&self) -> u8 {
        match self {
            Key::Bool(_) => 0,
            Key::Int(_) | Key::Uint(_) => 1,
            Key::String(_) => 2,
        }
    }

    fn number(&self) -> i128 {
        match self {
            Key::Int(number) => i128::from(*number),
            Key::Uint(number) => i128::from(*number),
            _ => 0,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Key::String(a), Key::String(b)) => (**a).cmp(&**b),
            (a, b) => (a.rank(), a.number()).cmp(&(b.rank(), b.number())),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    /// The key that a value is; None for values that are none, such as 1.5.
    pub fn of(value: &Value<'a>) -> Option<Key<'a>> {
        Some(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::String(text) => Key::String(text.clone()),
            Value::Double(number) if number.fract() == 0.0 && *number >= i64::MIN as f64 && *number < 0.0 => {
                Key::Int(*number as i64)
            }
            Value::Double(number) if number.fract() == 0.0 && *number >= 0.0 && *number < u64::MAX as f64 => {
                Key::Uint(*number as u64)
            }
            _ => return None,
        })
    }

    pub fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<String>) -> Value<'a> {
        Value::String(text.into().into())
    }

    pub fn borrowed(text: &'a str) -> Value<'a> {
        Value::String(Text::Borrowed(text))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Made { items: Arc::new(items), like: None })
    }

    pub fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Value<'a> {
        Value::Map(Map::Made(Arc::new(entries)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn is_true(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// As `type(x)` names it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Quantity(_) => Opaque::Quantity.name(),
            Value::Url(_) => Opaque::Url.name(),
            Value::Ip(_) => Opaque::Ip.name(),
            Value::Cidr(_) => Opaque::Cidr.name(),
            Value::Semver(_) => Opaque::Semver.name(),
            Value::Format(_) => Opaque::Format.name(),
        }
    }

    /// What `size` says, and what costs go by: characters, bytes, elements; 1 for what has no size.
    pub fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Ip(IpAddr::V4(_)) => 4,
            Value::Ip(IpAddr::V6(_)) => 16,
            Value::Cidr(net) => u64::from(net.prefix_len()).div_ceil(8),
            Value::Optional(Some(inner)) => inner.size(),
            _ => 1,
        }
    }

    /// Empty, zero or null: what `optional.ofNonZeroValue` takes for nothing.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null | Value::Optional(None) => true,
            Value::Bool(value) => !value,
            Value::Int(number) | Value::Duration(number) => *number == 0,
            Value::Uint(number) => *number == 0,
            Value::Double(number) => *number == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            _ => false,
        }
    }
}

impl<'a> From<Type> for Value<'a> {
    fn from(ty: Type) -> Value<'a> {
        Value::Type(Text::from(ty.name().to_owned()))
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Data(data) => data.items.len(),
            List::Made { items, .. } => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Outcome<'a>> {
        match self {
            List::Data(data) => data.get(index),
            List::Made { items, .. } => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Outcome<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// How the list was declared.
    pub fn declared(&self) -> Option<&'a super::decl::ListDecl> {
        match self {
            List::Data(data) => data.decl,
            List::Made { like, .. } => *like,
        }
    }
}

impl<'a> Map<'a> {
    /// Entries, those that no expression sees too.
    pub fn len(&self) -> usize {
        match self {
            Map::Data(data) => data.entries.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, Fault> {
        match (self, key) {
            (Map::Data(data), Value::String(key)) => data.get(key).transpose(),
            (Map::Data(_), _) => no_such_overload(),
            (Map::Made(entries), key) => Ok(Key::of(key).and_then(|key| entries.get(&key).cloned())),
        }
    }

    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Map::Data(data) => data.keys(),
            Map::Made(entries) => entries.keys().cloned().collect(),
        }
    }
}

/// As errors print values.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Uint(number) => write!(f, "{number}"),
            Value::Double(number) => write!(f, "{number}"),
            Value::String(text) => f.write_str(text),
            Value::Duration(nanos) => f.write_str(&super::library::time::duration_text(*nanos)),
            Value::Timestamp(at) => f.write_str(&super::library::time::timestamp_text(*at)),
            Value::Type(name) => f.write_str(name),
            other => f.write_str(other.type_name()),
        }
    }
}
