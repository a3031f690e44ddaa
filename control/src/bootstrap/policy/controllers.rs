//! A role for each controller of kube-controller-manager, bound to an account of its name in `kube-system`: what a stock one
//! needs that runs its controllers as accounts of their own. Gantry's controllers share one identity, and none of these.

use gantry_kube::Object;
use serde_json::Value;

use super::{READ, binding, events, named, role, rule};

const PREFIX: &str = "system:controller:";
const SIGNERS: &str = "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client \
     kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving";

pub fn roles() -> Vec<Object> {
    let all = all().into_iter();
    all.map(|(name, rules)| role(&format!("{PREFIX}{name}"), "", rules)).collect()
}

pub fn bindings() -> Vec<Object> {
    let of = |name: &str| {
        let role = format!("{PREFIX}{name}");
        binding(&role, &role, &[("ServiceAccount", name)])
    };
    all().into_iter().map(|(name, _)| of(name)).collect()
}

fn all() -> Vec<(&'static str, Vec<Value>)> {
    let mut all = workloads();
    all.extend(network());
    all.extend(volumes());
    all.extend(nodes());
    all.extend(cluster());
    all
}

fn workloads() -> Vec<(&'static str, Vec<Value>)> {
    // What a controller needs of the kind that it makes pods for, and of those pods.
    let owner = |groups: &str, kind: &str, verbs: &str| {
        let parts = |part: &str| rule("update", groups, &format!("{kind}/{part}"));
        vec![rule(verbs, groups, kind), parts("status"), parts("finalizers"), events()]
    };
    let with = |mut rules: Vec<Value>, more: Vec<Value>| {
        rules.extend(more);
        rules
    };
    let pods = || rule("list watch create delete patch", "core", "pods");
    let revisions = || rule("get list watch create delete update patch", "apps", "controllerrevisions");
    let changed = "get list watch update";
    vec![
        (
            "cronjob-controller",
            with(
                owner("batch", "cronjobs", changed),
                vec![
                    rule("get list watch create update delete patch", "batch", "jobs"),
                    rule("list watch delete", "core", "pods"),
                ],
            ),
        ),
        (
            "daemon-set-controller",
            with(
                owner("extensions apps", "daemonsets", READ),
                vec![rule("list watch", "core", "nodes"), pods(), rule("create", "core", "pods/binding"), revisions()],
            ),
        ),
        (
            "deployment-controller",
            with(
                owner("extensions apps", "deployments", changed),
                vec![
                    rule("get list watch create update patch delete", "apps extensions", "replicasets"),
                    rule(changed, "core", "pods"),
                ],
            ),
        ),
        ("job-controller", with(owner("batch", "jobs", "get list watch update patch"), vec![pods()])),
        ("replicaset-controller", with(owner("apps extensions", "replicasets", changed), vec![pods()])),
        ("replication-controller", with(owner("core", "replicationcontrollers", changed), vec![pods()])),
        (
            "statefulset-controller",
            with(
                owner("apps", "statefulsets", READ),
                vec![
                    rule("get list watch create delete update patch", "core", "pods"),
                    rule("update", "core", "pods/finalizers"),
                    revisions(),
                    rule("get list watch create update delete", "core", "persistentvolumeclaims"),
                ],
            ),
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "extensions apps", "deployments replicasets"),
                rule(READ, "apps", "statefulsets"),
                rule(READ, "core", "replicationcontrollers"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("patch update", "core", "pods/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get update", "*", "*/scale"),
                rule("list watch", "core metrics.k8s.io", "pods"),
                rule(READ, "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
                events(),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("get list watch delete", "batch", "jobs"), events()]),
    ]
}

fn network() -> Vec<(&'static str, Vec<Value>)> {
    let slices = || rule("get list watch create update delete", "discovery.k8s.io", "endpointslices");
    // A slice is owned by its service, and keeps it from going first.
    let owners = |kinds: &str| rule("update", "core", kinds);
    const GROUP: &str = "networking.k8s.io";
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "core", "services pods"),
                rule("get list watch create update delete", "core", "endpoints"),
                rule("create", "core", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![rule(READ, "core", "services pods nodes"), owners("services/finalizers"), slices(), events()],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "core", "services endpoints"),
                owners("services/finalizers endpoints/finalizers"),
                slices(),
                events(),
            ],
        ),
        (
            "route-controller",
            vec![rule("list watch", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        (
            "service-controller",
            vec![
                rule(READ, "core", "services"),
                rule("patch update", "core", "services/status"),
                rule("list watch", "core", "nodes"),
                events(),
            ],
        ),
        (
            "service-cidrs-controller",
            vec![
                rule("get list watch patch update", GROUP, "servicecidrs"),
                rule("patch update", GROUP, "servicecidrs/finalizers servicecidrs/status"),
                rule(READ, GROUP, "ipaddresses"),
                events(),
            ],
        ),
    ]
}

fn volumes() -> Vec<(&'static str, Vec<Value>)> {
    const STORAGE: &str = "storage.k8s.io";
    let guarded = "get list watch update";
    vec![
        (
            "attachdetach-controller",
            vec![
                rule("list watch", "core", "persistentvolumes persistentvolumeclaims pods"),
                rule(READ, "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("get create delete list watch", STORAGE, "volumeattachments"),
                rule(READ, STORAGE, "csidrivers csinodes"),
                events(),
            ],
        ),
        (
            "expand-controller",
            vec![
                rule("get list watch update patch", "core", "persistentvolumes"),
                rule("update patch", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("get list watch create", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("get list watch update create delete", "core", "persistentvolumes"),
                rule(guarded, "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
                rule("list watch get create delete", "core", "pods"),
                rule(READ, STORAGE, "storageclasses"),
                rule("list watch", "core", "nodes"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        (
            "pvc-protection-controller",
            vec![
                rule(guarded, "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "pods"),
                events(),
            ],
        ),
        ("pv-protection-controller", vec![rule(guarded, "core", "persistentvolumes"), events()]),
        (
            "volumeattributesclass-protection-controller",
            vec![
                rule(READ, "core", "persistentvolumes persistentvolumeclaims"),
                rule(guarded, STORAGE, "volumeattributesclasses"),
                events(),
            ],
        ),
        (
            "selinux-warning-controller",
            vec![
                rule(READ, "core", "persistentvolumes persistentvolumeclaims pods"),
                rule(READ, STORAGE, "csidrivers"),
                events(),
            ],
        ),
        (
            "resource-claim-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("update patch", "core", "pods/status"),
                rule("get list watch create delete update patch", "resource.k8s.io", "resourceclaims"),
                rule("update patch", "resource.k8s.io", "resourceclaims/status"),
                events(),
            ],
        ),
        (
            "device-taint-eviction-controller",
            vec![
                rule("get list watch delete", "core", "pods"),
                rule("update patch", "core", "pods/status"),
                rule(READ, "resource.k8s.io", "resourceclaims resourceslices deviceclasses"),
                events(),
            ],
        ),
    ]
}

fn nodes() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        (
            "node-controller",
            vec![
                rule("get list watch update delete patch", "core", "nodes"),
                rule("patch update", "core", "nodes/status pods/status"),
                rule("get list watch delete", "core", "pods"),
                rule(READ, "coordination.k8s.io", "leases"),
                events(),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("list watch delete", "core", "pods"),
                rule(READ, "core", "nodes"),
                rule("patch", "core", "pods/status"),
            ],
        ),
        ("ttl-controller", vec![rule("update patch list watch", "core", "nodes"), events()]),
    ]
}

fn cluster() -> Vec<(&'static str, Vec<Value>)> {
    const CERTIFICATES: &str = "certificates.k8s.io";
    const POLICIES: &str = "admissionregistration.k8s.io";
    vec![
        (
            "clusterrole-aggregation-controller",
            // It writes what it does not hold itself.
            vec![rule("escalate get list watch update patch", super::RBAC, "clusterroles")],
        ),
        ("generic-garbage-collector", vec![rule("get list watch patch update delete", "*", "*"), events()]),
        (
            "namespace-controller",
            vec![
                rule("get list watch delete", "core", "namespaces"),
                rule("update", "core", "namespaces/finalize namespaces/status"),
                rule("get list watch delete deletecollection", "*", "*"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![rule("list watch", "*", "*"), rule("update", "core", "resourcequotas/status"), events()],
        ),
        ("service-account-controller", vec![rule("create", "core", "serviceaccounts"), events()]),
        ("root-ca-cert-publisher", vec![rule("create update", "core", "configmaps"), events()]),
        (
            "certificate-controller",
            vec![
                rule("get list watch delete", CERTIFICATES, "certificatesigningrequests"),
                rule("update", CERTIFICATES, "certificatesigningrequests/status certificatesigningrequests/approval"),
                named(rule("approve", CERTIFICATES, "signers"), "kubernetes.io/kube-apiserver-client-kubelet"),
                named(rule("sign", CERTIFICATES, "signers"), SIGNERS),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                rule(READ, POLICIES, "validatingadmissionpolicies"),
                rule("get patch update", POLICIES, "validatingadmissionpolicies/status"),
                events(),
            ],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![
                named(rule("get", "core", "configmaps"), "kube-apiserver-legacy-service-account-token-tracking"),
                rule("patch delete", "core", "secrets"),
            ],
        ),
    ]
}
