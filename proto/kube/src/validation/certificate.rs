//! CertificateSigningRequest (certificates.k8s.io/v1).
//!
//! - `spec.usages` names at least one use, each once and of those that there are.
//! - `spec.signerName` is a domain and a path, and not that of the time before signers had names.
//! - `spec.expirationSeconds` is 600 or more. (What a request is, and what a chain, is checked where keys are.)
//! - A condition has a type, which stands there once, and a status; `Approved`, `Denied` and `Failed` are `True` where they
//!   are, and a request is not both approved and denied.
//! - What was found wrong when it was stored may stay.
//! - `Approved`, `Denied` and `Failed` are never taken away; the first two are changed through `/approval` alone.
//! - The certificate is written through `/status` alone, and once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{label, subdomain};
use crate::{FieldError, Object};

const EXPIRATION_MIN_SECONDS: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DOMAIN_MAX_BYTES: usize = 253;
/// A domain, a path of a label and a subdomain, and what is between them.
const SIGNER_MAX_BYTES: usize = DOMAIN_MAX_BYTES + 253 + 63 + 2;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

pub fn create(object: &Object, errors: &mut Errors) {
    request(object, None, errors);
    conditions(object, None, errors);
}

/// A change that came through a subresource (empty: through the object itself).
pub fn update(subresource: &str, new: &Object, old: &Object, errors: &mut Errors) {
    request(new, Some(old), errors);
    conditions(new, Some(old), errors);
    kept_conditions(subresource, new, old, errors);
    let (certificate, was) = (At::of(new, "status").field("certificate"), At::of(old, "status").field("certificate"));
    if certificate.value == was.value {
    } else if subresource != "status" {
        certificate.forbidden(errors, "updates may not set certificate content");
    } else if !was.text().is_empty() {
        certificate.forbidden(errors, "updates may not modify existing certificate content");
    }
}

fn request(object: &Object, old: Option<&Object>, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let usages = spec.field("usages");
    if usages.count() == 0 {
        usages.required(errors, "");
    }
    let known = |usage: &Value| usage.as_str().is_some_and(|usage| USAGES.contains(&usage));
    let before = old.map(|old| old.array_at("/spec/usages")).unwrap_or_default();
    if before.iter().all(known) {
        for usage in usages.items().filter(|usage| !known(usage.value)) {
            usage.not_supported(errors, &USAGES);
        }
    }
    let texts: BTreeSet<_> = before.iter().filter_map(Value::as_str).collect();
    if texts.len() == before.len() {
        let mut seen = BTreeSet::new();
        usages.items().for_each(|usage| usage.unique(errors, &mut seen));
    }
    let signer = spec.field("signerName");
    if signer.text() != LEGACY_SIGNER {
        signer_name(&signer, errors);
    } else if old.is_none_or(|old| old.str_at("/spec/signerName") != LEGACY_SIGNER) {
        signer.invalid(errors, "the legacy signerName is not allowed via this API version");
    }
    let lasts = spec.field("expirationSeconds");
    if lasts.int().is_some_and(|seconds| seconds < EXPIRATION_MIN_SECONDS) {
        lasts.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if !at.present(errors) {
        return;
    }
    let parts: Vec<&str> = at.text().split('/').collect();
    let [domain, path] = parts.as_slice() else {
        return at.invalid(errors, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    if domain.len() > DOMAIN_MAX_BYTES {
        errors.push(FieldError::too_long(at.path.as_str(), DOMAIN_MAX_BYTES));
    }
    let mut first_wrong = |text: &str, problem: fn(&str) -> Option<String>| {
        if let Some((part, why)) = text.split('.').find_map(|part| Some((part, problem(part)?))) {
            let why = format!("validating label {part:?}: {why}");
            errors.push(FieldError::invalid(at.path.as_str(), text, why));
        }
    };
    first_wrong(domain, label);
    first_wrong(path, subdomain);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(at.path.as_str(), *domain, why));
    }
    if at.text().len() > SIGNER_MAX_BYTES {
        errors.push(FieldError::too_long(at.path.as_str(), SIGNER_MAX_BYTES));
    }
}

fn kind(condition: &Value) -> &str {
    condition["type"].as_str().unwrap_or("")
}

fn conditions(object: &Object, old: Option<&Object>, errors: &mut Errors) {
    let list = At::of(object, "status").field("conditions");
    let before = old.map(|old| old.array_at("/status/conditions")).unwrap_or_default();
    let had = |wanted: &str| before.iter().any(|condition| kind(condition) == wanted);
    let old_kinds: BTreeSet<&str> = before.iter().map(kind).collect();
    let (unique, both) = (old_kinds.len() == before.len(), DECISIONS.iter().all(|decision| had(decision)));
    let mut seen = BTreeSet::new();
    for at in list.items() {
        let (name, status) = (at.field("type"), at.field("status"));
        if name.text().is_empty() && !old_kinds.contains("") {
            name.required(errors, "");
        }
        if FINAL.contains(&name.text()) {
            status.one_of(errors, &["True"]);
        } else {
            status.one_of(errors, &["False", "True", "Unknown"]);
        }
        let other = DECISIONS.iter().find(|decision| **decision != name.text());
        if !both && DECISIONS.contains(&name.text()) && other.is_some_and(|other| seen.contains(other)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(list.path.as_str(), name.text(), why));
        }
        if !seen.insert(name.text()) && unique {
            errors.push(FieldError::duplicate(name.path.as_str(), name.text()));
        }
    }
}

fn kept_conditions(subresource: &str, new: &Object, old: &Object, errors: &mut Errors) {
    let list = At::of(new, "status").field("conditions");
    let of = |object: &Object, wanted: &str| -> Vec<Value> {
        object.array_at("/status/conditions").iter().filter(|condition| kind(condition) == wanted).cloned().collect()
    };
    for wanted in FINAL {
        let (now, was) = (of(new, wanted), of(old, wanted));
        let decided_here = subresource == "approval" || !DECISIONS.contains(&wanted);
        let doing = match now.len().cmp(&was.len()) {
            std::cmp::Ordering::Less => "remove",
            _ if decided_here => continue,
            std::cmp::Ordering::Greater => "add",
            std::cmp::Ordering::Equal if now != was => "modify",
            std::cmp::Ordering::Equal => continue,
        };
        list.forbidden(errors, &format!("updates may not {doing} a condition of type {wanted:?}"));
    }
}
