//! The rules an object must keep before it is stored, as pure functions from objects to broken rules.
//!
//! [`meta`] holds what every kind has in common; the rules of single kinds are reached through [`create`] and
//! [`update`], so that the API server and the agent (for static pods) ask the same questions. Objects are canonical and
//! have their defaults. Paths and words are those that users know from Kubernetes; at most [`at::ERRORS_MAX`] broken
//! rules are named. Whether something else exists (a port is free, an account is there) is asked elsewhere.

use crate::custom::{definition, rules};
use crate::{FieldError, Object, Resource};

mod api_service;
pub mod at;
mod attachment;
mod autoscaler;
mod bounds;
mod certificate;
mod cluster;
mod conditions;
mod cron_job;
mod csi;
mod data;
mod devices;
mod disruption;
mod endpoints;
mod event;
mod flow_schema;
pub(crate) mod format;
mod job;
pub mod meta;
mod network;
pub mod pod;
mod priority_level;
mod rbac;
mod runtime_class;
mod selector;
mod service;
mod service_cidr;
mod storage;
#[cfg(test)]
mod tests;
mod workload;

pub use data::DATA_MAX_BYTES;
pub use endpoints::ENDPOINTS_MAX;

use at::At;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const DEVICE_GROUP: &str = "resource.k8s.io";

/// What is wrong with a new object's own fields (its metadata is [`meta`]'s).
pub fn create(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let mut errors = at::Errors::default();
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::create(object, &mut errors),
        ("networking.k8s.io", "Ingress") => network::ingress_create(object, &mut errors),
        ("batch", "CronJob") => cron_job::create(object, &mut errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(object, &mut errors),
        (definition::GROUP, definition::KIND) => return definition::create(object, &rules::check),
        ("node.k8s.io", "RuntimeClass") => runtime_class::create(object, &mut errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::create(object, &mut errors),
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity(object, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate::create(object, &mut errors),
        (DEVICE_GROUP, "ResourceClaim") => devices::claim::claim(object, &mut errors),
        (DEVICE_GROUP, "ResourceClaimTemplate") => devices::claim::template(object, &mut errors),
        ("events.k8s.io", "Event") => {
            always(resource, object, &mut errors);
            event::create_strict(object, &mut errors);
        }
        _ => always(resource, object, &mut errors),
    }
    errors.into_vec()
}

/// What is wrong with a change from `old` to `new`.
pub fn update(resource: &Resource, new: &Object, old: &Object) -> Vec<FieldError> {
    if (resource.group, resource.kind) == (definition::GROUP, definition::KIND) {
        return definition::update(new, old, &rules::check);
    }
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
        ("node.k8s.io", "RuntimeClass") => runtime_class::update(new, old, &mut errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::update(new, old, &mut errors),
        ("storage.k8s.io", "CSIDriver") => csi::driver_update(new, old, &mut errors),
        ("storage.k8s.io", "CSINode") => csi::node_update(new, old, &mut errors),
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity_update(new, old, &mut errors),
        ("storage.k8s.io", "VolumeAttachment") => attachment::update(new, old, &mut errors),
        ("storage.k8s.io", "VolumeAttributesClass") => csi::attributes_class_update(new, old, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate::update("", new, old, &mut errors),
        ("events.k8s.io", "Event") => event::update_strict(new, old, &mut errors),
        (DEVICE_GROUP, "ResourceClaim" | "ResourceClaimTemplate") => devices::claim::update(new, old, &mut errors),
        (DEVICE_GROUP, "ResourceSlice") => devices::slice::update(new, old, &mut errors),
        _ => {}
    }
    errors.into_vec()
}

/// What is wrong with a change of the status, which came through that subresource.
pub fn status(resource: &Resource, subresource: &str, new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = at::Errors::default();
    match (resource.group, resource.kind) {
        ("storage.k8s.io", "VolumeAttachment") => attachment::attachment(new, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate::update(subresource, new, old, &mut errors),
        (DEVICE_GROUP, "ResourceClaim") => devices::allocation::update(new, old, &mut errors),
        ("flowcontrol.apiserver.k8s.io", _) => flow_schema::conditions(new, &mut errors),
        ("apiregistration.k8s.io", _) => api_service::status(new, &mut errors),
        (definition::GROUP, definition::KIND) => return definition::status_update(new),
        ("policy", "PodDisruptionBudget") => disruption::budget_status(new, &mut errors),
        _ => {}
    }
    errors.into_vec()
}

/// What the author of an object is to be warned of, beside what was wrong with it before.
pub fn warnings(resource: &Resource, new: &Object, old: Option<&Object>) -> Vec<String> {
    match (resource.group, resource.kind) {
        (definition::GROUP, definition::KIND) => definition::warnings(new, old),
        _ => Vec::new(),
    }
}

/// The rules that hold for an object whether it is new or changed. A pod's differ, and are asked apart.
fn always(resource: &Resource, object: &Object, errors: &mut at::Errors) {
    match (resource.group, resource.kind) {
        ("", "Service") => service::create(object, errors),
        ("", "Secret") => data::secret(object, errors),
        ("", "ConfigMap") => data::config_map(object, errors),
        ("", "Namespace") => cluster::namespace(object, errors),
        ("", "Node") => cluster::node(object, errors),
        ("", "Event") => event::event(object, "reportingComponent", errors),
        ("events.k8s.io", "Event") => event::event(object, "reportingController", errors),
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
        ("coordination.k8s.io", "Lease") => cluster::lease(object, errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(object, errors),
        ("networking.k8s.io", "IPAddress") => cluster::ip_address(object, errors),
        ("networking.k8s.io", "Ingress") => network::ingress(object, errors),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(object, errors),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(object, errors),
        ("", "PodTemplate") => pod::template(&at::At::of(object, "template"), errors),
        ("storage.k8s.io", "CSIDriver") => csi::driver(object, errors),
        ("storage.k8s.io", "CSINode") => csi::node(object, errors),
        ("storage.k8s.io", "VolumeAttachment") => attachment::attachment(object, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => csi::attributes_class(object, errors),
        (DEVICE_GROUP, "DeviceClass") => devices::claim::class(object, errors),
        (DEVICE_GROUP, "ResourceSlice") => devices::slice::slice(object, errors),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow_schema::schema(object, errors),
        ("flowcontrol.apiserver.k8s.io", _) => priority_level::level(object, errors),
        ("apiregistration.k8s.io", _) => api_service::service(object, errors),
        (RBAC_GROUP, "Role") => rbac::role(object, true, errors),
        (RBAC_GROUP, "ClusterRole") => rbac::role(object, false, errors),
        (RBAC_GROUP, "RoleBinding") => rbac::binding(object, true, errors),
        (RBAC_GROUP, "ClusterRoleBinding") => rbac::binding(object, false, errors),
        _ => {}
    }
}
