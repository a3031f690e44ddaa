//! What a name of the cluster's zone stands for (Kubernetes DNS-Based Service Discovery 1.1.0). Pure.

use std::net::Ipv4Addr;

use gantry_kube::Ref;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::directory::Directory;
use crate::model::{Service, SliceEndpoint};

#[cfg(test)]
mod tests;

/// Short, since endpoints come and go.
const TTL_SECONDS: u32 = 5;
const SCHEMA_VERSION: &str = "1.1.0";

/// The names that are ours.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Labels from the left, in lower case.
    labels: Vec<String>,
    name: Name,
    service_ip: Ipv4Addr,
}

impl Zone {
    pub fn new(domain: &str, service_ip: Ipv4Addr) -> Option<Zone> {
        let mut name = Name::from_ascii(domain).ok()?;
        name.set_fqdn(true);
        let labels = labels(&name)?;
        (!labels.is_empty()).then_some(Zone { labels, name, service_ip })
    }

    fn name(&self, labels: &[&str]) -> Option<Name> {
        let own = labels.iter().map(|label| label.as_bytes());
        Name::from_labels(own.chain(self.labels.iter().map(String::as_bytes))).ok()
    }

    fn soa(&self) -> Option<Record> {
        let data = SOA::new(self.name(&["ns", "dns"])?, self.name(&["hostmaster"])?, 1, 7200, 1800, 86_400, 5);
        Some(Record::from_rdata(self.name.clone(), TTL_SECONDS, RData::SOA(data)))
    }
}

/// What there is to say to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is not ours to answer.
    Elsewhere,
    /// It is another name, which has to be asked for in turn.
    Alias {
        record: Box<Record>,
        target: Name,
    },
    Here {
        code: ResponseCode,
        answers: Vec<Record>,
        authorities: Vec<Record>,
        additionals: Vec<Record>,
    },
}

fn labels(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).map(str::to_lowercase).ok()).collect()
}

/// What a name of the zone leads to.
enum Found {
    Addresses(Vec<Ipv4Addr>),
    /// Port and host each; the host's own address goes along.
    Targets(Vec<(u16, Name, Ipv4Addr)>),
    Alias(Name),
    Text(String),
    Apex,
    /// There are names below this one, or records of other types.
    Empty,
    Nothing,
}

/// `turn` says which of several addresses comes first.
pub fn answer(question: &Query, directory: &Directory, zone: &Zone, turn: usize) -> Answer {
    if question.query_class != DNSClass::IN {
        return here(ResponseCode::Refused, Vec::new());
    }
    let Some(asked) = labels(&question.name) else { return here(ResponseCode::FormErr, Vec::new()) };
    if asked.ends_with(&[String::from("in-addr"), String::from("arpa")]) {
        return reverse(question, &asked[..asked.len() - 2], directory, zone);
    }
    let Some(own) = asked.strip_suffix(zone.labels.as_slice()) else { return Answer::Elsewhere };
    if !directory.is_complete() {
        return here(ResponseCode::ServFail, Vec::new());
    }
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let mut found = find(&own, directory, zone);
    match &mut found {
        Found::Addresses(addresses) if !addresses.is_empty() => {
            let middle = turn % addresses.len();
            addresses.rotate_left(middle);
        }
        _ => {}
    }
    say(question, found, zone)
}

fn here(code: ResponseCode, answers: Vec<Record>) -> Answer {
    Answer::Here { code, answers, authorities: Vec::new(), additionals: Vec::new() }
}

fn say(question: &Query, found: Found, zone: &Zone) -> Answer {
    let record = |data| Record::from_rdata(question.name.clone(), TTL_SECONDS, data);
    let wanted = |kind| question.query_type == kind || question.query_type == RecordType::ANY;
    let mut additionals = Vec::new();
    let answers: Vec<Record> = match found {
        Found::Nothing => return negative(ResponseCode::NXDomain, zone),
        Found::Alias(target) => {
            let record = record(RData::CNAME(CNAME(target.clone())));
            return if question.query_type == RecordType::CNAME {
                here(ResponseCode::NoError, vec![record])
            } else {
                Answer::Alias { record: Box::new(record), target }
            };
        }
        Found::Addresses(addresses) if wanted(RecordType::A) => {
            addresses.into_iter().map(|ip| record(RData::A(A(ip)))).collect()
        }
        Found::Targets(targets) if wanted(RecordType::SRV) => {
            let weight = (100 / targets.len().max(1)).max(1) as u16;
            let mut named: Vec<(Name, Ipv4Addr)> = targets.iter().map(|(_, name, ip)| (name.clone(), *ip)).collect();
            named.sort();
            named.dedup();
            let address = |(name, ip)| Record::from_rdata(name, TTL_SECONDS, RData::A(A(ip)));
            additionals = named.into_iter().map(address).collect();
            targets.into_iter().map(|(port, name, _)| record(RData::SRV(SRV::new(0, weight, port, name)))).collect()
        }
        Found::Text(text) if wanted(RecordType::TXT) => vec![record(RData::TXT(TXT::new(vec![text])))],
        Found::Apex if question.query_type == RecordType::SOA => zone.soa().into_iter().collect(),
        Found::Apex if question.query_type == RecordType::NS => {
            zone.name(&["kube-dns", "kube-system", "svc"]).map(|name| record(RData::NS(NS(name)))).into_iter().collect()
        }
        _ => Vec::new(),
    };
    if answers.is_empty() {
        return negative(ResponseCode::NoError, zone);
    }
    Answer::Here { code: ResponseCode::NoError, answers, authorities: Vec::new(), additionals }
}

/// RFC 2308: the SOA says how long the absence may be believed.
fn negative(code: ResponseCode, zone: &Zone) -> Answer {
    let authorities = zone.soa().into_iter().collect();
    Answer::Here { code, answers: Vec::new(), authorities, additionals: Vec::new() }
}

fn find(own: &[&str], directory: &Directory, zone: &Zone) -> Found {
    match own {
        [] => Found::Apex,
        ["dns-version"] => Found::Text(SCHEMA_VERSION.to_owned()),
        ["svc" | "pod" | "dns"] => Found::Empty,
        ["ns", "dns"] => Found::Addresses(vec![zone.service_ip]),
        [namespace, "svc"] => {
            if directory.has_namespace(namespace) {
                Found::Empty
            } else {
                Found::Nothing
            }
        }
        // Nobody knows here which namespaces there are without a service; pods may be anywhere.
        [_, "pod"] => Found::Empty,
        [dashed, _, "pod"] => dashed_ip(dashed).map_or(Found::Nothing, |ip| Found::Addresses(vec![ip])),
        [rest @ .., service, namespace, "svc"] => {
            let at = Ref::new(*namespace, *service);
            match directory.service(&at) {
                Some(found) => of_service(rest, found, directory, zone),
                None => Found::Nothing,
            }
        }
        _ => Found::Nothing,
    }
}

fn of_service(rest: &[&str], service: &Service, directory: &Directory, zone: &Zone) -> Found {
    if let Some(target) = &service.external_name {
        let alias = Name::from_ascii(target).ok().map(|mut name| {
            name.set_fqdn(true);
            name
        });
        return match (rest, alias) {
            ([], Some(name)) => Found::Alias(name),
            _ => Found::Nothing,
        };
    }
    match (rest, service.cluster_ip) {
        ([], Some(ip)) => Found::Addresses(vec![ip]),
        ([], None) => Found::Addresses(endpoints(service, directory).map(|endpoint| endpoint.ip).collect()),
        ([protocol], _) if protocol.starts_with('_') => {
            let any = service.ports.iter().any(|port| port.protocol.label() == *protocol);
            if any { Found::Empty } else { Found::Nothing }
        }
        ([port, protocol], Some(ip)) => {
            let wanted = |p: &&crate::model::ServicePort| is_port(&p.name, p.protocol.label(), port, protocol);
            let host = service_name(service, &[], zone);
            let targets = service.ports.iter().filter(wanted).filter_map(|p| Some((p.port, host.clone()?, ip)));
            some_targets(targets.collect())
        }
        ([port, protocol], None) if port.starts_with('_') => headless_targets(service, port, protocol, directory, zone),
        ([host], None) => {
            let named = endpoints(service, directory).filter(|endpoint| host_label(endpoint) == *host);
            let addresses: Vec<Ipv4Addr> = named.map(|endpoint| endpoint.ip).collect();
            if addresses.is_empty() { Found::Nothing } else { Found::Addresses(addresses) }
        }
        _ => Found::Nothing,
    }
}

fn headless_targets(service: &Service, port: &str, protocol: &str, directory: &Directory, zone: &Zone) -> Found {
    let mut targets = Vec::new();
    for slice in directory.slices(&service.at) {
        let wanted = slice.ports.iter().find(|p| is_port(&p.name, p.protocol.label(), port, protocol));
        let Some(wanted) = wanted else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            if let Some(name) = service_name(service, &[&host_label(endpoint)], zone) {
                targets.push((wanted.port, name, endpoint.ip));
            }
        }
    }
    some_targets(targets)
}

fn some_targets(targets: Vec<(u16, Name, Ipv4Addr)>) -> Found {
    if targets.is_empty() { Found::Nothing } else { Found::Targets(targets) }
}

/// `_http._tcp` names the port `http`; an unnamed port has no SRV name.
fn is_port(name: &str, label: &str, asked_port: &str, asked_protocol: &str) -> bool {
    !name.is_empty() && label == asked_protocol && asked_port.strip_prefix('_') == Some(name)
}

/// The endpoints that a headless name stands for, each once.
fn endpoints<'a>(service: &Service, directory: &'a Directory) -> impl Iterator<Item = &'a SliceEndpoint> {
    let mut seen = std::collections::BTreeSet::new();
    let all = directory.slices(&service.at).flat_map(|slice| &slice.endpoints);
    all.filter(move |endpoint| endpoint.ready && seen.insert(endpoint.ip))
}

fn service_name(service: &Service, host: &[&str], zone: &Zone) -> Option<Name> {
    let mut labels = host.to_vec();
    labels.extend([service.at.name.as_str(), &service.at.namespace, "svc"]);
    zone.name(&labels)
}

/// An endpoint without a hostname is called by its address.
fn host_label(endpoint: &SliceEndpoint) -> String {
    if endpoint.hostname.is_empty() { endpoint.ip.to_string().replace('.', "-") } else { endpoint.hostname.clone() }
}

fn dashed_ip(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// `d.c.b.a.in-addr.arpa`. Addresses that are no service's and no named endpoint's are for others to answer.
fn reverse(question: &Query, labels: &[String], directory: &Directory, zone: &Zone) -> Answer {
    let [d, c, b, a] = labels else { return Answer::Elsewhere };
    let Ok(ip) = format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>() else { return Answer::Elsewhere };
    let mut names: Vec<Name> =
        directory.by_cluster_ip(ip).filter_map(|service| service_name(service, &[], zone)).collect();
    for (service, endpoint) in directory.endpoints_at(ip) {
        if let Some(service) = directory.service(&service)
            && service.headless
            && endpoint.ready
        {
            names.extend(service_name(service, &[&host_label(&endpoint)], zone));
        }
    }
    if names.is_empty() {
        return Answer::Elsewhere;
    }
    if question.query_type != RecordType::PTR && question.query_type != RecordType::ANY {
        return negative(ResponseCode::NoError, zone);
    }
    let record = |name| Record::from_rdata(question.name.clone(), TTL_SECONDS, RData::PTR(PTR(name)));
    here(ResponseCode::NoError, names.into_iter().map(record).collect())
}
