//! The volumes of pods: made before their sandbox, kept current while they run, gone after them.
//!
//! What is secret (Secrets, tokens, projections) lies under the run folder, which is in memory; the rest under the data
//! folder, which outlives a reboot, so that a pod can start again while the API server is away.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_client::{Client, ClientError};
use gantry_cri::v1::{ImageSpec, Mount};
use gantry_env::{Env, chain};
use gantry_kube::pod::resources::quantity;
use gantry_kube::{Object, Ref, Resource, resource, storage};
use serde_json::Value;

use crate::pod::cri::{SpecError, bind};
use crate::pod::env::{EnvError, PodFacts, expand};

pub mod atomic;
pub mod claim;
pub mod follow;
pub mod ownership;
pub mod payload;
pub mod reclaim;
pub mod subpath;
pub mod token;
pub mod usage;

use atomic::Payload;

/// Why a volume is not there, in the words of a FailedMount event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("{kind} references non-existent config key: {key} (in \"{name}\")")]
    Key { kind: &'static str, name: String, key: String },
    #[error("path {0:?} leaves the volume")]
    Path(String),
    #[error("volumes of kind {0:?} are not supported")]
    Kind(String),
    #[error("projections of kind {0:?} are not supported")]
    Projection(String),
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPath { path: String, wanted: &'static str },
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not removed: a file system is still mounted on {mounted}", mounted = .mounted.display())]
    Mounted { path: PathBuf, mounted: PathBuf },
    #[error("persistentvolumeclaim {0:?} not found")]
    NoClaim(String),
    #[error("can't use persistentvolumeclaim {claim:?}: {why}")]
    Claim { claim: String, why: String },
    #[error("medium {0:?} of an emptyDir is not supported")]
    Medium(String),
    #[error("failed to fetch {what}")]
    Api {
        what: String,
        #[source]
        source: Box<ClientError>,
    },
    #[error(transparent)]
    Field(#[from] EnvError),
}

/// A failed volume by its name.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {}", chain(.source))]
pub struct MountError {
    pub volume: String,
    pub source: VolumeError,
}

/// The volumes of this node's pods.
#[derive(Clone)]
pub struct Volumes {
    pub data_dir: PathBuf,
    pub volumes_dir: PathBuf,
    pub run_dir: PathBuf,
    /// Whether tmpfs may be mounted.
    pub mounts: bool,
    pub client: Client,
    pub objects: Arc<follow::Objects>,
    pub tokens: token::Tokens,
    pub env: Env,
}

/// A volume's kind is the one key beside its name.
fn kind_of(volume: &Value) -> &str {
    let keys = volume.as_object().into_iter().flatten();
    keys.map(|(k, _)| k.as_str()).find(|k| *k != "name").unwrap_or("emptyDir")
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::File { doing, path, source }
}

impl Volumes {
    /// The pod's folder on disk.
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.data_dir.join(uid)
    }

    fn memory_folder(&self, uid: &str) -> PathBuf {
        self.run_dir.join("pods").join(uid)
    }

    /// Where a volume lies on the host.
    pub fn host_path(&self, pod: &Object, volume: &Value) -> PathBuf {
        let name = volume["name"].as_str().unwrap_or("");
        let below = |root: PathBuf, kind: &str| root.join("volumes").join(format!("kubernetes.io~{kind}")).join(name);
        match kind_of(volume) {
            "hostPath" => PathBuf::from(volume["hostPath"]["path"].as_str().unwrap_or("")),
            "secret" => below(self.memory_folder(pod.uid()), "secret"),
            "projected" => below(self.memory_folder(pod.uid()), "projected"),
            "configMap" => below(self.pod_folder(pod.uid()), "configmap"),
            "persistentVolumeClaim" | "ephemeral" => {
                let link = below(self.pod_folder(pod.uid()), claim::FOLDER);
                fs::read_link(&link).unwrap_or(link)
            }
            "downwardAPI" => below(self.pod_folder(pod.uid()), "downward-api"),
            _ => below(self.pod_folder(pod.uid()), "empty-dir"),
        }
    }

    /// Makes or renews every volume of the pod. Idempotent.
    pub async fn prepare(&self, pod: &Object, facts: &PodFacts) -> Result<(), MountError> {
        for volume in pod.array_at("/spec/volumes") {
            let name = volume["name"].as_str().unwrap_or("").to_owned();
            self.prepare_one(pod, volume, facts).await.map_err(|source| MountError { volume: name, source })?;
        }
        Ok(())
    }

    async fn prepare_one(&self, pod: &Object, volume: &Value, facts: &PodFacts) -> Result<(), VolumeError> {
        let path = self.host_path(pod, volume);
        let group = pod.i64_at("/spec/securityContext/fsGroup").and_then(|g| u32::try_from(g).ok());
        let mut out = Payload::new();
        match kind_of(volume) {
            "emptyDir" => return self.empty_dir(&volume["emptyDir"], &path, group),
            "hostPath" => return host_path_check(&volume["hostPath"]),
            // It is brought to the node for the containers that mount it.
            "image" => return Ok(()),
            "persistentVolumeClaim" | "ephemeral" => return self.claim(pod, volume).await,
            "configMap" => {
                let source = &volume["configMap"];
                let object = self.object(&resource::CONFIG_MAP, pod, source["name"].as_str().unwrap_or("")).await;
                let object = match object {
                    // The files of before the reboot are better than none.
                    Err(error) if error.is_unreachable() && path.join("..data").exists() => return Ok(()),
                    other => other?,
                };
                payload::from_object(object.as_deref(), "configmap", source, payload::default_mode(source), &mut out)?;
            }
            "secret" => {
                let source = &volume["secret"];
                let object = self.object(&resource::SECRET, pod, source["secretName"].as_str().unwrap_or("")).await?;
                payload::from_object(object.as_deref(), "secret", source, payload::default_mode(source), &mut out)?;
            }
            "downwardAPI" => {
                let source = &volume["downwardAPI"];
                payload::from_downward(pod, source, payload::default_mode(source), facts, &mut out)?;
            }
            "projected" => self.projected(pod, &volume["projected"], facts, &mut out).await?,
            other => return Err(VolumeError::Kind(other.to_owned())),
        }
        atomic::write(&path, &out, group, &self.env).map(|_| ()).map_err(file_error("write the files of", &path))
    }

    async fn projected(
        &self,
        pod: &Object,
        projected: &Value,
        facts: &PodFacts,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        let mode = payload::default_mode(projected);
        for source in projected["sources"].as_array().into_iter().flatten() {
            let kind = source.as_object().and_then(|m| m.keys().next()).cloned().unwrap_or_default();
            let inner = &source[&kind];
            let name = inner["name"].as_str().unwrap_or("");
            match kind.as_str() {
                "configMap" => {
                    let object = self.object(&resource::CONFIG_MAP, pod, name).await?;
                    payload::from_object(object.as_deref(), "configmap", inner, mode, out)?;
                }
                "secret" => {
                    let object = self.object(&resource::SECRET, pod, name).await?;
                    payload::from_object(object.as_deref(), "secret", inner, mode, out)?;
                }
                "downwardAPI" => payload::from_downward(pod, inner, mode, facts, out)?,
                "serviceAccountToken" => {
                    let token = self.tokens.token(&self.client, pod, inner, &self.env).await;
                    let token = token
                        .map_err(|source| VolumeError::Api { what: "token".to_owned(), source: Box::new(source) })?;
                    let mode = u32::try_from(mode).unwrap_or(0o644);
                    payload::insert(out, inner["path"].as_str().unwrap_or(""), token.into_bytes(), mode)?;
                }
                other => return Err(VolumeError::Projection(other.to_owned())),
            }
        }
        Ok(())
    }

    async fn object(
        &self,
        kind: &'static Resource,
        pod: &Object,
        name: &str,
    ) -> Result<Option<Arc<Object>>, VolumeError> {
        let found = self.objects.get(kind, &Ref::new(pod.namespace(), name)).await;
        found.map_err(|source| VolumeError::Api {
            what: format!("{} {name:?}", kind.singular),
            source: Box::new(source),
        })
    }

    fn empty_dir(&self, source: &Value, path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
        if let Some(medium @ ("HugePages" | "HugePages-2Mi" | "HugePages-1Gi")) = source["medium"].as_str() {
            return Err(VolumeError::Medium(medium.to_owned()));
        }
        if path.exists() && !(source["medium"] == "Memory" && self.mounts && !is_mount_point(path)) {
            return Ok(());
        }
        fs::create_dir_all(path).map_err(file_error("make", path))?;
        if source["medium"] == "Memory" && self.mounts {
            let limit = quantity(&source["sizeLimit"]).map(|q| format!(",size={}", q.value())).unwrap_or_default();
            mount_tmpfs(path, &format!("mode=0777{limit}"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(file_error("open", path))?;
        if let Some(gid) = group {
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(file_error("give to its group", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).map_err(file_error("open", path))?;
        }
        Ok(())
    }

    /// What one container mounts of the pod's volumes.
    /// `variables` are the container's; `images` say what a reference has become on this node.
    pub fn binds(
        &self,
        pod: &Object,
        container: &Value,
        variables: &[(String, String)],
        images: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, SpecError> {
        let name = container["name"].as_str().unwrap_or("").to_owned();
        let volumes = pod.array_at("/spec/volumes");
        let mut out = Vec::new();
        for (n, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
            let Some(volume) = volumes.iter().find(|v| v["name"] == mount["name"]) else {
                let volume = mount["name"].as_str().unwrap_or("").to_owned();
                return Err(SpecError::NoVolume { container: name, volume });
            };
            let at = mount["mountPath"].as_str().unwrap_or("");
            let sub = sub_path(mount, variables, &name)?;
            if let Some(reference) = volume["image"]["reference"].as_str() {
                let image = images.get(reference).cloned().unwrap_or_default();
                out.push(image_mount(at, reference, image, sub));
                continue;
            }
            let mut path = self.host_path(pod, volume);
            let claimed = storage::claim_use(pod.name(), volume);
            let made_from_objects = claimed.is_none() && !matches!(kind_of(volume), "emptyDir" | "hostPath");
            let readonly = mount["readOnly"] == true || made_from_objects || claimed.is_some_and(|c| c.read_only);
            if !sub.is_empty() {
                let missing = |why: String| SpecError::SubPath {
                    container: name.clone(),
                    volume: volume["name"].as_str().unwrap_or("").to_owned(),
                    path: sub.clone(),
                    why,
                };
                let place = self.pod_folder(pod.uid()).join(subpath::FOLDER).join(&name).join(n.to_string());
                path = self.held(&path, &sub, place, !readonly).map_err(missing)?;
            }
            out.push(bind(at, path.to_string_lossy().into_owned(), readonly, mount));
        }
        Ok(out)
    }

    /// The path of what lies at `sub` in a volume, which stays what it is whoever writes the volume.
    fn held(&self, root: &Path, sub: &str, place: PathBuf, make: bool) -> Result<PathBuf, String> {
        if !atomic::is_safe_path(sub) {
            return Err("the path leaves the volume".to_owned());
        }
        let found = subpath::open(root, sub, make).map_err(|error| chain(&error))?;
        if !self.mounts {
            return subpath::name_of(&found).map_err(|error| chain(&error));
        }
        subpath::bind(&found, &place).map_err(|error| chain(&error))?;
        Ok(place)
    }

    /// Unmounts and removes everything of the pod. Safe to call when there is nothing.
    pub fn release(&self, uid: &str) -> Result<(), VolumeError> {
        self.tokens.forget(uid);
        for root in [self.pod_folder(uid), self.memory_folder(uid)] {
            unmount_below(&root)?;
            remove(&root.join("volumes"))?;
            remove(&root.join(subpath::FOLDER))?;
        }
        let _ = fs::remove_dir(self.memory_folder(uid));
        Ok(())
    }
}

impl VolumeError {
    /// The API server gave no answer.
    fn is_unreachable(&self) -> bool {
        matches!(self, VolumeError::Api { source, .. } if matches!(**source, ClientError::Transport { .. }))
    }
}

/// The runtime joins the image's layers itself; what is in them is never written.
fn image_mount(at: &str, reference: &str, image: String, sub_path: String) -> Mount {
    let image = ImageSpec { image, user_specified_image: reference.to_owned(), ..ImageSpec::default() };
    Mount {
        container_path: at.to_owned(),
        readonly: true,
        image: Some(image),
        image_sub_path: sub_path,
        ..Mount::default()
    }
}

/// The path inside the volume that a mount asks for; empty where it asks for all of it.
fn sub_path(mount: &Value, variables: &[(String, String)], container: &str) -> Result<String, SpecError> {
    let expression = mount["subPathExpr"].as_str().unwrap_or("");
    if expression.is_empty() {
        return Ok(mount["subPath"].as_str().unwrap_or("").to_owned());
    }
    let missing = RefCell::new(None);
    let expanded = expand(expression, |name| {
        let found = variables.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if found.is_none() {
            missing.replace(Some(name.to_owned()));
        }
        found
    });
    match missing.into_inner() {
        Some(variable) => Err(SpecError::SubPathVariable { container: container.to_owned(), variable }),
        None => Ok(expanded),
    }
}

/// Unmounts the volumes in memory, and the paths of volumes that are held, of the pod whose folder this is.
pub fn unmount_below(root: &Path) -> Result<(), VolumeError> {
    subpath::clear(&root.join(subpath::FOLDER))?;
    let folder = root.join("volumes").join("kubernetes.io~empty-dir");
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if is_mount_point(&entry.path()) {
            unmount(&entry.path())?;
        }
    }
    Ok(())
}

pub fn unmount(path: &Path) -> Result<(), VolumeError> {
    let done = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    done.map_err(|e| file_error("unmount", path)(e.into()))
}

/// Removes a folder with everything in it; one that is not there is fine. What is mounted below it is somebody's data:
/// then nothing is removed.
pub fn remove(path: &Path) -> Result<(), VolumeError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(file_error("remove", path))?,
    };
    // The kernel names mount points by their real paths; a link in the last place is removed, not followed.
    let parent = fs::canonicalize(path.parent().unwrap_or(path)).map_err(file_error("remove", path))?;
    let path = parent.join(path.file_name().unwrap_or_default());
    if let Some(mounted) = mount_points(&path)?.into_iter().next() {
        return Err(VolumeError::Mounted { path, mounted });
    }
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// The mount points in or at `root`, in the order in which they were mounted.
fn mount_points(root: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    // Of the thread, which may be in another mount namespace than its process.
    let mounts = fs::read("/proc/thread-self/mountinfo").map_err(file_error("read the mounts below", root))?;
    Ok(mounts_below(&mounts, root).collect())
}

/// The same by the text of a mountinfo file (proc_pid_mountinfo(5): the fifth field).
fn mounts_below<'a>(mountinfo: &'a [u8], root: &'a Path) -> impl Iterator<Item = PathBuf> + use<'a> {
    let points = mountinfo.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(OsString::from_vec(unescape(point))));
    points.filter(move |point| point.starts_with(root))
}

/// `\040` and the like: the kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let code = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// A mount point lies on another device than its parent.
pub fn is_mount_point(path: &Path) -> bool {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).ok();
    path.parent().is_some_and(|parent| device(path).is_some() && device(path) != device(parent))
}

/// Linux' magic numbers of file systems in memory (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

pub fn in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| matches!(fs.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC))
}

pub fn mount_tmpfs(path: &Path, options: &str) -> Result<(), VolumeError> {
    use rustix::mount::{MountFlags, mount};
    let data = std::ffi::CString::new(options).unwrap_or_default();
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(data.as_c_str()))
        .map_err(|e| file_error("mount a tmpfs on", path)(e.into()))
}

fn host_path_check(source: &Value) -> Result<(), VolumeError> {
    let path = source["path"].as_str().unwrap_or("");
    let at = Path::new(path);
    let wrong = |wanted| VolumeError::HostPath { path: path.to_owned(), wanted };
    let found = fs::metadata(at).ok().map(|m| m.file_type());
    match source["type"].as_str().unwrap_or("") {
        "DirectoryOrCreate" if found.is_none() => {
            fs::create_dir_all(at).map_err(file_error("make", at))?;
            fs::set_permissions(at, fs::Permissions::from_mode(0o755)).map_err(file_error("open", at))
        }
        "FileOrCreate" if found.is_none() => {
            fs::File::create_new(at).map_err(file_error("make", at))?;
            fs::set_permissions(at, fs::Permissions::from_mode(0o644)).map_err(file_error("open", at))
        }
        "Directory" | "DirectoryOrCreate" if !found.is_some_and(|f| f.is_dir()) => Err(wrong("a directory")),
        "File" | "FileOrCreate" if !found.is_some_and(|f| f.is_file()) => Err(wrong("a file")),
        "Socket" if !found.is_some_and(|f| f.is_socket()) => Err(wrong("a socket file")),
        "CharDevice" if !found.is_some_and(|f| f.is_char_device()) => Err(wrong("a character device")),
        "BlockDevice" if !found.is_some_and(|f| f.is_block_device()) => Err(wrong("a block device")),
        // An unchecked path is made where it is missing, so that the bind has something to bind.
        "" if found.is_none() => fs::create_dir_all(at).map_err(file_error("make", at)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
