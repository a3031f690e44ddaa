//! Endpoints and EndpointSlices.
//!
//! EndpointSlice
//! - `addressType` is of three, and never changes.
//! - Ports have names of their own (labels), a protocol, perhaps a number and a qualified protocol above.
//! - At most 1000 endpoints of 1 to 100 addresses each, of the type: for names, domains of two parts or more. The loopback and
//!   link-local ones are the API service's own alone.
//! - At most 16 labels of topology; hints name at most eight zones and nodes, each once.
//! - Endpoints that were stored as they are may stay.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::at::{At, Errors};
use super::format::{PROTOCOLS, endpoint_ip, ip, label, label_value, labels, port, qualified, subdomain};
use crate::{FieldError, Object};

pub const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_LABELS_MAX: usize = 16;

/// The API service's own addresses are its listener's, which may be a loopback on a cluster of one node.
fn is_own(object: &Object) -> bool {
    object.namespace() == "default" && object.name() == "kubernetes"
}

pub fn endpoints(object: &Object, errors: &mut Errors) {
    let rule: fn(&str) -> Option<String> = if is_own(object) { ip } else { endpoint_ip };
    for subset in At::of(object, "subsets").items() {
        let lists = [subset.field("addresses"), subset.field("notReadyAddresses")];
        if lists.iter().all(|list| list.count() == 0) {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in lists.iter().flat_map(At::items) {
            let text = address.field("ip");
            match rule(text.text()) {
                Some(why) => errors.push(FieldError::invalid(text.path.as_str(), text.text(), why)),
                None => address.field("hostname").optional_as(errors, label),
            }
            address.field("nodeName").optional_as(errors, subdomain);
        }
        let list = subset.field("ports");
        let several = list.count() > 1;
        for at in list.items() {
            let name = at.field("name");
            if several {
                name.required_as(errors, label);
            } else {
                name.optional_as(errors, label);
            }
            port(&at.field("port"), errors);
            at.field("protocol").one_of(errors, &PROTOCOLS);
            at.field("appProtocol").optional_as(errors, qualified);
        }
    }
}

pub fn slice(object: &Object, errors: &mut Errors) {
    slice_head(object, errors);
    slice_endpoints(object, errors);
}

pub fn slice_update(new: &Object, old: &Object, errors: &mut Errors) {
    slice_head(new, errors);
    if At::of(new, "endpoints").value != At::of(old, "endpoints").value {
        slice_endpoints(new, errors);
    }
    At::of(new, "addressType").immutable(errors, &At::of(old, "addressType"));
}

fn slice_head(object: &Object, errors: &mut Errors) {
    At::of(object, "addressType").one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    slice_ports(&At::of(object, "ports"), errors);
}

fn slice_endpoints(object: &Object, errors: &mut Errors) {
    let kind = At::of(object, "addressType");
    let list = At::of(object, "endpoints");
    list.too_many(errors, ENDPOINTS_MAX);
    for endpoint in list.items().take(ENDPOINTS_MAX) {
        slice_addresses(&endpoint.field("addresses"), kind.text(), is_own(object), errors);
        endpoint.field("nodeName").optional_as(errors, subdomain);
        let topology = endpoint.field("deprecatedTopology");
        let count = topology.map().map_or(0, |map| map.len());
        if count > TOPOLOGY_LABELS_MAX {
            errors.push(FieldError::too_many(topology.path.as_str(), count, TOPOLOGY_LABELS_MAX));
        }
        labels(&topology, errors);
        endpoint.field("hostname").optional_as(errors, label);
        let hints = endpoint.field("hints");
        hinted(&hints.field("forZones"), label_value, errors);
        hinted(&hints.field("forNodes"), subdomain, errors);
    }
}

/// Whom an endpoint is meant for.
fn hinted(hints: &At<'_>, problem: fn(&str) -> Option<String>, errors: &mut Errors) {
    if hints.count() > HINTS_MAX {
        return hints.too_many(errors, HINTS_MAX);
    }
    let mut seen = BTreeSet::new();
    for hint in hints.items() {
        let name = hint.field("name");
        name.unique(errors, &mut seen);
        if let Some(why) = problem(name.text()) {
            errors.push(FieldError::invalid(name.path.as_str(), name.text(), why));
        }
    }
}

fn slice_addresses(addresses: &At<'_>, kind: &str, own: bool, errors: &mut Errors) {
    if addresses.count() == 0 {
        addresses.required(errors, "must contain at least 1 address");
    }
    addresses.too_many(errors, ADDRESSES_MAX);
    for address in addresses.items().take(ADDRESSES_MAX) {
        let text = address.text();
        if kind == "FQDN" {
            domain(&address, errors);
            continue;
        }
        match text.parse::<IpAddr>() {
            _ if !["IPv4", "IPv6"].contains(&kind) => continue,
            Err(_) => {
                if let Some(why) = ip(text) {
                    address.invalid(errors, why);
                }
                continue;
            }
            Ok(ip) if ip.is_ipv4() != (kind == "IPv4") => {
                // Upstream names the list.
                errors.push(FieldError::invalid(addresses.path.as_str(), text, format!("must be an {kind} address")));
            }
            Ok(_) => {}
        }
        if let Some(why) = endpoint_ip(text).filter(|_| !own) {
            address.invalid(errors, why);
        }
    }
}

/// A name that is complete by itself; it may end with a point.
fn domain(at: &At<'_>, errors: &mut Errors) {
    if !at.present(errors) {
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let wrong = match subdomain(name) {
        Some(why) => Some((name, why)),
        None if !name.contains('.') => {
            Some((name, "should be a domain with at least two segments separated by dots".to_owned()))
        }
        None => name.split('.').find_map(|part| Some((part, label(part)?))),
    };
    if let Some((value, why)) = wrong {
        errors.push(FieldError::invalid(at.path.as_str(), value, why));
    }
}

fn slice_ports(ports: &At<'_>, errors: &mut Errors) {
    ports.too_many(errors, PORTS_MAX);
    let mut names = BTreeSet::new();
    for at in ports.items().take(PORTS_MAX) {
        let name = at.field("name");
        name.optional_as(errors, label);
        if !names.insert(name.text()) {
            errors.push(FieldError::duplicate(name.path.as_str(), name.text()));
        }
        at.field("protocol").one_of(errors, &PROTOCOLS);
        let number = at.field("port");
        if number.is_set() {
            port(&number, errors);
        }
        at.field("appProtocol").optional_as(errors, qualified);
    }
}
