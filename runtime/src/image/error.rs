//! What goes wrong with images, and the one place where it becomes a gRPC status.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::import::{ArchiveError, ContentsError, SpoolError};
use super::layer::LayerError;
use super::manifest::{ManifestError, PlatformError};
use super::policy::Refusal;
use super::reference::ReferenceError;
use super::registry::RegistryError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("image {0:?} is not here")]
    NotFound(String),
    #[error("image {image:?} is here for {here}, not for {wanted}")]
    NotForPlatform { image: String, wanted: String, here: String },
    #[error("image {image:?} is here for {here}: say for which of these it is meant")]
    WhichPlatform { image: String, here: String },
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("image {image:?} has nothing at {path:?}")]
    NoPart { image: String, path: String },
    #[error("the volume {0:?} that the image declares is no folder in it")]
    NoFolder(String),
    #[error("image {0:?} is pinned")]
    Pinned(String),
    #[error("failed to pull image {image:?}")]
    Registry {
        image: String,
        #[source]
        source: RegistryError,
    },
    #[error("image {image:?} is not valid")]
    Manifest {
        image: String,
        #[source]
        source: ManifestError,
    },
    #[error("layer {digest} of image {image:?}")]
    Layer {
        image: String,
        digest: Digest,
        #[source]
        source: Box<LayerError>,
    },
    #[error(
        "layer {layer} of image {image:?} was not kept as it came: where layers are kept, remove the image and bring it again"
    )]
    NotKept { image: String, layer: Digest },
    #[error("what was kept of layer {0} is damaged")]
    Damaged(Digest),
    #[error("whoever asked for the archive takes no more of it")]
    NobodyReads,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the archive cannot be imported")]
    Archive(#[from] ArchiveError),
    #[error("cannot {action} {path:?}")]
    Disk {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the record of images {path:?} is damaged")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0:?} is in use by another process")]
    Locked(PathBuf),
    #[error("container id {0:?} is not 1 to 64 letters, digits, dots, dashes and underscores")]
    ContainerId(String),
    #[error("container {0:?} has a root filesystem already")]
    ContainerExists(String),
    #[error("container {0:?} has no root filesystem here")]
    NoContainer(String),
    #[error("work on the disk was interrupted")]
    Interrupted,
}

impl ImageError {
    pub(super) fn disk(action: &'static str, path: &Path, source: io::Error) -> ImageError {
        ImageError::Disk { action, path: path.to_owned(), source }
    }

    pub fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            ImageError::Reference(_) | ImageError::ContainerId(_) => Code::InvalidArgument,
            ImageError::NoPart { .. } | ImageError::NoFolder(_) => Code::InvalidArgument,
            ImageError::Platform(_) | ImageError::WhichPlatform { .. } => Code::InvalidArgument,
            ImageError::Archive(error) => archive_code(error),
            ImageError::NotFound(_) | ImageError::NoContainer(_) | ImageError::NotForPlatform { .. } => Code::NotFound,
            ImageError::Pinned(_) | ImageError::NotKept { .. } => Code::FailedPrecondition,
            ImageError::Refused(refusal) => refusal.why.code(),
            ImageError::Damaged(_) => Code::DataLoss,
            ImageError::NobodyReads => Code::Cancelled,
            ImageError::Registry { source, .. } => source.code(),
            ImageError::Manifest { source, .. } => match source {
                ManifestError::NoPlatform { .. } => Code::NotFound,
                _ => Code::DataLoss,
            },
            ImageError::Layer { source, .. } => source.code(),
            ImageError::Disk { source, .. } => disk_code(source),
            ImageError::Record { .. } => Code::DataLoss,
            ImageError::Locked(_) => Code::FailedPrecondition,
            ImageError::ContainerExists(_) => Code::AlreadyExists,
            ImageError::Interrupted => Code::Aborted,
        }
    }

    /// The status with the whole chain of causes, the registry's own words among them.
    pub fn status(&self) -> tonic::Status {
        tonic::Status::new(self.code(), gantry_env::chain(self))
    }
}

impl From<ImageError> for tonic::Status {
    fn from(error: ImageError) -> tonic::Status {
        error.status()
    }
}

fn archive_code(error: &ArchiveError) -> tonic::Code {
    let spool = match error {
        ArchiveError::Spool(error) | ArchiveError::Contents(ContentsError::Spool(error)) => error,
        ArchiveError::Contents(ContentsError::NoSuchImage { .. }) => return tonic::Code::NotFound,
        ArchiveError::Contents(_) => return tonic::Code::InvalidArgument,
    };
    match spool {
        SpoolError::Write { source, .. } => disk_code(source),
        SpoolError::Folder(error) => error.code(),
        _ => tonic::Code::InvalidArgument,
    }
}

pub(super) fn disk_code(error: &io::Error) -> tonic::Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => tonic::Code::ResourceExhausted,
        _ => tonic::Code::Internal,
    }
}
