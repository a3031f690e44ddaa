use super::*;
use crate::object::Object;
use crate::schema::{self, Ty, TypeRef};
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod() -> TypeRef {
    schema::for_kind("", "v1", "Pod").unwrap()
}

fn normal(kind: (&str, &str, &str), value: Value) -> (Value, Findings) {
    let mut object = Object::from_value(value).unwrap();
    let findings = normalize(schema::for_kind(kind.0, kind.1, kind.2).unwrap(), &mut object);
    (object.into_value(), findings)
}

#[test]
fn the_first_second_of_all_is_no_time() {
    let event = json!({"firstTimestamp": "0001-01-01T00:00:00.5Z", "lastTimestamp": "1970-01-01T00:00:00Z",
        "eventTime": "0001-01-01T00:00:00.0000005Z", "metadata": {}, "involvedObject": {}, "source": {},
        "reportingComponent": "", "reportingInstance": ""});
    let (value, findings) = normal(("", "v1", "Event"), event);
    assert_eq!(findings, Findings::default());
    assert_eq!([&value["firstTimestamp"], &value["eventTime"]], [&Value::Null; 2]);
    assert_eq!(value["lastTimestamp"], "1970-01-01T00:00:00Z");
    assert!(value.get("firstTimestamp").is_none());
    let budget = json!({"status": {"disruptedPods": {"p": "0001-01-01T00:00:00Z"}}});
    assert_eq!(
        normal(("policy", "v1", "PodDisruptionBudget"), budget).0["status"]["disruptedPods"],
        json!({"p": null})
    );
}

#[test]
fn unknown_fields_are_taken_out_and_named() {
    let (value, findings) = normal(
        ("", "v1", "Pod"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labls": {}}, "spec": {
            "foo": null, "containers": [{"name": "c"}, {"name": "d", "imagee": "x"}],
        }}),
    );
    assert_eq!(findings.unknown, ["metadata.labls", "spec.containers[1].imagee", "spec.foo"]);
    assert_eq!(
        findings.strict(&["spec.x".into()]),
        [
            r#"duplicate field "spec.x""#,
            r#"unknown field "metadata.labls""#,
            r#"unknown field "spec.containers[1].imagee""#,
            r#"unknown field "spec.foo""#
        ]
    );
    assert_eq!(findings.decode_error(), None);
    assert_eq!(
        value,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {}, "spec": {
            "containers": [{"name": "c", "resources": {}}, {"name": "d", "resources": {}}],
        }})
    );
}

#[test]
fn wrong_types_are_named_as_decoders_name_them() {
    let deployment = ("apps", "v1", "Deployment");
    for (spec, message) in [
        (
            json!({"replicas": "three"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 3000000000u64}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"template": {"spec": {"containers": {}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"template": {"spec": {"containers": [{"image": 5}]}}}),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            json!({"template": []}),
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            json!({"selector": {"matchLabels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field LabelSelector.spec.selector.matchLabels of type string",
        ),
        (
            json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "abc"}}}]}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let (_, findings) = normal(deployment, json!({"spec": spec}));
        assert_eq!(findings.decode_error(), Some(message));
        assert_eq!(findings.wrong.len(), 1);
    }
    let (_, findings) = normal(("", "v1", "Secret"), json!({"data": {"a": "%%"}}));
    assert_eq!(findings.wrong[0].path, "data.a");
    assert_eq!(findings.decode_error(), Some("illegal base64 data at input byte 0"));
}

/// A value of another type, where there is one.
fn wrong(ty: &Ty) -> Option<Value> {
    match ty {
        Ty::Any | Ty::Json => None,
        Ty::Either(_) => Some(json!(7)),
        Ty::Bytes | Ty::Quantity | Ty::Time | Ty::MicroTime => Some(json!("%%")),
        Ty::Struct(_) | Ty::Map(_) => Some(json!([])),
        Ty::String | Ty::Int32 | Ty::Int64 | Ty::Bool | Ty::Double | Ty::IntOrString | Ty::List(_) => Some(json!({})),
    }
}

/// Every place of a definition: its path, an object around it that `make` fills, and what is wrong there.
fn places(ty: TypeRef, path: &str, inside: &mut Vec<TypeRef>, found: &mut Vec<(String, Value)>) {
    // A definition within itself has no new places.
    if inside.contains(&ty) {
        return;
    }
    inside.push(ty);
    for field in &ty.get().fields {
        let (mut inner, mut at) = (&field.ty, format!("{path}/{}", field.name));
        found.extend(wrong(inner).map(|value| (at.clone(), value)));
        while let Ty::List(of) | Ty::Map(of) = inner {
            at.push_str(if matches!(inner, Ty::List(_)) { "/0" } else { "/a" });
            inner = of;
            found.extend(wrong(inner).map(|value| (at.clone(), value)));
        }
        if let Ty::Struct(of) = inner {
            places(*of, &at, inside, found);
        }
    }
    inside.pop();
}

/// `value` at a pointer, with the lists and maps that lead there.
fn around(pointer: &str, value: Value) -> Value {
    pointer.rsplit('/').filter(|part| !part.is_empty()).fold(value, |inner, part| match part {
        "0" => json!([inner]),
        part => json!({ part: inner }),
    })
}

#[test]
fn a_wrong_value_in_any_field_of_any_kind_is_named() {
    let mut seen = 0;
    for resource in crate::resource::ALL {
        let Some(ty) = schema::for_kind(resource.group, resource.version, resource.kind) else { continue };
        let mut found = Vec::new();
        places(ty, "", &mut Vec::new(), &mut found);
        seen += found.len();
        for (pointer, value) in found {
            // What kind it is has been decided before its fields are looked at.
            if ["/apiVersion", "/kind"].contains(&pointer.as_str()) || pointer.contains("/managedFields") {
                continue;
            }
            let Ok(mut object) = Object::from_value(around(&pointer, value)) else { continue };
            let findings = normalize(ty, &mut object);
            let wanted = pointer.trim_start_matches('/').replace("/0", "[0]").replace('/', ".");
            let paths: Vec<&str> = findings.wrong.iter().map(|wrong| wrong.path.as_str()).collect();
            assert_eq!(paths, [wanted.as_str()], "{} {pointer}", resource.kind);
            assert!(findings.decode_error().is_some_and(|words| !words.is_empty()));
        }
    }
    assert!(seen > 5_000, "{seen} places");
}

#[test]
fn values_take_their_one_form() {
    let (value, findings) = normal(
        ("", "v1", "Pod"),
        json!({
            "metadata": {"labels": {"a": null}, "annotations": {}, "finalizers": [], "creationTimestamp": null,
                "deletionTimestamp": "2026-01-01T01:00:00.5+01:00", "generateName": ""},
            "spec": {"containers": [{"name": "c", "image": null, "resources": {
                "limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "100u"}}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1000Ki"}}, {"name": "h", "hostPath": {"path": "/", "type": ""}}],
                "nodeName": ""},
        }),
    );
    assert_eq!(findings, Findings::default());
    assert_eq!(
        value,
        json!({
            "metadata": {"labels": {"a": ""}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1m"}}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1000Ki"}}, {"name": "h", "hostPath": {"path": "/", "type": ""}}]},
            "status": {},
        })
    );
    let (lease, _) = normal(
        ("coordination.k8s.io", "v1", "Lease"),
        json!({"spec": {"renewTime": "2026-01-01T00:00:00Z", "holderIdentity": ""}}),
    );
    assert_eq!(lease["spec"], json!({"renewTime": "2026-01-01T00:00:00.000000Z", "holderIdentity": ""}));
}

#[test]
fn zero_fields_that_are_always_written_are_there() {
    assert_eq!(
        normal(("apps", "v1", "Deployment"), json!({"spec": {"template": {"metadata": {"creationTimestamp": null}}}}))
            .0,
        json!({"metadata": {}, "spec": {"strategy": {}, "template": {"metadata": {}, "spec": {}}}, "status": {}})
    );
    assert_eq!(
        normal(("apps", "v1", "ReplicaSet"), json!({})).0,
        json!({"metadata": {}, "spec": {"template": {"metadata": {}, "spec": {}}}, "status": {"replicas": 0}})
    );
    assert_eq!(
        normal(("", "v1", "Service"), json!({"spec": {"ports": [{"port": 80}]}})).0,
        json!({"metadata": {}, "spec": {"ports": [{"port": 80, "targetPort": 0}]}, "status": {"loadBalancer": {}}})
    );
    let (node, _) = normal(("", "v1", "Node"), json!({"metadata": {"name": "n"}}));
    assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
    assert_eq!(node["spec"], json!({}));
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "");
    assert_eq!(normal(("", "v1", "ConfigMap"), json!({"data": {}})).0, json!({"metadata": {}}));
    assert_eq!(normal(("", "v1", "Namespace"), json!({})).0, json!({"metadata": {}, "spec": {}, "status": {}}));
}

#[test]
fn zeros_stay_where_they_mean_something() {
    let (pod, _) = normal(
        ("", "v1", "Pod"),
        json!({"spec": {"hostNetwork": false, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "stdin": false, "securityContext": {"runAsUser": 0, "privileged": false},
                "ports": [{"containerPort": 80, "hostPort": 0}]}]}}),
    );
    assert_eq!(
        pod["spec"],
        json!({"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c",
            "resources": {}, "securityContext": {"runAsUser": 0, "privileged": false}, "ports": [{"containerPort": 80}]}]})
    );
}

#[test]
fn string_data_goes_into_data_and_wins() {
    let (value, findings) = normal(
        ("", "v1", "Secret"),
        json!({"data": {"a": "b2xk", "b": "Yg==\n"}, "stringData": {"a": "new", "c": ""}}),
    );
    assert_eq!(findings, Findings::default());
    assert_eq!(value, json!({"metadata": {}, "data": {"a": "bmV3", "b": "Yg==", "c": ""}}));
}

#[test]
fn repeated_fields_are_found_with_their_paths() {
    let (object, duplicates) = parse_json(
        br#"{"spec":{"a":1,"a":2,"a":3,"containers":[{"name":"x"},{"name":"y","name":"z"}]},"spec":{"b":1},
            "metadata":{"labels":{"x":"1","x":"2"}}}"#,
    )
    .unwrap();
    assert_eq!(duplicates, ["spec.a", "spec.containers[1].name", "spec", "metadata.labels.x"]);
    assert_eq!(object.into_value(), json!({"spec": {"b": 1}, "metadata": {"labels": {"x": "2"}}}));
}

#[test]
fn bad_json_is_refused() {
    assert!(parse_json(b"").is_err());
    assert!(parse_json(b"[]").is_err());
    assert!(parse_json(b"{} x").is_err());
    assert!(parse_json(br#"{"a":"#).is_err());
    let deep = [vec![b'['; DEPTH_MAX + 1], vec![b']'; DEPTH_MAX + 1]].concat();
    assert!(parse_value(&deep).is_err());
    let most = [vec![b'['; DEPTH_MAX - 1], vec![b']'; DEPTH_MAX - 1]].concat();
    assert!(parse_value(&most).is_ok());
    let maps = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
    assert!(parse_value(maps(MAPS_MAX).as_bytes()).is_ok());
    let error = parse_value(maps(MAPS_MAX + 1).as_bytes()).unwrap_err();
    assert!(format!("{error:?}").contains("more than 100000 JSON objects"), "{error:?}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(|a|0.5|1Gi|Yg==|2026-01-01T00:00:00Z)".prop_map(Value::from),
    ];
    let key = "(metadata|spec|status|name|labels|containers|resources|limits|cpu|volumes|emptyDir|env|data|zz)";
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_second_walk_changes_and_finds_nothing(value in any_json()) {
        let Ok(mut object) = Object::from_value(value) else { return Ok(()) };
        normalize(pod(), &mut object);
        let once = object.clone();
        let findings = normalize(pod(), &mut object);
        prop_assert_eq!(findings, Findings::default());
        prop_assert_eq!(object, once);
    }

    #[test]
    fn parsing_is_the_inverse_of_printing(value in any_json()) {
        let (parsed, duplicates) = parse_value(&serde_json::to_vec(&value).unwrap()).unwrap();
        prop_assert_eq!(parsed, value);
        prop_assert!(duplicates.is_empty());
    }
}

#[test]
fn what_may_be_a_schema_or_something_else_is_walked_as_what_it_is() {
    let definition = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let with = |schema: Value| {
        let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
        let (object, findings) = normal(definition, json!({"spec": {"versions": versions}}));
        (object["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(), findings)
    };
    let kept = json!({
        "additionalProperties": true,
        "default": "a",
        "dependencies": {"a": ["b"], "c": {"type": "string"}},
        "enum": ["a", 1, null, {}],
        "items": {"items": [{"type": "string"}], "minLength": 0},
    });
    let (schema, findings) = with(kept.clone());
    assert_eq!((schema, findings), (kept, Findings::default()));
    let (schema, findings) = with(json!({"items": {"title": "", "other": 1}, "properties": {"a": {"other": 1}}}));
    assert_eq!(schema, json!({"items": {}, "properties": {"a": {}}}));
    let path = "spec.versions[0].schema.openAPIV3Schema.properties.a.other";
    assert_eq!(findings.unknown, [path]);
    for (field, value, message) in [
        ("additionalProperties", json!("yes"), "boolean or JSON schema expected"),
        ("items", json!(1), "JSON schema or array expected"),
        ("dependencies", json!({"a": "b"}), "JSON schema or string array expected"),
    ] {
        let (_, findings) = with(json!({ field: value }));
        assert_eq!(findings.decode_error(), Some(message));
    }
}
