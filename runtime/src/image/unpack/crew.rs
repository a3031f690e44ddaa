//! Small files are most of a large layer, and most of their cost is the kernel's: it is shared among the processors. Whoever reads
//! the archive hands them over in batches, and makes a batch itself where nobody is free. Their order among themselves does not
//! matter, for each is new; before anything that could meet one of them, all are waited for.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Scope;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::name::Name;
use super::{UnpackError, complete, write_error};
use crate::image::copy::write_at;
use crate::image::tar::Entry;

/// A larger file is written by whoever reads it.
pub(super) const SMALL_MAX_BYTES: u64 = 32 << 10;
const BATCH_FILES: usize = 32;
const BATCH_BYTES: usize = 128 << 10;
/// Batches that wait for one hand.
const QUEUE: usize = 2;
/// Files that are waited for at the latest, which bounds what is remembered of them.
const PENDING_MAX: usize = 8192;

/// A file as the archive has it, to be made in a folder where nothing has its name.
pub(super) struct SmallFile {
    pub folder: Arc<OwnedFd>,
    pub name: Name,
    pub last: Vec<u8>,
    pub entry: Entry,
    pub data: Vec<u8>,
}

pub(super) fn attribute_bytes(entry: &Entry) -> usize {
    entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl SmallFile {
    fn make(self) -> Result<(), UnpackError> {
        let failed = |action, e: Errno| write_error(&self.name, action, e);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*self.folder, &self.last[..], flags, Mode::from_raw_mode(0o600));
        let file = file.map_err(|e| failed("create", e))?;
        write_at(&file, &self.data, 0).map_err(|e| failed("write", e))?;
        complete(&file, &self.name, &self.entry)
    }
}

type Batch = Vec<SmallFile>;

/// One more thread.
struct Hand {
    batches: SyncSender<Batch>,
    done: Receiver<Result<(), UnpackError>>,
    /// Handed over and not reported yet.
    open: usize,
}

pub(super) struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    hands_max: usize,
    hands: Vec<Hand>,
    batch: Batch,
    batch_bytes: usize,
    /// Their names, by the number of their folder's inode: a folder has many paths.
    pending: HashMap<u64, HashSet<Vec<u8>>>,
    pending_files: usize,
}

impl<'scope, 'env> Crew<'scope, 'env> {
    /// Of that many threads beside the caller's, none is started before there is work for it.
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, hands_max: usize) -> Crew<'scope, 'env> {
        let (hands, batch, pending) = (Vec::new(), Vec::new(), HashMap::new());
        Crew { scope, hands_max, hands, batch, batch_bytes: 0, pending, pending_files: 0 }
    }

    pub(super) fn is_making(&self, folder: u64, last: &[u8]) -> bool {
        self.pending.get(&folder).is_some_and(|names| names.contains(last))
    }

    pub(super) fn make(&mut self, folder: u64, file: SmallFile) -> Result<(), UnpackError> {
        self.pending.entry(folder).or_default().insert(file.last.clone());
        self.pending_files += 1;
        self.batch_bytes += file.data.len() + file.name.byte_len() + attribute_bytes(&file.entry);
        self.batch.push(file);
        if self.pending_files >= PENDING_MAX {
            return self.wait();
        }
        if self.batch.len() < BATCH_FILES && self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.hand_over()
    }

    /// Until all are made.
    pub(super) fn wait(&mut self) -> Result<(), UnpackError> {
        if self.pending_files == 0 {
            return Ok(());
        }
        self.batch_bytes = 0;
        make_all(std::mem::take(&mut self.batch))?;
        for hand in &mut self.hands {
            while hand.open > 0 {
                hand.report(true)?;
            }
        }
        self.pending.clear();
        self.pending_files = 0;
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), UnpackError> {
        let mut batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_FILES));
        self.batch_bytes = 0;
        for hand in &mut self.hands {
            while hand.report(false)? {}
            batch = match hand.take(batch) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
        }
        if self.hands.len() < self.hands_max
            && let Some(mut hand) = Hand::start(self.scope)
        {
            let taken = hand.take(batch);
            self.hands.push(hand);
            return taken.or_else(make_all);
        }
        make_all(batch)
    }
}

fn make_all(batch: Batch) -> Result<(), UnpackError> {
    batch.into_iter().try_for_each(SmallFile::make)
}

impl Hand {
    /// None where the host gives no thread.
    fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Option<Hand> {
        let (batches, theirs) = sync_channel::<Batch>(QUEUE);
        // Reports of all that can be open: nobody waits for the reader to read them.
        let (tell, done) = sync_channel(QUEUE + 1);
        let work = move || {
            while let Ok(batch) = theirs.recv() {
                if tell.send(make_all(batch)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, work).ok()?;
        Some(Hand { batches, done, open: 0 })
    }

    fn take(&mut self, batch: Batch) -> Result<(), Batch> {
        // One that is being made, and those in the queue.
        if self.open > QUEUE {
            return Err(batch);
        }
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.open += 1;
                Ok(())
            }
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => Err(batch),
        }
    }

    /// Hears of one batch, if one is made, or waiting for it; whether it did.
    fn report(&mut self, wait: bool) -> Result<bool, UnpackError> {
        let result = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
        match result {
            Some(result) => {
                self.open -= 1;
                result.map(|()| true)
            }
            None if wait => {
                self.open = 0;
                Err(write_error(&Name::root(), "unpack: a thread has ended", Errno::IO))
            }
            None => Ok(false),
        }
    }
}
