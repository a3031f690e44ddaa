//! Static pods: those of the manifests in a folder of the node's own, and the mirrors that show them in the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_client::{Change, DeleteOptions};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use tracing::{info, warn};

use super::{Pods, forget};
use crate::pod::want::Goal;
use crate::pod::worker::{Source, Target};
use crate::source::mirror;

impl Pods {
    pub(super) fn manifests_changed(&mut self, manifests: BTreeMap<String, Object>) {
        self.manifests_are_known = true;
        for (uid, entry) in &self.entries {
            if entry.desired.borrow().source == Source::File && !manifests.contains_key(uid) {
                forget(entry);
            }
        }
        self.manifests = manifests.into_iter().map(|(uid, pod)| (uid, Arc::new(pod))).collect();
        self.start_statics();
        self.keep_mirrors();
        self.answer();
    }

    pub(super) fn has_manifests(&self) -> bool {
        self.manifests_are_known || self.shared.config.static_pod_dir.is_none()
    }

    /// Starts the static pods whose turn it is: an edited manifest is another pod of the same name, and the one before
    /// it, perhaps of an earlier life, has to be gone first.
    pub(super) fn start_statics(&mut self) {
        let Some(held) = &self.held else { return };
        // A node that goes down starts nothing; what an earlier life of the agent started has to end in its turn.
        let is_late = |pod: &Object| self.is_shutting_down() && !held.contains_key(pod.uid());
        let is_there = |pod: &Object| {
            let (uid, at) = (pod.uid(), pod.reference());
            let same = self.entries.iter().any(|(other, e)| other != uid && e.desired.borrow().pod.reference() == at);
            self.entries.contains_key(uid) || same || held.iter().any(|(other, of)| other != uid && *of == at)
        };
        let ready: Vec<Arc<Object>> =
            self.manifests.values().filter(|pod| !is_there(pod) && !is_late(pod)).cloned().collect();
        let begins = !ready.is_empty();
        for pod in ready {
            // Of two manifests for one name, the second waits for the first to go.
            if self.entries.values().any(|entry| entry.desired.borrow().pod.reference() == pod.reference()) {
                continue;
            }
            info!(pod = %pod.reference(), "static pod");
            self.shared.trace.mark(pod.uid(), 7, "agent heard");
            let mirror = self.mirrors.get(&pod.reference()).filter(|found| mirror::shows(found, &pod, false));
            let target = mirror.map(|found| Target::of(found));
            self.enter(pod, Goal::Run, None, Source::File, target);
        }
        if begins {
            self.keep_mirrors();
        }
    }

    pub(super) fn mirror_changed(&mut self, change: Change<Object>) {
        let is_gone = change.now.is_none();
        match change.now {
            Some(pod) => self.mirrors.insert(change.at.clone(), pod),
            None => self.mirrors.remove(&change.at),
        };
        let mirror = self.mirrors.get(&change.at);
        for entry in self.entries.values() {
            let shown = {
                let desired = entry.desired.borrow();
                desired.source == Source::File && desired.pod.reference() == change.at
            };
            if shown {
                entry.desired.send_modify(|desired| {
                    let shows = |m: &&Arc<Object>| mirror::shows(m, &desired.pod, desired.failed.is_some());
                    desired.report_to = mirror.filter(shows).map(|m| Target::of(m));
                });
            }
        }
        // Another may have to take its place.
        if is_gone {
            self.keep_mirrors();
        }
    }

    /// Makes the mirrors that are missing, and removes those that show nothing.
    pub(super) fn keep_mirrors(&mut self) {
        if !self.api_is_known || !self.manifests_are_known {
            return;
        }
        let statics: BTreeMap<Ref, (Arc<Object>, bool)> = self
            .entries
            .values()
            .map(|entry| entry.desired.borrow())
            .filter(|d| d.source == Source::File && !matches!(d.goal, Goal::Forget { .. }))
            .map(|d| (d.pod.reference(), (d.pod.clone(), d.failed.is_some())))
            .collect();
        for (at, found) in &self.mirrors {
            if statics.get(at).is_some_and(|(pod, is_over)| mirror::shows(found, pod, *is_over)) {
                continue;
            }
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some(found.uid().to_owned()),
                ..DeleteOptions::default()
            };
            let (shared, at) = (self.shared.clone(), at.clone());
            tokio::spawn(async move {
                if let Err(error) = shared.client.delete(&resource::POD, &at, &options).await {
                    warn!(pod = %at, error = %chain(&error), "mirror pod not deleted");
                }
            });
        }
        let uid = self.shared.node_uid();
        if uid.is_empty() {
            return;
        }
        for (at, (pod, _)) in statics.into_iter().filter(|(at, _)| !self.mirrors.contains_key(at)) {
            let mirror = mirror::of(&pod, &self.shared.config.node_name, &uid);
            let shared = self.shared.clone();
            tokio::spawn(async move {
                match shared.client.create(&resource::POD, &mirror).await {
                    Err(error) if !error.is_already_exists() => {
                        warn!(pod = %at, error = %chain(&error), "mirror pod not created");
                    }
                    _ => {}
                }
            });
        }
    }
}
