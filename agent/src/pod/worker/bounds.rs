//! What a pod may not exceed by itself: the time that it is active, and what it takes of the disk.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::super::memory::{Volumes, after};
use super::super::storage::{self, Limits};
use super::super::want::{Failed, Goal};
use super::{Desired, Effect, Worker, is_over};
use crate::events::Kind as EventKind;
use crate::eviction::EVICTED;

/// The use of the disk is measured this often, and so rarely that measuring takes a tenth of the time at most.
const MEASURE: Duration = Duration::from_secs(10);
const MEASURE_PAUSES: u32 = 10;
/// What an evicted pod gets to end, as upstream has it.
const EVICTED_GRACE_SECONDS: i64 = 1;
/// Why a pod fails that was active for longer than its spec allows.
const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// When it is measured for the first time.
pub(super) fn first_measure() -> tokio::time::Instant {
    tokio::time::Instant::now() + MEASURE
}

impl Worker {
    /// When the pod will have been active for as long as it may be; one that has is failed.
    pub(super) fn expire(&mut self, desired: &Desired) -> Option<Timestamp> {
        let seconds = desired.pod.i64_at("/spec/activeDeadlineSeconds")?;
        let before = self.previous(desired);
        if desired.goal != Goal::Run || self.failed.is_some() || is_over(&before) {
            return None;
        }
        let at = after(before["startTime"].as_str()?.parse().ok()?, seconds);
        if at > self.shared.env.clock.now() {
            return Some(at);
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.shared.events.pod(&desired.pod, None, EventKind::Normal, DEADLINE_EXCEEDED, message);
        self.failed =
            Some(Failed { reason: DEADLINE_EXCEEDED.to_owned(), message: message.to_owned(), ..Failed::default() });
        None
    }

    pub(super) fn is_measured(&self) -> bool {
        let desired = self.desired.borrow();
        let wanted = self.failed.is_none() && desired.goal == Goal::Run && self.memory.volumes == Volumes::Ready;
        wanted && !Limits::of(&desired.pod).is_empty()
    }

    /// Measures what the pod takes of the disk, where there is a limit to it and it is time.
    pub(super) fn measure(&mut self, desired: &Desired) {
        let due = self.measure_at.is_some_and(|at| at <= tokio::time::Instant::now());
        if !due || !self.is_measured() {
            return;
        }
        self.measure_at = None;
        let (shared, pod) = (self.shared.clone(), desired.pod.clone());
        self.effects.spawn(async move {
            let since = tokio::time::Instant::now();
            let exceeded = storage::check(&shared, &pod, &Limits::of(&pod)).await;
            Effect::Measured { exceeded, took: since.elapsed() }
        });
    }

    /// What came of a measure.
    pub(super) fn measured(&mut self, exceeded: Option<String>, took: Duration) {
        self.measure_at = Some(tokio::time::Instant::now() + MEASURE.max(took * MEASURE_PAUSES));
        if let Some(message) = exceeded {
            self.evict(message);
        }
    }

    fn evict(&mut self, message: String) {
        let pod = self.desired_pod();
        warn!(pod = %pod.reference(), reason = message, "pod evicted");
        self.shared.events.pod(&pod, None, EventKind::Warning, EVICTED, message.clone());
        self.failed = Some(Failed {
            reason: EVICTED.to_owned(),
            message,
            grace_max_seconds: Some(EVICTED_GRACE_SECONDS),
            ..Failed::default()
        });
    }
}
