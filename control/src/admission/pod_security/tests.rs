use gantry_env::Env;
use gantry_kube::resource::{CONFIG_MAP, SERVICE};
use serde_json::{Value, json};

use super::*;
use crate::auth::Identity;
use crate::auth::objects::Objects;

fn labels(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(mode, value)| (format!("pod-security.kubernetes.io/{mode}"), json!(value))).collect()
}

fn namespace_of(pairs: &[(&str, &str)]) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": "a", "labels": labels(pairs)}})
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

/// What comes of a request in the namespace `a`: the warnings, or the refusal.
fn ask(
    objects: &Objects,
    resource: &Resource,
    subresource: &str,
    new: Value,
    old: Option<Value>,
) -> Result<Warnings, Status> {
    let identity = Identity::new("u", None::<String>);
    let env = Env { clock: gantry_env::Clock::system(), rng: gantry_env::Rng::seeded(1) };
    let context = AdmissionContext {
        identity: &identity,
        resource,
        subresource,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        namespace: if resource.namespaced { "a" } else { "" },
        name: "x",
        lookup: objects,
        env: &env,
    };
    check(&context, &object(new), old.map(object).as_ref())
}

fn pod(spec: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "x", "namespace": "a"}, "spec": spec})
}

const SHARES: &str = "host namespaces (hostPID=true)";

fn sharing() -> Value {
    json!({"hostPID": true, "containers": [{"name": "c", "image": "i"}]})
}

#[test]
fn pods_are_refused_by_what_is_enforced_and_told_of_what_is_warned_of() {
    let baseline = Objects::of([namespace_of(&[("enforce", "baseline"), ("enforce-version", "v1.30")])]);
    let refused = ask(&baseline, &POD, "", pod(sharing()), None).unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(refused.message, format!("pods \"x\" is forbidden: violates PodSecurity \"baseline:v1.30\": {SHARES}"));
    let told = format!("would violate PodSecurity \"baseline:latest\": {SHARES}");
    let warned = Objects::of([namespace_of(&[("warn", "baseline")])]);
    assert_eq!(ask(&warned, &POD, "", pod(sharing()), None), Ok(vec![told]));
    assert_eq!(ask(&Objects::of([namespace_of(&[])]), &POD, "", pod(sharing()), None), Ok(vec![]));
    let unreadable = Objects::of([namespace_of(&[("enforce", "bassline")])]);
    let refused = ask(&unreadable, &POD, "", pod(sharing()), None).unwrap_err();
    assert!(refused.message.contains("violates PodSecurity \"restricted:latest\": host namespaces"), "{refused}");
}

#[test]
fn only_updates_that_matter_are_looked_at() {
    let objects = Objects::of([namespace_of(&[("enforce", "baseline")])]);
    let update = |subresource, new: Value| ask(&objects, &POD, subresource, new, Some(pod(sharing())));
    assert_eq!(update("", pod(sharing())), Ok(vec![]), "what was let in before stays");
    let mut other = sharing();
    other["containers"][0]["image"] = json!("j");
    assert_eq!(update("", pod(other.clone())).unwrap_err().code, 403);
    assert_eq!(update("status", pod(other.clone())), Ok(vec![]));
    other["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
    assert_eq!(update("ephemeralcontainers", pod(other)).unwrap_err().code, 403);
}

#[test]
fn workloads_are_warned_of_and_made() {
    let objects = Objects::of([namespace_of(&[("enforce", "baseline")])]);
    let template = || json!({"metadata": {}, "spec": sharing()});
    let plain = || json!({"metadata": {"name": "x"}, "spec": {"template": template()}});
    let told = vec![format!("would violate PodSecurity \"baseline:latest\": {SHARES}")];
    for kind in [&REPLICATION_CONTROLLER, &REPLICA_SET, &DEPLOYMENT, &STATEFUL_SET, &DAEMON_SET, &JOB] {
        assert_eq!(ask(&objects, kind, "", plain(), None), Ok(told.clone()), "{}", kind.kind);
        assert_eq!(ask(&objects, kind, "", plain(), Some(plain())), Ok(told.clone()), "{}", kind.kind);
        assert_eq!(ask(&objects, kind, "status", plain(), Some(plain())), Ok(vec![]), "{}", kind.kind);
    }
    let nested = json!({"metadata": {}, "spec": {"jobTemplate": {"spec": {"template": template()}}}});
    assert_eq!(ask(&objects, &CRON_JOB, "", nested, None), Ok(told.clone()));
    assert_eq!(ask(&objects, &POD_TEMPLATE, "", json!({"metadata": {}, "template": template()}), None), Ok(told));
    assert_eq!(ask(&objects, &REPLICATION_CONTROLLER, "", json!({"metadata": {}, "spec": {}}), None), Ok(vec![]));
    assert_eq!(ask(&objects, &SERVICE, "", plain(), None), Ok(vec![]));
    assert_eq!(ask(&objects, &CONFIG_MAP, "", plain(), None), Ok(vec![]));
}

#[test]
fn unreadable_labels_are_not_taken() {
    let objects = Objects::of([]);
    let of = |pairs| namespace_of(pairs);
    let bad = || of(&[("enforce", "hard"), ("warn-version", "1.2")]);
    let refused = ask(&objects, &NAMESPACE, "", bad(), None).unwrap_err();
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message,
        "Namespace \"a\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"hard\": must be \
         one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \
         \"1.2\": must be \"latest\" or \"v1.x\"]"
    );
    assert_eq!(ask(&objects, &NAMESPACE, "", bad(), Some(of(&[]))).unwrap_err().code, 422);
    assert_eq!(ask(&objects, &NAMESPACE, "", bad(), Some(bad())), Ok(vec![]), "what is there already may stay");
    assert_eq!(ask(&objects, &NAMESPACE, "status", bad(), Some(of(&[]))), Ok(vec![]));
}

#[test]
fn who_tightens_a_namespace_hears_of_the_pods_there() {
    let named = |name: &str, owner: &str, spec: Value| {
        let owners = if owner.is_empty() { json!([]) } else { json!([{"uid": owner, "controller": true}]) };
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a", "ownerReferences": owners}, "spec": spec})
    };
    let elsewhere = json!({"kind": "Pod", "metadata": {"name": "z", "namespace": "b"}, "spec": sharing()});
    let quiet = || json!({"containers": [{"name": "c"}]});
    let pods = [
        named("c", "1", sharing()),
        named("a", "1", sharing()),
        named("b", "", sharing()),
        named(
            "d",
            "",
            json!({"hostPID": true, "hostNetwork": true, "containers": [{"name": "c", "securityContext":
            {"privileged": true}}]}),
        ),
        named("e", "", quiet()),
        elsewhere,
    ];
    let objects = Objects::of(pods);
    let change = |from: &[(&str, &str)], to: &[(&str, &str)]| {
        ask(&objects, &NAMESPACE, "", namespace_of(to), Some(namespace_of(from))).unwrap()
    };
    let baseline = [("enforce", "baseline")];
    assert_eq!(
        change(&[], &baseline),
        [
            "existing pods in namespace \"a\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): host namespaces",
            "d: host namespaces, privileged",
        ]
    );
    for (from, to) in [(&baseline[..], &baseline[..]), (&[("enforce", "restricted")], &baseline), (&baseline, &[])] {
        assert!(change(from, to).is_empty(), "{from:?} {to:?}");
    }
    let pinned = [("enforce", "baseline"), ("enforce-version", "v1.20")];
    assert_eq!(
        change(&[("enforce", "restricted")], &pinned).len(),
        3,
        "another version is looked at, if it is laxer, too"
    );
}

#[test]
fn no_change_of_labels_looks_at_more_pods_than_the_bound() {
    let pod = |name: String, owner: &str| {
        let metadata = json!({"name": name, "namespace": "a", "ownerReferences": [{"uid": owner, "controller": true}]});
        json!({"kind": "Pod", "metadata": metadata, "spec": {"hostPID": true}})
    };
    let many = (0..PODS_MAX).map(|index| pod(format!("p{index:05}"), "1"));
    // The only one of its controller, and the last by name.
    let objects = Objects::of(many.chain([json!({"kind": "Pod", "metadata": {"name": "z", "namespace": "a"},
        "spec": {"hostIPC": true, "containers": [{"name": "c", "securityContext": {"privileged": true}}]}})]));
    let told =
        ask(&objects, &NAMESPACE, "", namespace_of(&[("enforce", "baseline")]), Some(namespace_of(&[]))).unwrap();
    assert_eq!(
        told,
        [
            "new PodSecurity enforce level only checked against the first 3000 of 3001 existing pods",
            "existing pods in namespace \"a\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p00000 (and 2998 other pods): host namespaces",
            "z: host namespaces, privileged",
        ]
    );
}
