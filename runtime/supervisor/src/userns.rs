//! The user namespace of a pod whose users are not the host's.
//!
//! The promise: **no process that such a container can see or steer has an id or a capability of the host.** It holds because
//!
//! - the namespace is made by the runtime's order alone ([`make`]), from one range of ids for users and one for groups, neither
//!   with the host's root in it (the runtime refuses others, `runtime/src/sandbox/users.rs`), and is found from then on by its
//!   pin alone, which only the host's root can reach. Never by a process of the container, which may have gone into a
//!   namespace of its own making;
//! - whoever goes in becomes its root in the same breath ([`become_root`]): entering gives away the capabilities over the host,
//!   and the three kinds of user and group ids with the supplementary groups are the pod's from there on. The kernel refuses
//!   every id that the namespace does not have;
//! - the container's first process goes in before it has the container's namespaces (libcontainer enters the user namespace
//!   first, and forks afterwards); a further one (`enter.rs`) and the first of shared processes (`first.rs`) are forked by one
//!   that is in. So nobody is born in a pid namespace of the pod who is not of the pod's users;
//! - what goes in cannot be traced from inside until it has become its program: whoever changes its ids is made untraceable
//!   again, and the kernel asks for a capability over the host's namespace in which its memory was made;
//! - namespaces for network, ipc, names and processes are owned by the user namespace, so that capabilities of the container
//!   reach as far as what is the pod's, and proc, sysfs and mqueue can be mounted by the pod's own root;
//! - files of the host are reached as that user. What is mapped (`sys::map_ids`) is named by the runtime; a mount inside the
//!   container never carries back to the host, for propagation both ways is refused.
//!
//! What a container does to a mapped volume it does with the ids that the volume has on disk, as Kubernetes wants it: a setuid
//! program that it leaves in a hostPath volume is one of the host's root. That is the price of the hostPath volume.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use gantry_base::launch::{IdRange, Ids, Users};
use gantry_base::layout;
use nix::sched::CloneFlags;
use nix::sys::wait::waitpid;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::pipe::PipeFlags;

use crate::StartError;
use crate::sys::{self, Forked};

/// What is made with the user namespace, by the names in /proc/PID/ns.
const KINDS: [&str; 4] = ["user", "net", "ipc", "uts"];
const ORDER_MAX_BYTES: u64 = 1 << 14;

/// Opens a namespace of the pod by its pin.
pub fn open_pin(pins: &Path, kind: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(layout::pin(pins, kind), flags, Mode::empty())?)
}

/// Goes into the namespace and becomes its root. The process has no other way back than to end.
pub fn become_root(users: BorrowedFd<'_>) -> io::Result<()> {
    nix::sched::setns(users, CloneFlags::CLONE_NEWUSER)?;
    sys::set_ids(0, 0, &[])?;
    // Where fs.suid_dumpable says so, who changes its ids can be traced.
    sys::set_dumpable(false)
}

/// Why work inside was not done, in words: its error comes from another process.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    #[error("enter the pod's user namespace: {0}")]
    Enter(#[source] io::Error),
    #[error("{0}")]
    Work(String),
}

/// Does work as the root of the namespace, in a process that ends with it.
pub fn inside<E: std::error::Error>(
    users: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<(), E>,
) -> Result<(), InsideError> {
    let (words, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| InsideError::Enter(e.into()))?;
    let pid = match sys::fork_into(None).map_err(InsideError::Enter)? {
        Forked::Parent(pid) => nix::unistd::Pid::from_raw(pid),
        Forked::Child => {
            let done = become_root(users).map_err(InsideError::Enter);
            let done = done.and_then(|()| work().map_err(|e| InsideError::Work(crate::executor::plain(&e))));
            if let Err(error) = &done {
                let _ = rustix::io::write(&theirs, error.to_string().as_bytes());
            }
            sys::exit_now(i32::from(done.is_err()))
        }
    };
    drop(theirs);
    let mut said = String::new();
    let read = File::from(words).read_to_string(&mut said);
    match (waitpid(pid, None), read) {
        (Ok(nix::sys::wait::WaitStatus::Exited(_, 0)), Ok(0)) => Ok(()),
        (Ok(_), Ok(0)) => Err(InsideError::Work("the process in the pod's user namespace was killed".to_owned())),
        (Ok(_), Ok(_)) => Err(InsideError::Work(said)),
        (Err(e), _) => Err(InsideError::Enter(e.into())),
        (_, Err(e)) => Err(InsideError::Enter(e)),
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} {id} is not one of the {length} that the pod's user namespace has")]
pub struct Unmapped {
    kind: &'static str,
    id: u32,
    length: u32,
}

/// Whether the pod's own users have them all.
pub fn check_mapped(ids: &Ids, users: &Users) -> Result<(), Unmapped> {
    let known = |kind, id: u32, length| if id < length { Ok(()) } else { Err(Unmapped { kind, id, length }) };
    known("user", ids.uid, users.uids.length)?;
    ids.groups.iter().chain([&ids.gid]).try_for_each(|gid| known("group", *gid, users.gids.length))
}

/// The largest id of the namespace that the process is in, though not above `wanted`: a short one has few.
pub fn id_at_most(wanted: u32) -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let length = map.split_whitespace().nth(2).and_then(|length| length.parse::<u32>().ok());
    length.map_or(wanted, |length| wanted.min(length.saturating_sub(1)))
}

/// What the maker is told over its standard input, each ended by a zero: the folder for the pins, first id on the host and
/// number of the users, the same of the groups. In place of the pins, `probe:` and a folder: whether all of it could be had,
/// and the files of that folder be mapped.
struct Order {
    pins: PathBuf,
    uids: IdRange,
    gids: IdRange,
}

fn read_order() -> Result<Order, StartError> {
    let mut bytes = Vec::new();
    io::stdin()
        .take(ORDER_MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source| StartError::Step { what: "read standard input", source })?;
    let mut words = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let pins = words.next().filter(|pins| !pins.is_empty()).ok_or(StartError::Usage)?.into();
    let mut number = || words.next()?.to_str()?.parse().ok();
    let mut range = || Some(IdRange { host: number()?, length: number()? });
    let (uids, gids) = (range().ok_or(StartError::Usage)?, range().ok_or(StartError::Usage)?);
    Ok(Order { pins, uids, gids })
}

/// Makes the namespaces and binds them to their pins. What it leaves when it fails is taken away with the sandbox.
pub fn make() -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let order = read_order()?;
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| step("pipe")(e.into()));
    let ((heard, tell), (hear, told)) = (pipe()?, pipe()?);
    let pid = match sys::fork_into(None).map_err(step("fork"))? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            drop((hear, tell));
            be_in_them(&told, &heard)?;
            // Until they are pinned: then the parent goes on, and its end of the pipe with it.
            let _ = rustix::io::read(&heard, &mut [0; 1]);
            sys::exit_now(0)
        }
    };
    drop((heard, told));
    let listen = |what| match rustix::io::read(&hear, &mut [0; 1]) {
        Ok(1) => Ok(()),
        // It has said why.
        Ok(_) => Err(step(what)(io::ErrorKind::BrokenPipe.into())),
        Err(e) => Err(step(what)(e.into())),
    };
    listen("wait for a user namespace")?;
    for (file, range) in [("uid_map", order.uids), ("gid_map", order.gids)] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        std::fs::write(&path, format!("0 {} {}", range.host, range.length)).map_err(|source| StartError::Path {
            what: "write",
            path,
            source,
        })?;
    }
    rustix::io::write(&tell, &[1]).map_err(|e| step("go on")(e.into()))?;
    listen("wait for the pod's namespaces")?;
    match order.pins.to_str().and_then(|pins| pins.strip_prefix("probe:")) {
        Some(folder) => probe(pid, Path::new(folder)),
        None => KINDS.into_iter().try_for_each(|kind| pin(pid, kind, &order.pins)),
    }
}

/// The child: makes the user namespace, and once its ids are there, as its root, what it is to own.
fn be_in_them(told: &OwnedFd, heard: &OwnedFd) -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let tell = || rustix::io::write(told, &[1]).map(drop).map_err(|e| step("say that it is there")(e.into()));
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| step("make a user namespace")(e.into()))?;
    tell()?;
    match rustix::io::read(heard, &mut [0; 1]) {
        Ok(1) => {}
        _ => sys::exit_now(1),
    }
    sys::set_ids(0, 0, &[]).map_err(step("become the root of the user namespace"))?;
    let owned = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    nix::sched::unshare(owned).map_err(|e| step("make the namespaces that it owns")(e.into()))?;
    tell()
}

fn pin(pid: i32, kind: &'static str, pins: &Path) -> Result<(), StartError> {
    let at = layout::pin(pins, kind);
    let bound = File::create(&at).and_then(|_| Ok(rustix::mount::mount_bind(format!("/proc/{pid}/ns/{kind}"), &at)?));
    bound.map_err(|source| StartError::Path { what: "bind a namespace to", path: at, source })
}

/// Whether the kernel maps ids in the file systems that every pod has: that of its root, and tmpfs.
fn probe(pid: i32, folder: &Path) -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let failed = |source: io::Error| StartError::Path { what: "map the ids of files in", path: folder.into(), source };
    let users = File::open(format!("/proc/{pid}/ns/user")).map_err(step("open the user namespace"))?;
    map_ids(&clone_tree(folder, false).map_err(failed)?, users.as_fd()).map_err(failed)?;
    let tmpfs = || -> rustix::io::Result<OwnedFd> {
        let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(fs.as_fd())?;
        rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let made = tmpfs().map_err(|e| step("make a tmpfs")(e.into()))?;
    map_ids(&made, users.as_fd()).map_err(step("map the ids of files in a tmpfs"))
}

pub fn map_ids(tree: &OwnedFd, users: BorrowedFd<'_>) -> io::Result<()> {
    sys::map_ids(tree.as_fd(), users).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::new(error.kind(), "its file system has no mapped ids with this kernel"),
        _ => error,
    })
}

/// A detached copy of what is mounted at a path.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path, flags)?)
}

/// The namespaces of a pod with users of its own, opened while the host's files are seen.
pub struct Opened {
    pub users: Users,
    pub user: OwnedFd,
}

impl Opened {
    pub fn new(users: &Users) -> io::Result<Opened> {
        Ok(Opened { user: open_pin(Path::new(&users.pins), "user")?, users: users.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_the_pod_has_not_are_refused_by_number() {
        let range = |length| IdRange { host: 65_536, length };
        let users = Users { uids: range(1000), gids: range(2000), ..Users::default() };
        let ids = |uid, gid, groups: &[u32]| Ids { uid, gid, groups: groups.to_vec(), home: "/".into() };
        assert_eq!(check_mapped(&ids(999, 1999, &[0, 1000]), &users), Ok(()));
        let unmapped = |kind, id, length| Err(Unmapped { kind, id, length });
        assert_eq!(check_mapped(&ids(1000, 0, &[]), &users), unmapped("user", 1000, 1000));
        assert_eq!(check_mapped(&ids(0, 2000, &[]), &users), unmapped("group", 2000, 2000));
        assert_eq!(check_mapped(&ids(0, 0, &[7, 4000]), &users), unmapped("group", 4000, 2000));
    }
}
