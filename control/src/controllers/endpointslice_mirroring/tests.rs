use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use proptest::prelude::*;

fn service(spec: Value) -> Object {
    Object::from_value(json!({"metadata": {"name": "db", "namespace": "a"}, "spec": spec})).unwrap()
}

fn endpoints(subsets: Value) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "a", "uid": "e", "labels": {"mine": "yes"}, "annotations":
            {"kept": "yes", "kubectl.kubernetes.io/last-applied-configuration": "x"}},
        "subsets": subsets}))
    .unwrap()
}

fn run(service: Option<&Object>, endpoints: Option<&Object>, slices: &[Arc<Object>]) -> Plan {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // In an order of their own, as random names are.
    let suffix = |_| format!("s{}", NEXT.fetch_add(7, Ordering::Relaxed) % 1009);
    plan(service, endpoints, &Ref::new("a", "db"), slices, suffix)
}

fn apply(slices: &mut Vec<Arc<Object>>, plan: &Plan) {
    for action in &plan.actions {
        match action {
            Action::Create(_, slice) => {
                let mut slice = slice.clone();
                let uid = format!("uid-{}", slice.name());
                slice.metadata_mut().insert("uid".into(), json!(uid));
                slices.push(Arc::new(slice));
            }
            Action::Update(_, slice) => {
                *slices.iter_mut().find(|s| s.uid() == slice.uid()).unwrap() = Arc::new(slice.clone());
            }
            Action::Delete(_, uid) => slices.retain(|s| s.uid() != uid),
        }
    }
    slices.sort_by_key(|slice| slice.name().to_owned());
}

fn plain() -> Object {
    service(json!({"ports": [{"port": 80}]}))
}

#[test]
fn addresses_stand_by_family_and_ports() {
    let subsets = json!([
        {"addresses": [{"ip": "10.0.0.2", "hostname": "h"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.1"}],
         "ports": [{"port": 80, "name": "web"}]},
        {"addresses": [{"ip": "10.0.0.9", "nodeName": "n"}], "ports": [{"port": 81, "protocol": "UDP"}]},
    ]);
    let mut slices = Vec::new();
    apply(&mut slices, &run(Some(&plain()), Some(&endpoints(subsets)), &[]));
    slices.sort_by_key(|s| (s.str_at("/addressType").to_owned(), s.i64_at("/ports/0/port")));
    let kinds: Vec<&str> = slices.iter().map(|s| s.str_at("/addressType")).collect();
    assert_eq!(kinds, ["IPv4", "IPv4", "IPv6"]);
    let first = &slices[0];
    assert_eq!(first.array_at("/ports"), [json!({"name": "web", "port": 80, "protocol": "TCP"})]);
    assert_eq!(
        first.array_at("/endpoints"),
        [
            json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false}}),
            json!({"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "hostname": "h"}),
        ]
    );
    assert_eq!((first.label("mine"), first.label(SERVICE_LABEL)), (Some("yes"), Some("db")));
    assert_eq!(first.get("/metadata/annotations"), Some(&json!({"kept": "yes"})));
    assert_eq!(
        (first.str_at("/metadata/ownerReferences/0/kind"), first.str_at("/metadata/ownerReferences/0/uid")),
        ("Endpoints", "e")
    );
}

#[test]
fn only_what_nobody_else_keeps_is_mirrored() {
    let of = |address: &str| endpoints(json!([{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]));
    let made = |service: Option<&Object>, endpoints: &Object| run(service, Some(endpoints), &[]).actions.len();
    assert_eq!(made(Some(&plain()), &of("10.0.0.1")), 1);
    assert_eq!(made(None, &of("10.0.0.1")), 0);
    assert_eq!(made(Some(&service(json!({"selector": {"app": "db"}}))), &of("10.0.0.1")), 0);
    assert_eq!(made(Some(&service(json!({"type": "ExternalName"}))), &of("10.0.0.1")), 0);
    let mut skipped = of("10.0.0.1");
    skipped.metadata_mut().insert("labels".into(), json!({SKIP: "true"}));
    assert_eq!(made(Some(&plain()), &skipped), 0);
    let mut leader = of("10.0.0.1");
    leader.metadata_mut().insert("annotations".into(), json!({LEADER: "{}"}));
    assert_eq!(made(Some(&plain()), &leader), 0);
    // What was mirrored goes with what it mirrored, and slices of others stay.
    let mut slices = Vec::new();
    apply(&mut slices, &run(Some(&plain()), Some(&of("10.0.0.1")), &[]));
    let other = json!({"metadata": {"name": "x", "namespace": "a", "uid": "x", "labels": {SERVICE_LABEL: "db"}}});
    slices.push(Arc::new(Object::from_value(other).unwrap()));
    let plan = run(Some(&plain()), None, &slices);
    apply(&mut slices, &plan);
    assert_eq!(slices.iter().map(|slice| slice.name()).collect::<Vec<_>>(), ["x"]);
}

proptest! {
    /// After a full apply the plan is empty, and every address stands in exactly one slice.
    #[test]
    fn fixpoint(worlds in proptest::collection::vec(proptest::collection::vec((0..1200_u32, 0..3_u16, any::<bool>()), 0..4), 1..5)) {
        let mut slices = Vec::new();
        for world in worlds {
            let mut expected = std::collections::BTreeSet::new();
            let subsets: Vec<Value> = world.iter().enumerate().map(|(n, (count, port, ready))| {
                let ip = |i: u32| format!("10.{n}.{}.{}", i / 250, i % 250 + 1);
                expected.extend((0..(*count).min(1000)).map(|i| (ip(i), *port)));
                let list: Vec<Value> = (0..*count).map(|i| json!({"ip": ip(i)})).collect();
                json!({if *ready { "addresses" } else { "notReadyAddresses" }: list, "ports": [{"port": 80 + port}]})
            }).collect();
            let endpoints = endpoints(json!(subsets));
            let first = run(Some(&plain()), Some(&endpoints), &slices);
            apply(&mut slices, &first);
            let second = run(Some(&plain()), Some(&endpoints), &slices);
            prop_assert!(second.actions.is_empty(), "{} actions", second.actions.len());
            let all: Vec<(String, u16)> = slices.iter().flat_map(|s| {
                let port = s.i64_at("/ports/0/port").unwrap() as u16 - 80;
                s.array_at("/endpoints").iter().map(move |e| (e["addresses"][0].as_str().unwrap().to_owned(), port)).collect::<Vec<_>>()
            }).collect();
            prop_assert_eq!(all.len(), expected.len());
            prop_assert!(all.iter().all(|one| expected.contains(one)));
            prop_assert!(slices.iter().all(|s| s.array_at("/endpoints").len() <= SUBSET_MAX_ADDRESSES));
        }
    }
}
