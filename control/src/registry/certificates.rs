//! What is inside the bytes of a CertificateSigningRequest: the request that is asked to be signed, and the chain that
//! answers it. Both are checked here, and not with the kind's other rules, because that takes cryptography.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_kube::{FieldError, Object, Resource, resource};
use gantry_pki::SigningRequest;
use gantry_pki::request::check_chain;
use serde_json::Value;

fn bytes(object: &Object, pointer: &str) -> Vec<u8> {
    // What is canonical is base64.
    STANDARD.decode(object.str_at(pointer)).unwrap_or_default()
}

/// The request of a CertificateSigningRequest, read and checked.
pub fn request(object: &Object) -> Result<SigningRequest, FieldError> {
    SigningRequest::verified(&bytes(object, "/spec/request")).map_err(|error| {
        let value = object.get("/spec/request").cloned().unwrap_or(Value::Null);
        FieldError::invalid("spec.request", value, error.to_string())
    })
}

/// What is wrong with the bytes of a new object.
pub(super) fn create(resource: &Resource, object: &Object) -> Vec<FieldError> {
    if *resource != resource::CERTIFICATE_SIGNING_REQUEST {
        return Vec::new();
    }
    request(object).err().into_iter().collect()
}

/// What is wrong with the bytes of a changed one: the request stays as it was, the chain may be new.
pub(super) fn update(resource: &Resource, new: &Object, old: &Object) -> Vec<FieldError> {
    const CHAIN: &str = "/status/certificate";
    if *resource != resource::CERTIFICATE_SIGNING_REQUEST || new.get(CHAIN) == old.get(CHAIN) {
        return Vec::new();
    }
    let chain = bytes(new, CHAIN);
    let checked = if chain.is_empty() { Ok(()) } else { check_chain(&chain) };
    let wrong = |error: gantry_pki::request::RequestError| {
        FieldError::invalid("status.certificate", "<certificate data>", error.to_string())
    };
    checked.map_err(wrong).err().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_env::Env;
    use gantry_pki::Authority;
    use gantry_pki::authority::request as make;
    use serde_json::json;

    fn object(request: &str, certificate: &str) -> Object {
        let [request, certificate] = [request, certificate].map(|text| STANDARD.encode(text));
        Object::from_value(json!({"spec": {"request": request}, "status": {"certificate": certificate}})).unwrap()
    }

    #[test]
    fn what_is_to_be_signed_is_a_request() {
        let (_, good) = make("a", None).unwrap();
        let of = |text| create(&resource::CERTIFICATE_SIGNING_REQUEST, &object(text, ""));
        assert_eq!(of(&good), []);
        let errors = of("nothing");
        assert_eq!(errors[0].path, "spec.request");
        assert_eq!(errors[0].detail, "PEM block type must be CERTIFICATE REQUEST");
        assert_eq!(create(&resource::SECRET, &object("nothing", "")), []);
    }

    #[test]
    fn what_answers_it_is_a_chain() {
        let kind = &resource::CERTIFICATE_SIGNING_REQUEST;
        let authority = Authority::create("ca", &Env::system()).unwrap();
        let old = object("", "");
        assert_eq!(update(kind, &object("", authority.certificate_pem()), &old), []);
        let errors = update(kind, &object("", "nothing"), &old);
        let words = "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block";
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [words]);
        // What was stored before the rule may stay.
        assert_eq!(update(kind, &object("", "nothing"), &object("", "nothing")), []);
    }
}
