//! What the API is told of one pod: its status as it changes, and at its end that the pod may go. One write at a time, and
//! none that says what the API has already.

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, DeleteOptions, Patch};
use gantry_env::chain;
use gantry_kube::resource;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::status;
use super::worker::{Effect, Target};
use crate::shared::Shared;

/// An API that refused a write is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

pub struct Report {
    shared: Arc<Shared>,
    uid: String,
    told: Option<Told>,
    telling: bool,
    deletion: Deletion,
    /// The API refused a write: the next is not tried before this.
    write_after: Option<Instant>,
}

/// What the API was last told: it holds until the API shows something newer, whoever wrote that.
pub struct Told {
    uid: String,
    version: u64,
    status: Value,
}

#[derive(PartialEq)]
enum Deletion {
    No,
    Asked,
    Done,
}

/// What came of a write.
pub enum Written {
    /// `told` is what the API has if all went well; its version is that before the write where it did not.
    Status {
        told: Box<Told>,
        result: Result<u64, ClientError>,
    },
    Deletion(Result<(), ClientError>),
}

impl Report {
    pub fn new(shared: Arc<Shared>, uid: String) -> Report {
        Report { shared, uid, told: None, telling: false, deletion: Deletion::No, write_after: None }
    }

    pub fn write_after(&self) -> Option<Instant> {
        self.write_after
    }

    /// What the API says of the pod, as far as is known here.
    pub fn told<'a>(&'a self, target: &'a Target) -> &'a Value {
        match &self.told {
            Some(told) if told.uid == target.uid && told.version >= target.version => &told.status,
            _ => &target.status,
        }
    }

    /// Sends the status if it differs from what the API has and no other is on its way.
    pub fn tell(&mut self, target: &Target, status: &Value, effects: &mut JoinSet<Effect>) {
        if self.telling || self.told(target) == status || !self.may_write() {
            return;
        }
        self.telling = true;
        let patch = Patch::Strategic(status::patch(&target.uid, self.told(target), status));
        let told = Box::new(Told { uid: target.uid.clone(), version: target.version, status: status.clone() });
        let (shared, at) = (self.shared.clone(), target.at.clone());
        effects.spawn(async move {
            let written = shared.client.patch(&resource::POD, &at, "status", patch).await;
            let result = written.map(|pod| pod.resource_version().parse().unwrap_or(0));
            Effect::Written(Written::Status { told, result })
        });
    }

    /// Lets the pod go once its last status is told.
    pub fn delete(&mut self, target: &Target, last: &Value, effects: &mut JoinSet<Effect>) {
        if self.told(target) != last || self.telling || self.deletion != Deletion::No || !self.may_write() {
            return;
        }
        self.deletion = Deletion::Asked;
        let uid = Some(target.uid.clone());
        let options = DeleteOptions { grace_period_seconds: Some(0), uid, ..DeleteOptions::default() };
        let (shared, at) = (self.shared.clone(), target.at.clone());
        effects.spawn(async move {
            Effect::Written(Written::Deletion(shared.client.delete(&resource::POD, &at, &options).await))
        });
    }

    pub fn note(&mut self, written: Written) {
        match written {
            Written::Status { told, result } => {
                self.telling = false;
                match result {
                    Ok(version) => {
                        if told.status["phase"] == "Running" {
                            self.shared.trace.mark(&self.uid, 9, "status Running is in the API");
                        }
                        self.write_after = None;
                        self.told = Some(Told { version, ..*told });
                    }
                    Err(error) if error.is_not_found() || error.is_conflict() => {
                        debug!(pod = %self.uid, error = %chain(&error), "the API has another pod by now");
                        self.told = Some(*told);
                    }
                    Err(error) => self.retry("status not written", &error),
                }
            }
            Written::Deletion(Err(error)) if !error.is_not_found() && !error.is_conflict() => {
                self.deletion = Deletion::No;
                self.retry("pod not deleted", &error);
            }
            Written::Deletion(_) => self.deletion = Deletion::Done,
        }
    }

    fn retry(&mut self, what: &'static str, error: &ClientError) {
        warn!(pod = %self.uid, error = %chain(error), "{what}");
        self.write_after = Some(Instant::now() + RETRY);
    }

    fn may_write(&mut self) -> bool {
        if self.write_after.is_some_and(|after| after <= Instant::now()) {
            self.write_after = None;
        }
        self.write_after.is_none()
    }
}
