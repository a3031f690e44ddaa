//! What admission lets into a namespace and makes of it, as kubectl and raw requests meet it: the standards that its labels
//! name, its account, and the classes of runtimes.

use gantry_tests::api::Api;
use serde_json::{Value, json};

const NAMESPACES: &str = "/api/v1/namespaces";
const PODS: &str = "/api/v1/namespaces/guarded/pods";

/// An API without controllers, whose namespace `guarded` has its account.
async fn api(labels: Value) -> Api {
    let api = Api::start_without_loops().await;
    let made = api.post(NAMESPACES, &json!({"metadata": {"name": "guarded", "labels": labels}})).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(api.post(&format!("{NAMESPACES}/guarded/serviceaccounts"), &account).await.code, 201);
    api
}

fn container(security: Value) -> Value {
    json!({"name": "main", "image": "i", "securityContext": security})
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [container(json!({}))]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

fn hardened() -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}});
    json!({"containers": [container(security)]})
}

const UNHARDENED: &str = "allowPrivilegeEscalation != false (container \"main\" must set \
    securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"main\" must set \
    securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"main\" must set \
    securityContext.runAsNonRoot=true), seccompProfile (pod or container \"main\" must set \
    securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

/// A warning as the header has it.
fn header(words: &str) -> String {
    format!("299 - \"{}\"", words.replace('"', "\\\""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restricted_namespace_takes_restricted_pods() {
    let api = api(json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let refused = api.post(PODS, &pod("a", json!({}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.json()["message"],
        format!("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": {UNHARDENED}")
    );
    assert_eq!((refused.json()["reason"].as_str(), refused.warnings.len()), (Some("Forbidden"), 0));
    let taken = api.post(PODS, &pod("a", hardened())).await;
    assert_eq!((taken.code, taken.warnings.len()), (201, 0), "{}", taken.text());
    // What is wrong with a pod itself is told first.
    let mut invalid = pod("b", json!({}));
    invalid["spec"]["restartPolicy"] = json!("Sometimes");
    assert_eq!(api.post(PODS, &invalid).await.code, 422);
    // A generated name is there when it is refused by it.
    let mut generated = pod("", json!({}));
    generated["metadata"] = json!({"generateName": "gen-"});
    let message = api.post(PODS, &generated).await.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("pods \"gen-") && !message.starts_with("pods \"gen-\""), "{message}");

    let debug =
        json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "i", "targetContainerName": "main"}]}});
    let path = format!("{PODS}/a/ephemeralcontainers");
    let refused = api.send("PATCH", &path, &debug.to_string(), "application/strategic-merge-patch+json").await;
    assert_eq!(refused.code, 403, "{}", refused.text());
    assert!(refused.text().contains("container \\\"debug\\\" must set"), "{}", refused.text());
    let relabelled = json!({"metadata": {"labels": {"x": "y"}}}).to_string();
    assert_eq!(api.send("PATCH", &format!("{PODS}/a"), &relabelled, "application/merge-patch+json").await.code, 200);

    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(json!({}))]}});
    let web = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/guarded/deployments";
    let made = api.post(deployments, &web).await;
    let told = header(&format!("would violate PodSecurity \"restricted:latest\": {UNHARDENED}"));
    assert_eq!((made.code, made.warnings), (201, vec![told]));
    let path = format!("{deployments}/web/scale");
    let scaled = api.send("PATCH", &path, r#"{"spec":{"replicas":2}}"#, "application/merge-patch+json").await;
    assert_eq!((scaled.code, scaled.warnings.len()), (200, 0), "a scale says nothing of pods");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_labels_a_namespace_hears_what_that_means() {
    let api = api(json!({})).await;
    for name in ["a", "b"] {
        assert_eq!(api.post(PODS, &pod(name, json!({"hostNetwork": true}))).await.code, 201);
    }
    let label = async |value: &str| {
        api.kubectl(&["label", "--overwrite", "namespace", "guarded", &format!("pod-security.kubernetes.io/{value}")])
            .await
    };
    let refused = label("enforce=medium").await.unwrap_err();
    let words = "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"medium\": must be one of privileged, \
                 baseline, restricted";
    assert!(refused.contains(words), "{refused}");
    assert!(label("audit-version=1.30").await.unwrap_err().contains("must be \"latest\" or \"v1.x\""));
    let path = format!("{NAMESPACES}/guarded");
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}).to_string();
    let merge = "application/merge-patch+json";
    let told = [
        header("existing pods in namespace \"guarded\" violate the new PodSecurity enforce level \"baseline:latest\""),
        header("a (and 1 other pod): host namespaces"),
    ];
    let dry = api.send("PATCH", &format!("{path}?dryRun=All"), &patch, merge).await;
    assert_eq!((dry.code, &dry.warnings[..]), (200, &told[..]));
    assert_eq!(
        api.post(PODS, &pod("c", json!({"hostNetwork": true}))).await.code,
        201,
        "a dry run holds nobody to anything"
    );
    assert_eq!(
        api.send("PATCH", &path, &patch, merge).await.warnings[1],
        header("a (and 2 other pods): host namespaces")
    );
    assert_eq!(api.post(PODS, &pod("d", json!({"hostNetwork": true}))).await.code, 403);
    assert_eq!(api.post(PODS, &pod("d", json!({}))).await.code, 201);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_of_runtimes_prices_its_pods() {
    let api = api(json!({})).await;
    let refused = api.post(PODS, &pod("a", json!({"runtimeClassName": "boxed"}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.json()["message"], "pods \"a\" is forbidden: pod rejected: RuntimeClass \"boxed\" not found");
    let class = json!({"metadata": {"name": "boxed"}, "handler": "box", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"box": "yes"}}});
    let made = api.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1"}}});
    assert_eq!(api.post(&format!("{NAMESPACES}/guarded/resourcequotas"), &quota).await.code, 201);
    let asking = |name: &str| {
        let mut pod = pod(name, json!({"runtimeClassName": "boxed"}));
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
        pod
    };
    let taken = api.post(PODS, &asking("a")).await;
    assert_eq!(taken.code, 201, "{}", taken.text());
    assert_eq!(taken.json()["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(taken.json()["spec"]["nodeSelector"], json!({"box": "yes"}));
    let refused = api.post(PODS, &asking("b")).await.json()["message"].as_str().unwrap().to_owned();
    assert!(
        refused.contains("requested: requests.cpu=750m, used: requests.cpu=750m, limited: requests.cpu=1"),
        "{refused}"
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_may_follow_its_namespace_at_once() {
    let api = Api::start().await;
    for name in ["one", "two", "three"] {
        assert_eq!(api.post(NAMESPACES, &json!({"metadata": {"name": name}})).await.code, 201);
        let made = api.post(&format!("{NAMESPACES}/{name}/pods"), &pod("a", json!({}))).await;
        assert_eq!(made.code, 201, "{}", made.text());
        let strange = pod("b", json!({"serviceAccountName": "strange"}));
        let refused = api.post(&format!("{NAMESPACES}/{name}/pods"), &strange).await;
        let words = format!("error looking up service account {name}/strange: serviceaccount \"strange\" not found");
        assert_eq!(refused.json()["message"], format!("pods \"b\" is forbidden: {words}"));
    }
    api.stop().await;
}
