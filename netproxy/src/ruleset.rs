//! The rules of the table `gantry`, which no service adds to, and the sets that they read.
//!
//! ```text
//! set  services-N              { vip . protocol . port }            what has exactly N endpoints
//! map  services-endpoints      { vip . protocol . port . index : endpoint ip . port }
//! map  affinity                { client . vip . protocol . port : endpoint ip . port }   filled and aged by the kernel
//!
//! services:  ip daddr . meta l4proto . th dport @services-0 goto refuse
//!            dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @affinity
//!            jump services-by-count      ip daddr . meta l4proto . th dport @services-3 goto services-pick-3, …
//!            goto refuse
//! services-pick-3:  dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @services-endpoints
//!                   drop
//! ```
//!
//! # Why this form
//!
//! It has to be what `nft` can list and load again: administrators and firewalls call it. nft 1.0.6 aborts on a lookup
//! whose result is the key of the next one (address → service id → N), so no rule here has such a chain. What was weighed:
//!
//! * *a verdict map of services* (`… vmap @services`): prints well, but every commit walks all verdict elements
//!   (4 ms at 10,000 services);
//! * *the service id in the packet mark* (`meta mark set … map @services`): prints well, tramples marks that others use;
//! * *one set of services for each N, endpoints keyed by the address itself* (this): prints and loads in 1.0.6; all
//!   elements are data, so a commit costs what it changes; a new N costs a set, a chain and a rule, and since there are no
//!   verdict elements the kernel's walk over the rules stays short. The price: a new connection tries one set for each N
//!   that is in use (a hash lookup, tens of nanoseconds), and a NodePort has endpoint elements of its own.
//!
//! Things that follow from it: a service changes its N by being added to the new set in one commit and taken out of the
//! old one in the next, so that no packet finds it in neither. An index that is gone under a packet's feet ends in the
//! pick chain's `drop`: conntrack never confirms a miss, and the client sends again.
//!
//! Affinity is written after the choice: in postrouting, conntrack knows both the address that was asked for and the
//! endpoint that was chosen, so one `update` per protocol serves every service with the same timeout, and a full map makes
//! a client less sticky, never unreachable. (`ct original proto-dst` has a type in nft only behind one protocol, hence one
//! rule each. `nft -j` of 1.0.6 has no word for such an update: it prints the rule as text, and warns.)

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use gantry_netlink::conntrack::STATUS_DST_NAT;
use gantry_netlink::nft::{
    Batch, CmpOp, CtDirection, CtKey, Expr, Hook, MEMBER_PROTOCOLS, MetaKey, Priority, Reject, Verdict, dport,
    in_prefix, ip_daddr, ip_saddr, ipv4_only, l4proto, not_in_prefix,
};
use ipnet::Ipv4Net;

use crate::image::{PickKind, SetId};

mod sets;

pub use sets::definition;

use sets::affinity_definition;

pub const TABLE: &str = "gantry";
pub const AFFINITY: &str = "affinity";

const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;
const RTN_LOCAL: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

const DISPATCH: &str = "dispatch";
const SERVICES: &str = "services";
const NODEPORTS: &str = "nodeports";
const NODEPORTS_LOCAL: &str = "nodeports-local";
const REFUSE: &str = "refuse";
const TRANSLATED: &str = "translated";
const STICKY: &str = "sticky";

/// What the rules need to know of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    pub pods: Ipv4Net,
    pub services: Ipv4Net,
    /// The address that pods ask, and where on this node it is answered.
    pub dns: Option<(Ipv4Addr, std::net::SocketAddrV4)>,
}

/// One chain with its rules, for a table that has none of ours yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    pub name: &'static str,
    pub base: Option<(Hook, Priority)>,
    pub rules: Vec<Vec<Expr>>,
}

fn by_count(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "services-by-count",
        PickKind::NodePort => "nodeports-by-count",
        PickKind::NodePortLocal => "nodeports-local-by-count",
    }
}

fn pick_chain(kind: PickKind, count: u32) -> String {
    format!("{}-pick-{count}", kind.stem())
}

fn goto(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_owned()))
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

fn rule(parts: impl IntoIterator<Item = Vec<Expr>>) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

/// `meta l4proto { tcp, udp, sctp }`: nft wants it before any port in a translation.
fn ported() -> Vec<Expr> {
    vec![l4proto(1), Expr::OneOf { from: 1, protocols: MEMBER_PROTOCOLS.to_vec() }]
}

fn in_set(set: SetId) -> Expr {
    Expr::Lookup { set: set.name(), from: 1, to: None, inverted: false }
}

/// Loads the key of a kind from register 1 on; the next free register comes back.
fn key(kind: PickKind) -> (Vec<Expr>, u32) {
    match kind {
        PickKind::Service => (rule([ipv4_only().to_vec(), vec![ip_daddr(1), l4proto(9), dport(10)]]), 11),
        PickKind::NodePort | PickKind::NodePortLocal => (vec![l4proto(1), dport(9)], 10),
    }
}

fn dnat_to(map: &str) -> Vec<Expr> {
    let lookup = Expr::Lookup { set: map.to_owned(), from: 1, to: Some(1), inverted: false };
    vec![lookup, Expr::Dnat { address: 1, port: 9 }]
}

/// `update @affinity { client . vip . protocol . port timeout T : endpoint ip . port }` reads this with the client first.
fn affinity_lookup() -> Vec<Expr> {
    rule([ported(), ipv4_only().to_vec(), vec![ip_saddr(1), ip_daddr(9), l4proto(10), dport(11)], dnat_to(AFFINITY)])
}

fn original(key: CtKey, to: u32) -> Expr {
    Expr::Ct { key, direction: Some(CtDirection::Original), to }
}

fn is_protocol(protocol: u8) -> Vec<Expr> {
    vec![l4proto(1), Expr::Cmp { op: CmpOp::Eq, from: 1, value: vec![protocol] }]
}

/// All chains that stand from the beginning. A chain comes after those that its rules lead to.
pub fn chains(cluster: &Cluster) -> Vec<Chain> {
    let chain = |name, rules| Chain { name, base: None, rules };
    let refuse = vec![
        rule([is_protocol(TCP), vec![Expr::Reject(Reject::TcpReset)]]),
        vec![Expr::Reject(Reject::PortUnreachable)],
    ];
    let mut all: Vec<Chain> = vec![chain(REFUSE, refuse), chain(STICKY, Vec::new())];
    all.extend(PickKind::ALL.map(|kind| chain(by_count(kind), Vec::new())));
    all.push(chain(SERVICES, services_rules()));
    all.push(chain(NODEPORTS_LOCAL, nodeports_local_rules()));
    all.push(chain(NODEPORTS, nodeports_rules(cluster)));
    all.push(chain(DISPATCH, dispatch_rules(cluster)));
    all.push(chain(TRANSLATED, translated_rules(cluster)));
    let base = |name, hook, priority, rules| Chain { name, base: Some((hook, priority)), rules };
    all.push(base("prerouting", Hook::Prerouting, Priority::Nat(PRIORITY_DSTNAT), vec![vec![jump(DISPATCH)]]));
    all.push(base("output", Hook::Output, Priority::Nat(PRIORITY_DSTNAT), vec![vec![jump(DISPATCH)]]));
    let translated = vec![
        Expr::Ct { key: CtKey::Status, direction: None, to: 1 },
        Expr::And { from: 1, to: 1, mask: STATUS_DST_NAT.to_ne_bytes().to_vec() },
        Expr::Cmp { op: CmpOp::Neq, from: 1, value: vec![0; 4] },
        goto(TRANSLATED),
    ];
    all.push(base("postrouting", Hook::Postrouting, Priority::Nat(PRIORITY_SRCNAT), vec![translated]));
    all.extend(
        dns_guard(cluster).map(|rules| base("dns-guard", Hook::Input, Priority::Filter(PRIORITY_FILTER), rules)),
    );
    all
}

fn services_rules() -> Vec<Vec<Expr>> {
    let (load, _) = key(PickKind::Service);
    let none = in_set(SetId::Pick(PickKind::Service, 0));
    vec![
        rule([load.clone(), vec![none, goto(REFUSE)]]),
        rule([load, vec![in_set(SetId::ServicesDropped), Expr::Verdict(Verdict::Drop)]]),
        affinity_lookup(),
        vec![jump(by_count(PickKind::Service))],
        // The whole range is services': an address or port in it that is nobody's is refused at once.
        vec![goto(REFUSE)],
    ]
}

fn nodeports_rules(cluster: &Cluster) -> Vec<Vec<Expr>> {
    let (load, _) = key(PickKind::NodePort);
    let pods = parts(cluster.pods);
    // Traffic from outside the cluster (not from a pod, not from this node) may be for local endpoints alone.
    let outside = rule([
        ipv4_only().to_vec(),
        not_in_prefix(ip_saddr(1), pods.network, pods.prefix),
        vec![
            Expr::FibSourceType { to: 1 },
            Expr::Cmp { op: CmpOp::Neq, from: 1, value: RTN_LOCAL.to_ne_bytes().to_vec() },
            jump(NODEPORTS_LOCAL),
        ],
    ]);
    let none = in_set(SetId::Pick(PickKind::NodePort, 0));
    vec![outside, rule([load, vec![none, goto(REFUSE)]]), affinity_lookup(), vec![jump(by_count(PickKind::NodePort))]]
}

fn nodeports_local_rules() -> Vec<Vec<Expr>> {
    let (load, _) = key(PickKind::NodePortLocal);
    let none = in_set(SetId::Pick(PickKind::NodePortLocal, 0));
    vec![
        rule([load, vec![none, Expr::Verdict(Verdict::Drop)]]),
        affinity_lookup(),
        vec![jump(by_count(PickKind::NodePortLocal))],
    ]
}

fn dispatch_rules(cluster: &Cluster) -> Vec<Vec<Expr>> {
    let Ipv4Parts { network, prefix } = parts(cluster.services);
    let mut rules = Vec::new();
    if let Some((vip, listener)) = cluster.dns {
        rules.push(rule([
            ipv4_only().to_vec(),
            in_prefix(ip_daddr(1), vip, 32),
            vec![l4proto(1), Expr::OneOf { from: 1, protocols: vec![TCP, UDP] }],
            vec![dport(1), Expr::Cmp { op: CmpOp::Eq, from: 1, value: DNS_PORT.to_be_bytes().to_vec() }],
            vec![
                Expr::Load { to: 1, value: listener.ip().octets().to_vec() },
                Expr::Load { to: 2, value: listener.port().to_be_bytes().to_vec() },
                Expr::Dnat { address: 1, port: 2 },
            ],
        ]));
    }
    rules.push(rule([ipv4_only().to_vec(), in_prefix(ip_daddr(1), network, prefix), vec![goto(SERVICES)]]));
    // Ports of the node are those of its own addresses, but not of loopback: that would need route_localnet.
    rules.push(rule([
        vec![
            Expr::FibDestinationType { to: 1 },
            Expr::Cmp { op: CmpOp::Eq, from: 1, value: RTN_LOCAL.to_ne_bytes().to_vec() },
        ],
        ipv4_only().to_vec(),
        not_in_prefix(ip_daddr(1), LOOPBACK.0, LOOPBACK.1),
        vec![goto(NODEPORTS)],
    ]));
    rules
}

fn translated_rules(cluster: &Cluster) -> Vec<Vec<Expr>> {
    let (pods, services) = (parts(cluster.pods), parts(cluster.services));
    let to_service = original(CtKey::IpDestination, 1);
    let mut rules = vec![
        vec![jump(STICKY)],
        // What stays on the node has no other way back.
        vec![
            Expr::Meta { key: MetaKey::InterfaceOut, to: 1 },
            Expr::Cmp { op: CmpOp::Eq, from: 1, value: interface_bytes("lo") },
            Expr::Verdict(Verdict::Return),
        ],
        rule([ipv4_only().to_vec(), vec![ip_saddr(1), ip_daddr(9), in_set(SetId::Hairpin), Expr::Masquerade]]),
        // A client that is no pod may have a way to the endpoint that does not lead back through here.
        rule([
            in_prefix(to_service.clone(), services.network, services.prefix),
            ipv4_only().to_vec(),
            not_in_prefix(ip_saddr(1), pods.network, pods.prefix),
            vec![Expr::Masquerade],
        ]),
    ];
    for protocol in MEMBER_PROTOCOLS {
        rules.push(rule([
            not_in_prefix(to_service.clone(), services.network, services.prefix),
            is_protocol(protocol),
            vec![l4proto(1), original(CtKey::PortDestination, 9), in_set(SetId::NodePortsMasqueraded)],
            vec![Expr::Masquerade],
        ]));
    }
    rules
}

/// The DNS listener answers what was sent to the service's address, and nobody who found the listener's own.
fn dns_guard(cluster: &Cluster) -> Option<Vec<Vec<Expr>>> {
    let (_, listener) = cluster.dns?;
    Some(vec![rule([
        ipv4_only().to_vec(),
        in_prefix(ip_daddr(1), *listener.ip(), 32),
        vec![
            Expr::Ct { key: CtKey::Status, direction: None, to: 1 },
            Expr::And { from: 1, to: 1, mask: STATUS_DST_NAT.to_ne_bytes().to_vec() },
            Expr::Cmp { op: CmpOp::Eq, from: 1, value: vec![0; 4] },
            Expr::Meta { key: MetaKey::InterfaceIn, to: 1 },
            Expr::Cmp { op: CmpOp::Neq, from: 1, value: interface_bytes("lo") },
            Expr::Verdict(Verdict::Drop),
        ],
    ])])
}

struct Ipv4Parts {
    network: Ipv4Addr,
    prefix: u8,
}

fn parts(net: Ipv4Net) -> Ipv4Parts {
    Ipv4Parts { network: net.network(), prefix: net.prefix_len() }
}

fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The comment of a table that has exactly these rules: how a restart knows that it need not make them again.
pub fn comment(cluster: &Cluster) -> String {
    let mut hasher = DefaultHasher::new();
    (chains(cluster), affinity_definition()).hash(&mut hasher);
    for kind in PickKind::ALL {
        (definition(SetId::Endpoints(kind)), pick_rules(kind, 1)).hash(&mut hasher);
    }
    (sticky_rules(SetId::Sticky(1)), sticky_rules(SetId::StickyNodePorts(1))).hash(&mut hasher);
    format!("Gantry's services, rules {:016x}", hasher.finish())
}

/// The whole table anew, without elements.
pub fn create(batch: &mut Batch, cluster: &Cluster) {
    let comment = comment(cluster);
    batch.add_table(&comment);
    batch.delete_table();
    batch.add_table(&comment);
    let fixed = [SetId::ServicesDropped, SetId::NodePortsMasqueraded, SetId::Hairpin];
    let endpoints = PickKind::ALL.map(SetId::Endpoints);
    let none = PickKind::ALL.map(|kind| SetId::Pick(kind, 0));
    for id in fixed.into_iter().chain(endpoints).chain(none) {
        batch.add_set(&definition(id));
    }
    batch.add_set(&affinity_definition());
    for chain in chains(cluster) {
        match chain.base {
            Some((hook, priority)) => batch.add_base_chain(chain.name, hook, priority),
            None => batch.add_chain(chain.name),
        }
        for rule in &chain.rules {
            batch.add_rule(chain.name, rule);
        }
    }
}

fn pick_rules(kind: PickKind, count: u32) -> [Vec<Expr>; 2] {
    let (load, index) = key(kind);
    let pick = rule([
        ported(),
        load,
        vec![Expr::RandomBelow { modulus: count, to: index }],
        dnat_to(&SetId::Endpoints(kind).name()),
    ]);
    [pick, vec![Expr::Verdict(Verdict::Drop)]]
}

fn sticky_rules(id: SetId) -> Vec<Vec<Expr>> {
    let (load, seconds) = match id {
        SetId::StickyNodePorts(seconds) => (vec![l4proto(1), original(CtKey::PortDestination, 9)], seconds),
        SetId::Sticky(seconds) => {
            (vec![original(CtKey::IpDestination, 1), l4proto(9), original(CtKey::PortDestination, 10)], seconds)
        }
        _ => return Vec::new(),
    };
    let one = |protocol| {
        rule([
            is_protocol(protocol),
            load.clone(),
            vec![in_set(id)],
            vec![
                original(CtKey::IpSource, 1),
                original(CtKey::IpDestination, 9),
                l4proto(10),
                original(CtKey::PortDestination, 11),
                Expr::Ct { key: CtKey::IpSource, direction: Some(CtDirection::Reply), to: 2 },
                Expr::Ct { key: CtKey::PortSource, direction: Some(CtDirection::Reply), to: 13 },
                Expr::Update { set: AFFINITY.to_owned(), key: 1, data: 2, timeout_ms: u64::from(seconds) * 1000 },
            ],
        ])
    };
    MEMBER_PROTOCOLS.into_iter().map(one).collect()
}

/// A set made on demand, with the chain and the rules that read it.
pub fn add_on_demand(batch: &mut Batch, id: SetId) {
    batch.add_set(&definition(id));
    match id {
        SetId::Pick(kind, count) => {
            let chain = pick_chain(kind, count);
            batch.add_chain(&chain);
            for rule in pick_rules(kind, count) {
                batch.add_rule(&chain, &rule);
            }
            let (load, _) = key(kind);
            batch.add_rule(by_count(kind), &rule([load, vec![in_set(id), goto(&chain)]]));
        }
        _ => {
            for rule in sticky_rules(id) {
                batch.add_rule(STICKY, &rule);
            }
        }
    }
}

/// How many rules the table has with these sets made on demand.
pub fn rule_count(cluster: &Cluster, on_demand: impl Iterator<Item = SetId>) -> usize {
    let fixed: usize = chains(cluster).iter().map(|chain| chain.rules.len()).sum();
    let more = on_demand.map(|id| match id {
        SetId::Pick(..) => 3,
        other => sticky_rules(other).len(),
    });
    fixed + more.sum::<usize>()
}
