//! The pod network: a network namespace and a routed /32 veth per sandbox, addresses from the node's pod CIDR, host
//! ports, and the rules that keep a pod to its own address. Everything here blocks for a few milliseconds at most:
//! call it from a blocking thread.
//!
//! There is no bridge. A pod's only neighbour is a link-local gateway whose link-layer address it is given once and for
//! all; the node has one route a pod. So traffic between two pods of a node passes the forward hook like any other.
//!
//! What is kept: one file a sandbox below `run_dir`, written before the link is made and removed after it is gone. The
//! rules are made from these files at each start, in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use gantry_netlink::nft::{Batch, Nft};
use gantry_netlink::route::{Route, Routes, Scope, Veth};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType};

use crate::fault::{Point, point};

mod error;
mod ipam;
pub mod loopback;
pub(crate) mod netns;
mod records;
mod rules;
mod sysctl;
pub mod usage;

#[cfg(test)]
mod tests;

pub use error::NetworkError;
pub use records::{HostPort, Protocol};

use records::{Record, Records};

/// Where the pod network keeps its state, and what the cluster looks like from here.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder of this boot (0700): one file a sandbox, plus what cleanup must restore.
    pub run_dir: PathBuf,
    /// All pods of the cluster: traffic from a pod to anything else leaves under the node's address.
    pub cluster_cidr: Ipv4Net,
    /// First letters of every host-side interface, at most [`PREFIX_MAX_BYTES`].
    pub interface_prefix: String,
    pub mtu: u32,
}

/// An interface name has 15 bytes; twelve of them tell sandboxes apart.
pub const PREFIX_MAX_BYTES: usize = 3;
/// What every pod's default route leads to. It exists on no interface: the pod's neighbour entry says where it is.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// rtnetlink's number for who made a route; how we find ours again.
const ROUTE_PROTOCOL: u8 = 0x67;
/// The pod's end of its link.
pub const POD_INTERFACE: &str = "eth0";

/// What a sandbox was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The host's end of the pod's link.
    pub interface: String,
}

/// The pod network of this node.
#[derive(Debug)]
pub struct Network {
    config: Config,
    /// Attach and detach of different sandboxes may run at once; what they share is short.
    state: Mutex<State>,
    /// Held from what is known to what is committed, so that a table made anew lacks no pod and has none too many. Taken
    /// before `state`.
    rules: Mutex<Rules>,
}

/// Whether the node has the table, and of which sandboxes, or gave it up for good.
#[derive(Debug)]
enum Rules {
    Kept(BTreeSet<String>),
    GivenUp,
}

impl Rules {
    /// The sandboxes that the table has elements of. What is given up has none.
    fn standing(&mut self) -> Option<&mut BTreeSet<String>> {
        match self {
            Rules::Kept(standing) => Some(standing),
            Rules::GivenUp => None,
        }
    }
}

#[derive(Debug)]
struct State {
    records: Records,
    pod_cidr: Option<Ipv4Net>,
    /// Where the next search for a free address begins, so that an address rests before it is used again.
    last: Option<Ipv4Addr>,
}

impl State {
    fn free_address(&mut self) -> Result<Ipv4Addr, NetworkError> {
        let cidr = self.pod_cidr.ok_or(NetworkError::NoPodCidr)?;
        if self.next_address(cidr).is_none() {
            self.end_leaving()?;
        }
        self.next_address(cidr).ok_or(NetworkError::Exhausted(cidr))
    }

    fn next_address(&self, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        let records = self.records.all().values().chain(self.records.leaving().values());
        ipam::next_address(cidr, &records.map(|record| record.ip).collect(), self.last)
    }

    /// Ends the links that have not ended yet, because something else has their namespaces.
    fn end_leaving(&mut self) -> Result<(), NetworkError> {
        for record in self.records.leaving().clone().into_values() {
            open_routes()?.delete_link(&record.interface).map_err(NetworkError::Netlink)?;
            self.records.remove(&record.sandbox)?;
        }
        Ok(())
    }
}

impl Network {
    /// Takes up what the state files say, and makes the rules from them.
    pub fn open(config: Config) -> Result<Network, NetworkError> {
        let prefix = &config.interface_prefix;
        if prefix.is_empty() || prefix.len() > PREFIX_MAX_BYTES || !prefix.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(NetworkError::Prefix(prefix.clone()));
        }
        let records = Records::open(&config.run_dir)?;
        sysctl::enable_forwarding(&config.run_dir)?;
        let state = State { records, pod_cidr: None, last: None };
        let network = Network { config, state: Mutex::new(state), rules: Mutex::new(Rules::Kept(BTreeSet::new())) };
        network.make_table(&mut open_nft()?, network.rules.lock().standing())?;
        Ok(network)
    }

    /// The whole table anew, of every sandbox that has an address.
    fn make_table(&self, nft: &mut Nft, standing: Option<&mut BTreeSet<String>>) -> Result<(), NetworkError> {
        let (table, all) = {
            let state = self.state.lock();
            let records = state.records.all();
            (self.table(&records.values().collect::<Vec<_>>()), records.keys().cloned().collect())
        };
        nft.commit(table).map_err(NetworkError::Rules)?;
        if let Some(standing) = standing {
            *standing = all;
        }
        Ok(())
    }

    fn table(&self, records: &[&Record]) -> Batch {
        rules::table(&self.config.interface_prefix, self.config.cluster_cidr, records)
    }

    /// Makes the rules anew where someone changed them (`nft flush ruleset`, a set emptied by hand); true where that was so.
    /// What it asks the kernel is the rules and elements of this table, which takes some tens of microseconds. After
    /// `cleanup` there is nothing to heal.
    pub fn heal(&self) -> Result<bool, NetworkError> {
        let mut nft = open_nft()?;
        let mut rules = self.rules.lock();
        let Some(standing) = rules.standing() else { return Ok(false) };
        let stands = {
            let state = self.state.lock();
            let records: Vec<&Record> = standing.iter().filter_map(|id| state.records.all().get(id)).collect();
            rules::stand(&mut nft, self.table(&[]).rules(), &records).map_err(NetworkError::Rules)?
        };
        if stands {
            return Ok(false);
        }
        tracing::warn!("table gantry-pods was changed by someone else, healing it");
        self.make_table(&mut nft, Some(standing))?;
        Ok(true)
    }

    /// Makes a network namespace with its loopback up and binds it to `path` (made if need be). Idempotent.
    pub fn create_netns(&self, path: &Path) -> Result<(), NetworkError> {
        netns::create(path).map_err(|source| NetworkError::Netns { path: path.to_owned(), source })
    }

    /// As [`Network::create_netns`], of a namespace that is there: its loopback is set up.
    pub fn take_netns(&self, path: &Path) -> Result<(), NetworkError> {
        netns::set_up(path).map_err(|source| NetworkError::Netns { path: path.to_owned(), source })
    }

    /// Unmounts and removes the file. Idempotent.
    pub fn delete_netns(&self, path: &Path) -> Result<(), NetworkError> {
        netns::delete(path).map_err(|source| NetworkError::Netns { path: path.to_owned(), source })
    }

    /// The node's own part of the pod network. Sandboxes that have an address keep it.
    pub fn set_pod_cidr(&self, cidr: Ipv4Net) -> Result<(), NetworkError> {
        let mut state = self.state.lock();
        if state.pod_cidr != Some(cidr) {
            tracing::info!(%cidr, "pod CIDR set");
            state.pod_cidr = Some(cidr);
        }
        Ok(())
    }

    /// Gives the sandbox an address and a link (the same address again, when it has one), and its host ports.
    pub fn attach(&self, sandbox: &str, netns: &Path, ports: &[HostPort]) -> Result<PodAddress, NetworkError> {
        let record = self.reserve(sandbox, ports)?;
        point(Point::LinkMake);
        self.link(&record, netns)?;
        let mut nft = open_nft()?;
        point(Point::RulesAdd);
        let mut rules = self.rules.lock();
        match nft.commit(rules::add_pod(&record)) {
            // The table is gone. This pod's record is among those from which it is made again.
            Err(error) if error.is(rustix::io::Errno::NOENT) => self.make_table(&mut nft, rules.standing())?,
            answer => answer.map_err(NetworkError::Rules)?,
        }
        if let Some(standing) = rules.standing() {
            standing.insert(record.sandbox.clone());
        }
        Ok(record.address())
    }

    /// Takes link, host ports and address away. Safe to call when attach never ran.
    pub fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        let Some(record) = self.state.lock().records.all().get(sandbox).cloned() else { return Ok(()) };
        point(Point::LinkRemove);
        // The link goes first: from then on nothing can be sent from the address, and its route is gone with it.
        open_routes()?.delete_link(&record.interface).map_err(NetworkError::Netlink)?;
        rules::forget_flows(&record).map_err(NetworkError::Netlink)?;
        self.remove_rules(&record, |records| records.remove(sandbox))
    }

    /// Takes a pod's rules away, and does with its record what is to be done before the table can be made anew.
    fn remove_rules(
        &self,
        record: &Record,
        then: impl FnOnce(&mut Records) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let mut rules = self.rules.lock();
        point(Point::RulesRemove);
        rules::remove_pod(&mut open_nft()?, record).map_err(NetworkError::Rules)?;
        if let Some(standing) = rules.standing() {
            standing.remove(&record.sandbox);
        }
        then(&mut self.state.lock().records)
    }

    /// Takes host ports and rules away, and lets the namespace at `netns` go, with which the kernel ends the link: in its own
    /// time, and of many pods at once, where to ask for one link's end is to wait for some tens of milliseconds. The address is
    /// nobody else's before. Safe to call when attach never ran, and twice.
    pub fn let_go(&self, sandbox: &str, netns: &Path) -> Result<(), NetworkError> {
        let record = self.state.lock().records.all().get(sandbox).cloned();
        if let Some(record) = record {
            point(Point::LinkRemove);
            open_routes()?.delete_route(&host_route(record.ip, 32, 0, None)).map_err(NetworkError::Netlink)?;
            rules::forget_flows(&record).map_err(NetworkError::Netlink)?;
            self.remove_rules(&record, |records| {
                records.let_go(sandbox);
                Ok(())
            })?;
        }
        self.delete_netns(netns)?;
        // An earlier try may have ended it, of which nobody will tell any more.
        self.forget_gone()
    }

    /// Forgets those that were let go and whose links have ended. To be called as links end. One that stays, because something
    /// else has its namespace, is left alone until its address is needed.
    pub fn forget_gone(&self) -> Result<(), NetworkError> {
        let mut state = self.state.lock();
        for record in state.records.leaving().clone().into_values() {
            if !has_link(&record.interface)? {
                state.records.remove(&record.sandbox)?;
            }
        }
        Ok(())
    }

    /// The sandboxes whose records could not be read at the start, for the caller who may know what they said.
    pub fn damaged(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().records.damaged)
    }

    /// Notes again what `attach` gave a sandbox, whose link is there.
    pub fn restore(&self, sandbox: &str, ip: Ipv4Addr, ports: &[HostPort]) -> Result<(), NetworkError> {
        let interface = interface_name(&self.config.interface_prefix, sandbox);
        let record = Record { sandbox: sandbox.to_owned(), ip, interface, ports: ports.to_vec() };
        self.state.lock().records.put(record)?;
        let mut nft = open_nft()?;
        self.make_table(&mut nft, self.rules.lock().standing())
    }

    /// Removes the link that a sandbox would have. None there is no error.
    pub fn remove_link(&self, sandbox: &str) -> Result<(), NetworkError> {
        let interface = interface_name(&self.config.interface_prefix, sandbox);
        open_routes()?.delete_link(&interface).map(drop).map_err(NetworkError::Netlink)
    }

    /// What `attach` gave this sandbox.
    pub fn address(&self, sandbox: &str) -> Option<PodAddress> {
        self.state.lock().records.all().get(sandbox).map(Record::address)
    }

    /// The sandboxes that hold an address, for the caller to detach those that are gone.
    pub fn sandboxes(&self) -> Vec<String> {
        self.state.lock().records.all().keys().cloned().collect()
    }

    /// Removes every link, rule, route and file of ours, and restores what we changed.
    pub fn cleanup(&self) -> Result<(), NetworkError> {
        let mut routes = open_routes()?;
        let mut nft = open_nft()?;
        // `heal` may be about to look.
        let mut held = self.rules.lock();
        *held = Rules::GivenUp;
        let mut state = self.state.lock();
        for record in state.records.all().values().chain(state.records.leaving().values()) {
            routes.delete_link(&record.interface).map_err(NetworkError::Netlink)?;
        }
        nft.delete_table(rules::TABLE).map_err(NetworkError::Rules)?;
        sysctl::restore_forwarding(&self.config.run_dir)?;
        state.records.destroy()
    }

    /// Writes down what the sandbox will have, before anything is made.
    fn reserve(&self, sandbox: &str, ports: &[HostPort]) -> Result<Record, NetworkError> {
        self.forget_gone()?;
        let mut state = self.state.lock();
        if let Some(record) = state.records.all().get(sandbox)
            && record.ports == ports
        {
            return Ok(record.clone());
        }
        let taken = state.records.all();
        if let Some((port, owner)) = ipam::port_conflict(sandbox, ports, taken) {
            return Err(NetworkError::HostPortTaken { port: port.host_port, protocol: port.protocol, owner });
        }
        let ip = match taken.get(sandbox) {
            Some(record) => record.ip,
            None => state.free_address()?,
        };
        let record = Record {
            sandbox: sandbox.to_owned(),
            ip,
            interface: interface_name(&self.config.interface_prefix, sandbox),
            ports: ports.to_vec(),
        };
        state.records.put(record.clone())?;
        state.last = Some(ip);
        Ok(record)
    }

    /// Makes both ends of the link, whatever an earlier try left behind.
    fn link(&self, record: &Record, netns: &Path) -> Result<(), NetworkError> {
        let at_netns = |source| NetworkError::Netns { path: netns.to_owned(), source };
        let pod = std::fs::File::open(netns).map_err(at_netns)?;
        let in_link = |source| NetworkError::Link { sandbox: record.sandbox.clone(), ip: record.ip, source };
        let mut routes = open_routes()?;
        routes.delete_link(&record.interface).map_err(in_link)?;
        netns::inside(pod.as_fd(), || sysctl::refuse_router_advertisements("default")).map_err(at_netns)??;
        let (host_mac, pod_mac) = (mac(0xee, record.ip), mac(0x0a, record.ip));
        let veth = Veth {
            name: &record.interface,
            mac: host_mac,
            peer_name: POD_INTERFACE,
            peer_mac: pod_mac,
            peer_netns: pod.as_fd(),
            mtu: self.config.mtu,
        };
        routes.add_veth(&veth).map_err(in_link)?;
        sysctl::harden_link(&record.interface)?;
        let index = routes.link_index(&record.interface).map_err(in_link)?;
        netns::inside(pod.as_fd(), || pod_end(record.ip, host_mac)).map_err(at_netns)?.map_err(in_link)?;
        // Else a pod that asks in very many names would fill the node's table of neighbours, which all links share.
        routes.set_up_without_arp(index).map_err(in_link)?;
        routes.add_permanent_neighbour(index, record.ip, pod_mac).map_err(in_link)?;
        routes.add_route(&host_route(record.ip, 32, index, None)).map_err(in_link)
    }
}

/// The pod's end: its address, the gateway's place, and the way to everything else. Runs inside the pod's namespace.
fn pod_end(ip: Ipv4Addr, gateway_mac: [u8; 6]) -> Result<(), gantry_netlink::Error> {
    let mut routes = Routes::open()?;
    let index = routes.link_index(POD_INTERFACE)?;
    routes.add_address(gantry_netlink::route::Address { interface: index, ip, prefix: 32, scope: 0 })?;
    routes.set_up(index)?;
    routes.add_permanent_neighbour(index, GATEWAY, gateway_mac)?;
    routes.add_route(&host_route(GATEWAY, 32, index, None))?;
    routes.add_route(&Route { scope: Scope::Universe, ..host_route(Ipv4Addr::UNSPECIFIED, 0, index, Some(GATEWAY)) })
}

fn host_route(destination: Ipv4Addr, prefix: u8, interface: u32, gateway: Option<Ipv4Addr>) -> Route {
    Route { destination, prefix, gateway, interface, scope: Scope::Link, source: None, protocol: ROUTE_PROTOCOL }
}

/// Locally administered, and told by the pod's address: the same at every try.
fn mac(side: u8, ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [side & 0xfe | 0x02, 0x67, a, b, c, d]
}

/// The prefix, then twelve letters of the sandbox's id: ids are random, and all of one length.
fn interface_name(prefix: &str, sandbox: &str) -> String {
    let id: String = sandbox.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("{prefix}{id}")
}

/// Asked by ioctl(2), which waits for nobody who is changing links.
fn has_link(name: &str) -> Result<bool, NetworkError> {
    let failed =
        |source| NetworkError::Netlink(gantry_netlink::Error::Kernel { what: format!("find link {name}"), source });
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
    match rustix::net::netdevice::name_to_index(socket, name) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODEV) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn open_nft() -> Result<Nft, NetworkError> {
    Nft::open().map_err(NetworkError::Netlink)
}

fn open_routes() -> Result<Routes, NetworkError> {
    Routes::open().map_err(NetworkError::Netlink)
}

/// Sandboxes by id.
type ById = BTreeMap<String, Record>;
