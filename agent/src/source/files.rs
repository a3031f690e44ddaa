//! Static pods: manifests in a folder, one pod a file, YAML or JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use gantry_kube::defaults;
use gantry_kube::pod::{HASH_ANNOTATION, SOURCE_ANNOTATION};
use gantry_kube::{Object, resource};
use serde_json::{Value, json};

use crate::pod::want::fnv1a;

const MANIFEST_MAX_BYTES: u64 = 1 << 20;
const MANIFESTS_MAX: usize = 512;

/// Why a manifest is left out.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is larger than {MANIFEST_MAX_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} is not valid YAML: {why}")]
    Yaml { path: PathBuf, why: String },
    #[error("{path} is not a v1 Pod but {kind:?}")]
    NotAPod { path: PathBuf, kind: String },
    #[error("{path}: {field} is missing")]
    Missing { path: PathBuf, field: &'static str },
    #[error("{path}: a static pod cannot use {what}")]
    NeedsApi { path: PathBuf, what: &'static str },
}

/// The pods of a folder by the path of their manifest.
pub type Manifests = BTreeMap<PathBuf, Object>;

/// The manifests of the folder, and why others are left out. A file that is there but cannot be read stands as it was
/// before: a disk that fails must not end pods. Neither must a folder that cannot be listed, which is an error; one that
/// is not there has no pods.
pub fn scan(
    folder: &Path,
    node_name: &str,
    before: Option<&Manifests>,
) -> std::io::Result<(Manifests, Vec<ManifestError>)> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Manifests::new(), Vec::new())),
        other => other?,
    };
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or(".");
        !name.starts_with('.') && matches!(p.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"))
    });
    paths.sort();
    paths.truncate(MANIFESTS_MAX);
    let (mut pods, mut left_out) = (Manifests::new(), Vec::new());
    for path in paths {
        let error = match read(&path, node_name) {
            Ok(pod) => {
                pods.insert(path, pod);
                continue;
            }
            Err(error) => error,
        };
        let unread = matches!(&error, ManifestError::Read { source, .. } if source.kind() != ErrorKind::NotFound);
        if let (true, Some(pod)) = (unread, before.and_then(|before| before.get(&path))) {
            pods.insert(path, pod.clone());
        }
        left_out.push(error);
    }
    Ok((pods, left_out))
}

fn read(path: &Path, node_name: &str) -> Result<Object, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let file = crate::files::open_regular(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MANIFEST_MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MANIFEST_MAX_BYTES {
        return Err(ManifestError::TooLarge { path: path.to_owned() });
    }
    parse(path, &text, node_name)
}

/// A manifest as the pod that runs: named for its node, defaulted, and with a uid that its content alone decides.
pub fn parse(path: &Path, text: &str, node_name: &str) -> Result<Object, ManifestError> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|e| ManifestError::Yaml { path: path.to_owned(), why: e.to_string() })?;
    let kind = value["kind"].as_str().unwrap_or("").to_owned();
    let Value::Object(map) = value else { return Err(ManifestError::NotAPod { path: path.to_owned(), kind }) };
    let mut pod = Object(map);
    if pod.api_version() != "v1" || kind != "Pod" {
        return Err(ManifestError::NotAPod { path: path.to_owned(), kind });
    }
    if pod.name().is_empty() {
        return Err(ManifestError::Missing { path: path.to_owned(), field: "metadata.name" });
    }
    if pod.array_at("/spec/containers").is_empty() {
        return Err(ManifestError::Missing { path: path.to_owned(), field: "spec.containers" });
    }
    refuse_references(&pod, path)?;
    let (name, namespace) = (format!("{}-{node_name}", pod.name()), pod.namespace().to_owned());
    let seed = format!("{node_name}\n{}\n{text}", path.display());
    let hash =
        format!("{:016x}{:016x}", fnv1a(seed.as_bytes()), fnv1a(seed.chars().rev().collect::<String>().as_bytes()));
    let metadata = pod.metadata_mut();
    metadata.insert("name".into(), json!(name));
    metadata.insert("namespace".into(), json!(if namespace.is_empty() { "default" } else { &namespace }));
    metadata.insert("uid".into(), json!(hash));
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[SOURCE_ANNOTATION] = json!("file");
    annotations[HASH_ANNOTATION] = json!(hash);
    let spec = pod.map_mut("spec");
    spec.insert("nodeName".into(), json!(node_name));
    spec.insert("tolerations".into(), json!([{"operator": "Exists", "effect": "NoExecute"}]));
    defaults::apply(&resource::POD, &mut pod);
    Ok(pod)
}

/// What lives in the API is not there for a pod that must run without it.
fn refuse_references(pod: &Object, path: &Path) -> Result<(), ManifestError> {
    let needs = |what| Err(ManifestError::NeedsApi { path: path.to_owned(), what });
    if !pod.str_at("/spec/serviceAccountName").is_empty() {
        return needs("a service account");
    }
    for volume in pod.array_at("/spec/volumes") {
        if volume["configMap"].is_object() {
            return needs("a ConfigMap");
        }
        if volume["secret"].is_object() {
            return needs("a Secret");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i:1\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_its_node() {
        let pod = parse(Path::new("/m/web.yaml"), TEXT, "n1").unwrap();
        assert_eq!((pod.name(), pod.namespace(), pod.uid().len()), ("web-n1", "default", 32));
        assert_eq!(pod.str_at("/spec/restartPolicy"), "Always");
        assert_eq!(pod.annotation(HASH_ANNOTATION), Some(pod.uid()));
        let changed = parse(Path::new("/m/web.yaml"), &TEXT.replace("i:1", "i:2"), "n1").unwrap();
        assert_ne!(changed.uid(), pod.uid());
    }

    #[test]
    fn what_is_no_pod_is_refused_by_name() {
        let words = |text: &str| parse(Path::new("/m/x.yaml"), text, "n").unwrap_err().to_string();
        assert!(words("kind: Service\napiVersion: v1").contains("not a v1 Pod but \"Service\""));
        assert!(words("{").contains("not valid YAML"));
        assert!(words(&format!("{TEXT}  serviceAccountName: x\n")).contains("service account"));
    }

    #[test]
    fn what_cannot_be_read_ends_no_pod() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("m"), root.path().join("m/web.yaml"));
        assert!(scan(&folder, "n", None).unwrap().0.is_empty(), "no folder, no pods");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, TEXT).unwrap();
        let known = scan(&folder, "n", None).unwrap().0;
        assert_eq!(known.len(), 1);
        // A link is not followed, whoever reads it: this cannot be read.
        fs::rename(&file, root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), &file).unwrap();
        let (pods, left_out) = scan(&folder, "n", Some(&known)).unwrap();
        assert_eq!((pods, left_out.len()), (known.clone(), 1));
        assert!(scan(&folder, "n", None).unwrap().0.is_empty());
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "no folder").unwrap();
        assert!(scan(&folder, "n", Some(&known)).is_err());
    }
}
