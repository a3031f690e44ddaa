//! The objects that a cluster is born with besides its policy: namespaces, priority classes, a storage class, the services
//! of the API and of DNS, and the addresses behind the API's.

use std::net::IpAddr;

use gantry_kube::resource::{
    CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ENDPOINT_SLICE, ENDPOINTS, NAMESPACE, PRIORITY_CLASS, ROLE, ROLE_BINDING,
    SERVICE, SERVICE_CIDR, STORAGE_CLASS,
};
use gantry_kube::{Object, Resource, flow_control, storage};
use serde_json::{Value, json};

use super::{Cluster, policy};
use crate::admission::namespace::IMMORTAL;

/// What a start does where the object is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Leaves it: it is the users' from then on.
    Once,
    /// Adds what is missing (rules, subjects, labels), unless the object opts out.
    Add,
    /// Makes it be as wanted.
    Exact,
}

/// An object that should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    pub resource: &'static Resource,
    pub object: Object,
    pub upkeep: Upkeep,
}

fn seed(resource: &'static Resource, upkeep: Upkeep, value: Value) -> Seed {
    let mut object = match value {
        Value::Object(map) => Object(map),
        _ => Object::default(),
    };
    object.0.insert("apiVersion".to_owned(), json!(resource.api_version()));
    object.0.insert("kind".to_owned(), json!(resource.kind));
    Seed { resource, object, upkeep }
}

/// Everything, in the order in which it can be created.
pub fn seeds(cluster: &Cluster) -> Vec<Seed> {
    let mut all: Vec<Seed> =
        IMMORTAL.iter().map(|name| seed(&NAMESPACE, Upkeep::Once, json!({"metadata": {"name": name}}))).collect();
    for (resource, objects) in [
        (&CLUSTER_ROLE, policy::cluster_roles()),
        (&CLUSTER_ROLE_BINDING, policy::cluster_role_bindings()),
        (&ROLE, policy::roles()),
        (&ROLE_BINDING, policy::role_bindings()),
    ] {
        all.extend(objects.into_iter().map(|object| Seed { resource, object, upkeep: Upkeep::Add }));
    }
    all.extend(priority_classes());
    all.push(storage_class());
    all.extend(flow_control::mandatory().into_iter().map(|(resource, name, spec)| {
        seed(resource, Upkeep::Once, json!({"metadata": flow_control::metadata(name), "spec": spec}))
    }));
    // The range that Services get their addresses from.
    let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cluster.service_cidr]}});
    all.push(seed(&SERVICE_CIDR, Upkeep::Once, range));
    let addresses = kubernetes_service(cluster, &[cluster.advertise], cluster.port);
    // Of several API servers, one that starts does not yet know of the others.
    let upkeep = |seed: Seed| if cluster.shared { Seed { upkeep: Upkeep::Once, ..seed } } else { seed };
    all.extend(addresses.into_iter().map(upkeep));
    all.push(dns_service(cluster));
    all
}

/// Names and values of the system's own classes.
pub const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn priority_classes() -> Vec<Seed> {
    let describe = |name: &str| match name {
        "system-cluster-critical" => "for pods that the cluster cannot do without, which may run on any node",
        _ => "for pods that their node cannot do without",
    };
    SYSTEM_PRIORITIES
        .iter()
        .map(|(name, value)| {
            let body = json!({
                "metadata": {"name": name}, "value": value, "globalDefault": false, "description": describe(name),
                "preemptionPolicy": "PreemptLowerPriority",
            });
            seed(&PRIORITY_CLASS, Upkeep::Once, body)
        })
        .collect()
}

/// Folders on the node that runs a claim's first consumer: what claims get that name no class.
fn storage_class() -> Seed {
    let body = json!({
        "metadata": {
            "name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": storage::LOCAL_PATH, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    seed(&STORAGE_CLASS, Upkeep::Once, body)
}

fn families(ip: IpAddr) -> (&'static str, Value) {
    let (family, slice) = if ip.is_ipv4() { ("IPv4", "IPv4") } else { ("IPv6", "IPv6") };
    (slice, json!([family]))
}

/// `default/kubernetes`, and the addresses that it leads to.
pub fn kubernetes_service(cluster: &Cluster, addresses: &[IpAddr], port: u16) -> Vec<Seed> {
    let (family, list) = families(cluster.service_ip);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster.service_ip, "clusterIPs": [cluster.service_ip],
            "ipFamilies": list, "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    });
    let port = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subset: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints_of_slice: Vec<Value> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let endpoints = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": subset, "ports": port}],
    });
    let slice = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": endpoints_of_slice,
        "ports": port,
    });
    vec![
        seed(&SERVICE, Upkeep::Once, service),
        seed(&ENDPOINTS, Upkeep::Exact, endpoints),
        seed(&ENDPOINT_SLICE, Upkeep::Exact, slice),
    ]
}

/// `kube-system/kube-dns`. It has no selector and no endpoints: each node answers its address itself.
fn dns_service(cluster: &Cluster) -> Seed {
    let (_, list) = families(cluster.dns_ip);
    let body = json!({
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster.dns_ip, "clusterIPs": [cluster.dns_ip],
            "ipFamilies": list, "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
            ],
        },
    });
    seed(&SERVICE, Upkeep::Once, body)
}
