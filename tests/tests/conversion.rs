//! A custom kind whose versions differ in more than their name: a webhook over real TLS turns one into the other.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_env::Env;
use gantry_pki::{Authority, ClientAuth, Profile, Reloading, tls};
use gantry_tests::api::Api;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const OLD: &str = "/apis/example.com/v1/namespaces/default/hosts";
const NEW: &str = "/apis/example.com/v2/namespaces/default/hosts";

/// v1 has `spec.address` (`a:1`), v2 has `spec.host` and `spec.port`.
fn converted(mut object: Value, to: &str) -> Value {
    object["apiVersion"] = json!(to);
    let spec = object["spec"].take();
    object["spec"] = match to {
        "example.com/v2" => {
            let (host, port) = spec["address"].as_str().unwrap_or("").split_once(':').unwrap_or_default();
            json!({"host": host, "port": port})
        }
        _ => {
            json!({"address": format!("{}:{}", spec["host"].as_str().unwrap_or(""), spec["port"].as_str().unwrap_or(""))})
        }
    };
    object
}

async fn review(request: Request<Incoming>, fails: Arc<AtomicBool>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let asked = review["request"].take();
    let to = asked["desiredAPIVersion"].as_str().unwrap_or("").to_owned();
    let objects: Vec<Value> = asked["objects"].as_array().cloned().unwrap_or_default();
    let objects: Vec<Value> = objects.into_iter().map(|object| converted(object, &to)).collect();
    let result = match fails.load(Ordering::SeqCst) {
        true => json!({"status": "Failure", "message": "not today"}),
        false => json!({"status": "Success"}),
    };
    review["response"] = json!({"uid": asked["uid"], "convertedObjects": objects, "result": result});
    Ok(Response::new(Full::new(Bytes::from(review.to_string()))))
}

/// Where the webhook is, and whom to believe there.
async fn webhook(fails: Arc<AtomicBool>) -> (SocketAddr, String) {
    let env = Env::system();
    let authority = Authority::create("webhooks", &env).unwrap();
    let shown = Reloading::new(&authority.issue(&Profile::server("webhook", ["127.0.0.1"]), &env).unwrap()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&shown, ClientAuth::None, &env.clock).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, fails) = (acceptor.clone(), fails.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request| review(request, fails.clone()));
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, authority.certificate_pem().to_owned())
}

fn definition(address: SocketAddr, ca: &str) -> Value {
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let text = json!({"type": "string"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "hosts.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "singular": "host", "kind": "Host"},
            "versions": [version("v1", true, json!({"address": text})), version("v2", false, json!({"host": text, "port": text}))],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://{address}/convert"), "caBundle": STANDARD.encode(ca)}}},
        },
    })
}

async fn established(api: &Api) {
    let found = async {
        loop {
            let found = api.get(&format!("{DEFINITIONS}/hosts.example.com")).await.json();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("the definition is established");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_turns_versions_into_each_other() {
    let fails = Arc::new(AtomicBool::new(false));
    let (address, ca) = webhook(fails.clone()).await;
    let api = Api::start().await;
    let made = api.post(DEFINITIONS, &definition(address, &ca)).await;
    assert_eq!(made.code, 201, "{}", made.text());
    established(&api).await;
    // Written in the one that is not stored, read in both.
    let sent = json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"host": "h", "port": "80"}});
    let made = api.post(NEW, &sent).await;
    assert_eq!((made.code, &made.json()["spec"]), (201, &json!({"host": "h", "port": "80"})), "{}", made.text());
    let old = api.get(&format!("{OLD}/a")).await.json();
    assert_eq!((&old["apiVersion"], &old["spec"]), (&json!("example.com/v1"), &json!({"address": "h:80"})));
    assert_eq!(old["metadata"]["uid"], made.json()["metadata"]["uid"]);
    let patch = json!({"spec": {"port": "81"}}).to_string();
    let patched = api.send("PATCH", &format!("{NEW}/a"), &patch, "application/merge-patch+json").await;
    assert_eq!(patched.json()["spec"], json!({"host": "h", "port": "81"}), "{}", patched.text());
    assert_eq!(api.get(&format!("{OLD}/a")).await.json()["spec"]["address"], "h:81");
    for n in 0..3 {
        let more = json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": format!("b{n}")},
            "spec": {"address": format!("b:{n}")}});
        assert_eq!(api.post(OLD, &more).await.code, 201);
    }
    let listed = api.get(NEW).await.json();
    let ports: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|item| &item["spec"]["port"]).collect();
    assert_eq!(ports, ["81", "0", "1", "2"]);
    // What it refuses is told with its words, and nothing is written. What was converted before is there.
    fails.store(true, Ordering::SeqCst);
    let refused =
        api.send("PATCH", &format!("{NEW}/a"), &patch.replace("81", "82"), "application/merge-patch+json").await;
    assert_eq!(refused.code, 500, "{}", refused.text());
    let said = "conversion webhook for example.com/v2, Kind=Host failed: not today";
    assert_eq!(refused.json()["message"], format!("Internal error occurred: {said}"));
    assert_eq!(api.get(&format!("{NEW}/a")).await.json()["spec"]["port"], "81");
    api.stop().await;
}
