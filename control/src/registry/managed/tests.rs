use std::collections::BTreeMap;

use super::*;

fn managers(object: &Object) -> BTreeMap<String, Value> {
    object
        .array_at("/metadata/managedFields")
        .iter()
        .map(|e| {
            (
                format!("{}/{}", e["operation"].as_str().unwrap_or(""), e["manager"].as_str().unwrap_or("")),
                e["fieldsV1"].clone(),
            )
        })
        .collect()
}

fn config(data: Value) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"},
        "data": data}))
    .unwrap()
}

fn said(data: Value) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
        .unwrap()
}

fn by<'a>(name: &'a str, time: &'a str) -> Manager<'a> {
    Manager::new(name, "", time)
}

fn applied(live: &Object, data: Value, name: &str, force: bool) -> Result<Object, Status> {
    let said = said(data);
    apply(live, &Wanted { said: &said, canonical: &said, force }, &by(name, "t9"))
}

fn first(data: Value, name: &str) -> Object {
    let said = said(data);
    on_create_by_apply(&Wanted { said: &said, canonical: &said, force: false }, &by(name, "t0"))
}

#[test]
fn fields_pass_from_manager_to_manager() {
    let mut old = config(json!({"a": "1", "b": "2"}));
    on_create(&mut old, &by("first", "t0"));
    assert_eq!(managers(&old)["Update/first"], json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let mut new = old.clone();
    new.map_mut("data").insert("b".into(), json!("3"));
    new.map_mut("data").insert("c".into(), json!("4"));
    on_update(&mut new, &old, &by("second", "t1"));
    assert_eq!(managers(&new)["Update/first"], json!({"f:data": {"f:a": {}}}));
    assert_eq!(managers(&new)["Update/second"], json!({"f:data": {"f:b": {}, "f:c": {}}}));
    let mut less = new.clone();
    less.map_mut("data").remove("a");
    on_update(&mut less, &new, &by("second", "t2"));
    assert_eq!(managers(&less).keys().collect::<Vec<_>>(), ["Update/second"]);
}

#[test]
fn a_change_of_nothing_changes_nothing() {
    let mut old = config(json!({"a": "1"}));
    on_create(&mut old, &by("first", "t0"));
    let mut new = old.clone();
    new.metadata_mut().remove("managedFields");
    on_update(&mut new, &old, &by("second", "t1"));
    assert_eq!(new, old);
}

#[test]
fn what_is_applied_belongs_to_who_applies_it() {
    let live = first(json!({"a": "1", "b": "1"}), "one");
    assert_eq!(managers(&live)["Apply/one"], json!({"f:data": {"f:a": {}, "f:b": {}}}));
    // Another's own field, and one that both want alike.
    let live = applied(&live, json!({"b": "1", "c": "1"}), "two", false).unwrap();
    assert_eq!(live.get("/data"), Some(&json!({"a": "1", "b": "1", "c": "1"})));
    assert_eq!(managers(&live).len(), 2);
    // What one leaves out goes, unless the other wants it.
    let live = applied(&live, json!({}), "one", false).unwrap();
    assert_eq!(live.get("/data"), Some(&json!({"b": "1", "c": "1"})));
    assert_eq!(managers(&live)["Apply/two"], json!({"f:data": {"f:b": {}, "f:c": {}}}));
    // The same again is nothing new.
    assert_eq!(applied(&live, json!({"b": "1", "c": "1"}), "two", false).unwrap(), live);
}

#[test]
fn what_another_owns_is_a_conflict_until_it_is_forced() {
    let mut live = config(json!({"a": "1", "b": "1"}));
    on_create(&mut live, &by("editor", "t0"));
    let refused = applied(&live, json!({"a": "2"}), "one", false).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a");
    assert_eq!(
        refused.details["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"editor\" using v1", "field": ".data.a"}])
    );
    let refused = applied(&live, json!({"a": "2", "b": "2"}), "one", false).unwrap_err();
    let expected = "Apply failed with 2 conflicts: conflicts with \"editor\" using v1:\n- .data.a\n- .data.b";
    assert_eq!(refused.message, expected);
    let forced = applied(&live, json!({"a": "2"}), "one", true).unwrap();
    assert_eq!(forced.get("/data"), Some(&json!({"a": "2", "b": "1"})));
    assert_eq!(managers(&forced)["Update/editor"], json!({"f:data": {"f:b": {}}}));
    // Who edits what was applied takes it, and the next apply meets a conflict.
    let mut edited = forced.clone();
    edited.map_mut("data").insert("a".into(), json!("3"));
    on_update(&mut edited, &forced, &by("editor", "t2"));
    assert!(applied(&edited, json!({"a": "2"}), "one", false).is_err());
    assert!(applied(&edited, json!({"a": "3"}), "one", false).is_ok(), "both want the same");
}

#[test]
fn a_client_may_write_the_record_itself() {
    let mut live = config(json!({"a": "1"}));
    on_create(&mut live, &by("kubectl-client-side-apply", "t0"));
    // As kubectl does on its way from client-side to server-side apply.
    let mut new = live.clone();
    let mut entry = new.array_at("/metadata/managedFields")[0].clone();
    (entry["manager"], entry["operation"]) = (json!("kubectl"), json!("Apply"));
    new.metadata_mut().insert("managedFields".into(), json!([entry]));
    on_update(&mut new, &live, &by("kubectl", "t1"));
    assert_eq!(managers(&new).keys().collect::<Vec<_>>(), ["Apply/kubectl"]);
    // And what is none drops it.
    let mut dropped = new.clone();
    dropped.metadata_mut().insert("managedFields".into(), json!([{}]));
    dropped.map_mut("data").insert("b".into(), json!("1"));
    on_update(&mut dropped, &new, &by("x", "t2"));
    assert_eq!(managers(&dropped)["Update/x"], json!({"f:data": {"f:b": {}}}));
    assert_eq!(managers(&dropped).len(), 1);
}

#[test]
fn the_oldest_of_many_updaters_are_one() {
    let mut live = config(json!({}));
    for n in 0..30 {
        let mut new = live.clone();
        new.map_mut("data").insert(format!("k{n:02}"), json!("1"));
        let (name, time) = (format!("m{n:02}"), format!("t{n:02}"));
        on_update(&mut new, &live, &by(&name, &time));
        live = new;
    }
    let all = managers(&live);
    assert_eq!(all.len(), UPDATERS_MAX);
    assert!(all["Update/ancient-changes"]["f:data"].get("f:k00").is_some(), "{all:?}");
    assert_eq!(all["Update/m29"], json!({"f:data": {"f:k29": {}}}));
}

#[test]
fn status_is_its_subresources() {
    let pod = |status: Value| {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": status})).unwrap()
    };
    let mut live = pod(json!({"phase": "Pending"}));
    on_create(&mut live, &by("creator", "t0"));
    assert_eq!(managers(&live)["Update/creator"], json!({"f:spec": {"f:nodeName": {}}}));
    let mut new = live.clone();
    new.map_mut("status").insert("phase".into(), json!("Running"));
    on_update(&mut new, &live, &Manager::new("kubelet", "status", "t1"));
    assert_eq!(managers(&new)["Update/kubelet"], json!({"f:status": {"f:phase": {}}}));
}
