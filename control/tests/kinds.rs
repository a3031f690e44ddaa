//! Kinds beyond those that controllers work on, against a running control service: what the server says of them itself, what
//! is written apart, and what it does not take.

#[path = "security/house.rs"]
mod house;

use gantry_client::{Client, ClientError, Patch, Query};
use gantry_control::auth::Identity;
use gantry_kube::resource::*;
use gantry_kube::{Object, Ref, Resource, Status};
use serde_json::{Value, json};

use house::House;

fn object(resource: &Resource, value: Value) -> Object {
    let mut object = Object::from_value(value).unwrap();
    object.0.insert("apiVersion".to_owned(), json!(resource.api_version()));
    object.0.insert("kind".to_owned(), json!(resource.kind));
    object
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Status {
    answer.unwrap_err().status().unwrap().clone()
}

async fn started() -> (House, Client) {
    let house = House::start().await;
    let admin = house.client(Identity::new("root", ["system:masters"]));
    (house, admin)
}

fn newer_event() -> &'static Resource {
    Resource::by_kind("events.k8s.io", "v1", "Event").unwrap()
}

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let (house, admin) = started().await;
    let involved = json!({"kind": "Pod", "name": "p", "namespace": "default"});
    let body = json!({"metadata": {"name": "old", "namespace": "default"}, "involvedObject": involved, "message": "m", "count": 2});
    admin.create(&EVENT, &object(&EVENT, body)).await.unwrap();
    let read = admin.get(newer_event(), &Ref::new("default", "old")).await.unwrap();
    assert_eq!((read.str_at("/note"), read.i64_at("/deprecatedCount")), ("m", Some(2)));
    assert_eq!((read.api_version(), read.str_at("/regarding/name")), ("events.k8s.io/v1", "p"));

    let mut strict = json!({"metadata": {"name": "new", "namespace": "default"}, "regarding": {"kind": "Pod", "name": "q", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "a", "reason": "r", "type": "Normal", "note": "n"});
    admin.create(newer_event(), &object(newer_event(), strict.clone())).await.unwrap();
    let read = admin.get(&EVENT, &Ref::new("default", "new")).await.unwrap();
    assert_eq!((read.str_at("/message"), read.str_at("/reportingComponent")), ("n", "example.com/c"));
    strict["metadata"]["name"] = json!("bad");
    strict["deprecatedCount"] = json!(1);
    let status = refused(admin.create(newer_event(), &object(newer_event(), strict)).await);
    assert_eq!((status.code, status.details["causes"][0]["field"].as_str()), (422, Some("count")));
    let note = Patch::Merge(json!({"note": "other"}));
    assert_eq!(refused(admin.patch(newer_event(), &Ref::new("default", "new"), "", note).await).code, 422);

    for (resource, selector) in [(newer_event(), "regarding.name=q"), (&EVENT, "involvedObject.name=q")] {
        let query = Query { field_selector: selector.to_owned(), ..Query::default() };
        let found = admin.list(resource, Some("default"), &query).await.unwrap();
        let names: Vec<&str> = found.items.iter().map(Object::name).collect();
        assert_eq!((names, found.items[0].api_version()), (vec!["new"], resource.api_version().as_str()));
    }
    let query = Query { field_selector: "involvedObject.name=q".to_owned(), ..Query::default() };
    assert_eq!(refused(admin.list(newer_event(), Some("default"), &query).await).code, 400);
    drop(admin);
    house.control.stop().await;
}

#[tokio::test]
async fn a_certificate_is_asked_for_decided_on_and_issued() {
    let (house, admin) = started().await;
    let user = house.client(Identity::new("me", ["team"]));
    for (role, rule) in [
        (
            "ask",
            json!({"verbs": ["create"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"]}),
        ),
        (
            "decide",
            json!({"verbs": ["update"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"]}),
        ),
    ] {
        let body = json!({"metadata": {"name": role}, "rules": [rule]});
        admin.create(&CLUSTER_ROLE, &object(&CLUSTER_ROLE, body)).await.unwrap();
        let binding = json!({"metadata": {"name": role}, "roleRef": {"apiGroup": ROLE.group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": ROLE.group, "kind": "User", "name": "me"}]});
        admin.create(&CLUSTER_ROLE_BINDING, &object(&CLUSTER_ROLE_BINDING, binding)).await.unwrap();
    }
    let kind = &CERTIFICATE_SIGNING_REQUEST;
    let (_, pem) = gantry_pki::authority::request("me", None).unwrap();
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let body = |request: &str| {
        object(
            kind,
            json!({"metadata": {"name": "r"}, "status": {"certificate": "YQ=="}, "spec": {"request": encode(request),
            "signerName": "example.com/a", "usages": ["client auth"], "username": "root", "groups": ["system:masters"]}}),
        )
    };
    let status = refused(user.create(kind, &body("nothing")).await);
    assert_eq!((status.code, status.details["causes"][0]["field"].as_str()), (422, Some("spec.request")));
    let made = user.create(kind, &body(&pem)).await.unwrap();
    assert_eq!(made.str_at("/spec/username"), "me");
    assert_eq!(made.get("/spec/groups"), Some(&json!(["team", "system:authenticated"])));
    assert_eq!(made.get("/status"), Some(&json!({})));

    let at = Ref::cluster("r");
    let mut decided = made.clone();
    let approved = json!([{"type": "Approved", "status": "True", "reason": "R", "message": "m"}]);
    decided.map_mut("status").insert("conditions".to_owned(), approved);
    decided.map_mut("spec").insert("username".to_owned(), json!("other"));
    let status = refused(user.put(kind, &at, "approval", &decided).await);
    assert!(status.code == 403 && status.message.contains("not permitted to approve"), "{status}");
    let status = refused(admin.update_status(kind, &decided).await);
    assert!(status.code == 422 && status.message.contains("updates may not add a condition"), "{status}");
    let decided = admin.put(kind, &at, "approval", &decided).await.unwrap();
    assert_eq!((decided.str_at("/spec/username"), decided.str_at("/status/conditions/0/type")), ("me", "Approved"));
    assert!(!decided.str_at("/status/conditions/0/lastUpdateTime").is_empty());

    let mut issued = decided.clone();
    issued.map_mut("status").insert("certificate".to_owned(), json!(encode("nothing")));
    assert_eq!(refused(admin.update_status(kind, &issued).await).details["causes"][0]["field"], "status.certificate");
    let authority = gantry_pki::Authority::create("ca", &house.env).unwrap();
    issued.map_mut("status").insert("certificate".to_owned(), json!(encode(authority.certificate_pem())));
    let issued = admin.update_status(kind, &issued).await.unwrap();
    let rows = admin
        .raw("/apis/certificates.k8s.io/v1/certificatesigningrequests?fieldSelector=spec.signerName=example.com/a");
    let listed: Value = serde_json::from_slice(&rows.await.unwrap()).unwrap();
    assert_eq!(listed["items"][0]["status"]["certificate"], *issued.get("/status/certificate").unwrap());
    drop((user, admin));
    house.control.stop().await;
}

#[tokio::test]
async fn what_would_have_no_effect_is_not_kept() {
    let (house, admin) = started().await;
    let hook = json!({"metadata": {"name": "h"}, "webhooks": []});
    let policy = json!({"metadata": {"name": "p"}, "spec": {}});
    let service = json!({"namespace": "default", "name": "s"});
    let api = |service: Value| {
        json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1", "service": service,
            "groupPriorityMinimum": 1, "versionPriority": 1, "insecureSkipTLSVerify": !service.is_null()}})
    };
    for (resource, body, why) in [
        (&VALIDATING_WEBHOOK_CONFIGURATION, hook.clone(), "admission webhooks are not called"),
        (&MUTATING_WEBHOOK_CONFIGURATION, hook, "admission webhooks are not called"),
        (&VALIDATING_ADMISSION_POLICY, policy.clone(), "admission policies are not enforced"),
        (&VALIDATING_ADMISSION_POLICY_BINDING, policy.clone(), "admission policies are not enforced"),
        (&MUTATING_ADMISSION_POLICY, policy.clone(), "admission policies are not enforced"),
        (&MUTATING_ADMISSION_POLICY_BINDING, policy, "admission policies are not enforced"),
        (&API_SERVICE, api(service.clone()), "requests are not passed on"),
    ] {
        let status = refused(admin.create(resource, &object(resource, body)).await);
        assert_eq!((status.code, status.reason.as_str()), (501, "NotImplemented"), "{}", resource.kind);
        assert!(status.message.contains(why) && status.message.contains(&resource.qualified()), "{status}");
        assert_eq!(admin.list(resource, None, &Query::default()).await.unwrap().items.len(), 0);
    }
    let local = admin.create(&API_SERVICE, &object(&API_SERVICE, api(Value::Null))).await.unwrap();
    assert_eq!(
        (local.str_at("/status/conditions/0/type"), local.str_at("/status/conditions/0/reason")),
        ("Available", "Local")
    );
    let moved = Patch::Merge(json!({"spec": {"service": service}}));
    assert_eq!(refused(admin.patch(&API_SERVICE, &Ref::cluster("v1.example.com"), "", moved).await).code, 501);
    drop(admin);
    house.control.stop().await;
}

#[tokio::test]
async fn components_are_told_of_and_not_written() {
    let (house, admin) = started().await;
    let read = |path: &'static str| {
        let admin = admin.clone();
        async move { serde_json::from_slice::<Value>(&admin.raw(path).await.unwrap()).unwrap() }
    };
    let list = read("/api/v1/componentstatuses").await;
    assert_eq!(list["kind"], "ComponentStatusList");
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["controller-manager", "etcd-0", "scheduler"]);
    assert_eq!(
        read("/api/v1/componentstatuses?fieldSelector=metadata.name=etcd-0").await["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(read("/api/v1/componentstatuses/scheduler").await["conditions"][0]["status"], "True");
    assert_eq!(refused(admin.get(&COMPONENT_STATUS, &Ref::cluster("other")).await).code, 404);
    let made = object(&COMPONENT_STATUS, json!({"metadata": {"name": "a"}}));
    assert_eq!(refused(admin.create(&COMPONENT_STATUS, &made).await).code, 405);
    drop(admin);
    house.control.stop().await;
}

#[tokio::test]
async fn statuses_are_written_apart() {
    let (house, admin) = started().await;
    let spec = json!({"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    let body = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"attached": true}});
    let made = admin.create(&VOLUME_ATTACHMENT, &object(&VOLUME_ATTACHMENT, body)).await.unwrap();
    assert_eq!(made.bool_at("/status/attached"), Some(false));
    let mut attached = made.clone();
    attached.map_mut("status").insert("attached".to_owned(), json!(true));
    assert_eq!(admin.update(&VOLUME_ATTACHMENT, &attached).await.unwrap().bool_at("/status/attached"), Some(false));
    assert_eq!(
        admin.update_status(&VOLUME_ATTACHMENT, &attached).await.unwrap().bool_at("/status/attached"),
        Some(true)
    );

    let level = admin.get(&PRIORITY_LEVEL_CONFIGURATION, &Ref::cluster("exempt")).await.unwrap();
    let changed = Patch::Merge(json!({"spec": {"exempt": {"nominalConcurrencyShares": 3}}}));
    let changed = admin.patch(&PRIORITY_LEVEL_CONFIGURATION, &level.reference(), "", changed).await.unwrap();
    assert_eq!((level.generation(), changed.generation()), (1, 2));
    let range = admin.get(&SERVICE_CIDR, &Ref::cluster("kubernetes")).await.unwrap();
    assert_eq!(range.get("/spec/cidrs"), Some(&json!(["10.96.0.0/16"])));
    drop(admin);
    house.control.stop().await;
}
