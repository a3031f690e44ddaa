//! Every Service and EndpointSlice, and the ways in which they are looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_kube::Ref;

use crate::model::{Service, Slice, SliceEndpoint};

#[derive(Clone, Debug, Default)]
pub struct Directory {
    services: BTreeMap<Ref, Arc<Service>>,
    slices: BTreeMap<Ref, Arc<Slice>>,
    /// The slices of each service, whether the service is there or not.
    slices_of: BTreeMap<Ref, BTreeSet<Ref>>,
    /// Services by their cluster IP.
    by_ip: BTreeMap<Ipv4Addr, BTreeSet<Ref>>,
    namespaces: BTreeMap<String, usize>,
    /// The slices in which an address stands.
    slices_at: BTreeMap<Ipv4Addr, BTreeSet<Ref>>,
    complete: bool,
}

fn owner(slice: &Slice) -> Option<Ref> {
    (!slice.service.is_empty()).then(|| Ref::new(&slice.at.namespace, &slice.service))
}

fn link<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Ref>>, key: K, at: &Ref) {
    map.entry(key).or_default().insert(at.clone());
}

fn unlink<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Ref>>, key: &K, at: &Ref) {
    if let Some(refs) = map.get_mut(key) {
        refs.remove(at);
        if refs.is_empty() {
            map.remove(key);
        }
    }
}

impl Directory {
    /// Puts a service in, or takes it out. The service whose rules this touches comes back.
    pub fn set_service(&mut self, at: Ref, now: Option<Arc<Service>>) -> Ref {
        if let Some(ip) = self.services.get(&at).and_then(|s| s.cluster_ip) {
            unlink(&mut self.by_ip, &ip, &at);
        }
        if let Some(ip) = now.as_ref().and_then(|s| s.cluster_ip) {
            link(&mut self.by_ip, ip, &at);
        }
        let before = match now {
            Some(service) => self.services.insert(at.clone(), service).is_some(),
            None => {
                if self.services.remove(&at).is_some() {
                    self.leave_namespace(&at.namespace);
                }
                return at;
            }
        };
        if !before {
            *self.namespaces.entry(at.namespace.clone()).or_default() += 1;
        }
        at
    }

    fn leave_namespace(&mut self, namespace: &str) {
        if let Some(count) = self.namespaces.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// Puts a slice in, or takes it out. The services whose rules this touches come back.
    pub fn set_slice(&mut self, at: Ref, now: Option<Arc<Slice>>) -> BTreeSet<Ref> {
        let mut touched = BTreeSet::new();
        if let Some(before) = self.slices.remove(&at)
            && let Some(service) = owner(&before)
        {
            unlink(&mut self.slices_of, &service, &at);
            before.endpoints.iter().for_each(|endpoint| unlink(&mut self.slices_at, &endpoint.ip, &at));
            touched.insert(service);
        }
        if let Some(slice) = now {
            if let Some(service) = owner(&slice) {
                link(&mut self.slices_of, service.clone(), &at);
                slice.endpoints.iter().for_each(|endpoint| link(&mut self.slices_at, endpoint.ip, &at));
                touched.insert(service);
            }
            self.slices.insert(at, slice);
        }
        touched
    }

    pub fn service(&self, at: &Ref) -> Option<&Arc<Service>> {
        self.services.get(at)
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn slices(&self, service: &Ref) -> impl Iterator<Item = &Arc<Slice>> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|at| self.slices.get(at))
    }

    /// The services that have this cluster IP.
    pub fn by_cluster_ip(&self, ip: Ipv4Addr) -> impl Iterator<Item = &Arc<Service>> {
        self.by_ip.get(&ip).into_iter().flatten().filter_map(|at| self.services.get(at))
    }

    /// The endpoints with this address, and whose they are.
    pub fn endpoints_at(&self, ip: Ipv4Addr) -> impl Iterator<Item = (Ref, SliceEndpoint)> {
        let slices = self.slices_at.get(&ip).into_iter().flatten().filter_map(|at| self.slices.get(at));
        slices.flat_map(move |slice| {
            let service = Ref::new(&slice.at.namespace, &slice.service);
            let own = slice.endpoints.iter().filter(move |endpoint| endpoint.ip == ip);
            own.map(move |endpoint| (service.clone(), endpoint.clone()))
        })
    }

    /// Whether both lists have been in: before that, an absence says nothing.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn set_complete(&mut self) {
        self.complete = true;
    }

    /// Whether any service lives there (the `default` namespace always has one).
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }
}
