//! Pod arithmetic that the scheduler, the admission of the agent and every status agree on.
//!
//! [`resources`] adds up what a pod asks for, [`qos`] says what follows from it, [`phase`] turns container statuses into
//! the pod's phase and conditions. All of it is pure and reads the object's own JSON.

use serde_json::Value;

use crate::Object;

pub mod phase;
pub mod qos;
pub mod resources;
pub mod restart;

#[cfg(test)]
mod tests;

/// The pod that a static pod is shown as in the API carries this annotation, and is never started from there.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Where the agent heard of a pod: `file` or `api`.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The hash of a static pod's manifest.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

pub fn containers(pod: &Object) -> &[Value] {
    pod.array_at("/spec/containers")
}

pub fn init_containers(pod: &Object) -> &[Value] {
    pod.array_at("/spec/initContainers")
}

/// Containers that were added to a running pod to look at it.
pub fn ephemeral_containers(pod: &Object) -> &[Value] {
    pod.array_at("/spec/ephemeralContainers")
}

/// Every container that a pod names, in the order in which they begin.
pub fn all_containers(pod: &Object) -> impl Iterator<Item = &Value> {
    init_containers(pod).iter().chain(containers(pod)).chain(ephemeral_containers(pod))
}

/// An init container that goes on beside the pod's own containers.
pub fn is_sidecar(init_container: &Value) -> bool {
    init_container["restartPolicy"] == "Always"
}

pub fn is_mirror(pod: &Object) -> bool {
    pod.annotation(MIRROR_ANNOTATION).is_some()
}

/// A pod that has ended and will not start again.
pub fn is_terminal(pod: &Object) -> bool {
    matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed")
}
