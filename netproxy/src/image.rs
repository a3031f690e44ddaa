//! What the table `gantry` holds, by set: read from the kernel at the start, kept in step with every commit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::Protocol;

/// How many endpoints a service has, in each of the three ways in which it can be reached. Each kind has one set and one
/// chain for each count that ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PickKind {
    /// By cluster IP.
    Service,
    /// By a port of the node.
    NodePort,
    /// By a port of the node, from outside the cluster, with `externalTrafficPolicy: Local`.
    NodePortLocal,
}

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetId {
    /// { ip . protocol . port } or { protocol . port }: what leads to exactly so many endpoints. None: refused.
    Pick(PickKind, u32),
    /// { … . index : endpoint ip . port }.
    Endpoints(PickKind),
    /// { ip . protocol . port }: local endpoints are asked for, and there are none: dropped, not refused.
    ServicesDropped,
    /// { ip . protocol . port }: clients stay with their endpoint for so many seconds.
    Sticky(u32),
    /// { protocol . port }.
    StickyNodePorts(u32),
    /// { protocol . port }: clients come under the node's address.
    NodePortsMasqueraded,
    /// { ip . ip }: endpoints on this node, which may reach themselves.
    Hairpin,
}

impl PickKind {
    pub const ALL: [PickKind; 3] = [PickKind::Service, PickKind::NodePort, PickKind::NodePortLocal];

    /// What the names of its sets and chains begin with.
    pub fn stem(self) -> &'static str {
        match self {
            PickKind::Service => "services",
            PickKind::NodePort => "nodeports",
            PickKind::NodePortLocal => "nodeports-local",
        }
    }

    /// The length of the key before the index.
    pub fn key_bytes(self) -> usize {
        match self {
            PickKind::Service => 12,
            PickKind::NodePort | PickKind::NodePortLocal => 8,
        }
    }
}

impl SetId {
    pub fn name(self) -> String {
        match self {
            SetId::Pick(kind, count) => format!("{}-{count}", kind.stem()),
            SetId::Endpoints(kind) => format!("{}-endpoints", kind.stem()),
            SetId::ServicesDropped => "services-dropped".to_owned(),
            SetId::Sticky(seconds) => format!("sticky-{seconds}"),
            SetId::StickyNodePorts(seconds) => format!("sticky-nodeports-{seconds}"),
            SetId::NodePortsMasqueraded => "nodeports-masqueraded".to_owned(),
            SetId::Hairpin => "hairpin".to_owned(),
        }
    }

    pub fn parse(name: &str) -> Option<SetId> {
        let numbered = |stem: &str| name.strip_prefix(stem)?.strip_prefix('-')?.parse::<u32>().ok();
        let fixed = [SetId::ServicesDropped, SetId::NodePortsMasqueraded, SetId::Hairpin];
        let endpoints = PickKind::ALL.map(SetId::Endpoints);
        if let Some(id) = fixed.into_iter().chain(endpoints).find(|id| id.name() == name) {
            return Some(id);
        }
        let picks = || PickKind::ALL.into_iter().find_map(|kind| Some(SetId::Pick(kind, numbered(kind.stem())?)));
        picks()
            .or_else(|| numbered("sticky").map(SetId::Sticky))
            .or_else(|| numbered("sticky-nodeports").map(SetId::StickyNodePorts))
    }

    /// Sets that are made when first needed; the others stand from the beginning.
    pub fn is_on_demand(self) -> bool {
        match self {
            SetId::Pick(_, count) => count > 0,
            SetId::Sticky(_) | SetId::StickyNodePorts(_) => true,
            SetId::Endpoints(_) | SetId::ServicesDropped | SetId::NodePortsMasqueraded | SetId::Hairpin => false,
        }
    }
}

/// `ip . protocol . port` as the kernel keys it: every field padded to four bytes.
pub fn vip_key(ip: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [ip.octets().as_slice(), &port_key(protocol, port)].concat()
}

/// `protocol . port`.
pub fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// A key with an index behind it. The index is a number of the host's order: a register of numgen's.
pub fn indexed(key: &[u8], index: u32) -> Vec<u8> {
    [key, &index.to_ne_bytes()].concat()
}

/// `ip . port` as a map's data.
pub fn endpoint_data(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [ip.octets(), [high, low, 0, 0]].concat()
}

pub fn parse_endpoint(data: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let ip = Ipv4Addr::from(*data.first_chunk::<4>()?);
    Some((ip, u16::from_be_bytes(data.get(4..6)?.try_into().ok()?)))
}

pub type Elements = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    sets: BTreeMap<SetId, Elements>,
    /// The sets that are there (with their chains and rules), be they empty.
    present: BTreeSet<SetId>,
}

impl Image {
    pub fn get(&self, set: SetId, key: &[u8]) -> Option<&Vec<u8>> {
        self.sets.get(&set)?.get(key)
    }

    pub fn contains(&self, set: SetId, key: &[u8]) -> bool {
        self.get(set, key).is_some()
    }

    pub fn elements(&self, set: SetId) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.sets.get(&set).into_iter().flatten()
    }

    pub fn sets(&self) -> impl Iterator<Item = (SetId, &Elements)> {
        self.sets.iter().map(|(id, elements)| (*id, elements))
    }

    pub fn insert(&mut self, set: SetId, key: Vec<u8>, data: Vec<u8>) {
        self.sets.entry(set).or_default().insert(key, data);
    }

    pub fn remove(&mut self, set: SetId, key: &[u8]) {
        if let Some(elements) = self.sets.get_mut(&set) {
            elements.remove(key);
            // As the kernel tells it: a set without elements has none to list.
            if elements.is_empty() {
                self.sets.remove(&set);
            }
        }
    }

    pub fn is_present(&self, set: SetId) -> bool {
        !set.is_on_demand() || self.present.contains(&set)
    }

    pub fn set_present(&mut self, set: SetId) {
        self.present.insert(set);
    }

    /// The sets made on demand, in the order in which their rules stand.
    pub fn on_demand(&self) -> impl Iterator<Item = SetId> {
        self.present.iter().copied()
    }

    /// The endpoints behind a key, by index.
    pub fn endpoints(&self, kind: PickKind, key: &[u8]) -> Vec<Vec<u8>> {
        let elements = self.sets.get(&SetId::Endpoints(kind));
        let find = |index| elements?.get(&indexed(key, index)).cloned();
        (0..).map_while(find).collect()
    }

    /// Whether a flow to this key may go to that endpoint.
    pub fn leads_to(&self, kind: PickKind, key: &[u8], endpoint: &[u8]) -> bool {
        self.endpoints(kind, key).iter().any(|data| data == endpoint)
    }

    /// How many endpoints the key leads to; `None` where it leads nowhere.
    pub fn count(&self, kind: PickKind, key: &[u8]) -> Option<u32> {
        self.sets.iter().find_map(|(id, elements)| match id {
            SetId::Pick(of, count) if *of == kind && elements.contains_key(key) => Some(*count),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_and_taken_out_was_never_there() {
        let (set, key) = (SetId::ServicesDropped, vec![1]);
        let mut image = Image::default();
        image.insert(set, key.clone(), Vec::new());
        image.remove(set, &key);
        assert_eq!(image, Image::default());
    }

    #[test]
    fn names_lead_back_to_sets() {
        let mut all = vec![
            SetId::ServicesDropped,
            SetId::Sticky(10_800),
            SetId::StickyNodePorts(60),
            SetId::NodePortsMasqueraded,
            SetId::Hairpin,
        ];
        for kind in PickKind::ALL {
            all.extend([SetId::Pick(kind, 0), SetId::Pick(kind, 17), SetId::Endpoints(kind)]);
        }
        for id in all {
            assert_eq!(SetId::parse(&id.name()), Some(id), "{}", id.name());
            assert!(id.name().len() < 32);
        }
        assert_eq!(SetId::parse("services-x"), None);
        assert_eq!(SetId::parse("affinity"), None);
    }
}
