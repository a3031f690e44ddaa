use serde_json::{Value, json};

use super::*;

fn compiled(schema: Value) -> Structural {
    Structural::compile(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}),
    )
    .unwrap()
}

fn told(schema: Value, value: Value) -> Vec<String> {
    let object = json!({"spec": {"x": value}});
    create(&compiled(schema), object.as_object().unwrap()).iter().map(ToString::to_string).collect()
}

#[test]
fn wrong_types_are_told_as_kubernetes_tells_them() {
    for (schema, value, message) in [
        (
            json!({"type": "string"}),
            json!(1),
            "spec.x: Invalid value: \"integer\": spec.x in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "integer"}),
            json!("a"),
            "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "object"}),
            json!([]),
            "spec.x: Invalid value: \"array\": spec.x in body must be of type object: \"array\"",
        ),
        (
            json!({"type": "boolean"}),
            json!(null),
            "spec.x: Invalid value: \"null\": spec.x in body must be of type boolean: \"null\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(true),
            "spec.x: Invalid value: \"\": spec.x in body must be of type int32: \"\"",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("x"),
            "spec.x: Invalid value: \"x\": spec.x in body must be of type date: \"x\"",
        ),
    ] {
        assert!(told(schema.clone(), value.clone()).contains(&message.to_owned()), "{:?}", told(schema, value));
    }
    for (schema, value) in [
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("80%")),
        (json!({"type": "string", "format": "unheard-of"}), json!("x")),
        (json!({"type": "integer", "format": "int32"}), json!(2147483647)),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, {"a": null}])),
    ] {
        assert_eq!(told(schema, value), Vec::<String>::new());
    }
}

#[test]
fn values_out_of_bounds_are_told_as_kubernetes_tells_them() {
    let text = |rules: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        schema
    };
    for (schema, value, message) in [
        (
            text(json!({"minLength": 3})),
            json!("éé"),
            "spec.x: Invalid value: \"éé\": spec.x in body should be at least 3 chars long",
        ),
        (text(json!({"maxLength": 3})), json!("abcd"), "spec.x: Too long: may not be more than 3 bytes"),
        (
            text(json!({"pattern": "^a+$"})),
            json!("b"),
            "spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'",
        ),
        (
            text(json!({"enum": ["a", "b"]})),
            json!("z"),
            "spec.x: Unsupported value: \"z\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "integer", "maximum": 10}),
            json!(11),
            "spec.x: Invalid value: 11: spec.x in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "spec.x: Invalid value: 1: spec.x in body should be greater than 1",
        ),
        (
            json!({"type": "number", "minimum": 1.5}),
            json!(1.25),
            "spec.x: Invalid value: 1.25: spec.x in body should be greater than or equal to 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec.x: Invalid value: 4: spec.x in body should be a multiple of 3",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1i64 << 40),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "maxProperties": 1, "additionalProperties": true}),
            json!({"a": 1, "b": 2}),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), "spec.x.a: Required value"),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": "b"}),
            "spec.x.a: Invalid value: \"string\": spec.x.a in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}}),
            json!([1, "b"]),
            "spec.x[1]: Invalid value: \"string\": spec.x[1] in body must be of type integer: \"string\"",
        ),
    ] {
        assert_eq!(told(schema, value), [message]);
    }
}

#[test]
fn combinations_are_told_of_the_whole() {
    let schema = |kind: &str| json!({"type": "integer", kind: [{"minimum": 5, "maximum": 8}, {"maximum": 6}]});
    assert_eq!(told(schema("anyOf"), json!(7)), Vec::<String>::new());
    assert_eq!(
        told(schema("oneOf"), json!(5)),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    assert_eq!(
        told(schema("oneOf"), json!(9)),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
            "spec.x: Invalid value: 9: spec.x in body should be less than or equal to 8",
        ]
    );
    assert_eq!(
        told(schema("anyOf"), json!(9))[0],
        "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)"
    );
    assert_eq!(
        told(schema("allOf"), json!(7)),
        [
            "spec.x: Invalid value: 7: spec.x in body should be less than or equal to 6",
            "<nil>: Invalid value: \"\": \"spec.x\" must validate all the schemas (allOf)",
        ]
    );
    let not = json!({"type": "integer", "not": {"minimum": 5}});
    assert_eq!(told(not, json!(7)), ["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"]);
    let nested = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(told(nested.clone(), json!({"a": ""})), Vec::<String>::new());
    assert_eq!(told(nested, json!({}))[1], "spec.x.a: Required value");
}

#[test]
fn items_stand_once_in_sets_and_maps() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    assert_eq!(told(set, json!(["a", "b", "a", "a"])), ["spec.x[2]: Duplicate value: \"a\""]);
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}}});
    assert_eq!(
        told(map, json!([{"n": "a", "v": 1}, {"n": "a", "v": 2}])),
        ["spec.x[1]: Duplicate value: {\"n\":\"a\"}"]
    );
}

#[test]
fn objects_within_have_their_type_and_metadata() {
    let inner =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(
        told(inner.clone(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a:b"}})),
        Vec::<String>::new()
    );
    assert_eq!(told(inner.clone(), json!({})), ["spec.x.apiVersion: Required value", "spec.x.kind: Required value"]);
    let bad =
        told(inner, json!({"apiVersion": "a/b/c", "kind": "a b", "metadata": {"name": "a/b", "labels": {"-": ""}}}));
    assert_eq!(bad[0], "spec.x.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c");
    assert!(bad[1].starts_with("spec.x.kind: Invalid value: \"a b\": may have mixed case"), "{}", bad[1]);
    assert_eq!(bad[2], "spec.x.metadata.name: Invalid value: \"a/b\": may not contain '/'");
    assert!(bad[3].starts_with("spec.x.metadata.labels: Invalid value: \"-\""), "{}", bad[3]);
}

#[test]
fn what_was_wrong_before_may_stay() {
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 5}, "w": {"type": "integer", "maximum": 5}}}});
    let schema = compiled(map);
    let told = |new: Value, old: Value| -> Vec<String> {
        let (new, old) = (json!({"spec": {"x": new}}), json!({"spec": {"x": old}}));
        let errors = update(&schema, new.as_object().unwrap(), old.as_object().unwrap());
        errors.into_iter().map(|error| error.path).collect()
    };
    let old = json!([{"n": "a", "v": 9}, {"n": "b", "v": 9}]);
    assert_eq!(told(old.clone(), old.clone()), Vec::<String>::new());
    assert_eq!(
        told(json!([{"n": "b", "v": 9}, {"n": "c", "v": 1}, {"n": "a", "v": 9}]), old.clone()),
        Vec::<String>::new()
    );
    assert_eq!(told(json!([{"n": "a", "v": 8}]), old.clone()), ["spec.x[0].v"]);
    assert_eq!(told(json!([{"n": "a", "v": 9, "w": 9}]), old.clone()), ["spec.x[0].w"]);
    assert_eq!(told(json!([{"n": "c", "v": 9}]), old), ["spec.x[0].v"]);
    // A list that is one value is told of again once anything of it changes.
    let schema = compiled(json!({"type": "array", "items": {"type": "integer", "maximum": 5}}));
    let told = |new: Value| {
        let (new, old) = (json!({"spec": {"x": new}}), json!({"spec": {"x": [9]}}));
        update(&schema, new.as_object().unwrap(), old.as_object().unwrap()).len()
    };
    assert_eq!((told(json!([9])), told(json!([9, 1]))), (0, 1));
    // A list that had its items twice may keep them.
    let schema = compiled(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}));
    let object = |items: Value| json!({"spec": {"x": items}});
    let (twice, once) = (object(json!([1, 1])), object(json!([1])));
    let told = |new: &Value, old: &Value| update(&schema, new.as_object().unwrap(), old.as_object().unwrap()).len();
    assert_eq!((told(&twice, &twice), told(&twice, &once)), (0, 1));
}

#[test]
fn the_status_is_told_of_by_itself() {
    let schema = crate::custom::tests::example();
    let object = |ready: Value| json!({"spec": {"replicas": "bad"}, "status": {"ready": ready}});
    let (bad, good) = (object(json!("x")), object(json!(1)));
    let errors = status_update(&schema, bad.as_object().unwrap(), good.as_object().unwrap());
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["status.ready: Invalid value: \"string\": ready in body must be of type integer: \"string\""]);
    assert!(status_update(&schema, bad.as_object().unwrap(), bad.as_object().unwrap()).is_empty());
    assert!(blocks_rules(&errors));
    assert_eq!(
        rules_not_checked().to_string(),
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
    );
}
