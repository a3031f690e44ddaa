//! Which elements the table should hold, and in which order to change it. Pure.
//!
//! A plan has three commits, and between any two of them every service still answers:
//!
//! 1. *arrive*: endpoints, under indexes that nobody reads yet or in the place of those that are gone; then the sets that
//!    lead to them. A service that changes its number of endpoints is now in two sets, and either is right;
//! 2. *depart*: out of the sets that no longer apply;
//! 3. *forget*: the endpoints that no set leads to any more. A packet that read its N before commit 2 finds its index until
//!    here, and a `drop` after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_kube::Ref;

use crate::image::{Image, PickKind, SetId, endpoint_data, indexed, port_key, vip_key};
use crate::model::{Service, ServicePort, Slice, SliceEndpoint};

#[cfg(test)]
mod tests;

/// An element's place: which set, which key.
pub type Place = (SetId, Vec<u8>);

/// What one service asks for. Data is empty in sets.
pub type Compiled = BTreeMap<Place, Vec<u8>>;

/// What some places should hold; `None`: nothing.
pub type Wanted = BTreeMap<Place, Option<Vec<u8>>>;

/// The change from one image to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sets (with chains and rules) to be made first.
    pub make: Vec<SetId>,
    /// Elements to add; those marked are there with other data, and are replaced in the same commit.
    pub arrive: Vec<Arrival>,
    pub depart: Vec<Place>,
    pub forget: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub place: Place,
    pub data: Vec<u8>,
    pub replaces: bool,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.make.is_empty() && self.arrive.is_empty() && self.depart.is_empty() && self.forget.is_empty()
    }
}

/// The chosen endpoints of one port: everywhere, and on this node.
struct Chosen {
    all: BTreeSet<Vec<u8>>,
    local: BTreeSet<Vec<u8>>,
    local_ips: BTreeSet<Ipv4Addr>,
}

/// Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669).
fn usable<'a>(candidates: &[(&'a SliceEndpoint, u16)]) -> Vec<(&'a SliceEndpoint, u16)> {
    let ready: Vec<_> = candidates.iter().filter(|(e, _)| e.ready).copied().collect();
    if ready.is_empty() {
        candidates.iter().filter(|(e, _)| e.serving && e.terminating).copied().collect()
    } else {
        ready
    }
}

fn choose(port: &ServicePort, slices: &[Arc<Slice>], node: &str) -> Chosen {
    let mut candidates = Vec::new();
    for slice in slices {
        let target = slice.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol);
        if let Some(target) = target {
            candidates.extend(slice.endpoints.iter().map(|endpoint| (endpoint, target.port)));
        }
    }
    let here: Vec<_> = candidates.iter().filter(|(e, _)| e.node == node).copied().collect();
    let data = |chosen: &[(&SliceEndpoint, u16)]| chosen.iter().map(|(e, port)| endpoint_data(e.ip, *port)).collect();
    Chosen {
        all: data(&usable(&candidates)),
        local: data(&usable(&here)),
        local_ips: here.iter().map(|(e, _)| e.ip).collect(),
    }
}

/// Gives every endpoint an index below their number. Those that have one keep it if they can, so that a change of
/// endpoints is a change of few elements.
fn assign(before: &[Vec<u8>], mut wanted: BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
    let kept: Vec<Option<Vec<u8>>> = (0..wanted.len()).map(|i| wanted.take(before.get(i)?)).collect();
    let mut rest = wanted.into_iter();
    kept.into_iter().filter_map(|endpoint| endpoint.or_else(|| rest.next())).collect()
}

/// Leads a key to these endpoints.
fn lead(compiled: &mut Compiled, image: &Image, kind: PickKind, key: &[u8], endpoints: &BTreeSet<Vec<u8>>) {
    let list = assign(&image.endpoints(kind, key), endpoints.clone());
    compiled.insert((SetId::Pick(kind, list.len() as u32), key.to_vec()), Vec::new());
    for (index, endpoint) in list.into_iter().enumerate() {
        compiled.insert((SetId::Endpoints(kind), indexed(key, index as u32)), endpoint);
    }
}

/// What a service asks for, given what the table holds now (which decides only who keeps which index).
///
/// `spec.externalIPs` are not looked at: they let whoever may write a Service take the traffic of any address
/// (CVE-2020-8554).
pub fn compile(service: &Service, slices: &[Arc<Slice>], node: &str, image: &Image) -> Compiled {
    let mut compiled = Compiled::new();
    let Some(ip) = service.cluster_ip else { return compiled };
    for port in &service.ports {
        let chosen = choose(port, slices, node);
        for ip in &chosen.local_ips {
            compiled.insert((SetId::Hairpin, [ip.octets(), ip.octets()].concat()), Vec::new());
        }
        let key = vip_key(ip, port.protocol, port.port);
        let endpoints = if service.internal_local { &chosen.local } else { &chosen.all };
        if endpoints.is_empty() && !chosen.all.is_empty() {
            compiled.insert((SetId::ServicesDropped, key.clone()), Vec::new());
        } else {
            lead(&mut compiled, image, PickKind::Service, &key, endpoints);
        }
        if let Some(seconds) = service.affinity_seconds {
            compiled.insert((SetId::Sticky(seconds), key), Vec::new());
        }
        let Some(node_port) = port.node_port else { continue };
        let key = port_key(port.protocol, node_port);
        lead(&mut compiled, image, PickKind::NodePort, &key, &chosen.all);
        if service.external_local {
            lead(&mut compiled, image, PickKind::NodePortLocal, &key, &chosen.local);
        } else {
            compiled.insert((SetId::NodePortsMasqueraded, key.clone()), Vec::new());
        }
        if let Some(seconds) = service.affinity_seconds {
            compiled.insert((SetId::StickyNodePorts(seconds), key), Vec::new());
        }
    }
    compiled
}

/// What every service asks for. Some places are asked for by several (the hairpin set), so they are counted.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_service: BTreeMap<Ref, Compiled>,
    counts: BTreeMap<Place, u32>,
}

impl Claims {
    /// Puts a service's claims in the place of its earlier ones; adds to `wanted` what that changes.
    pub fn replace(&mut self, at: &Ref, now: Compiled, wanted: &mut Wanted) {
        let before = self.by_service.remove(at).unwrap_or_default();
        for place in now.keys() {
            *self.counts.entry(place.clone()).or_default() += 1;
        }
        for place in before.into_keys() {
            let Some(count) = self.counts.get_mut(&place) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place);
                wanted.insert(place, None);
            }
        }
        wanted.extend(now.iter().map(|(place, data)| (place.clone(), Some(data.clone()))));
        if !now.is_empty() {
            self.by_service.insert(at.clone(), now);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_service.is_empty()
    }

    /// Who claims anything.
    pub fn services(&self) -> impl Iterator<Item = &Ref> {
        self.by_service.keys()
    }

    /// Everything that is asked for, and nothing else of what the table holds.
    pub fn wanted(&self, image: &Image) -> Wanted {
        let mut wanted = Wanted::new();
        for (set, elements) in image.sets() {
            wanted.extend(elements.keys().map(|key| ((set, key.clone()), None)));
        }
        for compiled in self.by_service.values() {
            wanted.extend(compiled.iter().map(|(place, data)| (place.clone(), Some(data.clone()))));
        }
        wanted
    }
}

/// The way from what the table holds to what it should hold.
pub fn plan(image: &Image, wanted: &Wanted) -> Plan {
    let mut plan = Plan::default();
    let mut make = BTreeSet::new();
    for (place, data) in wanted {
        let (set, key) = place;
        match (image.get(*set, key), data) {
            (None, None) => {}
            (Some(now), Some(data)) if now == data => {}
            (now, Some(data)) => {
                if !image.is_present(*set) {
                    make.insert(*set);
                }
                plan.arrive.push(Arrival { place: place.clone(), data: data.clone(), replaces: now.is_some() });
            }
            (Some(_), None) => match set {
                SetId::Endpoints(_) => plan.forget.push(place.clone()),
                _ => plan.depart.push(place.clone()),
            },
        }
    }
    plan.make = make.into_iter().collect();
    plan
}

/// One of a plan's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Arrive,
    Depart,
    Forget,
}

impl Step {
    pub const ALL: [Step; 3] = [Step::Arrive, Step::Depart, Step::Forget];
}

impl Plan {
    pub fn has(&self, step: Step) -> bool {
        match step {
            Step::Arrive => !self.make.is_empty() || !self.arrive.is_empty(),
            Step::Depart => !self.depart.is_empty(),
            Step::Forget => !self.forget.is_empty(),
        }
    }

    /// What the table holds once this commit is done.
    pub fn done(&self, step: Step, image: &mut Image) {
        let gone = match step {
            Step::Arrive => {
                self.make.iter().for_each(|set| image.set_present(*set));
                for Arrival { place: (set, key), data, .. } in &self.arrive {
                    image.insert(*set, key.clone(), data.clone());
                }
                return;
            }
            Step::Depart => &self.depart,
            Step::Forget => &self.forget,
        };
        for (set, key) in gone {
            image.remove(*set, key);
        }
    }

    /// Whether UDP flows may now lead to where they should not: an endpoint or a service came or went.
    pub fn touches_udp(&self) -> bool {
        let udp = |(set, key): &Place| match set {
            SetId::Pick(kind, _) | SetId::Endpoints(kind) => key.get(kind.key_bytes() - 8) == Some(&17),
            SetId::ServicesDropped => key.get(4) == Some(&17),
            _ => false,
        };
        let gone = self.depart.iter().chain(&self.forget);
        self.arrive.iter().map(|arrival| &arrival.place).chain(gone).any(udp)
    }

    /// Whether endpoints went that a client may be bound to.
    pub fn touches_affinity(&self) -> bool {
        self.arrive.iter().any(|arrival| arrival.replaces)
            || !self.forget.is_empty()
            || self.depart.iter().any(|(set, _)| matches!(set, SetId::Sticky(_) | SetId::StickyNodePorts(_)))
    }
}
