//! What admission adds, and what it refuses.

mod pods;

use gantry_env::Env;
use gantry_kube::resource::{
    CONFIG_MAP, INGRESS, LEASE, NAMESPACE, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, PRIORITY_CLASS,
    SERVICE_ACCOUNT,
};
use gantry_kube::{Object, Resource, Status};
use serde_json::{Value, json};

use super::{AdmissionContext, Operation, mutate, validate};
use crate::auth::Identity;
use crate::auth::objects::{Objects, binding, role};

struct Request {
    identity: Identity,
    resource: &'static Resource,
    subresource: &'static str,
    operation: Operation,
    namespace: &'static str,
    name: &'static str,
}

impl Request {
    fn new(resource: &'static Resource, operation: Operation) -> Request {
        let namespace = if resource.namespaced { "a" } else { "" };
        let identity = Identity::new("u", None::<String>);
        Request { identity, resource, subresource: "", operation, namespace, name: "x" }
    }

    fn by_node(mut self) -> Request {
        self.identity = Identity::new("system:node:n", ["system:nodes"]);
        self
    }

    fn run(&self, objects: &Objects, value: Value, old: Option<Value>) -> Result<Object, Status> {
        let env = Env { clock: gantry_env::Clock::system(), rng: gantry_env::Rng::seeded(1) };
        let context = AdmissionContext {
            identity: &self.identity,
            resource: self.resource,
            subresource: self.subresource,
            operation: self.operation,
            namespace: self.namespace,
            name: self.name,
            lookup: objects,
            env: &env,
        };
        let mut object = Object::from_value(value).unwrap();
        let old = old.map(|old| Object::from_value(old).unwrap());
        mutate(&context, &mut object, old.as_ref())?;
        validate(&context, &object, old.as_ref()).map(|_| object)
    }
}

fn world() -> Objects {
    Objects::of([
        namespace_a(),
        json!({"kind": "Namespace", "metadata": {"name": "kube-node-lease"}}),
        json!({"kind": "Namespace", "metadata": {"name": "ending"}, "status": {"phase": "Terminating"}}),
        json!({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "a"}}),
        json!({"kind": "ServiceAccount", "metadata": {"name": "shy", "namespace": "a"},
               "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "key"}]}),
        json!({"kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        json!({"kind": "Node", "metadata": {"name": "n", "uid": "node-1"}}),
        json!({"kind": "Pod", "metadata": {"name": "mine", "namespace": "a", "uid": "pod-1"},
               "spec": {"nodeName": "n", "serviceAccountName": "default", "volumes": [{"projected": {"sources": [
                   {"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"audience": "vault"}}]}}]}}),
        json!({"kind": "Pod", "metadata": {"name": "theirs", "namespace": "a", "uid": "pod-2"},
               "spec": {"nodeName": "m", "serviceAccountName": "default"}}),
    ])
}

fn namespace_a() -> Value {
    json!({"kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Active"}})
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "x", "namespace": "a"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn create_pod(spec: Value) -> Result<Object, Status> {
    Request::new(&POD, Operation::Create).run(&world(), pod(spec), None)
}

#[test]
fn nothing_is_made_where_there_is_no_namespace() {
    let mut request = Request::new(&CONFIG_MAP, Operation::Create);
    let body = || json!({"metadata": {"name": "x"}});
    assert!(request.run(&world(), body(), None).is_ok());
    request.namespace = "absent";
    let refused = request.run(&world(), body(), None).unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (404, "namespaces \"absent\" not found"));
    request.namespace = "ending";
    let refused = request.run(&world(), body(), None).unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "configmaps \"x\" is forbidden: unable to create new content in namespace ending because it is being terminated"
    );
    assert_eq!(refused.details["causes"][0]["reason"], "NamespaceTerminating");
    request.operation = Operation::Update;
    assert!(request.run(&world(), body(), Some(body())).is_ok(), "what is there may still change");
}

#[test]
fn an_ingress_is_of_the_newest_default_class() {
    let class = |name: &str, second: u8, default: &str| {
        json!({"kind": "IngressClass", "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
            "annotations": {"ingressclass.kubernetes.io/is-default-class": default}}})
    };
    let namespace = || json!({"kind": "Namespace", "metadata": {"name": "a"}});
    let classes = [
        class("old", 1, "true"),
        class("new", 2, "true"),
        class("also", 2, "true"),
        class("not", 3, "false"),
        namespace(),
    ];
    let chosen = |objects: &Objects, operation, ingress: Value| {
        let made = Request::new(&INGRESS, operation).run(objects, ingress.clone(), Some(ingress)).unwrap();
        made.str_at("/spec/ingressClassName").to_owned()
    };
    let (all, plain) = (Objects::of(classes), json!({"metadata": {"name": "x"}, "spec": {}}));
    assert_eq!(chosen(&all, Operation::Create, plain.clone()), "also");
    assert_eq!(chosen(&all, Operation::Update, plain.clone()), "");
    assert_eq!(chosen(&all, Operation::Create, json!({"spec": {"ingressClassName": "mine"}})), "mine");
    let annotated = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "mine"}}});
    assert_eq!(chosen(&all, Operation::Create, annotated), "");
    assert_eq!(chosen(&Objects::of([class("not", 3, "false"), namespace()]), Operation::Create, plain), "");
}

#[test]
fn some_namespaces_stay() {
    let mut request = Request::new(&NAMESPACE, Operation::Delete);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        request.name = name;
        let refused = request.run(&world(), json!({}), Some(json!({}))).unwrap_err();
        assert_eq!(refused.message, format!("namespaces {name:?} is forbidden: this namespace may not be deleted"));
    }
    request.name = "a";
    assert!(request.run(&world(), json!({}), Some(json!({}))).is_ok());
}

#[test]
fn a_pod_gets_its_account_and_its_token() {
    let made = create_pod(json!({})).unwrap();
    assert_eq!(made.str_at("/spec/serviceAccountName"), "default");
    let volume = made.get("/spec/volumes/0").unwrap();
    let name = volume["name"].as_str().unwrap();
    assert_eq!(name.len(), "kube-api-access-".len() + 5);
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
    assert_eq!(
        made.get("/spec/containers/0/volumeMounts/0").unwrap(),
        &json!({"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
    );
}

#[test]
fn a_pod_may_do_without_a_token_and_without_an_account_it_may_not() {
    for spec in [json!({"automountServiceAccountToken": false}), json!({"serviceAccountName": "shy"})] {
        assert!(create_pod(spec).unwrap().get("/spec/volumes").is_none());
    }
    let shy = create_pod(json!({"serviceAccountName": "shy", "automountServiceAccountToken": true})).unwrap();
    assert_eq!(shy.array_at("/spec/volumes").len(), 1, "the pod's word goes before its account's");
    assert_eq!(shy.str_at("/spec/imagePullSecrets/0/name"), "key");
    let own = create_pod(json!({"containers": [{"name": "c", "volumeMounts": [
        {"name": "v", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]}));
    assert!(own.unwrap().get("/spec/volumes").is_none(), "a mount of the pod's own stands");
    let refused = create_pod(json!({"serviceAccountName": "absent"})).unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"x\" is forbidden: error looking up service account a/absent: serviceaccount \"absent\" not found"
    );
    let mut mirror = pod(json!({"serviceAccountName": "default"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
    assert_eq!(Request::new(&POD, Operation::Create).run(&world(), mirror, None).unwrap_err().code, 403);
}

#[test]
fn tolerations_are_added_where_none_of_the_pods_own_matches() {
    let keys = |spec: Value| {
        let made = create_pod(spec).unwrap();
        let keys = made.array_at("/spec/tolerations").iter().map(|t| t["key"].as_str().unwrap_or("").to_owned());
        keys.collect::<Vec<_>>()
    };
    let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    assert_eq!(keys(json!({})), [not_ready, unreachable]);
    assert_eq!(keys(json!({"tolerations": [{"operator": "Exists"}]})), [""]);
    assert_eq!(keys(json!({"tolerations": [{"key": not_ready, "effect": "NoExecute"}]})), [not_ready, unreachable]);
    let other = json!({"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]});
    assert_eq!(keys(other), ["", not_ready, unreachable]);
}

#[test]
fn a_class_becomes_a_number() {
    let made = create_pod(json!({})).unwrap();
    assert_eq!(made.i64_at("/spec/priority"), Some(0));
    assert_eq!(made.str_at("/spec/preemptionPolicy"), "PreemptLowerPriority");
    let high = create_pod(json!({"priorityClassName": "high"})).unwrap();
    assert_eq!((high.i64_at("/spec/priority"), high.str_at("/spec/preemptionPolicy")), (Some(1000), "Never"));
    let refused = create_pod(json!({"priorityClassName": "absent"})).unwrap_err();
    assert_eq!(refused.message, "pods \"x\" is forbidden: no PriorityClass with name absent was found");
    let refused = create_pod(json!({"priority": 7})).unwrap_err();
    assert!(refused.message.contains("the integer value of priority (7) must not be provided"));

    let objects = world();
    let class = json!({"kind": "PriorityClass", "metadata": {"name": "usual"}, "value": 5, "globalDefault": true});
    objects.put(class.clone());
    let usual = Request::new(&POD, Operation::Create).run(&objects, pod(json!({})), None).unwrap();
    assert_eq!((usual.i64_at("/spec/priority"), usual.str_at("/spec/priorityClassName")), (Some(5), "usual"));
    let mut second = class.clone();
    second["metadata"]["name"] = json!("second");
    let request = Request::new(&PRIORITY_CLASS, Operation::Create);
    assert!(request.run(&objects, second, None).unwrap_err().message.contains("usual is already marked as default"));
    assert!(request.run(&objects, class, None).is_ok());

    let old = json!({"metadata": {"name": "x"}, "spec": {"priority": 9}});
    let kept = Request::new(&POD, Operation::Update).run(&objects, pod(json!({})), Some(old)).unwrap();
    assert_eq!(kept.i64_at("/spec/priority"), Some(9));
}

#[test]
fn a_new_node_waits_until_it_is_ready() {
    let request = Request { name: "n", ..Request::new(&NODE, Operation::Create).by_node() };
    let made = request.run(&world(), json!({"metadata": {"name": "n"}}), None).unwrap();
    assert_eq!(
        made.get("/spec/taints").unwrap(),
        &json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    assert_eq!(request.run(&world(), made.clone().into_value(), None).unwrap(), made);
}

/// CVE-2025-5187, CVE-2025-4563: one row a field.
#[test]
fn a_nodes_credential_writes_what_is_its_own() {
    let own = |spec: Value| json!({"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}}, "spec": spec});
    let update = Request { name: "n", ..Request::new(&NODE, Operation::Update).by_node() };
    let try_node = |change: fn(&mut Value)| {
        let mut new = own(json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
        let old = new.clone();
        change(&mut new);
        update.run(&world(), new, Some(old)).map(|_| ())
    };
    assert!(try_node(|n| n["status"] = json!({"phase": "x"})).is_ok());
    assert!(try_node(|n| n["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("z")).is_ok());
    assert!(try_node(|n| n["metadata"]["labels"]["example.com/x"] = json!("z")).is_ok());
    for change in [
        (|n: &mut Value| n["metadata"]["labels"]["node-restriction.kubernetes.io/x"] = json!("y")) as fn(&mut Value),
        |n| n["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = json!(""),
        |n| n["metadata"]["labels"]["x.k8s.io/y"] = json!(""),
        |n| n["spec"]["taints"] = json!([]),
        |n| n["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "gone", "uid": "1"}]),
        |n| n["spec"]["configSource"] = json!({}),
    ] {
        assert_eq!(try_node(change).unwrap_err().code, 403);
    }
    let other = Request { name: "m", ..Request::new(&NODE, Operation::Update).by_node() };
    let refused = other.run(&world(), json!({"metadata": {"name": "m"}}), Some(json!({}))).unwrap_err();
    assert!(refused.message.contains("node \"n\" is not allowed to modify node \"m\""));

    let lease = |namespace, name| Request { namespace, name, ..Request::new(&LEASE, Operation::Update).by_node() };
    let body = || json!({"metadata": {"name": "n"}});
    assert!(lease("kube-node-lease", "n").run(&world(), body(), Some(body())).is_ok());
    assert!(lease("kube-node-lease", "m").run(&world(), body(), Some(body())).is_err());
    assert!(lease("a", "n").run(&world(), body(), Some(body())).is_err());
}

#[test]
fn a_nodes_credential_reaches_its_own_pods() {
    let on = |node: &str| json!({"metadata": {"name": "x", "namespace": "a"}, "spec": {"nodeName": node}});
    let run = |subresource, operation, new: Value, old: Option<Value>| {
        Request { subresource, ..Request::new(&POD, operation).by_node() }.run(&world(), new, old).map(|_| ())
    };
    assert!(run("status", Operation::Update, on("n"), Some(on("n"))).is_ok());
    assert!(run("status", Operation::Update, on("n"), Some(on("m"))).is_err());
    assert!(run("", Operation::Delete, on("n"), Some(on("n"))).is_ok());
    assert!(run("", Operation::Delete, on("m"), Some(on("m"))).is_err());
    assert!(run("", Operation::Update, on("n"), Some(on("n"))).is_err());
    assert!(run("binding", Operation::Create, json!({"target": {"name": "n"}}), None).is_err());
    assert!(run("", Operation::Create, on("n"), None).unwrap_err().message.contains("can only create mirror pods"));

    let mirror = |spec: Value| {
        let mut pod = pod(spec);
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-1", "controller": true}]);
        run("", Operation::Create, pod, None)
    };
    assert_eq!(mirror(json!({"nodeName": "n"})), Ok(()));
    for spec in [
        json!({"nodeName": "m"}),
        json!({"nodeName": "n", "volumes": [{"secret": {"secretName": "s"}}]}),
        json!({"nodeName": "n", "volumes": [{"projected": {"sources": [{"configMap": {"name": "c"}}]}}]}),
        json!({"nodeName": "n", "containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}),
        json!({"nodeName": "n", "serviceAccountName": "default"}),
    ] {
        assert_eq!(mirror(spec.clone()).unwrap_err().code, 403, "{spec}");
    }
}

#[test]
fn a_node_gets_tokens_of_the_pods_that_it_runs() {
    let ask = |reference: Value| {
        let request =
            Request { subresource: "token", name: "default", ..Request::new(&SERVICE_ACCOUNT, Operation::Create) };
        request.by_node().run(&world(), json!({"spec": {"boundObjectRef": reference}}), None).map(|_| ())
    };
    let pod = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    assert_eq!(ask(pod("mine", "pod-1")), Ok(()));
    for refused in [pod("theirs", "pod-2"), pod("mine", "pod-9"), pod("mine", ""), pod("gone", "x"), Value::Null] {
        assert_eq!(ask(refused.clone()).unwrap_err().code, 403, "{refused}");
    }
    let objects = world();
    let audiences = |audiences: Value| {
        let request =
            Request { subresource: "token", name: "default", ..Request::new(&SERVICE_ACCOUNT, Operation::Create) };
        let body = json!({"spec": {"boundObjectRef": pod("mine", "pod-1"), "audiences": audiences}});
        let refused = request.by_node().run(&objects, body, None).err().map(|status| status.message);
        refused.map(|message| message.rsplit_once(": ").unwrap().1.to_owned())
    };
    assert_eq!(audiences(json!(["vault"])), None);
    assert_eq!(audiences(json!(["bank"])), Some("audience \"bank\" not found in pod spec volume".to_owned()));
    let two = Some("node may only request 0 or 1 audiences".to_owned());
    assert_eq!(audiences(json!(["vault", "bank"])), two);
    let rules =
        json!([{"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["bank"]}]);
    objects.put(role("banker", rules));
    objects.put(binding("a", "banker", "banker", json!({"kind": "Group", "name": "system:nodes"})));
    assert_eq!(audiences(json!(["bank"])), None, "what was granted for all pods");
}

#[test]
fn a_node_is_told_what_it_may_not() {
    let refused = |request: Request, new: Value, old: Option<Value>| {
        let message = request.by_node().run(&world(), new, old).unwrap_err().message;
        message.split_once(" is forbidden: ").unwrap().1.to_owned()
    };
    let node = |operation| Request { name: "n", ..Request::new(&NODE, operation) };
    let with = |labels: Value, spec: Value| json!({"metadata": {"name": "n", "labels": labels}, "spec": spec});
    let plain = || with(json!({}), json!({}));
    let restricted = || with(json!({"x.k8s.io/y": "", "node-restriction.kubernetes.io/a": ""}), json!({}));
    let pod = |subresource, operation| Request { subresource, ..Request::new(&POD, operation) };
    let on_n = || json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n"}});
    let claim = |subresource| Request { subresource, ..Request::new(&PERSISTENT_VOLUME_CLAIM, Operation::Update) };
    for (told, wanted) in [
        (
            refused(node(Operation::Create), restricted(), None),
            "node \"n\" is not allowed to set the following labels: node-restriction.kubernetes.io/a, x.k8s.io/y",
        ),
        (
            refused(node(Operation::Update), restricted(), Some(plain())),
            "is not allowed to modify labels: node-restriction.kubernetes.io/a, x.k8s.io/y",
        ),
        (
            refused(node(Operation::Create), with(json!({}), json!({"configSource": {}})), None),
            "node \"n\" is not allowed to create pods with a non-nil configSource",
        ),
        (
            refused(node(Operation::Update), with(json!({}), json!({"configSource": {}})), Some(plain())),
            "node \"n\" is not allowed to update configSource to a new non-nil configSource",
        ),
        (
            refused(pod("binding", Operation::Create), json!({}), None),
            "unexpected pod subresource \"binding\", only 'status' and 'eviction' are allowed",
        ),
        (
            refused(pod("", Operation::Update), on_n(), Some(on_n())),
            "unexpected operation \"UPDATE\", node \"n\" can only create and delete mirror pods",
        ),
        (refused(claim(""), json!({}), Some(json!({}))), "may only update PVC status"),
    ] {
        assert_eq!(told, wanted);
    }
    let dropped = with(json!({}), json!({"configSource": {}}));
    assert!(node(Operation::Update).by_node().run(&world(), plain(), Some(dropped)).is_ok());
    assert!(claim("status").by_node().run(&world(), json!({}), Some(json!({}))).is_ok());
}

#[test]
fn a_member_of_the_nodes_that_is_no_node_writes_nothing_of_theirs() {
    let identity = Identity::new("somebody", ["system:nodes"]);
    let request = Request { identity, ..Request::new(&POD, Operation::Create) };
    assert_eq!(request.run(&world(), pod(json!({})), None).unwrap_err().code, 403);
}

#[test]
fn claims_get_the_default_class_and_protection() {
    let class = |name: &str, created: &str| {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        json!({"kind": "StorageClass", "metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}})
    };
    let objects = Objects::of([namespace_a(), class("old", "1"), class("new", "2")]);
    let run = |resource, spec: Value| {
        let value = json!({"metadata": {"name": "x"}, "spec": spec});
        Request::new(resource, Operation::Create).run(&objects, value, None).unwrap()
    };
    let claim = run(&PERSISTENT_VOLUME_CLAIM, json!({}));
    assert_eq!(claim.str_at("/spec/storageClassName"), "new");
    assert_eq!(claim.str_at("/metadata/finalizers/0"), "kubernetes.io/pvc-protection");
    let none = run(&PERSISTENT_VOLUME_CLAIM, json!({"storageClassName": ""}));
    assert_eq!(none.get("/spec/storageClassName"), Some(&json!("")), "who wants no class gets none");
    assert_eq!(run(&PERSISTENT_VOLUME, json!({})).str_at("/metadata/finalizers/0"), "kubernetes.io/pv-protection");
}

#[test]
fn only_bound_claims_of_a_class_that_allows_it_grow() {
    let class = |name: &str, grows: bool| json!({"kind": "StorageClass", "metadata": {"name": name}, "allowVolumeExpansion": grows});
    let objects = Objects::of([namespace_a(), class("fixed", false), class("elastic", true)]);
    let claim = |class: &str, phase: &str, size: &str| {
        json!({"metadata": {"name": "x"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
    };
    for (class, phase, size, why) in [
        ("elastic", "Bound", "2Gi", ""),
        ("fixed", "Bound", "1Gi", ""),
        ("elastic", "Pending", "2Gi", "Only bound persistent volume claims can be expanded"),
        ("fixed", "Bound", "2Gi", "only dynamically provisioned pvc can be resized"),
        ("gone", "Bound", "2Gi", "only dynamically provisioned pvc can be resized"),
    ] {
        let request = Request::new(&PERSISTENT_VOLUME_CLAIM, Operation::Update);
        let done = request.run(&objects, claim(class, phase, size), Some(claim(class, phase, "1Gi")));
        let refused = done.err().map_or(String::new(), |status| status.message);
        assert!(refused.contains(why) && refused.is_empty() == why.is_empty(), "{class} {phase} {size}: {refused}");
    }
}

#[test]
fn a_limit_range_bounds_what_claims_ask_for() {
    let limits = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}]);
    let range = json!({"kind": "LimitRange", "metadata": {"name": "r", "namespace": "a"}, "spec": {"limits": limits}});
    let objects = Objects::of([namespace_a(), range]);
    for (size, why) in [
        ("1Gi", ""),
        ("5Gi", ""),
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("6Gi", "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"),
    ] {
        let claim = json!({"metadata": {"name": "x"}, "spec": {"resources": {"requests": {"storage": size}}}});
        let done = Request::new(&PERSISTENT_VOLUME_CLAIM, Operation::Create).run(&objects, claim, None);
        let refused = done.err().map_or(String::new(), |status| status.message);
        assert!(refused.ends_with(why) && refused.is_empty() == why.is_empty(), "{size}: {refused}");
    }
}

#[test]
fn a_node_lets_go_of_its_own_volumes_and_changes_nothing_else() {
    let volume = |node: &str, deleting: bool, finalizers: Value| {
        let mut value = json!({"metadata": {"name": "x", "labels": {"gantry.dev/node": node}, "finalizers": finalizers},
            "spec": {"persistentVolumeReclaimPolicy": "Retain"}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("t");
        }
        value
    };
    let run = |new: Value, old: Value| {
        Request::new(&PERSISTENT_VOLUME, Operation::Update).by_node().run(&world(), new, Some(old)).map(drop)
    };
    let (own, both) = (json!(["gantry.dev/local-path"]), json!(["x/y", "gantry.dev/local-path"]));
    assert_eq!(run(volume("n", true, json!([])), volume("n", true, own.clone())), Ok(()));
    assert_eq!(run(volume("n", true, json!(["x/y"])), volume("n", true, both.clone())), Ok(()));
    let mut greedy = volume("n", true, json!([]));
    greedy["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
    for (new, old) in [
        (volume("m", true, json!([])), volume("m", true, own.clone())),
        (volume("n", false, json!([])), volume("n", false, own.clone())),
        (volume("n", true, json!([])), volume("n", true, both)),
        (volume("m", true, json!([])), volume("n", true, own.clone())),
        (greedy, volume("n", true, own)),
    ] {
        assert_eq!(run(new.clone(), old).unwrap_err().code, 403, "{new}");
    }
}
