//! A structural schema, compiled: the tree of types that a kind's objects are made of, and beside it what their values must keep.
//! Source: the Kubernetes documentation "Specifying a structural schema".

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::pattern::{Pattern, PatternError};
use crate::schema::ListType;

/// Schemas that stand in one another. A body nests no deeper in JSON than [`crate::canonical::DEPTH_MAX`].
pub const SCHEMA_DEPTH_MAX: usize = 120;
/// Schemas in one, those of `allOf` and the like included.
pub const NODES_MAX: usize = 100_000;
/// What the patterns of one schema may take in memory, those that are the same counted once.
pub const PATTERNS_MAX_BYTES: usize = 64 << 20;

/// The types that JSON Schema knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl JsonType {
    pub fn of(name: &str) -> Option<JsonType> {
        Some(match name {
            "object" => JsonType::Object,
            "array" => JsonType::Array,
            "string" => JsonType::String,
            "integer" => JsonType::Integer,
            "number" => JsonType::Number,
            "boolean" => JsonType::Boolean,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            JsonType::Object => "object",
            JsonType::Array => "array",
            JsonType::String => "string",
            JsonType::Integer => "integer",
            JsonType::Number => "number",
            JsonType::Boolean => "boolean",
        }
    }
}

/// What a schema says of keys that it does not name.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Absent,
    Bool(bool),
    Schema(Box<Structural>),
}

/// One `x-kubernetes-validations` rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// Empty where there is none, as the texts below.
    pub message: String,
    pub message_expression: String,
    /// `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueRequired`, `FieldValueDuplicate`.
    pub reason: String,
    /// A JSON path below the place of the rule.
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

/// One place of the tree.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// None only where `int_or_string` or `preserve_unknown` says enough.
    pub ty: Option<JsonType>,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    /// An object with apiVersion, kind and metadata of its own.
    pub embedded: bool,
    pub nullable: bool,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<String>,
    pub map_atomic: bool,
    /// A default of null is none.
    pub default: Option<Value>,
    pub rules: Vec<Rule>,
    pub value: ValueValidation,
}

/// What values must keep beyond their type.
#[derive(Clone, Debug, Default)]
pub struct ValueValidation {
    /// Empty where there is none.
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    /// In characters.
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Arc<Pattern>>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    /// Empty where any value will do.
    pub enumeration: Vec<Value>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
    pub all_of: Vec<Nested>,
    pub any_of: Vec<Nested>,
    pub one_of: Vec<Nested>,
    pub not: Option<Box<Nested>>,
}

/// A schema below `allOf`, `anyOf`, `oneOf` or `not`: it says nothing of types, but for the two of an int-or-string.
#[derive(Clone, Debug, Default)]
pub struct Nested {
    pub ty: Option<JsonType>,
    pub properties: BTreeMap<String, Nested>,
    pub additional: Option<Box<Nested>>,
    pub items: Option<Box<Nested>>,
    pub rules: Vec<Rule>,
    pub value: ValueValidation,
}

/// Why a schema cannot be compiled. What else would be wrong with it, the validation of definitions says at its field.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("schemas stand more than {SCHEMA_DEPTH_MAX} deep in one another")]
    TooDeep,
    #[error("more than {NODES_MAX} schemas in one")]
    TooManyNodes,
    #[error("the patterns of the schema take more than {PATTERNS_MAX_BYTES} bytes")]
    TooManyPatterns,
    #[error("{0} is not a schema")]
    NotASchema(String),
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    #[error("pattern {pattern:?}")]
    Pattern {
        pattern: String,
        #[source]
        source: PatternError,
    },
}

/// Parts of JSON Schema that structural schemas have no place for, and how errors name them.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

impl Structural {
    /// Compiles a JSONSchemaProps.
    pub fn compile(schema: &Value) -> Result<Structural, CompileError> {
        Compiler::default().structural(schema)
    }

    /// What stands under a key of an object, by name or as any other.
    pub fn under(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether a list is owned and compared item by item, by these keys.
    pub fn is_keyed(&self) -> bool {
        self.list_type == Some(ListType::Map) && !self.list_map_keys.is_empty()
    }
}

#[derive(Default)]
struct Compiler {
    depth: usize,
    nodes: usize,
    patterns: BTreeMap<String, Arc<Pattern>>,
    pattern_bytes: usize,
}

impl Compiler {
    fn structural(&mut self, schema: &Value) -> Result<Structural, CompileError> {
        let schema = self.enter(schema)?;
        let properties = |(name, schema): (&String, &Value)| Ok((name.clone(), self.structural(schema)?));
        let properties = entries(schema.get("properties")).map(properties).collect::<Result<_, _>>()?;
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null) => Additional::Absent,
            Some(Value::Bool(allowed)) => Additional::Bool(*allowed),
            Some(inner) => Additional::Schema(Box::new(self.structural(inner)?)),
        };
        let items = items_of(schema)?.map(|items| self.structural(items)).transpose()?.map(Box::new);
        let compiled = Structural {
            ty: text(schema, "type").and_then(JsonType::of),
            int_or_string: flag(schema, "x-kubernetes-int-or-string"),
            preserve_unknown: flag(schema, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(schema, "x-kubernetes-embedded-resource"),
            nullable: flag(schema, "nullable"),
            properties,
            additional,
            items,
            list_type: text(schema, "x-kubernetes-list-type").and_then(list_type),
            list_map_keys: texts(schema, "x-kubernetes-list-map-keys"),
            map_atomic: text(schema, "x-kubernetes-map-type") == Some("atomic"),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            rules: rules(schema),
            value: self.value(schema)?,
        };
        self.depth -= 1;
        Ok(compiled)
    }

    fn nested(&mut self, schema: &Value) -> Result<Nested, CompileError> {
        let schema = self.enter(schema)?;
        let properties = |(name, schema): (&String, &Value)| Ok((name.clone(), self.nested(schema)?));
        let properties = entries(schema.get("properties")).map(properties).collect::<Result<_, _>>()?;
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(Box::default()),
            Some(inner) => Some(Box::new(self.nested(inner)?)),
        };
        let items = items_of(schema)?.map(|items| self.nested(items)).transpose()?.map(Box::new);
        let compiled = Nested {
            ty: text(schema, "type").and_then(JsonType::of),
            properties,
            additional,
            items,
            rules: rules(schema),
            value: self.value(schema)?,
        };
        self.depth -= 1;
        Ok(compiled)
    }

    fn value(&mut self, schema: &Map<String, Value>) -> Result<ValueValidation, CompileError> {
        let not = schema.get("not").filter(|not| !not.is_null());
        Ok(ValueValidation {
            format: text(schema, "format").unwrap_or_default().to_owned(),
            maximum: number(schema, "maximum"),
            exclusive_maximum: flag(schema, "exclusiveMaximum"),
            minimum: number(schema, "minimum"),
            exclusive_minimum: flag(schema, "exclusiveMinimum"),
            max_length: whole(schema, "maxLength"),
            min_length: whole(schema, "minLength"),
            pattern: self.pattern(text(schema, "pattern").unwrap_or_default())?,
            max_items: whole(schema, "maxItems"),
            min_items: whole(schema, "minItems"),
            unique_items: flag(schema, "uniqueItems"),
            multiple_of: number(schema, "multipleOf"),
            enumeration: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            max_properties: whole(schema, "maxProperties"),
            min_properties: whole(schema, "minProperties"),
            required: texts(schema, "required"),
            all_of: self.all(schema, "allOf")?,
            any_of: self.all(schema, "anyOf")?,
            one_of: self.all(schema, "oneOf")?,
            not: not.map(|not| self.nested(not)).transpose()?.map(Box::new),
        })
    }

    fn all(&mut self, schema: &Map<String, Value>, key: &str) -> Result<Vec<Nested>, CompileError> {
        let schemas = schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        schemas.iter().map(|schema| self.nested(schema)).collect()
    }

    fn pattern(&mut self, pattern: &str) -> Result<Option<Arc<Pattern>>, CompileError> {
        if pattern.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.patterns.get(pattern) {
            return Ok(Some(known.clone()));
        }
        let compiled = Pattern::compile(pattern)
            .map_err(|source| CompileError::Pattern { pattern: pattern.to_owned(), source })?;
        self.pattern_bytes += compiled.size();
        if self.pattern_bytes > PATTERNS_MAX_BYTES {
            return Err(CompileError::TooManyPatterns);
        }
        let compiled = Arc::new(compiled);
        self.patterns.insert(pattern.to_owned(), compiled.clone());
        Ok(Some(compiled))
    }

    fn enter<'a>(&mut self, schema: &'a Value) -> Result<&'a Map<String, Value>, CompileError> {
        self.depth += 1;
        if self.depth > SCHEMA_DEPTH_MAX {
            return Err(CompileError::TooDeep);
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(CompileError::TooManyNodes);
        }
        let map = schema.as_object().ok_or_else(|| {
            let mut text = schema.to_string();
            text.truncate(text.floor_char_boundary(100));
            CompileError::NotASchema(text)
        })?;
        match UNSUPPORTED.into_iter().find(|(key, _)| map.get(*key).is_some_and(is_set)) {
            Some((_, name)) => Err(CompileError::Unsupported(name)),
            None => Ok(map),
        }
    }
}

/// Neither absent nor empty, which are the same here.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn items_of(schema: &Map<String, Value>) -> Result<Option<&Value>, CompileError> {
    match schema.get("items") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_)) => Err(CompileError::ItemsArray),
        Some(items) => Ok(Some(items)),
    }
}

fn list_type(name: &str) -> Option<ListType> {
    match name {
        "atomic" => Some(ListType::Atomic),
        "set" => Some(ListType::Set),
        "map" => Some(ListType::Map),
        _ => None,
    }
}

fn rules(schema: &Map<String, Value>) -> Vec<Rule> {
    let rule = |rule: &Value| {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Rule {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
        }
    };
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().map(rule).collect()
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn text<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    schema.get(key)?.as_str()
}

fn texts(schema: &Map<String, Value>, key: &str) -> Vec<String> {
    let texts = schema.get(key).and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn flag(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool) == Some(true)
}

fn number(schema: &Map<String, Value>, key: &str) -> Option<f64> {
    schema.get(key)?.as_f64()
}

fn whole(schema: &Map<String, Value>, key: &str) -> Option<i64> {
    schema.get(key)?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_compiles_to_its_tree() {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "size": {"type": "integer", "minimum": 1, "default": 2,
                "x-kubernetes-validations": [{"rule": "self > 0", "message": "no", "optionalOldSelf": true}]},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a+$"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
        }}))
        .unwrap();
        let size = &schema.properties["size"];
        assert_eq!((size.ty, size.value.minimum, &size.default), (Some(JsonType::Integer), Some(1.0), &Some(json!(2))));
        assert_eq!((size.rules[0].rule.as_str(), size.rules[0].optional_old_self), ("self > 0", Some(true)));
        let port = &schema.properties["port"];
        assert_eq!((port.ty, port.value.any_of[1].ty), (None, Some(JsonType::String)));
        let parts = &schema.properties["parts"];
        assert!(parts.is_keyed());
        let name = parts.items.as_ref().unwrap().under("name").unwrap();
        assert!(name.value.pattern.as_ref().unwrap().is_match("aa"));
        assert!(schema.properties["labels"].map_atomic);
        assert_eq!(schema.properties["labels"].under("any").unwrap().ty, Some(JsonType::String));
        assert!(schema.under("other").is_none());
    }

    #[test]
    fn what_is_no_structural_schema_is_refused() {
        let error = |schema: Value| Structural::compile(&schema).unwrap_err().to_string();
        assert_eq!(error(json!({"$ref": "#/a"})), "OpenAPIV3Schema '$ref' is not supported");
        assert_eq!(error(json!({"items": [{}]})), "OpenAPIV3Schema 'items' must be a schema, but is an array");
        assert_eq!(error(json!({"properties": {"a": 1}})), "1 is not a schema");
        assert_eq!(error(json!({"properties": {"a": {"pattern": "("}}})), "pattern \"(\"");
        let mut deep = json!({"type": "string"});
        for _ in 0..SCHEMA_DEPTH_MAX {
            deep = json!({"type": "array", "items": deep});
        }
        assert!(matches!(Structural::compile(&deep), Err(CompileError::TooDeep)));
        assert!(Structural::compile(&deep["items"]).is_ok());
    }
}
