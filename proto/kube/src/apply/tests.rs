use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema;

mod custom;

fn typed(group: &str, kind: &str) -> Typed<'static> {
    Typed::kind(schema::for_kind(group, "v1", kind).expect("a kind"))
}

fn pod() -> Typed<'static> {
    typed("", "Pod")
}

fn written(typed: Typed<'_>, value: &Value) -> Value {
    Value::Object(typed.fields(value).write())
}

#[test]
fn fields_are_named_as_the_schema_has_them() {
    let value = json!({
        "metadata": {"labels": {"a": "1"}, "finalizers": ["f"]},
        "spec": {
            "containers": [{"name": "c", "image": "i", "args": ["x"], "ports": [{"containerPort": 80}], "env": []}],
            "nodeSelector": {"n": "1"},
            "securityContext": {},
        },
    });
    let expected = json!({
        "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"f\"": {}}},
        "f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
            }},
            "f:nodeSelector": {},
            "f:securityContext": {},
        },
    });
    assert_eq!(written(pod(), &value), expected);
    let fields = pod().fields(&value);
    assert_eq!(Fields::read(expected.as_object().unwrap()), fields);
    let paths = fields.paths();
    assert!(
        paths.contains(&".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]".to_owned()),
        "{paths:?}"
    );
    assert!(paths.contains(&".metadata.finalizers[=\"f\"]".to_owned()), "{paths:?}");
}

#[test]
fn what_the_schema_does_not_have_is_named() {
    let wrong = |value: Value| pod().wrong(value.as_object().unwrap());
    assert_eq!(wrong(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}})), None);
    let undeclared = wrong(json!({"spec": {"containers": [{"name": "a", "shiny": 1}]}}));
    assert_eq!(undeclared.as_deref(), Some(".spec.containers[name=\"a\"].shiny: field not declared in schema"));
    let nameless = wrong(json!({"spec": {"containers": [{"name": "a"}, {"image": "x"}]}}));
    let expected = ".spec.containers: element 1: associative list with keys has an element that omits all key fields \
                    [\"name\"] (and doesn't have default values for any key fields)";
    assert_eq!(nameless.as_deref(), Some(expected));
    assert_eq!(wrong(json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}})), None);
    let twice = wrong(json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}));
    assert_eq!(twice.as_deref(), Some(".spec.containers: duplicate entries for key [name=\"a\"]"));
}

#[test]
fn lists_merge_by_their_keys_and_in_the_order_that_is_asked_for() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let list = |items: &[Value]| json!({"spec": {"containers": items}});
    let live = list(&[container("a", "1"), container("own", "1"), container("b", "1")]);
    let wanted = list(&[container("b", "2"), json!({"name": "a"}), container("new", "1")]);
    let merged = merge(pod(), &live, &wanted);
    let names: Vec<&str> =
        merged["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own", "b", "a", "new"]);
    let beside = merge(pod(), &list(&[container("a", "1"), container("b", "1")]), &list(&[container("new", "1")]));
    assert_eq!(beside["spec"]["containers"][2]["name"], "new", "what is live stands first");
    assert_eq!(merged["spec"]["containers"][1]["image"], "2");
    assert_eq!(merged["spec"]["containers"][2]["image"], "1");
    // What is atomic is replaced.
    let args = |args: &[&str]| json!({"spec": {"containers": [{"name": "a", "args": args}]}});
    assert_eq!(merge(pod(), &args(&["1", "2"]), &args(&["3"])), args(&["3"]));
}

#[test]
fn what_changed_is_told_field_by_field() {
    let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}, "metadata": {"labels": {"x": "1"}}});
    let new = json!({"spec": {"containers": [{"name": "a", "image": "2", "tty": true}]}, "metadata": {"labels": {}}});
    let changes = compare(pod(), &old, &new);
    assert_eq!(changes.modified.paths(), [".spec.containers[name=\"a\"].image"]);
    assert_eq!(changes.added.paths(), [".spec.containers[name=\"a\"].tty"]);
    assert_eq!(
        changes.removed.paths(),
        [".metadata.labels.x", ".spec.containers[name=\"b\"]", ".spec.containers[name=\"b\"].name"]
    );
    assert!(compare(pod(), &old, &old).is_empty());
}

#[test]
fn items_that_are_there_twice_are_owned_as_one() {
    let env = |items: &[(&str, &str)]| {
        let items: Vec<Value> = items.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"spec": {"containers": [{"name": "c", "env": items}]}})
    };
    let at = ".spec.containers[name=\"c\"].env[name=\"a\"]";
    let twice = env(&[("a", "1"), ("a", "2"), ("b", "1")]);
    let paths = pod().fields(&twice).paths();
    assert!(
        paths.contains(&at.to_owned()) && !paths.iter().any(|path| path.starts_with(&format!("{at}."))),
        "{paths:?}"
    );
    let told = |old: &Value, new: &Value| {
        let changes = compare(pod(), old, new);
        [changes.added, changes.modified, changes.removed].map(|fields| fields.paths())
    };
    let once = env(&[("a", "3"), ("b", "1")]);
    let whole = vec![at.to_owned(), format!("{at}.name"), format!("{at}.value")];
    assert_eq!(told(&twice, &once), [whole.clone(), vec![], vec![at.to_owned()]]);
    assert_eq!(told(&once, &twice), [vec![at.to_owned()], vec![], whole]);
    assert_eq!(told(&twice, &env(&[("a", "1"), ("a", "4"), ("b", "1")])), [vec![], vec![at.to_owned()], vec![]]);
    assert_eq!(told(&twice, &env(&[("b", "1")])), [vec![], vec![], vec![at.to_owned()]]);
    assert!(compare(pod(), &twice, &twice).is_empty());
    // Who applies one of them makes it one.
    assert_eq!(merge(pod(), &twice, &env(&[("a", "3")])), env(&[("a", "3"), ("b", "1")]));
}

#[test]
fn what_nobody_wants_any_more_goes_and_nothing_else() {
    let typed = typed("apps", "Deployment");
    let first = json!({"spec": {"replicas": 1, "strategy": {"type": "RollingUpdate"}, "paused": true,
        "template": {"spec": {"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]}}}});
    // With defaults, which nobody owns.
    let mut live = first.clone();
    live["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 1});
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let now = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}});
    let other = json!({"spec": {"paused": true}});
    let mut owned = typed.fields(&now);
    owned.union(&typed.fields(&other));
    let pruned = prune(typed, merge(typed, &live, &now), &typed.fields(&first), &owned);
    assert_eq!(
        pruned,
        json!({"spec": {"replicas": 1, "paused": true, "template": {"spec": {"containers":
            [{"name": "a", "image": "1", "imagePullPolicy": "Always"}]}}}})
    );
}

fn config() -> impl Strategy<Value = Value> {
    // Not empty: what has nothing in it is itself a field, until something is in it.
    let labels = prop::collection::btree_map("[a-c]", "[12]", 1..3);
    let finalizers = prop::collection::btree_set("[a-c]", 0..3);
    let container = (any::<bool>(), prop::option::of("[12]"), prop::collection::vec("[xy]", 0..3));
    let containers = prop::collection::btree_map("[a-d]", container, 0..4);
    (labels, finalizers, containers, any::<bool>()).prop_map(|(labels, finalizers, containers, reversed)| {
        let mut items: Vec<Value> = containers
            .into_iter()
            .map(|(name, (tty, image, args))| {
                let mut container = json!({"name": name, "tty": tty, "args": args});
                if let Some(image) = image {
                    container["image"] = json!(image);
                }
                container
            })
            .collect();
        if reversed {
            items.reverse();
        }
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": items}})
    })
}

proptest! {
    #[test]
    fn fields_are_read_as_they_were_written(value in config()) {
        let fields = pod().fields(&value);
        prop_assert_eq!(Fields::read(&fields.write()), fields);
    }

    /// Once merged, all that was wanted is there; merging it again changes nothing.
    #[test]
    fn a_merge_has_all_that_is_wanted(live in config(), wanted in config()) {
        let merged = merge(pod(), &live, &wanted);
        prop_assert_eq!(merge(pod(), &merged, &wanted), merged.clone());
        let mut missing = pod().fields(&wanted);
        missing.subtract(&pod().fields(&merged));
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
        // Nothing is lost that only the live one had.
        let mut lost = pod().fields(&live);
        lost.subtract(&pod().fields(&merged));
        prop_assert!(lost.is_empty(), "{:?}", lost.paths());
    }

    /// What a change says is what the two values' fields say.
    #[test]
    fn changes_lead_from_one_to_the_other(old in config(), new in config()) {
        let changes = compare(pod(), &old, &new);
        let (mut before, after) = (pod().fields(&old), pod().fields(&new));
        before.subtract(&changes.removed);
        before.union(&changes.added);
        before.union(&changes.modified);
        let mut missing = after.clone();
        missing.subtract(&before);
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
    }

    /// Who applies one thing and then another, alone, has the other.
    #[test]
    fn who_is_alone_has_what_it_applied_last(first in config(), second in config()) {
        let pruned = prune(pod(), merge(pod(), &first, &second), &pod().fields(&first), &pod().fields(&second));
        let (mut more, wanted) = (pod().fields(&pruned), pod().fields(&second));
        let mut missing = wanted.clone();
        missing.subtract(&more);
        prop_assert!(missing.is_empty(), "{:?}", missing.paths());
        more.subtract(&wanted);
        prop_assert!(more.is_empty(), "{:?}", more.paths());
    }
}
