//! A container's root filesystem: the image's layers below, a folder of its own above, joined by overlayfs.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use serde::{Deserialize, Serialize};

use super::error::ImageError;
use super::unpack::open_in;

const CONTAINER_ID_MAX_BYTES: usize = 64;
/// mount(2) takes one page of options, with its closing NUL.
pub const MOUNT_OPTIONS_MAX_BYTES: usize = 4095;

/// Everything that mounting needs. The folders exist; nothing is mounted until [`Rootfs::mount`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The layers' folders, uppermost first, as overlayfs wants them.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty folder to mount on.
    pub merged: PathBuf,
    /// Where the volumes are that its image declares.
    pub volumes: PathBuf,
    /// The options of the overlay with names relative to `base`, so that two hundred layers fit into a page: whoever
    /// mounts stands in `base`.
    pub options: String,
    pub base: PathBuf,
}

/// Which layers a container stands on (kept beside its folders, so that they are known after a restart).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub image: super::digest::Digest,
    pub chains: Vec<super::digest::Digest>,
    /// Layers of the images that it mounts as volumes.
    #[serde(default)]
    pub volumes: Vec<super::digest::Digest>,
}

impl ContainerRecord {
    pub fn layers(&self) -> impl Iterator<Item = &super::digest::Digest> {
        self.chains.iter().chain(&self.volumes)
    }
}

impl Rootfs {
    /// `lower` are names relative to `base`, uppermost first.
    pub(super) fn new(base: &Path, container: &str, lower: &[String]) -> Rootfs {
        let own = format!("c/{container}");
        let options = format!("lowerdir={},upperdir={own}/upper,workdir={own}/work", lower.join(":"));
        Rootfs {
            lower: lower.iter().map(|name| base.join(name)).collect(),
            upper: base.join(&own).join("upper"),
            work: base.join(&own).join("work"),
            merged: base.join(&own).join("merged"),
            volumes: base.join(&own).join("volumes"),
            options,
            base: base.to_owned(),
        }
    }

    /// Mounts the overlay at `target` in the caller's mount namespace. A thread of its own changes its working
    /// directory (and no one else's, by CLONE_FS) to where the short names count from.
    pub fn mount(&self, target: &Path) -> Result<(), ImageError> {
        let failed = |e: nix::Error| ImageError::disk("mount the overlay at", target, e.into());
        std::thread::scope(|scope| {
            let mounter = scope.spawn(|| -> nix::Result<()> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
                nix::unistd::chdir(&self.base)?;
                let flags = MsFlags::empty();
                nix::mount::mount(Some("overlay"), target, Some("overlay"), flags, Some(self.options.as_str()))
            });
            mounter.join().map_err(|_| ImageError::Interrupted)?.map_err(failed)
        })
    }

    /// Takes the overlay at `target` away; nothing mounted there is no error.
    pub fn unmount(target: &Path) -> Result<(), ImageError> {
        match nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(ImageError::disk("unmount", target, e.into())),
        }
    }
}

/// Whether layers have something at `path` once they are joined.
pub(super) fn holds(layers: &[PathBuf], at: &Path, path: &str) -> Result<bool, ImageError> {
    let found = joined(layers, at, |root| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, rustix::fs::Mode::empty())?;
        match open_in(&root, path.as_bytes(), flags) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
            Err(other) => Err(other),
        }
    });
    found?.map_err(|e: rustix::io::Errno| ImageError::disk("look into the layers joined at", at, e.into()))
}

/// Lets `look` see layers (topmost first, all in one folder) joined: in a mount at `at`, an empty folder, that a thread of its
/// own makes where nobody else sees it.
pub(super) fn joined<T: Send>(
    layers: &[PathBuf],
    at: &Path,
    look: impl FnOnce(&Path) -> T + Send,
) -> Result<T, ImageError> {
    let Some(base) = layers.first().and_then(|layer| layer.parent()) else { return Ok(look(at)) };
    if let [only] = layers {
        return Ok(look(only));
    }
    let names: Vec<_> = layers.iter().filter_map(|l| l.file_name()).map(|name| name.to_string_lossy()).collect();
    let options = format!("lowerdir={}", names.join(":"));
    let mount = || -> nix::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        nix::unistd::chdir(base)?;
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        nix::mount::mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
    };
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| mount().map(|()| look(at)));
        let looked = looker.join().map_err(|_| ImageError::Interrupted)?;
        looked.map_err(|e| ImageError::disk("join the layers at", at, e.into()))
    })
}

/// Container ids become file names.
pub(super) fn check_container_id(id: &str) -> Result<(), ImageError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > CONTAINER_ID_MAX_BYTES || id.starts_with('.') || !id.bytes().all(good) {
        return Err(ImageError::ContainerId(id.chars().take(100).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::manifest::LAYERS_MAX;
    use super::super::snapshots::short_name;
    use super::*;

    #[test]
    fn the_most_layers_fit_into_a_page() {
        let name = short_name(&super::super::digest::Digest::of(b""));
        let lower = vec![name; LAYERS_MAX];
        let rootfs = Rootfs::new(Path::new("/x"), &"c".repeat(CONTAINER_ID_MAX_BYTES), &lower);
        assert!(rootfs.options.len() <= MOUNT_OPTIONS_MAX_BYTES, "{}", rootfs.options.len());
    }

    #[test]
    fn ids_are_file_names() {
        for wrong in ["", "..", ".a", "a/b", "a:b", "a,b", "a\\b", &"x".repeat(65)] {
            assert!(check_container_id(wrong).is_err(), "{wrong}");
        }
        assert!(check_container_id("3f_a-b.c").is_ok());
    }
}
