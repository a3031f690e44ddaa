//! Tokens that must not be taken, each made with as much knowledge as an attacker can have.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_env::Env;
use gantry_kube::resource::{POD, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref};
use gantry_pki::es256::SigningKey;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::auth::objects::Objects;
use crate::auth::token::{ISSUER, TokenError, Verified};
use crate::auth::{Authenticator, Identity, Tokens, review};

struct House {
    objects: Arc<Objects>,
    tokens: Arc<Tokens>,
    /// The attacker's own issuer: the same code with another key.
    rogue: Tokens,
}

fn house() -> House {
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let objects = Arc::new(Objects::of([
        json!({"kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "a", "uid": "sa-1"}}),
        json!({"kind": "Node", "metadata": {"name": "n", "uid": "node-1"}}),
        json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "pod-1"},
               "spec": {"serviceAccountName": "web", "nodeName": "n"}}),
        json!({"kind": "Pod", "metadata": {"name": "q", "namespace": "a", "uid": "pod-2"},
               "spec": {"serviceAccountName": "other"}}),
    ]));
    let make = || Tokens::new(SigningKey::generate().unwrap(), objects.clone(), env.clone());
    House { tokens: Arc::new(make()), rogue: make(), objects: objects.clone() }
}

fn body(spec: Value) -> Object {
    Object::from_value(json!({"spec": spec})).unwrap()
}

fn token(tokens: &Tokens, spec: Value) -> String {
    tokens.request("a", "web", &body(spec), false).unwrap().str_at("/status/token").to_owned()
}

fn pod_token(tokens: &Tokens) -> String {
    token(tokens, json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod-1"}}))
}

impl House {
    fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        self.tokens.verify(token, &[ISSUER])
    }
}

/// The token with `change` made to its header and claims, under the signature that it had.
fn tampered(token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let (mut header, mut claims) = (read(parts[0]), read(parts[1]));
    change(&mut header, &mut claims);
    let write = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", write(&header), write(&claims), parts[2])
}

#[tokio::test(start_paused = true)]
async fn a_token_speaks_for_its_account_and_tells_of_its_pod() {
    let house = house();
    let verified = house.verify(&pod_token(&house.tokens)).unwrap();
    let identity = verified.identity;
    assert_eq!((identity.user.as_str(), identity.uid.as_str()), ("system:serviceaccount:a:web", "sa-1"));
    for group in ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"] {
        assert!(identity.in_group(group), "{group}");
    }
    assert_eq!(identity.extra["authentication.kubernetes.io/pod-uid"], ["pod-1"]);
    assert_eq!(identity.extra["authentication.kubernetes.io/node-name"], ["n"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_a_token_without_the_key() {
    let house = house();
    let good = pod_token(&house.tokens);
    assert!(house.verify(&good).is_ok());
    let refused = |token: &str| house.verify(token).unwrap_err();

    let none = tampered(&good, |header, _| header["alg"] = json!("none"));
    assert!(matches!(refused(&none), TokenError::Algorithm { .. }));
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    assert!(matches!(refused(&unsigned), TokenError::Algorithm { .. }));
    for alg in ["HS256", "RS256", "es256", "ES384"] {
        assert!(matches!(refused(&tampered(&good, |h, _| h["alg"] = json!(alg))), TokenError::Algorithm { .. }));
    }
    // Signed by another key, under that key's id and under ours.
    assert!(matches!(refused(&pod_token(&house.rogue)), TokenError::UnknownKey { .. }));
    let kid = house.tokens.jwks()["keys"][0]["kid"].clone();
    assert_eq!(refused(&tampered(&pod_token(&house.rogue), |h, _| h["kid"] = kid)), TokenError::Signature);
    let embedded = tampered(&good, |header, _| header["jwk"] = house.rogue.jwks()["keys"][0].clone());
    assert!(matches!(refused(&embedded), TokenError::Header { name: "jwk" }));
    // Other claims under a good signature.
    for change in [json!({"sub": "system:serviceaccount:a:admin"}), json!({"exp": 99_999_999_999_i64})] {
        let token = tampered(&good, |_, claims| {
            let (key, value) = change.as_object().unwrap().iter().next().unwrap();
            claims[key] = value.clone();
        });
        assert_eq!(refused(&token), TokenError::Signature, "{change}");
    }
    for (junk, why) in [("", TokenError::Malformed), ("a.b", TokenError::Malformed), ("a.b.c.d", TokenError::Malformed)]
    {
        assert_eq!(refused(junk), why);
    }
    assert_eq!(refused(&"a".repeat(20_000)), TokenError::TooLong);
}

#[tokio::test(start_paused = true)]
async fn one_changed_character_is_enough() {
    let house = house();
    let good = pod_token(&house.tokens);
    for at in 0..good.len() {
        for other in ["A", "B", "_", ".", "=", "é"] {
            let changed = format!("{}{other}{}", &good[..at], &good[at + 1..]);
            assert!(changed == good || house.verify(&changed).is_err(), "{other:?} at {at}");
        }
        assert!(house.verify(&good[..at]).is_err(), "cut at {at}");
    }
    for spaced in [format!("{good} "), format!("{good}="), format!("{good}.")] {
        assert!(house.verify(&spaced).is_err(), "{spaced:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_for_others_is_not_ours() {
    let house = house();
    let vault = token(&house.tokens, json!({"audiences": ["vault"]}));
    assert!(matches!(house.verify(&vault), Err(TokenError::Audience { .. })));
    assert_eq!(house.tokens.verify(&vault, &["vault", "x"]).unwrap().audiences, ["vault"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_its_time() {
    let house = house();
    let short = token(&house.tokens, json!({"expirationSeconds": 600}));
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(house.verify(&short).is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(house.verify(&short), Err(TokenError::Expired));
    let refused = house.tokens.request("a", "web", &body(json!({"expirationSeconds": 599})), false).unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("may not specify a duration less than 10 minutes"), "{}", refused.message);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_its_objects() {
    let house = house();
    let (bound, free) = (pod_token(&house.tokens), token(&house.tokens, json!({})));
    house.objects.remove(&POD, &Ref::new("a", "p"));
    assert!(matches!(house.verify(&bound), Err(TokenError::Gone { kind: "Pod", .. })));
    house.objects.put(json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "pod-9"}}));
    assert!(matches!(house.verify(&bound), Err(TokenError::Gone { .. })), "a namesake is another pod");
    assert!(house.verify(&free).is_ok());
    house.objects.remove(&SERVICE_ACCOUNT, &Ref::new("a", "web"));
    assert!(matches!(house.verify(&free), Err(TokenError::Gone { kind: "ServiceAccount", .. })));
    house.objects.put(json!({"kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "a", "uid": "sa-2"}}));
    assert!(house.verify(&free).is_err(), "a namesake is another account");
}

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_keeps_its_token_until_its_grace_is_over() {
    let house = house();
    let bound = pod_token(&house.tokens);
    house.objects.put(json!({"kind": "Pod", "spec": {"serviceAccountName": "web"}, "metadata": {
        "name": "p", "namespace": "a", "uid": "pod-1", "deletionTimestamp": "2026-01-01T00:00:30Z"}}));
    assert!(house.verify(&bound).is_ok());
    tokio::time::advance(Duration::from_secs(91)).await;
    assert!(matches!(house.verify(&bound), Err(TokenError::Gone { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_only_bound_to_what_is_there_and_fits() {
    let house = house();
    let request = |reference: Value| {
        house.tokens.request("a", "web", &body(json!({"boundObjectRef": reference})), false).unwrap_err()
    };
    let pod = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    assert_eq!(request(pod("gone", "")).code, 404);
    assert_eq!(request(pod("p", "pod-0")).code, 409);
    assert_eq!(request(pod("q", "pod-2")).code, 400);
    assert_eq!(request(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x"})).code, 400);
    assert_eq!(house.tokens.request("a", "gone", &body(json!({})), false).unwrap_err().code, 404);
}

#[tokio::test(start_paused = true)]
async fn only_a_certificate_or_a_token_makes_somebody() {
    let house = house();
    let door = Authenticator::new(house.tokens.clone());
    let mut headers = HeaderMap::new();
    // Every header by which some proxy somewhere names a user.
    for name in [
        "x-remote-user",
        "x-remote-group",
        "x-remote-extra-scopes",
        "x-remote-uid",
        "x-forwarded-user",
        "x-forwarded-client-cert",
        "x-client-cert",
        "x-ssl-client-cert",
        "x-auth-request-user",
        "remote-user",
        "x-gantry-identity",
        "x-gantry-user",
        "forwarded",
        "cookie",
        "x-kubernetes-user",
    ] {
        headers.insert(name, "system:masters".parse().unwrap());
    }
    assert_eq!(door.authenticate(None, &headers, "/api/v1/pods").unwrap_err().code, 401);
    for path in ["/livez", "/readyz/ping", "/healthz"] {
        assert_eq!(door.authenticate(None, &headers, path).unwrap(), Identity::anonymous());
    }
    for path in ["/livezz", "/", "/version", "/api", "/readyz.x"] {
        assert_eq!(door.authenticate(None, &headers, path).unwrap_err().code, 401, "{path}");
    }
    for credential in ["Basic YTpi", "Bearer", "Bearer  ", "Bearer nonsense", "Negotiate x", ""] {
        headers.insert(AUTHORIZATION, credential.parse().unwrap());
        assert_eq!(door.authenticate(None, &headers, "/livez").unwrap_err().code, 401, "{credential:?} is not nobody");
    }
    let good = format!("Bearer {}", pod_token(&house.tokens));
    headers.insert(AUTHORIZATION, good.parse().unwrap());
    let identity = door.authenticate(None, &headers, "/api").unwrap();
    assert_eq!(identity.user, "system:serviceaccount:a:web");
    assert!(!identity.in_group("system:masters"));
    headers.append(AUTHORIZATION, good.parse().unwrap());
    assert_eq!(door.authenticate(None, &headers, "/api").unwrap_err().code, 401, "two credentials are none");
}

#[tokio::test(start_paused = true)]
async fn a_token_review_answers_in_its_status() {
    let house = house();
    let ask = |token: &str| {
        review::token(&house.tokens, &Object::from_value(json!({"spec": {"token": token}})).unwrap()).unwrap()
    };
    let good = ask(&pod_token(&house.tokens));
    assert_eq!(good.bool_at("/status/authenticated"), Some(true));
    assert_eq!(good.str_at("/status/user/username"), "system:serviceaccount:a:web");
    let bad = ask("nonsense");
    assert_eq!(bad.bool_at("/status/authenticated"), Some(false));
    assert!(bad.str_at("/status/error").starts_with("invalid bearer token"));
}

#[tokio::test(start_paused = true)]
async fn the_published_key_is_the_one_that_signs() {
    let house = house();
    let keys = house.tokens.jwks();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(keys["keys"][0][name].as_str().unwrap()).unwrap();
    let mut point = vec![4];
    point.extend(part("x"));
    point.extend(part("y"));
    let token = pod_token(&house.tokens);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let key = gantry_pki::es256::VerifyingKey::from_point(&point).unwrap();
    assert!(key.verifies(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
    assert_eq!(house.tokens.openid_configuration()["issuer"], ISSUER);
}
