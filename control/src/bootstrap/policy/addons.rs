//! Roles for what people add to a cluster, and for who approves certificates. Nobody is bound to most of them.

use gantry_kube::Object;

use super::{READ, events, named, role, rule};

pub fn roles() -> Vec<Object> {
    vec![
        role("system:kube-dns", "", vec![rule("list watch", "core", "endpoints services")]),
        // What metrics-server brings with it: who may see pods may see what they use.
        role(
            "system:aggregated-metrics-reader",
            "aggregate-to-admin aggregate-to-edit aggregate-to-view",
            vec![rule(READ, "metrics.k8s.io", "nodes pods")],
        ),
        role(
            "system:kube-aggregator",
            "",
            vec![rule(READ, "core", "endpoints services"), rule(READ, "discovery.k8s.io", "endpointslices")],
        ),
        role(
            "system:heapster",
            "",
            vec![rule(READ, "core", "events namespaces nodes pods"), rule(READ, "extensions", "deployments")],
        ),
        role(
            "system:node-problem-detector",
            "",
            vec![rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        role(
            "system:persistent-volume-provisioner",
            "",
            vec![
                rule("create delete get list watch", "core", "persistentvolumes"),
                rule("get list watch update", "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        role(
            "system:volume-scheduler",
            "",
            vec![
                rule("get list watch patch update", "core", "persistentvolumes persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
            ],
        ),
    ]
}

/// Who may ask for certificates, and who may approve those of a signer.
pub fn certificates() -> Vec<Object> {
    const GROUP: &str = "certificates.k8s.io";
    let ask = |whose: &str| {
        let rules = vec![rule("create", GROUP, &format!("certificatesigningrequests/{whose}"))];
        role(&format!("system:{GROUP}:certificatesigningrequests:{whose}"), "", rules)
    };
    let approve = |signer: &str| {
        let of = named(rule("approve", GROUP, "signers"), &format!("kubernetes.io/{signer}"));
        role(&format!("system:{GROUP}:{signer}-approver"), "", vec![of])
    };
    vec![
        role("system:node-bootstrapper", "", vec![rule("create get list watch", GROUP, "certificatesigningrequests")]),
        ask("nodeclient"),
        ask("selfnodeclient"),
        approve("kube-apiserver-client"),
        approve("kube-apiserver-client-kubelet"),
        approve("kubelet-serving"),
        approve("legacy-unknown"),
    ]
}
