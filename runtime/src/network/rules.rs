//! The table `gantry-pods`: who may send from where, host ports, and the node's address for what leaves the cluster.
//!
//! ```text
//! set sources    { interface . ip }                       what each link may send from
//! set hairpin    { ip . ip }                              a pod that reaches itself through an address of the node
//! map hostports  { protocol . port : pod ip . port }
//! map hostports-at { node ip . protocol . port : pod ip . port }
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gantry_netlink::Error;
use gantry_netlink::conntrack::Conntrack;
use gantry_netlink::nft::{
    Batch, CmpOp, CtKey, Element, Expr, Field, Hook, MEMBER_PROTOCOLS, MetaKey, Nft, Priority, Set, Verdict, dport,
    in_prefix, ip_daddr, ip_saddr, ipv4_only, l4proto, not_in_prefix,
};
use ipnet::Ipv4Net;

use super::records::{HostPort, Record};

pub(super) const TABLE: &str = "gantry-pods";

const SOURCES: &str = "sources";
const HAIRPIN: &str = "hairpin";
const HOSTPORTS: &str = "hostports";
const HOSTPORTS_AT: &str = "hostports-at";

const INTERFACE_NAME_BYTES: usize = 16;
/// Before conntrack sees the packet (raw).
const PRIORITY_RAW: i32 = -300;
/// Before the services (dstnat, -100), so that a host port wins over a NodePort on the same number, as a socket would.
const PRIORITY_HOSTPORTS: i32 = -110;
/// After the services' own masquerading (srcnat, 100): the first that translates a flow has the say.
const PRIORITY_LEAVE: i32 = 110;
/// `fib … type local`.
const RTN_LOCAL: u32 = 2;
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// The whole table anew, in place of whatever stands there.
pub(super) fn table(prefix: &str, cluster: Ipv4Net, records: &[&Record]) -> Batch {
    let mut batch = Batch::new(TABLE);
    batch.add_table("pods of this node");
    batch.delete_table();
    batch.add_table("pods of this node");
    for set in sets() {
        batch.add_set(&set);
    }
    spoofing(&mut batch, prefix);
    host_ports(&mut batch);
    leaving(&mut batch, prefix, cluster);
    for record in records {
        add_elements(&mut batch, record);
    }
    batch
}

fn sets() -> [Set; 4] {
    let set = |name: &str, key: &[Field], data: &[Field]| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
        ..Set::default()
    };
    let endpoint = [Field::Ipv4, Field::Port];
    [
        set(SOURCES, &[Field::InterfaceName, Field::Ipv4], &[]),
        set(HAIRPIN, &[Field::Ipv4, Field::Ipv4], &[]),
        set(HOSTPORTS, &[Field::Protocol, Field::Port], &endpoint),
        set(HOSTPORTS_AT, &[Field::Ipv4, Field::Protocol, Field::Port], &endpoint),
    ]
}

fn verdict(verdict: Verdict) -> Expr {
    Expr::Verdict(verdict)
}

/// `iifname "PREFIX*"`: a comparison of the first bytes alone.
fn from_pods(prefix: &str) -> [Expr; 2] {
    [
        Expr::Meta { key: MetaKey::InterfaceIn, to: 1 },
        Expr::Cmp { op: CmpOp::Eq, from: 1, value: prefix.as_bytes().to_vec() },
    ]
}

fn not_loopback_interface() -> [Expr; 2] {
    [
        Expr::Meta { key: MetaKey::InterfaceIn, to: 1 },
        Expr::Cmp { op: CmpOp::Neq, from: 1, value: interface_bytes("lo") },
    ]
}

fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_BYTES, 0);
    bytes
}

/// A pod sends from its own address alone, and IPv4 alone (it was given no other address). Loopback addresses never
/// come from outside, whatever route_localnet says.
fn spoofing(batch: &mut Batch, prefix: &str) {
    let chain = "sources-check";
    batch.add_base_chain(chain, Hook::Prerouting, Priority::Filter(PRIORITY_RAW));
    let lookup = Expr::Lookup { set: SOURCES.to_owned(), from: 1, to: None, inverted: true };
    let mut spoofed = from_pods(prefix).to_vec();
    spoofed.extend(ipv4_only());
    // An interface name fills the sixteen bytes of register 1; the address follows it.
    spoofed.extend([Expr::Meta { key: MetaKey::InterfaceIn, to: 1 }, ip_saddr(2), lookup, verdict(Verdict::Drop)]);
    batch.add_rule(chain, &spoofed);
    let mut other = from_pods(prefix).to_vec();
    other.extend([
        Expr::Meta { key: MetaKey::NfProtocol, to: 1 },
        Expr::Cmp { op: CmpOp::Neq, from: 1, value: vec![2] },
        verdict(Verdict::Drop),
    ]);
    batch.add_rule(chain, &other);
    for load in [ip_saddr(1), ip_daddr(1)] {
        let mut martian = not_loopback_interface().to_vec();
        martian.extend(ipv4_only());
        martian.extend(in_prefix(load, LOOPBACK.0, LOOPBACK.1));
        martian.push(verdict(Verdict::Drop));
        batch.add_rule(chain, &martian);
    }
}

fn ported() -> [Expr; 2] {
    [l4proto(1), Expr::OneOf { from: 1, protocols: MEMBER_PROTOCOLS.to_vec() }]
}

/// Ports of this node's own addresses (but not of loopback: that would need route_localnet).
fn host_ports(batch: &mut Batch) {
    let chain = "host-ports";
    batch.add_chain(chain);
    let dnat = Expr::Dnat { address: 1, port: 9 };
    let mut rule = ported().to_vec();
    rule.extend(ipv4_only());
    rule.extend([ip_daddr(1), l4proto(9), dport(10)]);
    rule.push(Expr::Lookup { set: HOSTPORTS_AT.to_owned(), from: 1, to: Some(1), inverted: false });
    rule.push(dnat.clone());
    batch.add_rule(chain, &rule);
    let mut rule = ported().to_vec();
    rule.extend([l4proto(1), dport(9)]);
    rule.push(Expr::Lookup { set: HOSTPORTS.to_owned(), from: 1, to: Some(1), inverted: false });
    rule.push(dnat);
    batch.add_rule(chain, &rule);
    for (name, hook) in [("host-ports-in", Hook::Prerouting), ("host-ports-out", Hook::Output)] {
        batch.add_base_chain(name, hook, Priority::Nat(PRIORITY_HOSTPORTS));
        let mut rule = vec![
            Expr::FibDestinationType { to: 1 },
            Expr::Cmp { op: CmpOp::Eq, from: 1, value: RTN_LOCAL.to_ne_bytes().to_vec() },
        ];
        rule.extend(ipv4_only());
        rule.extend(not_in_prefix(ip_daddr(1), LOOPBACK.0, LOOPBACK.1));
        rule.push(verdict(Verdict::Goto(chain.to_owned())));
        batch.add_rule(name, &rule);
    }
}

/// What a pod sends to itself through a host port, or out of the cluster, bears the node's address.
fn leaving(batch: &mut Batch, prefix: &str, cluster: Ipv4Net) {
    let chain = "leaving";
    batch.add_base_chain(chain, Hook::Postrouting, Priority::Nat(PRIORITY_LEAVE));
    let mut hairpin = vec![
        Expr::Ct { key: CtKey::Status, direction: None, to: 1 },
        Expr::And { from: 1, to: 1, mask: gantry_netlink::conntrack::STATUS_DST_NAT.to_ne_bytes().to_vec() },
        Expr::Cmp { op: CmpOp::Neq, from: 1, value: vec![0; 4] },
    ];
    hairpin.extend(ipv4_only());
    hairpin.extend([ip_saddr(1), ip_daddr(9)]);
    hairpin.push(Expr::Lookup { set: HAIRPIN.to_owned(), from: 1, to: None, inverted: false });
    hairpin.push(Expr::Masquerade);
    batch.add_rule(chain, &hairpin);
    // The hairpin set is also the list of this node's pods; a pod of another node was masqueraded there.
    let mut out = vec![Expr::Meta { key: MetaKey::InterfaceOut, to: 1 }];
    out.push(Expr::Cmp { op: CmpOp::Neq, from: 1, value: prefix.as_bytes().to_vec() });
    out.extend(ipv4_only());
    out.extend(in_prefix(ip_saddr(1), cluster.network(), cluster.prefix_len()));
    out.extend(not_in_prefix(ip_daddr(1), cluster.network(), cluster.prefix_len()));
    out.push(Expr::Masquerade);
    batch.add_rule(chain, &out);
}

/// Idempotent: adding what is there changes nothing.
pub(super) fn add_pod(record: &Record) -> Batch {
    let mut batch = Batch::new(TABLE);
    add_elements(&mut batch, record);
    batch
}

fn add_elements(batch: &mut Batch, record: &Record) {
    for (set, elements) in elements(record) {
        batch.add_elements(set, &elements);
    }
}

/// Whether the table has all of its rules, and in its sets what these pods have there and no more.
pub(super) fn stand(nft: &mut Nft, rules: usize, records: &[&Record]) -> Result<bool, Error> {
    if nft.rules(TABLE)?.len() != rules {
        return Ok(false);
    }
    for set in [SOURCES, HAIRPIN, HOSTPORTS, HOSTPORTS_AT] {
        let wanted = records.iter().flat_map(|record| elements(record)).filter(|(of, _)| *of == set);
        let wanted: BTreeSet<Element> = wanted.flat_map(|(_, elements)| elements).collect();
        if nft.elements(TABLE, set)?.into_iter().collect::<BTreeSet<_>>() != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One commit an element, since those that are gone already (a crash, a flush by hand) must not keep the others.
pub(super) fn remove_pod(nft: &mut Nft, record: &Record) -> Result<(), Error> {
    let mut whole = Batch::new(TABLE);
    for (set, elements) in elements(record) {
        whole.delete_elements(set, &elements);
    }
    match nft.commit(whole) {
        Err(error) if error.is(rustix::io::Errno::NOENT) => {}
        answer => return answer,
    }
    for (set, elements) in elements(record) {
        for element in elements {
            let mut single = Batch::new(TABLE);
            single.delete_elements(set, &[element]);
            match nft.commit(single) {
                Err(error) if error.is(rustix::io::Errno::NOENT) => {}
                answer => answer?,
            }
        }
    }
    Ok(())
}

/// Each set with what this pod has in it.
fn elements(record: &Record) -> Vec<(&'static str, Vec<Element>)> {
    let ip = record.ip.octets();
    let mut source = interface_bytes(&record.interface);
    source.extend(ip);
    let mut all = vec![
        (SOURCES, vec![Element::key(source)]),
        (HAIRPIN, vec![Element::key([ip, ip].concat())]),
        (HOSTPORTS, Vec::new()),
        (HOSTPORTS_AT, Vec::new()),
    ];
    for port in &record.ports {
        let (set, key) = host_port_key(port);
        let element = Element::map(key, endpoint(record.ip, port.container_port));
        if let Some((_, elements)) = all.iter_mut().find(|(name, _)| *name == set) {
            elements.push(element);
        }
    }
    all.retain(|(_, elements)| !elements.is_empty());
    all
}

fn host_port_key(port: &HostPort) -> (&'static str, Vec<u8>) {
    let [high, low] = port.host_port.to_be_bytes();
    let tail = [port.protocol.number(), 0, 0, 0, high, low, 0, 0];
    match port.host_ip {
        Some(ip) if !ip.is_unspecified() => (HOSTPORTS_AT, [ip.octets().as_slice(), &tail].concat()),
        _ => (HOSTPORTS, tail.to_vec()),
    }
}

fn endpoint(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [ip.octets(), [high, low, 0, 0]].concat()
}

/// Flows that were led to the pod end with it: a UDP client would go on sending to nobody, or to the next pod that has
/// this address.
pub(super) fn forget_flows(record: &Record) -> Result<(), Error> {
    if record.ports.is_empty() {
        return Ok(());
    }
    let mut conntrack = Conntrack::open()?;
    let flows = conntrack.flows(|flow| flow.reply.source == record.ip)?;
    for flow in flows {
        conntrack.delete(&flow)?;
    }
    Ok(())
}
