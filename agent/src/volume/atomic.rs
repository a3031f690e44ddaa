//! Files that change all at once: readers see the old set or the new one, never a mixture.
//!
//! ```text
//!   volume/..2026_01_02_03_04_05.0000001/key   the files themselves
//!   volume/..data -> ..2026_01_02_03_04_05.0000001   replaced by one rename
//!   volume/key -> ..data/key                   what the container reads
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use gantry_env::Env;

const DATA_LINK: &str = "..data";
const DATA_LINK_NEW: &str = "..data_tmp";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

/// Whether a path stays inside the volume and out of the writer's own names.
pub fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
        && path.len() <= 4096
}

/// Makes the volume hold exactly `payload`; `true` when anything changed. Paths are safe ones.
pub fn write(folder: &Path, payload: &Payload, group: Option<u32>, env: &Env) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    let data_link = folder.join(DATA_LINK);
    let current = fs::read_link(&data_link).ok().map(|target| folder.join(target));
    if let Some(current) = &current
        && holds(current, payload)
    {
        // A writer that died after its rename has made neither the links nor the old files' end.
        link_entries(folder, payload)?;
        remove_others(folder, current);
        return Ok(false);
    }
    let name = fresh_name(folder, env);
    let fresh = folder.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        write_one(&fresh, path, file, group)?;
    }
    let new_link = folder.join(DATA_LINK_NEW);
    remove_if_there(&new_link)?;
    symlink(&name, &new_link)?;
    fs::rename(&new_link, &data_link)?;
    link_entries(folder, payload)?;
    remove_others(folder, &fresh);
    Ok(true)
}

/// Removes the sets of files that are no longer the current one. What stays for now goes with the next change.
fn remove_others(folder: &Path, current: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_set = entry.file_name().to_string_lossy().starts_with("..");
        if is_set && entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path() != current {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn fresh_name(folder: &Path, env: &Env) -> PathBuf {
    let stamp = env.clock.now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    loop {
        let name = PathBuf::from(format!("..{stamp}.{:010}", env.rng.below(10_000_000_000)));
        if !folder.join(&name).exists() {
            return name;
        }
    }
}

fn write_one(root: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    use std::io::Write;
    let at = root.join(path);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at)?;
    out.write_all(&file.data)?;
    // A group that the pod's processes carry may read what the owner may.
    let mode = if group.is_some() { file.mode | (file.mode & 0o700) >> 3 & 0o070 } else { file.mode };
    if group.is_some() {
        std::os::unix::fs::chown(&at, None, group)?;
    }
    out.set_permissions(fs::Permissions::from_mode(mode & 0o777))
}

fn holds(folder: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    list(folder, "", &mut found);
    found.len() == payload.len()
        && payload
            .iter()
            .all(|(path, file)| found.contains(path) && fs::read(folder.join(path)).is_ok_and(|data| data == file.data))
}

fn list(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name);
        }
    }
}

fn link_entries(folder: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link && !name.starts_with("..") && !wanted.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = folder.join(name);
        let target = Path::new(DATA_LINK).join(name);
        if fs::read_link(&link).ok().as_deref() != Some(&target) {
            remove_if_there(&link)?;
            symlink(&target, &link)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(entries: &[(&str, &str)]) -> Payload {
        entries.iter().map(|(k, v)| ((*k).to_owned(), File { data: v.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    #[test]
    fn a_change_is_one_rename_and_nothing_is_left_behind() {
        let root = std::env::temp_dir().join(format!("gantry-atomic-{}", std::process::id()));
        let env = Env::system();
        let read = |name: &str| fs::read_to_string(root.join(name)).ok();
        assert!(write(&root, &payload(&[("a", "1"), ("d/b", "2")]), None, &env).unwrap());
        assert!(!write(&root, &payload(&[("a", "1"), ("d/b", "2")]), None, &env).unwrap(), "wrote the same again");
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        assert!(write(&root, &payload(&[("a", "3")]), None, &env).unwrap());
        assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 3, "..data, one folder and one link");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_a_killed_writer_left_half_done_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let (folder, env, files) = (root.path().join("v"), Env::system(), payload(&[("a", "1"), ("b", "2")]));
        write(&folder, &files, None, &env).unwrap();
        fs::remove_file(folder.join("b")).unwrap();
        fs::create_dir(folder.join("..2026_01_01_00_00_00.0000000001")).unwrap();
        assert!(!write(&folder, &files, None, &env).unwrap());
        assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "2");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4, "..data, one folder and two links");
    }

    #[test]
    fn paths_that_leave_the_volume_are_not_safe() {
        for bad in ["", "/a", "../a", "a/../b", "..data", "a/./b/../../.."] {
            assert!(!is_safe_path(bad), "{bad}");
        }
        assert!(is_safe_path("a/b.conf"));
    }
}
