//! What of the kernel a container sees: its file systems, device nodes, and what of them is read-only or hidden. All of it is
//! reached by descriptors: a path of the image leads nowhere but into the container's root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_base::launch::{Direct, Node};
use gantry_base::layout;
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::{inroot, sys, userns};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("mount {kind} at {path:?}: {source}")]
    Mount { kind: &'static str, path: &'static str, source: io::Error },
    #[error("make link {path:?}: {source}")]
    Link { path: &'static str, source: io::Error },
    #[error("make device {path:?}: {source}")]
    Node { path: String, source: io::Error },
    #[error("make {path:?} read-only: {source}")]
    ReadOnly { path: String, source: io::Error },
    #[error("hide {path:?}: {source}")]
    Mask { path: String, source: io::Error },
    #[error("terminal: mount it at /dev/console: {0}")]
    Console(#[source] io::Error),
}

const BARE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Where libcontainer and others have them too (OCI runtime specification, config-linux.md, "Dev symbolic links").
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", CORE),
    ("ptmx", "pts/ptmx"),
];
/// Not every kernel has it.
const CORE: &str = "/proc/kcore";

/// Mounts the kernel's file systems in the root, and makes the nodes.
pub fn mount(root: BorrowedFd<'_>, direct: &Direct, unified: bool) -> Result<(), KernelError> {
    let access = if direct.writable_kernel { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    // Seen from outside of the root: what is bound where nothing can be mounted anew.
    let cgroups = match (unified, direct.own_cgroups) {
        (false, _) => None,
        (true, true) => Some(file_system("cgroup2", &[], BARE | access)),
        // Mounted by the host's root, a second one would change how the first is mounted.
        (true, false) => Some(hosts_cgroups()),
    };
    place(root, "proc", "/proc", file_system("proc", &[], BARE))?;
    place(root, "sysfs", "/sys", file_system("sysfs", &[], BARE | access))?;
    if let Some(cgroups) = cgroups {
        place(root, "cgroup2", layout::CGROUPS, cgroups)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    place(root, "tmpfs", "/dev", file_system("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes))?;
    let dev = inroot::open(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|source| KernelError::Mount { kind: "tmpfs", path: "/dev", source })?;
    for folder in ["pts", "mqueue"] {
        rustix::fs::mkdirat(&dev, folder, Mode::from_raw_mode(0o755)).map_err(|e| KernelError::Mount {
            kind: "folder",
            path: "/dev",
            source: e.into(),
        })?;
    }
    let bare = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    place(root, "devpts", "/dev/pts", file_system("devpts", &options, bare))?;
    place(root, "mqueue", "/dev/mqueue", file_system("mqueue", &[], BARE))?;
    let has_core = inroot::open(root, Path::new(CORE), OFlags::PATH).is_ok();
    for (path, target) in LINKS.into_iter().filter(|(_, target)| has_core || *target != CORE) {
        rustix::fs::symlinkat(target, &dev, path).map_err(|e| KernelError::Link { path, source: e.into() })?;
    }
    direct.nodes.iter().try_for_each(|node| {
        make_node(root, node).map_err(|source| KernelError::Node { path: node.path.clone(), source })
    })
}

fn hosts_cgroups() -> io::Result<OwnedFd> {
    let tree = userns::clone_tree(Path::new(layout::CGROUPS), false)?;
    let bare = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(tree.as_fd(), false, bare, 0)?;
    Ok(tree)
}

/// In the container's root, before volumes are: closes what is not to be written to, and hides what is not to be seen.
pub fn close(direct: &Direct, read_only_root: bool) -> Result<(), KernelError> {
    let read_only = |path: &str| {
        let path = path.to_owned();
        move |source| KernelError::ReadOnly { path, source }
    };
    let root = open_root().map_err(read_only("/"))?;
    if read_only_root {
        sys::mount_setattr(root.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0).map_err(read_only("/"))?;
    }
    for path in &direct.read_only {
        let Some(target) = find(root.as_fd(), path).map_err(read_only(path))? else { continue };
        cover_with_itself(&target).map_err(read_only(path))?;
    }
    let mut covers = Covers::default();
    for path in &direct.masked {
        let failed = |source| KernelError::Mask { path: path.clone(), source };
        let Some(target) = find(root.as_fd(), path).map_err(failed)? else { continue };
        covers.hide(root.as_fd(), &target).map_err(failed)?;
    }
    Ok(())
}

/// The container's terminal, as the console that programs look for.
pub fn mount_console(slave: &OwnedFd) -> Result<(), KernelError> {
    let make = || {
        let root = open_root()?;
        let target = inroot::make_file(root.as_fd(), Path::new("/dev/console"))?;
        attach(&copy(slave, OpenTreeFlags::empty())?, &target)
    };
    make().map_err(KernelError::Console)
}

fn open_root() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A new instance, mounted nowhere yet. An option with an empty value is a flag.
fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", kind)?;
    for (name, value) in options {
        match *value {
            "" => rustix::mount::fsconfig_set_flag(fs.as_fd(), *name)?,
            value => rustix::mount::fsconfig_set_string(fs.as_fd(), *name, value)?,
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Mounts at a folder of its own: what an image has there as a link leads the kernel's files elsewhere (CVE-2019-19921,
/// CVE-2023-27561).
fn place(
    root: BorrowedFd<'_>,
    kind: &'static str,
    path: &'static str,
    tree: io::Result<OwnedFd>,
) -> Result<(), KernelError> {
    let done = tree.and_then(|tree| {
        let folder = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let plain = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(root, path, flags, Mode::empty(), plain)
        };
        let target = match folder() {
            Err(rustix::io::Errno::NOENT) => {
                inroot::make_dir(root, Path::new(path))?;
                folder()?
            }
            found => found?,
        };
        attach(&tree, &target)
    });
    done.map_err(|source| KernelError::Mount { kind, path, source })
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

/// A detached copy of what is at a descriptor.
fn copy(of: &OwnedFd, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let always = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(of, "", always | flags)?)
}

/// The mode counts whole: the process has no mask.
fn make_node(root: BorrowedFd<'_>, node: &Node) -> io::Result<()> {
    let path = Path::new(&node.path);
    if !path.starts_with("/dev") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not below /dev"));
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = inroot::make_dir(root, path.parent().unwrap_or(Path::new("/")))?;
    let kind = match node.kind {
        b'b' => FileType::BlockDevice,
        b'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let (mode, number) = (Mode::from_raw_mode(node.mode), rustix::fs::makedev(node.major, node.minor));
    match rustix::fs::mknodat(&parent, name, kind, mode, number) {
        Ok(()) if (node.uid, node.gid) == (0, 0) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?)
        }
        // The host is itself a container of users who make none.
        Err(rustix::io::Errno::PERM) if userns::id_at_most(u32::MAX - 1) < u32::MAX - 1 => {
            let tree = userns::clone_tree(Path::new(&node.source), false)?;
            attach(&tree, &inroot::make_file(root, path)?)
        }
        Err(e) => Err(e.into()),
    }
}

/// What is not there needs no cover.
fn find(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match inroot::open(root, Path::new(path), OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn cover_with_itself(target: &OwnedFd) -> io::Result<()> {
    let tree = copy(target, OpenTreeFlags::AT_RECURSIVE)?;
    let closed = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(tree.as_fd(), true, closed, 0)?;
    attach(&tree, target)
}

/// What is put over the files and folders that are hidden: the container's /dev/null, and one empty folder for all.
#[derive(Default)]
struct Covers {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Covers {
    fn hide(&mut self, root: BorrowedFd<'_>, target: &OwnedFd) -> io::Result<()> {
        let is_folder = FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode) == FileType::Directory;
        match (is_folder, &self.empty, &self.null) {
            (true, Some(cover), _) | (false, _, Some(cover)) => attach(&copy(cover, OpenTreeFlags::empty())?, target),
            // Copies are made of what is mounted: of the first.
            (true, None, _) => {
                let empty = file_system("tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                attach(self.empty.insert(empty), target)
            }
            (false, _, None) => {
                let null = self.null.insert(null(root)?);
                attach(&copy(null, OpenTreeFlags::empty())?, target)
            }
        }
    }
}

/// Proved to be what it is called (CVE-2025-31133).
fn null(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let plain = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let null = rustix::fs::openat2(root, "/dev/null", flags, Mode::empty(), plain)?;
    if is_null(&null)? {
        Ok(null)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/null is something else"))
    }
}

pub fn is_null(fd: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(is_device && stat.st_rdev == rustix::fs::makedev(1, 3))
}
