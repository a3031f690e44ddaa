//! The pods that this node has admitted, so that a reboot without the API starts them again: one 0600 file a pod.
//!
//! A file is replaced by a rename and is not synced: a power cut may lose the newest pods, which the API then tells
//! anew; a file that is torn is left out.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gantry_kube::Object;

const NAME: &str = "pod.json";
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

/// Every pod with a whole file.
pub fn load(data_dir: &Path) -> Vec<Object> {
    let mut pods = Vec::new();
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let Ok(file) = crate::files::open_regular(&entry.path().join(NAME)) else { continue };
        let mut bytes = Vec::new();
        if file.take(POD_MAX_BYTES).read_to_end(&mut bytes).is_err() {
            continue;
        }
        match Object::from_slice(&bytes) {
            Ok(pod) if entry.file_name().to_str() == Some(pod.uid()) => pods.push(pod),
            Ok(_) | Err(_) => tracing::warn!(path = %entry.path().display(), "checkpoint not read"),
        }
    }
    pods
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
        assert_eq!(load(&root), [pod]);
        assert_eq!(fs::metadata(root.join("u/pod.json")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(&root).unwrap();
    }
}
