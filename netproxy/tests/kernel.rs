//! The rules in a real kernel: connections from a pod, from outside and from the host itself, through the table that plans
//! make. Needs root; every test plays the host in a network namespace of its own. Without root it says so and passes.

#[path = "kernel/house.rs"]
mod house;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_netlink::nft::{Batch, Nft};
use gantry_netproxy::image::{PickKind, SetId};
use gantry_netproxy::ruleset::TABLE;

use house::{HOST, OUTSIDE, POD_A, POD_B, POD_C, Spec, as_host, ask, ask_udp, inside, nft};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const NODE_PORT: SocketAddrV4 = SocketAddrV4::new(HOST, 30_080);

fn web(endpoints: &[Ipv4Addr]) -> Spec {
    Spec { node_port: Some(30_080), ..Spec::new(VIP, 80, endpoints) }
}

/// How often each endpoint answered.
type Tally = BTreeMap<String, usize>;

fn tally(tries: usize, mut once: impl FnMut() -> Option<String>) -> Tally {
    let mut counts = BTreeMap::new();
    for _ in 0..tries {
        *counts.entry(once().unwrap_or_default()).or_default() += 1;
    }
    counts
}

#[test]
fn a_cluster_ip_and_a_node_port_lead_everyone_to_every_endpoint() {
    as_host(|house| {
        house.set("web", Some(&web(&[POD_A, POD_B, POD_C])));
        let from_pod = || tally(90, || house.inside_pod(POD_A, || ask(WEB)));
        let from_host = || tally(90, || ask(WEB));
        let node_port_from_host = || tally(90, || ask(NODE_PORT));
        let node_port_from_pod = || tally(90, || house.inside_pod(POD_B, || ask(NODE_PORT)));
        let node_port_from_outside = || tally(90, || inside(&house.outside, || ask(NODE_PORT)));
        let ways: [(&str, &dyn Fn() -> Tally); 5] = [
            ("pod", &from_pod),
            ("host", &from_host),
            ("node port, host", &node_port_from_host),
            ("node port, pod", &node_port_from_pod),
            ("node port, outside", &node_port_from_outside),
        ];
        for (way, count) in ways {
            let counts = count();
            let names: Vec<&str> = counts.keys().map(String::as_str).collect();
            let endpoints = [POD_A, POD_B, POD_C].map(|ip| ip.to_string());
            assert_eq!(names, endpoints, "{way}: {counts:?}");
            assert!(counts.values().all(|count| *count >= 8), "{way} is not balanced: {counts:?}");
        }
        // The endpoint's own view: off-cluster clients come under the node's address, pods under their own.
        assert_eq!(house.inside_pod(POD_A, || house::seen_as(WEB, POD_B)), POD_A.to_string());
        assert_ne!(inside(&house.outside, || house::seen_as(NODE_PORT, POD_B)), OUTSIDE.to_string());
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_then_serves() {
    as_host(|house| {
        house.set("web", Some(&web(&[])));
        house.set("dns", Some(&Spec { udp: true, ..Spec::new(VIP, 53, &[]) }));
        let refused = |result: std::io::Result<String>| {
            let kind = result.expect_err("nobody is there").kind();
            assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
        };
        refused(house::try_ask(WEB));
        refused(house::try_ask(NODE_PORT));
        refused(house.inside_pod(POD_A, || house::try_ask(WEB)));
        refused(house.inside_pod(POD_A, || house::try_ask(SocketAddrV4::new(VIP, 81))));
        refused(house.inside_pod(POD_A, || house::try_ask(SocketAddrV4::new(Ipv4Addr::new(10, 96, 9, 9), 80))));
        refused(house.inside_pod(POD_A, || ask_udp(SocketAddrV4::new(VIP, 53))));
        house.set("web", Some(&web(&[POD_B])));
        assert_eq!(ask(WEB).as_deref(), Some(POD_B.to_string().as_str()));
        house.set("web", None);
        refused(house.inside_pod(POD_A, || house::try_ask(WEB)));
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    as_host(|house| {
        house.set("web", Some(&web(&[POD_A])));
        assert_eq!(house.inside_pod(POD_A, || ask(WEB)).as_deref(), Some(POD_A.to_string().as_str()));
        assert_eq!(house.inside_pod(POD_A, || ask(NODE_PORT)).as_deref(), Some(POD_A.to_string().as_str()));
    });
}

/// As the service of the API server is: its endpoint is the node itself.
#[test]
fn the_node_itself_can_be_an_endpoint() {
    as_host(|house| {
        house.serve_on_host();
        house.set("api", Some(&web(&[HOST])));
        let who = Some(HOST.to_string());
        assert_eq!(ask(WEB), who);
        assert_eq!(house.inside_pod(POD_A, || ask(WEB)), who);
        assert_eq!(house.inside_pod(POD_A, || ask(NODE_PORT)), who);
        assert_eq!(ask(NODE_PORT), who);
        assert_eq!(inside(&house.outside, || ask(NODE_PORT)), who);
        assert_eq!(house.inside_pod(POD_A, || house::seen_as(WEB, HOST)), POD_A.to_string());
    });
}

#[test]
fn no_connection_fails_while_endpoints_come_and_go() {
    as_host(|house| {
        house.set("web", Some(&web(&[POD_A, POD_B, POD_C])));
        let stop = AtomicBool::new(false);
        let pod = house.pod(POD_B);
        let (asked, failed) = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                inside(&pod, || {
                    let (mut asked, mut failed) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        asked += 1;
                        failed += usize::from(ask(WEB).is_none());
                    }
                    (asked, failed)
                })
            });
            for _ in 0..150 {
                // All of them go on answering: what may fail is the way to them.
                house.set("web", Some(&web(&[POD_A])));
                house.set("web", Some(&web(&[POD_B, POD_C, POD_A])));
                house.set("web", Some(&web(&[POD_C, POD_B])));
            }
            stop.store(true, Ordering::Relaxed);
            load.join().unwrap()
        });
        assert!(asked > 50, "only {asked} connections");
        assert_eq!(failed, 0, "of {asked}");
    });
}

#[test]
fn clients_stay_with_their_endpoint_until_it_goes_or_time_is_up() {
    as_host(|house| {
        let sticky = |endpoints: &[Ipv4Addr]| Spec { sticky: Some(2), ..web(endpoints) };
        house.set("web", Some(&sticky(&[POD_A, POD_B, POD_C])));
        let counts = tally(20, || house.inside_pod(POD_A, || ask(WEB)));
        assert_eq!(counts.len(), 1, "{counts:?}");
        let first: Ipv4Addr = counts.keys().next().unwrap().parse().unwrap();
        let by_port = tally(20, || inside(&house.outside, || ask(NODE_PORT)));
        assert_eq!(by_port.len(), 1, "{by_port:?}");
        // More endpoints change nothing for a client that has one; its endpoint's end does.
        let others: Vec<Ipv4Addr> = [POD_A, POD_B, POD_C].into_iter().filter(|ip| *ip != first).collect();
        house.set("web", Some(&sticky(&others)));
        let counts = tally(20, || house.inside_pod(POD_A, || ask(WEB)));
        assert!(counts.len() == 1 && !counts.contains_key(&first.to_string()), "{counts:?}");
        // Forgotten after the timeout: sooner or later another one is chosen.
        let second = counts.keys().next().unwrap().clone();
        let moved = (0..6).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2300));
            house.inside_pod(POD_A, || ask(WEB)).is_some_and(|now| now != second)
        });
        assert!(moved, "bound for ever");
    });
}

#[test]
fn local_policies_keep_traffic_on_the_node_and_drop_it_where_there_is_none() {
    as_host(|house| {
        let local = |endpoints: &[Ipv4Addr]| Spec { external_local: true, ..web(endpoints) };
        // C lies on another node as far as the slices say.
        house.set("web", Some(&Spec { remote: vec![POD_C], ..local(&[POD_A, POD_C]) }));
        let counts = tally(20, || inside(&house.outside, || ask(NODE_PORT)));
        assert_eq!(counts.keys().collect::<Vec<_>>(), [&POD_A.to_string()], "{counts:?}");
        assert_eq!(inside(&house.outside, || house::seen_as(NODE_PORT, POD_A)), OUTSIDE.to_string());
        let counts = tally(60, || house.inside_pod(POD_B, || ask(NODE_PORT)));
        assert_eq!(counts.len(), 2, "inside the cluster every endpoint serves: {counts:?}");
        house.set("web", Some(&Spec { remote: vec![POD_C], ..local(&[POD_C]) }));
        let dropped = inside(&house.outside, || house::try_ask(NODE_PORT)).expect_err("dropped");
        assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut);
        house.set("web", Some(&Spec { remote: vec![POD_C], internal_local: true, ..web(&[POD_C]) }));
        let dropped = house.inside_pod(POD_A, || house::try_ask(WEB)).expect_err("dropped");
        assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut);
        assert!(ask(NODE_PORT).is_some());
    });
}

#[test]
fn a_udp_client_moves_on_when_its_endpoint_goes() {
    as_host(|house| {
        let dns = SocketAddrV4::new(VIP, 53);
        let spec = |endpoints: &[Ipv4Addr]| Spec { udp: true, ..Spec::new(VIP, 53, endpoints) };
        house.set("dns", Some(&spec(&[POD_B])));
        house.inside_pod(POD_A, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(house::WAIT)).unwrap();
            socket.connect(dns).unwrap();
            assert_eq!(house::exchange(&socket).unwrap(), POD_B.to_string());
            // The same socket: conntrack alone would keep it with B for as long as it sends.
            inside(&house.host, || house.set("dns", Some(&spec(&[POD_C]))));
            assert_eq!(house::exchange(&socket).unwrap(), POD_C.to_string());
        });
    });
}

#[test]
fn nft_lists_everything_in_use_and_loads_its_own_listing() {
    if !nft::is_there() {
        eprintln!("skipped: no nft program");
        return;
    }
    as_host(|house| {
        house.everything();
        let _ = house.inside_pod(POD_A, || ask(WEB));
        let listing = nft::run(&["list", "ruleset"]);
        nft::run(&["-j", "list", "ruleset"]);
        let file = house.folder.path().join("listing");
        std::fs::write(&file, &listing).unwrap();
        nft::run(&["flush", "ruleset"]);
        assert!(ask(WEB).is_none());
        nft::run(&["-f", file.to_str().unwrap()]);
        assert_eq!(without_time(&nft::run(&["list", "ruleset"])), without_time(&listing));
        assert!(ask(WEB).is_some(), "the listing serves as the rules did:\n{listing}");
    });
}

/// Bonds say when they end.
fn without_time(listing: &str) -> String {
    let words = listing.split_whitespace().collect::<Vec<_>>();
    let mut kept = Vec::new();
    let mut skip = false;
    for word in words {
        if skip {
            skip = false;
        } else if word == "expires" {
            skip = true;
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

#[test]
fn a_restart_reads_back_what_stands_and_changes_nothing() {
    as_host(|house| {
        house.everything();
        let before = house.image();
        let generation = house.generation();
        house.restart();
        assert_eq!(house.image(), before);
        assert_eq!(house.generation(), generation, "a restart committed something");
        // A service went while nobody looked, and an element was taken out by hand.
        let mut batch = Batch::new(TABLE);
        let (key, data) = before.elements(SetId::Endpoints(PickKind::Service)).next().unwrap();
        batch.delete_elements(
            &SetId::Endpoints(PickKind::Service).name(),
            &[gantry_netlink::nft::Element::map(key.clone(), data.clone())],
        );
        Nft::open().unwrap().commit(batch).unwrap();
        house.restart();
        assert_eq!(house.image(), before);
        // A table that is not ours to read is made anew.
        Nft::open().unwrap().delete_table(TABLE).unwrap();
        house.restart();
        assert!(ask(WEB).is_some());
    });
}

#[test]
fn cleanup_leaves_nothing() {
    as_host(|house| {
        let before = house::state_of_the_host();
        house.everything();
        assert_ne!(house::state_of_the_host(), before);
        house.cleanup();
        assert_eq!(house::state_of_the_host(), before);
    });
}
