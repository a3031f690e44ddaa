//! Paths of an image, resolved inside its root by the kernel: no symlink and no `..` leads out, no magic link is taken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// openat2(2): where a `..` meets a rename or a mount, anywhere on the host, the kernel has it tried again.
const TRIES: u32 = 128;

pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), CONFINED) {
            Err(rustix::io::Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

/// Reads a small regular file; a missing one is empty.
pub fn read_bounded(root: BorrowedFd<'_>, path: &Path, max_bytes: usize) -> io::Result<String> {
    let file = match open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::from(file), max_bytes as u64 + 1), &mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is larger than any such file should be"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a folder and those above it; what is there already may be a symlink inside the root.
pub fn make_dir(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let mut walked = PathBuf::from("/");
    let mut at = open(root, &walked, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        walked.push(name);
        at = match open(root, &walked, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => next,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // The parent is a descriptor from inside the root and the name has no slash: nothing to escape by.
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                open(root, &walked, OFlags::PATH | OFlags::DIRECTORY)?
            }
            Err(e) => return Err(e),
        };
    }
    Ok(at)
}

/// Makes an empty file to mount upon, with the folders above it.
pub fn make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Ok(there) => return Ok(there),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let parent = make_dir(root, path.parent().unwrap_or(Path::new("/")))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    open(root, path, OFlags::PATH)
}

/// The mount point for something that is a folder or a file.
pub fn make_target(root: BorrowedFd<'_>, path: &Path, source: &impl AsFd) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode);
    if kind == FileType::Directory { make_dir(root, path) } else { make_file(root, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd =
            rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn symlinks_stay_inside() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../../../..", dir.path().join("up")).unwrap();
        make_dir(fd.as_fd(), Path::new("/out/made")).unwrap();
        make_file(fd.as_fd(), Path::new("/up/file")).unwrap();
        assert!(dir.path().join("made").is_dir());
        assert!(dir.path().join("file").is_file());
    }

    #[test]
    fn a_dangling_link_is_no_way_to_make_things_elsewhere() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("/nowhere/at-all", dir.path().join("etc")).unwrap();
        assert!(make_file(fd.as_fd(), Path::new("/etc/hosts")).is_err());
    }

    #[test]
    fn magic_links_and_devices_are_refused() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("/proc/self/root/etc/passwd", dir.path().join("passwd")).unwrap();
        assert_eq!(read_bounded(fd.as_fd(), Path::new("/passwd"), 10).unwrap(), "");
        std::fs::write(dir.path().join("big"), vec![b'x'; 11]).unwrap();
        assert!(read_bounded(fd.as_fd(), Path::new("/big"), 10).is_err());
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(read_bounded(fd.as_fd(), Path::new("/folder"), 10).is_err());
    }
}
