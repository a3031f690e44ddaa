//! An archive's files on disk, under numbers; their names stay in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::super::digest::{Digest, Hasher};
use super::super::disk::{private_folder, remove_below};
use super::super::error::ImageError;
use super::super::layer::{LayerError, LayerLimits, decompress};
use super::super::tar::{Archive, Kind, TarError};
use super::super::unpack::{Name, NameError, parse_name};

/// Two hundred layers, their folders and descriptions, of some hundred images.
const FILES_MAX: usize = 100_000;
const LINKS_MAX: usize = 8;
const COPY_BYTES: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the archive")]
    Tar(#[from] TarError),
    #[error("the archive cannot be decompressed")]
    Decompress(#[source] Box<LayerError>),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the archive has more than {FILES_MAX} files")]
    TooManyFiles,
    #[error("the archive has more than {0} bytes of data")]
    TooLong(u64),
    #[error("names of files and links take more than {0} bytes")]
    TooManyNames(usize),
    #[error("the archive holds {0:?} twice, with different contents")]
    Twice(String),
    #[error("cannot keep the archive in {path:?}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Folder(#[from] Box<ImageError>),
}

#[derive(Clone, Debug)]
pub struct Spooled {
    number: usize,
    pub digest: Digest,
    pub size: u64,
}

/// Removed when dropped.
pub struct Spool {
    folder: PathBuf,
    files: BTreeMap<Name, Spooled>,
    links: BTreeMap<Name, Vec<u8>>,
}

impl Spool {
    pub fn fill(folder: &Path, reader: impl Read, limits: &LayerLimits) -> Result<Spool, SpoolError> {
        private_folder(folder).map_err(Box::new)?;
        let mut spool = Spool { folder: folder.to_owned(), files: BTreeMap::new(), links: BTreeMap::new() };
        let plain = decompress(reader).map_err(|e| SpoolError::Decompress(Box::new(e)))?;
        let mut archive = Archive::new(plain);
        let (mut total, mut names_bytes) = (0_u64, 0_usize);
        while let Some(entry) = archive.next_entry()? {
            if spool.files.len() + spool.links.len() >= FILES_MAX {
                return Err(SpoolError::TooManyFiles);
            }
            let name = parse_name(&entry.path)?;
            names_bytes += name.byte_len() + entry.link.len();
            if names_bytes > limits.unpack.names_max_bytes {
                return Err(SpoolError::TooManyNames(limits.unpack.names_max_bytes));
            }
            match entry.kind {
                Kind::File => {
                    total = total.saturating_add(entry.size);
                    if total > limits.unpack.data_max_bytes {
                        return Err(SpoolError::TooLong(limits.unpack.data_max_bytes));
                    }
                    spool.keep(name, archive.content(&entry))?;
                }
                // Old archives of docker link layers that images share.
                Kind::Symlink => drop(spool.links.insert(name, entry.link)),
                Kind::HardLink => {
                    let target = parse_name(&entry.link)?;
                    spool.links.insert(name, [b"/", target.bytes()].concat());
                }
                _ => {}
            }
        }
        Ok(spool)
    }

    fn keep(&mut self, name: Name, mut data: impl Read) -> Result<(), SpoolError> {
        let number = self.files.len();
        let path = self.folder.join(number.to_string());
        let failed = |source| SpoolError::Write { path: path.clone(), source };
        let mut file = fs::File::create(&path).map_err(failed)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let n = data.read(&mut buffer).map_err(TarError::Read)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(failed)?;
        }
        let size = hasher.bytes();
        let kept = Spooled { number, digest: hasher.finish(), size };
        match self.files.get(&name) {
            Some(before) if before.digest != kept.digest => return Err(SpoolError::Twice(name.to_string())),
            Some(_) => {}
            None => drop(self.files.insert(name, kept)),
        }
        Ok(())
    }

    pub fn path(&self, file: &Spooled) -> PathBuf {
        self.folder.join(file.number.to_string())
    }

    /// A file by its name in the archive, through the archive's own links.
    pub fn find(&self, name: &str) -> Option<&Spooled> {
        let mut name = parse_name(name.as_bytes()).ok()?;
        for _ in 0..LINKS_MAX {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name = resolve(&name, self.links.get(&name)?)?;
        }
        None
    }

    /// A small file's content; none where there is no such file.
    pub fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SpoolError> {
        let Some(file) = self.find(name) else { return Ok(None) };
        if file.size > max {
            return Err(SpoolError::TooLong(max));
        }
        let path = self.path(file);
        fs::read(&path).map(Some).map_err(|source| SpoolError::Write { path, source })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let (Some(parent), Some(name)) = (self.folder.parent(), self.folder.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        if let Err(error) = remove_below(parent, name) {
            tracing::warn!(path = %self.folder.display(), error = %gantry_env::chain(&error), "a spooled archive stays until the next start");
        }
    }
}

/// Where a link in the archive leads, by its text alone: the archive is no file system, and nothing leads out of it.
fn resolve(link: &Name, target: &[u8]) -> Option<Name> {
    let (parent, _) = link.split_last()?;
    let mut parts: Vec<&[u8]> = if target.starts_with(b"/") { Vec::new() } else { parent.components().collect() };
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    parse_name(&parts.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let at = |name: &str| parse_name(name.as_bytes()).unwrap();
        assert_eq!(resolve(&at("a/layer.tar"), b"../b/layer.tar"), Some(at("b/layer.tar")));
        assert_eq!(resolve(&at("a/layer.tar"), b"/b"), Some(at("b")));
        assert_eq!(resolve(&at("a"), b"../../etc/shadow"), None);
    }
}
