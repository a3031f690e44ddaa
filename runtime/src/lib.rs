//! The container runtime behind CRI v1: sandboxes, images, containers, streams. It is complete without Kubernetes:
//! crictl alone can drive it.
//!
//! A request arrives in [`cri`] (one file an RPC) and acts on the [`node`]: what is known of every sandbox and container,
//! journalled by [`records`] before anything is done. [`image`] gives roots, [`network`] addresses, [`sandbox`] the
//! namespaces, [`container`] the OCI configuration and the launch file, [`cdi`] what vendors' devices need in it, [`cgroup`]
//! the limits. A [`supervisor`] a pod
//! keeps the processes; [`recover`] takes them up again when either side was killed. [`stream`] serves exec,
//! attach and port-forward.

pub mod cdi;
pub mod cgroup;
mod config;
pub mod container;
mod cri;
mod fault;
mod heard;
pub mod image;
pub mod network;
mod node;
pub mod records;
mod recover;
mod runtime;
pub mod sandbox;
mod stream;
mod supervisor;
mod sys;

pub use config::{Config, NetworkConfig};
pub use gantry_base::log::LogLimits;
pub use node::NodeError;
pub use runtime::{Runtime, StartError};
pub use stream::spdy;
pub use sys::bound_heaps;
