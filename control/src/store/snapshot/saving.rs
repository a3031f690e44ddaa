use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Reader, SnapshotError, Summary};

/// Why a snapshot is not in its file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what came is no whole snapshot")]
    Broken(#[source] SnapshotError),
}

/// A snapshot on its way into a file, which gets its name once all of it is there, durable, and was read again.
pub struct Saving {
    file: PathBuf,
    temporary: PathBuf,
    out: Option<File>,
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SaveError + 'a {
    move |source| SaveError::File { doing, path: path.to_owned(), source }
}

impl Saving {
    pub fn begin(file: &Path) -> Result<Saving, SaveError> {
        let mut temporary = file.as_os_str().to_owned();
        temporary.push(".partial");
        let temporary = PathBuf::from(temporary);
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let out = options.open(&temporary).map_err(failed("create", &temporary))?;
        Ok(Saving { file: file.to_owned(), temporary, out: Some(out) })
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<(), SaveError> {
        match &mut self.out {
            Some(out) => out.write_all(piece).map_err(failed("write", &self.temporary)),
            None => Ok(()),
        }
    }

    pub fn finish(mut self) -> Result<Summary, SaveError> {
        if let Some(out) = &self.out {
            out.sync_all().map_err(failed("sync", &self.temporary))?;
        }
        let back = File::open(&self.temporary).map_err(failed("read", &self.temporary))?;
        let summary = Reader::new(BufReader::new(back)).and_then(Reader::verify).map_err(SaveError::Broken)?;
        std::fs::rename(&self.temporary, &self.file).map_err(failed("put in place", &self.file))?;
        // What has its name is not taken away any more.
        self.out = None;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))?;
        Ok(summary)
    }
}

/// What is not whole is nobody's, and may hold secrets.
impl Drop for Saving {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            // Nothing else can be done about a file that stays.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.snapshot");
        std::fs::write(&file, "the one before").unwrap();
        let mut saving = Saving::begin(&file).unwrap();
        saving.write(b"GANTRYSS\x01\x00\x00\x00").unwrap();
        assert!(matches!(saving.finish(), Err(SaveError::Broken(SnapshotError::Cut { .. }))));
        drop(Saving::begin(&file).unwrap());
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, std::slice::from_ref(&file));
        assert_eq!(std::fs::read_to_string(file).unwrap(), "the one before");
    }
}
