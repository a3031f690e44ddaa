//! A shared, projected copy of every object of a kind, kept true by list and watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gantry_env::{Backoff, Env, chain};
use gantry_kube::{Object, Ref, Resource};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Client, ClientError, Query, WatchEvent};

/// Of a list, at a time (client-go: defaultPageSize).
const PAGE_ITEMS: u32 = 500;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// A watch is asked to last between one and two of these, so that a fleet's watches do not end together.
const WATCH_SECONDS: u64 = 300;
/// Two and a half times the interval at which a server sends bookmarks.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(150);

/// Which objects of the kind.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub label_selector: String,
    pub field_selector: String,
}

/// What happened to one key since the subscriber last looked.
#[derive(Debug)]
pub struct Change<T> {
    pub at: Ref,
    /// What the subscriber last saw; `None` where the object is new to it.
    pub before: Option<Arc<T>>,
    /// What is there now; `None` where the object is gone.
    pub now: Option<Arc<T>>,
}

/// A shared informer. Cheap to clone; the loop behind it ends with its token.
pub struct Informer<T> {
    shared: Arc<Shared<T>>,
    synced: watch::Receiver<bool>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Informer { shared: self.shared.clone(), synced: self.synced.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    objects: BTreeMap<Ref, Arc<T>>,
    subscribers: Vec<Weak<Mailbox<T>>>,
}

/// Keys that changed since the subscriber looked: at most one entry a key, whatever happened in between.
struct Mailbox<T> {
    pending: Mutex<BTreeMap<Ref, Option<Arc<T>>>>,
    notify: Notify,
}

/// A stream of changes, coalesced by key. It starts with every object that is there.
pub struct Subscription<T> {
    mailbox: Arc<Mailbox<T>>,
    shared: Arc<Shared<T>>,
}

impl<T: Send + Sync + 'static> Informer<T> {
    /// Starts the loop. `project` keeps of an object what the consumers need.
    pub fn spawn(
        client: Client,
        resource: &'static Resource,
        scope: Scope,
        env: Env,
        stop: CancellationToken,
        project: impl Fn(Object) -> T + Send + Sync + 'static,
    ) -> Informer<T> {
        let shared =
            Arc::new(Shared { state: Mutex::new(State { objects: BTreeMap::new(), subscribers: Vec::new() }) });
        let (synced_tx, synced) = watch::channel(false);
        let reflector = Reflector { client, resource, scope, env, shared: shared.clone(), synced: synced_tx, project };
        tokio::spawn(async move {
            stop.run_until_cancelled(reflector.run()).await;
        });
        Informer { shared, synced }
    }

    /// Waits until the first list is in. `false` when the loop ended first.
    pub async fn synced(&self) -> bool {
        self.synced.clone().wait_for(|done| *done).await.is_ok()
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub fn get(&self, at: &Ref) -> Option<Arc<T>> {
        self.shared.state.lock().objects.get(at).cloned()
    }

    /// Every object, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.shared.state.lock().objects.values().cloned().collect()
    }

    /// Every object of one namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let state = self.shared.state.lock();
        let from = Ref::new(namespace, "");
        state.objects.range(from..).take_while(|(at, _)| at.namespace == namespace).map(|(_, o)| o.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.state.lock().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn subscribe(&self) -> Subscription<T> {
        let mut state = self.shared.state.lock();
        let pending = state.objects.keys().map(|at| (at.clone(), None)).collect();
        let mailbox = Arc::new(Mailbox { pending: Mutex::new(pending), notify: Notify::new() });
        mailbox.notify.notify_one();
        state.subscribers.push(Arc::downgrade(&mailbox));
        Subscription { mailbox, shared: self.shared.clone() }
    }
}

impl<T> Subscription<T> {
    /// Waits for at least one change and takes all that are there. Cancel-safe: nothing is taken before it returns.
    pub async fn changes(&mut self) -> Vec<Change<T>> {
        loop {
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            self.mailbox.notify.notified().await;
        }
    }

    /// The changes that are there now, without waiting.
    pub fn take(&mut self) -> Vec<Change<T>> {
        let state = self.shared.state.lock();
        let pending = std::mem::take(&mut *self.mailbox.pending.lock());
        pending.into_iter().map(|(at, before)| Change { now: state.objects.get(&at).cloned(), at, before }).collect()
    }
}

impl<T> State<T> {
    fn set(&mut self, at: Ref, now: Option<Arc<T>>) {
        let before = match now {
            Some(object) => self.objects.insert(at.clone(), object),
            None => self.objects.remove(&at),
        };
        self.subscribers.retain(|weak| {
            let Some(mailbox) = weak.upgrade() else { return false };
            // The first `before` since the subscriber looked is the one it knows.
            mailbox.pending.lock().entry(at.clone()).or_insert_with(|| before.clone());
            mailbox.notify.notify_one();
            true
        });
    }
}

struct Reflector<T, F> {
    client: Client,
    resource: &'static Resource,
    scope: Scope,
    env: Env,
    shared: Arc<Shared<T>>,
    synced: watch::Sender<bool>,
    project: F,
}

impl<T: Send + Sync + 'static, F: Fn(Object) -> T + Send + Sync + 'static> Reflector<T, F> {
    async fn run(self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.list().await {
                Ok(mut revision) => {
                    self.synced.send_replace(true);
                    backoff.reset();
                    self.follow(&mut revision, &mut backoff).await;
                }
                Err(error) => warn!(resource = %self.resource.qualified(), error = %chain(&error), "list failed"),
            }
            tokio::time::sleep(backoff.next(&self.env.rng)).await;
        }
    }

    fn query(&self, resource_version: &str) -> Query {
        Query {
            label_selector: self.scope.label_selector.clone(),
            field_selector: self.scope.field_selector.clone(),
            resource_version: resource_version.to_owned(),
            ..Query::default()
        }
    }

    /// Page by page: a parsed object is ten times as large as what most consumers keep of it, and of a large cluster no more than a
    /// page is ever there whole.
    async fn list(&self) -> Result<String, ClientError> {
        let mut fresh: BTreeMap<Ref, Arc<T>> = BTreeMap::new();
        let mut query = Query { limit: PAGE_ITEMS, ..self.query("") };
        let revision = loop {
            let page = self.client.list(self.resource, self.scope.namespace.as_deref(), &query).await?;
            let project = |object: Object| (object.reference(), Arc::new((self.project)(object)));
            fresh.extend(page.items.into_iter().map(project));
            if page.continue_token.is_empty() {
                break page.resource_version;
            }
            query.continue_token = page.continue_token;
        };
        let mut state = self.shared.state.lock();
        let gone: Vec<Ref> = state.objects.keys().filter(|at| !fresh.contains_key(*at)).cloned().collect();
        for at in gone {
            state.set(at, None);
        }
        for (at, object) in fresh {
            state.set(at, Some(object));
        }
        Ok(revision)
    }

    /// Watches until the revision is gone; a watch that merely ended or broke goes on where it was.
    async fn follow(&self, revision: &mut String, backoff: &mut Backoff) {
        loop {
            match self.watch_once(revision, backoff).await {
                Ok(()) => debug!(resource = %self.resource.qualified(), "watch ended, watching on"),
                Err(error) if error.is_gone() => return,
                Err(error) => {
                    warn!(resource = %self.resource.qualified(), error = %chain(&error), "watch failed");
                    tokio::time::sleep(backoff.next(&self.env.rng)).await;
                    if error.status().is_some() {
                        return;
                    }
                }
            }
        }
    }

    async fn watch_once(&self, revision: &mut String, backoff: &mut Backoff) -> Result<(), ClientError> {
        let seconds = WATCH_SECONDS + self.env.rng.below(WATCH_SECONDS);
        let mut stream =
            self.client.watch(self.resource, self.scope.namespace.as_deref(), &self.query(revision), seconds).await?;
        // A server that lost its power sends no end: bookmarks come each minute, and the watch ends by its own time.
        let silence = WATCH_SILENCE_MAX;
        loop {
            let Ok(event) = tokio::time::timeout(silence, stream.next()).await else {
                debug!(resource = %self.resource.qualified(), "watch is silent");
                return Ok(());
            };
            let Some(event) = event? else { return Ok(()) };
            backoff.reset();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *revision = object.resource_version().to_owned();
                    let at = object.reference();
                    self.shared.state.lock().set(at, Some(Arc::new((self.project)(object))));
                }
                WatchEvent::Deleted(object) => {
                    *revision = object.resource_version().to_owned();
                    self.shared.state.lock().set(object.reference(), None);
                }
                WatchEvent::Bookmark(at) => *revision = at,
            }
        }
    }
}
