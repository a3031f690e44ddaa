//! One view of the two sorts of schemas.

use crate::custom::structural::{Additional, JsonType, Nested, Structural, ValueValidation};

/// A schema, whole or of an alternative.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    Whole(&'a Structural),
    Part(&'a Nested),
}

pub(super) enum Others<'a> {
    Any,
    None,
    Each(Node<'a>),
}

impl<'a> Node<'a> {
    /// No type at all allows any.
    pub(super) fn types(self) -> &'static [JsonType] {
        const INT_OR_STRING: &[JsonType] = &[JsonType::Integer, JsonType::String];
        match self {
            Node::Whole(schema) if schema.int_or_string => INT_OR_STRING,
            Node::Whole(schema) => one(schema.ty),
            Node::Part(part) => one(part.ty),
        }
    }

    pub(super) fn nullable(self) -> bool {
        matches!(self, Node::Whole(schema) if schema.nullable)
    }

    pub(super) fn value(self) -> &'a ValueValidation {
        match self {
            Node::Whole(schema) => &schema.value,
            Node::Part(part) => &part.value,
        }
    }

    pub(super) fn property(self, name: &str) -> Option<Node<'a>> {
        match self {
            Node::Whole(schema) => schema.properties.get(name).map(Node::Whole),
            Node::Part(part) => part.properties.get(name).map(Node::Part),
        }
    }

    pub(super) fn others(self) -> Others<'a> {
        match self {
            Node::Whole(schema) => match &schema.additional {
                Additional::Schema(any) => Others::Each(Node::Whole(any)),
                Additional::Bool(false) => Others::None,
                Additional::Bool(true) | Additional::Absent => Others::Any,
            },
            Node::Part(part) => part.additional.as_deref().map_or(Others::Any, |any| Others::Each(Node::Part(any))),
        }
    }

    pub(super) fn items(self) -> Option<Node<'a>> {
        match self {
            Node::Whole(schema) => schema.items.as_deref().map(Node::Whole),
            Node::Part(part) => part.items.as_deref().map(Node::Part),
        }
    }
}

fn one(ty: Option<JsonType>) -> &'static [JsonType] {
    match ty {
        None => &[],
        Some(JsonType::Object) => &[JsonType::Object],
        Some(JsonType::Array) => &[JsonType::Array],
        Some(JsonType::String) => &[JsonType::String],
        Some(JsonType::Integer) => &[JsonType::Integer],
        Some(JsonType::Number) => &[JsonType::Number],
        Some(JsonType::Boolean) => &[JsonType::Boolean],
    }
}
