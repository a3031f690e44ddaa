//! What pods are given by their runtime's class, by limits and by nodes, and which secrets they may draw on.

use gantry_kube::resource::{LIMIT_RANGE, RUNTIME_CLASS};

use super::*;

fn classes(more: Value) -> Objects {
    let objects = world();
    let mut class = json!({"kind": "RuntimeClass", "metadata": {"name": "boxed"}, "handler": "box"});
    json_patch::merge(&mut class, &more);
    objects.put(class);
    objects
}

fn create(objects: &Objects, spec: Value) -> Result<Object, Status> {
    Request::new(&POD, Operation::Create).run(objects, pod(spec), None)
}

fn refused(objects: &Objects, spec: Value) -> String {
    let status = create(objects, spec).unwrap_err();
    assert_eq!(status.code, 403);
    status.message.strip_prefix("pods \"x\" is forbidden: ").unwrap().to_owned()
}

#[test]
fn a_runtime_costs_what_its_class_says() {
    let objects = classes(json!({"overhead": {"podFixed": {"cpu": "1", "memory": "64Mi"}}}));
    let made = create(&objects, json!({"runtimeClassName": "boxed"})).unwrap();
    assert_eq!(made.get("/spec/overhead"), Some(&json!({"cpu": "1", "memory": "64Mi"})));
    let same = json!({"runtimeClassName": "boxed", "overhead": {"cpu": "1000m", "memory": "65536Ki"}});
    assert!(create(&objects, same).is_ok(), "the amount counts, not how it is written");
    for (spec, why) in [
        (json!({"runtimeClassName": "gone"}), "pod rejected: RuntimeClass \"gone\" not found"),
        (
            json!({"runtimeClassName": "boxed", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        assert_eq!(refused(&objects, spec), why);
    }
    let free = classes(json!({}));
    assert!(create(&free, json!({"runtimeClassName": "boxed"})).unwrap().get("/spec/overhead").is_none());
    assert!(refused(&free, json!({"runtimeClassName": "boxed", "overhead": {}})).contains("without corresponding"));
    objects.remove(&RUNTIME_CLASS, &gantry_kube::Ref::cluster("boxed"));
    let update = Request::new(&POD, Operation::Update);
    let bound = || pod(json!({"runtimeClassName": "boxed", "priority": 0}));
    assert!(update.run(&objects, bound(), Some(bound())).is_ok(), "a class is asked for at the birth alone");
}

#[test]
fn a_runtimes_pods_go_where_it_is() {
    let toleration = |key: &str, seconds: Option<u32>| {
        let mut value = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
        if let Some(seconds) = seconds {
            value["tolerationSeconds"] = json!(seconds);
        }
        value
    };
    let scheduling =
        json!({"nodeSelector": {"box": "yes"}, "tolerations": [toleration("box", None), toleration("own", Some(5))]});
    let objects = classes(json!({"scheduling": scheduling}));
    let own = json!([toleration("box", Some(9)), toleration("own", None)]);
    let spec = json!({"runtimeClassName": "boxed", "nodeSelector": {"zone": "a"}, "tolerations": own});
    let made = create(&objects, spec).unwrap();
    assert_eq!(made.get("/spec/nodeSelector"), Some(&json!({"box": "yes", "zone": "a"})));
    let kept: Vec<Value> =
        made.array_at("/spec/tolerations").iter().filter(|t| t["tolerationSeconds"] != 300).cloned().collect();
    assert_eq!(kept, [toleration("own", None), toleration("box", None)], "the wider of two stays");
    let again = create(&objects, made.get("/spec").unwrap().clone()).unwrap();
    assert_eq!(again.get("/spec"), made.get("/spec"), "what is there is not added again");
    assert_eq!(
        refused(&objects, json!({"runtimeClassName": "boxed", "nodeSelector": {"box": "no"}})),
        "conflict: runtimeClass.scheduling.nodeSelector[box] = yes; pod.spec.nodeSelector[box] = no"
    );
}

#[test]
fn a_wider_toleration_makes_a_narrower_one_needless() {
    let merged = |all: Value| crate::admission::runtime_class::widest(all.as_array().unwrap());
    let everything = json!({"operator": "Exists"});
    let one = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
    for all in [json!([one, everything]), json!([everything, one, everything])] {
        assert_eq!(merged(all), std::slice::from_ref(&everything));
    }
    let other = json!({"key": "a", "operator": "Equal", "value": "2", "effect": "NoSchedule"});
    let all_values = json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"});
    assert_eq!(merged(json!([one, other])).len(), 2);
    assert_eq!(merged(json!([one, other, all_values])), [all_values]);
    let more_than = json!({"key": "a", "operator": "Gt", "value": "1"});
    assert_eq!(merged(json!([more_than, one])).len(), 2);
}

#[test]
fn a_bound_pod_knows_its_zone() {
    let objects = world();
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    objects.put(json!({"kind": "Node", "metadata": {"name": "n", "labels": labels}}));
    let place = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!(create(&objects, json!({"nodeName": "n"})).unwrap().get("/metadata/labels"), Some(&place));
    for spec in [json!({}), json!({"nodeName": "gone"})] {
        assert_eq!(create(&objects, spec).unwrap().labels(), None);
    }
    let bind = |target: Value| {
        let request = Request { subresource: "binding", ..Request::new(&POD, Operation::Create) };
        let said = json!({"topology.kubernetes.io/zone": "said", "mine": "m"});
        request.run(&objects, json!({"metadata": {"labels": said}, "target": target}), None).unwrap()
    };
    let bound = bind(json!({"kind": "Node", "name": "n"}));
    assert_eq!(bound.label("topology.kubernetes.io/zone"), Some("z"), "a node knows better than who binds");
    assert_eq!((bound.label("topology.kubernetes.io/region"), bound.label("mine")), (Some("r"), Some("m")));
    assert_eq!(bind(json!({"kind": "Other", "name": "n"})).label("topology.kubernetes.io/zone"), Some("said"));
}

#[test]
fn an_account_may_bind_its_pods_to_the_secrets_that_it_names() {
    let objects = world();
    let account = |bound: &str| {
        let annotations = json!({"kubernetes.io/enforce-mountable-secrets": bound});
        json!({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "a", "annotations": annotations},
            "secrets": [{"name": "known"}], "imagePullSecrets": [{"name": "pull"}]})
    };
    objects.put(account("true"));
    let environment =
        |secret: &str| json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
    let container = |secret: &str| json!([{"name": "c", "env": environment(secret)}]);
    let known = json!({"volumes": [{"name": "v", "secret": {"secretName": "known"}}], "containers": container("known"),
        "imagePullSecrets": [{"name": "pull"}]});
    assert!(create(&objects, known).is_ok());
    let tail = "is not allowed because service account default does not reference that secret";
    let strange = json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
    let rows = [
        (strange.clone(), format!("volume with secret.secretName=\"s\" {tail}")),
        (
            json!({"containers": container("s")}),
            format!("container c with envVar V referencing secret.secretName=\"s\" {tail}"),
        ),
        (
            json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            format!("container c with envFrom referencing secret.secretName=\"s\" {tail}"),
        ),
        (
            json!({"initContainers": container("s")}),
            format!("init container c with envVar V referencing secret.secretName=\"s\" {tail}"),
        ),
        (
            json!({"imagePullSecrets": [{"name": "pull"}, {"name": "s"}]}),
            "imagePullSecrets[1].name=\"s\" is not allowed because service account default does not reference that \
             imagePullSecret"
                .to_owned(),
        ),
    ];
    for (spec, why) in rows {
        assert_eq!(refused(&objects, spec), why);
    }
    let watched = |secret: &str| {
        let request = Request { subresource: "ephemeralcontainers", ..Request::new(&POD, Operation::Update) };
        let spec = |more: Value| {
            let mut spec = json!({"serviceAccountName": "default"});
            json_patch::merge(&mut spec, &more);
            pod(spec)
        };
        request.run(&objects, spec(json!({"ephemeralContainers": container(secret)})), Some(spec(json!({}))))
    };
    assert!(watched("known").is_ok());
    let why = format!("ephemeral container c with envVar V referencing secret.secretName=\"s\" {tail}");
    assert!(watched("s").unwrap_err().message.ends_with(&why));
    objects.put(account("false"));
    assert!(create(&objects, strange).is_ok());
}

#[test]
fn a_mirror_pod_draws_on_nothing() {
    let mirror = |spec: Value| {
        let mut pod = pod(spec);
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
        Request::new(&POD, Operation::Create).run(&world(), pod, None).map(drop).map_err(|status| status.message)
    };
    let secrets = "a mirror pod may not reference secrets";
    assert_eq!(mirror(json!({})), Ok(()));
    for (spec, why) in [
        (json!({"serviceAccountName": "default"}), "a mirror pod may not reference service accounts"),
        (json!({"volumes": [{"secret": {"secretName": "s"}}]}), secrets),
        (json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "s"}}]}}]}), secrets),
        (json!({"volumes": [{"csi": {"nodePublishSecretRef": {"name": "s"}}}]}), secrets),
        (json!({"imagePullSecrets": [{"name": "s"}]}), secrets),
        (json!({"initContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}), secrets),
        (
            json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "a mirror pod may not use ServiceAccountToken volume projections",
        ),
    ] {
        assert_eq!(mirror(spec), Err(format!("pods \"x\" is forbidden: {why}")));
    }
}

#[test]
fn limits_hold_for_a_resize_and_one_range_answers() {
    let range = |name: &str, limits: Value| json!({"kind": LIMIT_RANGE.kind, "metadata": {"name": name, "namespace": "a"}, "spec": {"limits": limits}});
    let cpu = |most: &str| json!([{"type": "Container", "max": {"cpu": most}}]);
    let objects = world();
    objects.put(range("one", cpu("1")));
    objects.put(range("two", cpu("500m")));
    let two = |amount: &str| {
        let resources = json!({"limits": {"cpu": amount}, "requests": {"cpu": amount}});
        json!({"serviceAccountName": "default", "containers": [{"name": "c", "resources": resources}, {"name": "d", "resources": resources}]})
    };
    assert_eq!(refused(&objects, two("2")), "maximum cpu usage per Container is 1, but limit is 2");
    let update = |subresource, old: Value| {
        let request = Request { subresource, ..Request::new(&POD, Operation::Update) };
        request.run(&objects, pod(two("700m")), Some(old)).map(drop).map_err(|status| status.message)
    };
    let why = "pods \"x\" is forbidden: maximum cpu usage per Container is 500m, but limit is 700m";
    assert_eq!(update("resize", pod(two("100m"))), Err(why.to_owned()));
    assert_eq!(update("", pod(two("100m"))), Ok(()), "what containers ask for does not change so");
    let mut leaving = pod(two("100m"));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(update("resize", leaving), Ok(()));
    let claims = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]);
    objects.put(range("claims", claims));
    let claim = json!({"metadata": {"name": "x"}, "spec": {"resources": {"requests": {}}}});
    let status = Request::new(&PERSISTENT_VOLUME_CLAIM, Operation::Create).run(&objects, claim, None).unwrap_err();
    assert_eq!(
        status.message,
        "persistentvolumeclaims \"x\" is forbidden: [minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is \
         specified, maximum storage usage per PersistentVolumeClaim is 2Gi.  No request is specified]"
    );
}

/// Whatever is done twice is done once.
#[test]
fn a_second_mutation_changes_nothing() {
    let objects = classes(json!({"overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {"nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Exists"}]}}));
    let limits = json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"memory": "1Mi"}}]);
    objects.put(json!({"kind": "LimitRange", "metadata": {"name": "r", "namespace": "a"}, "spec": {"limits": limits}}));
    for spec in [
        json!({}),
        json!({"runtimeClassName": "boxed", "priorityClassName": "high", "nodeName": "n"}),
        json!({"serviceAccountName": "shy", "initContainers": [{"name": "i"}], "tolerations": [{"operator": "Exists"}]}),
    ] {
        let once = create(&objects, spec).unwrap();
        let twice = Request::new(&POD, Operation::Create).run(&objects, once.clone().into_value(), None).unwrap();
        assert_eq!(twice, once);
    }
}
