//! Service-account tokens: as clients send them, and signed by ourselves, so that what lies behind the signature is
//! reached too.

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_control::auth::Lookup;
use gantry_control::auth::token::{ISSUER, Tokens};
use gantry_env::Env;
use gantry_kube::resource::{NODE, POD, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref, Resource};
use gantry_pki::es256::SigningKey;
use serde_json::{Value, json};

use super::input::{Input, texts};

const UID: &str = "11111111-2222-4333-8444-555555555555";
/// Stands in a header for the id of our key.
const OWN_KEY: &str = "$KEY";

/// One of each kind.
struct Cluster;

impl Lookup for Cluster {
    fn get(&self, resource: &Resource, at: &Ref) -> Option<Arc<Object>> {
        let known = [(&SERVICE_ACCOUNT, Ref::new("a", "sa")), (&POD, Ref::new("a", "p")), (&NODE, Ref::cluster("n"))];
        known.iter().any(|(kind, place)| *kind == resource && place == at).then(|| {
            let object = json!({"metadata": {"name": at.name, "namespace": at.namespace, "uid": UID}});
            Arc::new(Object::from_value(object).unwrap_or_default())
        })
    }

    fn list(&self, _: &Resource, _: Option<&str>) -> Vec<Arc<Object>> {
        Vec::new()
    }

    fn version(&self, _: &Resource) -> u64 {
        0
    }
}

struct Issuer {
    key: SigningKey,
    key_id: String,
    tokens: Tokens,
}

fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for a key");
        let path = folder.path().join("key");
        let load = || SigningKey::load_or_create(&path).expect("a key");
        let (key, same) = (load(), load());
        let key_id = URL_SAFE_NO_PAD.encode(key.verifying().digest());
        let env = Env::simulated(jiff::Timestamp::from_second(1_767_323_045).unwrap_or_default(), 1);
        Issuer { key, key_id, tokens: Tokens::new(same, Arc::new(Cluster), env) }
    })
}

/// A token as it is, or a header, a NUL, and claims, which are signed.
pub(super) fn token(data: &[u8]) {
    let mut input = Input(data);
    if !data.contains(&0) {
        let text = String::from_utf8_lossy(data);
        assert!(issuer().tokens.verify(&text, &[ISSUER]).is_err(), "nobody signed it");
        return;
    }
    let header = input.text_until(0).replace(OWN_KEY, &issuer().key_id);
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", part(header.as_bytes()), part(input.0));
    let signature = issuer().key.sign(message.as_bytes()).expect("a signature");
    let text = format!("{message}.{}", part(&signature));
    let Ok(verified) = issuer().tokens.verify(&text, &[ISSUER, "other"]) else { return };
    let claims: Value = serde_json::from_slice(input.0).expect("claims are JSON");
    let header: Value = serde_json::from_str(&header).expect("a header is JSON");
    assert_eq!(header["alg"], "ES256");
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["uid"], UID, "the account is the one that lives");
    assert_eq!(verified.identity.user, "system:serviceaccount:a:sa");
    assert!(verified.audiences.iter().all(|audience| [ISSUER, "other"].contains(&audience.as_str())));
    assert!(!verified.audiences.is_empty() && claims["exp"].as_i64().is_some_and(|at| at > 1_767_323_045));
    assert!(issuer().tokens.verify(&text, &["third"]).is_err(), "another audience takes it");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let header = r#"{"alg":"ES256","kid":"$KEY"}"#;
    let claims = |objects: Value| {
        json!({"iss": ISSUER, "sub": "system:serviceaccount:a:sa", "aud": [ISSUER, "other"], "exp": 4_102_444_800_i64,
            "iat": 1_767_323_045, "nbf": 1_767_323_045, "jti": "j", "kubernetes.io": objects})
    };
    let account = json!({"name": "sa", "uid": UID});
    let mut seeds = texts(&["a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"]);
    let mut with = |header: &str, claims: &Value| seeds.push(format!("{header}\0{claims}").into_bytes());
    with(header, &claims(json!({"namespace": "a", "serviceaccount": account})));
    let bound =
        json!({"namespace": "a", "serviceaccount": account, "pod": {"name": "p", "uid": UID}, "node": {"name": "n"}});
    with(header, &claims(bound));
    with(header, &claims(json!({"namespace": "a", "serviceaccount": account, "node": {"name": "n", "uid": UID}})));
    with(r#"{"alg":"none","kid":"$KEY"}"#, &claims(json!({})));
    with(r#"{"alg":"ES256","kid":"$KEY","crit":["x"],"jwk":{}}"#, &claims(json!({})));
    let mut forever = claims(json!({"namespace": "a", "serviceaccount": {"name": "sa", "uid": UID}}));
    (forever["exp"], forever["nbf"]) = (json!(i64::MAX), json!(i64::MIN));
    with(header, &forever);
    seeds
}
