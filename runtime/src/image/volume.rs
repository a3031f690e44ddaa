//! Volumes that an image declares (OCI image spec, config.md: `Volumes`): a folder of the container's own for each, filled
//! with what the image has at that path. They lie beside the container's other folders, and go with them.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::copy::copy_tree;
use super::disk::{open_folder, private_folder};
use super::error::ImageError;
use super::rootfs::{Rootfs, joined};
use super::unpack::open_in;

/// Makes them, in the order of `paths`, which count from the image's root. The call blocks.
pub(super) fn make(rootfs: &Rootfs, paths: &[String]) -> Result<Vec<PathBuf>, ImageError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    private_folder(&rootfs.volumes)?;
    joined(&rootfs.lower, &rootfs.merged, |root| {
        let numbered = paths.iter().enumerate();
        numbered.map(|(n, path)| fill(root, path, rootfs.volumes.join(n.to_string()))).collect()
    })?
}

fn fill(root: &Path, path: &str, folder: PathBuf) -> Result<PathBuf, ImageError> {
    let failed = |action| {
        let folder = folder.clone();
        move |source| ImageError::Disk { action, path: folder, source }
    };
    std::fs::DirBuilder::new().mode(0o755).create(&folder).map_err(failed("make the volume"))?;
    // mkdir(2) is subject to the umask.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).map_err(failed("make the volume"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|e| failed("open the image for")(e.into()))?;
    let content = match open_in(&root, path.as_bytes(), flags) {
        Ok(content) => content,
        Err(Errno::NOENT) => return Ok(folder),
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(ImageError::NoFolder(path.to_owned())),
        Err(e) => return Err(failed("find the image's content for")(e.into())),
    };
    copy_tree(content, open_folder(&folder)?).map_err(failed("copy the image's content to"))?;
    Ok(folder)
}
