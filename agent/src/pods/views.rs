//! What the kubelet API may look at: each pod, and what the runtime last said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_kube::{Object, Status};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::pod::cri::log_folder;
use crate::pod::seen::{Container, Seen, State};
use crate::pod::worker::spec_of;
use crate::server::{ContainerRef, PodLookup};

/// A pod, what the runtime last said of it, and how far its worker has come.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    pub pod: Arc<Object>,
    pub seen: Seen,
    /// Names of the containers that wait to run, for the first time or again.
    pub waiting: BTreeSet<String>,
    /// Nothing of it runs, and nothing of it will.
    pub ended: bool,
    /// The API says of it what the agent has to say.
    pub told: bool,
}

pub struct Views {
    log_dir: PathBuf,
    pods: Mutex<BTreeMap<String, PodView>>,
    changed: watch::Sender<()>,
}

impl Views {
    pub fn new(log_dir: PathBuf) -> Views {
        Views { log_dir, pods: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub fn set(&self, uid: &str, view: PodView) {
        self.pods.lock().insert(uid.to_owned(), view);
        self.changed.send_replace(());
    }

    pub fn remove(&self, uid: &str) {
        self.pods.lock().remove(uid);
        self.changed.send_replace(());
    }

    /// Every pod by its uid.
    pub fn all(&self) -> BTreeMap<String, PodView> {
        self.pods.lock().clone()
    }

    /// Waits until it holds of all these pods. Of one that is gone, everything holds.
    pub async fn until(&self, uids: &BTreeSet<String>, holds: impl Fn(&PodView) -> bool) {
        let mut changes = self.changed.subscribe();
        while !uids.iter().all(|uid| self.pods.lock().get(uid).is_none_or(&holds)) {
            // The sender lives as long as the views.
            let _ = changes.changed().await;
        }
    }
}

/// A pod of that name that is on its way out may still be there beside its successor.
fn find<'a>(pods: &'a BTreeMap<String, PodView>, namespace: &str, pod: &str) -> Result<&'a PodView, Status> {
    let mut named = pods.values().filter(|v| v.pod.namespace() == namespace && v.pod.name() == pod);
    let view = named.clone().find(|v| v.pod.deletion_timestamp().is_none()).or_else(|| named.next());
    view.ok_or_else(|| Status::new(404, "NotFound", format!("pods {pod:?} not found")))
}

impl PodLookup for Views {
    fn pods(&self) -> Vec<Arc<Object>> {
        self.pods.lock().values().map(|view| view.pod.clone()).collect()
    }

    fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<ContainerRef, Status> {
        let pods = self.pods.lock();
        let view = find(&pods, namespace, pod)?;
        if spec_of(&view.pod, container).is_none() {
            return Err(Status::bad_request(format!("container {container} is not valid for pod {pod}")));
        }
        let runs = view.seen.runs(container);
        let begun: Vec<&&Container> = runs.iter().filter(|c| c.state != State::Created).collect();
        // Of a container that waits to run again, the last run is the one before, as its status has it.
        let skipped = usize::from(previous && !view.waiting.contains(container));
        let found = match (begun.get(skipped), previous) {
            (Some(found), _) => found,
            (None, true) => {
                let words = format!("previous terminated container {container:?} in pod {pod:?} not found");
                return Err(Status::bad_request(words));
            }
            (None, false) => {
                let words = format!("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating");
                return Err(Status::bad_request(words));
            }
        };
        let file = format!("{}.log", found.attempt);
        Ok(ContainerRef {
            id: found.id.clone(),
            log_path: self.log_dir.join(log_folder(&view.pod)).join(container).join(file),
            running: found.state == State::Running,
        })
    }

    fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, Status> {
        let pods = self.pods.lock();
        let ready = find(&pods, namespace, pod)?.seen.sandboxes.iter().find(|s| s.ready);
        let none = || Status::bad_request(format!("pod {pod:?} is not running: it has no sandbox that is ready"));
        ready.map(|sandbox| sandbox.id.clone()).ok_or_else(none)
    }

    fn is_running(&self, container_id: &str) -> bool {
        let pods = self.pods.lock();
        pods.values().any(|v| v.seen.container(container_id).is_some_and(|c| c.state == State::Running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn run(attempt: u32, state: State) -> Container {
        Container {
            id: format!("id{attempt}"),
            sandbox_id: "s".into(),
            name: "c".into(),
            attempt,
            state,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code: 1,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: String::new(),
            log_path: String::new(),
            termination_log: String::new(),
            termination_from_log: false,
            limits: None,
            user: None,
            mounted_images: BTreeMap::new(),
        }
    }

    fn found(runs: &[Container], waits: bool, previous: bool) -> Option<String> {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}});
        let views = Views::new("/logs".into());
        let waiting = waits.then(|| "c".to_owned()).into_iter().collect();
        let seen = Seen { containers: runs.to_vec(), ..Seen::default() };
        let pod = Arc::new(Object::from_value(pod).unwrap());
        views.set("u", PodView { pod, seen, waiting, ..PodView::default() });
        views.container("n", "p", "c", previous).ok().map(|found| found.id)
    }

    #[test]
    fn the_previous_run_is_the_one_that_the_status_shows_as_last() {
        let id = |n: u32| Some(format!("id{n}"));
        let crashed = [run(0, State::Exited), run(1, State::Exited)];
        assert_eq!(
            (found(&crashed, true, false), found(&crashed, true, true)),
            (id(1), id(1)),
            "it waits to run again"
        );
        assert_eq!((found(&crashed, false, false), found(&crashed, false, true)), (id(1), id(0)), "it has ended");
        let runs = [run(0, State::Exited), run(1, State::Running)];
        assert_eq!((found(&runs, false, false), found(&runs, false, true)), (id(1), id(0)));
        let made = [run(0, State::Exited), run(1, State::Created)];
        assert_eq!((found(&made, true, false), found(&made, true, true)), (id(0), id(0)));
        assert_eq!(found(&[run(0, State::Running)], false, true), None);
    }
}
