//! Finds and reads the folder of a registry. Nothing is kept: a change is there with the next pull.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{ClientPair, HostsError, HostsFile, parse};

const HOSTS_FILE_MAX_BYTES: u64 = 256 << 10;
const FOLDER_MAX_ENTRIES: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path:?}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0:?} is no regular file")]
    NoFile(PathBuf),
    #[error("{path:?} has more than {max} {what}")]
    TooLarge { path: PathBuf, max: u64, what: &'static str },
    #[error("{0:?} is no UTF-8")]
    NoText(PathBuf),
    #[error("{path:?} cannot be used")]
    Hosts {
        path: PathBuf,
        #[source]
        source: HostsError,
    },
}

/// What is said of the registry `domain` below the first of `roots` that is there; nothing where it has no folder.
///
/// A file that cannot be used fails the pull: whoever wants all images from a mirror must not get them from elsewhere
/// because of a slip of the pen. (containerd logs it and goes to the registry.)
pub fn load(roots: &[PathBuf], domain: &str) -> Result<HostsFile, LoadError> {
    let Some(root) = roots.iter().find(|root| root.is_dir()) else { return Ok(HostsFile::default()) };
    let Some(folder) = folders(domain).into_iter().map(|name| root.join(name)).find(|folder| folder.is_dir()) else {
        return Ok(HostsFile::default());
    };
    let path = folder.join("hosts.toml");
    match text(&path)? {
        Some(text) if !text.is_empty() => parse(&text, &folder).map_err(|source| LoadError::Hosts { path, source }),
        _ => certificates(&folder),
    }
}

/// The names that a registry's folder may have, the most telling first: a port's colon is no character for every
/// filesystem.
fn folders(domain: &str) -> Vec<String> {
    let spelled = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some(format!("{host}_{port}_")),
        _ => None,
    };
    spelled.into_iter().chain([domain.to_owned(), "_default".to_owned()]).collect()
}

fn text(path: &Path) -> Result<Option<String>, LoadError> {
    let failed = |source| LoadError::Io { path: path.to_owned(), source };
    // Looked at before it is opened: a FIFO would keep this thread.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(LoadError::NoFile(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(HOSTS_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > HOSTS_FILE_MAX_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), max: HOSTS_FILE_MAX_BYTES, what: "bytes" });
    }
    String::from_utf8(bytes).map(Some).map_err(|_| LoadError::NoText(path.to_owned()))
}

/// Docker's layout, where there is no hosts.toml: `*.crt` are authorities, `*.cert` client certificates, each with its
/// key in the `.key` of the same name or behind it in the same file.
fn certificates(folder: &Path) -> Result<HostsFile, LoadError> {
    let failed = |source| LoadError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        if names.len() == FOLDER_MAX_ENTRIES {
            let max = FOLDER_MAX_ENTRIES as u64;
            return Err(LoadError::TooLarge { path: folder.to_owned(), max, what: "entries" });
        }
        names.push(entry.map_err(failed)?.path());
    }
    names.sort();
    let mut file = HostsFile::default();
    let tls = &mut file.server_settings.tls;
    for path in names.into_iter().filter(|path| path.is_file()) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca_files.push(path),
            Some("cert") => {
                let key = Some(path.with_extension("key")).filter(|key| key.exists());
                tls.clients.push(ClientPair { certificate: path, key });
            }
            _ => {}
        }
    }
    Ok(file)
}
