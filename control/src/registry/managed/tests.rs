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
    Manager::new(name, "", time, None)
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
    on_create(&mut old, "v1", &by("first", "t0"));
    assert_eq!(managers(&old)["Update/first"], json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let mut new = old.clone();
    new.map_mut("data").insert("b".into(), json!("3"));
    new.map_mut("data").insert("c".into(), json!("4"));
    on_update(&mut new, &old, "v1", &by("second", "t1"));
    assert_eq!(managers(&new)["Update/first"], json!({"f:data": {"f:a": {}}}));
    assert_eq!(managers(&new)["Update/second"], json!({"f:data": {"f:b": {}, "f:c": {}}}));
    let mut less = new.clone();
    less.map_mut("data").remove("a");
    on_update(&mut less, &new, "v1", &by("second", "t2"));
    assert_eq!(managers(&less).keys().collect::<Vec<_>>(), ["Update/second"]);
}

#[test]
fn a_change_of_nothing_changes_nothing() {
    let mut old = config(json!({"a": "1"}));
    on_create(&mut old, "v1", &by("first", "t0"));
    let mut new = old.clone();
    new.metadata_mut().remove("managedFields");
    on_update(&mut new, &old, "v1", &by("second", "t1"));
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
    on_create(&mut live, "v1", &by("editor", "t0"));
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
    on_update(&mut edited, &forced, "v1", &by("editor", "t2"));
    assert!(applied(&edited, json!({"a": "2"}), "one", false).is_err());
    assert!(applied(&edited, json!({"a": "3"}), "one", false).is_ok(), "both want the same");
}

#[test]
fn a_client_may_write_the_record_itself() {
    let mut live = config(json!({"a": "1"}));
    on_create(&mut live, "v1", &by("kubectl-client-side-apply", "t0"));
    // As kubectl does on its way from client-side to server-side apply.
    let mut new = live.clone();
    let mut entry = new.array_at("/metadata/managedFields")[0].clone();
    (entry["manager"], entry["operation"]) = (json!("kubectl"), json!("Apply"));
    new.metadata_mut().insert("managedFields".into(), json!([entry]));
    on_update(&mut new, &live, "v1", &by("kubectl", "t1"));
    assert_eq!(managers(&new).keys().collect::<Vec<_>>(), ["Apply/kubectl"]);
    // And what is none drops it.
    let mut dropped = new.clone();
    dropped.metadata_mut().insert("managedFields".into(), json!([{}]));
    dropped.map_mut("data").insert("b".into(), json!("1"));
    on_update(&mut dropped, &new, "v1", &by("x", "t2"));
    assert_eq!(managers(&dropped).len(), 0);
    // Nothing is noted of it from then on, and all of it was somebody's when the first applies.
    let mut more = dropped.clone();
    more.map_mut("data").insert("c".into(), json!("1"));
    on_update(&mut more, &dropped, "v1", &by("x", "t3"));
    assert_eq!(managers(&more).len(), 0);
    let refused = applied(&more, json!({"a": "2"}), "one", false).unwrap_err();
    assert!(refused.message.ends_with("conflict with \"before-first-apply\" using v1: .data.a"), "{}", refused.message);
    let beside = applied(&more, json!({"a": "1", "d": "1"}), "one", false).unwrap();
    let before = json!({"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}});
    assert_eq!(managers(&beside)["Update/before-first-apply"], before);
    assert_eq!(managers(&beside)["Apply/one"], json!({"f:data": {"f:a": {}, "f:d": {}}}));
}

#[test]
fn the_oldest_of_many_updaters_are_one() {
    let mut live = config(json!({"z": "1"}));
    on_create(&mut live, "v1", &by("m", "t"));
    for n in 0..30 {
        let mut new = live.clone();
        new.map_mut("data").insert(format!("k{n:02}"), json!("1"));
        let (name, time) = (format!("m{n:02}"), format!("t{n:02}"));
        on_update(&mut new, &live, "v1", &by(&name, &time));
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
    on_create(&mut live, "v1", &by("creator", "t0"));
    assert_eq!(managers(&live)["Update/creator"], json!({"f:spec": {"f:nodeName": {}}}));
    let mut new = live.clone();
    new.map_mut("status").insert("phase".into(), json!("Running"));
    on_update(&mut new, &live, "v1", &Manager::new("kubelet", "status", "t1", None));
    assert_eq!(managers(&new)["Update/kubelet"], json!({"f:status": {"f:phase": {}}}));
}

fn deployment(replicas: i64) -> Object {
    Object::from_value(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"},
        "spec": {"replicas": replicas, "paused": true}}))
    .unwrap()
}

/// The Scale of it, with its owners.
fn scale_of(parent: &Object) -> Object {
    let replicas = parent.i64_at("/spec/replicas");
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
        "spec": {"replicas": replicas}});
    scale::of(parent, Object::from_value(scale).unwrap(), ".spec.replicas")
}

fn applied_scale(parent: &Object, replicas: i64, name: &str, force: bool) -> Result<Object, Status> {
    let said = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
        "spec": {"replicas": replicas}});
    let said = Object::from_value(said).unwrap();
    let wanted = Wanted { said: &said, canonical: &said, force };
    let scale = apply(&scale_of(parent), &wanted, &Manager::new(name, "scale", "t9", None))?;
    let mut new = parent.clone();
    new.map_mut("spec").insert("replicas".into(), scale.get("/spec/replicas").unwrap().clone());
    scale::hand_back(&mut new, &scale, ".spec.replicas");
    Ok(new)
}

#[test]
fn the_replicas_pass_between_an_object_and_its_scale() {
    let mut parent = deployment(2);
    on_create(&mut parent, "apps/v1", &by("editor", "t0"));
    let owners = scale_of(&parent).array_at("/metadata/managedFields").to_vec();
    assert_eq!(owners.len(), 1);
    assert_eq!((&owners[0]["apiVersion"], &owners[0]["manager"]), (&json!("autoscaling/v1"), &json!("editor")));
    assert_eq!(owners[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let refused = applied_scale(&parent, 3, "scaler", false).unwrap_err();
    assert!(refused.message.ends_with("\"editor\" using autoscaling/v1: .spec.replicas"), "{}", refused.message);
    let scaled = applied_scale(&parent, 3, "scaler", true).unwrap();
    assert_eq!(scaled.i64_at("/spec/replicas"), Some(3));
    assert_eq!(managers(&scaled)["Update/editor"], json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(managers(&scaled)["Apply/scaler"], json!({"f:spec": {"f:replicas": {}}}));
    let entry = scaled.array_at("/metadata/managedFields").iter().find(|e| e["manager"] == "scaler").unwrap();
    assert_eq!((&entry["subresource"], &entry["apiVersion"]), (&json!("scale"), &json!("apps/v1")));
    // Both may want the same number, and the same again is nothing new.
    let shared = applied_scale(&scaled, 3, "other", false).unwrap();
    assert_eq!(managers(&shared).len(), 3);
    assert_eq!(applied_scale(&shared, 3, "other", false).unwrap(), shared);
}

/// An autoscaler as it is stored.
fn autoscaler(percent: i64) -> Object {
    Object::from_value(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "uid": "u"}, "spec": {"maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}]}}))
    .unwrap()
}

#[test]
fn each_owner_is_told_of_changes_in_its_own_version() {
    let mut stored = autoscaler(50);
    on_create(&mut stored, "autoscaling/v1", &by("old", "t0"));
    let entry = stored.array_at("/metadata/managedFields")[0].clone();
    assert_eq!(entry["apiVersion"], "autoscaling/v1");
    assert!(entry["fieldsV1"]["f:spec"].get("f:targetCPUUtilizationPercentage").is_some(), "{entry}");
    // In the new version, the same number has another place.
    let spec = json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70}}}]});
    let said = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec});
    let said = Object::from_value(said).unwrap();
    let wanted = |force| Wanted { said: &said, canonical: &said, force };
    let refused = apply(&stored, &wanted(false), &by("new", "t1")).unwrap_err();
    let words = "conflict with \"old\" using autoscaling/v1: .spec.targetCPUUtilizationPercentage";
    assert!(refused.message.ends_with(words), "{}", refused.message);
    let taken = apply(&stored, &wanted(true), &by("new", "t1")).unwrap();
    let old = &managers(&taken)["Update/old"]["f:spec"];
    assert_eq!((old.get("f:targetCPUUtilizationPercentage"), old.get("f:maxReplicas")), (None, Some(&json!({}))));
    // Who applied in one version and applies in the other takes back what it had there.
    let less = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"minReplicas": 2}});
    let less = Object::from_value(less).unwrap();
    let live = versions::in_version(&taken, "autoscaling/v1").unwrap().into_owned();
    let back = apply(&live, &Wanted { said: &less, canonical: &less, force: false }, &by("new", "t2")).unwrap();
    assert_eq!(back.get("/spec/targetCPUUtilizationPercentage"), None);
    assert_eq!(back.i64_at("/spec/maxReplicas"), Some(5), "that is another's");
    // A version that nobody serves any more owns nothing.
    let mut odd = taken.clone();
    let mut entries = odd.array_at("/metadata/managedFields").to_vec();
    entries[0]["apiVersion"] = json!("autoscaling/v2beta9");
    restore(&mut odd, entries.clone());
    let owner = format!("{}/{}", entries[0]["operation"].as_str().unwrap(), entries[0]["manager"].as_str().unwrap());
    let mut new = odd.clone();
    new.map_mut("spec").insert("maxReplicas".into(), json!(9));
    on_update(&mut new, &odd, "autoscaling/v2", &by("x", "t3"));
    assert!(!managers(&new).contains_key(&owner), "{:?}", managers(&new));
}
