//! `subPath`: a container mounts what lies at a path inside a volume that others may write.
//!
//! Whoever writes the volume may exchange any part of the path under our hands (CVE-2017-1002101, CVE-2021-25741). So the path
//! is walked by the kernel, which leaves the volume over no link, and what it found is held open and bound by that to a place
//! of the pod's own; the runtime binds that place. There is one place for each mount of each container.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open as open_path, openat2};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::{VolumeError, file_error, mount_points};

/// Of the places, in a pod's folder.
pub const FOLDER: &str = "volume-subpaths";
/// A path that changes while it is walked is walked again so often.
const TRIES: usize = 8;

const WALK: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What lies at `sub` in the volume `root`; folders that are missing are made as the volume's own is, where that is wanted.
pub fn open(root: &Path, sub: &str, make: bool) -> io::Result<OwnedFd> {
    let top = open_path(root, PATH | OFlags::DIRECTORY, Mode::empty())?;
    match walk(&top, sub, PATH) {
        Err(Errno::NOENT) if make => {}
        found => return Ok(found?),
    }
    let mode = Mode::from_raw_mode(fstat(&top)?.st_mode & 0o7777);
    let mut parent = walk(&top, ".", PATH | OFlags::DIRECTORY)?;
    let parts: Vec<&str> = sub.split('/').filter(|part| !part.is_empty()).collect();
    for (n, part) in parts.iter().enumerate() {
        let so_far = parts[..=n].join("/");
        parent = match walk(&top, &so_far, PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                match mkdirat(&parent, *part, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                // Whatever the umask is.
                let made =
                    walk(&top, &so_far, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
                fchmod(&made, mode)?;
                made
            }
            found => found?,
        };
    }
    Ok(walk(&top, sub, PATH)?)
}

fn walk(top: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..TRIES {
        match openat2(top, path, flags, Mode::empty(), WALK) {
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// Binds what is held open to a place, which is made. What an earlier run of the container had there goes.
pub fn bind(what: &OwnedFd, place: &Path) -> Result<(), VolumeError> {
    let failed = || file_error("prepare", place);
    clear(place)?;
    let is_folder =
        FileType::from_raw_mode(fstat(what).map_err(io::Error::from).map_err(failed())?.st_mode) == FileType::Directory;
    let made = match place.parent() {
        Some(folder) => fs::create_dir_all(folder),
        None => Ok(()),
    };
    made.map_err(failed())?;
    if is_folder != place.is_dir() && place.exists() {
        let gone = if is_folder { fs::remove_file(place) } else { fs::remove_dir(place) };
        gone.map_err(failed())?;
    }
    let there = match is_folder {
        true => fs::create_dir_all(place),
        false => fs::File::options().create(true).append(true).open(place).map(drop),
    };
    there.map_err(failed())?;
    let held = format!("/proc/thread-self/fd/{}", what.as_raw_fd());
    mount_bind(held, place).map_err(|error| file_error("bind a volume's path to", place)(error.into()))
}

/// Unmounts what is mounted at a place or below it.
pub fn clear(place: &Path) -> Result<(), VolumeError> {
    let Ok(parent) = fs::canonicalize(place.parent().unwrap_or(place)) else { return Ok(()) };
    let place = parent.join(place.file_name().unwrap_or_default());
    let mut points: Vec<PathBuf> = mount_points(&place)?;
    // The innermost first; of several at one place, the last one.
    points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    for point in points {
        let done = unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        done.map_err(|error| file_error("unmount", &point)(error.into()))?;
    }
    Ok(())
}

/// A held path as the kernel names it.
pub fn name_of(what: &OwnedFd) -> io::Result<PathBuf> {
    let name = rustix::fs::readlink(format!("/proc/thread-self/fd/{}", what.as_raw_fd()), Vec::new())?;
    Ok(OsString::from_vec(name.into_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn folders_are_made_and_no_link_leads_out() {
        let root = tempfile::tempdir().unwrap();
        let (volume, outside) = (root.path().join("v"), root.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2770)).unwrap();
        fs::write(volume.join("file"), "x").unwrap();
        symlink("a/b", volume.join("inside")).unwrap();
        symlink("../outside", volume.join("up")).unwrap();
        symlink(&outside, volume.join("away")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        let opened = |sub: &str, make: bool| open(&volume, sub, make).and_then(|fd| name_of(&fd)).ok();
        let real = fs::canonicalize(&volume).unwrap();
        assert_eq!(opened("file", false), Some(real.join("file")));
        assert_eq!(opened("inside", false), Some(real.join("a/b")), "a link that stays inside may be used");
        assert_eq!(opened("new/folder", false), None);
        assert_eq!(opened("new/folder", true), Some(real.join("new/folder")));
        assert_eq!(fs::metadata(volume.join("new/folder")).unwrap().mode() & 0o7777, 0o2770);
        for sub in ["up", "away", "magic", "up/x", "away/x", "../outside", "a/../../outside"] {
            assert_eq!(opened(sub, true), None, "{sub}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    }

    /// Somebody exchanges the path with a link to the host for as long as it is opened.
    #[test]
    fn what_is_exchanged_meanwhile_is_never_outside() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let root = tempfile::tempdir().unwrap();
        let volume = fs::canonicalize(root.path()).unwrap().join("v");
        fs::create_dir_all(volume.join("path/deep")).unwrap();
        symlink("/", volume.join("link")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (swap, ends) = (volume.clone(), stop.clone());
        let swapper = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                renameat_with(CWD, swap.join("path"), CWD, swap.join("link"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut found = 0;
        for _ in 0..20_000 {
            // Refused, or within.
            if let Ok(fd) = open(&volume, "path/deep", false) {
                let name = name_of(&fd).unwrap();
                assert!(name.starts_with(&volume), "{}", name.display());
                found += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(found > 0, "it was never there");
    }

    #[test]
    fn a_place_holds_what_was_found_and_is_cleared() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (volume, place) = (root.path().join("v"), root.path().join("pod/places/0"));
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::write(volume.join("a/file"), "kept").unwrap();
        let seen = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            bind(&open(&volume, "a", false).unwrap(), &place).unwrap();
            // The path is another by now; what was bound is not.
            fs::rename(volume.join("a"), volume.join("b")).unwrap();
            let first = fs::read_to_string(place.join("file")).unwrap();
            bind(&open(&volume, "b/file", false).unwrap(), &place).unwrap();
            let second = fs::read_to_string(&place).unwrap();
            clear(&place).unwrap();
            clear(&place).unwrap();
            (first, second, mount_points(&place).unwrap(), fs::exists(volume.join("b/file")).unwrap())
        });
        assert_eq!(seen.join().unwrap(), ("kept".to_owned(), "kept".to_owned(), Vec::new(), true));
    }
}
