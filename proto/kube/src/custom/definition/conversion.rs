//! How objects go from one version to another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::validation::at::{At, Errors};
use crate::validation::format::{PORT_LAST, dns_1035, subdomain};
use crate::{FieldError, Object};

/// Forms of the reviews that conversion webhooks are sent.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const FORM: &str = "; desired format: https://host[/path]";

/// Checks the conversion. (Errors have the paths of Kubernetes' own form of it, which has no `webhook`.)
pub(super) fn check(at: &At<'_>, old: Option<&Object>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    at.field("strategy").one_of(errors, &["None", "Webhook"]);
    let webhook = at.field("webhook");
    let client = At { path: format!("{}.webhookClientConfig", at.path), value: webhook.field("clientConfig").value };
    let reviews = At {
        path: format!("{}.conversionReviewVersions", at.path),
        value: webhook.field("conversionReviewVersions").value,
    };
    if at.text_of("strategy") != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if client.is_set() {
            client.forbidden(errors, why);
        }
        if reviews.count() > 0 {
            reviews.forbidden(errors, why);
        }
        return;
    }
    match client.is_set() {
        true => client_config(&client, may_have_bad_bundle(old), errors),
        false => client.required(errors, "required when strategy is set to Webhook"),
    }
    review_versions(&reviews, old, errors);
}

fn client_config(at: &At<'_>, may_have_bad_bundle: bool, errors: &mut Errors) {
    match (at.get("url"), at.get("service")) {
        (Some(url), None) => webhook_url(&url, errors),
        (None, Some(service)) => webhook_service(&service, errors),
        _ => at.required(errors, "exactly one of url or service is required"),
    }
    let bundle = at.field("caBundle");
    if !may_have_bad_bundle && !bundle.text().is_empty() && !is_bundle(bundle.text()) {
        bundle.invalid(errors, "unable to load root certificates: unable to parse bytes as PEM block");
    }
}

/// Until a definition is established, and where it had a bad one before.
fn may_have_bad_bundle(old: Option<&Object>) -> bool {
    old.is_none_or(|old| {
        let established = super::condition(old, "Established").is_some_and(|condition| condition["status"] == "True");
        !established || has_bad_ca_bundle(old)
    })
}

/// Whether the certificates by which a conversion webhook is known cannot be read.
pub fn has_bad_ca_bundle(object: &Object) -> bool {
    let bundle = object.str_at("/spec/conversion/webhook/clientConfig/caBundle");
    !bundle.is_empty() && !is_bundle(bundle)
}

/// Base64 of PEM, with one certificate at least.
fn is_bundle(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    const DER_SEQUENCE: u8 = 0x30;
    let Some(pem) = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
    let mut rest = pem.as_str();
    let mut found = false;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((body, after)) = after.split_once(END) else { return false };
        let plain: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if STANDARD.decode(plain).ok().and_then(|der| der.first().copied()) != Some(DER_SEQUENCE) {
            return false;
        }
        found = true;
        rest = after;
    }
    found
}

fn webhook_url(at: &At<'_>, errors: &mut Errors) {
    let invalid = |value: &str, why: &str, errors: &mut Errors| {
        errors.push(FieldError::invalid(at.path.as_str(), value, why));
    };
    let (rest, fragment) = at.text().split_once('#').unwrap_or((at.text(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    if rest.bytes().any(|b| b <= b' ' || b == 0x7f) {
        at.required(errors, &format!("url must be a valid URL: invalid character in URL{FORM}"));
        return;
    }
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        invalid(scheme, &format!("'https' is the only allowed URL scheme{FORM}"), errors);
    }
    if host.is_empty() {
        invalid("", &format!("host must be specified{FORM}"), errors);
    }
    if let Some(user) = user {
        invalid(user, "user information is not permitted in the URL", errors);
    }
    if !fragment.is_empty() {
        invalid(fragment, "fragments are not permitted in the URL", errors);
    }
    if !query.is_empty() {
        invalid(query, "query parameters are not permitted in the URL", errors);
    }
}

fn webhook_service(at: &At<'_>, errors: &mut Errors) {
    for key in ["name", "namespace"] {
        let at = at.field(key);
        if at.text().is_empty() {
            at.required(errors, "");
        }
    }
    let port = at.field("port");
    if !port.int().is_some_and(|port| (1..=PORT_LAST).contains(&port)) {
        port.invalid(errors, format!("port is not valid: must be between 1 and {PORT_LAST}, inclusive"));
    }
    let path = at.field("path");
    match path.text() {
        "" | "/" => return,
        "//" => return path.invalid(errors, "segment[0] may not be empty"),
        text if !text.starts_with('/') => path.invalid(errors, "must start with a '/'"),
        _ => {}
    }
    let mut inner = path.text().chars();
    inner.next();
    let inner = inner.as_str();
    for (index, segment) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if segment.is_empty() {
            path.invalid(errors, format!("segment[{index}] may not be empty"));
        } else if let Some(why) = subdomain(segment) {
            path.invalid(errors, format!("segment[{index}]: {why}"));
        }
    }
}

fn review_versions(at: &At<'_>, old: Option<&Object>, errors: &mut Errors) {
    if at.count() == 0 {
        return at.required(errors, "");
    }
    let mut seen = std::collections::BTreeSet::new();
    for version in at.items() {
        if !seen.insert(version.text()) {
            version.invalid(errors, "duplicate version");
        } else if let Some(why) = dns_1035(version.text()) {
            version.invalid(errors, why);
        }
    }
    let knows_none =
        |versions: &[Value]| !versions.iter().filter_map(Value::as_str).any(|v| REVIEW_VERSIONS.contains(&v));
    let before = old.map(|old| old.array_at("/spec/conversion/webhook/conversionReviewVersions")).unwrap_or_default();
    let had_none = !before.is_empty() && knows_none(before);
    if !had_none && at.value.as_array().is_some_and(|versions| knows_none(versions)) {
        at.invalid(errors, format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}
