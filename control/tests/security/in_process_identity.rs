//! SECURITY 20: nothing that a client can send makes it somebody else, over either wire.

use std::sync::Arc;

use bytes::Bytes;
use gantry_control::auth::Identity;
use gantry_pki::{Authority, Profile, Reloading, tls};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::house::House;

const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Every header by which some server somewhere lets a proxy name the user.
const IDENTITY_HEADERS: [&str; 24] = [
    "x-remote-user",
    "x-remote-uid",
    "x-remote-group",
    "x-remote-groups",
    "x-remote-extra-scopes",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-client-cert",
    "x-forwarded-access-token",
    "x-auth-request-user",
    "x-auth-request-groups",
    "x-client-cert",
    "x-client-dn",
    "x-ssl-client-cert",
    "x-ssl-client-s-dn",
    "ssl-client-cert",
    "x-amzn-oidc-identity",
    "x-goog-authenticated-user-email",
    "x-kubernetes-user",
    "x-gantry-identity",
    "remote-user",
    "x-user",
];

fn request(method: Method, path: &str, extra: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method.clone()).uri(format!("https://localhost{path}"));
    request = request.header("host", "localhost");
    for name in IDENTITY_HEADERS {
        request = request.header(name, "system:masters");
    }
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    let body = if method == Method::POST {
        request = request.header("content-type", "application/json");
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string()
    } else {
        String::new()
    };
    request.body(Full::new(Bytes::from(body))).unwrap()
}

impl House {
    /// Sends over TLS as whoever the profile names, or as nobody.
    async fn send(&self, profile: Option<&Profile>, h2: bool, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        let ca: &Authority = &self.control.credentials().authority;
        let shown = profile.map(|profile| Reloading::new(&ca.issue(profile, &self.env).unwrap()).unwrap());
        let mut config = tls::client_config(ca.certificate_pem(), shown.as_ref(), &self.env.clock).unwrap();
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(self.control.address()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap());
        let answer = if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_who_its_credential_says_whatever_it_sends() {
    let house = House::start().await;
    let plain = Profile::client("somebody", None);
    for h2 in [false, true] {
        for path in ["/api/v1/namespaces", "/api", "/metrics", "/version"] {
            let (status, _) = house.send(None, h2, request(Method::GET, path, &[])).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} to nobody (h2: {h2})");
        }
        let (status, _) = house.send(None, h2, request(Method::GET, "/livez", &[])).await;
        assert_eq!(status, StatusCode::OK);

        let (status, review) = house.send(Some(&plain), h2, request(Method::POST, WHO_AM_I, &[])).await;
        assert_eq!(status, StatusCode::CREATED, "{review}");
        assert_eq!(review["status"]["userInfo"]["username"], "somebody");
        assert_eq!(review["status"]["userInfo"]["groups"], json!(["system:authenticated"]));
        let (status, _) = house.send(Some(&plain), h2, request(Method::GET, "/api/v1/secrets", &[])).await;
        assert_eq!(status, StatusCode::FORBIDDEN);

        for extra in [
            &[("impersonate-user", "kubernetes-admin")][..],
            &[("impersonate-user", "somebody"), ("impersonate-group", "system:masters")],
        ] {
            let (status, _) = house.send(Some(&plain), h2, request(Method::POST, WHO_AM_I, extra)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{extra:?}");
            let (status, _) = house.send(None, h2, request(Method::POST, WHO_AM_I, extra)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{extra:?} from nobody");
        }
        for token in ["Bearer system:masters", "Bearer eyJhbGciOiJub25lIn0.e30.", "Basic c3lzdGVtOm1hc3RlcnM6"] {
            let wrong = request(Method::GET, "/livez", &[("authorization", token)]);
            assert_eq!(house.send(None, h2, wrong).await.0, StatusCode::UNAUTHORIZED, "{token}");
        }
    }
    let admin = Profile::client("root", Some("system:masters"));
    let act = request(Method::POST, WHO_AM_I, &[("impersonate-user", "somebody")]);
    let (status, review) = house.send(Some(&admin), true, act).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(review["status"]["userInfo"]["username"], "somebody", "who may act as another, does");
    house.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_the_composer_says_who_it_is() {
    let house = House::start().await;
    let client = house.control.client(Identity::component("system:kube-scheduler"));
    let mut asked = request(Method::POST, WHO_AM_I, &[]).map(|_| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string().into_bytes()
    });
    // What a client leaves in the extensions is thrown away with the rest.
    asked.extensions_mut().insert(Identity::new("root", ["system:masters"]));
    *asked.uri_mut() = WHO_AM_I.parse().unwrap();
    let review: Value = client.request(asked).await.unwrap();
    assert_eq!(review["status"]["userInfo"]["username"], "system:kube-scheduler");
    assert_eq!(review["status"]["userInfo"]["groups"], json!(["system:authenticated"]));
    drop(client);
    house.control.stop().await;
}
