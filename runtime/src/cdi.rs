//! CDI, the Container Device Interface (its SPEC.md, up to 1.1.0): a vendor says in a file what a container needs besides
//! nodes to use a device, and a container asks for the device by its name. [`name`] has what is asked for, [`document`] what
//! a file says, [`resolve`] which file counts, [`inject`] what becomes of it, [`hooks`] how programs of
//! its are told and found again; all of these are pure. [`load`] reads the
//! folders, when a container asks and not before.
//!
//! What these files say is done as the host's root: they give any device and any file of the host, and hooks are programs
//! that run outside the container. So folders and files must be root's, and nobody else's to write.

pub mod document;
pub mod hooks;
pub mod inject;
mod load;
pub mod name;
pub mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;

use parking_lot::Mutex;

use resolve::Found;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CdiError {
    #[error("CDI device {name:?} is not VENDOR/CLASS=NAME: {why}")]
    Name { name: String, why: &'static str },
    #[error("{count} {what} are asked for through CDI, more than {most}")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("unresolvable CDI devices {names}: no specification has them{hint}")]
    Unknown { names: String, hint: String },
    #[error("CDI device {name} is in two specifications of one folder, {first:?} and {second:?}")]
    Conflict { name: String, first: PathBuf, second: PathBuf },
    #[error("CDI device {device} asks for {what}, which is not supported")]
    Unsupported { device: String, what: String },
    #[error("CDI device {device} cannot be given: {why}")]
    Host { device: String, why: String },
}

/// The folders of specifications, later ones before earlier ones, and what was said of their files.
#[derive(Debug)]
pub struct Specifications {
    folders: Vec<PathBuf>,
    told: Mutex<BTreeMap<PathBuf, String>>,
}

impl Specifications {
    pub fn new(folders: Vec<PathBuf>) -> Specifications {
        Specifications { folders, told: Mutex::default() }
    }

    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// What the folders have now. Of a file that cannot be used is told once, until that changes.
    pub fn read(&self) -> Vec<Vec<Found>> {
        let found: Vec<Vec<Found>> = self.folders.iter().map(|folder| load::read(folder)).collect();
        let bad: BTreeMap<PathBuf, String> = found
            .iter()
            .flatten()
            .filter_map(|file| Some((file.path.clone(), file.document.as_ref().err()?.clone())))
            .collect();
        let mut told = self.told.lock();
        for (path, why) in bad.iter().filter(|(path, why)| told.get(*path) != Some(*why)) {
            tracing::warn!(path = %path.display(), why, "CDI specification is left out");
        }
        *told = bad;
        found
    }
}

#[cfg(test)]
mod tests;
