//! Custom kinds as their users have them: defined, used as any other kind, changed and gone again.

use std::time::Duration;

use gantry_tests::api::{Answer, Api};
use gantry_tests::kubectl::Kubectl;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// Widgets with most of what a definition can say.
fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "replicas": {"type": "integer", "default": 1, "minimum": 0},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "port": {"type": "integer", "default": 80}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }, "x-kubernetes-validations": [
            {"rule": "self.size >= self.replicas", "message": "no more replicas than size"},
            {"rule": "self.size >= oldSelf.size", "message": "a widget does not shrink"},
        ]},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"},
            "phase": {"type": "string"}}},
    }}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": schema,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
            }],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn soon<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn define(api: &Api, definition: &Value) {
    let made = api.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.text());
    established(api, definition["metadata"]["name"].as_str().unwrap()).await;
}

async fn established(api: &Api, name: &str) {
    soon("the definition is established", || async {
        let found = api.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await;
}

async fn patch(api: &Api, path: &str, body: Value) -> Answer {
    api.send("PATCH", path, &body.to_string(), MERGE).await
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or("").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_kind_is_served_as_any_other() {
    let api = Api::start().await;
    assert_eq!(api.get(WIDGETS).await.code, 404);
    define(&api, &definition()).await;
    // Whoever has seen it established finds it, at once.
    let made = api.post(WIDGETS, &widget("a", json!({"size": 3, "ports": [{"name": "web"}]}))).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let object = made.json();
    assert_eq!(
        object["spec"],
        json!({"size": 3, "replicas": 1, "color": "red", "ports": [{"name": "web", "port": 80}]})
    );
    assert_eq!((&object["metadata"]["generation"], &object["metadata"]["namespace"]), (&json!(1), &json!("default")));
    assert_eq!(api.get(&format!("{WIDGETS}/a")).await.json(), object);
    // What the schema does not know is pruned, with a warning, or refused.
    let odd = widget("b", json!({"size": 1, "shiny": true, "free": {"x": {"y": 1}}}));
    let strict = api.post(&format!("{WIDGETS}?fieldValidation=Strict"), &odd).await;
    assert_eq!(strict.code, 400);
    assert!(message(&strict).contains("unknown field \"spec.shiny\""), "{}", message(&strict));
    let pruned = api.post(WIDGETS, &odd).await;
    assert_eq!((pruned.code, &pruned.json()["spec"]["shiny"]), (201, &Value::Null), "{}", pruned.text());
    assert_eq!(pruned.json()["spec"]["free"], json!({"x": {"y": 1}}));
    assert!(
        pruned.warnings.iter().any(|w| w.contains("unknown field") && w.contains("spec.shiny")),
        "{:?}",
        pruned.warnings
    );
    // Values are checked, and so are rules.
    for (spec, said) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({"size": 0}), "spec.size in body should be greater than or equal to 1"),
        (
            json!({"size": 1, "color": "blue"}),
            "spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (json!({"size": 1, "replicas": 2}), "no more replicas than size"),
        (json!({"size": 1, "ports": [{"name": "a"}, {"name": "a"}]}), "spec.ports[1]: Duplicate value"),
    ] {
        let refused = api.post(WIDGETS, &widget("c", spec)).await;
        assert_eq!(refused.code, 422, "{}", refused.text());
        assert!(message(&refused).contains(said), "{}", message(&refused));
    }
    let shrunk = patch(&api, &format!("{WIDGETS}/a"), json!({"spec": {"size": 2}})).await;
    assert!(shrunk.code == 422 && message(&shrunk).contains("a widget does not shrink"), "{}", shrunk.text());
    // The status is written apart.
    let with_status = json!({"spec": {"size": 4}, "status": {"phase": "Ready"}});
    let grown = patch(&api, &format!("{WIDGETS}/a"), with_status).await.json();
    assert_eq!((&grown["metadata"]["generation"], &grown["status"]), (&json!(2), &Value::Null));
    let status = json!({"phase": "Ready", "replicas": 1, "selector": "app=a"});
    let with_spec = json!({"spec": {"size": 9}, "status": status});
    let ready = patch(&api, &format!("{WIDGETS}/a/status"), with_spec).await.json();
    assert_eq!(
        (&ready["spec"]["size"], &ready["status"]["phase"], &ready["metadata"]["generation"]),
        (&json!(4), &json!("Ready"), &json!(2))
    );
    let scale = api.get(&format!("{WIDGETS}/a/scale")).await.json();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=a"}));
    let scaled = patch(&api, &format!("{WIDGETS}/a/scale"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.json()["spec"]["replicas"]), (200, &json!(3)), "{}", scaled.text());
    let too_many = patch(&api, &format!("{WIDGETS}/a/scale"), json!({"spec": {"replicas": 30}})).await;
    assert_eq!(too_many.code, 422, "{}", too_many.text());
    // Fields that the definition names can be selected by; others cannot.
    api.post(WIDGETS, &widget("green", json!({"size": 1, "color": "green"}))).await;
    let green = api.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dgreen")).await.json();
    let names: Vec<&Value> = green["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["green"]);
    assert_eq!(api.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1")).await.code, 400);
    // How its lists merge is not told by strategies, and protobuf has no message for it.
    let strategic = api.send("PATCH", &format!("{WIDGETS}/a"), "{}", "application/strategic-merge-patch+json").await;
    assert_eq!(strategic.code, 415);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_objects_are_applied_item_by_item() {
    let api = Api::start().await;
    define(&api, &definition()).await;
    let at = format!("{WIDGETS}/a");
    let apply = |manager: &'static str, spec: Value| {
        let (api, at) = (&api, at.clone());
        async move {
            let body = widget("a", spec).to_string();
            api.send("PATCH", &format!("{at}?fieldManager={manager}"), &body, APPLY).await
        }
    };
    let made = apply("one", json!({"size": 3, "ports": [{"name": "web", "port": 1}]})).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let both = apply("two", json!({"size": 3, "ports": [{"name": "admin"}]})).await;
    assert_eq!(
        both.json()["spec"]["ports"],
        json!([{"name": "web", "port": 1}, {"name": "admin", "port": 80}]),
        "{}",
        both.text()
    );
    let conflict = apply("two", json!({"size": 3, "ports": [{"name": "web", "port": 2}]})).await;
    assert_eq!(conflict.code, 409, "{}", conflict.text());
    let said = "conflict with \"one\": .spec.ports[name=\"web\"].port";
    assert!(message(&conflict).contains(said), "{}", message(&conflict));
    let left = apply("one", json!({"size": 3})).await;
    assert_eq!(left.json()["spec"]["ports"], json!([{"name": "admin", "port": 80}]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_treats_it_as_its_own() {
    let api = Api::start().await;
    for kubectl in Kubectl::every(&api.kubeconfig()) {
        let file = api.file("definition.yaml", &definition().to_string());
        kubectl.must(&["apply", "-f", &file]).await;
        kubectl.must(&["wait", "--for=condition=Established", "--timeout=30s", "crd/widgets.example.com"]).await;
        let file = api.file("widget.yaml", &widget("a", json!({"size": 3})).to_string());
        assert_eq!(
            kubectl.must(&["apply", "-f", &file]).await.trim(),
            "widget.example.com/a created",
            "{}",
            kubectl.name()
        );
        let table = kubectl.must(&["get", "wd"]).await;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "SIZE", "PHASE", "AGE"], "{table}");
        assert_eq!(lines[1][..2], ["a", "3"], "{table}");
        assert!(kubectl.must(&["get", "all"]).await.contains("widget.example.com/a"));
        assert!(kubectl.must(&["explain", "widget.spec.color"]).await.contains("color"), "{}", kubectl.name());
        assert!(kubectl.must(&["api-resources"]).await.contains("widgets"));
        kubectl.must(&["scale", "widget/a", "--replicas=2"]).await;
        assert_eq!(kubectl.must(&["get", "widget", "a", "-o", "jsonpath={.spec.replicas}"]).await, "2");
        kubectl.must(&["label", "widget", "a", "x=y"]).await;
        assert!(kubectl.must(&["get", "widgets", "-l", "x=y", "-o", "name"]).await.contains("widget.example.com/a"));
        kubectl.must(&["delete", "crd", "widgets.example.com"]).await;
        let gone = kubectl.run(&["get", "widgets"]).await.unwrap_err();
        assert!(gone.contains("have a resource type") || gone.contains("could not find"), "{gone}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_takes_its_objects_along() {
    let api = Api::start().await;
    define(&api, &definition()).await;
    for name in ["a", "b"] {
        api.post(WIDGETS, &widget(name, json!({"size": 1}))).await;
    }
    patch(&api, &format!("{WIDGETS}/b"), json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let at = format!("{DEFINITIONS}/widgets.example.com");
    assert_eq!(api.delete(&at, &json!({})).await.code, 200);
    soon("what nothing holds is gone", || async { api.get(&format!("{WIDGETS}/a")).await.code == 404 }).await;
    // While it waits for what is held, nothing new is made of it.
    assert!(!api.get(&at).await.json()["metadata"]["deletionTimestamp"].is_null());
    let late = api.post(WIDGETS, &widget("c", json!({"size": 1}))).await;
    assert_eq!(late.code, 405);
    assert_eq!(message(&late), "create not allowed while custom resource definition is terminating");
    patch(&api, &format!("{WIDGETS}/b"), json!({"metadata": {"finalizers": null}})).await;
    soon("the definition is gone", || async { api.get(&at).await.code == 404 }).await;
    assert_eq!(api.get(WIDGETS).await.code, 404);
    // Made again it begins anew.
    define(&api, &definition()).await;
    assert_eq!(api.get(WIDGETS).await.json()["items"], json!([]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_namespaces_take_custom_objects_along() {
    let api = Api::start().await;
    define(&api, &definition()).await;
    let owner = api.post(WIDGETS, &widget("owner", json!({"size": 1}))).await.json();
    let reference = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner",
        "uid": owner["metadata"]["uid"]}]);
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": reference}});
    let owned = "/api/v1/namespaces/default/configmaps/owned";
    assert_eq!(api.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
    let mut child = widget("child", json!({"size": 1}));
    child["metadata"]["ownerReferences"] = reference.clone();
    assert_eq!(api.post(WIDGETS, &child).await.code, 201);
    api.delete(&format!("{WIDGETS}/owner"), &json!({})).await;
    soon("a built-in dependent goes", || async { api.get(owned).await.code == 404 }).await;
    soon("a custom dependent goes", || async { api.get(&format!("{WIDGETS}/child")).await.code == 404 }).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    api.post("/api/v1/namespaces", &namespace).await;
    let there = "/apis/example.com/v1/namespaces/n/widgets";
    assert_eq!(api.post(there, &widget("a", json!({"size": 1}))).await.code, 201);
    api.delete("/api/v1/namespaces/n", &json!({})).await;
    soon("the namespace is gone", || async { api.get("/api/v1/namespaces/n").await.code == 404 }).await;
    assert_eq!(api.get(there).await.json()["items"], json!([]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_the_same_objects_by_other_names() {
    let api = Api::start().await;
    let mut both = definition();
    let mut beta = both["spec"]["versions"][0].clone();
    beta["name"] = json!("v1beta1");
    beta["storage"] = json!(false);
    beta["deprecated"] = json!(true);
    both["spec"]["versions"].as_array_mut().unwrap().push(beta);
    define(&api, &both).await;
    let old = WIDGETS.replace("/v1/", "/v1beta1/");
    let mut sent = widget("a", json!({"size": 1}));
    sent["apiVersion"] = json!("example.com/v1beta1");
    let made = api.post(&old, &sent).await;
    assert_eq!((made.code, &made.json()["apiVersion"]), (201, &json!("example.com/v1beta1")), "{}", made.text());
    assert!(
        made.warnings.iter().any(|warning| warning.contains("example.com/v1beta1 Widget is deprecated")),
        "{:?}",
        made.warnings
    );
    let new = api.get(&format!("{WIDGETS}/a")).await.json();
    assert_eq!(
        (&new["apiVersion"], &new["metadata"]["uid"]),
        (&json!("example.com/v1"), &made.json()["metadata"]["uid"])
    );
    let listed = api.get(&old).await.json();
    assert_eq!(
        (&listed["kind"], &listed["items"][0]["apiVersion"]),
        (&json!("WidgetList"), &json!("example.com/v1beta1"))
    );
    // The other version is stored from now on; a write that changes nothing moves an object over.
    both["spec"]["versions"][0]["storage"] = json!(false);
    both["spec"]["versions"][1]["storage"] = json!(true);
    let versions = json!({"spec": {"versions": both["spec"]["versions"]}});
    let at = format!("{DEFINITIONS}/widgets.example.com");
    let changed = patch(&api, &at, versions).await;
    assert_eq!(changed.code, 200, "{}", changed.text());
    assert_eq!(changed.json()["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let before = api.get(&format!("{WIDGETS}/a")).await.json();
    let moved = api.put(&format!("{WIDGETS}/a"), &before).await.json();
    assert_ne!(moved["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let again = api.put(&format!("{WIDGETS}/a"), &moved).await.json();
    assert_eq!(again["metadata"]["resourceVersion"], moved["metadata"]["resourceVersion"]);
    // All of it is there after a restart.
    let api = api.restart().await;
    assert_eq!(api.get(&format!("{WIDGETS}/a")).await.json(), again);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_have_one_owner() {
    let api = Api::start().await;
    define(&api, &definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = json!("gadgets.example.com");
    second["spec"]["names"] = json!({"plural": "gadgets", "singular": "gadget", "kind": "Widget"});
    assert_eq!(api.post(DEFINITIONS, &second).await.code, 201);
    let at = format!("{DEFINITIONS}/gadgets.example.com");
    soon("the conflict is told", || async {
        let found = api.get(&at).await.json();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|c| c["type"] == "NamesAccepted" && c["status"] == "False" && c["reason"] == "ListKindConflict")
    })
    .await;
    assert_eq!(api.get("/apis/example.com/v1/namespaces/default/gadgets").await.code, 404);
    // When the owner goes, the name is free.
    api.delete(&format!("{DEFINITIONS}/widgets.example.com"), &json!({})).await;
    established(&api, "gadgets.example.com").await;
    assert_eq!(api.get("/apis/example.com/v1/namespaces/default/gadgets").await.code, 200);
    api.stop().await;
}
