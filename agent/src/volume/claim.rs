//! Volumes that are claims: from the claim to its PersistentVolume, and from there to a path of this node.
//!
//! Where a pod's claim leads is kept as a link in the pod's own folder. It says what is in use after a restart too, and lets
//! a pod start again while the API server is away.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};
use gantry_kube::{Object, Ref, Resource, storage};
use serde_json::Value;

use super::{VolumeError, Volumes, file_error, host_path_check, ownership};

/// Of the links, in a pod's folder.
pub const FOLDER: &str = "local-volume";

impl Volumes {
    pub(super) async fn claim(&self, pod: &Object, volume: &Value) -> Result<(), VolumeError> {
        let Some(used) = storage::claim_use(pod.name(), volume) else { return Ok(()) };
        let link = self.claim_link(pod.uid(), &used.volume);
        if fs::read_link(&link).is_ok_and(|path| path.exists()) {
            return Ok(());
        }
        let refuse = |why: &str| VolumeError::Claim { claim: used.claim.clone(), why: why.to_owned() };
        let claim = self.fetch(&PERSISTENT_VOLUME_CLAIM, &Ref::new(pod.namespace(), &*used.claim)).await?;
        let claim = claim.ok_or_else(|| VolumeError::NoClaim(used.claim.clone()))?;
        if used.ephemeral && claim.controller().is_none_or(|owner| owner["uid"] != pod.uid()) {
            return Err(refuse("it was not made for this pod"));
        }
        if claim.deletion_timestamp().is_some() {
            return Err(refuse("it is being deleted"));
        }
        if !storage::is_bound(&claim) || claim.str_at("/status/phase") != "Bound" {
            return Err(refuse("it is not bound"));
        }
        let name = claim.str_at("/spec/volumeName");
        let found = self.fetch(&PERSISTENT_VOLUME, &Ref::cluster(name)).await?;
        let found = found.ok_or_else(|| refuse(&format!("its volume {name:?} does not exist")))?;
        if found.str_at("/spec/claimRef/uid") != claim.uid() {
            return Err(refuse(&format!("its volume {name:?} is bound to another claim")));
        }
        if storage::volume_mode(&found) != "Filesystem" {
            return Err(refuse(&format!("volumeMode {} is not supported", storage::volume_mode(&found))));
        }
        if !found.array_at("/spec/mountOptions").is_empty() {
            return Err(refuse(&format!("mountOptions of volume {name:?} are not supported")));
        }
        let path = self.lay(&found).map_err(|error| match error {
            Laid::Kind(kind) => refuse(&format!("volumes of kind {kind:?} are not supported")),
            Laid::Volume(error) => error,
        })?;
        let group = pod.i64_at("/spec/securityContext/fsGroup").and_then(|g| u32::try_from(g).ok());
        if let Some(gid) = group.filter(|_| !used.read_only && found.get("/spec/local").is_some()) {
            let only_root = pod.str_at("/spec/securityContext/fsGroupChangePolicy") == "OnRootMismatch";
            let tree = path.clone();
            let given = tokio::task::spawn_blocking(move || ownership::give(&tree, gid, only_root)).await;
            let given = given.unwrap_or_else(|error| Err(io::Error::other(error)));
            given.map_err(file_error("give to its group", &path))?;
        }
        keep(&link, &path).map_err(file_error("keep where a claim leads in", &link))
    }

    async fn fetch(&self, kind: &'static Resource, at: &Ref) -> Result<Option<Object>, VolumeError> {
        let found = self.client.find(kind, at).await;
        found.map_err(|source| VolumeError::Api {
            what: format!("{} {:?}", kind.singular, at.name),
            source: Box::new(source),
        })
    }

    fn claim_link(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod_folder(uid).join("volumes").join(format!("kubernetes.io~{FOLDER}")).join(volume)
    }

    /// The path of a volume on this node; made where it is one of the built-in provisioner's.
    fn lay(&self, volume: &Object) -> Result<PathBuf, Laid> {
        let path = PathBuf::from(volume.str_at("/spec/local/path"));
        if let Some(source) = volume.get("/spec/hostPath") {
            host_path_check(source).map_err(Laid::Volume)?;
            return Ok(source["path"].as_str().unwrap_or("").into());
        }
        if volume.get("/spec/local").is_none() {
            let spec = volume.get("/spec").and_then(Value::as_object).into_iter().flatten();
            let beside = ["capacity", "claimRef", "nodeAffinity"];
            let mut kinds = spec.filter(|(key, value)| value.is_object() && !beside.contains(&key.as_str()));
            return Err(Laid::Kind(kinds.next().map(|(kind, _)| kind.clone()).unwrap_or_default()));
        }
        if self.own_folder(volume).is_some() && !path.exists() {
            make(&path).map_err(|error| Laid::Volume(file_error("make", &path)(error)))?;
        }
        if !path.is_dir() {
            let missing = io::Error::new(io::ErrorKind::NotFound, "no such folder");
            return Err(Laid::Volume(file_error("mount the local volume", &path)(missing)));
        }
        Ok(path)
    }

    /// The folder of a volume that the built-in provisioner made here: directly below the node's own folder for them.
    pub fn own_folder(&self, volume: &Object) -> Option<PathBuf> {
        let ours = volume.annotation(storage::PROVISIONED_BY) == Some(storage::LOCAL_PATH);
        let path = Path::new(volume.str_at("/spec/local/path"));
        let name = path.file_name().filter(|name| ours && path == self.volumes_dir.join(name))?;
        Some(self.volumes_dir.join(name))
    }

    /// Whether a pod that is here still leads to this path.
    pub fn is_in_use(&self, path: &Path) -> io::Result<bool> {
        for pod in fs::read_dir(&self.data_dir)? {
            let folder = pod?.path().join("volumes").join(format!("kubernetes.io~{FOLDER}"));
            let links = match fs::read_dir(&folder) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                links => links?,
            };
            for link in links {
                if fs::read_link(link?.path()).is_ok_and(|target| target == path) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Why a volume cannot be laid at a path.
enum Laid {
    Kind(String),
    Volume(VolumeError),
}

/// Open to whoever its pod runs as: only pods that are given the volume see it.
fn make(path: &Path) -> io::Result<()> {
    if let Some(root) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    }
    match fs::DirBuilder::new().mode(0o777).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

fn keep(link: &Path, path: &Path) -> io::Result<()> {
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(path, link),
    }
}
