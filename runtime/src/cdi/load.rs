//! Reads the files of a folder of specifications.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::document;
use super::resolve::Found;

const FILE_MAX_BYTES: u64 = 1 << 20;
const FILES_MAX: usize = 256;
const ENTRIES_MAX: usize = 4096;
/// A parser's error may show the text.
const WHY_MAX_CHARS: usize = 300;

/// In the order of their names. A folder that is not there has none.
pub fn read(folder: &Path) -> Vec<Found> {
    match read_folder(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![Found { path: folder.to_owned(), document: Err(error.to_string()) }],
    }
}

fn read_folder(folder: &Path) -> io::Result<Vec<Found>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(folder, flags, Mode::empty())?);
    check_owner(&opened)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let name = entry?.file_name();
        if matches!(Path::new(&name).extension().and_then(|e| e.to_str()), Some("json" | "yaml" | "yml")) {
            names.push(name);
        }
    }
    names.sort();
    if names.len() > FILES_MAX {
        let why = format!("has {} specifications, more than {FILES_MAX}", names.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let found = names.iter().map(|name| {
        let document = read_file(&opened, Path::new(name));
        Found { path: folder.join(name), document: document.map_err(|why| why.chars().take(WHY_MAX_CHARS).collect()) }
    });
    Ok(found.collect())
}

fn read_file(folder: &File, name: &Path) -> Result<document::Document, String> {
    let text = read_text(folder, name).map_err(|error| error.to_string())?;
    let yaml = name.extension().is_none_or(|extension| extension != "json");
    document::parse(&text, yaml).map_err(|error| error.to_string())
}

/// A link is followed, as vendors keep their files elsewhere: what it leads to must be root's as well.
fn read_text(folder: &File, name: &Path) -> io::Result<String> {
    // A FIFO must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder.as_fd(), name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    check_owner(&file)?;
    let mut text = String::new();
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        let why = format!("has more than {FILE_MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

/// Whoever may write there is as good as the host's root.
fn check_owner(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        let why = format!("belongs to uid {}, and must be root's", metadata.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if metadata.mode() & 0o022 != 0 {
        let why = format!("may be written by others than root (mode {:o})", metadata.mode() & 0o7777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}
