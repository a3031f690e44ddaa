//! Which address a sandbox gets, and whether its host ports are free. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{ById, HostPort};

/// The first free address after `last`, round and round. The network's own address, the one after it (where other
/// tools expect a gateway) and the broadcast address are nobody's.
pub(super) fn next_address(cidr: Ipv4Net, used: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(cidr.network()).checked_add(2)?;
    let end = u32::from(cidr.broadcast());
    if first >= end {
        return None;
    }
    let start = last.map(|ip| u32::from(ip).saturating_add(1)).filter(|at| (first..end).contains(at)).unwrap_or(first);
    (start..end).chain(first..start).map(Ipv4Addr::from).find(|ip| !used.contains(ip))
}

/// The first port that another sandbox holds, or that is asked for twice, with its holder.
pub(super) fn port_conflict(sandbox: &str, ports: &[HostPort], taken: &ById) -> Option<(HostPort, String)> {
    let others = taken.iter().filter(|(id, _)| *id != sandbox).flat_map(|(id, r)| r.ports.iter().map(move |p| (id, p)));
    let others: Vec<_> = others.collect();
    ports.iter().enumerate().find_map(|(i, port)| {
        if ports[..i].iter().any(|earlier| overlap(earlier, port)) {
            return Some((port.clone(), sandbox.to_owned()));
        }
        let (owner, _) = others.iter().find(|(_, other)| overlap(other, port))?;
        Some((port.clone(), (*owner).clone()))
    })
}

/// A port of any address collides with the same port of every address.
fn overlap(a: &HostPort, b: &HostPort) -> bool {
    a.protocol == b.protocol
        && a.host_port == b.host_port
        && (a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip)
}
