//! Whether a schema is structural: every place of it has a type, and what `allOf`, `anyOf`, `oneOf` and `not` say is of values alone.
//! Source: the Kubernetes documentation "Specifying a structural schema".

use serde_json::{Map, Value};

use super::schema::{entries, flag, is_int_or_string, is_set, list, map, text};
use crate::FieldError;
use crate::custom::pattern::Pattern;
use crate::validation::at::ERRORS_MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is not structural, in the order of the messages.
pub(super) fn check(schema: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new() };
    walk.place(schema, Level::Root, path);
    walk.complete(schema, Some(schema), path, path);
    walk.errors.sort_by_key(ToString::to_string);
    walk.errors.truncate(ERRORS_MAX);
    walk.errors
}

/// Errors that are sorted before the first of them are taken.
const FOUND_MAX: usize = 10 * ERRORS_MAX;

struct Walk {
    errors: Vec<FieldError>,
}

impl Walk {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < FOUND_MAX {
            self.errors.push(error);
        }
    }

    fn required(&mut self, path: String, why: &str) {
        self.push(FieldError::required(path, why));
    }

    fn forbidden(&mut self, path: String, why: &str) {
        self.push(FieldError::forbidden(path, why));
    }

    fn place(&mut self, schema: &Map<String, Value>, level: Level, path: &str) {
        let ty = text(schema, "type").unwrap_or_default();
        let items = map(schema, "items");
        if ty == "array" && items.is_none() {
            self.required(format!("{path}.items"), "must be specified");
        }
        if let Some(items) = items {
            self.place(items, Level::Item, &format!("{path}.items"));
        }
        for (name, property) in entries(schema, "properties") {
            self.place(property, Level::Field, &format!("{path}.properties[{name}]"));
        }
        let additional = schema.get("additionalProperties").filter(|value| !value.is_null());
        if additional.is_some() && level == Level::Root {
            self.forbidden(format!("{path}.additionalProperties"), "must not be used at the root");
        }
        if let Some(inner) = additional.and_then(Value::as_object) {
            self.place(inner, Level::Field, &format!("{path}.additionalProperties"));
        }
        self.int_or_string(schema, path);
        let alternatives = list(schema, "anyOf");
        let first_of_all = list(schema, "allOf").first().and_then(Value::as_object);
        let skip = Skip {
            any_of: is_int_or_string(alternatives),
            first_of_all: first_of_all.is_some_and(|first| is_int_or_string(list(first, "anyOf"))),
        };
        self.values(schema, skip, path);
        self.type_of(schema, level, path);
        self.meta(schema, level, path);
    }

    fn int_or_string(&mut self, schema: &Map<String, Value>, path: &str) {
        if !flag(schema, "x-kubernetes-int-or-string") {
            return;
        }
        for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(schema, key) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                self.push(FieldError::invalid(format!("{path}.{key}"), true, why));
            }
        }
    }

    fn type_of(&mut self, schema: &Map<String, Value>, level: Level, path: &str) {
        let ty = text(schema, "type").unwrap_or_default();
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let at = || format!("{path}.type");
        let needs_none = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        if embedded && ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            match ty {
                "" => self.required(at(), why),
                ty => self.push(FieldError::invalid(at(), ty, why)),
            }
        } else if ty.is_empty() && !needs_none.iter().any(|key| flag(schema, key)) {
            let why = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            self.required(at(), why);
        }
        if embedded && schema.get("additionalProperties").is_some_and(|value| !value.is_null()) {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbidden(format!("{path}.additionalProperties"), why);
        }
        if level == Level::Root && !ty.is_empty() && ty != "object" {
            self.push(FieldError::invalid(at(), ty, "must be object at the root"));
        }
    }

    /// The fields of every object are what they are; a schema may say more of the name alone.
    fn meta(&mut self, schema: &Map<String, Value>, level: Level, path: &str) {
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let is_object = level == Level::Root || embedded;
        let properties = map(schema, "properties");
        let property = |name: &str| properties?.get(name)?.as_object();
        for name in ["kind", "apiVersion"] {
            if let Some(own) = property(name).filter(|_| is_object)
                && text(own, "type") != Some("string")
            {
                let ty = text(own, "type").unwrap_or_default();
                self.push(FieldError::invalid(format!("{path}.properties[{name}].type"), ty, "must be string"));
            }
        }
        if let Some(metadata) = property("metadata") {
            let path = format!("{path}.properties[metadata]");
            let ty = text(metadata, "type").unwrap_or_default();
            if is_object && ty != "object" {
                self.push(FieldError::invalid(format!("{path}.type"), ty, "must be object"));
            }
            let is_name = |(key, value): (&String, &Value)| match key.as_str() {
                "type" | "default" => true,
                "properties" => {
                    value.as_object().is_none_or(|all| all.keys().all(|name| name == "name" || name == "generateName"))
                }
                _ => !is_set(value),
            };
            if level == Level::Root && !metadata.iter().all(is_name) {
                let why =
                    "must not specify anything other than name and generateName, but metadata is implicitly specified";
                self.forbidden(path, why);
            }
        }
        let keeps = flag(schema, "x-kubernetes-preserve-unknown-fields");
        if embedded && !keeps && properties.is_none_or(Map::is_empty) {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(format!("{path}.properties"), why);
        }
    }

    fn values(&mut self, schema: &Map<String, Value>, skip: Skip, path: &str) {
        let none = Skip::default();
        if !skip.any_of {
            self.nested_all(schema, "anyOf", none, path);
        }
        for (index, inner) in list(schema, "allOf").iter().enumerate() {
            let skip = Skip { any_of: skip.first_of_all && index == 0, first_of_all: false };
            if let Some(inner) = inner.as_object() {
                self.nested(inner, skip, &format!("{path}.allOf[{index}]"));
            }
        }
        self.nested_all(schema, "oneOf", none, path);
        if let Some(not) = map(schema, "not") {
            self.nested(not, none, &format!("{path}.not"));
        }
        if let Some(pattern) = text(schema, "pattern")
            && let Err(error) = Pattern::compile(pattern)
        {
            let why = format!("must be a valid regular expression, but isn't: {error}");
            self.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
        }
    }

    fn nested_all(&mut self, schema: &Map<String, Value>, key: &str, skip: Skip, path: &str) {
        for (index, inner) in list(schema, key).iter().enumerate() {
            if let Some(inner) = inner.as_object() {
                self.nested(inner, skip, &format!("{path}.{key}[{index}]"));
            }
        }
    }

    /// What stands below `allOf` and the like: nothing but checks of values.
    fn nested(&mut self, schema: &Map<String, Value>, skip: Skip, path: &str) {
        self.values(schema, skip, path);
        if let Some(items) = map(schema, "items") {
            self.nested(items, Skip::default(), &format!("{path}.items"));
        }
        for (name, property) in entries(schema, "properties") {
            self.nested(property, Skip::default(), &format!("{path}.properties[{name}]"));
        }
        for (key, why) in [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
            ("x-kubernetes-validations", "must be empty to be structural"),
        ] {
            let is_there = |value: &Value| match key {
                // Whatever the default is, and whatever is said of other keys.
                "default" => !value.is_null(),
                "additionalProperties" => value.is_object() || *value == Value::Bool(true),
                _ => is_set(value),
            };
            if schema.get(key).is_some_and(is_there) {
                self.forbidden(format!("{path}.{key}"), why);
            }
        }
        if map(schema, "properties").is_some_and(|all| all.contains_key("metadata")) {
            self.forbidden(format!("{path}.properties[metadata]"), "must not be specified in a nested context");
        }
    }

    /// Every field that a check of the root's values names has a place in the tree.
    fn complete(&mut self, checks: &Map<String, Value>, place: Option<&Map<String, Value>>, at: &str, named: &str) {
        for (path, inner) in junctions(checks, named) {
            self.complete_below(inner, place, at, &path);
        }
    }

    fn complete_below(
        &mut self,
        nested: &Map<String, Value>,
        place: Option<&Map<String, Value>>,
        at: &str,
        named: &str,
    ) {
        let Some(schema) = place else {
            return self.required(at.to_owned(), &format!("because it is defined in {named}"));
        };
        self.complete(nested, place, at, named);
        if let Some(items) = map(nested, "items") {
            self.complete_below(items, map(schema, "items"), &format!("{at}.items"), &format!("{named}.items"));
        }
        for (name, inner) in entries(nested, "properties") {
            let own = map(schema, "properties").and_then(|all| all.get(name)).and_then(Value::as_object);
            let below = |path: &str| format!("{path}.properties[{name}]");
            self.complete_below(inner, own, &below(at), &below(named));
        }
    }
}

fn junctions<'a>(schema: &'a Map<String, Value>, path: &str) -> Vec<(String, &'a Map<String, Value>)> {
    let mut all = Vec::new();
    all.extend(map(schema, "not").map(|not| (format!("{path}.not"), not)));
    for key in ["allOf", "anyOf", "oneOf"] {
        let inner = list(schema, key).iter().enumerate();
        all.extend(inner.filter_map(|(index, inner)| Some((format!("{path}.{key}[{index}]"), inner.as_object()?))));
    }
    all
}

/// Which alternatives say that a value is an integer or a text, as they may.
#[derive(Clone, Copy, Default)]
struct Skip {
    any_of: bool,
    first_of_all: bool,
}
