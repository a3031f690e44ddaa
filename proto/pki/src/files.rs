//! Private files: 0600, in folders of 0700, replaced as a whole and durable before the call returns.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::PkiError;

/// A chain of certificates with its key stays far below this.
pub const FILE_MAX_BYTES: u64 = 256 << 10;

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { doing, path, source }
}

fn make_folder(folder: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the folder", folder))
}

/// Makes `folder` and what is missing above it, for the owner alone; a folder that is there is closed to others.
pub fn private_folder(folder: &Path) -> Result<(), PkiError> {
    make_folder(folder)?;
    let mode = fs::metadata(folder).map_err(failed("read the mode of", folder))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed("close to others", folder))?;
    }
    Ok(())
}

/// Replaces `path` by `bytes` at one stroke: a reader, or a restart after a power cut, finds the old or the new file.
/// A folder that is already there keeps its mode: it may be shared (`/etc`, `/tmp`), and the file itself is 0600.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = folder.join(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("put in place", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// The file's text; `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(failed("read", path))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(PkiError::TooLarge { path: path.to_owned(), limit_bytes: FILE_MAX_BYTES });
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_the_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/key.pem");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn what_is_not_there_is_none_and_what_is_huge_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(&root.path().join("x")).unwrap().is_none());
        let path = root.path().join("huge");
        fs::write(&path, vec![b'a'; FILE_MAX_BYTES as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(PkiError::TooLarge { .. })));
    }
}
