//! The container's root and its volumes, made in the creator's own mount namespace. Volume trees are cloned from the
//! host's namespace first, while their peer groups are still there, and put in place inside the container later.
//!
//! Where the pod has users of its own, layers and image volumes have their files owned inside by whom the image says; what the
//! container writes above them is its own users' on the disk too. The kernel's overlay takes mapped layers (from 5.19), and
//! makes its working folders as whoever mounts it, which is why the upper ones are not mapped.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_base::launch::{ImageVolume, Launch, Root, Users, Volume};
use gantry_base::layout;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::userns::{self, Opened};
use crate::{inroot, sys};

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("open volume {path:?}: {source}")]
    VolumeSource { path: String, source: io::Error },
    #[error("make volume {path:?} read-only or set its propagation: {source}")]
    VolumeFlags { path: String, source: io::Error },
    #[error("map the ids of the files in {path:?} to the pod's users: {source}")]
    Map { path: String, source: io::Error },
    #[error("give {path:?} to the root of the pod's users: {source}")]
    Upper { path: String, source: io::Error },
    #[error("mount an image at {path:?}: {source}")]
    Image { path: String, source: io::Error },
    #[error("make mount point {path:?} in the image: {source}")]
    MountPoint { path: String, source: io::Error },
    #[error("leave the host's mount namespace: {0}")]
    Unshare(#[source] io::Error),
    #[error("mount the root from {layers} layers: {source}")]
    Overlay { layers: usize, source: io::Error },
    #[error(
        "{layers} layers are too many for one root: their names take {bytes} bytes of options, of {OPTIONS_MAX_BYTES}"
    )]
    TooManyLayers { layers: usize, bytes: usize },
    #[error("a root needs at least one layer")]
    NoLayer,
    #[error("hide {path:?}: {source}")]
    Hide { path: String, source: io::Error },
}

/// A detached copy of each volume's mount, with its flags set. Images come later: see [`open_images`].
pub fn open_volumes(
    volumes: &[Volume],
    images: &[ImageVolume],
    users: Option<&Opened>,
) -> Result<Vec<Option<OwnedFd>>, RootError> {
    let is_image = |n: usize| images.iter().any(|image| image.volume as usize == n);
    let is_mapped = |n: usize| users.filter(|opened| opened.users.mapped.iter().any(|mapped| *mapped as usize == n));
    let open = |(n, volume)| if is_image(n) { Ok(None) } else { open_volume(volume, is_mapped(n)).map(Some) };
    volumes.iter().enumerate().map(open).collect()
}

/// Fills in the volumes that are images. Their layers are joined at `at` for a moment, in the creator's own mount namespace.
pub fn open_images(
    trees: Vec<Option<OwnedFd>>,
    volumes: &[Volume],
    images: &[ImageVolume],
    at: &Path,
    users: Option<&Opened>,
) -> Result<Vec<OwnedFd>, RootError> {
    let open = |(n, tree): (usize, Option<OwnedFd>)| match tree {
        Some(tree) => Ok(tree),
        None => {
            let path = volumes.get(n).map_or_else(String::new, |volume| volume.destination.clone());
            let image = images.iter().find(|image| image.volume as usize == n);
            let failed = |source| RootError::Image { path, source };
            open_image(image.ok_or(RootError::NoLayer)?, at, users)?.map_err(failed)
        }
    };
    trees.into_iter().enumerate().map(open).collect()
}

fn open_image(image: &ImageVolume, at: &Path, users: Option<&Opened>) -> Result<io::Result<OwnedFd>, RootError> {
    let layers = Root { lower: image.layers.clone(), ..Root::default() };
    let root = match users {
        Some(opened) => put_at(&mount_mapped(&layers, at, opened)?, at),
        None => mount_root(&layers, at),
    };
    let tree = part_of(root?, &image.sub_path);
    Ok(rustix::mount::unmount(at, UnmountFlags::DETACH).map_err(io::Error::from).and(tree))
}

/// A part of it can be copied where it is mounted.
fn put_at(tree: &OwnedFd, at: &Path) -> Result<OwnedFd, RootError> {
    let failed = |e: rustix::io::Errno| RootError::Overlay { layers: 1, source: e.into() };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, at, flags).map_err(failed)?;
    rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

fn part_of(root: OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let part = inroot::open(root.as_fd(), &Path::new("/").join(path), OFlags::PATH)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&part, "", flags)?;
    sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE)?;
    Ok(tree)
}

fn open_volume(volume: &Volume, mapped_to: Option<&Opened>) -> Result<OwnedFd, RootError> {
    let path = volume.source.as_str();
    let tree = userns::clone_tree(Path::new(path), true)
        .map_err(|source| RootError::VolumeSource { path: path.to_owned(), source })?;
    if let Some(opened) = mapped_to {
        map_ids(&tree, path, opened)?;
    }
    let failed = |source| RootError::VolumeFlags { path: path.to_owned(), source };
    let propagation = match volume.propagation {
        0 => libc::MS_PRIVATE,
        1 => libc::MS_SLAVE,
        _ => libc::MS_SHARED,
    };
    sys::mount_setattr(tree.as_fd(), true, 0, propagation).map_err(failed)?;
    let mut set = 0;
    if volume.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if volume.no_exec {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    if set != 0 {
        sys::mount_setattr(tree.as_fd(), volume.recursive_read_only, set, 0).map_err(failed)?;
    }
    Ok(tree)
}

fn map_ids(tree: &OwnedFd, path: &str, opened: &Opened) -> Result<(), RootError> {
    userns::map_ids(tree, opened.user.as_fd()).map_err(|source| RootError::Map { path: path.to_owned(), source })
}

/// Leaves the host's mounts behind: nothing that follows is seen outside.
pub fn leave_host_mounts() -> Result<(), RootError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(|e| RootError::Unshare(e.into()))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| RootError::Unshare(e.into()))
}

/// Mounts the root at `at` and opens it.
pub fn mount_root(root: &Root, at: &Path) -> Result<OwnedFd, RootError> {
    let failed = |source: io::Error| RootError::Overlay { layers: root.lower.len(), source };
    match (root.lower.as_slice(), root.upper.is_empty()) {
        ([], _) => return Err(RootError::NoLayer),
        ([only], true) => rustix::mount::mount_bind_recursive(only.as_str(), at).map_err(|e| failed(e.into()))?,
        _ => mount_overlay(root, at)?,
    }
    rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(e.into()))
}

/// The root of a pod with users of its own, mounted nowhere. `at` is needed for a moment, in the creator's own mount namespace.
pub fn mount_mapped(root: &Root, at: &Path, opened: &Opened) -> Result<OwnedFd, RootError> {
    let failed = |source: io::Error| RootError::Overlay { layers: root.lower.len(), source };
    let lower = Root { upper: String::new(), work: String::new(), ..root.clone() };
    let base = match (root.lower.as_slice(), root.upper.is_empty()) {
        ([], _) => return Err(RootError::NoLayer),
        ([only], true) => PathBuf::from(only),
        _ => folder_of_layers(&lower).map_err(failed)?,
    };
    let base = base.as_path();
    let layers = userns::clone_tree(base, false).map_err(failed)?;
    map_ids(&layers, &base.to_string_lossy(), opened)?;
    if root.lower.len() == 1 && root.upper.is_empty() {
        return Ok(layers);
    }
    let mut options = options(&lower, base);
    let mut upper = Vec::new();
    for (name, path) in [("upperdir", &root.upper), ("workdir", &root.work)] {
        if !path.is_empty() {
            let folder = open_upper(path, &opened.users, name == "upperdir")?;
            options.push_str(&format!(",{name}=/proc/self/fd/{}", folder.as_raw_fd()));
            upper.push(folder);
        }
    }
    let options = checked(options, root.lower.len())?;
    // An overlay is made of what is mounted, and stays when that is taken away again.
    rustix::mount::move_mount(&layers, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| failed(e.into()))?;
    let joined = join(root.lower.len(), options, &layers, at).and_then(|()| {
        let tree = userns::clone_tree(at, false).map_err(failed);
        rustix::mount::unmount(at, UnmountFlags::DETACH).map_err(|e| failed(e.into())).and(tree)
    });
    rustix::mount::unmount(at, UnmountFlags::DETACH).map_err(|e| failed(e.into())).and(joined)
}

/// What holds the layers and what their names, which are links, lead to.
fn folder_of_layers(root: &Root) -> io::Result<PathBuf> {
    let mut all = root.clone();
    for layer in &root.lower {
        all.lower.push(std::fs::canonicalize(layer)?.to_string_lossy().into_owned());
    }
    Ok(common_folder(&all).to_owned())
}

/// An overlay's upper folder belongs to its root's owner, the working folder to its mounter.
fn open_upper(path: &str, users: &Users, owned: bool) -> Result<OwnedFd, RootError> {
    let failed = |source| RootError::Upper { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    if owned {
        let (uid, gid) = (Uid::from_raw(users.uids.host), Gid::from_raw(users.gids.host));
        rustix::fs::fchown(&folder, Some(uid), Some(gid)).map_err(|e| failed(e.into()))?;
    }
    Ok(folder)
}

/// mount(2) takes one page of options, with its closing NUL.
const OPTIONS_MAX_BYTES: usize = 4095;

/// Mounts from the folder that all layers have in common, so that the names of as many as an image may have fit into a page.
fn mount_overlay(root: &Root, at: &Path) -> Result<(), RootError> {
    let base = common_folder(root);
    let options = checked(options(root, base), root.lower.len())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(base, flags, Mode::empty())
        .map_err(|e| RootError::Overlay { layers: root.lower.len(), source: e.into() })?;
    join(root.lower.len(), options, &folder, at)
}

fn checked(options: String, layers: usize) -> Result<String, RootError> {
    if options.len() > OPTIONS_MAX_BYTES {
        return Err(RootError::TooManyLayers { layers, bytes: options.len() });
    }
    Ok(options)
}

/// Mounts an overlay at `at`; relative names in its options count from `base`.
fn join(layers: usize, options: String, base: &OwnedFd, at: &Path) -> Result<(), RootError> {
    let failed = |source: io::Error| RootError::Overlay { layers, source };
    let options = CString::new(options).map_err(|e| failed(e.into()))?;
    let back = std::env::current_dir().map_err(failed)?;
    rustix::process::fchdir(base).map_err(|e| failed(e.into()))?;
    let mounted = rustix::mount::mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()));
    std::env::set_current_dir(back).map_err(failed)?;
    mounted.map_err(|e| failed(e.into()))
}

/// The folders that an overlay is made of.
fn parts(root: &Root) -> impl Iterator<Item = &str> {
    let own = [&root.upper, &root.work].into_iter().filter(|path| !path.is_empty());
    root.lower.iter().chain(own).map(String::as_str)
}

fn common_folder(root: &Root) -> &Path {
    let mut base = parts(root).next().and_then(|path| Path::new(path).parent()).unwrap_or(Path::new("/"));
    while let Some(parent) = base.parent().filter(|_| !parts(root).all(|path| Path::new(path).starts_with(base))) {
        base = parent;
    }
    base
}

fn options(root: &Root, base: &Path) -> String {
    let near = |path: &String| {
        let path = Path::new(path);
        escape(&path.strip_prefix(base).unwrap_or(path).to_string_lossy())
    };
    let lower: Vec<String> = root.lower.iter().map(near).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if !root.upper.is_empty() {
        options.push_str(&format!(",upperdir={},workdir={}", near(&root.upper), near(&root.work)));
    }
    options
}

/// A colon or a comma in a layer's path would be taken for the next option.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Makes what will be mounted upon, while the root can still be written. What lies under a filesystem that libcontainer
/// mounts itself is made later, inside it.
pub fn make_mount_points(root: &OwnedFd, volumes: &[Volume], trees: &[OwnedFd], cwd: &str) -> Result<(), RootError> {
    for (volume, tree) in volumes.iter().zip(trees) {
        let path = Path::new(&volume.destination);
        if ["/dev", "/proc", "/sys"].iter().any(|own| path.starts_with(own)) {
            continue;
        }
        inroot::make_target(root.as_fd(), path, tree)
            .map_err(|source| RootError::MountPoint { path: volume.destination.clone(), source })?;
    }
    if !cwd.is_empty() && inroot::open(root.as_fd(), Path::new(cwd), OFlags::PATH).is_err() {
        inroot::make_dir(root.as_fd(), Path::new(cwd))
            .map_err(|source| RootError::MountPoint { path: cwd.to_owned(), source })?;
    }
    Ok(())
}

/// Keeps libcgroups from moving a process that is in the right cgroup already: each such write waits for RCU. The files by which
/// it would have /dev/null over them; `cgroup.kill`, too, so that a failed creation can report before it is killed.
///
/// On v1 it would also read the mount table once for each controller. Where the host has a v2 hierarchy beside them, and the
/// runtime has made the container's cgroup in it, that one is all that libcgroups finds. What is written to v1's files
/// afterwards was opened before. Hooks look for the host's own hierarchies: a container that has some is made the longer way.
pub fn hide_cgroups(launch: &Launch) -> Result<(), RootError> {
    let cgroups = &launch.cgroups;
    if launch.unified {
        return hide_files(cgroups, &["cgroup.procs", "cgroup.kill"]);
    }
    let path = cgroups.first().and_then(|folder| below_mount(folder));
    let has_hooks = !launch.start_hooks.0.others.is_empty();
    let Some(path) = path.filter(|path| !has_hooks && Path::new(layout::UNIFIED_BESIDE).join(path).is_dir()) else {
        return hide_files(cgroups, &["cgroup.procs"]);
    };
    rustix::mount::mount_bind(layout::UNIFIED_BESIDE, layout::CGROUPS)
        .map_err(|e| RootError::Hide { path: layout::CGROUPS.to_owned(), source: e.into() })?;
    hide_files(&[format!("{}/{path}", layout::CGROUPS)], &["cgroup.procs", "cgroup.kill"])
}

/// A cgroup's path in its hierarchy, which v1 has mounted in a folder of its own.
fn below_mount(folder: &str) -> Option<&str> {
    let (_, path) = folder.strip_prefix(layout::CGROUPS)?.strip_prefix('/')?.split_once('/')?;
    Some(path).filter(|path| !path.is_empty())
}

fn hide_files(cgroups: &[String], names: &[&str]) -> Result<(), RootError> {
    for path in cgroups.iter().flat_map(|cgroup| names.iter().map(move |name| format!("{cgroup}/{name}"))) {
        match rustix::mount::mount_bind("/dev/null", path.as_str()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(RootError::Hide { path, source: e.into() }),
        }
    }
    Ok(())
}

/// The numbers of descriptors that a forked child will find open.
pub fn numbers(fds: &[OwnedFd]) -> Vec<i32> {
    fds.iter().map(|fd| fd.as_raw_fd()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(layers: usize, state: &str) -> Root {
        Root {
            lower: (0..layers).map(|n| format!("{state}/snapshots/l/{n:016x}")).collect(),
            upper: format!("{state}/snapshots/c/{}/upper", "c".repeat(64)),
            work: format!("{state}/snapshots/c/{}/work", "c".repeat(64)),
            read_only: false,
        }
    }

    #[test]
    fn a_legacy_cgroup_has_one_path_in_every_hierarchy() {
        assert_eq!(below_mount("/sys/fs/cgroup/cpu,cpuacct/gantry/pod/c"), Some("gantry/pod/c"));
        for none in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/", "/somewhere/cpu/gantry", ""] {
            assert_eq!(below_mount(none), None, "{none}");
        }
    }

    #[test]
    fn layers_are_named_from_the_folder_they_share() {
        let two = root(2, "/var/lib/gantry");
        let base = common_folder(&two);
        assert_eq!(base, Path::new("/var/lib/gantry/snapshots"));
        let own = format!("c/{}", "c".repeat(64));
        let expected =
            format!("lowerdir=l/0000000000000000:l/0000000000000001,upperdir={own}/upper,workdir={own}/work");
        assert_eq!(options(&two, base), expected);
        let apart = Root { lower: vec!["/a/b".into(), "/c".into()], ..Root { upper: String::new(), ..root(0, "") } };
        assert_eq!(common_folder(&apart), Path::new("/"));
    }

    #[test]
    fn two_hundred_layers_fit_wherever_they_lie_and_too_many_are_refused_by_number() {
        let many = root(200, &format!("/{}", "deep/".repeat(60)));
        assert!(options(&many, common_folder(&many)).len() <= OPTIONS_MAX_BYTES);
        let error = mount_overlay(&root(300, "/s"), Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().starts_with("300 layers are too many"), "{error}");
    }
}
