//! Which specification counts: of the folders the last that has the device, and in it there must be one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::CdiError;
use super::document::{Device, Document, Edits};
use super::name::Name;

/// A file of a folder of specifications; in place of a document what is wrong with it.
#[derive(Clone, Debug)]
pub struct Found {
    pub path: PathBuf,
    pub document: Result<Document, String>,
}

/// What is to be done, and for which device.
pub type Wanted<'a> = (&'a Name, &'a Edits);

/// The edits of the devices in the order in which they were asked for; before those of its first device the ones of a whole
/// specification.
pub fn resolve<'a>(folders: &'a [Vec<Found>], names: &'a [Name]) -> Result<Vec<Wanted<'a>>, CdiError> {
    let mut unknown = Vec::new();
    let mut files = BTreeSet::new();
    let mut edits = Vec::new();
    for name in names {
        let Some((path, document, device)) = find(folders, name)? else {
            unknown.push(name.to_string());
            continue;
        };
        if files.insert(path) {
            edits.extend(document.container_edits.as_ref().map(|of_all| (name, of_all)));
        }
        edits.extend(device.container_edits.as_ref().map(|own| (name, own)));
    }
    if unknown.is_empty() {
        return Ok(edits);
    }
    Err(CdiError::Unknown { names: unknown.join(", "), hint: hint(folders) })
}

fn find<'a>(folders: &'a [Vec<Found>], name: &Name) -> Result<Option<(&'a Path, &'a Document, &'a Device)>, CdiError> {
    for folder in folders.iter().rev() {
        let mut having = folder.iter().filter_map(|file| {
            let document = file.document.as_ref().ok().filter(|document| document.kind == name.kind)?;
            let device = document.devices.iter().find(|device| device.name == name.device)?;
            Some((file.path.as_path(), document, device))
        });
        match (having.next(), having.next()) {
            (None, _) => {}
            (found, None) => return Ok(found),
            (Some((first, ..)), Some((second, ..))) => {
                let (first, second) = (first.to_owned(), second.to_owned());
                return Err(CdiError::Conflict { name: name.to_string(), first, second });
            }
        }
    }
    Ok(None)
}

/// Whoever misses a device is helped by what is wrong with the file that may have it.
fn hint(folders: &[Vec<Found>]) -> String {
    let mut bad = folders.iter().flatten().filter_map(|file| Some((&file.path, file.document.as_ref().err()?)));
    match (bad.next(), bad.count()) {
        (None, _) => String::new(),
        (Some((path, why)), 0) => format!("; {path:?} cannot be used: {why}"),
        (Some((path, why)), more) => format!("; {path:?} and {more} more cannot be used: {why}"),
    }
}
