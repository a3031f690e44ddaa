//! One strategy a kind, pure: what the server sets or keeps when an object is made or changed, whether its status is
//! written apart, and which fields a field selector may name.

mod certificate;
pub mod custom;
mod namespace;
mod pod;
mod service;
mod unbuilt;
mod workload;

use gantry_kube::{Object, Resource, Status};
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::custom::Custom;

pub use service::{patch_allocated, wants_cluster_ip, wants_node_ports};

/// How the generic verbs treat one kind.
#[derive(Debug)]
pub struct Strategy {
    /// `status` is written through its subresource only.
    pub status: bool,
    /// `metadata.generation` counts the changes of the spec.
    pub generation: bool,
    /// Deletion may wait for a grace period.
    pub graceful: bool,
    pub prepare_create: fn(&mut Object),
    /// The new object arrives with the old one's server-set metadata already in place.
    pub prepare_update: fn(&mut Object, &Object),
    /// What the server says of who sent a new object.
    pub requested_by: fn(&mut Object, &Identity),
    /// Fills in, at a time, what a writer of the status left out.
    pub date_status: fn(&mut Object, &Object, &str),
    /// Why an object would have no effect.
    pub unbuilt: fn(&Object) -> Option<&'static str>,
    /// Field paths that a selector may name beside `metadata.name` and `metadata.namespace`.
    pub fields: &'static [&'static str],
}

const PLAIN: Strategy = Strategy {
    status: false,
    generation: false,
    graceful: false,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    requested_by: |_, _| {},
    date_status: |_, _, _| {},
    unbuilt: |_| None,
    fields: &[],
};

static DEFAULT: Strategy = PLAIN;
/// Custom kinds, with and without a status subresource.
static CUSTOM: Strategy = Strategy { generation: true, ..PLAIN };
static CUSTOM_WITH_STATUS: Strategy =
    Strategy { status: true, generation: true, prepare_create: custom::without_status, ..PLAIN };
static POD: Strategy = Strategy {
    status: true,
    generation: true,
    graceful: true,
    prepare_create: pod::prepare_create,
    prepare_update: pod::prepare_update,
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    ..PLAIN
};
static NAMESPACE: Strategy = Strategy {
    status: true,
    prepare_create: namespace::prepare_create,
    prepare_update: namespace::prepare_update,
    fields: &["status.phase"],
    ..PLAIN
};
static NODE: Strategy = Strategy { status: true, fields: &["spec.unschedulable"], ..PLAIN };
static SERVICE: Strategy = Strategy {
    status: true,
    prepare_create: service::prepare_create,
    prepare_update: service::prepare_update,
    fields: &["spec.clusterIP", "spec.type"],
    ..PLAIN
};
static DEPLOYMENT: Strategy = Strategy {
    status: true,
    generation: true,
    prepare_create: workload::empty_status,
    prepare_update: workload::deployment_update,
    ..PLAIN
};
static REPLICA_SET: Strategy = Strategy {
    status: true,
    generation: true,
    prepare_create: workload::empty_status,
    fields: &["status.replicas"],
    ..PLAIN
};
static STATEFUL_SET: Strategy =
    Strategy { status: true, generation: true, prepare_create: workload::stateful_set_create, ..PLAIN };
static JOB: Strategy = Strategy { status: true, generation: true, prepare_create: workload::job_create, ..PLAIN };
static CRON_JOB: Strategy =
    Strategy { status: true, generation: true, prepare_create: workload::empty_status, ..PLAIN };
static BUDGET: Strategy = Strategy { status: true, generation: true, prepare_create: workload::budget_create, ..PLAIN };
static AUTOSCALER: Strategy =
    Strategy { status: true, generation: true, prepare_create: workload::autoscaler_create, ..PLAIN };
static INGRESS: Strategy =
    Strategy { status: true, generation: true, prepare_create: workload::ingress_create, ..PLAIN };
static RESOURCE_QUOTA: Strategy = Strategy { status: true, prepare_create: workload::empty_status, ..PLAIN };
static STORAGE: Strategy = Strategy { status: true, prepare_create: workload::pending, ..PLAIN };
static DAEMON_SET: Strategy =
    Strategy { status: true, generation: true, prepare_create: workload::daemon_set_create, ..PLAIN };
static COUNTED: Strategy = Strategy { generation: true, ..PLAIN };
static SECRET: Strategy = Strategy { fields: &["type"], ..PLAIN };
static EVENT: Strategy = Strategy {
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ],
    ..PLAIN
};
static DEFINITION: Strategy = Strategy {
    status: true,
    generation: true,
    prepare_create: custom::definition_create,
    prepare_update: custom::definition_update,
    ..PLAIN
};
static IP_ADDRESS: Strategy = Strategy { fields: &["spec.parentRef"], ..PLAIN };

static SIGNING_REQUEST: Strategy = Strategy {
    status: true,
    prepare_create: certificate::prepare_create,
    prepare_update: certificate::prepare_update,
    requested_by: certificate::requested_by,
    date_status: certificate::date_conditions,
    fields: &["spec.signerName"],
    ..PLAIN
};
static ATTACHMENT: Strategy = Strategy { status: true, prepare_create: workload::detached, ..PLAIN };
const WITH_STATUS: Strategy = Strategy { status: true, prepare_create: workload::empty_status, ..PLAIN };
const COUNTED_WITH_STATUS: Strategy = Strategy { generation: true, ..WITH_STATUS };
static SLICE: Strategy = Strategy { generation: true, fields: &["spec.driver", "spec.nodeName"], ..PLAIN };
static WEBHOOKS: Strategy = Strategy { generation: true, unbuilt: unbuilt::webhooks, ..PLAIN };
static ADMISSION_POLICY: Strategy = Strategy { unbuilt: unbuilt::policies, ..COUNTED_WITH_STATUS };
static ADMISSION_BINDING: Strategy = Strategy { generation: true, unbuilt: unbuilt::policies, ..PLAIN };
static API_SERVICE: Strategy =
    Strategy { status: true, prepare_create: workload::local_service, unbuilt: unbuilt::aggregation, ..PLAIN };

pub fn of(resource: &Resource, custom: Option<&Custom>) -> &'static Strategy {
    match custom {
        Some(custom) if custom.status => &CUSTOM_WITH_STATUS,
        Some(_) => &CUSTOM,
        None => of_built_in(resource),
    }
}

pub fn of_built_in(resource: &Resource) -> &'static Strategy {
    match (resource.group, resource.kind) {
        ("", "Pod") => &POD,
        ("", "Namespace") => &NAMESPACE,
        ("", "Node") => &NODE,
        ("", "Service") => &SERVICE,
        ("", "Secret") => &SECRET,
        ("" | "events.k8s.io", "Event") => &EVENT,
        ("apps", "DaemonSet") => &DAEMON_SET,
        ("apps", "Deployment") => &DEPLOYMENT,
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &REPLICA_SET,
        ("apps", "StatefulSet") => &STATEFUL_SET,
        ("autoscaling", "HorizontalPodAutoscaler") => &AUTOSCALER,
        ("batch", "Job") => &JOB,
        ("batch", "CronJob") => &CRON_JOB,
        ("policy", "PodDisruptionBudget") => &BUDGET,
        ("", "PersistentVolume" | "PersistentVolumeClaim") => &STORAGE,
        ("", "ResourceQuota") => &RESOURCE_QUOTA,
        ("discovery.k8s.io", _) | ("scheduling.k8s.io", _) => &COUNTED,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &DEFINITION,
        ("networking.k8s.io", "IPAddress") => &IP_ADDRESS,
        ("networking.k8s.io", "Ingress") => &INGRESS,
        ("networking.k8s.io", "IngressClass" | "NetworkPolicy") | ("", "PodTemplate") => &COUNTED,
        ("certificates.k8s.io", _) => &SIGNING_REQUEST,
        ("storage.k8s.io", "VolumeAttachment") => &ATTACHMENT,
        ("storage.k8s.io", "CSIDriver") | ("resource.k8s.io", "DeviceClass") => &COUNTED,
        ("networking.k8s.io", "ServiceCIDR") | ("resource.k8s.io", "ResourceClaim") => &WITH_STATUS,
        ("resource.k8s.io", "ResourceSlice") => &SLICE,
        ("flowcontrol.apiserver.k8s.io" | "apiextensions.k8s.io", _) => &COUNTED_WITH_STATUS,
        ("admissionregistration.k8s.io", kind) if kind.ends_with("WebhookConfiguration") => &WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &ADMISSION_POLICY,
        ("admissionregistration.k8s.io", _) => &ADMISSION_BINDING,
        ("apiregistration.k8s.io", _) => &API_SERVICE,
        _ => &DEFAULT,
    }
}

impl Strategy {
    /// Refuses what would be kept and not honoured.
    pub fn check_built(&self, resource: &Resource, object: &Object) -> Result<(), Status> {
        match (self.unbuilt)(object) {
            None => Ok(()),
            Some(why) => Err(unbuilt::refusal(resource, object.name(), why)),
        }
    }

    pub fn create(&self, new: &mut Object, identity: &Identity) {
        (self.requested_by)(new, identity);
        if self.generation {
            new.metadata_mut().insert("generation".to_owned(), json!(1));
        } else {
            new.metadata_mut().remove("generation");
        }
        (self.prepare_create)(new);
    }

    /// A write to the object itself: its status stays as it was.
    pub fn update(&self, new: &mut Object, old: &Object) {
        if self.status {
            keep(new, old, "status");
        }
        match old.get("/metadata/generation").cloned() {
            Some(kept) => new.metadata_mut().insert("generation".to_owned(), kept),
            None => new.metadata_mut().remove("generation"),
        };
        (self.prepare_update)(new, old);
        self.count_generation(new, old);
    }

    /// All that is neither metadata nor written apart counts as an object's spec.
    fn differs_in_spec(&self, new: &Object, old: &Object) -> bool {
        let counts = |key: &str| match key {
            "metadata" | "apiVersion" => false,
            "status" => !self.status,
            _ => true,
        };
        let spec = |o: &Object| o.0.keys().filter(|key| counts(key)).count();
        spec(new) != spec(old) || new.0.iter().any(|(key, value)| counts(key) && old.0.get(key) != Some(value))
    }

    /// A change of the spec counts; what else a kind counts has been counted.
    fn count_generation(&self, new: &mut Object, old: &Object) {
        if self.generation && self.differs_in_spec(new, old) {
            new.metadata_mut().insert("generation".to_owned(), json!(old.generation() + 1));
        }
    }

    /// A write to a signing request's `/approval`: everything but the conditions stays as it was.
    pub fn update_approval(&self, new: &Object, old: &Object) -> Object {
        certificate::approval(new, old)
    }

    /// A write to a pod's `/ephemeralcontainers`: everything else stays as it was.
    pub fn update_ephemeral_containers(&self, new: &Object, old: &Object) -> Object {
        let mut result = old.clone();
        let list = new.get("/spec/ephemeralContainers").cloned();
        let spec = result.map_mut("spec");
        match list {
            Some(list) => spec.insert("ephemeralContainers".to_owned(), list),
            None => spec.remove("ephemeralContainers"),
        };
        self.count_generation(&mut result, old);
        result
    }

    /// A write to a pod's `/resize`: of each container that is there its resources, and nothing else.
    pub fn update_resources(&self, new: &Object, old: &Object) -> Object {
        let mut result = old.clone();
        for list in ["containers", "initContainers"] {
            let wanted = new.array_at(&format!("/spec/{list}"));
            let containers = result.map_mut("spec").get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let Some(wanted) = wanted.iter().find(|wanted| wanted["name"] == container["name"]) else { continue };
                match wanted.get("resources") {
                    Some(resources) => container["resources"] = resources.clone(),
                    None => drop(container.as_object_mut().and_then(|map| map.remove("resources"))),
                }
            }
        }
        self.count_generation(&mut result, old);
        result
    }

    /// A write to `/status`: everything but the status stays as it was. Labels and annotations may come along for the
    /// kinds whose agents write them that way.
    pub fn update_status(&self, resource: &Resource, new: &Object, old: &Object) -> Object {
        let mut result = old.clone();
        match new.0.get("status") {
            Some(status) => result.0.insert("status".to_owned(), status.clone()),
            None => result.0.remove("status"),
        };
        if matches!(
            (resource.group, resource.kind),
            ("", "Pod" | "Node" | "Namespace" | "Service") | ("certificates.k8s.io", _)
        ) {
            for field in ["labels", "annotations"] {
                match new.get(&format!("/metadata/{field}")) {
                    Some(value) => result.metadata_mut().insert(field.to_owned(), value.clone()),
                    None => result.metadata_mut().remove(field),
                };
            }
        }
        result
    }
}

/// Puts the old object's top-level `key` in place of the new one's.
fn keep(new: &mut Object, old: &Object, key: &str) {
    match old.0.get(key) {
        Some(value) => new.0.insert(key.to_owned(), value.clone()),
        None => new.0.remove(key),
    };
}

fn set(object: &mut Object, key: &str, value: Value) {
    object.0.insert(key.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn status_is_written_apart() {
        let old =
            object(json!({"metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 1}, "status": {"x": 1}}));
        let mut new = object(json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {"x": 2}}));
        let strategy = of_built_in(&resource::DEPLOYMENT);
        strategy.update(&mut new, &old);
        assert_eq!(new, old);
        new.map_mut("spec").insert("replicas".into(), json!(2));
        new.map_mut("status").insert("x".into(), json!(3));
        strategy.update(&mut new, &old);
        assert_eq!((new.generation(), new.i64_at("/status/x")), (2, Some(1)));
        let wanted = object(json!({"metadata": {"name": "a"}, "spec": {"replicas": 7}, "status": {"x": 9}}));
        let status = strategy.update_status(&resource::DEPLOYMENT, &wanted, &old);
        assert_eq!((status.i64_at("/spec/replicas"), status.i64_at("/status/x")), (Some(1), Some(9)));
    }

    #[test]
    fn generations_are_the_servers() {
        let of_generation = |generation: Value, annotations: Value, replicas: i64| {
            object(
                json!({"metadata": {"name": "a", "generation": generation, "annotations": annotations}, "spec": {"replicas": replicas}}),
            )
        };
        let counted = |resource, mut new: Object, old: &Object| {
            of_built_in(resource).update(&mut new, old);
            new.generation()
        };
        let old = of_generation(json!(4), json!({}), 1);
        assert_eq!(counted(&resource::REPLICA_SET, of_generation(json!(9), json!({}), 1), &old), 4);
        assert_eq!(counted(&resource::REPLICA_SET, of_generation(json!(9), json!({}), 2), &old), 5);
        // Annotations of a Deployment reach its ReplicaSets.
        assert_eq!(counted(&resource::DEPLOYMENT, of_generation(json!(9), json!({"a": "b"}), 1), &old), 5);
        assert_eq!(counted(&resource::REPLICA_SET, of_generation(json!(9), json!({"a": "b"}), 1), &old), 4);
        let uncounted = of_generation(Value::Null, json!({}), 1);
        assert_eq!(counted(&resource::CONFIG_MAP, of_generation(json!(9), json!({}), 1), &uncounted), 0);
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let strategy = of_built_in(&resource::API_SERVICE);
        assert_eq!(strategy.check_built(&resource::API_SERVICE, &object(json!({"spec": {}}))), Ok(()));
        let behind = object(json!({"metadata": {"name": "v1.a.b"}, "spec": {"service": {"name": "s"}}}));
        let status = strategy.check_built(&resource::API_SERVICE, &behind).unwrap_err();
        assert_eq!((status.code, status.details["name"].as_str()), (501, Some("v1.a.b")));
        let refused = |r: &Resource| of_built_in(r).check_built(r, &Object::default()).is_err();
        let unbuilt: Vec<&str> = resource::ALL.iter().filter(|r| refused(r)).map(|r| r.kind).collect();
        assert_eq!(unbuilt.len(), 6, "{unbuilt:?}");
        assert!(resource::ALL.iter().all(|r| refused(r) == (r.group == "admissionregistration.k8s.io")));
    }

    #[test]
    fn a_namespace_names_itself_and_is_finalized() {
        let mut ns = object(json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
        of_built_in(&resource::NAMESPACE).create(&mut ns, &Identity::default());
        assert_eq!(ns.label("kubernetes.io/metadata.name"), Some("a"));
        assert_eq!(ns.str_at("/spec/finalizers/0"), "kubernetes");
        assert_eq!(ns.str_at("/status/phase"), "Active");
    }
}
