//! Client libraries as programs use them, unchanged: the Python client, and kube-rs.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use gantry_tests::api::Api;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use serde_json::json;

const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("clients/python.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_works_as_it_is() {
    let api = Api::start().await;
    let script = api.file("client.py", SCRIPT);
    let run = tokio::process::Command::new(PYTHON)
        .arg(script)
        .env("KUBECONFIG", api.kubeconfig())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends in time").unwrap();
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", told(&output.stdout), told(&output.stderr));
    assert_eq!(told(&output.stdout).lines().count(), 5);
    api.stop().await;
}

async fn client(api: &Api) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_works_as_it_is() {
    let api = Api::start().await;
    let client = client(&api).await;
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client.clone(), "default");
    let map = |data: &str| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": data}})).unwrap()
    };
    let before = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let made = maps.create(&PostParams::default(), &map("1")).await.unwrap();
    assert!(maps.create(&PostParams::default(), &map("1")).await.unwrap_err().to_string().contains("AlreadyExists"));
    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("k".into(), "2".into());
    maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert!(maps.replace("a", &PostParams::default(), &changed).await.is_err(), "it is stale now");
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"mine": "3"}});
    let applied = maps.patch("a", &PatchParams::apply("kube-rs"), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(applied.data.unwrap().len(), 2);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let watched = WatchParams::default().fields("metadata.name=a").timeout(60);
    let events: Vec<_> = maps.watch(&watched, &before).await.unwrap().boxed().take(4).try_collect().await.unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        })
        .collect();
    assert_eq!(kinds, ["added", "modified", "modified", "deleted"]);
    // A kind that no type was generated for.
    let definitions: kube::Api<CustomResourceDefinition> = kube::Api::all(client.clone());
    let definition = serde_json::from_value(json!({
        "metadata": {"name": "crabs.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "crabs", "singular": "crab", "kind": "Crab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    }));
    definitions.create(&PostParams::default(), &definition.unwrap()).await.unwrap();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Crab"), "crabs");
    let crabs: kube::Api<DynamicObject> = kube::Api::all_with(client, &resource);
    let crab: DynamicObject = serde_json::from_value(
        json!({"apiVersion": "example.com/v1", "kind": "Crab", "metadata": {"name": "c"}, "spec": {"legs": 10}}),
    )
    .unwrap();
    let made = loop {
        match crabs.create(&PostParams::default(), &crab).await {
            // Its definition is not established yet.
            Err(kube::Error::Api(status)) if status.code == 404 => tokio::time::sleep(Duration::from_millis(10)).await,
            made => break made.unwrap(),
        }
    };
    assert_eq!(made.data["spec"]["legs"], 10);
    assert_eq!(crabs.list(&ListParams::default()).await.unwrap().items.len(), 1);
    api.stop().await;
}
