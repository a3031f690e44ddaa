//! What each sandbox was given, one file each. A file is written to a temporary name and renamed, so that it is
//! there whole or not at all; a temporary that a crash left is removed at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::{Point, point};

use super::{ById, GATEWAY, NetworkError, PodAddress};

/// A record with every port of a pod in it is some kilobytes.
const RECORD_MAX_BYTES: u64 = 1 << 20;
const FOLDER: &str = "pods";
const ASIDE: &str = "set-aside";
const TEMPORARY: &str = ".new";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As IP headers number it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// Any address of the node where there is none.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub sandbox: String,
    pub ip: Ipv4Addr,
    pub interface: String,
    pub ports: Vec<HostPort>,
}

impl Record {
    pub fn address(&self) -> PodAddress {
        PodAddress { ip: self.ip, gateway: GATEWAY, interface: self.interface.clone() }
    }
}

/// The files, and what they say.
#[derive(Debug)]
pub(super) struct Records {
    run_dir: PathBuf,
    by_id: ById,
    /// Those that were let go, whose links may still be there. To a later start, they are among the others.
    leaving: ById,
    /// Sandboxes whose files say nothing. They lie in `set-aside` now.
    pub damaged: Vec<String>,
}

impl Records {
    pub fn open(run_dir: &Path) -> Result<Records, NetworkError> {
        let folder = run_dir.join(FOLDER);
        let state = |path: &Path| {
            let path = path.to_owned();
            move |source| NetworkError::State { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(state(&folder))?;
        let (mut by_id, mut damaged) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&folder).map_err(state(&folder))? {
            let path = entry.map_err(state(&folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                fs::remove_file(&path).map_err(state(&path))?;
                continue;
            }
            let mut text = Vec::new();
            let file = fs::File::open(&path).map_err(state(&path))?;
            file.take(RECORD_MAX_BYTES).read_to_end(&mut text).map_err(state(&path))?;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) => drop(by_id.insert(record.sandbox.clone(), record)),
                Err(source) => {
                    let error = NetworkError::Decode { path: path.clone(), source };
                    let kept = set_aside(run_dir, &path).map_err(state(&path))?;
                    tracing::error!(error = %gantry_env::chain(&error), kept = %kept.display(), "address record set aside");
                    damaged.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(Records { run_dir: run_dir.to_owned(), by_id, leaving: BTreeMap::new(), damaged })
    }

    pub fn all(&self) -> &ById {
        &self.by_id
    }

    pub fn leaving(&self) -> &ById {
        &self.leaving
    }

    /// From now on the record keeps the address from others, and does nothing else. `remove` ends it.
    pub fn let_go(&mut self, sandbox: &str) {
        self.leaving.extend(self.by_id.remove_entry(sandbox));
    }

    fn path(&self, sandbox: &str) -> Result<PathBuf, NetworkError> {
        let fits = !sandbox.is_empty() && sandbox.len() <= 128;
        if !fits || !sandbox.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(NetworkError::SandboxId(sandbox.to_owned()));
        }
        Ok(self.run_dir.join(FOLDER).join(format!("{sandbox}.json")))
    }

    pub fn put(&mut self, record: Record) -> Result<(), NetworkError> {
        let path = self.path(&record.sandbox)?;
        let text = serde_json::to_vec(&record).map_err(|source| NetworkError::Decode { path: path.clone(), source })?;
        write_atomically(&path, &text).map_err(|source| NetworkError::State { path, source })?;
        self.leaving.remove(&record.sandbox);
        self.by_id.insert(record.sandbox.clone(), record);
        Ok(())
    }

    pub fn remove(&mut self, sandbox: &str) -> Result<(), NetworkError> {
        let path = self.path(sandbox)?;
        point(Point::AddressRemove);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(NetworkError::State { path, source }),
            _ => {
                self.by_id.remove(sandbox);
                self.leaving.remove(sandbox);
                Ok(())
            }
        }
    }

    /// Removes every file, and the folder.
    pub fn destroy(&mut self) -> Result<(), NetworkError> {
        match fs::remove_dir_all(&self.run_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::State { path: self.run_dir.clone(), source })
            }
            _ => {
                self.by_id.clear();
                self.leaving.clear();
                Ok(())
            }
        }
    }
}

fn set_aside(run_dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let folder = run_dir.join(ASIDE);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let kept = folder.join(path.file_name().unwrap_or_default());
    fs::rename(path, &kept)?;
    Ok(kept)
}

/// The folder lies in memory (/run) and ends with the boot, as links and rules do: there is nothing to sync.
pub(super) fn write_atomically(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY.trim_start_matches('.'));
    point(Point::AddressWrite);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    drop(file);
    point(Point::AddressRename);
    fs::rename(&temporary, path)
}
