//! The reviews: a client asks what a request would be told. Each function answers with the review and its status.

use gantry_kube::resource::{
    LOCAL_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_RULES_REVIEW, SUBJECT_ACCESS_REVIEW,
};
use gantry_kube::{FieldError, Object, Resource, Status};
use serde_json::{Value, json};

use super::token::ISSUER;
use super::{Action, Authorizer, Decision, Identity, Tokens};

fn answered(body: &Object, status: Value) -> Object {
    let mut answer = body.clone();
    answer.metadata_mut().entry("creationTimestamp").or_insert(Value::Null);
    answer.0.insert("status".to_owned(), status);
    answer
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The action that a review's spec describes: exactly one of the two kinds.
fn action_of<'a>(resource: &Resource, body: &'a Object) -> Result<Action<'a>, Status> {
    let at = |pointer: &str| body.get(pointer).filter(|value| !value.is_null());
    match (at("/spec/resourceAttributes"), at("/spec/nonResourceAttributes")) {
        (Some(_), None) => {
            let text = |key: &str| body.str_at(&format!("/spec/resourceAttributes/{key}"));
            Ok(Action::Resource {
                verb: text("verb"),
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                fields: "",
                labels: "",
            })
        }
        (None, Some(_)) => Ok(Action::NonResource {
            verb: body.str_at("/spec/nonResourceAttributes/verb"),
            path: body.str_at("/spec/nonResourceAttributes/path"),
        }),
        (found, _) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let value = if found.is_some() { "both" } else { "neither" };
            Err(Status::invalid(resource, "", &[FieldError::invalid("spec.resourceAttributes", value, why)]))
        }
    }
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
    let action = action_of(&SELF_SUBJECT_ACCESS_REVIEW, body)?;
    Ok(answered(body, decision(authorizer.authorize(identity, &action))))
}

/// The identity that a spec describes.
fn subject_of(resource: &Resource, body: &Object) -> Result<Identity, Status> {
    let identity = Identity {
        user: body.str_at("/spec/user").to_owned(),
        uid: body.str_at("/spec/uid").to_owned(),
        groups: strings(body.get("/spec/groups")),
        extra: body
            .get("/spec/extra")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), strings(Some(values))))
            .collect(),
    };
    if identity.user.is_empty() && identity.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(Status::invalid(resource, "", &[FieldError::invalid("spec.user", "", why)]));
    }
    Ok(identity)
}

/// May they?
pub fn subject_access(authorizer: &Authorizer, body: &Object) -> Result<Object, Status> {
    let subject = subject_of(&SUBJECT_ACCESS_REVIEW, body)?;
    let action = action_of(&SUBJECT_ACCESS_REVIEW, body)?;
    Ok(answered(body, decision(authorizer.authorize(&subject, &action))))
}

/// May they, in the review's own namespace?
pub fn local_subject_access(authorizer: &Authorizer, namespace: &str, body: &Object) -> Result<Object, Status> {
    let resource = &LOCAL_SUBJECT_ACCESS_REVIEW;
    let subject = subject_of(resource, body)?;
    let action = action_of(resource, body)?;
    let within = matches!(action, Action::Resource { namespace: asked, .. } if asked == namespace);
    if !within {
        let asked = body.str_at("/spec/resourceAttributes/namespace");
        let why = "must match metadata.namespace";
        let error = FieldError::invalid("spec.resourceAttributes.namespace", asked, why);
        return Err(Status::invalid(resource, "", &[error]));
    }
    Ok(answered(body, decision(authorizer.authorize(&subject, &action))))
}

/// What may I do in this namespace?
pub fn self_subject_rules(authorizer: &Authorizer, identity: &Identity, body: &Object) -> Result<Object, Status> {
    let namespace = body.str_at("/spec/namespace");
    if namespace.is_empty() {
        let error = FieldError::required("spec.namespace", "no namespace on request");
        return Err(Status::invalid(&SELF_SUBJECT_RULES_REVIEW, "", &[error]));
    }
    let (mut resources, mut urls) = (Vec::new(), Vec::new());
    for rule in authorizer.policy().rules(identity, namespace) {
        let value = rule.to_value();
        if rule.urls.is_empty() { &mut resources } else { &mut urls }.push(value);
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": urls, "incomplete": false});
    if identity.node().is_some() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!("what a node may do with its own objects is in no rule");
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
