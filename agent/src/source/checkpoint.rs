//! The pods that this node has admitted, so that a reboot without the API starts them again: one 0600 file a pod, with
//! the status that says which containers have run. The file of a pod that is over has another name.
//!
//! A file is replaced by a rename and is not synced: a power cut may lose the newest pods, which the API then tells
//! anew; a file that is torn is left out.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gantry_kube::Object;

const NAME: &str = "pod.json";
const ENDED: &str = "ended.json";
/// What etcd takes at most, and some more for its JSON.
const POD_MAX_BYTES: u64 = 4 << 20;

pub fn save(data_dir: &Path, pod: &Object) -> io::Result<()> {
    let folder = data_dir.join(pod.uid());
    fs::create_dir_all(&folder)?;
    let new = folder.join(".pod.json.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&pod.to_vec())?;
    fs::rename(&new, folder.join(NAME))
}

/// The pod is over: it is not to be started again. That its folders are here is still known; a rename needs no room.
pub fn end(data_dir: &Path, uid: &str) -> io::Result<()> {
    let folder = data_dir.join(uid);
    match fs::rename(folder.join(NAME), folder.join(ENDED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The pod is to be started once more, though it was over.
pub fn again(data_dir: &Path, uid: &str) -> io::Result<()> {
    let folder = data_dir.join(uid);
    match fs::rename(folder.join(ENDED), folder.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every pod with a whole file that may be started.
pub fn load(data_dir: &Path) -> Vec<Object> {
    uids(data_dir).iter().filter_map(|uid| read(data_dir, uid, NAME)).collect()
}

/// Every pod that has left something here.
pub fn all(data_dir: &Path) -> Vec<Object> {
    uids(data_dir).iter().filter_map(|uid| one(data_dir, uid)).collect()
}

/// One pod as it was last saved, also where it is over.
pub fn one(data_dir: &Path, uid: &str) -> Option<Object> {
    read(data_dir, uid, ENDED).or_else(|| read(data_dir, uid, NAME))
}

fn uids(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(data_dir: &Path, uid: &str, name: &str) -> Option<Object> {
    let path = data_dir.join(uid).join(name);
    let file = crate::files::open_regular(&path).ok()?;
    let mut bytes = Vec::new();
    file.take(POD_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let pod = Object::from_slice(&bytes).ok().filter(|pod| pod.uid() == uid);
    if pod.is_none() {
        tracing::warn!(path = %path.display(), "checkpoint not read");
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pod_comes_back_and_a_torn_file_does_not() {
        let root = std::env::temp_dir().join(format!("gantry-checkpoint-{}", std::process::id()));
        let pod = Object::from_value(json!({"metadata": {"uid": "u"}, "spec": {"x": 1}})).unwrap();
        save(&root, &pod).unwrap();
        fs::create_dir_all(root.join("torn")).unwrap();
        fs::write(root.join("torn/pod.json"), "{\"meta").unwrap();
        assert_eq!(load(&root), std::slice::from_ref(&pod));
        assert_eq!(fs::metadata(root.join("u/pod.json")).unwrap().permissions().mode() & 0o777, 0o600);
        end(&root, "u").unwrap();
        end(&root, "u").unwrap();
        assert_eq!(
            (load(&root), all(&root)),
            (vec![], vec![pod.clone()]),
            "a pod that is over is not started, and not forgotten"
        );
        again(&root, "u").unwrap();
        again(&root, "u").unwrap();
        assert_eq!(load(&root), [pod]);
        fs::remove_dir_all(&root).unwrap();
    }
}
