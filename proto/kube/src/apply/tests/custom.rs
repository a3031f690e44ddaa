//! The same laws, for values that a custom kind's schema describes.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::apply::{Fields, Typed, compare, merge, prune};
use crate::custom::Structural;
use crate::custom::tests::{example, specs};

fn schema() -> &'static Structural {
    static SCHEMA: std::sync::OnceLock<Structural> = std::sync::OnceLock::new();
    SCHEMA.get_or_init(example)
}

fn typed() -> Typed<'static> {
    Typed::custom(schema())
}

#[test]
fn fields_are_named_as_a_custom_schema_has_them() {
    let value = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"labels": {"a": "1"}, "finalizers": ["f"]},
        "spec": {
            "replicas": 1, "tags": ["t"], "labels": {"l": "1"}, "limits": {"m": 1}, "port": "http",
            "parts": [{"name": "p", "args": ["x"]}],
            "open": {"any": {"x": [1]}, "known": {"a": 1, "b": {"c": 1}}},
            "inner": {"apiVersion": "v1", "kind": "B", "metadata": {"labels": {"a": "1"}}, "data": {"k": "v"}},
            "all": {"x": [{"y": 1}]},
        },
    });
    let expected = json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"f\"": {}}},
        "f:spec": {
            "f:replicas": {}, "f:tags": {"v:\"t\"": {}}, "f:labels": {"f:l": {}}, "f:limits": {}, "f:port": {},
            "f:parts": {"k:{\"name\":\"p\",\"port\":80}": {".": {}, "f:name": {}, "f:args": {}}},
            "f:open": {"f:any": {".": {}, "f:x": {}}, "f:known": {"f:a": {}, "f:b": {".": {}, "f:c": {}}}},
            "f:inner": {"f:apiVersion": {}, "f:kind": {}, "f:metadata": {"f:labels": {"f:a": {}}},
                "f:data": {".": {}, "f:k": {}}},
            "f:all": {"f:x": {}},
        },
    });
    assert_eq!(Value::Object(typed().fields(&value).write()), expected);
}

#[test]
fn what_a_custom_schema_does_not_have_is_named() {
    let wrong = |spec: Value| typed().wrong(json!({"metadata": {"name": "a"}, "spec": spec}).as_object().unwrap());
    assert_eq!(wrong(json!({"labels": {"any": "x"}, "open": {"any": 1, "known": {"b": 1}}, "all": {"x": 1}})), None);
    assert_eq!(wrong(json!({"shiny": 1})).as_deref(), Some(".spec.shiny: field not declared in schema"));
    let twice = json!({"parts": [{"name": "a"}, {"name": "a", "port": 80}]});
    assert_eq!(
        wrong(twice).as_deref(),
        Some(".spec.parts: duplicate entries for key [name=\"a\",port=80]"),
        "a key that is left out is its default"
    );
}

#[test]
fn custom_lists_and_maps_merge_as_they_are_declared() {
    let live =
        json!({"spec": {"limits": {"a": 1}, "labels": {"a": "1"}, "tags": ["a"], "all": {"m": {"a": 1}, "l": [1]}}});
    let wanted =
        json!({"spec": {"limits": {"b": 2}, "labels": {"b": "2"}, "tags": ["b"], "all": {"m": {"b": 2}, "l": [2]}}});
    assert_eq!(
        merge(typed(), &live, &wanted),
        json!({"spec": {"limits": {"b": 2}, "labels": {"a": "1", "b": "2"}, "tags": ["a", "b"],
            "all": {"m": {"a": 1, "b": 2}, "l": [2]}}})
    );
}

fn config() -> impl Strategy<Value = Value> {
    specs().prop_map(|spec| json!({"metadata": {"labels": {"x": "y"}}, "spec": spec}))
}

proptest! {
    #[test]
    fn custom_fields_are_read_as_they_were_written(value in config()) {
        let fields = typed().fields(&value);
        prop_assert_eq!(Fields::read(&fields.write()), fields);
    }

    #[test]
    fn a_custom_merge_has_all_that_is_wanted(live in config(), wanted in config()) {
        let merged = merge(typed(), &live, &wanted);
        prop_assert_eq!(merge(typed(), &merged, &wanted), merged.clone());
        let mut missing = typed().fields(&wanted);
        missing.subtract(&typed().fields(&merged));
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
        let mut lost = typed().fields(&live);
        lost.subtract(&typed().fields(&merged));
        prop_assert!(lost.is_empty(), "{:?}", lost.paths());
    }

    #[test]
    fn custom_changes_lead_from_one_to_the_other(old in config(), new in config()) {
        let changes = compare(typed(), &old, &new);
        let (mut before, mut missing) = (typed().fields(&old), typed().fields(&new));
        before.subtract(&changes.removed);
        before.union(&changes.added);
        before.union(&changes.modified);
        missing.subtract(&before);
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
        prop_assert!(compare(typed(), &new, &new).is_empty());
    }

    #[test]
    fn who_is_alone_has_what_it_applied_last_of_a_custom_kind(first in config(), second in config()) {
        let merged = merge(typed(), &first, &second);
        let pruned = prune(typed(), merged, &typed().fields(&first), &typed().fields(&second));
        let (mut more, wanted) = (typed().fields(&pruned), typed().fields(&second));
        let mut missing = wanted.clone();
        missing.subtract(&more);
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
        more.subtract(&wanted);
        prop_assert!(more.is_empty(), "{:?}", more.paths());
    }
}
