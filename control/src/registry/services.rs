//! What a Service owns beside itself: its cluster address (an IPAddress object) and its node ports. They are taken in
//! the same write as the Service, so that an address has one owner at any moment and none outlives its owner.

mod repair;

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_kube::resource::{IP_ADDRESS, SERVICE};
use gantry_kube::{FieldError, Object, Ref, Resource, Status};
use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use super::create::write_status;
use super::strategy::{wants_cluster_ip, wants_node_ports};
use super::{Registry, update::SWAP_TRIES};
use crate::store::cache::{Change, Stored, WriteError};

pub const NODE_PORT_FIRST: i64 = 30_000;
pub const NODE_PORT_LAST: i64 = 32_767;
/// Addresses are drawn at random this often before they are tried in order.
const RANDOM_DRAWS: usize = 64;
/// Addresses at the start of the range that are only given out when asked for by name.
const STATIC_BAND_MAX: u32 = 256;

/// All node ports with their owners stand in one object, because a write takes one key of a kind.
static NODE_PORTS: Resource = Resource {
    group: "internal.gantry",
    version: "v1",
    kind: "NodePorts",
    plural: "nodeports",
    singular: "nodeports",
    namespaced: false,
    short_names: &[],
    categories: &[],
    virtual_only: false,
    custom: false,
};
const NODE_PORTS_NAME: &str = "all";
/// Which IPAddress objects are the allocator's own.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";

/// The range of cluster addresses.
#[derive(Clone, Debug)]
pub struct ServiceAllocator {
    range: Ipv4Net,
    /// Who has lost a draw draws again when it is their turn: all node ports are one object, and of many who write it at
    /// once only one wins.
    turns: Arc<tokio::sync::Mutex<()>>,
}

/// What became of a Service's write.
pub(super) enum Written {
    Stored(Arc<Stored>),
    Dry(Object),
    /// The Service itself was changed meanwhile.
    Newer(Arc<Stored>),
}

/// A Service with what it is given, and the changes of other kinds that go with it.
struct Allocation {
    service: Object,
    changes: Vec<Change>,
}

impl ServiceAllocator {
    pub fn new(range: Ipv4Net) -> ServiceAllocator {
        ServiceAllocator { range, turns: Arc::default() }
    }

    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns.lock().await
    }

    fn usable(&self) -> u32 {
        let bits = 32 - u32::from(self.range.prefix_len());
        2_u32.checked_pow(bits).map_or(u32::MAX - 1, |size| size.saturating_sub(2))
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 1 + offset)
    }

    fn free_address(&self, registry: &Registry) -> Option<Ipv4Addr> {
        let size = self.usable();
        let band = (size / 16).clamp(16.min(size / 2), STATIC_BAND_MAX);
        let is_free = |ip: &Ipv4Addr| registry.cache.get(&IP_ADDRESS, &Ref::cluster(ip.to_string())).is_none();
        let open = size.saturating_sub(band);
        let drawn = (0..RANDOM_DRAWS)
            .map(|_| self.address(band + registry.env.rng.below(u64::from(open)) as u32))
            .find(is_free);
        drawn.or_else(|| (band..size).chain(0..band).map(|offset| self.address(offset)).find(is_free))
    }

    fn allocate(&self, registry: &Registry, mut service: Object, old: Option<&Object>) -> Result<Allocation, Status> {
        let mut changes = Vec::new();
        let before = old.map(owned_address).unwrap_or_default();
        if wants_cluster_ip(&service) {
            let asked = service.str_at("/spec/clusterIP").to_owned();
            if asked.is_empty() || asked != before {
                let ip = if asked.is_empty() {
                    let full = || Status::internal("failed to allocate a serviceIP: range is full");
                    self.free_address(registry).ok_or_else(full)?
                } else {
                    self.check_asked(registry, &service, &asked)?
                };
                let text = ip.to_string();
                let spec = service.map_mut("spec");
                spec.insert("clusterIPs".to_owned(), json!([text]));
                spec.insert("clusterIP".to_owned(), json!(text));
                let claim = claim(registry, &service.reference(), &text);
                changes.push(claim.map_err(|error| write_status(&error, &IP_ADDRESS, &text))?);
            }
        } else if !before.is_empty() {
            changes.extend(release_address(registry, &service.reference(), &before));
        }
        changes.extend(allocate_ports(registry, &mut service, old)?);
        Ok(Allocation { service, changes })
    }

    fn check_asked(&self, registry: &Registry, service: &Object, asked: &str) -> Result<Ipv4Addr, Status> {
        let refuse = |why: String| {
            let error = FieldError::invalid("spec.clusterIPs", json!([asked]), why);
            Status::invalid(&SERVICE, service.name(), &[error])
        };
        let ip: Ipv4Addr =
            asked.parse().map_err(|_| refuse("must be a valid IP address, (e.g. 10.9.8.7)".to_owned()))?;
        if !self.range.contains(&ip) || ip == self.range.network() || ip == self.range.broadcast() {
            let range = self.range;
            return Err(refuse(format!(
                "failed to allocate IP {ip}: the provided IP is not in the valid range. The range of valid IPs is {range}"
            )));
        }
        if registry.cache.get(&IP_ADDRESS, &Ref::cluster(asked)).is_some() {
            return Err(refuse(format!("failed to allocate IP {ip}: provided IP is already allocated")));
        }
        Ok(ip)
    }

    /// The changes that give back what a Service owned.
    pub(super) fn release(&self, registry: &Registry, service: &Object) -> Result<Vec<Change>, WriteError> {
        let mut changes: Vec<Change> =
            release_address(registry, &service.reference(), &owned_address(service)).into_iter().collect();
        changes.extend(NodePorts::read(registry).edit(|ports| ports.retain(|_, owner| *owner != owner_of(service)))?);
        Ok(changes)
    }
}

impl Registry {
    /// Stores a Service together with what it is given. An address or port that another Service takes first is drawn
    /// again.
    pub(super) async fn write_service(
        &self,
        at: &Ref,
        current: Option<&Arc<Stored>>,
        service: &Object,
        dry_run: bool,
    ) -> Result<Written, Status> {
        let old = current.map(|stored| stored.object());
        let mut lost = None;
        let mut turn = None;
        for _ in 0..SWAP_TRIES {
            let allocation = self.services.allocate(self, service.clone(), old.as_deref())?;
            if dry_run {
                return Ok(Written::Dry(allocation.service));
            }
            let own = match current {
                Some(stored) => Change::update(&SERVICE, at, stored.revision(), &allocation.service),
                None => Change::create(&SERVICE, at, &allocation.service),
            };
            let mut changes = vec![own.map_err(|error| write_status(&error, &SERVICE, &at.name))?];
            changes.extend(allocation.changes);
            match self.cache.write(changes).await {
                Ok(mut written) => return Ok(Written::Stored(written.swap_remove(0))),
                Err(WriteError::Conflict { key, current: Some(newer) }) if key.kind() == "services" => {
                    return Ok(Written::Newer(newer));
                }
                Err(WriteError::Conflict { key, .. } | WriteError::Exists { key, .. }) if key.kind() != "services" => {
                    lost = Some(key);
                    if turn.is_none() {
                        turn = Some(self.services.turn().await);
                    }
                }
                Err(error) => return Err(write_status(&error, &SERVICE, &at.name)),
            }
        }
        tracing::warn!(service = %at, lost = ?lost, "a Service lost every draw of its address or port");
        Err(Status::stale(&SERVICE, &at.name))
    }
}

fn owner_of(service: &Object) -> String {
    service.reference().to_string()
}

/// The cluster address that a stored Service owns, or "".
fn owned_address(service: &Object) -> String {
    if wants_cluster_ip(service) { service.str_at("/spec/clusterIP").to_owned() } else { String::new() }
}

fn claim(registry: &Registry, service: &Ref, ip: &str) -> Result<Change, WriteError> {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": ip, "uid": registry.env.rng.uuid(), "creationTimestamp": registry.env.clock.now_rfc3339(),
            "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": service.namespace,
            "name": service.name}},
    });
    Change::create(&IP_ADDRESS, &Ref::cluster(ip), &Object::from_value(object).unwrap_or_default())
}

/// Gives an address back, if it is this Service's.
fn release_address(registry: &Registry, service: &Ref, ip: &str) -> Option<Change> {
    if ip.is_empty() {
        return None;
    }
    let at = Ref::cluster(ip);
    let stored = registry.cache.get(&IP_ADDRESS, &at)?;
    (repair::parent(&stored.object()) == *service).then(|| Change::delete(&IP_ADDRESS, &at, stored.revision()))
}

fn numbers(service: &Object) -> Vec<i64> {
    service.array_at("/spec/ports").iter().filter_map(|p| p["nodePort"].as_i64()).filter(|p| *p > 0).collect()
}

/// Gives a node port to each port that lacks one, and claims those that are asked for.
fn allocate_ports(registry: &Registry, service: &mut Object, old: Option<&Object>) -> Result<Option<Change>, Status> {
    let wanted = wants_node_ports(service);
    if !wanted && numbers(service).is_empty() && old.is_none_or(|o| numbers(o).is_empty()) {
        return Ok(None);
    }
    let owner = owner_of(service);
    let taken = NodePorts::read(registry);
    let is_free = |port: i64| taken.ports.get(&port.to_string()).is_none_or(|by| by.as_str() == Some(owner.as_str()));
    let name = service.name().to_owned();
    let mut claimed = numbers(service);
    for (i, port) in
        service.map_mut("spec").get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
    {
        let asked = port["nodePort"].as_i64().unwrap_or(0);
        if asked != 0 {
            check_port(&name, i, asked, is_free(asked))?;
        } else if wanted {
            let span = (NODE_PORT_LAST - NODE_PORT_FIRST + 1) as u64;
            let start = registry.env.rng.below(span) as i64;
            let free = (0..span as i64)
                .map(|step| NODE_PORT_FIRST + (start + step) % span as i64)
                .find(|p| is_free(*p) && !claimed.contains(p))
                .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
            claimed.push(free);
            port["nodePort"] = json!(free);
        }
    }
    let changed = taken.edit(|ports| {
        ports.retain(|_, by| by.as_str() != Some(owner.as_str()));
        ports.extend(claimed.iter().map(|port| (port.to_string(), json!(owner))));
    });
    changed.map_err(|error| write_status(&error, &SERVICE, &name))
}

fn check_port(name: &str, index: usize, port: i64, free: bool) -> Result<(), Status> {
    let refuse = |why: String| {
        let error = FieldError::invalid(format!("spec.ports[{index}].nodePort"), port, why);
        Err(Status::invalid(&SERVICE, name, &[error]))
    };
    if !(NODE_PORT_FIRST..=NODE_PORT_LAST).contains(&port) {
        return refuse(format!(
            "provided port is not in the valid range. The range of valid ports is {NODE_PORT_FIRST}-{NODE_PORT_LAST}"
        ));
    }
    if !free {
        return refuse("provided port is already allocated".to_owned());
    }
    Ok(())
}

/// The owners of all node ports. Read once for what is decided by it and for the write that comes of it: if another
/// write came between, this one fails and all is decided anew.
struct NodePorts {
    stored: Option<Arc<Stored>>,
    ports: Map<String, Value>,
}

impl NodePorts {
    fn read(registry: &Registry) -> NodePorts {
        let stored = registry.cache.get(&NODE_PORTS, &Ref::cluster(NODE_PORTS_NAME));
        let ports = stored.as_ref().and_then(|s| s.object().get("/ports").and_then(Value::as_object).cloned());
        NodePorts { stored, ports: ports.unwrap_or_default() }
    }

    /// The change that `edit` makes, if it makes one.
    fn edit(&self, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<Option<Change>, WriteError> {
        let mut after = self.ports.clone();
        edit(&mut after);
        if after == self.ports {
            return Ok(None);
        }
        let at = Ref::cluster(NODE_PORTS_NAME);
        let object = json!({"apiVersion": "internal.gantry/v1", "kind": "NodePorts",
            "metadata": {"name": NODE_PORTS_NAME}, "ports": after});
        let object = Object::from_value(object).unwrap_or_default();
        match &self.stored {
            Some(stored) => Change::update(&NODE_PORTS, &at, stored.revision(), &object).map(Some),
            None => Change::create(&NODE_PORTS, &at, &object).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_leaves_out_network_and_broadcast() {
        let small = ServiceAllocator::new("10.0.0.0/30".parse().unwrap());
        assert_eq!(small.usable(), 2);
        assert_eq!(small.address(0), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(small.address(1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(ServiceAllocator::new("10.96.0.0/16".parse().unwrap()).usable(), 65_534);
    }
}
