//! The ConfigMaps and Secrets that volumes are made from: each is watched once, for as long as a pod of this node uses it,
//! and its pods hear of every change.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_client::{Client, ClientError, Informer, Scope};
use gantry_env::Env;
use gantry_kube::{Object, Ref, Resource, resource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Which object, by the kind's plural.
type Name = (&'static str, Ref);

pub struct Objects {
    client: Client,
    env: Env,
    stop: CancellationToken,
    watched: Mutex<BTreeMap<Name, Watched>>,
}

struct Watched {
    informer: Informer<Object>,
    /// By pod uid.
    users: BTreeMap<String, Arc<Notify>>,
    _ends_with_its_users: DropGuard,
}

/// A pod's hold on what its volumes are made from.
pub struct Following {
    objects: Arc<Objects>,
    uid: String,
    names: BTreeSet<Name>,
}

impl Objects {
    pub fn new(client: Client, env: Env, stop: CancellationToken) -> Objects {
        Objects { client, env, stop, watched: Mutex::default() }
    }

    /// `changed` is told whenever one of them may have changed.
    pub fn follow(self: &Arc<Self>, pod: &Object, changed: &Arc<Notify>) -> Following {
        let names = names(pod);
        for (kind, at) in &names {
            self.use_one(kind, at, pod.uid(), changed);
        }
        Following { objects: self.clone(), uid: pod.uid().to_owned(), names: names.into_iter().map(key).collect() }
    }

    fn use_one(self: &Arc<Self>, kind: &'static Resource, at: &Ref, uid: &str, changed: &Arc<Notify>) {
        let mut watched = self.watched.lock();
        let users = match watched.entry(key((kind, at.clone()))) {
            Entry::Occupied(known) => &mut known.into_mut().users,
            Entry::Vacant(slot) => {
                let stop = self.stop.child_token();
                let scope = Scope {
                    namespace: Some(at.namespace.clone()),
                    field_selector: format!("metadata.name={}", at.name),
                    ..Scope::default()
                };
                let informer = Informer::spawn(self.client.clone(), kind, scope, self.env.clone(), stop.clone(), |o| o);
                tokio::spawn(stop.clone().run_until_cancelled_owned(tell(
                    self.clone(),
                    slot.key().clone(),
                    informer.clone(),
                )));
                let one = Watched { informer, users: BTreeMap::new(), _ends_with_its_users: stop.drop_guard() };
                &mut slot.insert(one).users
            }
        };
        users.insert(uid.to_owned(), changed.clone());
    }

    /// As it was last heard of; who does not hear of it yet asks.
    pub async fn get(&self, kind: &'static Resource, at: &Ref) -> Result<Option<Arc<Object>>, ClientError> {
        let informer = self.watched.lock().get(&key((kind, at.clone()))).map(|w| w.informer.clone());
        match informer.filter(Informer::is_synced) {
            Some(informer) => Ok(informer.get(at)),
            None => Ok(self.client.find(kind, at).await?.map(Arc::new)),
        }
    }
}

async fn tell(objects: Arc<Objects>, name: Name, informer: Informer<Object>) {
    let mut changes = informer.subscribe();
    loop {
        changes.changes().await;
        let watched = objects.watched.lock();
        watched.get(&name).into_iter().flat_map(|w| w.users.values()).for_each(|changed| changed.notify_one());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut watched = self.objects.watched.lock();
        for name in &self.names {
            let Some(one) = watched.get_mut(name) else { continue };
            one.users.remove(&self.uid);
            if one.users.is_empty() {
                watched.remove(name);
            }
        }
    }
}

fn key((kind, at): (&'static Resource, Ref)) -> Name {
    (kind.plural, at)
}

/// What volumes are made from; what says of itself that it never changes needs no watch, but nobody knows that before.
fn names(pod: &Object) -> Vec<(&'static Resource, Ref)> {
    let mut found = Vec::new();
    let mut add = |kind: &'static Resource, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.push((kind, Ref::new(pod.namespace(), name)));
        }
    };
    for volume in pod.array_at("/spec/volumes") {
        add(&resource::CONFIG_MAP, &volume["configMap"]["name"]);
        add(&resource::SECRET, &volume["secret"]["secretName"]);
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            add(&resource::CONFIG_MAP, &source["configMap"]["name"]);
            add(&resource::SECRET, &source["secret"]["name"]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_source_of_a_volume_is_named() {
        let pod = Object::from_value(json!({"metadata": {"namespace": "n"}, "spec": {"volumes": [
            {"name": "a", "configMap": {"name": "map"}}, {"name": "b", "secret": {"secretName": "secret"}},
            {"name": "c", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "ca"}}, {"secret": {"name": "other"}}]}},
            {"name": "d", "emptyDir": {}},
        ]}}));
        let named: Vec<_> =
            names(&pod.unwrap()).into_iter().map(|(kind, at)| format!("{}/{at}", kind.plural)).collect();
        assert_eq!(named, ["configmaps/n/map", "secrets/n/secret", "configmaps/n/ca", "secrets/n/other"]);
    }
}
