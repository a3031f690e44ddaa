//! The reviews: a client asks what a request would be told. Each function answers with the review and its status.

mod attributes;

use gantry_kube::resource::{LOCAL_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, SUBJECT_ACCESS_REVIEW};
use gantry_kube::{FieldError, Object, Resource, Status};
use serde_json::{Value, json};

use super::rules::Rule;
use super::token::ISSUER;
use super::{Authorizer, Decision, Identity, Tokens};
use attributes::Attributes;

fn answered(body: &Object, status: Value) -> Object {
    let mut answer = body.clone();
    answer.metadata_mut().entry("creationTimestamp").or_insert(Value::Null);
    answer.0.insert("status".to_owned(), status);
    answer
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The attributes that a review asks about, if it is a review that can be answered.
fn attributes_of<'a>(
    resource: &Resource,
    body: &'a Object,
    more: impl IntoIterator<Item = FieldError>,
) -> Result<Attributes<'a>, Status> {
    let mut errors = attributes::check(body);
    errors.extend(more);
    errors.extend(attributes::check_metadata(body, resource.namespaced));
    if errors.is_empty() { Ok(Attributes::of(body)) } else { Err(Status::invalid(resource, "", &errors)) }
}

fn decision(decision: Decision) -> Value {
    let (allowed, reason) = match decision {
        Decision::Allow { reason } => (true, reason),
        Decision::Deny { reason } => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

/// May I?
pub fn self_subject_access(authorizer: &Authorizer, identity: &Identity, body: &Object) -> Result<Object, Status> {
    let asked = attributes_of(&SELF_SUBJECT_ACCESS_REVIEW, body, None)?;
    Ok(answered(body, decision(authorizer.authorize(identity, &asked.action()))))
}

/// The identity that a spec describes.
fn subject_of(body: &Object) -> Identity {
    let extra = body.get("/spec/extra").and_then(Value::as_object).into_iter().flatten();
    Identity {
        user: body.str_at("/spec/user").to_owned(),
        uid: body.str_at("/spec/uid").to_owned(),
        groups: strings(body.get("/spec/groups")),
        extra: extra.map(|(key, values)| (key.clone(), strings(Some(values)))).collect(),
    }
}

fn check_subject(subject: &Identity) -> Option<FieldError> {
    let nobody = subject.user.is_empty() && subject.groups.is_empty();
    nobody.then(|| FieldError::invalid("spec.user", "", "at least one of user or group must be specified"))
}

/// May they?
pub fn subject_access(authorizer: &Authorizer, body: &Object) -> Result<Object, Status> {
    let subject = subject_of(body);
    let asked = attributes_of(&SUBJECT_ACCESS_REVIEW, body, check_subject(&subject))?;
    Ok(answered(body, decision(authorizer.authorize(&subject, &asked.action()))))
}

/// May they, in the review's own namespace?
pub fn local_subject_access(authorizer: &Authorizer, namespace: &str, body: &Object) -> Result<Object, Status> {
    let subject = subject_of(body);
    let mut errors: Vec<FieldError> = check_subject(&subject).into_iter().collect();
    let at = |pointer: &str| body.get(pointer).filter(|value| !value.is_null());
    let own = body.str_at("/spec/resourceAttributes/namespace");
    if at("/spec/resourceAttributes").is_some() && own != namespace {
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", own, "must match metadata.namespace"));
    }
    if let Some(path) = at("/spec/nonResourceAttributes") {
        let why = "disallowed on this kind of request";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", path.clone(), why));
    }
    let asked = attributes_of(&LOCAL_SUBJECT_ACCESS_REVIEW, body, errors)?;
    Ok(answered(body, decision(authorizer.authorize(&subject, &asked.action()))))
}

/// What may I do in this namespace?
pub fn self_subject_rules(authorizer: &Authorizer, identity: &Identity, body: &Object) -> Result<Object, Status> {
    let namespace = body.str_at("/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut urls) = (Vec::new(), Vec::new());
    for rule in authorizer.policy().rules(identity, namespace) {
        if !rule.resources.is_empty() {
            resources.push(Rule { urls: Vec::new(), ..rule.clone() }.to_value());
        }
        if !rule.urls.is_empty() {
            urls.push(Rule { verbs: rule.verbs, urls: rule.urls, ..Rule::default() }.to_value());
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": urls, "incomplete": false});
    if identity.node().is_some() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!("node authorizer does not support user rule resolution");
    }
    Ok(answered(body, status))
}

/// Who am I?
pub fn self_subject(identity: &Identity, body: &Object) -> Object {
    answered(body, json!({"userInfo": identity.to_value()}))
}

/// Whose token is this? A token that does not hold is an answer, not an error.
pub fn token(tokens: &Tokens, body: &Object) -> Result<Object, Status> {
    let token = body.str_at("/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences = strings(body.get("/spec/audiences"));
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let asked: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let status = match tokens.verify(token, &asked) {
        Ok(verified) => json!({
            "authenticated": true, "user": verified.identity.to_value(), "audiences": verified.audiences,
        }),
        Err(error) => json!({"authenticated": false, "error": format!("invalid bearer token, {error}"), "user": {}}),
    };
    Ok(answered(body, status))
}
