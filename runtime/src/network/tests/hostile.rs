//! SECURITY.md, row 11: frames that a pod or a neighbour of the node makes by hand. CVE-2020-8558 (a neighbour reaches what
//! listens on loopback alone), CVE-2020-10749 (a pod advertises itself as router). Each is first seen to do its harm where our
//! rules are not, on settings that let it: a test that could not fail would say nothing.

use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use super::*;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const EVERYONE: [u8; 6] = [0xff; 6];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// Where the node's own network is, besides its pods.
const LAN: &str = "lan0";
const LAN_IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const LAN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const NEIGHBOUR_IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A datagram of UDP over IPv4, from any address whatever.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, port: u16, words: &str) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let udp =
        [&7u16.to_be_bytes()[..], &port.to_be_bytes(), &length(8 + words.len()), &[0; 2], words.as_bytes()].concat();
    let start = [&[0x45, 0][..], &length(20 + udp.len()), &[0, 0, 0, 0, 64, 17]].concat();
    let addresses = [from.octets(), to.octets()].concat();
    [&start[..], &checksum(&[&start, &addresses]), &addresses, &udp].concat()
}

fn arp(kind: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let ends = [sender, target].map(|(mac, ip)| [&mac[..], &ip.octets()].concat());
    [&[0, 1, 8, 0, 6, 4][..], &kind.to_be_bytes(), &ends[0], &ends[1]].concat()
}

/// A router advertisement (RFC 4861, 4.2): "I am your router, and your prefix is 2001:db8:666::/64".
fn advertisement(from_mac: [u8; 6]) -> Vec<u8> {
    let (from, to) = ("fe80::666".parse::<Ipv6Addr>().unwrap(), "ff02::1".parse::<Ipv6Addr>().unwrap());
    let prefix = "2001:db8:666::".parse::<Ipv6Addr>().unwrap();
    let day = 86_400u32.to_be_bytes();
    let option = [&[3, 4, 64, 0xc0][..], &day, &day, &[0; 4], &prefix.octets()].concat();
    let rest = [&[64, 0][..], &1800u16.to_be_bytes(), &[0; 8], &option].concat();
    let length = 4 + rest.len();
    let pseudo =
        [&from.octets()[..], &to.octets(), &u32::try_from(length).unwrap().to_be_bytes(), &[0, 0, 0, 58]].concat();
    let sum = checksum(&[&pseudo, &[134, 0, 0, 0], &rest]);
    let message = [&[134, 0][..], &sum, &rest].concat();
    let header = [&[0x60, 0, 0, 0][..], &u16::try_from(length).unwrap().to_be_bytes(), &[58, 255]].concat();
    let packet = [&header[..], &from.octets(), &to.octets(), &message].concat();
    ethernet([0x33, 0x33, 0, 0, 0, 1], from_mac, IPV6, &packet)
}

/// Sends whole frames from a namespace.
struct Wire(OwnedFd);

impl Wire {
    fn of(netns: &Path) -> Wire {
        let open = || crate::sys::packet_socket(Routes::open().unwrap().link_index(POD_INTERFACE).unwrap()).unwrap();
        Wire(inside(netns, open))
    }

    fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.0, frame, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }
}

fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The settings of a host that is as careless as can be.
fn careless(interfaces: &[&str]) {
    for interface in ["all"].iter().chain(interfaces) {
        for (name, value) in [("route_localnet", "1"), ("accept_local", "1"), ("rp_filter", "0"), ("arp_accept", "1")] {
            set(&format!("ipv4/conf/{interface}/{name}"), value);
        }
    }
}

/// A neighbour of the node, on a network that is none of ours.
fn neighbour(network: &Network, folder: &Path) -> PathBuf {
    let netns = folder.join("netns/neighbour");
    network.create_netns(&netns).unwrap();
    let file = std::fs::File::open(&netns).unwrap();
    let mut routes = Routes::open().unwrap();
    let veth = Veth {
        name: LAN,
        mac: LAN_MAC,
        peer_name: POD_INTERFACE,
        peer_mac: NEIGHBOUR_MAC,
        peer_netns: file.as_fd(),
        mtu: 1500,
    };
    routes.add_veth(&veth).unwrap();
    let up = |ip| {
        let mut routes = Routes::open().unwrap();
        let interface = routes.link_index(if ip == LAN_IP { LAN } else { POD_INTERFACE }).unwrap();
        routes.add_address(Address { interface, ip, prefix: 24, scope: 0 }).unwrap();
        routes.set_up(interface).unwrap();
    };
    up(LAN_IP);
    inside(&netns, || up(NEIGHBOUR_IP));
    netns
}

/// Who listens there, at any address, and what it has heard before "the last".
struct Listener(UdpSocket);

impl Listener {
    const PORT: u16 = 7001;
    const LAST: &str = "the last";

    fn in_this_namespace() -> Listener {
        let socket = UdpSocket::bind(("0.0.0.0", Listener::PORT)).unwrap();
        socket.set_read_timeout(Some(WAIT * 10)).unwrap();
        Listener(socket)
    }

    /// Frames come in the order in which one thread sends them over one link.
    fn heard(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 64];
        loop {
            let count = self.0.recv(&mut buffer).expect("the last comes");
            let words = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if words == Listener::LAST {
                return all;
            }
            all.push(words);
        }
    }
}

/// What is heard of these frames, without our rules and with them.
fn compared(network: &Network, listener: &Listener, wire: &Wire, frames: &[Vec<u8>], last: &[u8]) -> [Vec<String>; 2] {
    let send = || {
        for frame in frames {
            wire.send(frame);
        }
        wire.send(last);
        listener.heard()
    };
    Nft::open().unwrap().delete_table(rules::TABLE).unwrap();
    let without = send();
    assert!(network.heal().unwrap());
    [without, send()]
}

#[test]
fn nothing_comes_to_loopback_from_a_neighbour_or_a_pod() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let lan = neighbour(network, folder);
        careless(&[LAN, &at_a.interface]);
        let listener = Listener::in_this_namespace();
        for (netns, from, own_mac, mac, ip) in [
            (&lan, NEIGHBOUR_IP, NEIGHBOUR_MAC, LAN_MAC, LAN_IP),
            (&a, at_a.ip, mac(0x0a, at_a.ip), mac(0xee, at_a.ip), HOST_IP),
        ] {
            let frame =
                |from, to, words: &str| ethernet(mac, own_mac, IPV4, &datagram(from, to, Listener::PORT, words));
            let frames = [
                frame(from, Ipv4Addr::LOCALHOST, "to loopback"),
                frame(from, Ipv4Addr::new(127, 9, 9, 9), "to more of it"),
                frame(Ipv4Addr::LOCALHOST, ip, "from loopback"),
                frame(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, "from loopback to loopback"),
            ];
            let last = frame(from, ip, Listener::LAST);
            let [without, with] = compared(network, &listener, &Wire::of(netns), &frames, &last);
            assert!(without.contains(&"to loopback".to_owned()), "it could not come anyway: {without:?}");
            assert!(without.contains(&"from loopback".to_owned()), "it could not come anyway: {without:?}");
            assert_eq!(with, Vec::<String>::new(), "of {from}");
        }
        for netns in [a, lan] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

#[test]
fn no_frame_of_a_pod_has_the_address_of_another() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let (b, at_b) = pod(network, folder, "bbbb", &[]);
        let (c, at_c) = pod(network, folder, "cccc", &[]);
        let lan = neighbour(network, folder);
        careless(&[LAN, &at_a.interface, &at_b.interface, &at_c.interface]);
        let (wire, to_host, own) = (Wire::of(&a), mac(0xee, at_a.ip), mac(0x0a, at_a.ip));
        let in_c = inside(&c, Listener::in_this_namespace);
        for (listener, to) in [(in_c, at_c.ip), (Listener::in_this_namespace(), HOST_IP)] {
            let packet = |from, words: &str| datagram(from, to, Listener::PORT, words);
            let frame = |from, words: &str| ethernet(to_host, own, IPV4, &packet(from, words));
            // A tag of no VLAN is taken off before anybody looks.
            let tagged = [&[0, 0][..], &IPV4.to_be_bytes(), &packet(at_b.ip, "tagged")].concat();
            let frames = [
                frame(at_b.ip, "as another pod"),
                frame(HOST_IP, "as the node"),
                frame(NEIGHBOUR_IP, "as a neighbour of the node"),
                frame(Ipv4Addr::new(10, 244, 7, 99), "as nobody"),
                frame(GATEWAY, "as the gateway"),
                ethernet(to_host, own, VLAN, &tagged),
                // Who sends it as another's frame has no more by that.
                ethernet(to_host, mac(0x0a, at_b.ip), IPV4, &packet(at_b.ip, "as another's frame")),
            ];
            let [without, with] = compared(network, &listener, &wire, &frames, &frame(at_a.ip, Listener::LAST));
            for words in ["as another pod", "as the node", "as a neighbour of the node", "tagged", "as another's frame"]
            {
                assert!(without.iter().any(|heard| heard == words), "{words:?} could not come anyway: {without:?}");
            }
            assert_eq!(with, Vec::<String>::new(), "at {to}");
        }
        for netns in [a, b, c, lan] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

/// What this namespace knows of its neighbours: addresses, and where they are.
fn known() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    let columns = |line: &str| {
        let all: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", all[0], all[3], all[5])
    };
    table.lines().skip(1).map(columns).collect()
}

#[test]
fn no_pod_says_by_arp_where_another_is() {
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let (b, at_b) = pod(network, folder, "bbbb", &[]);
        let lan = neighbour(network, folder);
        careless(&[LAN, &at_a.interface, &at_b.interface]);
        set("ipv4/conf/all/proxy_arp", "1");
        let listener = Listener::in_this_namespace();
        let gateway_of_b = || inside(&b, known);
        for (netns, own_mac, mac, ip, harmful) in
            [(&lan, NEIGHBOUR_MAC, LAN_MAC, LAN_IP, true), (&a, mac(0x0a, at_a.ip), mac(0xee, at_a.ip), HOST_IP, false)]
        {
            let (wire, from) = (Wire::of(netns), if harmful { NEIGHBOUR_IP } else { at_a.ip });
            let last = ethernet(mac, own_mac, IPV4, &datagram(from, ip, Listener::PORT, Listener::LAST));
            // What is known of those who speak.
            wire.send(&last);
            assert_eq!(listener.heard(), Vec::<String>::new());
            let before = (known(), gateway_of_b());
            let nobody = ([0; 6], ip);
            for claimed in [at_b.ip, GATEWAY, HOST_IP, LAN_IP, NEIGHBOUR_IP] {
                let claim = (own_mac, claimed);
                wire.send(&ethernet(mac, own_mac, ARP, &arp(ARP_REPLY, claim, (mac, ip))));
                wire.send(&ethernet(EVERYONE, own_mac, ARP, &arp(ARP_REPLY, claim, claim)));
                wire.send(&ethernet(EVERYONE, own_mac, ARP, &arp(ARP_REQUEST, claim, claim)));
                wire.send(&ethernet(EVERYONE, own_mac, ARP, &arp(ARP_REQUEST, claim, nobody)));
            }
            // The node keeps a thousand neighbours at most, of all its links.
            for n in 1..=200 {
                let stranger = (own_mac, Ipv4Addr::new(203, 0, 113, n));
                wire.send(&ethernet(EVERYONE, own_mac, ARP, &arp(ARP_REQUEST, stranger, nobody)));
            }
            wire.send(&last);
            assert_eq!(listener.heard(), Vec::<String>::new());
            let learnt: Vec<String> = known().symmetric_difference(&before.0).cloned().collect();
            assert_eq!(learnt.len() > 100, harmful, "the neighbours of the node: {learnt:?}");
            assert!(harmful || learnt.is_empty(), "{learnt:?}");
            assert_eq!(gateway_of_b(), before.1);
        }
        let served = serve_once(&b, 8080);
        assert_eq!(inside(&a, || ask(SocketAddrV4::new(at_b.ip, 8080))).unwrap(), at_a.ip.to_string());
        served.join().unwrap();
        for netns in [a, b, lan] {
            network.delete_netns(&netns).unwrap();
        }
    });
}

/// Whether a router advertisement was believed here.
fn believed() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap().contains("20010db80666")
}

#[test]
fn no_pod_advertises_itself_as_a_router() {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("skipped: a kernel without IPv6");
        return;
    }
    as_host(|folder, network| {
        let (a, at_a) = pod(network, folder, "aaaa", &[]);
        let (b, _) = pod(network, folder, "bbbb", &[]);
        let lan = neighbour(network, folder);
        let listener = Listener::in_this_namespace();
        let advertised = |netns: &Path, from, own, to, ip| {
            let wire = Wire::of(netns);
            wire.send(&advertisement(own));
            wire.send(&ethernet(to, own, IPV4, &datagram(from, ip, Listener::PORT, Listener::LAST)));
            assert_eq!(listener.heard(), Vec::<String>::new());
            believed()
        };
        let of_pod = || advertised(&a, at_a.ip, mac(0x0a, at_a.ip), mac(0xee, at_a.ip), HOST_IP);
        assert!(!of_pod(), "as it is made");
        // An administrator may turn on for all interfaces what is off on those of pods.
        for setting in [("disable_ipv6", "0"), ("accept_ra", "2")] {
            set(&format!("ipv6/conf/{}/{}", at_a.interface, setting.0), setting.1);
            assert!(!of_pod(), "with {setting:?}");
        }
        assert!(!inside(&b, believed), "another pod hears it");
        let of_b = inside(&b, || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra")).unwrap();
        assert_eq!(of_b.trim(), "0");
        set(&format!("ipv6/conf/{LAN}/accept_ra"), "2");
        assert!(advertised(&lan, NEIGHBOUR_IP, NEIGHBOUR_MAC, LAN_MAC, LAN_IP), "it could not be believed anyway");
        for netns in [a, b, lan] {
            network.delete_netns(&netns).unwrap();
        }
    });
}
