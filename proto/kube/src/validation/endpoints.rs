//! Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use super::at::{At, Errors};
use super::format::{PROTOCOLS, endpoint_ip, ip, ipv4, ipv6, label, labels, port, qualified, subdomain};
use crate::{FieldError, Object};

pub const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

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
    let kind = At::of(object, "addressType");
    kind.one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    let list = At::of(object, "endpoints");
    list.too_many(errors, ENDPOINTS_MAX);
    for endpoint in list.items().take(ENDPOINTS_MAX) {
        slice_addresses(&endpoint.field("addresses"), kind.text(), is_own(object), errors);
        endpoint.field("hostname").optional_as(errors, label);
        endpoint.field("nodeName").optional_as(errors, subdomain);
        labels(&endpoint.field("deprecatedTopology"), errors);
        for hints in ["forZones", "forNodes"] {
            let hints = endpoint.field("hints").field(hints);
            hints.too_many(errors, HINTS_MAX);
            for hint in hints.items() {
                hint.field("name").present(errors);
            }
        }
    }
    slice_ports(&At::of(object, "ports"), errors);
}

pub fn slice_update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "addressType").immutable(errors, &At::of(old, "addressType"));
}

fn slice_addresses(addresses: &At<'_>, kind: &str, own: bool, errors: &mut Errors) {
    if addresses.count() == 0 {
        addresses.required(errors, "must contain at least 1 address");
    }
    addresses.too_many(errors, ADDRESSES_MAX);
    for address in addresses.items().take(ADDRESSES_MAX) {
        let text = address.text();
        let special = |text: &str| if own { None } else { endpoint_ip(text) };
        let problem = match kind {
            "IPv4" => ipv4(text).or_else(|| special(text)),
            "IPv6" => ipv6(text).or_else(|| special(text)),
            "FQDN" => subdomain(text),
            _ => None,
        };
        if let Some(why) = problem {
            address.invalid(errors, why);
        }
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
