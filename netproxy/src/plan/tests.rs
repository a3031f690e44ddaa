use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::model::{Protocol, SlicePort};

const NODE: &str = "here";

#[derive(Clone, Debug)]
struct Shape {
    node_port: bool,
    sticky: bool,
    internal_local: bool,
    external_local: bool,
    /// (last byte of the address, ready, serving, terminating, on this node)
    endpoints: Vec<(u8, bool, bool, bool, bool)>,
}

fn shapes() -> impl Strategy<Value = BTreeMap<u8, Shape>> {
    let endpoint = (0_u8..12, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let shape = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), vec(endpoint, 0..6));
    let shape = shape.prop_map(|(node_port, sticky, internal_local, external_local, endpoints)| Shape {
        node_port,
        sticky,
        internal_local,
        external_local,
        endpoints,
    });
    btree_map(0_u8..6, shape, 0..6)
}

fn objects(number: u8, shape: &Shape) -> (Service, Vec<Arc<Slice>>) {
    let at = Ref::new("ns", format!("svc-{number}"));
    let protocol = if number.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp };
    let service = Service {
        at: at.clone(),
        cluster_ip: Some(Ipv4Addr::new(10, 96, 1, number)),
        headless: false,
        external_name: None,
        ports: vec![ServicePort {
            name: "p".to_owned(),
            protocol,
            port: 80,
            node_port: shape.node_port.then_some(30_000 + u16::from(number)),
        }],
        affinity_seconds: shape.sticky.then_some(60),
        internal_local: shape.internal_local,
        external_local: shape.external_local,
        publish_not_ready: false,
    };
    let endpoints = shape.endpoints.iter().map(|(last, ready, serving, terminating, here)| SliceEndpoint {
        ip: Ipv4Addr::new(10, 244, 0, *last),
        ready: *ready,
        serving: *serving,
        terminating: *terminating,
        node: if *here { NODE.to_owned() } else { "there".to_owned() },
        hostname: String::new(),
        pod_uid: String::new(),
    });
    let ports = vec![SlicePort { name: "p".to_owned(), protocol, port: 8080 }];
    let slice = Slice { at: at.clone(), service: at.name.clone(), ports, endpoints: endpoints.collect() };
    (service, vec![Arc::new(slice)])
}

/// Brings the claims to `shapes` and plans the change.
fn turn(claims: &mut Claims, image: &Image, before: &BTreeMap<u8, Shape>, shapes: &BTreeMap<u8, Shape>) -> Plan {
    let mut wanted = Wanted::new();
    let mut compiled = Vec::new();
    for number in before.keys().chain(shapes.keys()).collect::<BTreeSet<_>>() {
        let now = shapes.get(number).map(|shape| {
            let (service, slices) = objects(*number, shape);
            compile(&service, &slices, NODE, image)
        });
        compiled.push((Ref::new("ns", format!("svc-{number}")), now.unwrap_or_default()));
    }
    for (at, now) in compiled {
        claims.replace(&at, now, &mut wanted);
    }
    plan(image, &wanted)
}

/// Every set that a packet may find the key in leads to as many endpoints as it says.
fn no_gap(image: &Image) -> Result<(), TestCaseError> {
    for (set, elements) in image.sets() {
        if let SetId::Pick(kind, count) = set {
            prop_assert!(image.is_present(set), "{} is used before it is made", set.name());
            for key in elements.keys() {
                for index in 0..count {
                    prop_assert!(
                        image.contains(SetId::Endpoints(kind), &indexed(key, index)),
                        "{kind:?} {key:?} {index}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// What the selection rule says, computed another way.
fn expected(shape: &Shape, local: bool) -> BTreeSet<u8> {
    let candidates: Vec<_> = shape.endpoints.iter().filter(|e| !local || e.4).collect();
    let ready: BTreeSet<u8> = candidates.iter().filter(|e| e.1).map(|e| e.0).collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates.iter().filter(|e| e.2 && e.3).map(|e| e.0).collect()
}

fn holds(image: &Image, number: u8, shape: &Shape) -> Result<(), TestCaseError> {
    let protocol = if number.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp };
    let vip = vip_key(Ipv4Addr::new(10, 96, 1, number), protocol, 80);
    let found = |kind, key: &[u8]| -> BTreeSet<u8> { image.endpoints(kind, key).iter().map(|e| e[3]).collect() };
    let all = expected(shape, false);
    let cluster = expected(shape, shape.internal_local);
    prop_assert_eq!(found(PickKind::Service, &vip), cluster.clone());
    if shape.internal_local && cluster.is_empty() && !all.is_empty() {
        prop_assert!(image.contains(SetId::ServicesDropped, &vip));
        prop_assert_eq!(image.count(PickKind::Service, &vip), None);
    } else {
        prop_assert_eq!(image.count(PickKind::Service, &vip), Some(cluster.len() as u32));
    }
    prop_assert_eq!(image.contains(SetId::Sticky(60), &vip), shape.sticky);
    let port = port_key(protocol, 30_000 + u16::from(number));
    let reached = shape.node_port.then_some(all.len() as u32);
    prop_assert_eq!(image.count(PickKind::NodePort, &port), reached);
    let local = (shape.node_port && shape.external_local).then(|| expected(shape, true).len() as u32);
    prop_assert_eq!(image.count(PickKind::NodePortLocal, &port), local);
    prop_assert_eq!(image.contains(SetId::NodePortsMasqueraded, &port), shape.node_port && !shape.external_local);
    Ok(())
}

proptest! {
    /// From any state to any other: no commit leaves a gap, the end is what was chosen, and then there is nothing to do.
    #[test]
    fn a_plan_leads_where_it_should_without_a_gap_and_then_is_empty(rounds in vec(shapes(), 1..5)) {
        let (mut image, mut claims, mut before) = (Image::default(), Claims::default(), BTreeMap::new());
        for shapes in &rounds {
            let next = turn(&mut claims, &image, &before, shapes);
            let stays: Vec<u8> = shapes.keys().filter(|number| before.contains_key(*number)).copied().collect();
            for step in Step::ALL {
                next.done(step, &mut image);
                no_gap(&image)?;
                for number in &stays {
                    let protocol = if number.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp };
                    let vip = vip_key(Ipv4Addr::new(10, 96, 1, *number), protocol, 80);
                    let somewhere = image.count(PickKind::Service, &vip).is_some()
                        || image.contains(SetId::ServicesDropped, &vip);
                    prop_assert!(somewhere, "service {number} leads nowhere in between");
                }
            }
            for (number, shape) in shapes {
                holds(&image, *number, shape)?;
            }
            prop_assert!(turn(&mut claims, &image, shapes, shapes).is_empty());
            prop_assert!(plan(&image, &claims.wanted(&image)).is_empty());
            before = shapes.clone();
        }
        let last = turn(&mut claims, &image, &before, &BTreeMap::new());
        for step in Step::ALL {
            last.done(step, &mut image);
        }
        prop_assert!(image.sets().all(|(_, elements)| elements.is_empty()), "left behind");
    }

    #[test]
    fn endpoints_that_stay_keep_their_index(old in vec(0_u8..9, 0..7), new in vec(0_u8..9, 0..7)) {
        let old: Vec<Vec<u8>> = old.into_iter().collect::<BTreeSet<_>>().into_iter().map(|e| vec![e]).collect();
        let new: BTreeSet<Vec<u8>> = new.into_iter().map(|e| vec![e]).collect();
        let assigned = assign(&old, new.clone());
        prop_assert_eq!(assigned.iter().cloned().collect::<BTreeSet<_>>(), new.clone());
        prop_assert_eq!(assigned.len(), new.len());
        for (i, endpoint) in old.iter().enumerate().take(assigned.len()) {
            prop_assert!(!new.contains(endpoint) || assigned[i] == *endpoint);
        }
    }
}

#[test]
fn a_replaced_endpoint_is_one_element() {
    let shape = |endpoints: &[u8]| Shape {
        node_port: false,
        sticky: false,
        internal_local: false,
        external_local: false,
        endpoints: endpoints.iter().map(|last| (*last, true, true, false, false)).collect(),
    };
    let (mut image, mut claims) = (Image::default(), Claims::default());
    let first = BTreeMap::from([(0, shape(&[1, 2, 3]))]);
    let start = turn(&mut claims, &image, &BTreeMap::new(), &first);
    assert_eq!((start.make.len(), start.arrive.len()), (1, 4));
    Step::ALL.into_iter().for_each(|step| start.done(step, &mut image));
    let replaced = turn(&mut claims, &image, &first, &BTreeMap::from([(0, shape(&[1, 9, 3]))]));
    assert_eq!((replaced.arrive.len(), replaced.depart.len(), replaced.forget.len()), (1, 0, 0));
    assert!(replaced.arrive[0].replaces);
    let shrunk = turn(&mut claims, &image, &first, &BTreeMap::from([(0, shape(&[2, 3]))]));
    assert_eq!((shrunk.depart.len(), shrunk.forget.len()), (1, 1));
}
