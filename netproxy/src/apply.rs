//! The kernel's side: reads the table back, sends plans, ends what the rules no longer back.

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_netlink::Error;
use gantry_netlink::conntrack::Conntrack;
use gantry_netlink::nft::{Batch, Element, Nft};
use gantry_netlink::route::{Address, Route, Routes, Scope};
use ipnet::Ipv4Net;

use crate::image::{Image, SetId};
use crate::plan::{Place, Plan, Step};
use crate::ruleset::{self, AFFINITY, Cluster, TABLE};

mod stale;

pub use stale::{affinity_is_stale, flow_is_stale};

/// rtnetlink's number for who made a route; how we find ours again.
const ROUTE_PROTOCOL: u8 = 0x68;
const LOOPBACK_INDEX: u32 = 1;
/// An address of this scope is never chosen as the source of anything that leaves the node.
const SCOPE_HOST: u8 = 254;

/// Why the kernel could not be brought to what was planned.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("table gantry")]
    Table(#[source] Error),
    #[error("routes of the services")]
    Routes(#[source] Error),
    #[error("flows of the services")]
    Flows(#[source] Error),
}

/// The table `gantry`, and the routes and flows around it.
#[derive(Debug)]
pub struct Kernel {
    nft: Nft,
    cluster: Cluster,
}

impl Kernel {
    /// Belongs to the network namespace of the calling thread.
    pub fn open(cluster: Cluster) -> Result<Kernel, ApplyError> {
        Ok(Kernel { nft: Nft::open().map_err(ApplyError::Table)?, cluster })
    }

    /// What the table holds; `None` where there is none with exactly our rules.
    pub fn read(&mut self) -> Result<Option<Image>, ApplyError> {
        self.read_table().map_err(ApplyError::Table)
    }

    fn read_table(&mut self) -> Result<Option<Image>, Error> {
        if self.nft.table_comment(TABLE)?.as_deref() != Some(&ruleset::comment(&self.cluster)) {
            return Ok(None);
        }
        let mut image = Image::default();
        for name in self.nft.sets(TABLE)? {
            let Some(id) = SetId::parse(&name) else { continue };
            if id.is_on_demand() {
                image.set_present(id);
            }
            for Element { key, data, .. } in self.nft.elements(TABLE, &name)? {
                image.insert(id, key, data);
            }
        }
        Ok(self.has_all_rules(&image)?.then_some(image))
    }

    fn has_all_rules(&mut self, image: &Image) -> Result<bool, Error> {
        Ok(self.nft.rules(TABLE)?.len() == ruleset::rule_count(&self.cluster, image.on_demand()))
    }

    /// Whether the table still has all its rules. What its sets hold is for [`Kernel::read`].
    pub fn stands(&mut self, image: &Image) -> Result<bool, ApplyError> {
        let comment = self.nft.table_comment(TABLE).map_err(ApplyError::Table)?;
        if comment.as_deref() != Some(&ruleset::comment(&self.cluster)) {
            return Ok(false);
        }
        self.has_all_rules(image).map_err(ApplyError::Table)
    }

    /// Counts the commits in this network namespace, whoever made them.
    pub fn generation(&mut self) -> Result<u32, ApplyError> {
        self.nft.generation().map_err(ApplyError::Table)
    }

    /// Makes the table anew with what the plan (from nothing) brings: one commit, so no packet sees less than all of it.
    pub fn rebuild(&mut self, plan: &Plan) -> Result<Image, ApplyError> {
        let mut batch = Batch::new(TABLE);
        ruleset::create(&mut batch, &self.cluster);
        arrive(&mut batch, plan);
        self.nft.commit(batch).map_err(ApplyError::Table)?;
        let mut image = Image::default();
        plan.done(Step::Arrive, &mut image);
        Ok(image)
    }

    /// Carries the plan out; `image` follows each commit.
    pub fn apply(&mut self, plan: &Plan, image: &mut Image) -> Result<(), ApplyError> {
        for step in Step::ALL.into_iter().filter(|step| plan.has(*step)) {
            let mut batch = Batch::new(TABLE);
            match step {
                Step::Arrive => arrive(&mut batch, plan),
                Step::Depart => delete(&mut batch, &plan.depart),
                Step::Forget => delete(&mut batch, &plan.forget),
            }
            self.nft.commit(batch).map_err(ApplyError::Table)?;
            plan.done(step, image);
        }
        Ok(())
    }

    /// Ends the bonds of clients to endpoints that are none any more. From what the map holds, never from what changed.
    pub fn forget_affinity(&mut self, image: &Image) -> Result<usize, ApplyError> {
        let bonds = self.nft.elements(TABLE, AFFINITY).map_err(ApplyError::Table)?;
        let stale: Vec<Element> = bonds.into_iter().filter(|b| affinity_is_stale(&b.key, &b.data, image)).collect();
        let mut ended = 0;
        // One commit each: any of them may end by itself while we look.
        for bond in stale {
            let mut batch = Batch::new(TABLE);
            batch.delete_elements(AFFINITY, &[bond]);
            match self.nft.commit(batch) {
                Ok(()) => ended += 1,
                Err(error) if error.is(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(ApplyError::Table(error)),
            }
        }
        Ok(ended)
    }

    /// Ends UDP flows that conntrack would go on leading to where no rule leads any more. From what conntrack holds.
    pub fn forget_flows(&self, image: &Image) -> Result<usize, ApplyError> {
        let flows = || -> Result<usize, Error> {
            let mut conntrack = Conntrack::open()?;
            let stale = conntrack.flows(|flow| flow_is_stale(flow, image, &self.cluster))?;
            let mut ended = 0;
            for flow in &stale {
                ended += usize::from(conntrack.delete(flow)?);
            }
            Ok(ended)
        };
        flows().map_err(ApplyError::Flows)
    }

    /// What this node itself needs to reach services: a route (a packet must have one before it is translated), and the
    /// address on which DNS answers.
    pub fn ensure_routes(&self) -> Result<(), ApplyError> {
        let ensure = || -> Result<(), Error> {
            let mut routes = Routes::open()?;
            routes.set_up(LOOPBACK_INDEX)?;
            if let Some((_, listener)) = self.cluster.dns {
                routes.add_address(dns_address(listener))?;
            }
            let wanted = service_route(self.cluster.services);
            for old in routes.routes(ROUTE_PROTOCOL)? {
                if (old.destination, old.prefix) != (wanted.destination, wanted.prefix) {
                    routes.delete_route(&old)?;
                }
            }
            routes.add_route(&wanted)
        };
        ensure().map_err(ApplyError::Routes)
    }

    /// Removes the table, the route and the address.
    pub fn cleanup(&mut self) -> Result<(), ApplyError> {
        self.nft.delete_table(TABLE).map_err(ApplyError::Table)?;
        let remove = || -> Result<(), Error> {
            let mut routes = Routes::open()?;
            for route in routes.routes(ROUTE_PROTOCOL)? {
                routes.delete_route(&route)?;
            }
            if let Some((_, listener)) = self.cluster.dns {
                routes.delete_address(dns_address(listener))?;
            }
            Ok(())
        };
        remove().map_err(ApplyError::Routes)
    }
}

fn dns_address(listener: SocketAddrV4) -> Address {
    Address { interface: LOOPBACK_INDEX, ip: *listener.ip(), prefix: 32, scope: SCOPE_HOST }
}

/// On loopback, where a packet that was not translated goes nowhere.
fn service_route(services: Ipv4Net) -> Route {
    Route {
        destination: services.network(),
        prefix: services.prefix_len(),
        gateway: None::<Ipv4Addr>,
        interface: LOOPBACK_INDEX,
        scope: Scope::Link,
        source: None,
        protocol: ROUTE_PROTOCOL,
    }
}

fn arrive(batch: &mut Batch, plan: &Plan) {
    for set in &plan.make {
        ruleset::add_on_demand(batch, *set);
    }
    let replaced: Vec<Place> = plan.arrive.iter().filter(|a| a.replaces).map(|a| a.place.clone()).collect();
    delete(batch, &replaced);
    by_set(plan.arrive.iter().map(|arrival| (&arrival.place, arrival.data.clone())), |set, elements| {
        batch.add_elements(set, elements);
    });
}

fn delete(batch: &mut Batch, places: &[Place]) {
    by_set(places.iter().map(|place| (place, Vec::new())), |set, elements| batch.delete_elements(set, elements));
}

/// Hands the elements over set by set; places come sorted by set.
fn by_set<'a>(places: impl Iterator<Item = (&'a Place, Vec<u8>)>, mut each: impl FnMut(&str, &[Element])) {
    let mut open: Option<(SetId, Vec<Element>)> = None;
    for ((set, key), data) in places {
        if let Some((id, elements)) = &open
            && id != set
        {
            each(&id.name(), elements);
            open = None;
        }
        open.get_or_insert_with(|| (*set, Vec::new())).1.push(Element::map(key.clone(), data));
    }
    if let Some((id, elements)) = open {
        each(&id.name(), &elements);
    }
}
