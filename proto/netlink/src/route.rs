//! Links, addresses, routes and neighbours.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::Error;
use crate::message::{self, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Writer};
use crate::nft::Changes;
use crate::socket::Socket;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const RTMGRP_LINK: u32 = 1;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// How far a route or address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    Universe = 0,
    Link = 253,
    Host = 254,
}

/// An IPv4 route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub interface: u32,
    pub scope: Scope,
    pub source: Option<Ipv4Addr>,
    /// Who made it (rtnetlink's protocol number): how a component finds its own again.
    pub protocol: u8,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub interface: u32,
    pub ip: Ipv4Addr,
    pub prefix: u8,
    pub scope: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
}

/// Both ends of a veth to be made: the first here, the second in another network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    pub peer_name: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_netns: BorrowedFd<'a>,
    pub mtu: u32,
}

/// A route socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Routes(Socket);

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn one(kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    let at = writer.begin(kind, flags, header);
    fill(&mut writer);
    writer.end(at);
    writer
}

impl Routes {
    pub fn open() -> Result<Routes, Error> {
        Ok(Routes(Socket::open(None, 0)?))
    }

    /// Tells whenever a link of this network namespace comes, goes or changes.
    pub fn link_changes() -> Result<Changes, Error> {
        Changes::of(None, RTMGRP_LINK)
    }

    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = one(RTM_GETLINK, 0, &ifinfomsg(0, 0, 0), |_| {});
        self.0.dump(&request, "list links", |found, payload| {
            let index = message::ne_u32(payload.get(4..8)?)?;
            let flags = message::ne_u32(payload.get(8..12)?)?;
            let name = message::text(message::attribute(payload.get(16..)?, IFLA_IFNAME)?);
            found.push(Link { index, name, up: flags & IFF_UP != 0 });
            Some(())
        })
    }

    pub fn link_index(&mut self, name: &str) -> Result<u32, Error> {
        let request = one(RTM_GETLINK, 0, &ifinfomsg(0, 0, 0), |w| w.put_str(IFLA_IFNAME, name));
        match self.0.ask(request, "find link", |payload| message::ne_u32(payload.get(4..8)?)) {
            Ok(index) => index.ok_or(Error::Malformed),
            Err(error) if error.is(Errno::NODEV) => Err(Error::NoInterface(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let request = one(RTM_NEWLINK, 0, &ifinfomsg(index, IFF_UP, IFF_UP), |_| {});
        self.0.request(request, || format!("set interface {index} up"))
    }

    /// As `set_up`, of a link whose neighbours are all told of by hand: it answers no ARP, and learns nothing by it.
    pub fn set_up_without_arp(&mut self, index: u32) -> Result<(), Error> {
        let flags = IFF_UP | IFF_NOARP;
        let request = one(RTM_NEWLINK, 0, &ifinfomsg(index, flags, flags), |_| {});
        self.0.request(request, || format!("set interface {index} up without ARP"))
    }

    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        let request = one(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfomsg(0, 0, 0), |w| {
            w.put_str(IFLA_IFNAME, veth.name);
            w.put(IFLA_ADDRESS, &veth.mac);
            w.put_u32(IFLA_MTU, veth.mtu);
            w.nest(IFLA_LINKINFO, |w| {
                w.put_str(IFLA_INFO_KIND, "veth");
                w.nest(IFLA_INFO_DATA, |w| {
                    w.nest(VETH_INFO_PEER, |w| {
                        w.raw(&ifinfomsg(0, 0, 0));
                        w.put_str(IFLA_IFNAME, veth.peer_name);
                        w.put(IFLA_ADDRESS, &veth.peer_mac);
                        w.put_u32(IFLA_MTU, veth.mtu);
                        w.put_u32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
                    });
                });
            });
        });
        self.0.request(request, || format!("add veth {}", veth.name))
    }

    /// True where there was such a link.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Error> {
        let request = one(RTM_DELLINK, 0, &ifinfomsg(0, 0, 0), |w| w.put_str(IFLA_IFNAME, name));
        absent_is_false(self.0.request(request, || format!("delete link {name}")))
    }

    pub fn add_address(&mut self, address: Address) -> Result<(), Error> {
        let Address { interface, ip, prefix, .. } = address;
        let request = one(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &ifaddrmsg(address), |w| {
            w.put(IFA_LOCAL, &ip.octets());
            w.put(IFA_ADDRESS, &ip.octets());
        });
        self.0.request(request, || format!("add address {ip}/{prefix} to interface {interface}"))
    }

    /// True where there was such an address.
    pub fn delete_address(&mut self, address: Address) -> Result<bool, Error> {
        let request = one(RTM_DELADDR, 0, &ifaddrmsg(address), |w| w.put(IFA_LOCAL, &address.ip.octets()));
        absent_is_false(self.0.request(request, || format!("delete address {}/{}", address.ip, address.prefix)))
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = one(RTM_GETADDR, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], |_| {});
        self.0.dump(&request, "list addresses", |found, payload| {
            let interface = message::ne_u32(payload.get(4..8)?)?;
            let attributes = payload.get(8..)?;
            let local = message::attribute(attributes, IFA_LOCAL).or(message::attribute(attributes, IFA_ADDRESS));
            let ip = ipv4(local?)?;
            found.push(Address { interface, ip, prefix: payload[1], scope: payload[3] });
            Some(())
        })
    }

    /// Adds the route, or puts it in the place of one with the same destination.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let request = route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);
        self.0.request(request, || format!("add route to {}/{}", route.destination, route.prefix))
    }

    /// True where there was such a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, Error> {
        let request = route_message(RTM_DELROUTE, 0, route);
        absent_is_false(self.0.request(request, || format!("delete route to {}/{}", route.destination, route.prefix)))
    }

    /// The routes of the main table that `protocol` made.
    pub fn routes(&mut self, protocol: u8) -> Result<Vec<Route>, Error> {
        let mut header = [0; 12];
        header[0] = AF_INET;
        let request = one(RTM_GETROUTE, 0, &header, |_| {});
        self.0.dump(&request, "list routes", |found, payload| {
            let attributes = payload.get(12..)?;
            let (prefix, table, made_by, scope, kind) = (payload[1], payload[4], payload[5], payload[6], payload[7]);
            if table != RT_TABLE_MAIN || made_by != protocol || kind != RTN_UNICAST {
                return Some(());
            }
            let scope = match scope {
                0 => Scope::Universe,
                253 => Scope::Link,
                _ => Scope::Host,
            };
            let address = |kind| message::attribute(attributes, kind).and_then(ipv4);
            found.push(Route {
                destination: address(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED),
                prefix,
                gateway: address(RTA_GATEWAY),
                interface: message::attribute(attributes, RTA_OIF).and_then(message::ne_u32).unwrap_or(0),
                scope,
                source: address(RTA_PREFSRC),
                protocol,
            });
            Some(())
        })
    }

    /// A neighbour entry that no ARP reply can change.
    pub fn add_permanent_neighbour(&mut self, interface: u32, ip: Ipv4Addr, mac: [u8; 6]) -> Result<(), Error> {
        let mut header = [0; 12];
        header[0] = AF_INET;
        header[4..8].copy_from_slice(&interface.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let request = one(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header, |w| {
            w.put(NDA_DST, &ip.octets());
            w.put(NDA_LLADDR, &mac);
        });
        self.0.request(request, || format!("add neighbour {ip} to interface {interface}"))
    }
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn ifaddrmsg(address: Address) -> [u8; 8] {
    let mut header = [AF_INET, address.prefix, 0, address.scope, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&address.interface.to_ne_bytes());
    header
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Writer {
    let header =
        [AF_INET, route.prefix, 0, 0, RT_TABLE_MAIN, route.protocol, route.scope as u8, RTN_UNICAST, 0, 0, 0, 0];
    one(kind, flags, &header, |w| {
        w.put(RTA_DST, &route.destination.octets());
        if route.interface != 0 {
            w.put_u32(RTA_OIF, route.interface);
        }
        if let Some(gateway) = route.gateway {
            w.put(RTA_GATEWAY, &gateway.octets());
        }
        if let Some(source) = route.source {
            w.put(RTA_PREFSRC, &source.octets());
        }
    })
}

fn absent_is_false(answer: Result<(), Error>) -> Result<bool, Error> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if [Errno::NODEV, Errno::SRCH, Errno::ADDRNOTAVAIL].iter().any(|e| error.is(*e)) => Ok(false),
        Err(error) => Err(error),
    }
}
