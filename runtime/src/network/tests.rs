//! Needs root: every test plays the host in a network namespace of its own. Without root it says so and passes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gantry_netlink::nft::Element;
use gantry_netlink::route::Address;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::*;

mod hostile;

const WAIT: Duration = Duration::from_millis(1500);
const HOST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Runs `test` on a thread that is alone in a new network namespace with one address.
fn as_host(test: impl FnOnce(&Path, &Network) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut routes = Routes::open().unwrap();
            routes.set_up(1).unwrap();
            routes.add_address(Address { interface: 1, ip: HOST_IP, prefix: 32, scope: 0 }).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let network = Network::open(config(folder.path())).unwrap();
            network.set_pod_cidr("10.244.7.0/24".parse().unwrap()).unwrap();
            test(folder.path(), &network);
            network.cleanup().unwrap();
            assert!(!network.heal().unwrap(), "what was given up came back");
            let left = Routes::open().unwrap().links().unwrap();
            assert!(left.iter().all(|link| !link.name.starts_with("gty")), "left behind: {left:?}");
            assert_eq!(Nft::open().unwrap().table_comment(rules::TABLE).unwrap(), None);
            assert!(!folder.path().join("network").exists());
        });
    });
}

fn config(folder: &Path) -> Config {
    Config {
        run_dir: folder.join("network"),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        interface_prefix: "gty".to_owned(),
        mtu: 1500,
    }
}

fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(netns).unwrap();
    netns::inside(file.as_fd(), work).unwrap()
}

fn pod(network: &Network, folder: &Path, name: &str, ports: &[HostPort]) -> (PathBuf, PodAddress) {
    let netns = folder.join("netns").join(name);
    network.create_netns(&netns).unwrap();
    let address = network.attach(name, &netns, ports).unwrap();
    (netns, address)
}

/// Answers one TCP connection with the peer's address.
fn serve_once(netns: &Path, port: u16) -> std::thread::JoinHandle<()> {
    let listener = inside(netns, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
    })
}

fn ask(address: SocketAddrV4) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn pods_reach_each_other_and_the_host_reaches_pods() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let (b, at_b) = pod(network, folder, "bbbb", &[]);
        assert_eq!((at_a.ip.to_string().as_str(), at_b.ip.to_string().as_str()), ("10.244.7.2", "10.244.7.3"));
        let served = serve_once(&b, 8080);
        assert_eq!(inside(&a, || ask(SocketAddrV4::new(at_b.ip, 8080))).unwrap(), at_a.ip.to_string());
        served.join().unwrap();
        let served = serve_once(&b, 8081);
        assert_eq!(ask(SocketAddrV4::new(at_b.ip, 8081)).unwrap(), HOST_IP.to_string());
        served.join().unwrap();
        let host = TcpListener::bind((HOST_IP, 9000)).unwrap();
        let served = std::thread::spawn(move || host.accept().unwrap().1.ip());
        inside(&a, || TcpStream::connect((HOST_IP, 9000)).unwrap());
        assert_eq!(served.join().unwrap(), at_a.ip);
        for netns in [a, b] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

#[test]
fn host_ports_lead_to_the_pod_from_the_host_other_pods_and_itself() {
    as_host(|folder, network| {
        let port = |host_port| HostPort { protocol: Protocol::Tcp, host_ip: None, host_port, container_port: 80 };
        let (a, at_a) = pod(network, folder, "aaaa", &[port(8080)]);
        let (b, at_b) = pod(network, folder, "bbbb", &[]);
        let through = SocketAddrV4::new(HOST_IP, 8080);
        let served = serve_once(&a, 80);
        assert_eq!(ask(through).unwrap(), HOST_IP.to_string());
        served.join().unwrap();
        let served = serve_once(&a, 80);
        assert_eq!(inside(&b, || ask(through)).unwrap(), at_b.ip.to_string(), "a host port keeps the client's address");
        served.join().unwrap();
        let served = serve_once(&a, 80);
        let seen = inside(&a, || ask(through)).unwrap();
        assert_ne!(seen, at_a.ip.to_string(), "a pod that reaches itself is masqueraded");
        served.join().unwrap();
        let taken = network.attach("cccc", &a, &[port(8080)]);
        assert!(matches!(taken, Err(NetworkError::HostPortTaken { port: 8080, .. })), "{taken:?}");
        network.detach("aaaa").unwrap();
        assert!(ask(through).is_err());
        for netns in [a, b] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

/// SECURITY.md, row 11.
#[test]
fn a_pod_sends_from_its_own_address_alone() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let heard = UdpSocket::bind((HOST_IP, 7000)).unwrap();
        heard.set_read_timeout(Some(WAIT)).unwrap();
        let mut buffer = [0; 16];
        inside(&a, || UdpSocket::bind((at_a.ip, 0)).unwrap().send_to(b"own", (HOST_IP, 7000)).unwrap());
        assert_eq!(heard.recv(&mut buffer).unwrap(), 3);
        heard.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let stolen = Ipv4Addr::new(10, 244, 7, 99);
        inside(&a, || {
            let mut routes = Routes::open().unwrap();
            let interface = routes.link_index(POD_INTERFACE).unwrap();
            routes.add_address(Address { interface, ip: stolen, prefix: 32, scope: 0 }).unwrap();
            UdpSocket::bind((stolen, 0)).unwrap().send_to(b"stolen", (HOST_IP, 7000)).unwrap();
        });
        assert!(heard.recv(&mut buffer).is_err(), "a spoofed source came through");
        // A neighbour sends to 127.0.0.1, even where a sysctl would let it.
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{}/route_localnet", at_a.interface), "1").unwrap();
        let loopback = UdpSocket::bind("127.0.0.1:7001").unwrap();
        loopback.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        inside(&a, || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            let mut routes = Routes::open().unwrap();
            let interface = routes.link_index(POD_INTERFACE).unwrap();
            routes.delete_address(Address { interface: 1, ip: Ipv4Addr::LOCALHOST, prefix: 8, scope: 254 }).unwrap();
            routes.add_route(&host_route(Ipv4Addr::LOCALHOST, 32, interface, None)).unwrap();
            routes.add_permanent_neighbour(interface, Ipv4Addr::LOCALHOST, mac(0xee, at_a.ip)).unwrap();
            let _ = UdpSocket::bind((at_a.ip, 0)).unwrap().send_to(b"martian", "127.0.0.1:7001");
        });
        assert!(loopback.recv(&mut buffer).is_err(), "a martian came through");
        let accept_ra = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", at_a.interface));
        assert!(accept_ra.is_err() || accept_ra.unwrap().trim() == "0");
        network.delete_netns(&a).unwrap();
    });
}

#[test]
fn a_restart_finds_addresses_again_and_attach_and_detach_may_be_repeated() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        assert_eq!(network.attach("aaaa", &a, &[]).unwrap(), at_a);
        // A crash between the record and the link, and one that left a half-written record.
        std::fs::write(folder.join("network/pods/half.new"), "{").unwrap();
        let again = Network::open(config(folder)).unwrap();
        assert_eq!(again.address("aaaa"), Some(at_a.clone()));
        assert!(matches!(again.attach("bbbb", &a, &[]), Err(NetworkError::NoPodCidr)));
        again.set_pod_cidr("10.244.7.0/24".parse().unwrap()).unwrap();
        let b = folder.join("netns/bbbb");
        again.create_netns(&b).unwrap();
        again.create_netns(&b).unwrap();
        let at_b = again.attach("bbbb", &b, &[]).unwrap();
        assert_ne!(at_b.ip, at_a.ip);
        let served = serve_once(&a, 8080);
        assert_eq!(inside(&b, || ask(SocketAddrV4::new(at_a.ip, 8080))).unwrap(), at_b.ip.to_string());
        served.join().unwrap();
        for _ in 0..2 {
            again.detach("bbbb").unwrap();
            again.delete_netns(&b).unwrap();
        }
        again.detach("never").unwrap();
        assert_eq!(again.sandboxes(), ["aaaa"]);
        again.delete_netns(&a).unwrap();
    });
}

#[test]
fn a_link_ends_with_its_namespace_and_its_address_rests_until_then() {
    as_host(|folder, network| {
        let port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, container_port: 80 };
        let (a, at_a) = pod(network, folder, "aaaa", std::slice::from_ref(&port));
        // Something has the namespace that is to go.
        let held = std::fs::File::open(&a).unwrap();
        for _ in 0..2 {
            network.let_go("aaaa", &a).unwrap();
        }
        assert!(!a.exists() && network.sandboxes().is_empty() && network.address("aaaa").is_none());
        assert!(ask(SocketAddrV4::new(HOST_IP, 8080)).is_err());
        let (b, _) = pod(network, folder, "bbbb", &[port]);
        network.let_go("bbbb", &b).unwrap();
        for n in 2..253 {
            let name = format!("c{n}");
            let given = network.reserve(&name, &[]).unwrap();
            assert_ne!(given.ip, at_a.ip, "an address was given twice");
            network.detach(&name).unwrap();
        }
        // Where there is no other address, the link is ended.
        network.set_pod_cidr("10.244.7.0/30".parse().unwrap()).unwrap();
        assert_eq!(network.reserve("last", &[]).unwrap().ip, at_a.ip);
        assert!(!has_link(&at_a.interface).unwrap() && network.reserve("none", &[]).is_err());
        network.set_pod_cidr("10.244.7.0/24".parse().unwrap()).unwrap();
        let (e, at_e) = pod(network, folder, "eeee", &[]);
        let held = (held, std::fs::File::open(&e).unwrap());
        network.let_go("eeee", &e).unwrap();
        // A crash now: what is left is found, and taken away.
        let again = Network::open(config(folder)).unwrap();
        assert!(again.sandboxes().contains(&"eeee".to_owned()));
        again.detach("eeee").unwrap();
        assert!(!has_link(&at_e.interface).unwrap());
        drop(held);
        let (d, at_d) = pod(network, folder, "dddd", &[]);
        network.let_go("dddd", &d).unwrap();
        let ended = |_: &u32| {
            std::thread::sleep(Duration::from_millis(1));
            !has_link(&at_d.interface).unwrap()
        };
        assert!((0..10_000).find(ended).is_some(), "the kernel ended no link");
        network.forget_gone().unwrap();
        assert!(network.state.lock().records.leaving().is_empty());
    });
}

#[test]
fn rules_that_someone_took_away_come_back() {
    as_host(|folder, network| {
        let port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, container_port: 80 };
        let (a, _) = pod(network, folder, "aaaa", &[port]);
        assert!(!network.heal().unwrap());
        Nft::open().unwrap().delete_table(rules::TABLE).unwrap();
        assert!(network.heal().unwrap());
        let served = serve_once(&a, 80);
        ask(SocketAddrV4::new(HOST_IP, 8080)).unwrap();
        served.join().unwrap();
        Nft::open().unwrap().delete_table(rules::TABLE).unwrap();
        let (b, _) = pod(network, folder, "bbbb", &[]);
        assert!(!network.heal().unwrap(), "attach healed it");
        Nft::open().unwrap().delete_table(rules::TABLE).unwrap();
        network.detach("bbbb").unwrap();
        assert!(network.heal().unwrap() && !network.heal().unwrap());
        // An element that went, and one that came.
        let whole = Nft::open().unwrap().elements(rules::TABLE, "sources").unwrap();
        assert_eq!(whole.len(), 1, "of the one pod that is left");
        for (put, element) in [(false, whole[0].clone()), (true, Element::key(vec![b'x'; 20]))] {
            let mut batch = Batch::new(rules::TABLE);
            if put {
                batch.add_elements("sources", &[element]);
            } else {
                batch.delete_elements("sources", &[element]);
            }
            Nft::open().unwrap().commit(batch).unwrap();
            assert!(network.heal().unwrap() && !network.heal().unwrap());
            assert_eq!(Nft::open().unwrap().elements(rules::TABLE, "sources").unwrap(), whole);
        }
        // What has an address and no link yet has no elements, and lacks none.
        network.reserve("cccc", &[]).unwrap();
        assert!(!network.heal().unwrap());
        network.detach("cccc").unwrap();
        for netns in [a, b] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

#[test]
fn the_listing_of_the_table_can_be_read_and_loaded_by_nft() {
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: no nft program");
        return;
    }
    as_host(|folder, network| {
        let any = HostPort { protocol: Protocol::Udp, host_ip: None, host_port: 53, container_port: 5353 };
        let one = HostPort { host_ip: Some(HOST_IP), host_port: 54, ..any.clone() };
        let (a, _) = pod(network, folder, "aaaa", &[any, one]);
        let nft = |arguments: &[&str]| {
            let output = std::process::Command::new("nft").args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let listing = nft(&["list", "ruleset"]);
        nft(&["-j", "list", "ruleset"]);
        let file = folder.join("listing");
        std::fs::write(&file, &listing).unwrap();
        nft(&["flush", "ruleset"]);
        nft(&["-f", file.to_str().unwrap()]);
        assert_eq!(nft(&["list", "ruleset"]), listing);
        assert!(listing.contains("10.244.7.2"), "{listing}");
        network.detach("aaaa").unwrap();
        network.delete_netns(&a).unwrap();
    });
}

proptest! {
    #[test]
    fn every_address_is_handed_out_once_before_any_twice(bits in 24_u8..=30, taken in 0_usize..300) {
        let cidr = Ipv4Net::new(Ipv4Addr::new(10, 1, 2, 0), bits).unwrap();
        let room = (1_usize << (32 - bits)) - 3;
        let (mut used, mut last) = (BTreeSet::new(), None);
        for _ in 0..taken.min(room) {
            let ip = ipam::next_address(cidr, &used, last).unwrap();
            prop_assert!(cidr.contains(&ip) && ip != cidr.network() && ip != cidr.broadcast());
            prop_assert!(used.insert(ip));
            last = Some(ip);
        }
        if taken >= room {
            prop_assert_eq!(ipam::next_address(cidr, &used, last), None);
        } else if let Some(gone) = used.pop_first() {
            let next = ipam::next_address(cidr, &used, last).unwrap();
            prop_assert!(next != gone || room == used.len() + 1, "an address rests before it is used again");
        }
    }
}
