//! The one watch that fills the cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::chain;
use gantry_kube::resource::{self, LEASE};

use super::{Inner, Stored};
use crate::store::{Batch, Revision, StoreError, Watch, kinds};

const LOAD_PAGE_ITEMS: usize = 1000;
const RETRY_MILLISECONDS: u64 = 200;
/// How often a load is begun anew because what it reads was compacted meanwhile, by another API server.
const LOADS_MAX: u32 = 5;

/// Where a load begins to read.
#[derive(Clone, Copy)]
enum Begin {
    /// At the oldest revision that is kept: so the rings are full after a start, and watches go on where they were.
    Oldest,
    /// At the newest: whoever watched has to list again.
    Newest,
}

/// Fills the cache; answers the watch by which it goes on.
pub(super) async fn load(inner: &Inner) -> Result<Box<dyn Watch>, StoreError> {
    let (mut tries, mut begin) = (1, Begin::Oldest);
    loop {
        match (load_once(inner, begin).await, begin) {
            (Err(StoreError::Compacted { .. }), _) if tries < LOADS_MAX => tries += 1,
            // Of what is history nobody may have the key any more.
            (Err(StoreError::Sealed { .. }), Begin::Oldest) => begin = Begin::Newest,
            (done, _) => return done,
        }
    }
}

/// Reads everything as of one revision, then what came since.
async fn load_once(inner: &Inner, begin: Begin) -> Result<Box<dyn Watch>, StoreError> {
    let current = inner.store.current().await?;
    let first = match begin {
        Begin::Oldest => 0,
        Begin::Newest => current,
    };
    let (oldest, mut watch) = match inner.store.watch("", first).await {
        Ok(watch) => (first, watch),
        Err(StoreError::Compacted { oldest, .. }) => (oldest, inner.store.watch("", oldest).await?),
        Err(error) => return Err(error),
    };
    let mut found = read_all(inner, oldest).await?;
    // Of a kind that holds nothing it is known, too, what became of it since: a watch of it goes on.
    let known: Vec<String> = inner.kinds.read().keys().cloned().collect();
    let served = resource::ALL.iter().filter(|resource| !resource.virtual_only).map(|resource| kinds::prefix(resource));
    for kind in known.into_iter().chain(served) {
        found.entry(kind).or_default();
    }
    for (kind, items) in found {
        inner.kind(&kind).load(items, oldest);
    }
    inner.progress.send_replace(oldest);
    while *inner.progress.borrow() < current {
        apply(inner, watch.next().await?)?;
    }
    // A crash may have lost heartbeats that watchers of leases have seen. Those have to list again.
    inner.kind(&kinds::prefix(&LEASE)).forget(current);
    Ok(watch)
}

async fn read_all(inner: &Inner, at: Revision) -> Result<BTreeMap<String, Vec<Stored>>, StoreError> {
    let mut found: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = inner.store.list("", &after, LOAD_PAGE_ITEMS, Some(at)).await?;
        if let Some(last) = page.items.last() {
            after = last.key.as_str().to_owned();
        }
        for item in page.items {
            let kind = item.key.kind().to_owned();
            found.entry(kind).or_default().push(Stored::from_store(item.key, item.revision, item.value)?);
        }
        if !page.more {
            return Ok(found);
        }
    }
}

/// Follows the store until dropped. A position that was compacted away means reading everything again.
pub(super) async fn run(inner: Arc<Inner>, mut watch: Box<dyn Watch>) {
    loop {
        let error = match watch.next().await {
            Ok(batch) => match apply(&inner, batch) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(StoreError::Closed) => return,
            Err(error) => error,
        };
        tracing::warn!(error = chain(&error), "the watch of the store ended, reading everything again");
        watch = loop {
            match load(&inner).await {
                Ok(watch) => break watch,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the store cannot be read");
                    tokio::time::sleep(Duration::from_millis(RETRY_MILLISECONDS)).await;
                }
            }
        };
    }
}

fn apply(inner: &Inner, batch: Batch) -> Result<(), StoreError> {
    for change in batch.changes {
        inner.kind(change.key.kind()).apply(change)?;
    }
    inner.progress.send_if_modified(|progress| {
        let newer = batch.revision > *progress;
        *progress = batch.revision.max(*progress);
        newer
    });
    Ok(())
}
