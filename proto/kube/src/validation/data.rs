//! Secrets and ConfigMaps.

use serde_json::Value;

use super::at::{At, Errors};
use super::format::config_key;
use crate::{FieldError, Object};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Of all values of one object together.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;
const REDACTED: &str = "<secret contents redacted>";
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub fn secret(object: &Object, errors: &mut Errors) {
    let data = At::of(object, "data");
    let mut total = 0;
    for (key, value) in data.entries() {
        check_key(key, &value, errors);
        total += decoded_bytes(value.text());
    }
    if total > DATA_MAX_BYTES {
        errors.push(FieldError::too_long("data", DATA_MAX_BYTES));
    }
    let must = |key: &str, errors: &mut Errors| {
        if data.field(key).value.is_null() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match object.str_at("/type") {
        "kubernetes.io/service-account-token" if object.annotation(ACCOUNT_NAME).unwrap_or("").is_empty() => {
            errors.push(FieldError::required(format!("metadata.annotations[{ACCOUNT_NAME}]"), ""));
        }
        "kubernetes.io/dockercfg" => docker_config(&data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker_config(&data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if ["username", "password"].iter().all(|key| !data.field(key).is_set()) => {
            must("username", errors);
            must("password", errors);
        }
        "kubernetes.io/ssh-auth" => must("ssh-privatekey", errors),
        "kubernetes.io/tls" => {
            must("tls.crt", errors);
            must("tls.key", errors);
        }
        _ => {}
    }
}

pub fn config_map(object: &Object, errors: &mut Errors) {
    let (data, binary) = (At::of(object, "data"), At::of(object, "binaryData"));
    let mut total = 0;
    for (key, value) in data.entries() {
        check_key(key, &value, errors);
        if binary.map().is_some_and(|binary| binary.contains_key(key)) {
            errors.push(FieldError::invalid(value.path.as_str(), key, "duplicate of key present in binaryData"));
        }
        total += value.text().len();
    }
    for (key, value) in binary.entries() {
        check_key(key, &value, errors);
        total += decoded_bytes(value.text());
    }
    if total > DATA_MAX_BYTES {
        // The whole object is too long, and upstream names it by the empty path.
        errors.push(FieldError::too_long("[]", DATA_MAX_BYTES));
    }
}

/// What may not change: a Secret's type, and everything of what was made immutable.
pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    if old.str_at("/kind") == "Secret" || old.0.contains_key("type") {
        At::of(new, "type").immutable(errors, &At::of(old, "type"));
    }
    if old.bool_at("/immutable") != Some(true) {
        return;
    }
    if new.bool_at("/immutable") != Some(true) {
        At::of(new, "immutable").forbidden(errors, IMMUTABLE);
    }
    for field in ["data", "binaryData"] {
        let (now, was) = (At::of(new, field), At::of(old, field));
        if now.value != was.value {
            now.forbidden(errors, IMMUTABLE);
        }
    }
}

fn check_key(key: &str, value: &At<'_>, errors: &mut Errors) {
    if let Some(why) = config_key(key) {
        errors.push(FieldError::invalid(value.path.as_str(), key, why));
    }
}

fn decoded_bytes(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|b| *b == b'=').take(2).count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}

fn docker_config(data: &At<'_>, key: &str, errors: &mut Errors) {
    let value = data.field(key);
    let path = format!("data[{key}]");
    if value.text().is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let bytes = STANDARD.decode(value.text()).unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_)) => {}
        Ok(_) => errors.push(FieldError::invalid(path, REDACTED, "must be a JSON object")),
        Err(error) => errors.push(FieldError::invalid(path, REDACTED, error.to_string())),
    }
}
