//! A store is filled with what another, or a snapshot, holds. Its revisions go on above the newest of the source, so that for
//! clients they only ever grow: a watch from before gets 410 and lists again.
//!
//! What is half filled is never taken for a store: a file gets its name when it is whole, and in etcd the origin says so
//! until it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::etcd::{self, Filling};
use super::snapshot::{Reader, SnapshotError, Summary};
use super::{Compare, Embedded, Expect, Item, Op, Revision, Store, StoreError, compaction};

const PAGE_ITEMS: usize = 500;
const WRITES_AT_ONCE: usize = 64;
/// A write whose outcome is unknown is looked at, and made again, so often.
const TRIES_MAX: u32 = 20;
/// How far above its snapshot a restored store goes on: what was written after the snapshot may have been seen by clients,
/// and nobody knows how much that was. etcd's documentation recommends the same.
pub const RESTORE_LEAP: Revision = 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("the store cannot be read")]
    Source(#[source] StoreError),
    #[error("the new store cannot be written")]
    Target(#[source] StoreError),
    #[error("etcd cannot be opened")]
    Etcd(#[source] etcd::OpenError),
    #[error("the snapshot {path} cannot be restored", path = path.display())]
    Snapshot {
        path: PathBuf,
        #[source]
        source: SnapshotError,
    },
    #[error("{path} is there already, and would be replaced", path = path.display())]
    Exists { path: PathBuf },
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the new store holds {found} objects, the old one {wanted}")]
    Count { found: usize, wanted: usize },
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> FillError + 'a {
    move |source| FillError::File { doing, path: path.to_owned(), source }
}

/// A new file beside the one whose name it gets.
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    store: Embedded,
    /// The file that is replaced, held so that nobody opens it meanwhile.
    old: Option<Embedded>,
    replace: bool,
}

impl NewFile {
    /// Refuses to replace a file that is there, unless told to. Where there is one, and it can be read, later revisions
    /// are above its own, too.
    pub async fn begin(path: &Path, above: Revision, replace: bool) -> Result<NewFile, FillError> {
        let (mut above, mut old) = (above, None);
        if path.exists() {
            if !replace {
                return Err(FillError::Exists { path: path.to_owned() });
            }
            match Embedded::open_file(path) {
                Ok(opened) => {
                    above = above.max(opened.current().await.map_err(FillError::Source)?);
                    old = Some(opened);
                }
                Err(error @ StoreError::InUse { .. }) => return Err(FillError::Target(error)),
                Err(error) => {
                    tracing::warn!(error = gantry_env::chain(&error), "the file that is replaced cannot be read");
                }
            }
        }
        let temporary = path.with_extension("filling");
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &temporary)(error));
            }
            _ => {}
        }
        let store = Embedded::open_file(&temporary).map_err(FillError::Target)?;
        store.raise(above).await.map_err(FillError::Target)?;
        Ok(NewFile { path: path.to_owned(), temporary, store, old, replace })
    }

    pub fn store(&self) -> &Embedded {
        &self.store
    }

    /// Gives the file its name. The one that had it is kept beside it.
    pub async fn finish(self) -> Result<(), FillError> {
        let NewFile { path, temporary, store, old, replace } = self;
        let current = store.current().await.map_err(FillError::Target)?;
        // Nobody watches how it was filled. This is durable, as a compaction that takes nothing away is not.
        store.raise(current + 1).await.map_err(FillError::Target)?;
        drop(store);
        if path.exists() {
            if !replace {
                return Err(FillError::Exists { path });
            }
            let kept = path.with_extension("replaced");
            std::fs::rename(&path, &kept).map_err(failed("set aside", &path))?;
        }
        drop(old);
        std::fs::rename(&temporary, &path).map_err(failed("put in place", &path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
    }
}

/// Copies all of a store, which nobody writes meanwhile, into a file that gets the name `path`.
pub async fn copy_to_file(from: &dyn Store, path: &Path, replace: bool) -> Result<Summary, FillError> {
    let revision = from.current().await.map_err(FillError::Source)?;
    let file = NewFile::begin(path, revision, replace).await?;
    let summary = copy(from, file.store(), revision).await?;
    file.finish().await?;
    Ok(summary)
}

/// The same into etcd, below a prefix where nothing is, unless what is there is to be replaced.
pub async fn copy_to_etcd(from: &dyn Store, config: &etcd::Config, replace: bool) -> Result<Summary, FillError> {
    let revision = from.current().await.map_err(FillError::Source)?;
    let filling = Filling::begin(config, revision, replace).await.map_err(FillError::Etcd)?;
    let summary = copy(from, filling.store(), revision).await?;
    filling.finish().await.map_err(FillError::Target)?;
    Ok(summary)
}

async fn copy(from: &dyn Store, to: &dyn Store, revision: Revision) -> Result<Summary, FillError> {
    let (mut after, mut records, mut more) = (String::new(), 0, true);
    while more {
        let page = from.list("", &after, PAGE_ITEMS, Some(revision)).await.map_err(FillError::Source)?;
        if let Some(last) = page.items.last() {
            after = last.key.as_str().to_owned();
        }
        more = page.more;
        records += write(to, page.items).await?;
    }
    check(to, records).await?;
    Ok(Summary { revision, records: records as u64 })
}

/// Makes a file of the name `path` that holds what a snapshot does. All of the snapshot is verified before anything is
/// written.
pub async fn restore(snapshot: &Path, path: &Path, replace: bool) -> Result<Summary, FillError> {
    let refused = |source| FillError::Snapshot { path: snapshot.to_owned(), source };
    let open = || {
        let file = std::fs::File::open(snapshot).map_err(failed("open", snapshot))?;
        Reader::new(std::io::BufReader::new(file)).map_err(refused)
    };
    let summary = open()?.verify().map_err(refused)?;
    let file = NewFile::begin(path, summary.revision, replace).await?;
    let current = file.store().current().await.map_err(FillError::Target)?;
    file.store().raise(current + RESTORE_LEAP).await.map_err(FillError::Target)?;
    let (mut reader, mut records) = (open()?, 0);
    loop {
        let page = reader.page(PAGE_ITEMS).map_err(refused)?;
        if page.is_empty() {
            break;
        }
        records += write(file.store(), page).await?;
    }
    check(file.store(), records).await?;
    file.finish().await?;
    Ok(summary)
}

/// Writes items that are not there yet; answers how many. What the source has noted of its own revisions stays behind.
async fn write(to: &dyn Store, items: Vec<Item>) -> Result<usize, FillError> {
    let wanted = items.into_iter().filter(|item| item.key.kind() != compaction::KIND);
    let writes = futures::stream::iter(wanted).map(|item| put(to, item)).buffer_unordered(WRITES_AT_ONCE);
    writes.try_fold(0, async |count, ()| Ok(count + 1)).await
}

async fn put(to: &dyn Store, item: Item) -> Result<(), FillError> {
    let mut tries = 0;
    loop {
        let compare = Compare { key: item.key.clone(), expect: Expect::Absent };
        let op = Op::Put { key: item.key.clone(), value: item.value.clone() };
        match to.write(vec![compare], vec![op]).await {
            Ok(_) => return Ok(()),
            // An earlier try has done it after all.
            Err(StoreError::Conflict(conflict))
                if tries > 0 && conflict.current.as_ref().is_some_and(|found| found.value == item.value) =>
            {
                return Ok(());
            }
            Err(error @ (StoreError::Unknown { .. } | StoreError::Unreachable { .. })) => {
                tries += 1;
                if tries >= TRIES_MAX {
                    return Err(FillError::Target(error));
                }
            }
            Err(error) => return Err(FillError::Target(error)),
        }
    }
}

/// Nothing is there twice, and nothing is missing.
async fn check(to: &dyn Store, wanted: usize) -> Result<(), FillError> {
    let (mut after, mut found, mut more) = (String::new(), 0, true);
    while more {
        let page = to.list("", &after, PAGE_ITEMS, None).await.map_err(FillError::Target)?;
        if let Some(last) = page.items.last() {
            after = last.key.as_str().to_owned();
        }
        (found, more) = (found + page.items.len(), page.more);
    }
    if found == wanted { Ok(()) } else { Err(FillError::Count { found, wanted }) }
}

/// The store in a file that is there: one that is read is not made.
pub fn open_file(path: &Path) -> Result<Arc<dyn Store>, FillError> {
    if !path.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(FillError::File { doing: "open", path: path.to_owned(), source });
    }
    Ok(Arc::new(Embedded::open_file(path).map_err(FillError::Source)?))
}
