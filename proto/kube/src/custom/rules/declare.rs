//! What expressions see of a schema: its types, and how large values can become by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cel::escape::escape;
use crate::cel::{Decl, DeclKind, FieldDecl, ListDecl, ObjectDecl};
use crate::custom::structural::{Additional, JsonType, Structural};
use crate::schema::ListType;

/// The largest request, by which what has no bound of its own is bounded. It is Kubernetes' figure, whatever ours is: costs are
/// reckoned by it.
pub(super) const REQUEST_MAX_BYTES: u64 = 3 << 20;
/// A character in bytes, at most.
const CHAR_BYTES: u64 = 4;
const DURATION_BYTES: u64 = 32;
const DATE_TIME_BYTES: u64 = 32;
const DATE_BYTES: u64 = 12;

/// The declaration of a place; None where an expression sees nothing. `root`: an object with a name of its own.
pub(super) fn declare(schema: &Structural, root: bool, name: &str) -> Option<Arc<Decl>> {
    let mut decl = match () {
        () if schema.int_or_string => int_or_string(schema),
        () if root => object(schema, true, name),
        () => match schema.ty? {
            JsonType::Array => list(schema, name)?,
            JsonType::Object => match &schema.additional {
                Additional::Schema(values) => map(schema, values, name)?,
                _ => object(schema, false, name),
            },
            JsonType::String => text(schema),
            JsonType::Boolean => Decl::new(DeclKind::Bool, 0, 4),
            JsonType::Number => Decl::new(DeclKind::Double, 0, 1),
            JsonType::Integer => Decl::new(DeclKind::Int, 0, 1),
        },
    };
    decl.nullable = schema.nullable;
    Some(Arc::new(decl))
}

fn not_negative(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn int_or_string(schema: &Structural) -> Decl {
    let longest = schema.value.max_length.map_or(REQUEST_MAX_BYTES - 2, |length| not_negative(length) * CHAR_BYTES);
    Decl::new(DeclKind::IntOrString, longest, 1)
}

fn text(schema: &Structural) -> Decl {
    let max_length = schema.value.max_length.map(not_negative);
    let unbounded = REQUEST_MAX_BYTES - 2;
    match schema.value.format.as_str() {
        "byte" => Decl::new(DeclKind::Bytes, max_length.unwrap_or(unbounded), 2),
        "duration" => Decl::new(DeclKind::Duration, DURATION_BYTES, 3),
        "date" => Decl::new(DeclKind::Date, DATE_BYTES, DATE_BYTES),
        "date-time" => Decl::new(DeclKind::DateTime, DATE_TIME_BYTES, 21),
        _ => {
            let words = schema.value.enumeration.iter().filter_map(|word| word.as_str());
            let longest_word = words.map(|word| word.len() as u64).max();
            let longest = match max_length {
                Some(length) => length.saturating_mul(CHAR_BYTES),
                None if schema.value.enumeration.is_empty() => unbounded,
                None => longest_word.unwrap_or(0),
            };
            Decl::new(DeclKind::String, longest, 2)
        }
    }
}

fn list(schema: &Structural, name: &str) -> Option<Decl> {
    let items = schema.items.as_deref()?;
    let items = declare(items, items.embedded, &format!("{name}.@idx"))?;
    let most = schema.value.max_items.map_or((REQUEST_MAX_BYTES - 2) / (items.min_bytes + 1), not_negative);
    let keys = schema.list_map_keys.iter().map(|key| escape(key).unwrap_or_else(|| key.clone())).collect();
    let list_type = schema.list_type.unwrap_or(ListType::Atomic);
    Some(Decl::new(DeclKind::List(ListDecl { items, list_type, keys }), most, 2))
}

fn map(schema: &Structural, values: &Structural, name: &str) -> Option<Decl> {
    let values = declare(values, values.embedded, &format!("{name}.@elem"))?;
    // A key of two quotes, a colon, a comma, and some of its own.
    let most = schema.value.max_properties.map_or((REQUEST_MAX_BYTES - 2) / (values.min_bytes + 6), not_negative);
    Some(Decl::new(DeclKind::Map(values), most, 2))
}

fn object(schema: &Structural, root: bool, name: &str) -> Decl {
    let mut fields = BTreeMap::new();
    let mut properties = BTreeMap::new();
    let mut min_bytes = 2;
    let own = schema.properties.iter().filter_map(|(property, inner)| {
        let decl = declare(inner, inner.embedded, &format!("{name}.{property}"))?;
        Some((property.clone(), decl, inner.default.is_some()))
    });
    let meta =
        (root && !has_meta(schema)).then(meta).into_iter().flatten().map(|(property, decl)| (property, decl, false));
    for (property, decl, has_default) in own.chain(meta) {
        if schema.value.required.contains(&property) && !has_default && !properties.contains_key(&property) {
            min_bytes += property.len() as u64 + decl.min_bytes + 4;
        }
        if let Some(escaped) = escape(&property) {
            fields.insert(escaped, FieldDecl { name: property.clone(), decl: decl.clone() });
        }
        properties.insert(property, decl);
    }
    Decl::new(DeclKind::Object(ObjectDecl { name: name.to_owned(), fields, properties }), 0, min_bytes)
}

/// Whether a schema says itself what every object has.
fn has_meta(schema: &Structural) -> bool {
    let is_text = |schema: Option<&Structural>| schema.is_some_and(|schema| schema.ty == Some(JsonType::String));
    let Some(metadata) = schema.properties.get("metadata") else { return false };
    is_text(schema.properties.get("kind"))
        && is_text(schema.properties.get("apiVersion"))
        && metadata.ty == Some(JsonType::Object)
        && is_text(metadata.properties.get("name"))
        && is_text(metadata.properties.get("generateName"))
}

/// What rules see of every object, and nothing else of its metadata.
fn meta() -> [(String, Arc<Decl>); 3] {
    let text = Arc::new(Decl::new(DeclKind::String, REQUEST_MAX_BYTES - 2, 2));
    let names = ["name", "generateName"].map(str::to_owned);
    let field = |name: &String| (name.clone(), FieldDecl { name: name.clone(), decl: text.clone() });
    let metadata = ObjectDecl {
        name: "metadata".to_owned(),
        fields: names.iter().map(field).collect(),
        properties: names.iter().map(|name| (name.clone(), text.clone())).collect(),
    };
    let metadata = Arc::new(Decl::new(DeclKind::Object(metadata), 0, 2));
    [("kind".to_owned(), text.clone()), ("apiVersion".to_owned(), text), ("metadata".to_owned(), metadata)]
}
