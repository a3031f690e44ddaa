//! The rules an object must keep before it is stored, as pure functions from objects to broken rules.
//!
//! [`meta`] holds what every kind has in common; the rules of single kinds are reached through [`create`] and
//! [`update`], so that the API server and the agent (for static pods) ask the same questions. Objects are canonical and
//! have their defaults. Paths and words are those that users know from Kubernetes; at most [`at::ERRORS_MAX`] broken
//! rules are named. Whether something else exists (a port is free, an account is there) is asked elsewhere.

use crate::{FieldError, Object, Resource};

pub mod at;
mod autoscaler;
mod bounds;
mod cluster;
mod cron_job;
mod data;
mod disruption;
mod endpoints;
pub(crate) mod format;
mod job;
pub mod meta;
mod network;
pub mod pod;
mod rbac;
mod selector;
mod service;
mod storage;
#[cfg(test)]
mod tests;
mod workload;

pub use data::DATA_MAX_BYTES;
pub use endpoints::ENDPOINTS_MAX;

use at::At;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// What is wrong with a new object's own fields (its metadata is [`meta`]'s).
pub fn create(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let mut errors = at::Errors::default();
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::create(object, &mut errors),
        ("networking.k8s.io", "Ingress") => network::ingress_create(object, &mut errors),
        ("batch", "CronJob") => cron_job::create(object, &mut errors),
        _ => always(resource, object, &mut errors),
    }
    errors.into_vec()
}

/// What is wrong with a change from `old` to `new`.
pub fn update(resource: &Resource, new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = at::Errors::default();
    always(resource, new, &mut errors);
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::update(new, old, &mut errors),
        ("", "Service") => service::update(new, old, &mut errors),
        ("", "ResourceQuota") => bounds::quota_update(new, old, &mut errors),
        ("", "PersistentVolume") => storage::volume_update(new, old, &mut errors),
        ("", "PersistentVolumeClaim") => storage::claim_update(new, old, &mut errors),
        ("storage.k8s.io", "StorageClass") => storage::class_update(new, old, &mut errors),
        ("", "Secret" | "ConfigMap") => data::update(new, old, &mut errors),
        ("", "Node") => cluster::node_update(new, old, &mut errors),
        ("apps", "DaemonSet" | "Deployment" | "ReplicaSet") => workload::update(new, old, &mut errors),
        ("apps", "ControllerRevision") => workload::revision_update(new, old, &mut errors),
        ("batch", "Job") => job::update(new, old, &mut errors),
        ("apps", "StatefulSet") => workload::stateful_set_update(new, old, &mut errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_update(new, old, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class_update(new, old, &mut errors),
        ("networking.k8s.io", "IPAddress") => cluster::ip_address_update(new, old, &mut errors),
        ("networking.k8s.io", "IngressClass") => network::ingress_class_update(new, old, &mut errors),
        (RBAC_GROUP, "RoleBinding" | "ClusterRoleBinding") => rbac::binding_update(new, old, &mut errors),
        _ => {}
    }
    errors.into_vec()
}

/// The rules that hold for an object whether it is new or changed. A pod's differ, and are asked apart.
fn always(resource: &Resource, object: &Object, errors: &mut at::Errors) {
    match (resource.group, resource.kind) {
        ("", "Service") => service::create(object, errors),
        ("", "Secret") => data::secret(object, errors),
        ("", "ConfigMap") => data::config_map(object, errors),
        ("", "Namespace") => cluster::namespace(object, errors),
        ("", "Node") => cluster::node(object, errors),
        ("", "Event") => cluster::event(object, errors),
        ("", "Endpoints") => endpoints::endpoints(object, errors),
        ("", "ReplicationController") => workload::replication_controller(object, errors),
        ("apps", "ControllerRevision") => workload::revision(object, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::autoscaler(object, errors),
        ("batch", "Job") => job::job(object, errors),
        ("batch", "CronJob") => cron_job::cron_job(object, errors),
        ("policy", "PodDisruptionBudget") => disruption::budget(object, errors),
        ("", "LimitRange") => bounds::limit_range(object, errors),
        ("", "ResourceQuota") => bounds::quota(object, errors),
        ("", "PersistentVolume") => storage::volume(object, errors),
        ("", "PersistentVolumeClaim") => storage::claim(&At::of(object, "spec"), errors),
        ("storage.k8s.io", "StorageClass") => storage::class(object, errors),
        ("apps", "StatefulSet") => workload::stateful_set(object, errors),
        ("apps", "DaemonSet") => workload::daemon_set(object, errors),
        ("apps", "Deployment") => workload::deployment(object, errors),
        ("apps", "ReplicaSet") => workload::replica_set(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(object, errors),
        ("coordination.k8s.io", "Lease") => cluster::lease(object, errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(object, errors),
        ("networking.k8s.io", "IPAddress") => cluster::ip_address(object, errors),
        ("networking.k8s.io", "Ingress") => network::ingress(object, errors),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(object, errors),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(object, errors),
        ("", "PodTemplate") => pod::template(&at::At::of(object, "template"), errors),
        (RBAC_GROUP, "Role") => rbac::role(object, true, errors),
        (RBAC_GROUP, "ClusterRole") => rbac::role(object, false, errors),
        (RBAC_GROUP, "RoleBinding") => rbac::binding(object, true, errors),
        (RBAC_GROUP, "ClusterRoleBinding") => rbac::binding(object, false, errors),
        _ => {}
    }
}
