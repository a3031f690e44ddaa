//! How values of custom kinds are owned: what `x-kubernetes-list-type`, `-list-map-keys` and `-map-type` say, and where the schema says
//! nothing what upstream deduces: maps by entry, lists and scalars as a whole.

use serde_json::Value;

use super::typed::Typed;
use crate::custom::{Additional, JsonType, Structural};
use crate::schema::{self, ListType};

/// An object of a custom kind, or one in it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    schema: &'a Structural,
    /// It has the fields of every object.
    is_object: bool,
    /// It, or an object that it is in, keeps fields that the schema does not have.
    open: bool,
}

/// What an object may have under a name that its schema does not have.
enum Unnamed<'a> {
    Nothing,
    Deduced,
    Each(&'a Structural),
}

impl<'a> Place<'a> {
    fn unnamed(self) -> Unnamed<'a> {
        match &self.schema.additional {
            Additional::Schema(any) => Unnamed::Each(any),
            Additional::Bool(true) => Unnamed::Deduced,
            Additional::Bool(false) => Unnamed::Nothing,
            // Without any field at all an object may have all.
            Additional::Absent if self.open || self.schema.properties.is_empty() => Unnamed::Deduced,
            Additional::Absent => Unnamed::Nothing,
        }
    }

    pub(super) fn names(self, key: &str) -> bool {
        self.is_object && matches!(key, "apiVersion" | "kind" | "metadata") || self.schema.properties.contains_key(key)
    }

    /// Whether there can be such a field.
    pub(super) fn allows(self, key: &str) -> bool {
        self.names(key) || !matches!(self.unnamed(), Unnamed::Nothing)
    }

    pub(super) fn under(self, key: &str) -> Typed<'a> {
        match (key, self.schema.properties.get(key)) {
            ("metadata", _) if self.is_object => metadata(),
            ("apiVersion" | "kind", _) if self.is_object => Typed::Whole,
            (_, Some(property)) => of(property, self.open),
            (_, None) => match self.unnamed() {
                Unnamed::Each(any) => of(any, self.open),
                Unnamed::Deduced => Typed::Deduced,
                Unnamed::Nothing => Typed::Whole,
            },
        }
    }
}

/// The items of a list that is a map.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    item: &'a Structural,
    keys: &'a [String],
    open: bool,
}

impl<'a> Items<'a> {
    pub(super) fn keys(self) -> impl Iterator<Item = (&'a str, Option<Value>)> {
        self.keys.iter().map(move |key| {
            let default = self.item.properties.get(key).and_then(|property| property.default.clone());
            (key.as_str(), default)
        })
    }

    pub(super) fn item(self) -> Typed<'a> {
        of(self.item, self.open)
    }
}

fn metadata() -> Typed<'static> {
    let ty = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    ty.map_or(Typed::Deduced, Typed::kind)
}

/// A whole object of a custom kind.
pub(super) fn root(schema: &Structural) -> Typed<'_> {
    Typed::Custom(Place { schema, is_object: true, open: schema.preserve_unknown })
}

fn of(schema: &Structural, open: bool) -> Typed<'_> {
    let open = open || schema.preserve_unknown;
    match schema.ty {
        // Any value: an object is owned by entry, all else as a whole.
        None if schema.int_or_string => Typed::Whole,
        None if schema.properties.is_empty() && matches!(schema.additional, Additional::Absent) => {
            match schema.map_atomic {
                true => Typed::Whole,
                false => Typed::Deduced,
            }
        }
        None | Some(JsonType::Object) if schema.map_atomic => Typed::Whole,
        None | Some(JsonType::Object) => Typed::Custom(Place { schema, is_object: schema.embedded, open }),
        Some(JsonType::Array) => match (schema.list_type, &schema.items) {
            (Some(ListType::Set), _) => Typed::Set,
            (Some(ListType::Map), Some(item)) if schema.is_keyed() => {
                Typed::CustomKeyed(Items { item, keys: &schema.list_map_keys, open })
            }
            _ => Typed::Whole,
        },
        Some(JsonType::String | JsonType::Integer | JsonType::Number | JsonType::Boolean) => Typed::Whole,
    }
}
