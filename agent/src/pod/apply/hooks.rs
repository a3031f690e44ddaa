//! Hooks of a container's life: after its start, beside its own command, and before its end, within its grace period.

use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Object;
use serde_json::Value;

use super::super::plan::LEFT_MIN_SECONDS;
use super::super::seen::Seen;
use super::super::worker::{Desired, Effect, Worker, spec_of};
use crate::events::Kind;
use crate::probe::ask;
use crate::shared::Shared;

/// A hook for the start may take as long as it likes: what it holds up is its own pod.
const HOOK_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

impl Worker {
    /// Runs the hook beside the container's own command; until it ends, the container counts as being made.
    pub(super) fn post_start(&mut self, desired: &Desired, seen: &Seen, id: &str, name: &str) {
        let spec = spec_of(&desired.pod, name).cloned().unwrap_or_default();
        if !spec["lifecycle"]["postStart"].is_object() {
            return;
        }
        self.memory.starting.insert(id.to_owned());
        let (shared, id) = (self.shared.clone(), id.to_owned());
        let ip = self.pod_facts(&desired.pod, seen).pod_ips.first().cloned().unwrap_or_default();
        self.effects.spawn(async move {
            let target = ask::Target { pod_ip: &ip, container: &spec, container_id: &id };
            let result = hook(&shared, &spec["lifecycle"]["postStart"], &target, HOOK_LIMIT).await;
            Effect::PostStarted { id, name: spec["name"].as_str().unwrap_or("").to_owned(), failed: result.err() }
        });
    }

    /// The hook has ended; where it failed, the container is ended as if a probe had found it ill.
    pub(in crate::pod) fn post_started(&mut self, id: &str, name: &str, failed: Option<String>) {
        self.memory.starting.remove(id);
        // A container that is being ended takes its hook with it.
        let Some(why) = failed.filter(|_| !self.memory.killing.contains_key(id)) else { return };
        let pod = self.desired_pod();
        self.shared.events.pod(
            &pod,
            Some(name),
            Kind::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {why}"),
        );
        self.note_unhealthy(id, "FailedPostStartHook");
    }
}

/// Runs the hook within the grace period and answers what is left of it (never less than 2 s, as upstream has it).
pub(super) async fn pre_stop(
    shared: &Arc<Shared>,
    pod: &Object,
    spec: &Value,
    id: &str,
    ip: &str,
    grace_seconds: i64,
) -> i64 {
    let hook = &spec["lifecycle"]["preStop"];
    if !hook.is_object() || grace_seconds <= 0 {
        return grace_seconds;
    }
    let since = tokio::time::Instant::now();
    let limit = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let target = ask::Target { pod_ip: ip, container: spec, container_id: id };
    let result = tokio::time::timeout(limit, self::hook(shared, hook, &target, limit)).await;
    if let Ok(Err(why)) = result {
        let words = format!("PreStopHook failed: {why}");
        shared.events.pod(pod, spec["name"].as_str(), Kind::Warning, "FailedPreStopHook", words);
    }
    let used = i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
    (grace_seconds - used).max(LEFT_MIN_SECONDS)
}

/// Does what a hook of a container's life says.
async fn hook(shared: &Shared, hook: &Value, target: &ask::Target<'_>, limit: Duration) -> Result<(), String> {
    match hook["sleep"]["seconds"].as_u64() {
        Some(seconds) => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        }
        None => ask::ask(&shared.runtime, hook, target, limit).await,
    }
}
