//! What the kubelet API may look at: each pod, and what the runtime last said of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_kube::{Object, Status};
use parking_lot::Mutex;

use crate::pod::cri::log_folder;
use crate::pod::seen::{Container, Seen, State};
use crate::pod::worker::spec_of;
use crate::server::{ContainerRef, PodLookup};

struct View {
    pod: Arc<Object>,
    seen: Seen,
}

pub struct Views {
    log_dir: PathBuf,
    pods: Mutex<BTreeMap<String, View>>,
}

impl Views {
    pub fn new(log_dir: PathBuf) -> Views {
        Views { log_dir, pods: Mutex::default() }
    }

    pub fn set(&self, uid: &str, pod: Arc<Object>, seen: Seen) {
        self.pods.lock().insert(uid.to_owned(), View { pod, seen });
    }

    pub fn remove(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }
}

impl PodLookup for Views {
    fn pods(&self) -> Vec<Arc<Object>> {
        self.pods.lock().values().map(|view| view.pod.clone()).collect()
    }

    fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<ContainerRef, Status> {
        let pods = self.pods.lock();
        let mut named = pods.values().filter(|v| v.pod.namespace() == namespace && v.pod.name() == pod);
        // A pod of that name that is on its way out may still be there beside its successor.
        let view = named.clone().find(|v| v.pod.deletion_timestamp().is_none()).or_else(|| named.next());
        let view = view.ok_or_else(|| Status::new(404, "NotFound", format!("pods {pod:?} not found")))?;
        if spec_of(&view.pod, container).is_none() {
            return Err(Status::bad_request(format!("container {container} is not valid for pod {pod}")));
        }
        let runs = view.seen.runs(container);
        let begun: Vec<&&Container> = runs.iter().filter(|c| c.state != State::Created).collect();
        let found = match (begun.get(usize::from(previous)), previous) {
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

    fn is_running(&self, container_id: &str) -> bool {
        let pods = self.pods.lock();
        pods.values().any(|v| v.seen.container(container_id).is_some_and(|c| c.state == State::Running))
    }
}
