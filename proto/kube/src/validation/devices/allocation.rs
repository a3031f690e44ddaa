//! The status of a ResourceClaim.
//!
//! - At most 256 consumers, each with a resource, a name and a uid, each uid once; none without an allocation, and no new one
//!   once the claim is being deleted.
//! - What is allocated never changes, but may be taken away as a whole. A new allocation has at most 32 devices for requests
//!   of the claim, each with a driver, a pool and a device, and at most 64 configurations from the class or the claim.
//! - What drivers say of devices is of devices that are allocated, each once, with at most eight conditions, data that is an
//!   object of at most 10 KiB, and at most 16 addresses in canonical form, each once.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::claim::names;
use super::{
    CONFIGS_MAX, Requests, binding_conditions, configuration, each, each_once, json_object, must_be, own_text,
    pool_name,
};
use crate::validation::at::{At, Errors};
use crate::validation::conditions::conditions;
use crate::validation::format::{driver_name, label};
use crate::validation::selector::node_selector;
use crate::{FieldError, Object};

const CONSUMERS_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
const CONDITIONS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 16;
const INTERFACE_MAX_BYTES: usize = 256;
const HARDWARE_ADDRESS_MAX_BYTES: usize = 128;
const UID: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
    hexadecimal characters";

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (status, before) = (At::of(new, "status"), At::of(old, "status"));
    let devices = At::of(new, "spec").field("devices");
    let consumers = status.field("reservedFor");
    each_once(
        &consumers,
        CONSUMERS_MAX,
        |one| one.text_of("uid").to_owned(),
        errors,
        |one, errors| {
            for field in ["resource", "name", "uid"] {
                one.field(field).present(errors);
            }
        },
    );
    let allocation = status.field("allocation");
    let allocated: BTreeSet<String> =
        allocation.field("devices").field("results").items().map(|one| id(&one)).collect();
    each_once(&status.field("devices"), usize::MAX, id, errors, |device, errors| {
        device_status(device, &allocated, errors);
    });
    if consumers.count() > 0 && !allocation.is_set() {
        consumers.forbidden(errors, "may not be specified when `allocated` is not set");
    } else if consumers.count() > 0 && new.deletion_timestamp().is_some() {
        let known = before.field("reservedFor");
        if consumers.items().any(|one| !known.items().any(|old| old.value == one.value)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            consumers.forbidden(errors, why);
        }
    }
    let was = before.field("allocation");
    match (was.is_set(), allocation.is_set()) {
        (true, true) => allocation.immutable(errors, &was),
        (false, true) => result(&allocation, &Requests::of(&devices), errors),
        _ => {}
    }
}

/// A device by driver, pool and name, and by what of it is shared.
fn id(at: &At<'_>) -> String {
    let mut id = format!("{}/{}/{}", at.text_of("driver"), at.text_of("pool"), at.text_of("device"));
    if !at.text_of("shareID").is_empty() {
        id = format!("{id}/{}", at.text_of("shareID"));
    }
    id
}

fn result(allocation: &At<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    let devices = allocation.field("devices");
    each(&devices.field("results"), RESULTS_MAX, errors, |one, errors| {
        requests.check(&one.field("request"), errors);
        place(one, errors);
        binding_conditions(one, errors);
    });
    // Those of the class, and those of the claim.
    each(&devices.field("config"), 2 * CONFIGS_MAX, errors, |one, errors| {
        one.field("source").one_of(errors, &["FromClaim", "FromClass"]);
        names(one, requests, errors);
        configuration(one, errors);
    });
    if let Some(nodes) = allocation.get("nodeSelector") {
        node_selector(&nodes, errors);
    }
}

fn place(at: &At<'_>, errors: &mut Errors) {
    driver_name(&at.field("driver"), errors);
    pool_name(&at.field("pool"), errors);
    must_be(&at.field("device"), errors, label);
    let share = at.field("shareID");
    if share.is_set() && !is_uid(share.text()) {
        share.invalid(errors, UID);
    }
}

fn is_uid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match hyphens.contains(&at) {
            true => b == b'-',
            false => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

fn device_status(at: &At<'_>, allocated: &BTreeSet<String>, errors: &mut Errors) {
    place(at, errors);
    if !allocated.contains(&id(at)) {
        errors.push(FieldError::invalid(at.path.as_str(), id(at), "must be an allocated device in the claim"));
    }
    let list = at.field("conditions");
    list.too_many(errors, CONDITIONS_MAX);
    conditions(&list, errors);
    if let Some(data) = at.get("data") {
        json_object(&data, errors);
    }
    let network = at.field("networkData");
    for (field, max) in [("interfaceName", INTERFACE_MAX_BYTES), ("hardwareAddress", HARDWARE_ADDRESS_MAX_BYTES)] {
        let text = network.field(field);
        if text.text().len() > max {
            errors.push(FieldError::too_long(text.path.as_str(), max));
        }
    }
    each_once(&network.field("ips"), ADDRESSES_MAX, own_text, errors, |ip, errors| must_be(ip, errors, address));
}

/// An interface's address with the length of its network.
fn address(text: &str) -> Option<String> {
    let Ok(net) = text.parse::<IpNet>() else {
        return Some("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned());
    };
    let canonical = net.to_string();
    (canonical != text).then(|| format!("must be in canonical form ({canonical:?})"))
}
