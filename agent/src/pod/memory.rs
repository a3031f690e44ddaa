//! What a pod's worker remembers between turns: back-offs, effects in flight, verdicts of probes. None of it is needed
//! to be right after a restart of the agent; it only makes waiting longer or shorter.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::past::Past;
use super::want::WantedImage;
use crate::probe::state::Unhealthy;

/// The first wait before a container is run again.
pub const CRASH_FIRST_SECONDS: i64 = 10;
pub const CRASH_CAP_SECONDS: i64 = 300;
/// A container that ran this long is forgiven its past.
pub const CRASH_RESET_SECONDS: i64 = 600;
/// An image that cannot be pulled is tried again after these.
pub const PULL_FIRST_SECONDS: i64 = 10;
pub const PULL_CAP_SECONDS: i64 = 300;
/// How long a failed pull is shown as such before it is shown as backing off.
pub const PULL_ERROR_SHOWN_SECONDS: i64 = 2;
/// What failed for a reason that may go away (a missing ConfigMap, a busy runtime) is tried again after this.
pub const RETRY_SECONDS: i64 = 5;
/// A volume whose source is not there yet is looked for again after this.
pub const VOLUME_RETRY_SECONDS: i64 = 2;

/// A wait that doubles each time a container is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub seconds: i64,
    pub updated: Timestamp,
}

/// Something that failed, in the words that the API shows, and when it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
    pub until: Timestamp,
}

/// What is known of the image that the next run of a container needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// With what went wrong the last time: it is shown until the image is there.
    Pulling {
        failed: Option<Failure>,
    },
    Present {
        image_ref: String,
    },
    Failed(Failure),
}

/// The name of a container and an image that it runs or mounts.
pub type ImageKey = (String, String);

pub fn image_key(container: &str, image: &WantedImage) -> ImageKey {
    (container.to_owned(), image.reference.clone())
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    #[default]
    Absent,
    Failed(Failure),
    Ready,
    Gone,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub volumes: Volumes,
    pub sandbox_failure: Option<Failure>,
    /// By container name.
    pub backoffs: BTreeMap<String, Backoff>,
    /// By container name and image: what is known of one image says nothing of the next that the container is given.
    pub images: BTreeMap<ImageKey, Image>,
    pub pull_seconds: BTreeMap<ImageKey, i64>,
    /// Why the runtime could not be told of other limits.
    pub resize_failure: Option<Failure>,
    pub create_failures: BTreeMap<String, Failure>,
    /// By container name: runs as they were last told of, for where the runtime has no record (a reboot loses them).
    pub past: BTreeMap<String, Past>,
    /// By container id: when its kill in flight ends at the latest.
    pub killing: BTreeMap<String, Timestamp>,
    /// When all of a pod that ends is to have ended.
    pub stop_by: Option<Timestamp>,
    /// Created containers whose start was refused.
    pub start_failed: BTreeSet<String>,
    /// By container id: why a probe wants it ended.
    pub unhealthy: BTreeMap<String, Unhealthy>,
    /// By container id: past its startup probe.
    pub started: BTreeSet<String>,
    /// By container id: its hook for the start is running.
    pub starting: BTreeSet<String>,
}

pub fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

impl Memory {
    /// Until when a container that ended at `finished` waits; `None` when it may run at once.
    pub fn crash_until(&self, name: &str, finished: Timestamp) -> Option<(Timestamp, i64)> {
        let backoff = self.backoffs.get(name)?;
        if seconds_between(backoff.updated, finished) > CRASH_RESET_SECONDS {
            return None;
        }
        Some((after(finished, backoff.seconds), backoff.seconds))
    }

    /// A container is run again after it ended at `finished`: the next time it waits twice as long.
    pub fn note_rerun(&mut self, name: &str, finished: Timestamp, now: Timestamp) {
        let seconds = match self.backoffs.get(name) {
            Some(b) if seconds_between(b.updated, finished) <= CRASH_RESET_SECONDS => {
                (b.seconds * 2).min(CRASH_CAP_SECONDS)
            }
            _ => CRASH_FIRST_SECONDS,
        };
        self.backoffs.insert(name.to_owned(), Backoff { seconds, updated: now });
    }

    /// A pull failed: when it is tried again. Waits double from try to try until one succeeds.
    pub fn note_pull_failed(&mut self, key: ImageKey, reason: &str, message: String, now: Timestamp) {
        let seconds = self.pull_seconds.get(&key).map_or(PULL_FIRST_SECONDS, |s| (s * 2).min(PULL_CAP_SECONDS));
        self.pull_seconds.insert(key.clone(), seconds);
        let failure = Failure { reason: reason.to_owned(), message, at: now, until: after(now, seconds) };
        self.images.insert(key, Image::Failed(failure));
    }

    pub fn note_pulling(&mut self, key: ImageKey) {
        let failed = match self.images.remove(&key) {
            Some(Image::Failed(failure)) => Some(failure),
            _ => None,
        };
        self.images.insert(key, Image::Pulling { failed });
    }

    pub fn note_pulled(&mut self, key: ImageKey, image_ref: String) {
        self.pull_seconds.remove(&key);
        self.images.insert(key, Image::Present { image_ref });
    }

    /// The next run looks for its image anew.
    pub fn forget_image(&mut self, name: &str) {
        self.images.retain(|(of, _), _| of != name);
    }

    /// Something of the pod is told to end for good by `deadline`; an earlier deadline holds.
    pub fn note_stopping(&mut self, deadline: Timestamp) {
        self.stop_by = Some(self.stop_by.map_or(deadline, |by| by.min(deadline)));
    }

    pub fn note_created(&mut self, name: &str) {
        self.forget_image(name);
        self.create_failures.remove(name);
    }

    /// Forgets what is known of containers that are no more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.killing.retain(|id, _| is_there(id));
        self.start_failed.retain(|id| is_there(id));
        self.unhealthy.retain(|id, _| is_there(id));
        self.started.retain(|id| is_there(id));
        self.starting.retain(|id| is_there(id));
    }
}
