//! Service-account tokens: JWTs (RFC 7519) by ES256, bound to a living ServiceAccount and, mostly, to a living pod.
//!
//! The algorithm is a constant and never read from a token; the key id must be ours. A token is worth what its objects
//! are: when the ServiceAccount or the bound object is gone, or was made anew under the same name, so is the token.

mod known;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_env::{Env, format_seconds};
use gantry_kube::resource::{NODE, POD, SECRET, SERVICE_ACCOUNT};
use gantry_kube::{FieldError, Object, Ref, Resource, Status};
use gantry_pki::PkiError;
use gantry_pki::es256::SigningKey;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::SERVICE_ACCOUNT_USER_PREFIX;
use super::{Identity, Lookup};
use known::Known;

/// The issuer, which is also the audience of the API server itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
pub const JWKS_PATH: &str = "/openid/v1/jwks";
const ALGORITHM: &str = "ES256";
/// Longer bearer tokens are not looked at.
pub const TOKEN_MAX_BYTES: usize = 16 << 10;
const EXPIRATION_MIN_SECONDS: i64 = 600;
const EXPIRATION_MAX_SECONDS: i64 = 1 << 32;
const EXPIRATION_DEFAULT_SECONDS: i64 = 3600;
/// How far the clocks of two control hosts may be apart, and how long a token outlives its object's deletion time.
const LEEWAY_SECONDS: i64 = 60;

/// Why a bearer token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {TOKEN_MAX_BYTES} bytes")]
    TooLong,
    #[error("the token is not a JWT of three parts")]
    Malformed,
    #[error("the token's algorithm is {found:?}, only {ALGORITHM} is accepted")]
    Algorithm { found: String },
    #[error("the token is signed with the unknown key {found:?}")]
    UnknownKey { found: String },
    #[error("the token's header asks for {name:?}, which is not supported")]
    Header { name: &'static str },
    #[error("the token's signature is invalid")]
    Signature,
    #[error("the token lacks the claim {name:?}")]
    Claim { name: &'static str },
    #[error("the token's issuer is {found:?}")]
    Issuer { found: String },
    #[error("the token is for the audiences {found:?}")]
    Audience { found: Vec<String> },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("the {kind} {at} that the token is bound to is gone")]
    Gone { kind: &'static str, at: String },
}

/// Issues and verifies tokens.
pub struct Tokens {
    key: SigningKey,
    key_id: String,
    lookup: Arc<dyn Lookup>,
    env: Env,
    known: Known,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Whom a token speaks for, and for which of the asked audiences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub identity: Identity,
    pub audiences: Vec<String>,
}

/// Another object that a token dies with.
struct Bound {
    resource: &'static Resource,
    claim: &'static str,
    object: Arc<Object>,
}

impl Tokens {
    pub fn new(key: SigningKey, lookup: Arc<dyn Lookup>, env: Env) -> Tokens {
        let key_id = URL_SAFE_NO_PAD.encode(key.verifying().digest());
        Tokens { key, key_id, lookup, env, known: Known::default() }
    }

    /// Answers `POST …/serviceaccounts/NAME/token`: the TokenRequest with its status. A dry run learns whether there would
    /// be a token, and gets none.
    pub fn request(&self, namespace: &str, name: &str, body: &Object, dry_run: bool) -> Result<Object, Status> {
        let account = self
            .lookup
            .get(&SERVICE_ACCOUNT, &Ref::new(namespace, name))
            .ok_or_else(|| Status::not_found(&SERVICE_ACCOUNT, name))?;
        let seconds = body.i64_at("/spec/expirationSeconds").unwrap_or(EXPIRATION_DEFAULT_SECONDS);
        check_expiration(seconds)?;
        let mut audiences = strings(body.get("/spec/audiences"));
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let bound = match body.get("/spec/boundObjectRef").filter(|reference| !reference.is_null()) {
            Some(reference) => Some(self.bound(namespace, name, reference)?),
            None => None,
        };
        let now = self.env.clock.now();
        let claims = self.claims(&account, bound.as_ref(), &audiences, now, seconds);
        let token = if dry_run { String::new() } else { self.sign(&claims).map_err(Status::internal)? };
        let expires = Timestamp::from_second(now.as_second() + seconds).map_err(Status::internal)?;
        let mut answer = body.clone();
        answer.0.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
        answer.0.insert("kind".to_owned(), json!("TokenRequest"));
        let metadata = answer.metadata_mut();
        metadata.insert("name".to_owned(), json!(name));
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("creationTimestamp".to_owned(), json!(format_seconds(now)));
        let spec = answer.map_mut("spec");
        spec.insert("audiences".to_owned(), json!(audiences));
        spec.insert("expirationSeconds".to_owned(), json!(seconds));
        spec.entry("boundObjectRef").or_insert(Value::Null);
        let status = json!({"token": token, "expirationTimestamp": format_seconds(expires)});
        answer.0.insert("status".to_owned(), status);
        Ok(answer)
    }

    fn bound(&self, namespace: &str, account: &str, reference: &Value) -> Result<Bound, Status> {
        let text = |key: &str| reference[key].as_str().unwrap_or("").to_owned();
        let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
        let (resource, claim, at) = match (text("apiVersion").as_str(), kind.as_str()) {
            ("v1" | "", "Pod") => (&POD, "pod", Ref::new(namespace, &name)),
            ("v1" | "", "Secret") => (&SECRET, "secret", Ref::new(namespace, &name)),
            ("v1" | "", "Node") => (&NODE, "node", Ref::cluster(&name)),
            (version, _) => {
                let slash = if version.contains('/') { "" } else { "/" };
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {slash}{version}, Kind={kind}"
                )));
            }
        };
        let object = self.lookup.get(resource, &at).ok_or_else(|| Status::not_found(resource, &name))?;
        if resource == &POD && service_account_of(&object) != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        if !uid.is_empty() && uid != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(resource, &name, &why));
        }
        Ok(Bound { resource, claim, object })
    }

    fn claims(
        &self,
        account: &Object,
        bound: Option<&Bound>,
        audiences: &[String],
        now: Timestamp,
        seconds: i64,
    ) -> Value {
        let named = |object: &Object| json!({"name": object.name(), "uid": object.uid()});
        let mut objects = json!({"namespace": account.namespace(), "serviceaccount": named(account)});
        if let Some(bound) = bound {
            objects[bound.claim] = named(&bound.object);
            let node = bound.object.str_at("/spec/nodeName");
            if bound.resource == &POD && !node.is_empty() {
                objects["node"] = match self.lookup.get(&NODE, &Ref::cluster(node)) {
                    Some(node) => named(&node),
                    None => json!({"name": node}),
                };
            }
        }
        let now = now.as_second();
        json!({
            "iss": ISSUER,
            "sub": format!("{SERVICE_ACCOUNT_USER_PREFIX}{}:{}", account.namespace(), account.name()),
            "aud": audiences,
            "exp": now + seconds, "iat": now, "nbf": now,
            "jti": self.env.rng.uuid(),
            "kubernetes.io": objects,
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let header = json!({"alg": ALGORITHM, "kid": self.key_id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whom `token` speaks for, if it is ours, in force, for one of `audiences`, and its objects live.
    pub fn verify(&self, token: &str, audiences: &[&str]) -> Result<Verified, TokenError> {
        let claims = self.claims_of(token)?;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        if claims["iss"] != ISSUER {
            return Err(TokenError::Issuer { found: text(&claims["iss"]) });
        }
        let found = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            many => strings(Some(many)),
        };
        let common: Vec<String> =
            audiences.iter().filter(|asked| found.iter().any(|f| f == *asked)).map(|a| (*a).to_owned()).collect();
        if common.is_empty() {
            return Err(TokenError::Audience { found });
        }
        let now = self.env.clock.now().as_second();
        let time = |name: &'static str| claims[name].as_i64().ok_or(TokenError::Claim { name });
        if now >= time("exp")? {
            return Err(TokenError::Expired);
        }
        if now + LEEWAY_SECONDS < time("nbf")? {
            return Err(TokenError::NotYetValid);
        }
        Ok(Verified { identity: self.living(&claims, now)?, audiences: common })
    }

    /// The claims of a token whose signature holds.
    fn claims_of(&self, token: &str) -> Result<Arc<Value>, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        self.known.claims(token, || self.verified_claims(token))
    }

    fn verified_claims(&self, token: &str) -> Result<Value, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) =
            message.split_once('.').filter(|(_, p)| !p.contains('.')).ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let json = |part: &str| -> Result<Value, TokenError> {
            serde_json::from_slice(&decode(part)?).map_err(|_| TokenError::Malformed)
        };
        let header = json(header)?;
        let text = |key: &str| header[key].as_str().unwrap_or("").to_owned();
        if header["alg"] != ALGORITHM {
            return Err(TokenError::Algorithm { found: text("alg") });
        }
        for name in ["crit", "jwk", "jku", "x5c", "x5u"] {
            if !header[name].is_null() {
                return Err(TokenError::Header { name });
            }
        }
        if header["kid"] != self.key_id.as_str() {
            return Err(TokenError::UnknownKey { found: text("kid") });
        }
        if !self.key.verifying().verifies(message.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Signature);
        }
        json(payload)
    }

    /// The identity, if the account and every object that the token names is still the one it was.
    fn living(&self, claims: &Value, now: i64) -> Result<Identity, TokenError> {
        let objects = &claims["kubernetes.io"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let namespace = text(&objects["namespace"]).ok_or(TokenError::Claim { name: "kubernetes.io/namespace" })?;
        let account = &objects["serviceaccount"];
        let (Some(name), Some(uid)) = (text(&account["name"]), text(&account["uid"])) else {
            return Err(TokenError::Claim { name: "kubernetes.io/serviceaccount" });
        };
        if claims["sub"] != format!("{SERVICE_ACCOUNT_USER_PREFIX}{namespace}:{name}") {
            return Err(TokenError::Claim { name: "sub" });
        }
        self.is_the_same(&SERVICE_ACCOUNT, "ServiceAccount", &Ref::new(&namespace, &name), &uid, now)?;
        let mut identity = Identity::service_account(&namespace, &name, &uid);
        let mut extra = |key: &str, value: String| {
            identity.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        if let Some(id) = text(&claims["jti"]) {
            extra("credential-id", format!("JTI={id}"));
        }
        let bound_to_pod = !objects["pod"].is_null();
        for (claim, resource, kind) in [("pod", &POD, "Pod"), ("secret", &SECRET, "Secret"), ("node", &NODE, "Node")] {
            if objects[claim].is_null() {
                continue;
            }
            let name = text(&objects[claim]["name"]).ok_or(TokenError::Claim { name: claim })?;
            let uid = text(&objects[claim]["uid"]);
            // Beside a pod the node is told, not bound: a node object may be made anew under its running pods.
            if !(claim == "node" && bound_to_pod) {
                let uid = uid.as_deref().ok_or(TokenError::Claim { name: claim })?;
                let at = if resource.namespaced { Ref::new(&namespace, &name) } else { Ref::cluster(&name) };
                self.is_the_same(resource, kind, &at, uid, now)?;
            }
            if claim != "secret" {
                extra(&format!("{claim}-name"), name);
                if let Some(uid) = uid {
                    extra(&format!("{claim}-uid"), uid);
                }
            }
        }
        Ok(identity)
    }

    fn is_the_same(
        &self,
        resource: &Resource,
        kind: &'static str,
        at: &Ref,
        uid: &str,
        now: i64,
    ) -> Result<(), TokenError> {
        let lives = self.lookup.get(resource, at).is_some_and(|object| {
            let ended = object
                .deletion_timestamp()
                .and_then(|time| time.parse::<Timestamp>().ok())
                .is_some_and(|time| time.as_second() + LEEWAY_SECONDS < now);
            object.uid() == uid && !ended
        });
        if lives { Ok(()) } else { Err(TokenError::Gone { kind, at: at.to_string() }) }
    }

    /// The public keys, as `/openid/v1/jwks` shows them.
    pub fn jwks(&self) -> Value {
        let key = self.key.verifying();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": ALGORITHM,
            "x": part(key.x()), "y": part(key.y()),
        }]})
    }

    /// `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}{JWKS_PATH}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        })
    }
}

/// The account that a pod runs as.
pub(crate) fn service_account_of(pod: &Object) -> &str {
    match pod.str_at("/spec/serviceAccountName") {
        "" => pod.str_at("/spec/serviceAccount"),
        name => name,
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check_expiration(seconds: i64) -> Result<(), Status> {
    let why = if seconds < EXPIRATION_MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > EXPIRATION_MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    let mut status = Status::invalid(&SERVICE_ACCOUNT, "", std::slice::from_ref(&error));
    status.message = format!("TokenRequest.authentication.k8s.io \"\" is invalid: {error}");
    status.details["group"] = json!("authentication.k8s.io");
    status.details["kind"] = json!("TokenRequest");
    Err(status)
}
