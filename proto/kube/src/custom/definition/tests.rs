use serde_json::{Value, json};

use super::*;

mod any;

fn no_rules(_: &Ruled<'_>) -> Vec<FieldError> {
    Vec::new()
}

/// A good definition, with its defaults, as a new one is validated.
fn good() -> Object {
    let mut object = Object::from_value(json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": crate::custom::tests::example_schema()},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.ready"}},
                "additionalPrinterColumns": [{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}],
                "selectableFields": [{"jsonPath": ".spec.mode"}],
            }],
        },
    }))
    .unwrap();
    default(&mut object);
    object
}

fn with(pointer: &str, value: Value) -> Object {
    let mut object = Value::Object(good().0);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer}"));
    match (parent, key.parse::<usize>()) {
        (Value::Array(items), Ok(at)) if at < items.len() => items[at] = value,
        (Value::Array(items), _) => items.push(value),
        (Value::Object(map), _) if value.is_null() => {
            map.remove(key);
        }
        (Value::Object(map), _) => {
            map.insert(key.replace("~1", "/"), value);
        }
        _ => panic!("{pointer} is in nothing"),
    }
    Object::from_value(object).unwrap()
}

fn told(object: &Object) -> Vec<String> {
    create(object, &no_rules).iter().map(ToString::to_string).collect()
}

#[test]
fn a_definition_gets_its_defaults() {
    let object = good();
    assert_eq!(object.0["spec"]["names"]["singular"], "widget");
    assert_eq!(object.0["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(object.0["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(object.0["status"], json!({"storedVersions": ["v1"]}));
    let mut twice = object.clone();
    default(&mut twice);
    assert_eq!(twice, object);
    assert_eq!(told(&object), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_definition_is_told_at_its_field() {
    let version = |name: &str, storage: bool| {
        let mut version = good().0["spec"]["versions"][0].clone();
        version["name"] = json!(name);
        version["storage"] = json!(storage);
        version
    };
    for (pointer, value, messages) in [
        (
            "/spec/group",
            json!("example"),
            &[
                "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
                "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            ][..],
        ),
        (
            "/spec/scope",
            json!("World"),
            &["spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""],
        ),
        (
            "/spec/names/listKind",
            json!("Widget"),
            &["spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same"],
        ),
        ("/spec/names/kind", json!(""), &["spec.names.kind: Required value"]),
        (
            "/spec/versions/1",
            version("v1", false),
            &["spec.versions: Invalid value: *: must contain unique version names"],
        ),
        (
            "/spec/versions/1",
            version("v2", true),
            &[
                "spec.versions: Invalid value: *: must have exactly one version marked as storage version",
                "status.storedVersions: Invalid value: [\"v1\"]: must have the storage version v2",
            ],
        ),
        (
            "/spec/versions/0/schema",
            json!(null),
            &[
                "spec.versions[0].schema.openAPIV3Schema: Required value",
                "spec.selectableFields: Invalid value: \"\": may only be set when validations.schema is included",
            ],
        ),
        (
            "/spec/versions/0/deprecationWarning",
            json!("x"),
            &["spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions"],
        ),
        (
            "/spec/versions/0/subresources/scale/specReplicasPath",
            json!(".status.x"),
            &[
                "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
            ],
        ),
        (
            "/spec/versions/0/subresources/scale/statusReplicasPath",
            json!("x"),
            &[
                "spec.subresources.scale.statusReplicasPath: Invalid value: \"x\": must be a simple json path starting with .",
            ],
        ),
        (
            "/spec/versions/0/subresources/scale/labelSelectorPath",
            json!(".x"),
            &[
                "spec.subresources.scale.labelSelectorPath: Invalid value: \".x\": should be a json path under either .spec or .status",
            ],
        ),
        (
            "/spec/versions/0/additionalPrinterColumns/1",
            json!({"name": "A", "type": "text", "jsonPath": "x"}),
            &[
                "spec.additionalPrinterColumns[1].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
                "spec.additionalPrinterColumns[1].JSONPath: Invalid value: \"x\": must be a simple json path starting with .",
            ],
        ),
        (
            "/spec/versions/0/selectableFields/1",
            json!({"jsonPath": ".spec.none"}),
            &[
                "spec.selectableFields[1].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
            ],
        ),
        (
            "/spec/versions/0/selectableFields/1",
            json!({"jsonPath": ".spec.parts"}),
            &[
                "spec.selectableFields[1].jsonPath: Invalid value: \".spec.parts\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            ],
        ),
        (
            "/spec/versions/0/selectableFields/1",
            json!({"jsonPath": ".spec.mode"}),
            &["spec.selectableFields[1].jsonPath: Duplicate value: \".spec.mode\""],
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://u@h?q#f"}, "conversionReviewVersions": ["v9"]}}),
            &[
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
                "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ],
        ),
        (
            "/spec/preserveUnknownFields",
            json!(true),
            &[
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ],
        ),
        (
            "/status/storedVersions",
            json!(["v1", "v0"]),
            &[
                "status.storedVersions[1]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions",
            ],
        ),
    ] {
        let got: Vec<String> = told(&with(pointer, value)).into_iter().map(without_versions).collect();
        assert_eq!(got, messages, "{pointer}");
    }
}

/// The whole of all versions is told in two errors; what it is, is the object's.
fn without_versions(message: String) -> String {
    match (message.strip_prefix("spec.versions: Invalid value: "), message.rsplit_once("]: ")) {
        (Some(_), Some((_, why))) => format!("spec.versions: Invalid value: *: {why}"),
        _ => message,
    }
}

/// What is told of a property of the schema.
fn told_of(property: Value) -> Vec<String> {
    let messages = told(&with("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/x", property));
    let prefix = "spec.validation.openAPIV3Schema.properties[spec].properties[x]";
    messages.into_iter().map(|message| message.replace(prefix, "x")).collect()
}

#[test]
fn schemas_are_structural() {
    for (property, messages) in [
        (json!({}), &["x.type: Required value: must not be empty for specified object fields"][..]),
        (json!({"type": "array"}), &["x.items: Required value: must be specified"]),
        (
            json!({"type": "array", "items": {}}),
            &["x.items.type: Required value: must not be empty for specified array items"],
        ),
        (
            json!({"type": "text"}),
            &[
                "x.type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ],
        ),
        (
            json!({"type": "string", "pattern": "("}),
            &["x.pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: *"],
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string", "minLength": 1, "description": "d"}]}),
            &[
                "x.anyOf[0].description: Forbidden: must be empty to be structural",
                "x.anyOf[0].type: Forbidden: must be empty to be structural",
            ],
        ),
        (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[]),
        (
            json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"minimum": 1}]}),
            &[],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            &["x.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            &[
                "x.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            &["x.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            &[
                "x.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (json!({"type": "string", "$ref": "#/x"}), &["x.$ref: Forbidden: $ref is not supported"]),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            &["x.items: Forbidden: items must be a schema object and not an array"],
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "odd"}),
            &[
                "x.type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
                "x.x-kubernetes-map-type: Unsupported value: \"odd\": supported values: \"atomic\", \"granular\"",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
            &[
                "x.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            &["x.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "l"],
            "items": {"type": "object", "nullable": true, "properties": {"k": {"type": "string"}}}}),
            &[
                "x.x-kubernetes-list-map-keys: Invalid value: [\"k\",\"l\"]: entries must all be names of item properties",
                "x.items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map",
                "x.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "string"}}),
            &["x.x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
        ),
    ] {
        let got: Vec<String> = told_of(property)
            .into_iter()
            .map(|message| match message.split_once("but isn't: ") {
                Some((head, _)) => format!("{head}but isn't: *"),
                None => message,
            })
            .collect();
        assert_eq!(got, messages);
    }
}

#[test]
fn the_root_of_a_schema_is_an_object_with_metadata() {
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    let path = "spec.validation.openAPIV3Schema";
    let at_root = |key: &str, value: Value| told(&with(&format!("{root}/{key}"), value));
    assert_eq!(
        at_root("properties/metadata", json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
        [format!(
            "{path}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        )]
    );
    assert_eq!(
        at_root("properties/metadata", json!({"type": "object", "properties": {"name": {"type": "string"}}})),
        Vec::<String>::new()
    );
    assert_eq!(
        at_root("properties/kind", json!({"type": "integer"})),
        [format!("{path}.properties[kind].type: Invalid value: \"integer\": must be string")]
    );
    let all_of = at_root("allOf", json!([{"required": ["spec"]}]));
    assert!(
        all_of[0].contains("fields are allowed at the root of the schema if the status subresource is enabled"),
        "{all_of:?}"
    );
    let mut object = with(&format!("{root}/allOf"), json!([{"properties": {"none": {"minLength": 1}}}]));
    object.0["spec"]["versions"][0]["subresources"].as_object_mut().unwrap().remove("status");
    assert_eq!(
        told(&object),
        [format!("{path}.properties[none]: Required value: because it is defined in {path}.allOf[0].properties[none]")]
    );
    assert_eq!(
        at_root("nullable", json!(true)).last().unwrap(),
        &format!("{path}.nullable: Forbidden: nullable cannot be true at the root")
    );
}

#[test]
fn defaults_are_values_of_their_schema() {
    assert_eq!(
        told_of(json!({"type": "integer", "default": "a"})),
        ["x.default: Invalid value: \"string\": x.default in body must be of type integer: \"string\""
            .replace("x.default in body", " in body")]
    );
    assert_eq!(
        told_of(json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": "x", "b": 1}})),
        ["x.default: Invalid value: {\"a\":\"x\",\"b\":1}: must not have unknown fields"]
    );
    let inner = |metadata: Value| {
        json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true, "properties": {"metadata": metadata}})
    };
    let labels = |default: Value| {
        inner(
            json!({"type": "object", "properties": {"labels": {"type": "object", "additionalProperties": {"type": "string"}, "default": default}}}),
        )
    };
    assert_eq!(told_of(labels(json!({"a": "b"}))), Vec::<String>::new());
    let bad = told_of(labels(json!({"-": "b"})));
    assert!(bad[0].starts_with("x.properties[metadata].properties[labels].default: Invalid value: {\"-\":\"b\"}: must result in valid metadata: "), "{bad:?}");
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/metadata";
    let top = told(&with(path, json!({"type": "object", "default": {"name": "x"}})));
    assert_eq!(
        top,
        [
            "spec.validation.openAPIV3Schema.properties[metadata].default: Forbidden: must not be set in top-level metadata"
        ]
    );
}

#[test]
fn rules_are_looked_at_and_handed_on() {
    let rule = |rule: Value| {
        told_of(json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [rule]}))
    };
    assert_eq!(
        rule(json!({"rule": " "})),
        ["x.x-kubernetes-validations[0].rule: Required value: rule is not specified"]
    );
    assert_eq!(
        rule(json!({"rule": "a\n&& b"})),
        [
            "x.x-kubernetes-validations[0].message: Required value: message must be specified if rule contains line breaks"
        ]
    );
    assert_eq!(
        rule(json!({"rule": "a", "fieldPath": ".b"})),
        ["x.x-kubernetes-validations[0].fieldPath: Invalid value: \".b\": must be a valid path"]
    );
    assert_eq!(rule(json!({"rule": "a", "fieldPath": ".a", "reason": "Odd"})).len(), 1);
    let asked = std::cell::RefCell::new(Vec::new());
    let object = good();
    let ask = |ruled: &Ruled<'_>| {
        asked.borrow_mut().push((ruled.path.to_owned(), ruled.unchanged));
        Vec::new()
    };
    create(&object, &ask);
    update(&object, &object, &ask);
    let path = "spec.validation.openAPIV3Schema".to_owned();
    assert_eq!(*asked.borrow(), [(path.clone(), false), (path, true)]);
}

#[test]
fn what_versions_have_apart_is_told_of_each() {
    let mut second = good().0["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["x"] = json!({});
    let messages = told(&with("/spec/versions/1", second));
    assert_eq!(
        messages,
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[spec].properties[x].type: Required value: must not be empty for specified object fields"
        ]
    );
}

#[test]
fn some_of_a_definition_never_changes() {
    let mut old = good();
    let change = |pointer: &str, value: Value, old: &Object| -> Vec<String> {
        update(&with(pointer, value), old, &no_rules).iter().map(|error| error.path.clone()).collect()
    };
    assert_eq!(change("/spec/scope", json!("Cluster"), &old), Vec::<String>::new());
    assert_eq!(change("/spec/names/plural", json!("others"), &old), ["spec.names.plural"]);
    old.map_mut("status").insert("conditions".into(), json!([{"type": "Established", "status": "True"}]));
    assert_eq!(change("/spec/scope", json!("Cluster"), &old), ["spec.scope"]);
    assert_eq!(change("/spec/names/kind", json!("Other"), &old), ["spec.names.kind"]);
    // What was no better before may stay.
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/x";
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}});
    assert_eq!(change(path, set.clone(), &old).len(), 1);
    assert_eq!(change(path, set.clone(), &with(path, set)), Vec::<String>::new());
}

#[test]
fn kubernetes_own_groups_are_approved() {
    let object = |group: &str, annotation: Option<&str>| {
        let mut object = with("/spec/group", json!(group));
        object.metadata_mut().insert("name".into(), json!(format!("widgets.{group}")));
        if let Some(annotation) = annotation {
            object.metadata_mut().insert("annotations".into(), json!({APPROVED_ANNOTATION: annotation}));
        }
        object
    };
    assert_eq!(told(&object("ak8s.io", None)), Vec::<String>::new());
    let path = "metadata.annotations[api-approved.kubernetes.io]";
    assert!(
        told(&object("a.k8s.io", None))[0].starts_with(&format!("{path}: Required value: protected groups must have"))
    );
    assert!(
        told(&object("a.kubernetes.io", Some("yes")))[0]
            .starts_with(&format!("{path}: Invalid value: \"yes\": protected"))
    );
    for good in ["https://github.com/kubernetes/x/pull/1", "unapproved, an experiment"] {
        assert_eq!(told(&object("a.k8s.io", Some(good))), Vec::<String>::new());
    }
    let plan = crate::custom::names::plan(&object("a.k8s.io", Some("unapproved")), &Default::default());
    assert_eq!(plan.conditions[2].reason, "UnapprovedAnnotation");
}

#[test]
fn warnings_are_of_what_is_new() {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/x";
    let odd = with(path, json!({"type": "string", "format": "odd"}));
    assert_eq!(warnings(&odd, None), ["unrecognized format \"odd\""]);
    assert_eq!(warnings(&odd, Some(&odd)), Vec::<String>::new());
    assert_eq!(warnings(&good(), None), Vec::<String>::new());
}
