//! The encodings of answers: what is said in protobuf is what is said in JSON, on real TLS; and what no client can be
//! answered in is refused as it takes refusals.

use std::io::Read;

use gantry_kube::protobuf::{self, CONTENT_TYPE, encode};
use gantry_kube::{Object, canonical, schema};
use gantry_tests::api::{Answer, Api};
use prost::Message;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The messages around an object, as another implementation reads them.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TypeMeta {
        #[prost(string, tag = "1")]
        pub api_version: String,
        #[prost(string, tag = "2")]
        pub kind: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Unknown {
        #[prost(message, optional, tag = "1")]
        pub type_meta: Option<TypeMeta>,
        #[prost(bytes = "vec", tag = "2")]
        pub raw: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RawExtension {
        #[prost(bytes = "vec", tag = "1")]
        pub raw: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WatchEvent {
        #[prost(string, tag = "1")]
        pub change: String,
        #[prost(message, optional, tag = "2")]
        pub object: Option<RawExtension>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ListMeta {
        #[prost(string, tag = "2")]
        pub resource_version: String,
        #[prost(string, tag = "3")]
        pub next: String,
        #[prost(int64, optional, tag = "4")]
        pub remaining: Option<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ObjectMeta {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "3")]
        pub namespace: String,
        #[prost(string, tag = "6")]
        pub resource_version: String,
        #[prost(btree_map = "string, string", tag = "11")]
        pub labels: std::collections::BTreeMap<String, String>,
    }

    /// Any object of which only the metadata is looked at.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Item {
        #[prost(message, optional, tag = "1")]
        pub metadata: Option<ObjectMeta>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct List {
        #[prost(message, optional, tag = "1")]
        pub metadata: Option<ListMeta>,
        #[prost(message, repeated, tag = "2")]
        pub items: Vec<Item>,
    }
}

/// The kind that a body names, and its message.
fn unframed(body: &[u8]) -> (String, Vec<u8>) {
    let unknown = wire::Unknown::decode(body.strip_prefix(b"k8s\0").expect("the four bytes")).expect("an Unknown");
    let meta = unknown.type_meta.expect("a kind");
    (format!("{}/{}", meta.api_version, meta.kind), unknown.raw)
}

fn in_protobuf(answer: &Answer) -> Object {
    assert_eq!(answer.headers["content-type"], CONTENT_TYPE, "{}", answer.text());
    protobuf::decode(&answer.body).unwrap_or_else(|error| panic!("{error}: {:02x?}", answer.body))
}

/// The object as both encodings mean it: items of a list name no kind, for protobuf has no place for it.
fn meant(mut object: Object) -> Object {
    let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
    let ty = schema::for_kind(group, version, object.kind()).expect("a kind of the table");
    assert_eq!(canonical::normalize(ty, &mut object), canonical::Findings::default());
    if let Some(items) = object.0.get_mut("items").and_then(Value::as_array_mut) {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("apiVersion");
            item.remove("kind");
        }
    }
    object
}

fn from_json(answer: &Answer) -> Object {
    assert_eq!(answer.headers["content-type"], "application/json");
    Object::from_value(answer.json()).expect("an object in JSON")
}

async fn send(api: &Api, method: &str, path: &str, object: &Value) -> Answer {
    let body = encode::encode(&Object::from_value(object.clone()).unwrap()).unwrap();
    api.send_bytes(method, path, body, &[("content-type", CONTENT_TYPE), ("accept", CONTENT_TYPE)]).await
}

/// An object of each kind that is looked at, and where its collection is.
fn examples() -> Vec<(&'static str, Value)> {
    let pod = json!({"containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "value": ""}],
        "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1.5", "memory": "1Gi"}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "web"}}}], "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "p", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "expirationSeconds": 600}}]}}],
        "tolerations": [{"operator": "Exists"}]});
    let meta = |name: &str| json!({"name": name, "namespace": "default", "labels": {"app": "web", "empty": ""}});
    vec![
        (
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("p"), "spec": pod}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": meta("d"), "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}}}),
        ),
        (
            "/api/v1/namespaces/default/events",
            json!({"apiVersion": "v1", "kind": "Event", "metadata": meta("e.1"),
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Started", "message": "é",
            "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:06Z", "count": 2, "type": "Normal",
            "source": {"component": "kubelet"}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease", "metadata": meta("l"), "spec": {"holderIdentity": "me", "leaseDurationSeconds": 40,
            "renewTime": "2026-01-02T03:04:05.000006Z", "leaseTransitions": 0}}),
        ),
    ]
}

async fn with_examples() -> Api {
    let api = Api::start_without_loops().await;
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(api.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
    for (collection, object) in examples() {
        let made = send(&api, "POST", collection, &object).await;
        assert_eq!(made.code, 201, "{}", made.text());
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        assert_eq!(meant(in_protobuf(&made)), meant(from_json(&api.get(&path).await)));
    }
    api
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_and_lists_say_the_same_in_both_encodings() {
    let api = with_examples().await;
    for (collection, object) in examples() {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        let read = api.get_as(&path, "application/vnd.kubernetes.protobuf, */*").await;
        let json = from_json(&api.get(&path).await);
        assert_eq!(meant(in_protobuf(&read)), meant(json.clone()));
        assert_eq!(read.body, api.get_as(&path, CONTENT_TYPE).await.body);
        let list = api.get_as(collection, CONTENT_TYPE).await;
        assert_eq!(meant(in_protobuf(&list)), meant(from_json(&api.get(collection).await)));
        let (kind, raw) = unframed(&list.body);
        assert_eq!(
            kind,
            format!("{}/{}List", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
        );
        let read = wire::List::decode(&raw[..]).unwrap().items.remove(0).metadata.unwrap();
        assert_eq!((read.name.as_str(), read.namespace.as_str()), (json.name(), "default"));
        assert_eq!((read.resource_version.as_str(), read.labels["empty"].as_str()), (json.resource_version(), ""));
        // What was read in protobuf is taken back in protobuf.
        let mut changed = in_protobuf(&api.get_as(&path, CONTENT_TYPE).await).into_value();
        changed["metadata"]["labels"]["app"] = json!("other");
        let put = send(&api, "PUT", &path, &changed).await;
        assert_eq!(put.code, 200, "{}", in_protobuf(&put).into_value());
        assert_eq!(in_protobuf(&put).label("app"), Some("other"));
        let patch = r#"{"metadata":{"labels":{"app":"third"}}}"#.to_owned().into_bytes();
        let headers = [("content-type", "application/merge-patch+json"), ("accept", CONTENT_TYPE)];
        assert_eq!(in_protobuf(&api.send_bytes("PATCH", &path, patch, &headers).await).label("app"), Some("third"));
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_long_lists_say_the_same_in_both_encodings() {
    let api = Api::start_without_loops().await;
    for i in 0..40 {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{i:02}")},
            "data": {"k": format!("{i}").repeat(3000)}});
        assert_eq!(api.post(CONFIG_MAPS, &object).await.code, 201);
    }
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("{CONFIG_MAPS}?limit=15&continue={token}");
        let page = api.get_as(&path, CONTENT_TYPE).await;
        assert_eq!(meant(in_protobuf(&page)), meant(from_json(&api.get(&path).await)));
        let list = wire::List::decode(&unframed(&page.body).1[..]).unwrap();
        names.extend(list.items.into_iter().map(|item| item.metadata.unwrap().name));
        let metadata = list.metadata.unwrap();
        assert_eq!(metadata.remaining, [Some(25), Some(10), None][pages]);
        pages += 1;
        token = metadata.next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..40).map(|i| format!("c{i:02}")).collect::<Vec<_>>());
    let long = api.get_as(CONFIG_MAPS, CONTENT_TYPE).await;
    assert!(long.body.len() > 200_000);
    assert_eq!(meant(in_protobuf(&long)), meant(from_json(&api.get(CONFIG_MAPS).await)));
    let packed = api.get_with(CONFIG_MAPS, &[("accept", CONTENT_TYPE), ("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut content).unwrap();
    assert!(content == long.body);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_alone_comes_in_protobuf() {
    let api = with_examples().await;
    for (collection, object) in examples() {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        let json = api.get(&path).await.json();
        let one = api.get_as(&path, METADATA).await;
        assert_eq!(one.headers["content-type"], CONTENT_TYPE);
        let list = api.get_as(collection, &format!("{METADATA_LIST},application/json")).await;
        let (kind, raw) = unframed(&list.body);
        assert_eq!(kind, "meta.k8s.io/v1/PartialObjectMetadataList");
        let listed = wire::List::decode(&raw[..]).unwrap();
        assert_eq!(
            listed.metadata.unwrap().resource_version,
            api.get(collection).await.json()["metadata"]["resourceVersion"]
        );
        let (kind, raw) = unframed(&one.body);
        assert_eq!(kind, "meta.k8s.io/v1/PartialObjectMetadata");
        let item = wire::Item::decode(&raw[..]).unwrap();
        assert_eq!(listed.items, std::slice::from_ref(&item));
        // The whole of it: a Namespace with this metadata says the same.
        let framed = encode::encode(
            &Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": json["metadata"]}))
            .unwrap(),
        )
        .unwrap();
        assert_eq!(unframed(&framed).1, raw);
        assert_eq!(item.metadata.unwrap().name, json["metadata"]["name"]);
    }
    api.stop().await;
}

/// The events of a watch in protobuf: what happened, and the body of what it happened to.
fn frames(mut stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut events = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let event = wire::WatchEvent::decode(frame).expect("a WatchEvent");
        events.push((event.change, event.object.expect("an object").raw));
        stream = rest;
    }
    assert!(stream.is_empty());
    events
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_tell_the_same_in_both_encodings() {
    let api = with_examples().await;
    let kinds = examples().into_iter().map(|(collection, object)| told_alike(&api, collection, object));
    futures::future::join_all(kinds).await;
    api.stop().await;
}

async fn told_alike(api: &Api, collection: &str, object: Value) {
    let revision = api.get(collection).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
    let patch = r#"{"metadata":{"labels":{"app":"x"}}}"#;
    assert_eq!(api.send("PATCH", &path, patch, "application/merge-patch+json").await.code, 200);
    assert_eq!(api.delete(&path, &json!({"gracePeriodSeconds": 0})).await.code, 200);
    assert_eq!(api.post(collection, &object).await.code, 201);
    // Whoever selects what the object was sees it leave.
    for selector in ["", "&labelSelector=app%3Dweb"] {
        let watch = format!("{collection}?watch=1&timeoutSeconds=1&resourceVersion={revision}{selector}");
        let told = api.get_as(&watch, CONTENT_TYPE).await;
        assert_eq!(told.headers["content-type"], WATCH);
        let (told, lines) = (frames(&told.body), lines(&api.get(&watch).await));
        assert_eq!(told.len(), if selector.is_empty() { 3 } else { 2 });
        for ((change, body), line) in told.iter().zip(&lines) {
            assert_eq!(line["type"], *change);
            let said = Object::from_value(line["object"].clone()).unwrap();
            assert_eq!(meant(protobuf::decode(body).unwrap()), meant(said), "{change}");
        }
        assert_eq!(told.len(), lines.len());
    }
    let initial = format!(
        "{collection}?watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true\
        &resourceVersionMatch=NotOlderThan"
    );
    for accept in [CONTENT_TYPE, METADATA] {
        let told = frames(&api.get_as(&initial, accept).await.body);
        assert_eq!(told.iter().map(|(change, _)| change.as_str()).collect::<Vec<_>>(), ["ADDED", "BOOKMARK"]);
        let metadata = "meta.k8s.io/v1/PartialObjectMetadata".to_owned();
        let whole = format!("{}/{}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        for (_, body) in &told {
            let (kind, raw) = unframed(body);
            assert_eq!(kind, if accept == METADATA { metadata.clone() } else { whole.clone() });
            assert!(!wire::Item::decode(&raw[..]).unwrap().metadata.unwrap().resource_version.is_empty());
        }
        let end = b"k8s.io/initial-events-end";
        assert!(told[1].1.windows(end.len()).any(|window| window == end));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_too_long_ago_ends_with_an_error_in_its_encoding() {
    let api = Api::start_without_loops().await;
    // Something there is to forget.
    assert_eq!(api.post(CONFIG_MAPS, &json!({"metadata": {"name": "x"}})).await.code, 201);
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/x"), &json!({})).await.code, 200);
    api.compact().await;
    let api = api.restart().await;
    let told = frames(&api.get_as("/api/v1/pods?watch=1&resourceVersion=1&timeoutSeconds=5", CONTENT_TYPE).await.body);
    assert_eq!((told.len(), told[0].0.as_str()), (1, "ERROR"));
    let status = protobuf::decode(&told[0].1).unwrap();
    assert_eq!((status.kind(), status.i64_at("/code"), status.str_at("/reason")), ("Status", Some(410), "Expired"));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_in_what_the_client_takes() {
    let api = Api::start_without_loops().await;
    let missing = format!("{CONFIG_MAPS}/none");
    let json = api.get(&missing).await;
    let refused = api.get_as(&missing, "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(refused.code, 404);
    assert_eq!(meant(in_protobuf(&refused)), meant(from_json(&json)));
    assert_eq!(in_protobuf(&refused).str_at("/details/kind"), "configmaps");
    let yaml = api.get_as(&missing, "application/yaml").await;
    assert_eq!((yaml.code, yaml.headers["content-type"].to_str().unwrap()), (404, "application/yaml"));
    assert!(yaml.text().contains("reason: NotFound"));
    // An invalid object, with its causes.
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad"}});
    let refused = in_protobuf(&send(&api, "POST", CONFIG_MAPS, &bad).await);
    assert_eq!((refused.i64_at("/code"), refused.str_at("/details/causes/0/field")), (Some(422), "metadata.name"));
    // What no client can be told in its own tongue is told in JSON.
    let accepted = "only the following media types are accepted: ";
    let protobuf_table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    for (path, accept, words) in [
        (CONFIG_MAPS, "text/html", "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        (CONFIG_MAPS, protobuf_table, "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        (
            "/api/v1/configmaps?watch=1",
            "application/yaml",
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (
            "/apis/metrics.k8s.io/v1beta1/nodes",
            CONTENT_TYPE,
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
    ] {
        let refused = api.get_as(path, accept).await;
        assert_eq!(refused.code, 406, "{path} {accept}");
        let status = match refused.headers["content-type"].to_str().unwrap() {
            CONTENT_TYPE => in_protobuf(&refused),
            "application/yaml" => continue,
            _ => from_json(&refused),
        };
        assert_eq!(status.str_at("/message"), format!("{accepted}{words}"), "{path} {accept}");
        assert_eq!(status.str_at("/reason"), "NotAcceptable");
    }
    let table =
        api.get_as(CONFIG_MAPS, &format!("{protobuf_table},application/json;as=Table;g=meta.k8s.io;v=v1")).await;
    assert_eq!((table.code, table.json()["kind"].as_str()), (200, Some("Table")));
    // Nothing is done for who could not be told of it.
    let body = bad.to_string().to_lowercase().replace("configmap", "ConfigMap").into_bytes();
    let headers = [("content-type", "application/json"), ("accept", "text/html")];
    assert_eq!(api.send_bytes("POST", CONFIG_MAPS, body, &headers).await.code, 406);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/bad")).await.code, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subresources_and_reviews_are_answered_in_protobuf() {
    let api = with_examples().await;
    let deployment = "/apis/apps/v1/namespaces/default/deployments/d";
    let scale = in_protobuf(&api.get_as(&format!("{deployment}/scale"), CONTENT_TYPE).await);
    assert_eq!((scale.kind(), scale.i64_at("/spec/replicas")), ("Scale", Some(0)));
    let mut wanted = scale.into_value();
    wanted["spec"]["replicas"] = json!(2);
    let scaled = send(&api, "PUT", &format!("{deployment}/scale"), &wanted).await;
    assert_eq!(in_protobuf(&scaled).i64_at("/spec/replicas"), Some(2));
    let pods = "/api/v1/namespaces/default/pods";
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    let bound = send(&api, "POST", &format!("{pods}/p/binding"), &binding).await;
    assert_eq!((bound.code, in_protobuf(&bound).str_at("/status")), (201, "Success"));
    let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}});
    let told = in_protobuf(&send(&api, "PUT", &format!("{pods}/p/status"), &status).await);
    assert_eq!((told.str_at("/status/phase"), told.str_at("/spec/nodeName")), ("Running", "n"));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evicted = send(&api, "POST", &format!("{pods}/p/eviction"), &eviction).await;
    assert_eq!((evicted.code, in_protobuf(&evicted).str_at("/status")), (201, "Success"));
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {"audiences": [], "expirationSeconds": 600}});
    let token = send(&api, "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", &request).await;
    assert_eq!((token.code, in_protobuf(&token).str_at("/status/token").split('.').count()), (201, 3));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviewed = send(&api, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await;
    assert_eq!(in_protobuf(&reviewed).bool_at("/status/allowed"), Some(true));
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let gone = in_protobuf(&send(&api, "DELETE", &format!("{lease}/l"), &options).await);
    assert_eq!((gone.kind(), gone.str_at("/details/name")), ("Status", "l"));
    let events = "/api/v1/namespaces/default/events";
    let gone = in_protobuf(&send(&api, "DELETE", events, &options).await);
    assert_eq!((gone.kind(), gone.str_at("/items/0/metadata/name")), ("EventList", "e.1"));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_read_json_over_lines() {
    let api = Api::start_without_loops().await;
    let namespace = "/api/v1/namespaces/default";
    let compact = api.get(namespace).await;
    let curl = api.get_with(namespace, &[("user-agent", "curl/8.5.0")]).await;
    assert!(
        curl.text().starts_with("{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Namespace\",\n  \"metadata\": {\n    \"")
    );
    assert_eq!(curl.json(), compact.json());
    assert_eq!(api.get(&format!("{namespace}?pretty=1")).await.body, curl.body);
    let compacted = api.get_with(&format!("{namespace}?pretty=0"), &[("user-agent", "curl/8.5.0")]).await;
    assert_eq!(compacted.body, compact.body);
    let refusal = api.get_with(&format!("{CONFIG_MAPS}/none"), &[("user-agent", "curl/8.5.0")]).await;
    assert!(refusal.code == 404 && refusal.text().starts_with("{\n  \"apiVersion\""), "{}", refusal.text());
    api.stop().await;
}

/// Parsing the JSON of such a Pod takes some thirty microseconds; writing it must not be what a request waits for.
#[tokio::test]
#[ignore = "a measurement: run it with --release and --nocapture"]
async fn a_pod_costs_microseconds() {
    const ROUNDS: u32 = 20_000;
    let (_, pod) = examples().swap_remove(0);
    let mut pod = Object::from_value(pod).unwrap();
    let containers: Vec<Value> = (0..8).map(|_| pod.0["spec"]["containers"][0].clone()).collect();
    pod.map_mut("spec").insert("containers".to_owned(), containers.into());
    pod.map_mut("metadata").insert("annotations".to_owned(), json!({"a": "x".repeat(900)}));
    let pod = meant(pod);
    let json = pod.to_vec();
    let started = tokio::time::Instant::now();
    let bytes: usize = (0..ROUNDS).map(|_| encode::encode(&pod).unwrap().len()).sum();
    let (written, started) = (started.elapsed() / ROUNDS, tokio::time::Instant::now());
    let parsed: usize = (0..ROUNDS).map(|_| Object::from_slice(&json).unwrap().0.len()).sum();
    let parsing = started.elapsed() / ROUNDS;
    println!("{} bytes of JSON in {parsing:?}, {} of protobuf in {written:?}", json.len(), bytes / ROUNDS as usize);
    assert!(parsed > 0 && written.as_micros() < 1000, "{written:?}");
}
