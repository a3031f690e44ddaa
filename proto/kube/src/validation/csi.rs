//! What tells of CSI drivers: CSIDriver, CSINode, CSIStorageCapacity and VolumeAttributesClass (storage.k8s.io/v1).
//!
//! CSIDriver
//! - `attachRequired`, `podInfoOnMount`, `storageCapacity` and `seLinuxMount` are there (defaults see to it).
//! - `fsGroupPolicy` and `volumeLifecycleModes` are of closed sets.
//! - `tokenRequests` name each audience once, for ten minutes to 2³² seconds.
//! - `nodeAllocatableUpdatePeriodSeconds` is ten or more.
//! - `attachRequired` and `volumeLifecycleModes` never change.
//!
//! CSINode
//! - Each driver stands there once, under the name of a driver, with a `nodeID` of at most 256 characters, topology keys
//!   that are qualified names and stand there once, and a limit that is not negative.
//! - Of a driver that is there nothing but `allocatable` changes.
//!
//! CSIStorageCapacity
//! - `nodeTopology` selects labels, `storageClassName` names a class, `capacity` is not negative.
//! - `nodeTopology` and `storageClassName` never change.
//!
//! VolumeAttributesClass
//! - `driverName` is a qualified name; there are 1 to 512 parameters of at most 256 KiB. Both never change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{driver_name, qualified, subdomain};
use super::selector::label_selector;
use crate::pod::resources::quantity;
use crate::{FieldError, Object};

const NODE_ID_MAX_CHARS: usize = 256;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 << 10;
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;
const UPDATE_PERIOD_MIN_SECONDS: i64 = 10;

pub fn driver(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    // Upstream names the first one so.
    for (field, path) in [
        ("attachRequired", "spec.attachedRequired"),
        ("podInfoOnMount", "spec.podInfoOnMount"),
        ("storageCapacity", "spec.storageCapacity"),
    ] {
        if !spec.field(field).is_set() {
            errors.push(FieldError::required(path, ""));
        }
    }
    spec.field("fsGroupPolicy").maybe_one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    token_requests(&spec.field("tokenRequests"), errors);
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !["Persistent", "Ephemeral"].contains(&mode.text())) {
        errors.push(FieldError::not_supported(modes.path.as_str(), mode.value.clone(), &["Ephemeral", "Persistent"]));
    }
    if !spec.field("seLinuxMount").is_set() {
        spec.field("seLinuxMount").required(errors, "");
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < UPDATE_PERIOD_MIN_SECONDS) {
        period.invalid(errors, "must be greater than or equal to 10 seconds");
    }
}

fn token_requests(requests: &At<'_>, errors: &mut Errors) {
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let audience = request.field("audience");
        if !audiences.insert(audience.text()) {
            errors.push(FieldError::duplicate(audience.path.as_str(), audience.text()));
            continue;
        }
        let lasts = request.field("expirationSeconds");
        match lasts.int() {
            Some(seconds) if seconds < TOKEN_MIN_SECONDS => {
                lasts.invalid(errors, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > TOKEN_MAX_SECONDS => {
                lasts.invalid(errors, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

pub fn driver_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    for (field, path) in
        [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
    {
        let value = spec.field(field).value;
        At { path: path.to_owned(), value }.immutable(errors, &before.field(field));
    }
}

pub fn node(object: &Object, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for driver in At::of(object, "spec").field("drivers").items() {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        driver_name(&name, errors);
        id.present(errors);
        if id.text().chars().count() > NODE_ID_MAX_CHARS {
            id.invalid(errors, format!("must be {NODE_ID_MAX_CHARS} characters or less"));
        }
        driver.field("allocatable").field("count").at_least_zero(errors);
        name.unique(errors, &mut names);
        let mut keys = BTreeSet::new();
        for key in driver.field("topologyKeys").items() {
            let key = key.text();
            if key.is_empty() {
                driver.required(errors, "");
                continue;
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(driver.path.as_str(), key));
            }
            if let Some(why) = qualified(key) {
                errors.push(FieldError::invalid(driver.path.as_str(), key, why));
            }
        }
    }
}

pub fn node_update(new: &Object, old: &Object, errors: &mut Errors) {
    let drivers = At::of(new, "spec").field("drivers");
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        driver.as_object_mut().map(|map| map.remove("allocatable"));
        driver
    };
    let before = At::of(old, "spec").field("drivers");
    let before: BTreeMap<&str, &Value> = before.items().map(|was| (was.text_of("name"), was.value)).collect();
    for now in drivers.items() {
        let Some(was) = before.get(now.text_of("name")) else { continue };
        let (now, was) = (fixed(now.value), fixed(was));
        if now != was {
            errors.push(FieldError::invalid(drivers.path.as_str(), now, "field is immutable"));
        }
    }
}

pub fn capacity(object: &Object, errors: &mut Errors) {
    label_selector(&At::of(object, "nodeTopology"), errors);
    let class = At::of(object, "storageClassName");
    if let Some(why) = subdomain(class.text()) {
        class.invalid(errors, why);
    }
    let amount = At::of(object, "capacity");
    if quantity(amount.value).is_some_and(|amount| amount.is_negative()) {
        amount.invalid(errors, "must be greater than or equal to 0");
    }
}

pub fn capacity_update(new: &Object, old: &Object, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        At::of(new, field).immutable(errors, &At::of(old, field));
    }
}

pub fn attributes_class(object: &Object, errors: &mut Errors) {
    let driver = At::of(object, "driverName");
    driver.required_as(errors, |name| qualified(&name.to_lowercase()));
    let parameters = At::of(object, "parameters");
    let count = parameters.map().map_or(0, |map| map.len());
    if count > PARAMETERS_MAX {
        errors.push(FieldError::too_long(parameters.path.as_str(), PARAMETERS_MAX));
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(FieldError::invalid(parameters.path.as_str(), key, "field can not be empty."));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_MAX_BYTES {
        errors.push(FieldError::too_long(parameters.path.as_str(), PARAMETERS_MAX_BYTES));
    }
    if count == 0 {
        parameters.required(errors, "must contain at least one key/value pair");
    }
}

pub fn attributes_class_update(new: &Object, old: &Object, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        let at = At::of(new, field);
        if at.value != At::of(old, field).value {
            at.forbidden(errors, &format!("updates to {field} are forbidden."));
        }
    }
}
