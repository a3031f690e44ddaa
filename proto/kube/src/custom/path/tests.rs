use serde_json::{Value, json};

use super::*;

fn found(path: &str, value: &Value) -> Value {
    JsonPath::parse(path)
        .unwrap_or_else(|error| panic!("{error}"))
        .find(value)
        .into_iter()
        .cloned()
        .collect::<Vec<_>>()
        .into()
}

#[test]
fn paths_find_what_they_name() {
    let value = json!({
        "spec": {"a": {"b.c": [1, 2, 3, 4], "d": "x"}, "replicas": 3},
        "metadata": {"labels": {"app.kubernetes.io/name": "n"}, "annotations": {"a/b": "c"}},
        "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 2}]},
    });
    for (path, expected) in [
        (".spec.replicas", json!([3])),
        ("spec.replicas", json!([3])),
        ("$.spec.replicas", json!([3])),
        (".spec.a['b.c'][0]", json!([1])),
        (r".spec.a.b\.c[1]", json!([2])),
        (".spec.a['b.c'][-1]", json!([4])),
        (".spec.a['b.c'][1:3]", json!([2, 3])),
        (".spec.a['b.c'][::2]", json!([1, 3])),
        (".spec.a['b.c'][0,2]", json!([1, 3])),
        (".spec.a['b.c'][*]", json!([1, 2, 3, 4])),
        (".spec.a['b.c'][9]", json!([])),
        (".spec.nothing.here", json!([])),
        (r".metadata.labels.app\.kubernetes\.io/name", json!(["n"])),
        (".metadata.labels['app\\.kubernetes\\.io/name']", json!(["n"])),
        (".metadata.annotations[\"a/b\"]", json!(["c"])),
        (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
        (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
        (".status.conditions[?(@.type!=\"Ready\")].status", json!(["False"])),
        (".status.conditions[?(@.n>1)].type", json!(["Other"])),
        (".status.conditions[?(@.n)].n", json!([1, 2])),
        (".status.conditions[?(@.missing==\"x\")].n", json!([])),
        (".status.conditions[*].type", json!(["Ready", "Other"])),
        ("..n", json!([1, 2])),
    ] {
        assert_eq!(found(path, &value), expected, "{path}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for path in [
        ".a[",
        ".a[b]",
        ".a[1:2:0]",
        ".a b",
        ".a[?(b==1)]",
        ".a]",
        &".a[0,".repeat(40),
        &"a".repeat(PATH_MAX_BYTES + 1),
    ] {
        assert!(JsonPath::parse(path).is_err(), "{path}");
    }
}

#[test]
fn values_are_printed_bare() {
    let all = [
        (json!("a"), "a"),
        (json!(1), "1"),
        (json!(1e6), "1e+06"),
        (json!(true), "true"),
        (json!([1, "a"]), "[1,\"a\"]"),
    ];
    for (value, text) in all {
        assert_eq!(printed(&value), text);
    }
}

#[test]
fn plain_paths_follow_the_schema() {
    let schema = crate::custom::tests::example();
    let names = |path: &str, brackets| resolve(path, &schema, brackets).map(|(names, _)| names.join("/"));
    assert_eq!(names(".spec.replicas", false).unwrap(), "spec/replicas");
    assert_eq!(names(".spec.labels.any", false).unwrap(), "spec/labels/any");
    assert_eq!(names(".spec.labels['a.b']", true).unwrap(), "spec/labels/a.b");
    assert_eq!(names(".spec.labels['a.b']", false).unwrap_err(), "array notation is not allowed");
    assert_eq!(names(".spec.none", false).unwrap_err(), "does not refer to a valid field");
    assert_eq!(names("spec", false).unwrap_err(), "expected [ or . but got: spec");
    assert_eq!(names(".spec.", true).unwrap_err(), "unexpected end of JSON path");
    assert_eq!(names(".spec['replicas", true).unwrap_err(), "expected single quoted string but got 'replicas");
}
