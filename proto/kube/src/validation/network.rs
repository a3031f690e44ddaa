//! Ingresses and their classes, and NetworkPolicies.

use ipnet::IpNet;

use super::at::{At, Errors};
use super::format::{self, PORT_LAST, label, port, port_or_name, subdomain};
use super::meta::{NameRule, name_problem};
use super::selector;
use crate::{FieldError, Object};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX_BYTES: usize = 250;
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
    consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
    '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const CONTROLLER_PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";

pub fn ingress_create(object: &Object, errors: &mut Errors) {
    if let Some(class) = object.annotation(CLASS_ANNOTATION)
        && object.get("/spec/ingressClassName").is_some()
    {
        let path = format!("metadata.annotations[{CLASS_ANNOTATION}]");
        errors.push(FieldError::invalid(path, class, "can not be set when the class field is also set"));
    }
    ingress(object, errors);
}

pub fn ingress(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let (default, rules) = (spec.get("defaultBackend"), spec.field("rules"));
    if rules.count() == 0 && default.is_none() {
        errors.push(FieldError::invalid(
            "spec",
            rules.value.clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if let Some(default) = default {
        backend(&default, errors);
    }
    for rule in rules.items() {
        let name = rule.field("host");
        name.optional_as(errors, host);
        let Some(http) = rule.get("http") else { continue };
        let paths = http.field("paths");
        if paths.count() == 0 {
            paths.required(errors, "");
        }
        for path in paths.items() {
            http_path(&path, errors);
        }
    }
    for tls in spec.field("tls").items() {
        for name in tls.field("hosts").items() {
            name.required_as(errors, wildcard_or_subdomain);
        }
        tls.field("secretName").optional_as(errors, subdomain);
    }
    let class = spec.field("ingressClassName");
    if class.is_set()
        && let Some(why) = subdomain(class.text())
    {
        class.invalid(errors, why);
    }
}

fn host(name: &str) -> Option<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(_) => Some("must be a DNS name, not an IP address".to_owned()),
        Err(_) => wildcard_or_subdomain(name),
    }
}

fn wildcard_or_subdomain(name: &str) -> Option<String> {
    if !name.contains('*') {
        return subdomain(name);
    }
    let good = name.strip_prefix("*.").is_some_and(|rest| subdomain(rest).is_none());
    (!good).then(|| WILDCARD.to_owned())
}

fn http_path(at: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.field("pathType"), at.field("path"));
    let text = path.text();
    let absolute = text.starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                path.invalid(errors, "must be an absolute path");
            }
            for odd in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|odd| text.contains(odd)) {
                path.invalid(errors, format!("must not contain '{odd}'"));
            }
            for odd in ["/..", "/."].into_iter().filter(|odd| text.ends_with(odd)) {
                path.invalid(errors, format!("must not end with '{odd}'"));
            }
        }
        "ImplementationSpecific" if text.is_empty() || absolute => {}
        "ImplementationSpecific" => path.invalid(errors, "must be an absolute path"),
        _ if !kind.is_set() => kind.required(errors, "pathType must be specified"),
        _ => kind.not_supported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&at.field("backend"), errors);
}

fn backend(at: &At<'_>, errors: &mut Errors) {
    let wrong = |errors: &mut Errors, why: &str| errors.push(FieldError::invalid(at.path.as_str(), "", why));
    match (at.get("resource"), at.get("service")) {
        (Some(_), Some(_)) => wrong(errors, "cannot set both resource and service backends"),
        (None, None) => wrong(errors, "resource or service backend is required"),
        (Some(resource), None) => typed_reference(&resource, errors),
        (None, Some(service)) => {
            service.field("name").required_as(errors, |name| name_problem(NameRule::Dns1035, name));
            let (name, number) = (service.field("port").field("name"), service.field("port").field("number"));
            match (name.text().is_empty(), number.int().unwrap_or(0)) {
                (false, 0) => name.optional_as(errors, format::port_name),
                (false, _) => wrong(errors, "cannot set both port name & port number"),
                (true, 0) => errors.push(FieldError::required(at.path.as_str(), "port name or number is required")),
                (true, _) => port(&number, errors),
            }
        }
    }
}

/// What a kind, a name and perhaps a group refer to.
fn typed_reference(at: &At<'_>, errors: &mut Errors) {
    at.field("apiGroup").optional_as(errors, subdomain);
    for field in ["kind", "name"] {
        let part = at.field(field);
        if part.text().is_empty() {
            part.required(errors, &format!("{field} is required"));
        } else {
            part.optional_as(errors, |name| name_problem(NameRule::PathSegment, name));
        }
    }
}

pub fn ingress_class(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let controller = spec.field("controller");
    if controller.text().len() > CONTROLLER_MAX_BYTES {
        errors.push(FieldError::too_long(controller.path.as_str(), CONTROLLER_MAX_BYTES));
    }
    if controller.present(errors) {
        domain_prefixed_path(&controller, errors);
    }
    let Some(parameters) = spec.get("parameters") else { return };
    typed_reference(&parameters, errors);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match scope.text() {
        "Cluster" if namespace.is_set() => namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'"),
        "Cluster" => {}
        "Namespace" if !namespace.is_set() => namespace.required(errors, "`parameters.scope` is set to 'Namespace'"),
        "Namespace" => {
            if let Some(why) = label(namespace.text()) {
                namespace.invalid(errors, why);
            }
        }
        _ => scope.not_supported(errors, &["Cluster", "Namespace"]),
    }
}

/// `example.com/name`.
fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    let Some((host, path)) = at.text().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        at.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    if let Some(why) = subdomain(host) {
        errors.push(FieldError::invalid(at.path.as_str(), host, why));
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.push(FieldError::invalid(at.path.as_str(), path, CONTROLLER_PATH));
    }
}

pub fn ingress_class_update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").field("controller").immutable(errors, &At::of(old, "spec").field("controller"));
}

pub fn policy(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    selector::label_selector(&spec.field("podSelector"), errors);
    for (direction, others) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(direction).items() {
            for port in rule.field("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.field(others).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.count() > 2 {
        types.invalid(errors, "may not specify more than two policyTypes");
        return;
    }
    for kind in types.items().filter(|kind| !["Egress", "Ingress"].contains(&kind.text())) {
        kind.not_supported(errors, &["Egress", "Ingress"]);
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    at.field("protocol").maybe_one_of(errors, &["TCP", "UDP", "SCTP"]);
    let (first, last) = (at.field("port"), at.field("endPort"));
    if first.is_set() {
        port_or_name(&first, errors);
    }
    let Some(end) = last.int() else { return };
    match first.int() {
        Some(begin) if end < begin => last.invalid(errors, "must be greater than or equal to `port`"),
        Some(_) if !(1..=PORT_LAST).contains(&end) => port(&last, errors),
        Some(_) => {}
        None if first.is_set() => last.invalid(errors, "may not be specified when `port` is non-numeric"),
        None => last.invalid(errors, "may not be specified when `port` is not specified"),
    }
}

fn policy_peer(at: &At<'_>, errors: &mut Errors) {
    let (pods, namespaces, block) = (at.get("podSelector"), at.get("namespaceSelector"), at.get("ipBlock"));
    for chosen in [&pods, &namespaces].into_iter().flatten() {
        selector::label_selector(chosen, errors);
    }
    if let Some(block) = &block {
        ip_block(block, errors);
    }
    match (pods.is_some() || namespaces.is_some(), block.is_some()) {
        (false, false) => at.required(errors, "must specify a peer"),
        (true, true) => at.forbidden(errors, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(at: &At<'_>, errors: &mut Errors) {
    let whole = at.field("cidr");
    whole.required_as(errors, format::cidr);
    for part in at.field("except").items() {
        part.required_as(errors, format::cidr);
        let (Ok(net), Ok(inner)) = (whole.text().parse::<IpNet>(), part.text().parse::<IpNet>()) else { continue };
        if !net.contains(&inner.addr()) || net.prefix_len() >= inner.prefix_len() {
            part.invalid(errors, "must be a strict subset of `cidr`");
        }
    }
}
