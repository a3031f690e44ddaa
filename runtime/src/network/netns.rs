//! Network namespaces as files. Whatever must happen inside of one happens on a thread that lives for it alone: a
//! thread that has changed its namespace is never given back to a pool.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;

use gantry_netlink::route::Routes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::statfs;

use crate::fault::{Point, point};

/// The magic number of nsfs.
const NSFS_MAGIC: i64 = 0x6e73_6673;
const LOOPBACK_INDEX: u32 = 1;

pub(super) fn create(path: &Path) -> io::Result<()> {
    if is_netns(path)? {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    point(Point::NetnsMake);
    fs::OpenOptions::new().create(true).append(true).open(path)?;
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        set_up_loopback()?;
        point(Point::NetnsMake);
        mount(Some(own.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })
}

pub(super) fn set_up(path: &Path) -> io::Result<()> {
    inside(std::os::fd::AsFd::as_fd(&fs::File::open(path)?), set_up_loopback)?
}

fn set_up_loopback() -> io::Result<()> {
    Routes::open().and_then(|mut routes| routes.set_up(LOOPBACK_INDEX)).map_err(io::Error::other)
}

pub(super) fn delete(path: &Path) -> io::Result<()> {
    while is_netns(path)? {
        point(Point::NetnsRemove);
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    point(Point::NetnsRemove);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own in the given namespace.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        handle.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}

/// True where a namespace is mounted on the path.
fn is_netns(path: &Path) -> io::Result<bool> {
    match statfs(path) {
        Ok(stat) => Ok(stat.f_type == NSFS_MAGIC),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
