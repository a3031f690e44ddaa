//! Probes: how a container is, asked by HTTP, gRPC, TCP or a command, and what follows from the answers.
//!
//! ```text
//!   startup ──succeeds──▶ liveness and readiness begin
//!      └── fails as often as allowed ──▶ the container is restarted, as for liveness
//! ```

use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Object;
use serde_json::Value;
use tokio::sync::Notify;

use crate::events::{Events, Kind as EventKind};
use crate::runtime::Runtime;
use crate::stats::own::{Counters, Probed};

pub mod ask;
mod grpc;
pub mod state;

use state::{Rules, Streak, Unhealthy, Verdicts};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];

    pub fn field(self) -> &'static str {
        match self {
            Kind::Startup => "startupProbe",
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// One probe of one running container.
pub struct Probe {
    pub kind: Kind,
    pub pod: Arc<Object>,
    pub container: Value,
    pub container_id: String,
    pub pod_ip: String,
    /// How long the container has been running.
    pub age: Duration,
    pub verdicts: Arc<Verdicts>,
    pub wake: Arc<Notify>,
    pub events: Events,
    pub runtime: Runtime,
    pub counters: Arc<Counters>,
}

impl Probe {
    /// Asks until the container is gone or, for a startup probe, until it has started.
    pub async fn run(self) {
        let spec = &self.container[self.kind.field()];
        let rules = Rules::from_spec(spec, self.kind);
        tokio::time::sleep(rules.initial_delay.saturating_sub(self.age)).await;
        let mut ticks = tokio::time::interval(rules.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        loop {
            ticks.tick().await;
            if self.kind != Kind::Startup
                && self.container["startupProbe"].is_object()
                && !self.verdicts.has_started(&self.container_id)
            {
                continue;
            }
            let target =
                ask::Target { pod_ip: &self.pod_ip, container: &self.container, container_id: &self.container_id };
            let answer = ask::ask(&self.runtime, spec, &target, rules.timeout).await;
            self.count(answer.is_ok());
            if let Err(why) = &answer {
                self.tell(why);
            }
            let Some(verdict) = streak.feed(answer.is_ok(), &rules) else { continue };
            if self.settle(verdict) {
                return;
            }
        }
    }

    fn count(&self, good: bool) {
        self.counters.probed(Probed {
            container: self.container["name"].as_str().unwrap_or("").to_owned(),
            namespace: self.pod.namespace().to_owned(),
            pod: self.pod.name().to_owned(),
            uid: self.pod.uid().to_owned(),
            kind: self.kind.title(),
            good,
        });
    }

    fn tell(&self, why: &str) {
        let name = self.container["name"].as_str();
        let message = format!("{} probe failed: {why}", self.kind.title());
        self.events.pod(&self.pod, name, EventKind::Warning, "Unhealthy", message);
    }

    /// Writes the verdict down; `true` when there is nothing more to ask.
    fn settle(&self, verdict: bool) -> bool {
        let id = &self.container_id;
        let changed = match (self.kind, verdict) {
            (Kind::Startup, true) => self.verdicts.set_started(id),
            (Kind::Readiness, _) => self.verdicts.set_ready(id, verdict),
            (Kind::Liveness, true) => false,
            (Kind::Startup | Kind::Liveness, false) => {
                let name = self.container["name"].as_str().unwrap_or("");
                let which = self.kind.title().to_lowercase();
                let message = format!("Container {name} failed {which} probe, will be restarted");
                let grace_seconds = self.container[self.kind.field()]["terminationGracePeriodSeconds"].as_i64();
                self.verdicts.set_unhealthy(id, Unhealthy { message, grace_seconds })
            }
        };
        if changed {
            self.wake.notify_one();
        }
        self.kind == Kind::Startup && verdict || self.kind != Kind::Readiness && !verdict
    }
}
