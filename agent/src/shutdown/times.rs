//! When the last shutdown began and ended. Whoever reads the agent's numbers can do so only once the machine is back: it is
//! written down.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const MAX_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Times {
    pub start: Option<Timestamp>,
    /// None while it lasts, and where it did not come to its end.
    pub end: Option<Timestamp>,
}

/// Beside the pods' folders, whose names are uids.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("shutdown.json")
}

pub fn save(data_dir: &Path, times: Times) -> io::Result<()> {
    let path = path(data_dir);
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&new, serde_json::to_vec(&times)?)?;
    std::fs::rename(new, path)
}

/// None where there was no shutdown, or nobody can read it any more.
pub fn load(data_dir: &Path) -> Times {
    let mut text = String::new();
    let read = crate::files::open_regular(&path(data_dir)).and_then(|f| f.take(MAX_BYTES).read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_and_a_torn_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), Times::default());
        let times = Times { start: Some(Timestamp::UNIX_EPOCH), end: None };
        save(folder.path(), times).unwrap();
        assert_eq!(load(folder.path()), times);
        std::fs::write(path(folder.path()), "{\"start\":").unwrap();
        assert_eq!(load(folder.path()), Times::default());
    }
}
