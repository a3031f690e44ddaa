use std::io;
use std::path::PathBuf;

use gantry_base::{DecodeError, IdError};
use tonic::Status;

use crate::cdi::CdiError;
use crate::cgroup::CgroupError;
use crate::container::modules::ModuleError;
use crate::container::seccomp::ProfileError;
use crate::container::spec::SpecError;
use crate::image::{ImageError, Platform};
use crate::network::NetworkError;
use crate::records::RecordError;
use crate::sandbox::namespaces::NamespaceError;
use crate::supervisor::SupervisorError;

/// Why a request could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("sandbox {0:?} does not exist")]
    NoSandbox(String),
    #[error("container {0:?} does not exist")]
    NoContainer(String),
    #[error("image {0:?} is not on this host")]
    NoImage(String),
    #[error("request has no {0}")]
    Missing(&'static str),
    #[error("{what} {value:?} is not allowed: {why}")]
    Invalid { what: &'static str, value: String, why: &'static str },
    #[error("sandbox {0} is not ready")]
    NotReady(String),
    #[error("{what} is {id} already, which is {state}")]
    Exists { what: String, id: String, state: &'static str },
    #[error("container {id} is {state}, not {wanted}")]
    WrongState { id: String, state: &'static str, wanted: &'static str },
    #[error("container {0} did not end after it was killed")]
    Unkillable(String),
    #[error("command {0:?} timed out")]
    ExecTimeout(Vec<String>),
    #[error("{most} commands wait to be started in container {container} already")]
    Busy { container: String, most: usize },
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    #[error("this host has no user namespaces for pods: {0}")]
    NoUsers(String),
    #[error("criu binary not found in PATH: a checkpoint cannot be made on this host")]
    NoCriu,
    #[error("no supervisor could be started")]
    NoSupervisor,
    #[error("the work was interrupted")]
    Interrupted,
    #[error(transparent)]
    Foreign(Box<Foreign>),
    #[error("{what} {path:?}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Id(#[from] IdError),
    #[error("launch file")]
    Launch(#[from] DecodeError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Cdi(#[from] CdiError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

/// A container that could not be started, of an image for another platform.
#[derive(Debug, thiserror::Error)]
#[error("the container's image is for {image}, and this machine is {host}")]
pub struct Foreign {
    pub image: Platform,
    pub host: Platform,
    #[source]
    pub why: SupervisorError,
}

/// The one place where an error becomes gRPC's.
impl From<NodeError> for Status {
    fn from(error: NodeError) -> Status {
        let text = gantry_env::chain(&error).to_string();
        match error {
            NodeError::NoSandbox(_)
            | NodeError::NoContainer(_)
            | NodeError::NoImage(_)
            | NodeError::Cdi(CdiError::Unknown { .. }) => Status::not_found(text),
            NodeError::Missing(_)
            | NodeError::Invalid { .. }
            | NodeError::Id(_)
            | NodeError::Spec(_)
            | NodeError::Cdi(CdiError::Name { .. } | CdiError::TooMany { .. })
            | NodeError::Module(ModuleError::Profile(_))
            | NodeError::Namespace(NamespaceError::SysctlRefused(_)) => Status::invalid_argument(text),
            NodeError::Exists { .. } => Status::already_exists(text),
            NodeError::NotReady(_)
            | NodeError::WrongState { .. }
            | NodeError::Module(_)
            | NodeError::NoCriu
            | NodeError::Cdi(CdiError::Conflict { .. } | CdiError::Host { .. })
            | NodeError::NoUsers(_) => Status::failed_precondition(text),
            NodeError::Image(error) => error.status(),
            NodeError::Unkillable(_) | NodeError::ExecTimeout(_) => Status::deadline_exceeded(text),
            NodeError::Unsupported(_) | NodeError::Cdi(CdiError::Unsupported { .. }) => Status::unimplemented(text),
            NodeError::Busy { .. } => Status::resource_exhausted(text),
            NodeError::NoSupervisor
            | NodeError::Interrupted
            | NodeError::Io { .. }
            | NodeError::Launch(_)
            | NodeError::Record(_)
            | NodeError::Profile(_)
            | NodeError::Cgroup(_)
            | NodeError::Namespace(_)
            | NodeError::Network(_)
            | NodeError::Foreign(_)
            | NodeError::Supervisor(_) => Status::unknown(text),
        }
    }
}
