use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Locks = Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// The names of what is being made: of two requests for the same, the second waits, and finds what the first has made.
#[derive(Debug, Default)]
pub struct Names(Locks);

/// Holds a name, or waits for it, until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    name: String,
    locks: Locks,
    lock: Arc<tokio::sync::Mutex<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Names {
    /// In the order of the requests.
    pub async fn reserve(&self, name: String) -> Reserved {
        let lock = Arc::clone(self.0.lock().entry(name.clone()).or_default());
        let mut reserved = Reserved { name, locks: Arc::clone(&self.0), lock: Arc::clone(&lock), guard: None };
        reserved.guard = Some(lock.lock_owned().await);
        reserved
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.locks.lock();
        // The map's and this one: nobody holds the name or waits for it, and nobody can come before the map is let go.
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_name_is_free_again_once_its_holder_is_done() {
        let names = Names::default();
        let reserve = |name: &str| Box::pin(names.reserve(name.to_owned()));
        let held = reserve("a").now_or_never().unwrap();
        let (mut second, mut third) = (reserve("a"), reserve("a"));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(reserve("b").now_or_never().unwrap());
        drop(held);
        // One that has given up waiting is no hindrance.
        drop(second);
        drop(third.now_or_never().unwrap());
        assert!(names.0.lock().is_empty(), "nothing is kept");
        drop(reserve("a").now_or_never().unwrap());
    }
}
