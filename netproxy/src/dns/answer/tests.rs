use std::sync::Arc;

use gantry_kube::Object;
use serde_json::json;

use super::*;
use crate::model::Slice;

fn directory() -> Directory {
    let mut directory = Directory::default();
    let services = [
        json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"clusterIP": "10.96.0.7",
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        json!({"metadata": {"namespace": "a", "name": "db"}, "spec": {"clusterIP": "None",
            "ports": [{"name": "sql", "port": 5432}]}}),
        json!({"metadata": {"namespace": "a", "name": "out"}, "spec": {"type": "ExternalName",
            "externalName": "example.org."}}),
        json!({"metadata": {"namespace": "a", "name": "idle"}, "spec": {"clusterIP": "None"}}),
    ];
    for service in services {
        let service = Service::project(&Object::from_value(service).unwrap());
        directory.set_service(service.at.clone(), Some(Arc::new(service)));
    }
    let slice = json!({"metadata": {"namespace": "a", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}],
        "endpoints": [{"addresses": ["10.244.0.2"], "hostname": "db-0"}, {"addresses": ["10.244.0.3"]},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}}]});
    let slice = Slice::project(&Object::from_value(slice).unwrap());
    directory.set_slice(slice.at.clone(), Some(Arc::new(slice)));
    directory.set_complete();
    directory
}

fn zone() -> Zone {
    Zone::new("cluster.local", Ipv4Addr::new(10, 96, 0, 10)).unwrap()
}

fn ask(name: &str, kind: RecordType) -> Answer {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    answer(&Query::query(name, kind), &directory(), &zone(), 0)
}

/// The code, and the data of the answers as text.
fn told(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    match ask(name, kind) {
        Answer::Here { code, answers, authorities, .. } => {
            assert_eq!(authorities.is_empty(), !answers.is_empty(), "a negative answer has its SOA: {name}");
            (code, answers.iter().map(|record| record.data.to_string()).collect())
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn records(name: &str, kind: RecordType) -> Vec<String> {
    let (code, records) = told(name, kind);
    assert_eq!(code, ResponseCode::NoError, "{name}");
    records
}

fn is_absent(name: &str) -> bool {
    told(name, RecordType::A) == (ResponseCode::NXDomain, Vec::new())
}

#[test]
fn services_have_addresses_and_ports() {
    assert_eq!(records("web.a.svc.cluster.local", RecordType::A), ["10.96.0.7"]);
    assert_eq!(records("WEB.a.Svc.cluster.LOCAL", RecordType::A), ["10.96.0.7"]);
    assert!(records("web.a.svc.cluster.local", RecordType::AAAA).is_empty(), "it exists, without IPv6");
    assert_eq!(records("_http._tcp.web.a.svc.cluster.local", RecordType::SRV), ["0 100 80 web.a.svc.cluster.local."]);
    assert!(records("_udp.web.a.svc.cluster.local", RecordType::A).is_empty());
    for name in ["no.a.svc", "web.b.svc", "_no._tcp.web.a.svc", "_http._udp.web.a.svc", "x.web.a.svc", "web.a", "x"] {
        assert!(is_absent(&format!("{name}.cluster.local")), "{name}");
    }
}

#[test]
fn headless_services_are_their_ready_endpoints() {
    assert_eq!(records("db.a.svc.cluster.local", RecordType::A), ["10.244.0.2", "10.244.0.3"]);
    assert_eq!(records("db-0.db.a.svc.cluster.local", RecordType::A), ["10.244.0.2"]);
    assert_eq!(records("10-244-0-3.db.a.svc.cluster.local", RecordType::A), ["10.244.0.3"]);
    assert!(is_absent("10-244-0-4.db.a.svc.cluster.local"));
    assert_eq!(
        records("_sql._tcp.db.a.svc.cluster.local", RecordType::SRV),
        ["0 50 5432 db-0.db.a.svc.cluster.local.", "0 50 5432 10-244-0-3.db.a.svc.cluster.local."]
    );
    assert!(records("idle.a.svc.cluster.local", RecordType::A).is_empty(), "it exists, and nobody is ready");
}

#[test]
fn search_paths_find_names_that_do_not_exist_at_once() {
    // What `ndots:5` makes of `web.a` and of an outside name, in a pod of namespace b.
    for name in ["web.a.b.svc.cluster.local", "example.org.b.svc.cluster.local", "example.org.svc.cluster.local"] {
        assert!(is_absent(name), "{name}");
    }
    assert_eq!(records("web.a.svc.cluster.local", RecordType::A), ["10.96.0.7"]);
    assert_eq!(ask("example.org", RecordType::A), Answer::Elsewhere);
    assert!(matches!(ask("cluster.local.example.org", RecordType::A), Answer::Elsewhere));
}

#[test]
fn names_lead_back_from_addresses() {
    assert_eq!(records("7.0.96.10.in-addr.arpa", RecordType::PTR), ["web.a.svc.cluster.local."]);
    assert_eq!(records("2.0.244.10.in-addr.arpa", RecordType::PTR), ["db-0.db.a.svc.cluster.local."]);
    assert_eq!(ask("1.2.0.192.in-addr.arpa", RecordType::PTR), Answer::Elsewhere);
    assert_eq!(ask("96.10.in-addr.arpa", RecordType::PTR), Answer::Elsewhere);
}

#[test]
fn the_zone_pods_and_aliases() {
    assert_eq!(records("10-244-0-9.a.pod.cluster.local", RecordType::A), ["10.244.0.9"]);
    assert!(is_absent("nonsense.a.pod.cluster.local"));
    assert_eq!(records("dns-version.cluster.local", RecordType::TXT), ["1.1.0"]);
    assert_eq!(records("cluster.local", RecordType::SOA).len(), 1);
    assert!(records("svc.cluster.local", RecordType::A).is_empty());
    assert!(records("a.svc.cluster.local", RecordType::A).is_empty());
    match ask("out.a.svc.cluster.local", RecordType::A) {
        Answer::Alias { target, .. } => assert_eq!(target.to_ascii(), "example.org."),
        other => panic!("{other:?}"),
    }
    assert_eq!(records("out.a.svc.cluster.local", RecordType::CNAME), ["example.org."]);
}

#[test]
fn an_absence_is_not_told_before_everything_is_known() {
    let question = Query::query(Name::from_ascii("x.a.svc.cluster.local.").unwrap(), RecordType::A);
    let found = answer(&question, &Directory::default(), &zone(), 0);
    assert!(matches!(found, Answer::Here { code: ResponseCode::ServFail, .. }));
}
