//! Any schema at all.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Any JSON with the words of schemas.
fn schemas() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "object", "array", "string", "integer", "boolean", "number", "map", "set", "atomic", "granular", "date",
        "int32", "^a+$", "(", "a", "b",
    ]);
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..4).prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "additionalProperties",
        "default",
        "nullable",
        "enum",
        "required",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxItems",
        "minProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-validations",
        "rule",
        "a",
        "b",
        "metadata",
        "kind",
        "spec",
    ]);
    scalar.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A schema that is often a good one: typed places, with this and that beside the type.
fn structural() -> impl Strategy<Value = Value> {
    let scalar =
        prop::sample::select(vec!["string", "integer", "boolean", "number"]).prop_map(|ty| json!({"type": ty}));
    let with = |schema: Value, beside: Value| {
        let mut schema = schema;
        if let (Value::Object(schema), Value::Object(beside)) = (&mut schema, beside) {
            schema.extend(beside.into_iter().filter(|(key, _)| key != "type"));
        }
        schema
    };
    let place = scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::btree_map("[ab]", inner.clone(), 1..3)
                .prop_map(|all| json!({"type": "object", "properties": all})),
            inner.clone().prop_map(|item| json!({"type": "array", "items": item})),
            inner.prop_map(|any| json!({"type": "object", "additionalProperties": any})),
        ]
    });
    (place, prop::option::weighted(0.3, schemas()))
        .prop_map(move |(place, beside)| with(place, beside.unwrap_or_default()))
}

proptest! {
    /// Whatever a schema is, it is answered; and one that is taken does what it is for.
    #[test]
    fn any_schema_is_refused_or_works(spec in prop_oneof![structural(), schemas()], value in schemas()) {
        let object = with("/spec/versions/0/schema/openAPIV3Schema/properties/spec", spec);
        let schema = object.0["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let version = crate::openapi::CustomVersion {
            group: "g.io".into(), version: "v1".into(), kind: "A".into(), list_kind: "AList".into(), plural: "as".into(),
            namespaced: false, schema: std::sync::Arc::new(schema.clone()), status: false, scale: false, selectable: vec![],
        };
        let errors = create(&object, &no_rules);
        prop_assert!(update(&object, &good(), &no_rules).len() <= errors.len() + 1);
        let documents = crate::openapi::Documents::with(vec![version]);
        let v3: Value = serde_json::from_slice(&documents.v3("g.io", "v1").unwrap().bytes).unwrap();
        prop_assert!(v3["components"]["schemas"]["io.g.v1.A"].is_object());
        let Ok(compiled) = Structural::compile(&schema) else {
            prop_assert!(!errors.is_empty());
            return Ok(());
        };
        if !errors.is_empty() {
            return Ok(());
        }
        let mut once = Object::from_value(json!({"metadata": {"name": "a"}, "spec": value})).unwrap();
        crate::custom::normalize(&compiled, &mut once);
        let mut twice = once.clone();
        crate::custom::normalize(&compiled, &mut twice);
        prop_assert_eq!(&twice, &once);
        crate::custom::validate::create(&compiled, &once.0);
        let whole = Value::Object(once.0);
        let fields = crate::apply::Typed::custom(&compiled).fields(&whole);
        prop_assert_eq!(crate::apply::Fields::read(&fields.write()), fields);
    }
}
