//! Generic ephemeral volumes: a claim of the pod's own template, which goes with the pod.

use std::sync::Arc;

use gantry_client::{ClientError, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::resource::PERSISTENT_VOLUME_CLAIM;
use gantry_kube::{Object, Ref};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::dependents::words;
use super::events::Subject;
use super::informers::Pod;
use super::{Context, Recorder};

const COMPONENT: &str = "ephemeral_volume";
const WORKERS: usize = 2;

/// The claims that a pod still needs; or the name of one that is there and is not the pod's.
fn missing(pod: &Pod, claim: impl Fn(&str) -> Option<Arc<Object>>) -> Result<Vec<Object>, String> {
    if !pod.active() {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for (name, template) in &pod.claim_templates {
        match claim(name) {
            None => made.push(make(pod, name, template)),
            Some(found) if found.controller().is_some_and(|owner| owner["uid"] == pod.uid) => {}
            Some(_) => return Err(name.clone()),
        }
    }
    Ok(made)
}

fn make(pod: &Pod, name: &str, template: &Value) -> Object {
    let at = pod.reference();
    let owner = json!({
        "apiVersion": "v1", "kind": "Pod", "name": at.name, "uid": pod.uid, "controller": true,
        "blockOwnerDeletion": true,
    });
    let mut metadata = json!({"name": name, "namespace": at.namespace, "ownerReferences": [owner]});
    for key in ["labels", "annotations"] {
        if let Some(map) = template["metadata"].get(key).filter(|map| map.is_object()) {
            metadata[key] = map.clone();
        }
    }
    let spec = template["spec"].clone();
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
    Object::from_value(body).unwrap_or_default()
}

struct Claims {
    context: Context,
    recorder: Recorder,
    queue: WorkQueue<Ref>,
}

pub async fn run(context: Context) {
    context.informers.pods.synced().await;
    context.informers.claims.synced().await;
    let recorder = context.recorder(COMPONENT);
    let this = Arc::new(Claims { recorder, queue: WorkQueue::new(), context });
    let (queue, stop) = (this.queue.clone(), this.context.stop.clone());
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, stop, move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl Claims {
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let (mut pods, mut claims) = (informers.pods.subscribe(), informers.claims.subscribe());
        loop {
            tokio::select! {
                biased;
                // Every arm waits on a mailbox and takes nothing before it returns.
                () = self.context.stop.cancelled() => return,
                changes = pods.changes() => for change in changes {
                    if change.now.is_some_and(|pod| !pod.claim_templates.is_empty()) {
                        self.queue.add(change.at);
                    }
                },
                changes = claims.changes() => for change in changes {
                    let gone = change.before.filter(|_| change.now.is_none());
                    if let Some(owner) = gone.as_ref().and_then(|gone| gone.controller()).filter(|of| of["kind"] == "Pod") {
                        self.queue.add(Ref::new(change.at.namespace, owner["name"].as_str().unwrap_or("")));
                    }
                },
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&at) else { return Ok(()) };
        let claim = |name: &str| informers.claims.get(&Ref::new(at.namespace.as_str(), name));
        let done = match missing(&pod, claim) {
            Ok(claims) => self.create(&claims).await.map_err(|error| {
                debug!(pod = %at, error = %chain(&error), "claim not made");
                words(&error)
            }),
            Err(name) => Err(format!("PVC {}/{name} was not created for the pod {at}: pod is not owner", at.namespace)),
        };
        done.map_err(|why| {
            warn!(pod = %at, why, "ephemeral volume not made");
            let subject = Subject {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                at: at.clone(),
                uid: pod.uid.clone(),
                resource_version: pod.resource_version.clone(),
            };
            self.recorder.record(&subject, "Warning", "FailedBinding", format!("ephemeral volume: {why}"));
        })
    }

    async fn create(&self, claims: &[Object]) -> Result<(), ClientError> {
        for claim in claims {
            match self.context.client.named(COMPONENT).create(&PERSISTENT_VOLUME_CLAIM, claim).await {
                // The cache was behind; what it brings is looked at again.
                Err(error) if error.is_already_exists() => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "v"}]);
        let metadata = json!({"name": "p", "namespace": "a", "uid": "u"});
        Pod::project(Object::from_value(json!({"metadata": metadata, "spec": {"volumes": volumes}})).unwrap())
    }

    #[test]
    fn a_claim_is_made_once_and_only_the_pods_own_will_do() {
        let made = missing(&pod(), |_| None).unwrap().remove(0);
        assert_eq!((made.name(), made.label("a")), ("p-scratch", Some("b")));
        assert_eq!(made.controller().unwrap()["uid"], "u");
        assert_eq!(made.str_at("/spec/accessModes/0"), "ReadWriteOnce");
        let own = Arc::new(made.clone());
        assert_eq!(missing(&pod(), |_| Some(own.clone())), Ok(Vec::new()));
        let mut foreign = made;
        foreign.metadata_mut().remove("ownerReferences");
        let foreign = Arc::new(foreign);
        assert_eq!(missing(&pod(), |_| Some(foreign.clone())), Err("p-scratch".to_owned()));
        let over = Pod { phase: "Succeeded".to_owned(), ..pod() };
        assert_eq!(missing(&over, |_| None), Ok(Vec::new()));
    }
}
