//! The one task that owns the maps: which pods are here, which were admitted, and which worker acts for each.
//!
//! A pod is known by its uid. It comes from the API, a manifest, a checkpoint or the runtime itself; whatever happens to
//! any of these ends here, becomes a [`Desired`], and wakes a worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Informer};
use gantry_kube::pod::{SOURCE_ANNOTATION, is_mirror, is_terminal};
use gantry_kube::{Object, Ref};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::pod::admit::Rejection;
use crate::pod::want::{Failed, Goal, grace_seconds};
use crate::pod::worker::{Desired, Source, Target, Worker};
use crate::runtime::Held;
use crate::shared::Shared;
use crate::source::checkpoint;

pub mod listen;
pub mod orders;
mod room;
mod statics;
pub mod views;

use orders::Order;
use views::PodView;

/// Before checkpoints are believed, the API has this long to say what is wanted.
const API_FIRST: Duration = Duration::from_secs(3);
/// Mirror pods that are missing are made again this often.
const MIRROR_EVERY: Duration = Duration::from_secs(10);

struct Entry {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    /// As the API has it. What the pod was given stands in `desired`.
    wanted: Arc<Object>,
    /// Changes with the runtime's view of the pod; a relist wakes the worker only then.
    print: String,
}

/// What comes in from elsewhere.
pub struct Inputs {
    pub api: Informer<Object>,
    pub manifests: mpsc::Receiver<BTreeMap<String, Object>>,
    pub held: mpsc::Receiver<Vec<Held>>,
    /// Pods of which the runtime has just said something.
    pub touched: mpsc::Receiver<String>,
    pub orders: mpsc::Receiver<Order>,
    /// Who asks whether anything of this is heard.
    pub asked: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Whether the task that owns the maps turns.
#[derive(Clone, Debug)]
pub struct Pulse(pub mpsc::Sender<oneshot::Sender<()>>);

impl Pulse {
    /// Waits for the next turn; false once there is none to come.
    pub async fn beats(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.is_ok() && answered.await.is_ok()
    }
}

pub struct Pods {
    shared: Arc<Shared>,
    stop: CancellationToken,
    entries: BTreeMap<String, Entry>,
    workers: JoinSet<String>,
    mirrors: BTreeMap<Ref, Arc<Object>>,
    /// Static pods as their folder has them, by uid.
    manifests: BTreeMap<String, Arc<Object>>,
    /// What the runtime holds, by uid; `None` until it has said so.
    held: Option<BTreeMap<String, Ref>>,
    api_is_known: bool,
    manifests_are_known: bool,
    swept: bool,
    /// Who has asked which pods there are.
    asking: Vec<oneshot::Sender<Vec<Arc<Object>>>>,
}

impl Pods {
    pub fn new(shared: Arc<Shared>, stop: CancellationToken) -> Pods {
        Pods {
            shared,
            stop,
            entries: BTreeMap::new(),
            workers: JoinSet::new(),
            mirrors: BTreeMap::new(),
            manifests: BTreeMap::new(),
            held: None,
            api_is_known: false,
            manifests_are_known: false,
            swept: false,
            asking: Vec::new(),
        }
    }

    pub async fn run(mut self, mut inputs: Inputs) {
        let stop = self.stop.clone();
        let known = stop.run_until_cancelled(tokio::time::timeout(API_FIRST, inputs.api.synced())).await;
        if known.is_some_and(|known| known.is_err()) {
            self.start_from_checkpoints();
        }
        let mut changes = inputs.api.subscribe();
        let mut mirrors = tokio::time::interval(MIRROR_EVERY);
        let api = inputs.api.clone();
        let mut shutting_down = self.shared.shutting_down.clone();
        let (mut node, mut node_is_known) = (self.shared.node.clone(), false);
        loop {
            tokio::select! {
                biased;
                // Ends the workers too, and touches no container.
                () = stop.cancelled() => break,
                // join_next takes a result only when it returns it.
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => {
                    if let Ok(uid) = ended {
                        self.ended(&uid);
                    }
                }
                // The first list may be empty, and then no change tells of it. A watch keeps its value.
                _ = api.synced(), if !self.api_is_known => {
                    self.api_is_known = true;
                    self.api_changed(changes.take());
                    self.forget_unknown(&api);
                }
                // Changes are taken only when they are returned.
                list = changes.changes() => self.api_changed(list),
                // Receiving from a channel takes a message only when it returns it; so do the next four.
                Some(order) = inputs.orders.recv() => self.obey(order),
                Some(answer) = inputs.asked.recv() => drop(answer.send(())),
                Some(manifests) = inputs.manifests.recv() => self.manifests_changed(manifests),
                Some(uid) = inputs.touched.recv() => self.touch(&uid),
                Some(held) = inputs.held.recv() => self.relisted(held),
                // Mirrors name their node. A watch keeps its value.
                Ok(()) = async { node.wait_for(|node| node.object.is_some()).await.map(drop) }, if !node_is_known => {
                    node_is_known = true;
                    self.keep_mirrors();
                }
                // As above. A shutdown that is called off lets static pods start again.
                Ok(()) = shutting_down.changed() => self.start_statics(),
                // A tick that is not taken is ready again at once.
                _ = mirrors.tick() => self.keep_mirrors(),
            }
        }
        while self.workers.join_next().await.is_some() {}
    }

    fn start_from_checkpoints(&mut self) {
        for pod in checkpoint::load(&self.shared.config.data_dir) {
            // A static pod is started for its manifest, or not at all.
            if is_static(&pod) {
                continue;
            }
            info!(pod = %pod.reference(), uid = pod.uid(), "starting from the checkpoint, the API is silent");
            let goal = goal_of(&pod);
            self.enter(Arc::new(pod), goal, None, Source::Checkpoint, None);
        }
    }

    /// Once the API has spoken, what only the checkpoint knows is over.
    fn forget_unknown(&mut self, api: &Informer<Object>) {
        let known: std::collections::BTreeSet<String> = api.list().iter().map(|p| p.uid().to_owned()).collect();
        for (uid, entry) in &self.entries {
            let source = entry.desired.borrow().source;
            if source == Source::Checkpoint && !known.contains(uid) {
                forget(entry);
            }
        }
    }

    fn api_changed(&mut self, mut changes: Vec<Change<Object>>) {
        // Pods that ran before come first, and the older before the younger: they keep their place on the node.
        changes.sort_by_key(|change| {
            let pod = change.now.as_deref();
            let fresh = pod.is_some_and(|p| p.str_at("/status/startTime").is_empty());
            (fresh, pod.map(|p| p.str_at("/metadata/creationTimestamp").to_owned()))
        });
        for change in changes {
            let mirrored = [&change.before, &change.now].into_iter().flatten().any(|p| is_mirror(p));
            if mirrored {
                self.mirror_changed(change);
                continue;
            }
            let now_uid = change.now.as_ref().map(|p| p.uid().to_owned());
            if let Some(before) = &change.before
                && now_uid.as_deref() != Some(before.uid())
                && let Some(entry) = self.entries.get(before.uid())
            {
                forget(entry);
            }
            if let Some(pod) = change.now {
                self.api_pod(pod);
            }
        }
    }

    fn api_pod(&mut self, pod: Arc<Object>) {
        let (target, wanted) = (Some(Target::of(&pod)), pod.clone());
        if let Some(entry) = self.entries.get_mut(pod.uid()) {
            entry.wanted = wanted.clone();
        }
        let (pod, resize) = self.give(pod);
        if let Some(entry) = self.entries.get(pod.uid()) {
            let failed = entry.desired.borrow().failed.clone();
            let goal = goal_of(&pod).under(failed.as_ref(), &pod);
            entry.desired.send_modify(|desired| {
                if !matches!(desired.goal, Goal::Forget { .. }) {
                    *desired = Desired { pod, goal, failed, resize, source: Source::Api, report_to: target };
                }
            });
            return;
        }
        self.shared.trace.mark(pod.uid(), 7, "agent heard");
        let goal = goal_of(&pod);
        let failed = match goal {
            // One that ran before has its place; while the node goes down it ends as those do that were known already.
            Goal::Run if !pod.str_at("/status/startTime").is_empty() => {
                self.is_shutting_down().then(crate::shutdown::failed)
            }
            Goal::Run => self.admit(&pod).err().map(|Rejection { reason, message }| {
                warn!(pod = %pod.reference(), reason, "pod rejected");
                Failed { reason, message, disrupted: false, grace_max_seconds: Some(0) }
            }),
            Goal::Fail { .. } | Goal::Stop { .. } | Goal::Forget { .. } => None,
        };
        self.enter(pod.clone(), goal, failed, Source::Api, target);
        if let Some(entry) = self.entries.get_mut(pod.uid()) {
            entry.wanted = wanted;
            entry.desired.send_modify(|desired| desired.resize = resize);
        }
    }

    fn is_shutting_down(&self) -> bool {
        *self.shared.shutting_down.borrow()
    }

    fn enter(
        &mut self,
        pod: Arc<Object>,
        goal: Goal,
        failed: Option<Failed>,
        source: Source,
        report_to: Option<Target>,
    ) {
        let (uid, wanted) = (pod.uid().to_owned(), pod.clone());
        let goal = goal.under(failed.as_ref(), &pod);
        // Until its worker has looked, nothing is known of it but that it is here.
        self.shared.views.set(&uid, PodView { pod: pod.clone(), ..PodView::default() });
        let (desired, receiver) = watch::channel(Desired { pod, goal, failed, resize: None, source, report_to });
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(self.shared.clone(), uid.clone(), receiver, wake.clone());
        let (stop, name) = (self.stop.clone(), uid.clone());
        self.workers.spawn(async move {
            worker.run(stop).await;
            name
        });
        self.entries.insert(uid, Entry { desired, wake, wanted, print: String::new() });
    }

    /// A worker has done its work: its pod is gone.
    fn ended(&mut self, uid: &str) {
        self.entries.remove(uid);
        self.shared.views.remove(uid);
        self.shared.counters.forget(uid);
        if let Some(held) = &mut self.held {
            held.remove(uid);
        }
        self.give_again();
        self.start_statics();
        self.keep_mirrors();
    }

    fn touch(&self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            entry.wake.notify_one();
        }
    }

    /// Wakes who missed an event, and ends what nobody wants.
    fn relisted(&mut self, held: Vec<Held>) {
        let all_known = self.api_is_known && self.has_manifests();
        let at = |pod: &Held| (pod.uid.clone(), Ref::new(pod.namespace.clone(), pod.name.clone()));
        self.held = Some(held.iter().map(at).collect());
        for pod in held {
            let is_wanted = self.manifests.contains_key(&pod.uid);
            if let Some(entry) = self.entries.get_mut(&pod.uid) {
                if entry.print != pod.print {
                    entry.print = pod.print;
                    entry.wake.notify_one();
                }
            } else if !is_wanted && (all_known || pod.is_static && self.manifests_are_known) {
                info!(pod = pod.uid, name = pod.name, "nobody knows this pod any more");
                let object = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "spec": {},
                });
                let object = Object::from_value(object).unwrap_or_default();
                let goal = Goal::Forget { grace_seconds: pod.grace_seconds };
                self.enter(Arc::new(object), goal, None, Source::Runtime, None);
            }
        }
        self.give_again();
        self.start_statics();
        if all_known && !self.swept {
            self.swept = true;
            self.sweep();
        }
        self.answer();
    }

    /// Once a life: what an earlier one was killed over. Such a pod has no sandbox any more, but its folders.
    fn sweep(&mut self) {
        for pod in checkpoint::all(&self.shared.config.data_dir) {
            if !self.entries.contains_key(pod.uid()) && !self.manifests.contains_key(pod.uid()) {
                info!(pod = %pod.reference(), uid = pod.uid(), "only its folders are left");
                self.enter(Arc::new(pod), Goal::Forget { grace_seconds: 0 }, None, Source::Checkpoint, None);
            }
        }
    }
}

/// What is to become of a pod, by its object.
fn goal_of(pod: &Object) -> Goal {
    match pod.deletion_timestamp() {
        Some(_) => Goal::Stop { grace_seconds: grace_seconds(pod) },
        // It has ended: nothing of it runs again, not even where the runtime's records are gone.
        None if is_terminal(pod) => Goal::Fail { grace_seconds: grace_seconds(pod) },
        None => Goal::Run,
    }
}

fn is_static(pod: &Object) -> bool {
    pod.annotation(SOURCE_ANNOTATION) == Some("file")
}

fn forget(entry: &Entry) {
    entry.desired.send_if_modified(|desired| {
        if matches!(desired.goal, Goal::Forget { .. }) {
            return false;
        }
        // The time that it was given to end holds, also where the API forgot it first.
        let goal = Goal::Forget { grace_seconds: grace_seconds(&desired.pod) };
        desired.goal = goal.under(desired.failed.as_ref(), &desired.pod);
        desired.report_to = None;
        true
    });
}
