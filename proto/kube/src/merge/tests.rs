use super::*;
use crate::schema::{self, TypeRef};
use proptest::prelude::*;
use serde_json::json;

fn pod() -> TypeRef {
    schema::for_kind("", "v1", "Pod").unwrap()
}

fn merged(original: Value, patch: Value) -> Value {
    strategic(pod(), original, patch).unwrap()
}

#[test]
fn json_patch_applies_whole_or_not_at_all() {
    let mut doc = json!({"a": 1, "l": [1]});
    json_patch(
        &mut doc,
        json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/l/-", "value": 2}]),
    )
    .unwrap();
    assert_eq!(doc, json!({"a": 2, "l": [1, 2]}));
    let error =
        json_patch(&mut doc, json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/x/y"}])).unwrap_err();
    assert_eq!(error.to_string(), "remove operation does not apply: doc is missing path: \"/x/y\"");
    assert_eq!(doc, json!({"a": 2, "l": [1, 2]}));
    let error = json_patch(&mut doc, json!([{"op": "test", "path": "/a", "value": 3}])).unwrap_err();
    assert_eq!(error, MergeError::DoesNotApply("testing value /a failed: test failed".into()));
    assert!(matches!(json_patch(&mut doc, json!([{"op": "dance", "path": "/a"}])), Err(MergeError::Malformed(_))));
    assert!(matches!(json_patch(&mut doc, json!({"a": 1})), Err(MergeError::Malformed(_))));
}

#[test]
fn json_patch_is_bounded() {
    let test = json!({"op": "test", "path": "/a", "value": 1});
    let many = Value::Array(vec![test; OPERATIONS_MAX + 1]);
    assert_eq!(json_patch(&mut json!({"a": 1}), many), Err(MergeError::TooManyOperations(OPERATIONS_MAX + 1)));
    let copy = json!({"op": "copy", "from": "/a", "path": "/b/-"});
    let mut doc = json!({"a": "z".repeat(1_000_000), "b": []});
    let error = json_patch(&mut doc, Value::Array(vec![copy; 4])).unwrap_err();
    assert!(matches!(error, MergeError::CopiesTooMuch(_)));
}

#[test]
fn json_patch_does_not_nest_without_end() {
    let nest = json!({"op": "copy", "from": "/a", "path": "/a/x"});
    let mut doc = json!({"a": {}});
    json_patch(&mut doc, Value::Array(vec![nest.clone(); 50])).unwrap();
    assert_eq!(json_patch(&mut doc, Value::Array(vec![nest; 100])), Err(MergeError::TooDeep));
    let deep =
        |levels: usize| json!([{"op": "add", "path": "/a", "value": (0..levels).fold(json!(1), |v, _| json!([v]))}]);
    json_patch(&mut doc, deep(100)).unwrap();
    assert_eq!(json_patch(&mut doc, deep(200)), Err(MergeError::TooDeep));
    let swap = json!([{"op": "move", "from": "/a", "path": "/b"}, {"op": "move", "from": "/b", "path": "/a"}]);
    let swaps = (0..1000).flat_map(|_| swap.as_array().unwrap().clone()).collect();
    json_patch(&mut doc, Value::Array(swaps)).unwrap();
}

#[test]
fn merge_patch_removes_by_null() {
    let mut doc = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    merge_patch(&mut doc, &json!({"a": {"b": null, "d": {"e": null}}, "l": [3]}));
    assert_eq!(doc, json!({"a": {"c": 2, "d": {}}, "l": [3]}));
}

#[test]
fn maps_merge_and_nulls_remove() {
    assert_eq!(
        merged(
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": null, "y": "z"}}, "spec": {"nodeName": null}}),
        ),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"y": "z"}}, "spec": {}})
    );
}

#[test]
fn map_directives() {
    let live = json!({"spec": {"nodeSelector": {"a": "1"}, "securityContext": {"runAsUser": 1}}});
    assert_eq!(
        merged(live.clone(), json!({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}))["spec"]["nodeSelector"],
        json!({"b": "2"})
    );
    assert_eq!(
        merged(live.clone(), json!({"spec": {"nodeSelector": {"$patch": "delete"}}}))["spec"]["nodeSelector"],
        json!({})
    );
    assert_eq!(
        merged(live.clone(), json!({"spec": {"nodeSelector": {"$patch": "merge", "b": "2"}}}))["spec"]["nodeSelector"],
        json!({"a": "1", "b": "2"})
    );
    let error = strategic(pod(), live, json!({"spec": {"nodeSelector": {"$patch": "dance"}}})).unwrap_err();
    assert_eq!(error.to_string(), "unknown patch type: dance in map");
}

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|n| json!({"name": n, "image": "old"})).collect::<Vec<_>>()}})
}

fn names(pod: &Value) -> Vec<&str> {
    pod["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn keyed_lists_merge_by_key() {
    let result = merged(
        containers(&["a", "b", "c"]),
        json!({"spec": {"containers": [{"name": "b", "image": "new"}, {"name": "d", "image": "x", "stdin": null}]}}),
    );
    assert_eq!(
        result["spec"]["containers"],
        json!([{"name": "a", "image": "old"}, {"name": "b", "image": "new"}, {"name": "d", "image": "x"}, {"name": "c", "image": "old"}])
    );
    let result = merged(
        containers(&["a", "b"]),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]}}),
    );
    assert_eq!(names(&result), ["c", "b"]);
    let result = merged(
        containers(&["a", "b"]),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}, {"name": "y", "$patch": "merge"}]}}),
    );
    assert_eq!(result["spec"]["containers"], json!([{"name": "z"}, {"name": "y"}]));
    let error = strategic(pod(), containers(&["a"]), json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
    assert_eq!(error.to_string(), r#"map: {"image":"x"} does not contain declared merge key: name"#);
}

#[test]
fn lists_inside_keyed_lists_merge_too() {
    let result = merged(
        json!({"spec": {"containers": [{"name": "a", "args": ["1"], "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["2"], "ports": [{"containerPort": 80, "name": "web"}],
            "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]}]}}),
    );
    assert_eq!(
        result["spec"]["containers"],
        json!([{"name": "a", "args": ["2"], "ports": [{"containerPort": 80, "name": "web"}], "env": [{"name": "B", "value": "3"}]}])
    );
}

#[test]
fn element_order_is_set() {
    let result = merged(
        containers(&["a", "b", "c"]),
        json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "new"}],
            "containers": [{"name": "c", "image": "new"}, {"name": "new"}]}}),
    );
    // b is the server's own: it comes before the first element that stood after it.
    assert_eq!(names(&result), ["b", "c", "a", "new"]);
    let result = merged(
        containers(&["a", "b"]),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
    );
    assert_eq!(names(&result), ["b", "a"]);
    let error = strategic(
        pod(),
        containers(&["a"]),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
    );
    assert!(matches!(error, Err(MergeError::Malformed(_))));
    let result = merged(
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a"}]}}),
    );
    assert_eq!(result, json!({"spec": {"containers": [{"name": "a"}]}}));
    assert_eq!(merged(json!({"spec": {}}), json!({"spec": {"$setElementOrder/containers": []}})), json!({"spec": {}}));
}

#[test]
fn primitive_lists_merge_without_repeats() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    assert_eq!(
        merged(live.clone(), json!({"metadata": {"finalizers": ["c", "b"]}}))["metadata"]["finalizers"],
        json!(["c", "a", "b"])
    );
    assert_eq!(
        merged(live.clone(), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}})),
        json!({"metadata": {"finalizers": ["b"]}})
    );
    assert_eq!(
        merged(
            live,
            json!({"metadata": {"$setElementOrder/finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"],
                "finalizers": ["c"]}})
        ),
        json!({"metadata": {"finalizers": ["b", "c"]}})
    );
    assert_eq!(
        merged(json!({}), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})),
        json!({"metadata": {}})
    );
}

#[test]
fn retained_keys_are_all_that_stays() {
    let live = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    assert_eq!(
        merged(
            live.clone(),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}})
        )["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/"}}])
    );
    let error = strategic(
        pod(),
        live,
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/"}}]}}),
    );
    assert!(matches!(error, Err(MergeError::Malformed(_))));
    let deployment = schema::for_kind("apps", "v1", "Deployment").unwrap();
    let recreated = strategic(
        deployment,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    );
    assert_eq!(recreated.unwrap(), json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn a_list_that_does_not_merge_is_replaced() {
    assert_eq!(
        merged(json!({"spec": {"tolerations": [{"key": "a"}]}}), json!({"spec": {"tolerations": [{"key": "b"}]}})),
        json!({"spec": {"tolerations": [{"key": "b"}]}})
    );
    assert_eq!(
        merged(json!({"spec": {"containers": "x"}}), json!({"spec": {"containers": []}})),
        json!({"spec": {"containers": []}})
    );
}

#[test]
fn long_lists_merge_in_good_time() {
    let env =
        |value: &str| json!((0..20_000).map(|i| json!({"name": i.to_string(), "value": value})).collect::<Vec<_>>());
    let result = merged(
        json!({"spec": {"containers": [{"name": "a", "env": env("1")}]}}),
        json!({"spec": {"containers": [{"name": "a", "env": env("2")}]}}),
    );
    assert_eq!(result["spec"]["containers"][0]["env"], env("2"));
}

fn any_pod(nulls: bool) -> impl Strategy<Value = Value> {
    let name = "(a|b|c|d)";
    let text = "(|x|y)".prop_map(Value::from);
    let value = if nulls { prop_oneof![3 => text, 1 => Just(Value::Null)].boxed() } else { text.boxed() };
    let env = prop::collection::btree_map(name, value.clone(), 0..4)
        .prop_map(|m| m.into_iter().map(|(n, v)| json!({"name": n, "value": v})).collect::<Vec<_>>());
    let containers = prop::collection::btree_map(
        name,
        (value.clone(), env, prop::collection::vec("(1|2)", 0..3)),
        0..4,
    )
    .prop_map(|m| {
        m.into_iter().map(|(n, (i, e, a))| json!({"name": n, "image": i, "env": e, "args": a})).collect::<Vec<_>>()
    });
    let labels = prop::collection::btree_map(name, value, 0..4);
    (labels, containers, prop::collection::btree_set(name, 0..4)).prop_map(|(labels, containers, finalizers)| {
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    })
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(live in any_pod(false)) {
        prop_assert_eq!(merged(live.clone(), json!({})), live);
    }

    #[test]
    fn a_patch_applied_twice_is_applied_once(live in any_pod(false), patch in any_pod(true)) {
        let once = merged(live, patch.clone());
        prop_assert_eq!(merged(once.clone(), patch), once);
    }

    #[test]
    fn an_object_patched_with_itself_stays(live in any_pod(false)) {
        prop_assert_eq!(merged(live.clone(), live.clone()), live);
    }

    #[test]
    fn no_directive_survives(live in any_pod(false), patch in any_pod(true), directive in "(delete|merge|replace)") {
        let mut patch = patch;
        if let Some(first) = patch["spec"]["containers"].as_array_mut().and_then(|l| l.first_mut()) {
            first["$patch"] = Value::from(directive);
        }
        let result = merged(live, patch);
        prop_assert!(!result.to_string().contains('$'));
    }
}
