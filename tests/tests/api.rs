//! The API as its users see it: the control service alone, in a folder of its own, on real TLS, driven by the stock
//! kubectl and by raw HTTP. Every bad input that is the API's to refuse is here.

use gantry_control::auth::Identity;
use gantry_env::Env;
use gantry_tests::api::Api;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_creates_applies_edits_patches_and_deletes() {
    let api = Api::start().await;
    api.kubectl(&["create", "namespace", "demo"]).await.unwrap();
    api.kubectl(&["-n", "demo", "create", "configmap", "a", "--from-literal=x=1"]).await.unwrap();
    let file = api.file(
        "cm.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: demo}\ndata: {k: v, gone: x}\n",
    );
    assert!(api.kubectl(&["apply", "-f", &file]).await.unwrap().contains("created"));
    let file =
        api.file("cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: demo}\ndata: {k: w}\n");
    assert!(api.kubectl(&["apply", "-f", &file]).await.unwrap().contains("configured"));
    assert!(api.kubectl(&["apply", "-f", &file]).await.unwrap().contains("unchanged"));
    let data = || api.kubectl(&["-n", "demo", "get", "cm", "b", "-o", "jsonpath={.data}"]);
    assert_eq!(data().await.unwrap(), r#"{"k":"w"}"#);
    let patch = |kind: &'static str, patch: &'static str| {
        api.kubectl_owned(["-n", "demo", "patch", "cm", "b", kind, "-p", patch].map(str::to_owned).to_vec())
    };
    patch("--type=merge", r#"{"data":{"m":"1"}}"#).await.unwrap();
    patch("--type=json", r#"[{"op":"replace","path":"/data/m","value":"2"}]"#).await.unwrap();
    patch("--type=strategic", r#"{"data":{"k":null}}"#).await.unwrap();
    assert_eq!(data().await.unwrap(), r#"{"m":"2"}"#);
    let table = api.kubectl(&["-n", "demo", "get", "cm"]).await.unwrap();
    assert!(table.starts_with("NAME") && table.contains("DATA") && table.contains("AGE"), "{table}");
    api.kubectl(&["-n", "demo", "delete", "cm", "b"]).await.unwrap();
    let gone = api.kubectl(&["-n", "demo", "get", "cm", "b"]).await.unwrap_err();
    assert!(gone.contains(r#"configmaps "b" not found"#), "{gone}");
    api.kubectl(&["delete", "namespace", "demo", "--timeout=20s"]).await.unwrap();
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_are_refused_by_name() {
    let api = Api::start().await;
    let refuse = async |body: &str, content_type: &str, code: u16, words: &str| {
        let answer = api.post_text(CONFIG_MAPS, body, content_type).await;
        assert_eq!(answer.code, code, "{body:.80}: {}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap().contains(words), "{body:.80}: {}", answer.text());
    };
    let json_type = "application/json";
    refuse(r#"{"metadata":{"name":"x""#, json_type, 400, "not valid JSON").await;
    refuse("[]", json_type, 400, "an array").await;
    refuse("metadata: [", "application/yaml", 400, "unrecognized").await;
    refuse("x", "text/plain", 415, "application/json, application/yaml, application/vnd.kubernetes.protobuf").await;
    refuse("nope", "application/vnd.kubernetes.protobuf", 400, "").await;
    refuse(r#"{"kind":"Pod","metadata":{"name":"x"}}"#, json_type, 400, "Pod").await;
    refuse(r#"{"apiVersion":"v2","metadata":{"name":"x"}}"#, json_type, 400, "v2").await;
    refuse(r#"{"metadata":{"name":"x"},"data":{"a":1}}"#, json_type, 400, "data").await;
    refuse(r#"{"metadata":{"name":"Bad_Name"}}"#, json_type, 422, "RFC 1123").await;
    refuse(r#"{"metadata":{}}"#, json_type, 422, "name or generateName is required").await;
    refuse(r#"{"metadata":{"name":"x","labels":{"-":"y"}}}"#, json_type, 422, "metadata.labels").await;
    refuse(r#"{"metadata":{"name":"x","namespace":"other"}}"#, json_type, 400, "namespace").await;
    refuse(r#"{"metadata":{"name":"x","resourceVersion":"1"}}"#, json_type, 400, "resourceVersion").await;
    let deep = format!("{}{}", r#"{"a":"#.repeat(500), "}".repeat(500));
    refuse(&deep, json_type, 400, "").await;
    refuse(&"x".repeat(4 << 20), json_type, 413, "too large").await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_duplicate_fields_follow_the_validation_that_is_asked_for() {
    let api = Api::start().await;
    let body = r#"{"metadata":{"name":"x"},"shiny":1,"data":{"a":"1","a":"2"}}"#;
    let strict = api.post_text(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), body, "application/json").await;
    assert_eq!(strict.code, 400);
    let words = strict.text();
    assert!(words.contains("unknown field") && words.contains("duplicate field"), "{words}");
    let warn = api.post_text(&format!("{CONFIG_MAPS}?dryRun=All"), body, "application/json").await;
    assert_eq!((warn.code, warn.warnings.len()), (201, 2), "{:?}", warn.warnings);
    let ignore =
        api.post_text(&format!("{CONFIG_MAPS}?fieldValidation=Ignore&dryRun=All"), body, "application/json").await;
    assert_eq!((ignore.code, ignore.warnings.len()), (201, 0));
    // A dry run writes nothing.
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/x")).await.code, 404);
    let odd = api.post_text(&format!("{CONFIG_MAPS}?fieldValidation=Odd"), body, "application/json").await;
    assert_eq!(odd.code, 422);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_writes_conflict_and_preconditions_hold() {
    let api = Api::start().await;
    let made = api.post(CONFIG_MAPS, &config_map("x")).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let mut stale = made.json();
    let path = format!("{CONFIG_MAPS}/x");
    let mut fresh = made.json();
    fresh["data"]["k"] = json!("w");
    assert_eq!(api.put(&path, &fresh).await.code, 200);
    stale["data"]["k"] = json!("z");
    let conflict = api.put(&path, &stale).await;
    assert_eq!((conflict.code, conflict.json()["reason"].as_str()), (409, Some("Conflict")));
    stale["metadata"]["resourceVersion"] = json!("");
    stale["metadata"]["uid"] = json!("another");
    assert_eq!(api.put(&path, &stale).await.code, 409);
    let other = json!({"preconditions": {"uid": "another"}});
    assert_eq!(api.delete(&path, &other).await.code, 409);
    assert_eq!(api.delete(&path, &json!({"dryRun": ["All"]})).await.code, 200);
    assert_eq!(api.get(&path).await.code, 200);
    assert_eq!(api.delete(&path, &json!({"preconditions": {"uid": made.json()["metadata"]["uid"]}})).await.code, 200);
    assert_eq!(api.get(&path).await.code, 404);
    assert_eq!(api.post(CONFIG_MAPS, &config_map("y")).await.code, 201);
    assert_eq!(api.post(CONFIG_MAPS, &config_map("y")).await.json()["reason"], "AlreadyExists");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_honoured_is_refused() {
    let api = Api::start().await;
    // A restart knows no more than what is kept.
    assert_eq!(api.post(CONFIG_MAPS, &config_map("x")).await.code, 201);
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/x"), &json!({})).await.code, 200);
    api.compact().await;
    let api = api.restart().await;
    for (path, code, words) in [
        ("/api/v1/pods?shiny=1", 200, "PodList"),
        ("/api/v1/pods?fieldSelector=spec.shiny%3D1", 400, "field label not supported: spec.shiny"),
        ("/api/v1/pods?labelSelector=a%20b%20c", 400, ""),
        ("/api/v1/pods?continue=zzz", 400, "continue"),
        ("/api/v1/pods?resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
        ("/api/v1/pods?watch=1&resourceVersion=1", 200, r#"{"type":"ERROR","object":{"#),
        ("/api/v1/pods?watch=1&sendInitialEvents=true", 422, "NotOlderThan"),
        ("/api/v1/namespaces/default/nodes", 404, "could not find"),
        ("/apis/shiny/v1/things", 404, "could not find"),
        ("/api/v1/namespaces/default/pods/x/proxy", 404, "not found"),
        ("/nothing", 404, "could not find"),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    assert_eq!(api.get_as("/api/v1/pods", "text/html").await.code, 406);
    assert_eq!(api.post("/api/v1/pods", &json!({})).await.code, 405);
    let apply = api.send("PATCH", &format!("{CONFIG_MAPS}/x"), "{}", "application/apply-patch+cbor").await;
    assert_eq!(apply.code, 415);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_makes_an_identity() {
    let api = Api::start().await;
    for (name, value) in [
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("Impersonate-User", "admin"),
        ("Authorization", "Bearer forged"),
        ("Authorization", "Basic YWRtaW46YWRtaW4="),
        ("X-Forwarded-User", "admin"),
        ("Identity", "admin"),
    ] {
        assert_eq!(api.anonymous("/api/v1/pods", Some((name, value))).await.code, 401, "{name}: {value}");
    }
    assert_eq!(api.anonymous("/livez", None).await.code, 200);
    assert_eq!(api.anonymous("/version", None).await.code, 401);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_and_watches_follow_them() {
    let api = Api::start().await;
    let collection = "/api/v1/namespaces/kube-public/configmaps";
    for i in 0..5 {
        assert_eq!(api.post(collection, &config_map(&format!("c{i}"))).await.code, 201);
    }
    let mut names = Vec::new();
    let mut token = String::new();
    let revision = loop {
        let page = api.get(&format!("{collection}?limit=2&continue={token}")).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()));
        // A write between two pages is not seen by the later ones.
        api.post(collection, &config_map(&format!("z{}", names.len()))).await;
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break page["metadata"]["resourceVersion"].as_str().unwrap().to_owned(),
        }
    };
    assert_eq!(names.iter().filter(|n| n.as_str().unwrap().starts_with('c')).count(), 5);
    assert!(!names.iter().any(|n| n.as_str().unwrap().starts_with('z')), "{names:?}");
    let watch = api.get(&format!("{collection}?watch=1&resourceVersion={revision}&timeoutSeconds=1")).await;
    let seen: Vec<Value> = watch.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(seen.len() >= 3 && seen.iter().all(|e| e["type"] == "ADDED"), "{seen:?}");
    let streamed = api
        .get(&format!(
            "{collection}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
        ))
        .await;
    let last: Value = serde_json::from_str(streamed.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(last["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_owns_its_address_and_ports_until_it_goes() {
    let api = Api::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80}, {"port": 81, "name": "b"}]);
    let first = api
        .post(
            services,
            &service("a", json!({"type": "NodePort", "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]})),
        )
        .await;
    assert_eq!(first.code, 201, "{} {ports}", first.text());
    let (ip, port) = (first.json()["spec"]["clusterIP"].clone(), first.json()["spec"]["ports"][0]["nodePort"].clone());
    assert_ne!(port, first.json()["spec"]["ports"][1]["nodePort"]);
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", ip.as_str().unwrap());
    assert_eq!(api.get(&address).await.json()["spec"]["parentRef"]["name"], "a");
    let taken = service("b", json!({"clusterIP": ip, "ports": [{"port": 80}]}));
    assert_eq!(api.post(services, &taken).await.code, 422);
    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    assert_eq!(api.post(services, &taken).await.code, 422);
    let outside = service("b", json!({"clusterIP": "192.0.2.1", "ports": [{"port": 80}]}));
    assert_eq!(api.post(services, &outside).await.code, 422);
    assert_eq!(api.delete(&format!("{services}/a"), &json!({})).await.code, 200);
    assert_eq!(api.get(&address).await.code, 404);
    assert_eq!(api.post(services, &taken).await.code, 201);
    let headless = service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    assert_eq!(api.post(services, &headless).await.json()["spec"]["clusterIPs"], json!(["None"]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_bound_once_and_its_steps_are_kept() {
    let api = Api::start_without_loops().await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = api.post(pods, &pod).await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.json()["status"]["phase"], "Pending");
    let binding = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(api.post(&format!("{pods}/p/binding"), &binding("n1")).await.code, 201);
    assert_eq!(api.post(&format!("{pods}/p/binding"), &binding("n2")).await.code, 409);
    assert_eq!(api.get(&format!("{pods}/p")).await.json()["spec"]["nodeName"], "n1");
    let uid = made.json()["metadata"]["uid"].as_str().unwrap().to_owned();
    let trace = api.get(&format!("/debug/gantry/trace/{uid}")).await.json();
    let steps: Vec<u64> = trace["steps"].as_array().unwrap().iter().filter_map(|s| s["step"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 6]);
    // A pod on a node stays for its grace; asked again with none, it goes.
    let leaving = api.delete(&format!("{pods}/p"), &json!({})).await.json();
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(api.get(&format!("{pods}/p")).await.code, 200);
    assert_eq!(api.delete(&format!("{pods}/p"), &json!({"gracePeriodSeconds": 0})).await.code, 200);
    assert_eq!(api.get(&format!("{pods}/p")).await.code, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_restart() {
    let api = Api::start().await;
    for i in 0..20 {
        assert_eq!(api.post(CONFIG_MAPS, &config_map(&format!("c{i}"))).await.code, 201);
    }
    let before = api.get(&format!("{CONFIG_MAPS}/c7")).await.json();
    let api = api.restart().await;
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/c7")).await.json(), before);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_is_a_number() {
    let api = Api::start_without_loops().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = api
        .post(
            deployments,
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
                "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        )
        .await;
    assert_eq!(made.code, 201, "{}", made.text());
    let scale = format!("{deployments}/d/scale");
    let merge = "application/merge-patch+json";
    let words = api.send("PATCH", &scale, r#"{"spec":{"replicas":"3"}}"#, merge).await;
    assert_eq!(words.code, 400, "{}", words.text());
    assert_eq!(api.get(&scale).await.json()["spec"]["replicas"], 2);
    assert_eq!(api.send("PATCH", &scale, r#"{"spec":{"replicas":3}}"#, merge).await.code, 200);
    assert_eq!(api.get(&scale).await.json()["spec"]["replicas"], 3);
    // A name that fits no record is refused, whatever characters it has.
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r".repeat(70_000)}});
    let long = api.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &role).await;
    assert_eq!(long.code, 422, "{}", long.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_forgotten_can_go_on_with_what_is_there_now() {
    let api = Api::start_without_loops().await;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(api.post(CONFIG_MAPS, &config_map(name)).await.code, 201);
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/c"), &json!({})).await.code, 200);
    assert_eq!(api.post(CONFIG_MAPS, &config_map("e")).await.code, 201);
    api.compact().await;
    let expired = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.code, expired.json()["reason"].as_str()), (410, Some("Expired")), "{}", expired.text());
    let status = expired.json();
    let inconsistent = status["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={inconsistent}")).await.json();
    assert_eq!(
        (rest["items"][0]["metadata"]["name"].as_str(), rest["items"].as_array().unwrap().len()),
        (Some("d"), 1)
    );
    let token = rest["metadata"]["continue"].as_str().unwrap();
    let last = api.get(&format!("{CONFIG_MAPS}?continue={token}")).await.json();
    assert_eq!(last["items"][0]["metadata"]["name"], "e");
    let exact = api.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!((exact.code, exact.json()["metadata"]["continue"].is_null()), (410, true), "{}", exact.text());
    // A token belongs to its own list.
    for other in ["/api/v1/namespaces/kube-system/configmaps", "/api/v1/namespaces/default/secrets"] {
        assert_eq!(api.get(&format!("{other}?limit=2&continue={token}")).await.code, 400, "{other}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_a_kind_that_holds_nothing_goes_on_through_a_restart() {
    let api = Api::start_without_loops().await;
    let secrets = "/api/v1/secrets";
    let revision = api.get(secrets).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!(api.post(CONFIG_MAPS, &config_map("x")).await.code, 201);
    let api = api.restart().await;
    let watch = api.get(&format!("{secrets}?watch=1&resourceVersion={revision}&timeoutSeconds=1")).await;
    assert_eq!((watch.code, watch.text().as_str()), (200, ""));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_somebody_deletes_comes_back() {
    let api = Api::start_without_loops().await;
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let made = api.post("/api/v1/namespaces/default/services", &service).await.json();
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", made["spec"]["clusterIP"].as_str().unwrap());
    let before = api.get(&address).await.json();
    let watch = format!(
        "/apis/networking.k8s.io/v1/ipaddresses?watch=1&resourceVersion={}&timeoutSeconds=2",
        before["metadata"]["resourceVersion"].as_str().unwrap()
    );
    assert_eq!(api.delete(&address, &json!({})).await.code, 200);
    let seen = api.get(&watch).await.text();
    let seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seen.iter().map(|event| event["type"].clone()).collect::<Vec<_>>(), ["DELETED", "ADDED"]);
    assert_eq!(seen[1]["object"]["spec"], before["spec"]);
    assert_ne!(seen[1]["object"]["metadata"]["uid"], before["metadata"]["uid"]);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_made_at_once_share_no_port() {
    let api = std::sync::Arc::new(Api::start_without_loops().await);
    let mut posts = tokio::task::JoinSet::new();
    for i in 0..60 {
        let api = api.clone();
        posts.spawn(async move {
            let ports = json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]);
            let service = json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": ports}});
            api.post("/api/v1/namespaces/default/services", &service).await
        });
    }
    let mut ports = Vec::new();
    while let Some(made) = posts.join_next().await {
        let made = made.unwrap();
        assert_eq!(made.code, 201, "{}", made.text());
        ports.extend(made.json()["spec"]["ports"].as_array().unwrap().iter().map(|p| p["nodePort"].as_u64().unwrap()));
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 120);
    std::sync::Arc::into_inner(api).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_is_named() {
    let api = Api::start_without_loops().await;
    for path in ["pods/x/checkpoint", "services/x/scale"] {
        let answer = api.get(&format!("/api/v1/namespaces/default/{path}")).await;
        assert_eq!((answer.code, answer.json()["reason"].as_str()), (404, Some("NotFound")), "{path}");
        assert!(answer.json()["details"].is_object(), "kubectl debug looks into it");
        let name = path.replace("x/", "");
        assert!(answer.text().contains(&format!("{name} is not served")), "{}", answer.text());
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_sent_once() {
    let api = Api::start_without_loops().await;
    let root = api.get("/openapi/v3").await.json();
    let hashed = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let mut tags = std::collections::BTreeSet::new();
    for (path, accept) in [
        ("/openapi/v2", "application/json"),
        ("/openapi/v2", protobuf),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/api/v1", "application/json"),
        (hashed.as_str(), "application/json"),
        ("/apis", aggregated),
        ("/api", aggregated),
    ] {
        let first = api.get_as(path, accept).await;
        assert_eq!(first.code, 200, "{path}");
        let tag = first.headers["etag"].to_str().unwrap().to_owned();
        let second = api.get_with(path, &[("accept", accept), ("if-none-match", &tag)]).await;
        assert_eq!((second.code, second.body.len()), (304, 0), "{path}");
        assert_eq!(api.get_with(path, &[("accept", accept), ("if-none-match", "\"x\"")]).await.code, 200, "{path}");
        let kept = first.headers["cache-control"].to_str().unwrap().contains("immutable");
        assert_eq!(kept, path == hashed, "{path}");
        tags.insert(tag);
    }
    assert_eq!(tags.len(), 7);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletecollection_takes_what_the_list_would_answer() {
    let api = Api::start_without_loops().await;
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(api.post(CONFIG_MAPS, &config_map(name)).await.code, 201);
    }
    let delete = async |query: &str| api.delete(&format!("{CONFIG_MAPS}?{query}"), &json!({})).await;
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = delete("limit=2").await.json();
    assert_eq!(names(&first), ["a", "b"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = delete(&format!("limit=1&continue={token}")).await.json();
    assert_eq!(names(&second), ["c"]);
    assert_eq!(delete("fieldSelector=metadata.name%3Dd&dryRun=All").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(names(&api.get(CONFIG_MAPS).await.json()), ["d", "e"]);
    let revision = second["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(api.post(CONFIG_MAPS, &config_map("f")).await.code, 201);
    let before = delete(&format!("resourceVersion={revision}&resourceVersionMatch=Exact")).await.json();
    assert_eq!(names(&before), ["d", "e"], "as things stood then");
    assert_eq!(names(&delete("").await.json()), ["f"]);
    assert!(names(&api.get(CONFIG_MAPS).await.json()).is_empty());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_issues_no_token() {
    let api = Api::start_without_loops().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(api.post(accounts, &json!({"metadata": {"name": "a"}})).await.code, 201);
    let token = format!("{accounts}/a/token");
    let dry = api.post(&format!("{token}?dryRun=All"), &json!({"spec": {}})).await;
    assert_eq!((dry.code, dry.json()["status"]["token"].as_str()), (201, Some("")), "{}", dry.text());
    assert!(!api.post(&token, &json!({"spec": {}})).await.json()["status"]["token"].as_str().unwrap().is_empty());
    let other = api.post(&token, &json!({"metadata": {"name": "b"}, "spec": {}})).await;
    assert_eq!(other.code, 400, "{}", other.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_look_runs_nothing() {
    let api = Api::start_without_loops().await;
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/exec"]}]);
    let role = json!({"metadata": {"name": "looker"}, "rules": rules});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    assert_eq!(api.post(&format!("{rbac}/clusterroles"), &role).await.code, 201);
    let binding = json!({"metadata": {"name": "looker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looker"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "looker"}]});
    assert_eq!(api.post(&format!("{rbac}/clusterrolebindings"), &binding).await.code, 201);
    let looker = Identity::new("looker", None::<String>);
    let pod = "/api/v1/namespaces/default/pods/x";
    assert_eq!(api.get_by(looker.clone(), pod).await.code, 404);
    let refused = api.get_by(looker, &format!("{pod}/exec?command=true")).await;
    assert_eq!(refused.code, 403);
    assert!(refused.text().contains(r#"cannot create resource \"pods/exec\""#), "{}", refused.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_policy_is_that_of_kubernetes() {
    let api = Api::start_without_loops().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for path in [
        "clusterroles/system:node-bootstrapper",
        "clusterroles/system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "clusterrolebindings/system:volume-scheduler",
        "namespaces/kube-system/roles/extension-apiserver-authentication-reader",
        "namespaces/kube-system/rolebindings/system::extension-apiserver-authentication-reader",
        "namespaces/kube-system/rolebindings/system::leader-locking-kube-scheduler",
        "namespaces/kube-public/roles/system:controller:bootstrap-signer",
    ] {
        assert_eq!(api.get(&format!("{rbac}/{path}")).await.code, 200, "{path}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_a_sum_says_what_it_grants() {
    let api = Api::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let added = json!({"metadata": {"name": "x", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["shiny.example.com"], "resources": ["things"]}]});
    assert_eq!(api.post(roles, &added).await.code, 201);
    let grants = async |name: &str| {
        let described = api.kubectl(&["describe", "clusterrole", name]).await.unwrap();
        described.contains("things.shiny.example.com") && described.contains("pods/log")
    };
    for name in ["view", "edit", "admin"] {
        while !grants(name).await {
            tokio::task::yield_now().await;
        }
    }
    api.stop().await;
}

/// kubectl asks for compressed answers, the other client for plain ones.
/// One that is over goes by itself, by whatever tool it was made; one that names no end stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_goes_when_its_time_is_over() {
    let api = Api::start().await;
    let make = async |name: &str, expiration: &str| {
        let (kind, expiration) = ("--type=bootstrap.kubernetes.io/token", format!("--from-literal={expiration}"));
        let make = ["-n", "kube-system", "create", "secret", "generic", name, kind, &expiration];
        api.kubectl(&make).await.unwrap();
    };
    // In whole seconds, as it is written.
    let end = jiff::Timestamp::from_second(Env::system().clock.now().as_second() + 3).unwrap();
    make("bootstrap-token-abcdef", &format!("expiration={}", gantry_env::format_seconds(end))).await;
    make("bootstrap-token-ghijkl", "token-id=ghijkl").await;
    let gone = ["-n", "kube-system", "wait", "--for=delete", "secret/bootstrap-token-abcdef", "--timeout=30s"];
    api.kubectl(&gone).await.unwrap();
    assert!(Env::system().clock.now() >= end, "it went before its time");
    api.kubectl(&["-n", "kube-system", "get", "secret", "bootstrap-token-ghijkl"]).await.unwrap();
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_comes_whole() {
    let api = Api::start_without_loops().await;
    for i in 0..40 {
        let large = json!({"metadata": {"name": format!("c{i:02}")}, "data": {"k": "v".repeat(20_000)}});
        assert_eq!(api.post(CONFIG_MAPS, &large).await.code, 201);
    }
    let names: Vec<String> = (0..40).map(|i| format!("c{i:02}")).collect();
    let list = api.get(CONFIG_MAPS).await.json();
    let found = list["items"].as_array().unwrap();
    assert!(found.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).eq(names.iter()));
    assert!(found.iter().all(|item| item["data"]["k"].as_str().unwrap().len() == 20_000));
    let printed = api.kubectl(&["get", "cm", "-o", "jsonpath={.items[*].metadata.name}"]).await.unwrap();
    assert_eq!(printed, names.join(" "));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_kept_by_those_who_come_at_once() {
    const WANTED: usize = 20;
    let api = Api::start_without_loops().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    // Two of them: each is charged for each object.
    for (name, most) in [("a", "7"), ("b", "9")] {
        let hard = json!({"count/configmaps": most, "configmaps": "50"});
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
        assert_eq!(api.post(quotas, &quota).await.code, 201);
    }
    let used = async |name: &str| {
        let path = format!("{quotas}/{name}");
        api.get(&path).await.json()["status"]["used"]["count/configmaps"].as_str().unwrap_or("").to_owned()
    };
    let fill = async |round: usize| {
        let made = futures::future::join_all((0..WANTED).map(async |n| {
            let answer = api.post(CONFIG_MAPS, &config_map(&format!("r{round}-{n}"))).await;
            if answer.code == 403 {
                let words = "exceeded quota: a, requested: count/configmaps=1, used: count/configmaps=7, limited: count/configmaps=7";
                assert!(answer.text().contains(words), "{}", answer.text());
            }
            (answer.code == 201).then_some(n)
        }));
        made.await.into_iter().flatten().collect::<Vec<usize>>()
    };
    let there = api.get(CONFIG_MAPS).await.json()["items"].as_array().map_or(0, Vec::len);
    let made = fill(0).await;
    assert_eq!(made.len() + there, 7);
    assert_eq!((used("a").await, used("b").await), ("7".to_owned(), "7".to_owned()));
    // A dry run is refused as well, and costs nothing where it is not.
    assert_eq!(api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("dry")).await.code, 403);
    for n in &made[..2] {
        assert_eq!(api.delete(&format!("{CONFIG_MAPS}/r0-{n}"), &json!({})).await.code, 200);
    }
    while used("a").await != "5" {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("dry")).await.code, 201);
    // What was not written after all is given back by the time of the answer.
    assert_eq!(api.post(CONFIG_MAPS, &config_map(&format!("r0-{}", made[2]))).await.code, 409);
    assert_eq!((used("a").await, used("b").await), ("5".to_owned(), "5".to_owned()));
    assert_eq!(fill(1).await.len(), 2);
    // Who asks for less finds what is over, and nothing more comes in.
    let less = json!({"spec": {"hard": {"count/configmaps": "3"}}});
    let path = format!("{quotas}/a");
    assert_eq!(api.send("PATCH", &path, &less.to_string(), "application/merge-patch+json").await.code, 200);
    let refused = api.post(CONFIG_MAPS, &config_map("late")).await;
    assert!(refused.text().contains("used: count/configmaps=7, limited: count/configmaps=3"), "{}", refused.text());
    api.stop().await;
}
