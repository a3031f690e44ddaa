//! What a next life of the agent must know of a pod, and what this one knows of the last.

use std::collections::BTreeMap;

use serde_json::Value;
use tracing::warn;

use super::super::past::{self, Past};
use super::super::status;
use super::super::want::Goal;
use super::{Desired, Source, Worker};
use crate::shutdown;
use crate::source::checkpoint;

/// What the checkpoint says that makes a difference to a next life.
#[derive(PartialEq)]
pub(super) struct Kept {
    spec: Option<Value>,
    deleted: bool,
    past: BTreeMap<String, Past>,
    over: bool,
}

impl Worker {
    /// What an earlier life of the agent knew, from the API and the checkpoint: runs of which the runtime may have no
    /// record, and verdicts of probes, which hold until a probe says otherwise.
    pub(super) fn remember(&mut self) {
        let desired = self.desired.borrow().clone();
        let saved = checkpoint::one(&self.shared.config.data_dir, &self.uid);
        self.saved = saved.and_then(|pod| pod.get("/status").cloned()).unwrap_or(Value::Null);
        // Its manifest is what it was: nothing else would bring a static pod back after its node's shutdown.
        if desired.source == Source::File && shutdown::has_ended(&self.saved) {
            self.saved = past::runs(&self.saved);
            if let Err(error) = checkpoint::again(&self.shared.config.data_dir, &self.uid) {
                warn!(pod = %self.uid, %error, "the checkpoint still says that the pod is over");
            }
        }
        self.failed = status::failed_by(&self.saved);
        let known = self.previous(&desired);
        self.memory.past = past::of_status(&known);
        for (_, entry) in past::entries(&known).filter(|(_, entry)| entry["state"]["running"].is_object()) {
            let Some(id) = entry["containerID"].as_str().and_then(|id| id.strip_prefix(status::ID_SCHEME)) else {
                continue;
            };
            if entry["started"] == true {
                self.probes.verdicts.set_started(id);
            }
            self.probes.verdicts.set_ready(id, entry["ready"] == true);
        }
    }

    /// Writes down what a next life must know, before anything is done; and once the pod is over, that it is.
    pub(super) fn keep_checkpoint(&mut self, desired: &Desired, status: &Value, settled: bool) {
        let ignored = match desired.goal {
            Goal::Forget { .. } => true,
            // A pod that was rejected has nothing here.
            Goal::Fail { .. } => self.kept.is_none() && self.saved.is_null(),
            Goal::Run | Goal::Stop { .. } => false,
        };
        let now = Kept {
            spec: desired.pod.get("/spec").cloned(),
            deleted: desired.pod.deletion_timestamp().is_some(),
            past: self.memory.past.clone(),
            over: settled,
        };
        if ignored || self.kept.as_ref() == Some(&now) {
            return;
        }
        let mut pod = (*desired.pod).clone();
        pod.0.insert("status".to_owned(), status.clone());
        let data_dir = &self.shared.config.data_dir;
        let mut written = checkpoint::save(data_dir, &pod);
        // Where there is no room to say how it ended, that it has is said all the same.
        if settled {
            written = checkpoint::end(data_dir, &self.uid).and(written);
        }
        match written {
            Ok(()) => self.kept = Some(now),
            Err(error) => warn!(pod = %self.uid, %error, "checkpoint not written"),
        }
    }
}
