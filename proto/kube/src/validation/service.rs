//! Services.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{PROTOCOLS, cidr, ip, label, labels, port, port_or_name, qualified, subdomain};
use crate::{FieldError, Object};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const CLUSTER_IPS_MAX: usize = 2;
const NONE: &str = "None";

pub fn create(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let kind = spec.field("type");
    kind.one_of(errors, &TYPES);
    addresses(&spec, errors);
    ports(&spec, errors);
    labels(&spec.field("selector"), errors);
    affinity(&spec, errors);
    families(&spec, errors);
    traffic(&spec, errors);
    if kind.text() == "ExternalName" {
        // A name of DNS may end with its dot.
        let name = |text: &str| subdomain(&text.strip_suffix('.').unwrap_or(text).to_lowercase());
        spec.field("externalName").required_as(errors, name);
    }
}

/// The address that a Service once has is its own for as long as it needs one.
pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    let (now, was) = (spec.text_of("clusterIP"), before.text_of("clusterIP"));
    let external = |spec: &At<'_>| spec.text_of("type") == "ExternalName";
    if !external(&spec) && !external(&before) && !was.is_empty() && !now.is_empty() && now != was {
        let path = "spec.clusterIPs[0]";
        let value = Value::from(vec![now]);
        errors.push(FieldError::invalid(path, value, "may not change once set"));
    }
    let class = spec.field("loadBalancerClass");
    let balancers = spec.text_of("type") == "LoadBalancer" && before.text_of("type") == "LoadBalancer";
    if balancers && class.value != before.field("loadBalancerClass").value {
        class.invalid(errors, "may not change once set");
    }
}

fn is_headless(spec: &At<'_>) -> bool {
    spec.text_of("clusterIP") == NONE || spec.field("clusterIPs").items().next().is_some_and(|ip| ip.text() == NONE)
}

fn addresses(spec: &At<'_>, errors: &mut Errors) {
    let (kind, single, list) = (spec.text_of("type"), spec.field("clusterIP"), spec.field("clusterIPs"));
    if kind == "ExternalName" {
        for at in [&single, &list] {
            if at.count() > 0 || !at.text().is_empty() {
                at.forbidden(errors, "may not be set for ExternalName services");
            }
        }
        return;
    }
    if is_headless(spec) && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", NONE, why));
    }
    if list.count() == 0 {
        // Where a client names no list, the list is made of the one address.
        if !matches!(single.text(), "" | NONE)
            && let Some(why) = ip(single.text())
        {
            errors.push(FieldError::invalid("spec.clusterIPs[0]", single.text(), why));
        }
    } else if list.items().next().is_some_and(|first| first.text() != single.text()) {
        list.invalid(errors, "first value must match `clusterIP`");
    }
    if list.count() > CLUSTER_IPS_MAX {
        list.invalid(errors, "may only hold up to 2 values");
    }
    for (i, at) in list.items().enumerate() {
        if at.text() == NONE {
            if i > 0 {
                at.invalid(errors, "'None' must be the first and only value");
            }
        } else {
            at.required_as(errors, ip);
        }
    }
    for at in spec.field("externalIPs").items() {
        at.required_as(errors, super::format::endpoint_ip);
    }
    let ranges = spec.field("loadBalancerSourceRanges");
    if ranges.count() > 0 && kind != "LoadBalancer" {
        ranges.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
    for at in ranges.items() {
        at.required_as(errors, |text| cidr(text.trim()));
    }
}

fn ports(spec: &At<'_>, errors: &mut Errors) {
    let (kind, list) = (spec.text_of("type"), spec.field("ports"));
    let headless = is_headless(spec);
    if list.count() == 0 && !headless && kind != "ExternalName" {
        list.required(errors, "");
    }
    let several = list.count() > 1;
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for at in list.items() {
        let name = at.field("name");
        if several {
            name.required_as(errors, label);
        } else {
            name.optional_as(errors, label);
        }
        name.unique(errors, &mut names);
        port(&at.field("port"), errors);
        at.field("protocol").one_of(errors, &PROTOCOLS);
        let target = at.field("targetPort");
        if target.is_set() {
            port_or_name(&target, errors);
        }
        at.field("appProtocol").optional_as(errors, qualified);
        let node_port = at.field("nodePort");
        if let Some(number) = node_port.int().filter(|number| *number != 0) {
            if !matches!(kind, "NodePort" | "LoadBalancer") {
                node_port.forbidden(errors, &format!("may not be used when `type` is '{kind}'"));
            }
            if !node_ports.insert((at.text_of("protocol"), number)) {
                errors.push(FieldError::duplicate(node_port.path.as_str(), number));
            }
        }
        if !numbers.insert((at.text_of("protocol"), at.int_of("port"))) {
            errors.push(FieldError::duplicate(at.path.as_str(), at.value.clone()));
        }
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let (affinity, config) = (spec.field("sessionAffinity"), spec.field("sessionAffinityConfig"));
    affinity.one_of(errors, &["ClientIP", "None"]);
    match affinity.text() {
        "ClientIP" => {
            let seconds = config.field("clientIP").field("timeoutSeconds");
            match seconds.int() {
                None => seconds.required(errors, ""),
                Some(number) if number <= 0 || number > AFFINITY_SECONDS_MAX => {
                    let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    seconds.invalid(errors, why);
                }
                Some(_) => {}
            }
        }
        "None" if config.is_set() => {
            config.forbidden(errors, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn families(spec: &At<'_>, errors: &mut Errors) {
    let (policy, families) = (spec.field("ipFamilyPolicy"), spec.field("ipFamilies"));
    if spec.text_of("type") == "ExternalName" {
        for at in [&policy, &families] {
            if at.is_set() {
                at.forbidden(errors, "may not be set for ExternalName services");
            }
        }
        return;
    }
    policy.maybe_one_of(errors, &["SingleStack", "PreferDualStack", "RequireDualStack"]);
    let mut seen = BTreeSet::new();
    for family in families.items() {
        if !["IPv4", "IPv6"].contains(&family.text()) {
            family.not_supported(errors, &["IPv4", "IPv6"]);
        }
        family.unique(errors, &mut seen);
    }
    for (family, address) in families.items().zip(spec.field("clusterIPs").items()) {
        let is_v6 = match address.text().parse::<std::net::IpAddr>() {
            Ok(address) => address.is_ipv6(),
            Err(_) => continue,
        };
        if is_v6 != (family.text() == "IPv6") {
            let why = format!("expected an {} value as indicated by `ipFamilies[0]`", family.text());
            address.invalid(errors, why);
        }
    }
}

fn traffic(spec: &At<'_>, errors: &mut Errors) {
    let kind = spec.text_of("type");
    let external = spec.field("externalTrafficPolicy");
    external.maybe_one_of(errors, &["Cluster", "Local"]);
    let reachable = matches!(kind, "NodePort" | "LoadBalancer") || spec.field("externalIPs").count() > 0;
    if external.is_set() && !reachable {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    spec.field("internalTrafficPolicy").maybe_one_of(errors, &["Cluster", "Local"]);
    let distribution = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.field("trafficDistribution").maybe_one_of(errors, &distribution);
    let health = spec.field("healthCheckNodePort");
    if health.int().is_some_and(|number| number != 0) && (kind != "LoadBalancer" || external.text() != "Local") {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, why);
    }
    for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        let at = spec.field(field);
        if at.is_set() && kind != "LoadBalancer" {
            at.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    spec.field("loadBalancerClass").optional_as(errors, qualified);
    spec.field("loadBalancerIP").optional_as(errors, ip);
}
