//! Server-side apply as its users have it: over raw HTTP, and by the stock kubectl, old and new.

use gantry_tests::api::{Answer, Api};
use gantry_tests::kubectl::Kubectl;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

async fn apply(api: &Api, path: &str, query: &str, body: &Value) -> Answer {
    api.send("PATCH", &format!("{path}?{query}"), &body.to_string(), APPLY).await
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let said = |e: &Value, name: &str| e[name].as_str().unwrap_or("").to_owned();
    entries
        .iter()
        .map(|e| format!("{} {} {}", said(e, "operation"), said(e, "manager"), said(e, "subresource")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_applies_owns_what_it_says() {
    let api = Api::start_without_loops().await;
    let at = format!("{CONFIG_MAPS}/a");
    let made = apply(&api, &at, "fieldManager=one", &config_map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(managers(&made.json()), ["Apply one "]);
    let version = |answer: &Answer| answer.json()["metadata"]["resourceVersion"].clone();
    let again = apply(&api, &at, "fieldManager=one", &config_map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((again.code, version(&again)), (200, version(&made)), "nothing has changed");
    let other = apply(&api, &at, "fieldManager=two", &config_map(json!({"y": "1", "z": "1"}))).await;
    assert_eq!(other.code, 200, "{}", other.text());
    let refused = apply(&api, &at, "fieldManager=two", &config_map(json!({"x": "2", "z": "1"}))).await;
    assert_eq!(refused.code, 409);
    assert_eq!(refused.json()["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.x");
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let dry = apply(&api, &at, "fieldManager=two&force=true&dryRun=All", &config_map(json!({"x": "2"}))).await;
    assert_eq!((dry.code, dry.json()["data"].clone()), (200, json!({"x": "2", "y": "1"})));
    assert_eq!(api.get(&at).await.json()["data"], json!({"x": "1", "y": "1", "z": "1"}));
    let forced = apply(&api, &at, "fieldManager=two&force=true", &config_map(json!({"x": "2"}))).await;
    assert_eq!((forced.code, forced.json()["data"].clone()), (200, json!({"x": "2", "y": "1"})));
    // What it had of `one` is gone from that one's.
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let left = apply(&api, &at, "fieldManager=one", &nothing).await;
    assert_eq!((left.code, left.json()["data"].clone()), (200, json!({"x": "2"})));
    assert_eq!(managers(&left.json()), ["Apply two "]);
    // YAML is what it is named for.
    let yaml = "apiVersion: v1\nkind: ConfigMap\ndata:\n  x: '2'\n  w: yes-it-is\n";
    let answer = api.send("PATCH", &format!("{at}?fieldManager=two"), yaml, APPLY).await;
    assert_eq!((answer.code, answer.json()["data"]["w"].clone()), (200, json!("yes-it-is")), "{}", answer.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_owned_item_by_item_and_defaults_by_nobody() {
    let api = Api::start_without_loops().await;
    let at = format!("{DEPLOYMENTS}/web");
    let deployment = |replicas: Value, containers: Value| {
        let mut spec = json!({"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}});
        if !replicas.is_null() {
            spec["replicas"] = replicas;
        }
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    };
    let main = json!({"name": "main", "image": "x:1", "ports": [{"containerPort": 80}]});
    let first = deployment(json!(2), json!([main]));
    let made = apply(&api, &at, "fieldManager=team", &first).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let again = apply(&api, &at, "fieldManager=team", &first).await;
    assert_eq!(again.json()["metadata"]["resourceVersion"], made.json()["metadata"]["resourceVersion"]);
    // Somebody scales it, through the subresource or not: who applies replicas meets a conflict, who does not, does not.
    let scale =
        api.send("PATCH", &format!("{at}/scale"), r#"{"spec":{"replicas":5}}"#, "application/merge-patch+json").await;
    assert_eq!(scale.code, 200, "{}", scale.text());
    let refused = apply(&api, &at, "fieldManager=team", &first).await;
    assert_eq!(refused.code, 409);
    assert!(refused.text().contains(".spec.replicas"), "{}", refused.text());
    let given_up = apply(&api, &at, "fieldManager=team", &deployment(Value::Null, json!([main]))).await;
    assert_eq!((given_up.code, given_up.json()["spec"]["replicas"].clone()), (200, json!(5)), "{}", given_up.text());
    // A sidecar of somebody else's stays.
    let sidecar = deployment(Value::Null, json!([{"name": "side", "image": "y:1"}]));
    let answer = apply(&api, &at, "fieldManager=mesh", &sidecar).await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    let changed = json!({"name": "main", "image": "x:2"});
    let answer = apply(&api, &at, "fieldManager=team", &deployment(Value::Null, json!([changed]))).await;
    let containers = answer.json()["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!((containers[0]["image"].clone(), containers[1]["image"].clone()), (json!("x:2"), json!("y:1")));
    assert_eq!(containers[0].get("ports"), None, "what is not said again goes");
    assert_eq!(containers[0]["imagePullPolicy"], "IfNotPresent", "what the server adds stays");
    // Its status is its subresource's.
    let status =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 3}});
    let answer = apply(&api, &format!("{at}/status"), "fieldManager=controller", &status).await;
    assert_eq!((answer.code, answer.json()["status"]["replicas"].clone()), (200, json!(3)), "{}", answer.text());
    assert!(managers(&answer.json()).contains(&"Apply controller status".to_owned()), "{}", answer.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_owned_through_the_scale_too() {
    let api = Api::start_without_loops().await;
    let at = format!("{DEPLOYMENTS}/web");
    let deployment = |replicas: Value| {
        let mut spec = json!({"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}});
        if !replicas.is_null() {
            spec["replicas"] = replicas;
        }
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    };
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let through = format!("{at}/scale");
    assert_eq!(apply(&api, &through, "fieldManager=hpa", &scale(3)).await.code, 404, "a scale alone makes nothing");
    assert_eq!(apply(&api, &at, "fieldManager=team", &deployment(json!(2))).await.code, 201);
    let refused = apply(&api, &through, "fieldManager=hpa", &scale(3)).await;
    assert_eq!(refused.code, 409);
    assert_eq!(refused.json()["message"], "Apply failed with 1 conflict: conflict with \"team\": .spec.replicas");
    let scaled = apply(&api, &through, "fieldManager=hpa&force=true", &scale(3)).await;
    assert_eq!((scaled.code, scaled.json()["kind"].clone()), (200, json!("Scale")), "{}", scaled.text());
    assert_eq!(scaled.json()["spec"]["replicas"], 3);
    assert_eq!(managers(&scaled.json()), ["Apply hpa scale"]);
    let object = api.get(&at).await.json();
    assert_eq!((object["spec"]["replicas"].clone(), object["metadata"]["generation"].clone()), (json!(3), json!(2)));
    assert_eq!(managers(&object), ["Apply hpa scale", "Apply team "]);
    // Who still says another number meets the one who scales; who says none leaves it to that one.
    let refused = apply(&api, &at, "fieldManager=team", &deployment(json!(2))).await;
    assert!(refused.code == 409 && refused.text().contains("with subresource"), "{}", refused.text());
    let left = apply(&api, &at, "fieldManager=team", &deployment(Value::Null)).await;
    assert_eq!((left.code, left.json()["spec"]["replicas"].clone()), (200, json!(3)));
    // A number that is written through the scale, and not applied, is its writer's too.
    let merge = "application/merge-patch+json";
    let path = format!("{through}?fieldManager=me");
    assert_eq!(api.send("PATCH", &path, r#"{"spec":{"replicas":4}}"#, merge).await.code, 200);
    assert_eq!(managers(&api.get(&at).await.json()), ["Apply team ", "Update me scale"]);
    for (body, code, words) in [
        (json!({"apiVersion": "apps/v1", "kind": "Deployment"}), 400, "Deployment"),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"shiny": 1}}),
            500,
            ".spec.shiny: field not declared",
        ),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "other"}}),
            400,
            "does not match",
        ),
    ] {
        let answer = apply(&api, &through, "fieldManager=hpa", &body).await;
        assert!(answer.code == code && answer.text().contains(words), "{body}: {}", answer.text());
    }
    let negative = apply(&api, &through, "fieldManager=hpa&force=true", &scale(-1)).await;
    assert_eq!(negative.code, 422, "{}", negative.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_somebodys_and_what_is_stale_is_refused() {
    let api = Api::start_without_loops().await;
    let at = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, &config_map(json!({"x": "1", "y": "1"}))).await.json();
    let forget = r#"{"metadata":{"managedFields":[{}]}}"#;
    assert_eq!(api.send("PATCH", &at, forget, "application/merge-patch+json").await.code, 200);
    assert!(managers(&api.get(&at).await.json()).is_empty());
    let refused = apply(&api, &at, "fieldManager=m", &config_map(json!({"x": "2"}))).await;
    let words = "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x";
    assert_eq!((refused.code, refused.json()["message"].clone()), (409, json!(words)));
    let applied = apply(&api, &at, "fieldManager=m", &config_map(json!({"x": "1"}))).await;
    assert_eq!(
        (applied.code, managers(&applied.json())),
        (200, vec!["Apply m ".into(), "Update before-first-apply ".into()])
    );
    // What changes nothing is refused all the same where it was made of something older, or of something else.
    let mut stale = config_map(json!({"x": "1"}));
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let refused = apply(&api, &at, "fieldManager=m", &stale).await;
    assert_eq!((refused.code, refused.json()["reason"].clone()), (409, json!("Conflict")), "{}", refused.text());
    stale["metadata"]["resourceVersion"] = applied.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(apply(&api, &at, "fieldManager=m", &stale).await.code, 200);
    stale["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    assert_eq!(apply(&api, &at, "fieldManager=m", &stale).await.code, 409);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_counts_and_nothing_else() {
    let api = Api::start_without_loops().await;
    let at = format!("{DEPLOYMENTS}/web");
    let deployment = |spec: Value| {
        let mut all = json!({"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": all})
    };
    let first =
        apply(&api, &at, "fieldManager=m", &deployment(json!({"paused": true, "minReadySeconds": 5, "replicas": 3})))
            .await;
    assert_eq!(first.code, 201, "{}", first.text());
    // Zero is a value: what it takes back, it takes back.
    let zero = deployment(json!({"paused": false, "minReadySeconds": 0, "replicas": 0}));
    let second = apply(&api, &at, "fieldManager=m", &zero).await;
    let spec = &second.json()["spec"];
    assert_eq!((spec.get("paused"), spec.get("minReadySeconds"), &spec["replicas"]), (None, None, &json!(0)));
    let again = apply(&api, &at, "fieldManager=m", &zero).await;
    assert_eq!(again.json()["metadata"]["resourceVersion"], second.json()["metadata"]["resourceVersion"]);
    let other = apply(&api, &at, "fieldManager=other", &deployment(json!({"paused": true}))).await;
    assert_eq!(other.code, 409, "whoever said false owns it: {}", other.text());
    // What somebody leaves out is not taken for zero: who made a service owns its target port.
    let services = "/api/v1/namespaces/default/services";
    let port = |extra: Value| {
        let mut port = json!({"port": 80, "protocol": "TCP"});
        port.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [port]}})
    };
    assert_eq!(api.post(services, &port(json!({"targetPort": 8080}))).await.code, 201);
    let answer = apply(&api, &format!("{services}/s"), "fieldManager=m", &port(json!({"name": "web"}))).await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    assert_eq!(answer.json()["spec"]["ports"][0]["targetPort"], 8080);
    // An empty list revokes.
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/b";
    let binding = |subjects: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": subjects})
    };
    let user = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}]);
    assert_eq!(apply(&api, bindings, "fieldManager=m", &binding(user)).await.code, 201);
    let revoked = apply(&api, bindings, "fieldManager=m", &binding(json!([]))).await;
    assert_eq!((revoked.code, revoked.json().get("subjects").cloned()), (200, None), "{}", revoked.text());
    // An object that is meant by its uid is not made.
    let mut gone = config_map(json!({}));
    gone["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    let answer = apply(&api, &format!("{CONFIG_MAPS}/a"), "fieldManager=m", &gone).await;
    assert_eq!(answer.code, 409, "{}", answer.text());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_record_costs_no_more_than_its_bytes() {
    let api = Api::start_without_loops().await;
    let long = "n".repeat(300_000);
    let keys: serde_json::Map<String, Value> = (0..5000).map(|n| (format!("f:k{n}"), json!({}))).collect();
    let data: serde_json::Map<String, Value> = (0..5000).map(|n| (format!("k{n}"), json!("1"))).collect();
    assert_eq!(api.post(CONFIG_MAPS, &config_map(Value::Object(data.clone()))).await.code, 201);
    let entry = |manager: &str, fields: Value| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2020-01-01T00:00:00Z", "fieldsV1": fields})
    };
    let mut object = api.get(&format!("{CONFIG_MAPS}/a")).await.json();
    object["metadata"]["managedFields"] = json!([entry(&long, json!({"f:data": keys}))]);
    let at = format!("{CONFIG_MAPS}/a");
    assert_eq!(api.put(&at, &object).await.code, 200);
    let changed: serde_json::Map<String, Value> = data.keys().map(|key| (key.clone(), json!("2"))).collect();
    let refused = apply(&api, &at, "fieldManager=m", &config_map(Value::Object(changed))).await;
    assert_eq!(refused.code, 409);
    assert!(refused.body.len() < 64 << 10, "{} bytes", refused.body.len());
    assert!(refused.text().contains("Apply failed with 5000 conflicts"), "{}", refused.text());
    // Very many writers, each of another version: the record stays within its bound or as it was, and no write waits for it.
    let many: Vec<Value> = (0..3000).map(|n| entry(&format!("m{n}"), json!({"f:data": {"f:k1": {}}}))).collect();
    object["metadata"]["managedFields"] = json!(many);
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object["data"]["k0"] = json!("3");
    let answer = api.put(&at, &object).await;
    assert_eq!(answer.code, 200);
    assert!(managers(&answer.json()).len() <= 11, "{}", managers(&answer.json()).len());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_applied_is_refused() {
    let api = Api::start_without_loops().await;
    let at = format!("{CONFIG_MAPS}/a");
    let good = config_map(json!({"x": "1"}));
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let managed = json!({"name": "a", "managedFields": []});
    for (query, body, code, words) in [
        ("", good.clone(), 422, "fieldManager: Required value"),
        ("fieldManager=", good.clone(), 422, "fieldManager: Required value"),
        ("fieldManager=m", with("/metadata", managed), 400, "metadata.managedFields must be nil"),
        ("fieldManager=m", with("/metadata/name", json!("b")), 400, "does not match the name on the URL (a)"),
        ("fieldManager=m", with("/kind", json!("Secret")), 400, "Secret"),
        ("fieldManager=m", with("/data", json!({"x": 1})), 400, "ConfigMap"),
        (
            "fieldManager=m",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "shiny": 1}),
            500,
            ".shiny: field not declared in schema",
        ),
        ("fieldManager=m", json!([]), 400, ""),
        ("fieldManager=%07", good.clone(), 422, "invalid character U+0007 (at position 0)"),
    ] {
        let answer = apply(&api, &at, query, &body).await;
        assert_eq!(answer.code, code, "{query} {body}: {}", answer.text());
        assert!(answer.text().contains(words), "{query} {body}: {}", answer.text());
    }
    for text in ["{", "a: [", "\u{0}"] {
        assert_eq!(api.send("PATCH", &format!("{at}?fieldManager=m"), text, APPLY).await.code, 400, "{text:?}");
    }
    let forced = api.send("PATCH", &format!("{at}?force=true"), "{}", "application/merge-patch+json").await;
    assert_eq!(forced.code, 422);
    let elsewhere = apply(
        &api,
        &format!("{DEPLOYMENTS}/none/status"),
        "fieldManager=m",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment"}),
    )
    .await;
    assert_eq!(elsewhere.code, 404, "a status alone makes nothing");
    assert_eq!(api.get(&at).await.code, 404, "nothing was made");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_apply_at_once_lose_nothing() {
    let api = Api::start_without_loops().await;
    let at = format!("{CONFIG_MAPS}/a");
    let applies = (0..20).map(|n| {
        let (api, at) = (&api, &at);
        async move { apply(api, at, &format!("fieldManager=m{n}"), &config_map(json!({(format!("k{n}")): "v"}))).await }
    });
    let answers = futures::future::join_all(applies).await;
    assert!(answers.iter().all(|answer| answer.code < 300), "{}", answers[0].text());
    assert_eq!(answers.iter().filter(|answer| answer.code == 201).count(), 1);
    let object = api.get(&at).await.json();
    assert_eq!(object["data"].as_object().unwrap().len(), 20);
    assert_eq!(managers(&object).len(), 20);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_on_the_server() {
    let api = Api::start_without_loops().await;
    for kubectl in Kubectl::every(&api.kubeconfig()) {
        let write = |data: &str| {
            api.file(
                "cm.yaml",
                &format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: k}}\ndata: {{{data}}}\n"),
            )
        };
        let data = || async { kubectl.must(&["get", "configmap", "k", "-o", "jsonpath={.data}"]).await };
        // From client-side apply to the server's.
        kubectl.must(&["apply", "-f", &write("a: '1', b: '1'")]).await;
        let said = kubectl.must(&["apply", "--server-side", "-f", &write("a: '1', b: '1'")]).await;
        assert!(said.contains("serverside-applied"), "{said}");
        kubectl.must(&["apply", "--server-side", "--field-manager=other", "-f", &write("c: '1'")]).await;
        let refused = kubectl
            .run(&["apply", "--server-side", "--field-manager=other", "-f", &write("a: '2', c: '1'")])
            .await
            .unwrap_err();
        assert!(refused.contains("conflict") && refused.contains("with \"kubectl"), "{refused}");
        kubectl
            .must(&[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager=other",
                "-f",
                &write("a: '2', c: '1'"),
            ])
            .await;
        assert_eq!(data().await, r#"{"a":"2","b":"1","c":"1"}"#, "{}", kubectl.name());
        kubectl.must(&["apply", "--server-side", "--field-manager=other", "-f", &write("a: '2'")]).await;
        assert_eq!(data().await, r#"{"a":"2","b":"1"}"#, "{}", kubectl.name());
        kubectl.must(&["delete", "configmap", "k"]).await;
    }
    api.stop().await;
}
