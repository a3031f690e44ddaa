//! Persistent volumes, the claims to them, and their classes.

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{driver_name, no_climbing, qualified, subdomain};
use super::pod::volume::host_path;
use super::selector::{label_selector, node_selector};
use crate::pod::resources::quantity;
use crate::quantity::Quantity;
use crate::{FieldError, Object};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// What a volume's spec says beside its source.
const VOLUME_FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The spec of a claim, its own or of a template.
pub fn claim(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.count() == 0 {
        modes.required(errors, "at least 1 access mode is required");
    }
    label_selector(&spec.field("selector"), errors);
    access_modes(&modes, errors);
    let amount = spec.field("resources").field("requests").value.get("storage");
    let path = format!("{}.resources[storage]", spec.path);
    match amount {
        None => errors.push(FieldError::required(path, "")),
        Some(amount) => positive(path, amount, errors),
    }
    spec.field("storageClassName").optional_as(errors, subdomain);
    spec.field("volumeMode").maybe_one_of(errors, &VOLUME_MODES);
    for source in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.get(source) {
            source.field("kind").present(errors);
            source.field("name").present(errors);
        }
    }
}

pub fn access_modes(at: &At<'_>, errors: &mut Errors) {
    for mode in at.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            errors.push(FieldError::not_supported(at.path.as_str(), mode.value.clone(), &ACCESS_MODES));
        }
    }
    if at.count() > 1 && at.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        at.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(path: String, amount: &Value, errors: &mut Errors) {
    if quantity(amount).is_some_and(|amount| amount <= Quantity::ZERO) {
        errors.push(FieldError::invalid(path, amount.clone(), "must be greater than zero"));
    }
}

/// A claim keeps what it asked for: its class may come later, its volume once, and a bound one may ask for more room.
pub fn claim_update(new: &Object, old: &Object, errors: &mut Errors) {
    let spec = |object: &Object| At::of(object, "spec").map().cloned().unwrap_or_default();
    let (mut wanted, mut before) = (spec(new), spec(old));
    if old.str_at("/spec/volumeName").is_empty() {
        wanted.remove("volumeName");
        before.remove("volumeName");
    }
    if !before.contains_key("storageClassName") {
        wanted.remove("storageClassName");
    }
    let storage = |object: &Object| object.get("/spec/resources/requests/storage").cloned().unwrap_or_default();
    if old.str_at("/status/phase") == "Bound" {
        for spec in [&mut wanted, &mut before] {
            for free in ["resources", "volumeAttributesClassName"] {
                spec.remove(free);
            }
        }
    }
    if wanted != before {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        At::of(new, "spec").forbidden(errors, why);
    }
    let amount = |value: Option<&Value>| value.and_then(quantity).unwrap_or(Quantity::ZERO);
    let (asked, had) = (amount(Some(&storage(new))), amount(Some(&storage(old))));
    if asked < had && asked <= amount(old.get("/status/capacity/storage")) {
        let why = "field can not be less than status.capacity";
        At::of(new, "spec").field("resources").field("requests").field("storage").forbidden(errors, why);
    }
}

pub fn volume(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let (modes, capacity, policy) =
        (spec.field("accessModes"), spec.field("capacity"), spec.field("persistentVolumeReclaimPolicy"));
    if modes.count() == 0 {
        modes.required(errors, "");
    }
    access_modes(&modes, errors);
    if capacity.map().is_none_or(|map| map.is_empty()) {
        capacity.required(errors, "");
    } else if capacity.map().is_some_and(|map| map.keys().any(|name| name != "storage")) {
        capacity.not_supported(errors, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        positive(amount.path, amount.value, errors);
    }
    policy.maybe_one_of(errors, &["Delete", "Recycle", "Retain"]);
    let affinity = spec.field("nodeAffinity");
    if affinity.is_set() {
        match affinity.get("required") {
            Some(required) => node_selector(&required, errors),
            None => affinity.field("required").required(errors, "must specify required node constraints"),
        }
    }
    sources(&spec, affinity.is_set(), errors);
    if spec.field("hostPath").text_of("path") == "/" && policy.text() == "Recycle" {
        policy.forbidden(errors, "may not be 'recycle' for a hostPath mount of '/'");
    }
    spec.field("storageClassName").optional_as(errors, subdomain);
    spec.field("volumeMode").maybe_one_of(errors, &VOLUME_MODES);
}

/// Exactly one source.
fn sources(spec: &At<'_>, has_affinity: bool, errors: &mut Errors) {
    let mut count = 0;
    for (kind, _) in spec.map().into_iter().flatten().filter(|(key, value)| is_source(key) && !value.is_null()) {
        count += 1;
        let source = spec.field(kind);
        if count > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "hostPath" => host_path(&source, errors),
            "local" => {
                source.field("path").required_as(errors, no_climbing);
                if !has_affinity {
                    spec.field("nodeAffinity").required(errors, "Local volume requires node affinity");
                }
            }
            "nfs" => {
                source.field("server").present(errors);
                source.field("path").present(errors);
            }
            "csi" => csi_source(&source, errors),
            _ => {}
        }
    }
    if count == 0 {
        spec.required(errors, "must specify a volume type");
    }
}

/// A volume of a CSI driver.
pub fn csi_source(source: &At<'_>, errors: &mut Errors) {
    driver_name(&source.field("driver"), errors);
    source.field("volumeHandle").present(errors);
}

fn is_source(key: &str) -> bool {
    !VOLUME_FIELDS.contains(&key)
}

/// Where a volume lies, and which nodes reach it, stays as it is.
pub fn volume_update(new: &Object, old: &Object, errors: &mut Errors) {
    let source = |object: &Object| {
        let mut spec = At::of(object, "spec").map().cloned().unwrap_or_default();
        spec.retain(|key, _| is_source(key));
        spec
    };
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    if source(new) != source(old) {
        let why = "spec.persistentvolumesource is immutable after creation";
        spec.field("persistentvolumesource").forbidden(errors, why);
    }
    let mut mode = spec.field("volumeMode");
    mode.path = "volumeMode".to_owned();
    mode.immutable(errors, &before.field("volumeMode"));
    if before.field("nodeAffinity").is_set() {
        let mut affinity = spec.field("nodeAffinity");
        affinity.path = "nodeAffinity".to_owned();
        affinity.immutable(errors, &before.field("nodeAffinity"));
    }
}

pub fn class(object: &Object, errors: &mut Errors) {
    At::of(object, "provisioner").required_as(errors, |name| qualified(&name.to_lowercase()));
    At::of(object, "reclaimPolicy").maybe_one_of(errors, &["Delete", "Retain"]);
    At::of(object, "volumeBindingMode").maybe_one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
    for term in At::of(object, "allowedTopologies").items() {
        for expression in term.field("matchLabelExpressions").items() {
            expression.field("key").required_as(errors, qualified);
            let values = expression.field("values");
            if values.count() == 0 {
                values.required(errors, "");
            }
        }
    }
}

pub fn class_update(new: &Object, old: &Object, errors: &mut Errors) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        let at = At::of(new, field);
        if at.value != At::of(old, field).value {
            at.forbidden(errors, &format!("updates to {field} are forbidden."));
        }
    }
    At::of(new, "volumeBindingMode").immutable(errors, &At::of(old, "volumeBindingMode"));
}
