//! Removal of a tree that an image or a container made: of any depth and width, by names and descriptors alone.
//!
//! A disk may take its time for each file: ext4 with `discard` and without a journal waits for the device whenever a
//! file's blocks become free. So a large tree is removed by several threads, each of which has another file to wait for.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, Scope};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::root::FOLDER;

const THREADS_MAX: usize = 8;
/// Tasks that wait for each thread before there is another: small trees are removed by their caller alone.
const TASKS_PER_THREAD: usize = 8;
/// Entries of one folder that a thread takes on at once.
const ENTRIES_PER_TASK: usize = 128;
/// Where a folder's name would grow with its depth, it gets a new one.
const NAME_MAX_BYTES: usize = 200;

/// Removes `name` in `parent` with all that is below it, however deep: folders are first moved up beside it, so that
/// neither the stack nor the number of open files grows with the depth.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    let state = State { tasks: vec![Task::Folder(name.to_vec())], busy: 0, threads: 1, failure: None };
    let removal =
        Removal { parent: parent.as_fd(), moved: AtomicU64::new(0), state: Mutex::new(state), change: Condvar::new() };
    std::thread::scope(|scope| removal.work(scope));
    removal.state.into_inner().failure.map_or(Ok(()), |errno| Err(errno.into()))
}

struct Removal<'r> {
    parent: BorrowedFd<'r>,
    moved: AtomicU64,
    state: Mutex<State>,
    change: Condvar,
}

struct State {
    tasks: Vec<Task>,
    /// Threads at work, which may lay out more tasks.
    busy: usize,
    threads: usize,
    /// The first: it ends the work of all.
    failure: Option<Errno>,
}

enum Task {
    /// What has this name in the parent.
    Folder(Vec<u8>),
    /// Some of what is in a folder.
    Entries(Arc<Folder>, Vec<CString>),
}

/// Removed by whoever lets go of it last.
struct Folder {
    name: Vec<u8>,
    folder: OwnedFd,
}

impl<'r> Removal<'r> {
    /// Until there is nothing left to do, for any thread.
    fn work<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let mut state = self.state.lock();
        loop {
            if state.failure.is_some() {
                break;
            }
            if let Some(task) = state.tasks.pop() {
                state.busy += 1;
                drop(state);
                let done = self.task(task, scope);
                state = self.state.lock();
                state.busy -= 1;
                if let Err(errno) = done {
                    state.failure.get_or_insert(errno);
                }
            } else if state.busy > 0 {
                self.change.wait(&mut state);
            } else {
                break;
            }
        }
        self.change.notify_all();
    }

    fn task<'s>(&'s self, task: Task, scope: &'s Scope<'s, '_>) -> Result<(), Errno> {
        let (folder, names) = match task {
            Task::Folder(name) => return self.folder(name, scope),
            Task::Entries(folder, names) => (folder, names),
        };
        names.iter().try_for_each(|name| self.entry(&folder, name, scope))?;
        self.let_go(folder, scope)
    }

    fn folder<'s>(&'s self, name: Vec<u8>, scope: &'s Scope<'s, '_>) -> Result<(), Errno> {
        match rustix::fs::unlinkat(self.parent, &name[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
        let flags = FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(self.parent, &name[..], flags, Mode::empty()) {
            // Someone else removes it too.
            Err(Errno::NOENT) => return Ok(()),
            folder => folder?,
        };
        let entries = Dir::read_from(&folder)?;
        let folder = Arc::new(Folder { name, folder });
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            names.push(entry.file_name().to_owned());
            if names.len() == ENTRIES_PER_TASK {
                self.entries(&folder, std::mem::take(&mut names), scope)?;
            }
        }
        self.task(Task::Entries(folder, names), scope)
    }

    /// For others to remove, unless they have enough to do.
    fn entries<'s>(&'s self, folder: &Arc<Folder>, names: Vec<CString>, scope: &'s Scope<'s, '_>) -> Result<(), Errno> {
        let task = Task::Entries(Arc::clone(folder), names);
        if self.state.lock().tasks.len() > THREADS_MAX * TASKS_PER_THREAD {
            return self.task(task, scope);
        }
        self.lay_out(task, scope);
        Ok(())
    }

    fn lay_out<'s>(&'s self, task: Task, scope: &'s Scope<'s, '_>) {
        let mut state = self.state.lock();
        state.tasks.push(task);
        if state.threads < THREADS_MAX && state.tasks.len() > state.threads * TASKS_PER_THREAD {
            // A host that has no thread to spare has those that are at work.
            let spawned = Builder::new().name("removal".into()).spawn_scoped(scope, || self.work(scope));
            state.threads += usize::from(spawned.is_ok());
        }
        self.change.notify_one();
    }

    /// Removes an entry of a folder. A folder that has entries of its own is moved up, and waits there for its turn.
    fn entry<'s>(&'s self, folder: &Folder, entry: &CStr, scope: &'s Scope<'s, '_>) -> Result<(), Errno> {
        for flags in [AtFlags::empty(), AtFlags::REMOVEDIR] {
            match rustix::fs::unlinkat(&folder.folder, entry, flags) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR | Errno::PERM) if flags.is_empty() => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        loop {
            let number = self.moved.fetch_add(1, Ordering::Relaxed) + 1;
            let beside = [&folder.name[..], format!(".{number}").as_bytes()].concat();
            let beside = if beside.len() > NAME_MAX_BYTES { format!("deep.{number}").into_bytes() } else { beside };
            match rustix::fs::renameat(&folder.folder, entry, self.parent, &beside[..]) {
                Ok(()) => self.lay_out(Task::Folder(beside), scope),
                Err(Errno::NOENT) => {}
                // Left by a removal that was cut short.
                Err(Errno::NOTEMPTY | Errno::EXIST) => continue,
                Err(e) => return Err(e),
            }
            return Ok(());
        }
    }

    fn let_go<'s>(&'s self, folder: Arc<Folder>, scope: &'s Scope<'s, '_>) -> Result<(), Errno> {
        let Some(Folder { name, .. }) = Arc::into_inner(folder) else { return Ok(()) };
        match rustix::fs::unlinkat(self.parent, &name[..], AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // A folder that changed while it was read: read it again.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                self.lay_out(Task::Folder(name), scope);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}
