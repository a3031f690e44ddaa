//! CustomResourceDefinitions: whether the names that one asks for are free, and what becomes of its objects when it goes.
//!
//! The names of a group are given by one worker, one definition after another, and what it gave it remembers until the informer has it:
//! no name is given twice. The API serves a kind from the moment when its condition Established is written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, DeleteOptions, Patch, Query};
use gantry_kube::custom::names::{self, Taken};
use gantry_kube::resource::{self, CUSTOM_RESOURCE_DEFINITION};
use gantry_kube::{Object, Ref, Resource};
use parking_lot::Mutex;
use serde_json::json;
use tracing::info;

use super::Context;
use super::frame::{Controller, Frame, sides};
use super::informers::CustomKind;
use crate::registry::strategy::custom::CLEANUP_FINALIZER;

const COMPONENT: &str = "customresourcedefinition-controller";
/// No two turns give names at a time.
const WORKERS: usize = 1;
/// Objects with finalizers of others take their time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    /// The names of all definitions of a group.
    Names(String),
    /// A definition that is being deleted.
    Cleanup(Ref),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Names(group) => write!(f, "names of {group}"),
            Key::Cleanup(at) => write!(f, "{at}"),
        }
    }
}

struct CustomKinds {
    context: Context,
    client: Client,
    /// Definitions as this controller has written them, until the informer has them so.
    written: Mutex<BTreeMap<Ref, Arc<CustomKind>>>,
}

pub async fn run(context: Context) {
    let informer = context.informers.custom_kinds.clone();
    let client = context.client.named(COMPONENT);
    let this = Arc::new(CustomKinds { context, client, written: Mutex::default() });
    let frame = Frame::new(COMPONENT, &this.context).hears(&informer, concerned);
    frame.run(WORKERS, this).await;
}

fn concerned(change: Change<CustomKind>) -> Vec<Key> {
    let mut keys: Vec<Key> = sides(&change).map(|kind| Key::Names(group(&kind.definition).to_owned())).collect();
    keys.extend(change.now.filter(|kind| kind.deleting).map(|_| Key::Cleanup(change.at)));
    keys
}

fn group(definition: &Object) -> &str {
    definition.str_at("/spec/group")
}

impl Controller for CustomKinds {
    type Key = Key;

    async fn turn(&self, key: &Key, again: &mut Option<Duration>) -> Result<(), ClientError> {
        match key {
            Key::Names(group) => self.give_names(group).await,
            Key::Cleanup(at) => {
                if !self.clean_up(at).await? {
                    *again = Some(LOOK_AGAIN);
                }
                Ok(())
            }
        }
    }
}

/// Revisions only grow, so the larger one is the newer.
fn revision(kind: &CustomKind) -> u64 {
    kind.definition.resource_version().parse().unwrap_or(0)
}

impl CustomKinds {
    /// The definitions of a group: those that have names before those that wait for them, the older first.
    fn of_group(&self, wanted: &str) -> Vec<Arc<CustomKind>> {
        let listed = self.context.informers.custom_kinds.list();
        let mut written = self.written.lock();
        let known: BTreeMap<Ref, u64> =
            listed.iter().map(|kind| (kind.definition.reference(), revision(kind))).collect();
        written.retain(|at, own| known.get(at).is_some_and(|known| *known < revision(own)));
        let newest = |kind: Arc<CustomKind>| written.get(&kind.definition.reference()).cloned().unwrap_or(kind);
        let mut all: Vec<_> = listed.into_iter().map(newest).filter(|kind| group(&kind.definition) == wanted).collect();
        let place = |kind: &Arc<CustomKind>| {
            let definition = &kind.definition;
            let waits = definition.str_at("/status/acceptedNames/kind").is_empty();
            (waits, definition.str_at("/metadata/creationTimestamp").to_owned(), definition.name().to_owned())
        };
        all.sort_by_key(place);
        all
    }

    async fn give_names(&self, group: &str) -> Result<(), ClientError> {
        let mut all = self.of_group(group);
        for at in 0..all.len() {
            let mut wanted = all[at].definition.clone();
            let mut taken = built_in(group);
            let others = all.iter().enumerate().filter(|(other, _)| *other != at);
            others.for_each(|(_, other)| taken.by(group, &other.definition));
            let plan = names::plan(&wanted, &taken);
            if !names::apply(&mut wanted, &plan, &self.context.env.clock.now_rfc3339()) {
                continue;
            }
            let reference = wanted.reference();
            let patch = json!({
                "metadata": {"resourceVersion": wanted.resource_version()},
                "status": {"acceptedNames": wanted.get("/status/acceptedNames"),
                    "conditions": wanted.get("/status/conditions")},
            });
            let written =
                self.client.patch(&CUSTOM_RESOURCE_DEFINITION, &reference, "status", Patch::Merge(patch)).await?;
            let written = Arc::new(CustomKind::project(written));
            self.written.lock().insert(reference, written.clone());
            all[at] = written;
        }
        Ok(())
    }

    /// Deletes the objects of a kind that goes; true when none is left and the definition is let go.
    async fn clean_up(&self, at: &Ref) -> Result<bool, ClientError> {
        let found = self.client.find(&CUSTOM_RESOURCE_DEFINITION, at).await?;
        let waits = |object: &Object| object.finalizers().any(|finalizer| finalizer == CLEANUP_FINALIZER);
        let Some(definition) = found.filter(waits) else { return Ok(true) };
        let kind = CustomKind::project(definition);
        if let Some(resource) = kind.resource
            && !self.is_emptied(resource).await?
        {
            return Ok(false);
        }
        let kept: Vec<&str> =
            kind.definition.finalizers().filter(|finalizer| *finalizer != CLEANUP_FINALIZER).collect();
        let patch = json!({"metadata": {"resourceVersion": kind.definition.resource_version(), "finalizers": kept}});
        self.client.patch(&CUSTOM_RESOURCE_DEFINITION, at, "", Patch::Merge(patch)).await?;
        info!(definition = %at, "custom kind removed");
        Ok(true)
    }

    async fn is_emptied(&self, resource: &'static Resource) -> Result<bool, ClientError> {
        let everything = Query::default();
        let mut namespaces: Vec<String> = Vec::new();
        for object in self.client.list(resource, None, &everything).await?.items {
            namespaces.push(object.namespace().to_owned());
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in &namespaces {
            self.client.delete_collection(resource, namespace, &everything, &DeleteOptions::default()).await?;
        }
        Ok(self.client.list(resource, None, &Query { limit: 1, ..everything }).await?.items.is_empty())
    }
}

/// The names of the built-in kinds of a group.
fn built_in(group: &str) -> Taken<'static> {
    let mut taken = Taken::default();
    for resource in resource::served().filter(|resource| resource.group == group) {
        taken.resources.extend([resource.plural, resource.singular]);
        taken.resources.extend(resource.short_names);
        taken.kinds.insert(resource.kind);
    }
    taken
}
