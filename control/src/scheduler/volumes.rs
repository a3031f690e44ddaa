//! Volumes: whether the claims of a pod have what they need, and on which nodes they can have it.
//!
//! A bound claim's volume says where it can be reached. One that waits for its first consumer gets a free volume that the
//! node reaches, or has one made for that node; this is promised here and written before the pod is bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_kube::{Object, Ref, storage};
use serde_json::Value;

use super::affinity;
use super::snapshot::{NodeInfo, PodInfo, Snapshot};

const EXCLUSIVE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const ELSEWHERE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_FOUND: &str = "node(s) didn't find available persistent volumes to bind";
const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";

/// What the cluster has of volumes, and what of it is promised.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    pub claims: BTreeMap<Ref, Arc<Object>>,
    pub volumes: BTreeMap<Ref, Arc<Object>>,
    pub classes: BTreeMap<Ref, Arc<Object>>,
    /// By the volume's name the uid of the claim that is about to have it.
    promised: BTreeMap<String, String>,
}

impl Storage {
    pub fn promise(&mut self, bindings: &[Binding]) {
        for binding in bindings {
            if let Binding::Volume { volume, claim } = binding {
                self.promised.insert(volume.name().to_owned(), claim.uid().to_owned());
            }
        }
    }

    /// What was promised is written by now, or will not be.
    pub fn withdraw(&mut self, bindings: &[Binding]) {
        for binding in bindings {
            if let Binding::Volume { volume, .. } = binding {
                self.promised.remove(volume.name());
            }
        }
    }
}

/// What is to be written for one claim before its pod is bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    Volume {
        volume: Arc<Object>,
        claim: Arc<Object>,
    },
    /// A volume is to be made for the chosen node.
    Provision {
        claim: Arc<Object>,
    },
}

impl Binding {
    pub fn claim(&self) -> &Arc<Object> {
        match self {
            Binding::Volume { claim, .. } | Binding::Provision { claim } => claim,
        }
    }
}

/// What one pod needs.
pub struct Needs<'a> {
    storage: &'a Storage,
    /// Why it fits nowhere.
    pub refusal: Option<String>,
    /// Of bound claims; `None` where there is no such volume.
    bound: Vec<Option<&'a Object>>,
    /// Claims that wait for the pod, the smallest first, with their classes.
    waiting: Vec<(&'a Arc<Object>, &'a Object)>,
    /// Claims that are to be one pod's alone, and the other pods that use them.
    exclusive: BTreeSet<Ref>,
    takers: BTreeSet<String>,
}

impl<'a> Needs<'a> {
    pub fn of(snapshot: &'a Snapshot, pod: &PodInfo) -> Needs<'a> {
        let storage = &snapshot.storage;
        let mut needs = Needs {
            storage,
            refusal: None,
            bound: Vec::new(),
            waiting: Vec::new(),
            exclusive: BTreeSet::new(),
            takers: BTreeSet::new(),
        };
        for used in &pod.claims {
            if let Err(why) = needs.add(pod, used) {
                needs.refusal = Some(why);
                break;
            }
        }
        needs.waiting.sort_by_key(|(claim, _)| storage::requested(claim));
        if !needs.exclusive.is_empty() {
            snapshot.nodes().iter().flat_map(|node| node.pods.values()).for_each(|other| needs.meet(pod, other));
        }
        needs
    }

    /// The other is on a node from now on.
    pub fn meet(&mut self, pod: &PodInfo, other: &PodInfo) {
        let takes = |used: &storage::ClaimUse| {
            self.exclusive.contains(&Ref::new(other.namespace.as_str(), used.claim.as_str()))
        };
        if other.uid != pod.uid && other.claims.iter().any(takes) {
            self.takers.insert(other.uid.clone());
        }
    }

    /// The other is on no node any longer.
    pub fn part(&mut self, other: &PodInfo) {
        self.takers.remove(&other.uid);
    }

    fn add(&mut self, pod: &PodInfo, used: &storage::ClaimUse) -> Result<(), String> {
        let name = &used.claim;
        let found = self.storage.claims.get(&Ref::new(pod.namespace.as_str(), name.as_str()));
        let Some(claim) = found else {
            return Err(match used.ephemeral {
                true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        if used.ephemeral && claim.controller().is_none_or(|owner| owner["uid"] != pod.uid) {
            return Err(format!("persistentvolumeclaim {name:?} was not created for the pod"));
        }
        let volume = claim.str_at("/spec/volumeName");
        if claim.str_at("/status/phase") == "Lost" {
            return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if claim.deletion_timestamp().is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if storage::has_access_mode(claim, "ReadWriteOncePod") {
            self.exclusive.insert(claim.reference());
        }
        if storage::is_bound(claim) {
            self.bound.push(self.storage.volumes.get(&Ref::cluster(volume)).map(AsRef::as_ref));
            return Ok(());
        }
        let class = storage::class_of(claim).and_then(|name| self.storage.classes.get(&Ref::cluster(name)));
        match class.filter(|class| volume.is_empty() && storage::waits_for_consumer(class)) {
            Some(class) => self.waiting.push((claim, class)),
            None => return Err(UNBOUND.to_owned()),
        }
        Ok(())
    }

    /// Why the pod cannot run on the node for its volumes' sake.
    pub fn reject(&self, node: &NodeInfo) -> Option<&'static str> {
        if !self.takers.is_empty() {
            return Some(EXCLUSIVE);
        }
        for volume in &self.bound {
            match volume {
                None => return Some(NO_VOLUME),
                Some(volume) if !reaches(volume, node) => return Some(ELSEWHERE),
                Some(_) => {}
            }
        }
        self.choose(node).is_none().then_some(NOT_FOUND)
    }

    /// What the claims that wait get if the pod runs on the node; `None` where one gets nothing.
    pub fn choose(&self, node: &NodeInfo) -> Option<Vec<Binding>> {
        let mut chosen = Vec::new();
        let mut given: BTreeSet<&str> = BTreeSet::new();
        for (claim, class) in &self.waiting {
            let free = self.storage.volumes.values().filter(|volume| {
                let promised = self.storage.promised.get(volume.name());
                !given.contains(volume.name()) && promised.is_none_or(|uid| uid == claim.uid())
            });
            let found = storage::best(free.map(AsRef::as_ref), claim, false, |volume| reaches(volume, node));
            let found = found.and_then(|found| self.storage.volumes.get(&found.reference()));
            chosen.push(match found {
                Some(volume) => {
                    given.insert(volume.name());
                    Binding::Volume { volume: volume.clone(), claim: (*claim).clone() }
                }
                None if is_made_for(class, node) => Binding::Provision { claim: (*claim).clone() },
                None => return None,
            });
        }
        Some(chosen)
    }
}

fn reaches(volume: &Object, node: &NodeInfo) -> bool {
    let terms = volume.get("/spec/nodeAffinity/required/nodeSelectorTerms").and_then(Value::as_array);
    terms.is_none_or(|terms| terms.iter().any(|term| affinity::term_matches(term, &node.name, &node.labels)))
}

/// Whether somebody makes volumes of the class for such a node.
fn is_made_for(class: &Object, node: &NodeInfo) -> bool {
    let holds = |expression: &Value| {
        let label = expression["key"].as_str().and_then(|key| node.labels.get(key));
        expression["values"].as_array().into_iter().flatten().any(|value| label == Some(value))
    };
    let term = |term: &Value| term["matchLabelExpressions"].as_array().into_iter().flatten().all(holds);
    let topologies = class.array_at("/allowedTopologies");
    class.str_at("/provisioner") != storage::NO_PROVISIONER && (topologies.is_empty() || topologies.iter().any(term))
}

/// How far a claim is on its way to the volume that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Waits,
    Bound,
    /// It is gone, or nobody makes its volume on that node.
    Failed,
}

/// `version` is that of our own write: what is seen may be older.
pub fn progress(binding: &Binding, seen: Option<&Object>, node: &str, version: u64) -> Progress {
    let Some(seen) = seen.filter(|seen| seen.uid() == binding.claim().uid()) else { return Progress::Failed };
    let is_known = seen.resource_version().parse().is_ok_and(|seen: u64| seen >= version);
    let chosen = seen.annotation(storage::SELECTED_NODE) == Some(node);
    match binding {
        _ if storage::is_bound(seen) => Progress::Bound,
        Binding::Provision { .. } if is_known && !chosen => Progress::Failed,
        _ => Progress::Waits,
    }
}

/// Whether a volume, as it came to be, can be reached where its pod is to run.
pub fn suits(volume: &Object, node: &str, snapshot: &Snapshot) -> bool {
    snapshot.node(node).is_some_and(|info| reaches(volume, info))
}

#[cfg(test)]
mod tests;
