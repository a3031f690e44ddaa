//! The end of pods before the end of their machine. Who takes the machine down says so on the agent's socket ([`socket`]), and
//! waits: the node says that it is not ready and takes no more pods, pods end by groups of their priority ([`plan`]), each with
//! its hooks and its grace period as far as the group's time ([`settings`]) allows, and the API hears of it.
//!
//! ```text
//!   serving ──asked──▶ ending a group ──ended, or its time over──▶ ending the next … ──▶ telling ──told, or in time──▶ done
//!      ▲                    │                                            │                  │                        │
//!      └──── called off ────┴────────────────────────────────────────────┴──────────────────┴────────────────────────┘
//! ```
//! Nothing of it is kept but its [`times`]: an agent that is killed meanwhile begins as ever, and whoever waits asks it again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Object;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::events::Kind;
use crate::node::NodeView;
use crate::pod::want::{Failed, grace_seconds};
use crate::pods::orders::{Order, Termination};
use crate::shared::Shared;

pub mod plan;
pub mod settings;
pub mod socket;
pub mod times;
pub mod wire;

use plan::{Candidate, Group, Period};
use times::Times;
use wire::{Outcome, Progress};

/// What a pod's status says that its node's shutdown has ended, in the kubelet's words.
pub const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// What the node says while it goes down.
pub const NOT_READY: &str = "node is shutting down";
/// So long the API may take to hear of the ends; the machine's end waits for it.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// Whether a pod of that status has failed for its node's shutdown.
pub fn has_ended(status: &Value) -> bool {
    status["phase"] == "Failed" && status["reason"] == REASON
}

/// Why a pod is failed that the shutdown finds on its node.
pub fn failed() -> Failed {
    Failed { reason: REASON.to_owned(), message: MESSAGE.to_owned(), disrupted: true, grace_max_seconds: None }
}

/// By which a shutdown is begun, called off and looked at.
#[derive(Clone, Debug)]
pub struct Switch {
    wanted: watch::Sender<bool>,
    progress: watch::Receiver<Progress>,
    within_seconds: u64,
}

/// One who waits for the end of a shutdown.
pub struct Watch {
    wanted: watch::Receiver<bool>,
    progress: watch::Receiver<Progress>,
    begun: bool,
}

impl Switch {
    /// All of it takes no longer; zero where pods have no time to end in order.
    pub fn within_seconds(&self) -> u64 {
        self.within_seconds
    }

    /// From now on the node takes no pods. One that goes down already goes on.
    pub fn shut_down(&self) -> Watch {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        Watch { wanted: self.wanted.subscribe(), progress: self.progress.clone(), begun: false }
    }

    /// The machine stays: returns once the node takes pods again.
    pub async fn cancel(&self) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, false));
        // Where there is no loop any more, nothing is to be called off.
        let _ = self.progress.clone().wait_for(|now| *now == Progress::Serving).await;
    }
}

impl Watch {
    /// How far it is, whenever that has changed; none once it was called off.
    pub async fn next(&mut self) -> Option<Progress> {
        let begun = std::mem::replace(&mut self.begun, true);
        tokio::select! {
            biased;
            // Both are watches, and keep their values.
            _ = self.wanted.wait_for(|wanted| !wanted) => None,
            now = next(&mut self.progress, begun) => now,
        }
    }
}

async fn next(progress: &mut watch::Receiver<Progress>, begun: bool) -> Option<Progress> {
    if begun {
        progress.changed().await.ok()?;
    }
    // Until the loop has heard of it, the node still seems to serve.
    let now = progress.wait_for(|now| *now != Progress::Serving).await.ok()?.clone();
    progress.mark_unchanged();
    Some(now)
}

/// The loop of one node.
pub struct Shutdown {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    progress: watch::Sender<Progress>,
}

/// A switch, what tells whether it is on, and what tells the switch how far it is.
pub fn switch(periods: &[Period]) -> (Switch, watch::Receiver<bool>, watch::Sender<Progress>) {
    let (wanted, is_wanted) = watch::channel(false);
    let (progress, shown) = watch::channel(Progress::Serving);
    let sum: u64 = periods.iter().map(|period| u64::from(period.seconds)).sum();
    let within_seconds = if periods.is_empty() { 0 } else { sum + TELL_WITHIN.as_secs() };
    (Switch { wanted, progress: shown, within_seconds }, is_wanted, progress)
}

impl Shutdown {
    pub fn new(shared: Arc<Shared>, orders: mpsc::Sender<Order>, progress: watch::Sender<Progress>) -> Shutdown {
        Shutdown { shared, orders, progress }
    }

    /// Works for as long as it is polled.
    pub async fn run(self) {
        let mut wanted = self.shared.shutting_down.clone();
        let mut called_off = wanted.clone();
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            tokio::select! {
                biased;
                // A watch keeps its value.
                _ = called_off.wait_for(|wanted| !wanted) => {}
                () = self.go_down() => {}
            }
            self.tell("Shutdown manager detected shutdown cancellation");
            self.progress.send_replace(Progress::Serving);
        }
    }

    /// Does not return: what comes after it is the end of the machine.
    async fn go_down(&self) {
        let start = Some(self.shared.env.clock.now());
        self.note(Times { start, end: None });
        self.tell("Shutdown manager detected shutdown event");
        let pods = self.pods().await;
        let candidates: Vec<Candidate> = pods.iter().map(|pod| candidate(pod)).collect();
        let groups = plan::plan(&self.shared.config.shutdown_periods, &candidates);
        for group in &groups {
            self.end(group).await;
        }
        let all: BTreeSet<String> = groups.iter().flat_map(|group| group.pods.keys().cloned()).collect();
        self.progress.send_replace(Progress::Telling);
        let told = async {
            self.shared.views.until(&all, |view| view.ended && view.told).await;
            let mut node = self.shared.node.clone();
            // Where nobody tells of the node any more, the agent ends.
            let _ = node.wait_for(is_told).await;
        };
        if tokio::time::timeout(TELL_WITHIN, told).await.is_err() {
            warn!("the API has not heard of every end, and the machine waits no longer");
        }
        self.note(Times { start, end: Some(self.shared.env.clock.now()) });
        self.progress.send_replace(Progress::Done(self.outcome(&pods, &all)));
        std::future::pending().await
    }

    /// The pods that are to end: those that are here, but for what has ended.
    async fn pods(&self) -> Vec<Arc<Object>> {
        let (answer, answered) = oneshot::channel();
        // Where nobody answers, the agent ends.
        let _ = self.orders.send(Order::Tell(answer)).await;
        let mut pods = answered.await.unwrap_or_default();
        let views = self.shared.views.all();
        pods.retain(|pod| !views.get(pod.uid()).is_some_and(|view| view.ended));
        pods
    }

    async fn end(&self, group: &Group) {
        let (pods, seconds) = (group.pods.len(), group.seconds);
        info!(priority = group.priority, pods, seconds, "pods of this priority and above end");
        self.progress.send_replace(Progress::Ending { priority: group.priority, pods, seconds });
        for (uid, grace_seconds) in &group.pods {
            let (uid, grace_seconds, message) = (uid.clone(), *grace_seconds, MESSAGE.to_owned());
            let end = Termination { uid, grace_seconds, reason: REASON, message, is_event: false };
            // Where nobody takes it, the agent ends.
            let _ = self.orders.send(Order::End(end)).await;
        }
        let uids = group.pods.keys().cloned().collect();
        let ended = self.shared.views.until(&uids, |view| view.ended);
        if tokio::time::timeout(Duration::from_secs(seconds.into()), ended).await.is_err() {
            warn!(priority = group.priority, "the time of these pods is over, and not all have ended");
        }
    }

    fn outcome(&self, pods: &[Arc<Object>], all: &BTreeSet<String>) -> Outcome {
        let views = self.shared.views.all();
        let mut outcome = Outcome::default();
        for pod in pods.iter().filter(|pod| all.contains(pod.uid())) {
            let (ended, told) = views.get(pod.uid()).map_or((true, true), |view| (view.ended, view.told));
            match (ended, told) {
                (false, _) => outcome.running.push(pod.reference().to_string()),
                (true, false) => outcome.untold.push(pod.reference().to_string()),
                (true, true) => {}
            }
            outcome.ended += usize::from(ended);
        }
        outcome
    }

    fn note(&self, times: Times) {
        self.shared.counters.shut_down(times);
        if let Err(error) = times::save(&self.shared.config.data_dir, times) {
            warn!(%error, "the times of the shutdown are not kept");
        }
    }

    fn tell(&self, words: &'static str) {
        info!("{words}");
        let (node, uid) = (&self.shared.config.node_name, self.shared.node_uid());
        self.shared.events.node(node, &uid, Kind::Normal, crate::pod::admit::NODE_SHUTDOWN, words);
    }
}

fn candidate(pod: &Object) -> Candidate {
    Candidate {
        uid: pod.uid().to_owned(),
        priority: pod.i64_at("/spec/priority").unwrap_or(0),
        grace_seconds: grace_seconds(pod),
    }
}

/// Whether the API says of the node that it goes down.
fn is_told(view: &NodeView) -> bool {
    let conditions = view.object.as_ref().map(|node| node.array_at("/status/conditions")).unwrap_or_default();
    let says_so = |message: &Value| message.as_str().is_some_and(|words| words.contains(NOT_READY));
    conditions.iter().any(|c| c["type"] == "Ready" && says_so(&c["message"]))
}
