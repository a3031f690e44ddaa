//! The frame that a controller hangs in: what informers bring becomes keys, and each key has its turns.
//!
//! ```text
//! informers ─▶ keys ─▶ queue ─▶ turn ─▶ rest until something changes
//!                        ▲       │
//!                        ├───────┤ after the wait that the turn asks for
//!                        └───────┘ where it failed: soon, and later each time
//! ```
//! A turn that was overtaken (its object is gone or was changed meanwhile, or another has the name) saw an informer that was
//! behind. It is no failure that anybody is to hear of: what the informer brings queues the key, and so does the back-off.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use gantry_client::{Change, ClientError, Informer, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Context;

/// What the turns of a controller are about: an object's place, mostly.
pub trait Key: Clone + Ord + Hash + Display + std::fmt::Debug + Send + Sync + 'static {}

impl<K: Clone + Ord + Hash + Display + std::fmt::Debug + Send + Sync + 'static> Key for K {}

/// Who has the turns. No key has two at a time.
pub trait Controller: Send + Sync + 'static {
    type Key: Key;

    /// Looks at what there is and does what follows from it. `again` is when to look once more though nothing changes,
    /// however this turn ends.
    fn turn(
        &self,
        key: &Self::Key,
        again: &mut Option<Duration>,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;
}

/// A controller before it runs: what it waits for and what it hears of.
pub struct Frame<K> {
    component: &'static str,
    queue: WorkQueue<K>,
    stop: CancellationToken,
    synced: Vec<BoxFuture<'static, bool>>,
    feeds: Vec<BoxFuture<'static, ()>>,
}

impl<K: Key> Frame<K> {
    pub fn new(component: &'static str, context: &Context) -> Frame<K> {
        let stop = context.stop.clone();
        let queue = WorkQueue::named(queue_name(component), context.client.metrics());
        Frame { component, queue, stop, synced: Vec::new(), feeds: Vec::new() }
    }

    /// For keys that come from elsewhere than from informers.
    pub fn queue(&self) -> WorkQueue<K> {
        self.queue.clone()
    }

    /// No turn begins before this informer has its first list.
    pub fn reads<T: Send + Sync + 'static>(mut self, informer: &Informer<T>) -> Frame<K> {
        let informer = informer.clone();
        self.synced.push(async move { informer.synced().await }.boxed());
        self
    }

    /// Reads the informer, and queues the keys that a change there concerns.
    pub fn hears<T, I>(
        self,
        informer: &Informer<T>,
        concerns: impl Fn(Change<T>) -> I + Send + Sync + 'static,
    ) -> Frame<K>
    where
        T: Send + Sync + 'static,
        I: IntoIterator<Item = K> + Send,
        I::IntoIter: Send,
    {
        self.hears_together(informer, move |changes| changes.into_iter().flat_map(&concerns).collect::<Vec<K>>())
    }

    /// The same where changes that come together are looked at together.
    pub fn hears_together<T: Send + Sync + 'static>(
        mut self,
        informer: &Informer<T>,
        concerns: impl Fn(Vec<Change<T>>) -> Vec<K> + Send + Sync + 'static,
    ) -> Frame<K> {
        let (heard, queue) = (informer.clone(), self.queue.clone());
        let feed = async move {
            let mut changes = heard.subscribe();
            loop {
                concerns(changes.changes().await).into_iter().for_each(|key| queue.add(key));
            }
        };
        self.feeds.push(feed.boxed());
        self.reads(informer)
    }

    /// Gives `controller` its turns, `workers` at a time, until the token ends it.
    pub async fn run<C: Controller<Key = K>>(self, workers: usize, controller: Arc<C>) {
        let Frame { component, queue, stop, synced, feeds } = self;
        for informer in synced {
            informer.await;
        }
        for feed in feeds {
            tokio::spawn(stop.clone().run_until_cancelled_owned(feed));
        }
        let later = queue.clone();
        run_workers(queue, workers, stop, move |key: K| {
            let (controller, later) = (controller.clone(), later.clone());
            async move {
                let mut again = None;
                let done = controller.turn(&key, &mut again).await;
                if let Some(wait) = again {
                    later.add_after(key.clone(), wait);
                }
                done.map_err(|error| told(component, &key, &error))
            }
        })
        .await;
    }
}

/// What dashboards call the queue of a controller.
fn queue_name(component: &'static str) -> &'static str {
    match component {
        "controllermanager" => "disruption",
        "endpointslice-controller" => "endpoint_slice",
        "endpointslicemirroring-controller" => "endpoint_slice_mirroring",
        "garbage-collector" => "garbage_collector_attempt_to_delete",
        "replication-controller" => "replicationmanager",
        "service-account-controller" => "serviceaccount",
        "clusterrole-aggregation-controller" => "ClusterRoleAggregator",
        other => other.strip_suffix("-controller").unwrap_or(other),
    }
}

/// What an object was and what it is, as far as it was there and is.
pub fn sides<T>(change: &Change<T>) -> impl Iterator<Item = &Arc<T>> {
    [&change.before, &change.now].into_iter().flatten()
}

/// The controllers of one kind that the object had and has.
pub fn owners(change: Change<Object>, kind: &'static str) -> Vec<Ref> {
    let owner = |object: &Arc<Object>| {
        let owner = object.controller().filter(|owner| owner["kind"] == kind)?;
        Some(Ref::new(object.namespace(), owner["name"].as_str().unwrap_or("")))
    };
    sides(&change).filter_map(owner).collect()
}

/// Logs how a turn ended that did not do all that it was to.
pub fn told(component: &'static str, key: &impl Display, error: &ClientError) {
    if error.is_not_found() || error.is_conflict() || error.is_already_exists() {
        debug!(component, %key, error = %chain(error), "turn overtaken");
    } else {
        warn!(component, %key, error = %chain(error), "turn failed");
    }
}

#[cfg(test)]
mod tests {
    use super::super::house::House;
    use super::*;
    use gantry_kube::{Status, resource};
    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::time::Instant;

    /// How a turn ends, and when to look again.
    type End = (Result<(), u16>, Option<Duration>);

    /// Writes down its turns, and does as it is told in each.
    struct Recorded {
        begin: Instant,
        turns: Mutex<Vec<(String, u64)>>,
        script: Mutex<Vec<End>>,
    }

    fn refused(code: u16) -> ClientError {
        let reason = if code == 409 { "Conflict" } else { "InternalError" };
        ClientError::Api { call: "PUT".to_owned(), status: Box::new(Status::new(code, reason, "")) }
    }

    impl Controller for Recorded {
        type Key = Ref;

        async fn turn(&self, key: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
            // Timers go off within a millisecond of their moment.
            let moment = self.begin.elapsed().as_millis() as u64 / 5 * 5;
            self.turns.lock().push((key.to_string(), moment));
            let mut script = self.script.lock();
            if script.is_empty() {
                return Ok(());
            }
            let (end, wait) = script.remove(0);
            *again = wait;
            end.map_err(refused)
        }
    }

    async fn turns(script: Vec<End>) -> Vec<(String, u64)> {
        let house = House::new().await;
        let map = json!({"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}});
        house.make(&resource::CONFIG_MAP, map).await;
        let context = house.context();
        let maps = context.informers.root_cas.clone();
        maps.synced().await;
        let controller =
            Arc::new(Recorded { begin: Instant::now(), turns: Mutex::default(), script: Mutex::new(script) });
        let frame = Frame::new("test", &context).hears(&maps, |change| [change.at]);
        tokio::spawn(frame.run(1, controller.clone()));
        tokio::time::sleep(Duration::from_secs(100)).await;
        controller.turns.lock().clone()
    }

    fn at(moments: &[u64]) -> Vec<(String, u64)> {
        moments.iter().map(|moment| ("default/kube-root-ca.crt".to_owned(), *moment)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_rests_and_what_waits_comes_back() {
        assert_eq!(turns(vec![]).await, at(&[0]));
        assert_eq!(turns(vec![(Ok(()), Some(Duration::from_secs(7)))]).await, at(&[0, 7000]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_comes_back_later_each_time_and_does_not_lose_its_wait() {
        for code in [409, 500] {
            let script = vec![(Err(code), Some(Duration::from_secs(7))), (Err(code), None)];
            assert_eq!(turns(script).await, at(&[0, 5, 15, 7000]), "{code}");
        }
    }
}
