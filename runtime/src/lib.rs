//! The container runtime behind CRI v1: sandboxes, images, containers, streams. It is complete without Kubernetes.

pub mod image;
pub mod network;
