use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Object;

/// A schema with a bit of everything.
pub(crate) fn example() -> Structural {
    Structural::compile(&example_schema()).expect("a schema")
}

pub(crate) fn example_schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "default": {}, "properties": {
            "replicas": {"type": "integer", "format": "int32", "minimum": 0, "default": 1},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "note": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "port": {"type": "integer", "default": 80},
                    "args": {"type": "array", "items": {"type": "string"}},
                    "size": {"type": "integer"}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "limits": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "all": {"x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}},
    }})
}

fn object(spec: Value) -> Object {
    Object::from_value(json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "spec": spec})).unwrap()
}

#[test]
fn what_the_schema_does_not_know_goes_and_is_named() {
    let mut got = object(json!({
        "replicas": 2, "foo": 1, "labels": {"x": "y"}, "parts": [{"name": "a", "bar": {"c": 1}}],
        "open": {"any": [{"x": 1}], "known": {"a": 1, "b": 2}}, "all": {"x": [{"y": 1}]},
        "inner": {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b", "odd": 1}, "data": 1},
    }));
    got.metadata_mut().insert("odd".into(), json!(1));
    got.0.insert("extra".into(), json!(1));
    let findings = prune(&example(), &mut got);
    let unknown =
        ["extra", "metadata.odd", "spec.foo", "spec.inner.metadata.odd", "spec.open.known.b", "spec.parts[0].bar"];
    assert_eq!(findings.unknown, unknown);
    assert_eq!(findings.wrong, []);
    assert_eq!(
        got,
        object(json!({
            "replicas": 2, "labels": {"x": "y"}, "parts": [{"name": "a"}],
            "open": {"any": [{"x": 1}], "known": {"a": 1}}, "all": {"x": [{"y": 1}]},
            "inner": {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b"}, "data": 1},
        }))
    );
    assert_eq!(findings.strict(&[])[2], "unknown field \"spec.foo\"");
}

#[test]
fn metadata_is_of_the_types_that_all_metadata_is_of() {
    let mut got = object(json!({"inner": {"apiVersion": 1, "kind": "B", "metadata": {"labels": {"a": 1}}}}));
    got.metadata_mut().insert("labels".into(), json!(["a"]));
    let findings = prune(&example(), &mut got);
    let messages: Vec<&str> = findings.wrong.iter().map(|wrong| wrong.message.as_str()).collect();
    assert_eq!(
        messages[0],
        "json: cannot unmarshal array into Go struct field ObjectMeta.labels of type map[string]string"
    );
    assert_eq!(messages[1], "spec.inner.apiVersion: Invalid value: 1: must be a string");
    assert!(messages[2].starts_with("spec.inner.metadata: Invalid value: {"), "{}", messages[2]);
    assert_eq!(messages.len(), 3);
    assert_eq!(got.0["spec"]["inner"], json!({"kind": "B", "metadata": {}}));
}

#[test]
fn defaults_are_filled_in_where_nothing_is() {
    let filled = |spec: Value| {
        let mut got = object(spec);
        assert_eq!(normalize(&example(), &mut got).wrong, []);
        got.0["spec"].clone()
    };
    assert_eq!(filled(json!({})), json!({"replicas": 1, "mode": "a"}));
    let mut absent = object(json!(null));
    absent.0.remove("spec");
    normalize(&example(), &mut absent);
    assert_eq!(absent.0["spec"], json!({"replicas": 1, "mode": "a"}));
    // Null stays where it is a value, goes where it is none, and is the default where there is one.
    let nulls = json!({"replicas": null, "mode": "b", "note": null, "port": null, "labels": {"a": null}, "parts": [{"name": "a"}]});
    let expected =
        json!({"replicas": 1, "mode": "b", "note": null, "labels": {}, "parts": [{"name": "a", "port": 80}]});
    assert_eq!(filled(nulls), expected);
    // What has no schema is left alone.
    assert_eq!(filled(json!({"all": {"x": null}}))["all"], json!({"x": null}));
}

#[test]
fn defaults_are_bounded() {
    let big = "x".repeat(1 << 16);
    let schema = Structural::compile(&json!({"type": "object", "properties": {"spec": {"type": "array", "items":
        {"type": "object", "properties": {"a": {"type": "string", "default": big}}}}}}))
    .unwrap();
    let items = |count: usize| object(Value::Array(vec![json!({}); count]));
    assert_eq!(normalize(&schema, &mut items(10)).wrong, []);
    let findings = normalize(&schema, &mut items(1000));
    assert_eq!(findings.decode_error(), Some(defaults::TooLarge.to_string().as_str()));
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..100).prop_map(Value::from),
        Just(json!(1.5)),
        "[ab]{0,2}".prop_map(Value::from),
    ]
}

/// Any JSON, with the names that the schema has.
fn anything() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "spec",
        "replicas",
        "mode",
        "note",
        "port",
        "parts",
        "name",
        "args",
        "size",
        "tags",
        "labels",
        "limits",
        "open",
        "known",
        "inner",
        "all",
        "apiVersion",
        "kind",
        "metadata",
        "a",
        "b",
        "status",
        "ready",
    ]);
    scalar().prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A spec of the right shape. No map in it is empty: what has nothing in it is itself a field, until something is in it.
pub(crate) fn specs() -> impl Strategy<Value = Value> {
    let part = (0i64..3, prop::option::of(0i64..3), prop::option::of(prop::collection::vec("[xy]", 0..3)));
    let parts = prop::collection::btree_map("[a-d]", part, 0..4);
    let labels = prop::collection::btree_map("[a-c]", "[12]", 1..3);
    let tags = prop::collection::btree_set("[a-d]", 0..4);
    let open = prop::collection::btree_map("[a-c]", prop::collection::btree_map("[ab]", 0i64..3, 1..3), 1..3);
    (parts, labels, tags, open, any::<bool>()).prop_map(|(parts, labels, tags, open, reversed)| {
        let mut parts: Vec<Value> = parts
            .into_iter()
            .map(|(name, (port, size, args))| {
                let mut part = json!({"name": name, "port": port});
                if let Some(size) = size {
                    part["size"] = json!(size);
                }
                if let Some(args) = args {
                    part["args"] = json!(args);
                }
                part
            })
            .collect();
        if reversed {
            parts.reverse();
        }
        json!({"parts": parts, "labels": labels, "tags": tags, "open": open, "limits": labels_to_numbers(&labels)})
    })
}

fn labels_to_numbers(labels: &std::collections::BTreeMap<String, String>) -> Value {
    labels.iter().map(|(key, value)| (key.clone(), json!(value.len()))).collect::<serde_json::Map<_, _>>().into()
}

proptest! {
    /// What is normal stays as it is, and nothing in it is unknown.
    #[test]
    fn normalizing_twice_is_normalizing_once(spec in anything(), metadata in anything()) {
        let mut once = object(spec);
        once.0.insert("metadata".into(), metadata);
        normalize(&example(), &mut once);
        let mut twice = once.clone();
        let findings = normalize(&example(), &mut twice);
        prop_assert_eq!(findings, Findings::default());
        prop_assert_eq!(twice, once);
    }

    /// No defaults make a good object bad.
    #[test]
    fn what_is_good_is_good_with_its_defaults(spec in prop_oneof![specs(), anything()]) {
        let (bare, mut full) = (object(spec.clone()), object(spec));
        let bare_errors = validate::create(&example(), &bare.0);
        let findings = normalize(&example(), &mut full);
        if bare_errors.is_empty() && findings.wrong.is_empty() {
            prop_assert_eq!(validate::create(&example(), &full.0), vec![]);
        }
    }

    /// Whatever an object is, who changes nothing in it is told of nothing but the objects within. (Fields that no schema has, and
    /// items without keys, have no place by which to tell what they were.)
    #[test]
    fn what_does_not_change_need_not_be_good(spec in anything()) {
        let mut object = object(spec);
        if let Some(spec) = object.0["spec"].as_object_mut() {
            spec.retain(|key, value| {
                let has_items = value.as_array().is_none_or(|items| items.iter().all(Value::is_object));
                !["inner", "open"].contains(&key.as_str()) && (key != "parts" || has_items)
            });
        }
        normalize(&example(), &mut object);
        let errors = validate::update(&example(), &object.0, &object.0);
        prop_assert_eq!(errors, vec![]);
    }
}
