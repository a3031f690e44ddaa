//! The default RBAC policy as data: the roles and bindings that every Kubernetes cluster has, by upstream's names.
//!
//! `*` is the wildcard of RBAC; lists are written as words between spaces, as they are read aloud.

mod addons;
mod controllers;

use gantry_kube::Object;
use serde_json::{Map, Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";
const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "get list watch create delete deletecollection patch update";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `core` stands for the empty group.
fn rule(verbs: &str, groups: &str, resources: &str) -> Value {
    let groups: Vec<&str> = groups.split_whitespace().map(|group| if group == "core" { "" } else { group }).collect();
    json!({"verbs": words(verbs), "apiGroups": groups, "resources": words(resources)})
}

/// The same rule for objects of these names alone.
fn named(mut rule: Value, names: &str) -> Value {
    rule["resourceNames"] = json!(words(names));
    rule
}

fn urls(verbs: &str, paths: &str) -> Value {
    json!({"verbs": words(verbs), "nonResourceURLs": words(paths)})
}

fn metadata(name: &str, labels: &str) -> Value {
    let mut all = Map::new();
    all.insert(BOOTSTRAPPING.to_owned(), json!("rbac-defaults"));
    for label in words(labels) {
        all.insert(format!("{RBAC}/{label}"), json!("true"));
    }
    json!({"name": name, "labels": all, "annotations": {AUTOUPDATE: "true"}})
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => Object(map),
        _ => Object::default(),
    }
}

fn role(name: &str, labels: &str, rules: Vec<Value>) -> Object {
    object(json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata(name, labels), "rules": rules,
    }))
}

/// A role that is the sum of those that carry `of` as a label.
fn sum(name: &str, labels: &str, of: &[&str]) -> Object {
    let selectors: Vec<Value> =
        of.iter().map(|label| json!({"matchLabels": {format!("{RBAC}/{label}"): "true"}})).collect();
    object(json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata(name, labels),
        "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": null,
    }))
}

/// A user or a group, or (`ServiceAccount`) an account of `kube-system`.
fn subject(kind: &str, name: &str) -> Value {
    if kind == "ServiceAccount" {
        json!({"kind": kind, "name": name, "namespace": SYSTEM})
    } else {
        json!({"kind": kind, "apiGroup": RBAC, "name": name})
    }
}

fn binding(name: &str, role: &str, subjects: &[(&str, &str)]) -> Object {
    let subjects: Vec<Value> = subjects.iter().map(|(kind, name)| subject(kind, name)).collect();
    object(json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(name, ""),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": subjects,
    }))
}

/// The same role or binding within a namespace.
fn within(namespace: &str, mut object: Object) -> Object {
    let kind = object.kind().replace("Cluster", "");
    object.0.insert("kind".to_owned(), json!(kind));
    object.metadata_mut().insert("namespace".to_owned(), json!(namespace));
    if object.0.contains_key("roleRef") {
        object.map_mut("roleRef").insert("kind".to_owned(), json!("Role"));
    }
    object
}

/// Every default ClusterRole.
pub fn cluster_roles() -> Vec<Object> {
    let mut roles = people();
    roles.extend(aggregated());
    roles.extend(components());
    roles.extend(nodes());
    roles.extend(addons::roles());
    roles.extend(addons::certificates());
    roles.extend(controllers::roles());
    roles
}

/// Every default Role, in the namespaces of the system.
pub fn roles() -> Vec<Object> {
    let leader = |name: &str| {
        let rules = vec![rule("create get list update watch", "coordination.k8s.io", "leases leasecandidates")];
        within(SYSTEM, role(&format!("system::leader-locking-{name}"), "", rules))
    };
    let system = |name: &str, rules| within(SYSTEM, role(name, "", rules));
    let authentication = named(rule(READ, "core", "configmaps"), "extension-apiserver-authentication");
    vec![
        system("extension-apiserver-authentication-reader", vec![authentication]),
        system("system:controller:bootstrap-signer", vec![rule(READ, "core", "secrets")]),
        system("system:controller:cloud-provider", vec![rule("create get list watch", "core", "configmaps")]),
        system("system:controller:token-cleaner", vec![rule("get list watch delete", "core", "secrets"), events()]),
        leader("kube-controller-manager"),
        leader("kube-scheduler"),
        within(
            PUBLIC,
            role(
                "system:controller:bootstrap-signer",
                "",
                vec![
                    rule(READ, "core", "configmaps"),
                    named(rule("update", "core", "configmaps"), "cluster-info"),
                    events(),
                ],
            ),
        ),
    ]
}

/// Every default RoleBinding.
pub fn role_bindings() -> Vec<Object> {
    let users = [("User", "system:kube-controller-manager"), ("User", "system:kube-scheduler")];
    let reader = "extension-apiserver-authentication-reader";
    let controller = |namespace: &str, name: &'static str| {
        let of = format!("system:controller:{name}");
        within(namespace, binding(&of, &of, &[("ServiceAccount", name)]))
    };
    let leader = |name: &'static str| {
        let (of, user) = (format!("system::leader-locking-{name}"), format!("system:{name}"));
        within(SYSTEM, binding(&of, &of, &[("User", &user), ("ServiceAccount", name)]))
    };
    vec![
        within(SYSTEM, binding(&format!("system::{reader}"), reader, &users)),
        controller(SYSTEM, "bootstrap-signer"),
        controller(SYSTEM, "cloud-provider"),
        controller(SYSTEM, "token-cleaner"),
        controller(PUBLIC, "bootstrap-signer"),
        leader("kube-controller-manager"),
        leader("kube-scheduler"),
    ]
}

/// Every default ClusterRoleBinding.
pub fn cluster_role_bindings() -> Vec<Object> {
    let one = |name: &str, kind: &'static str, subject: &'static str| binding(name, name, &[(kind, subject)]);
    let mut bindings = vec![
        one("cluster-admin", "Group", "system:masters"),
        one("system:discovery", "Group", "system:authenticated"),
        one("system:basic-user", "Group", "system:authenticated"),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[("Group", "system:authenticated"), ("Group", "system:unauthenticated")],
        ),
        one("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
        one("system:monitoring", "Group", "system:monitoring"),
        one("system:kube-scheduler", "User", "system:kube-scheduler"),
        one("system:kube-controller-manager", "User", "system:kube-controller-manager"),
        one("system:node-proxier", "User", "system:kube-proxy"),
        one("gantry:netproxy", "User", "system:kube-proxy"),
        one("system:node", "Group", "system:nodes"),
        one("system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"),
        one("system:kube-dns", "ServiceAccount", "kube-dns"),
        one("system:volume-scheduler", "User", "system:kube-scheduler"),
    ];
    bindings.extend(controllers::bindings());
    bindings
}

fn events() -> Value {
    rule("create patch update", "core events.k8s.io", "events")
}

fn people() -> Vec<Object> {
    vec![
        role("cluster-admin", "", vec![rule("*", "*", "*"), urls("*", "*")]),
        role(
            "system:discovery",
            "",
            vec![urls(
                "get",
                "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
            )],
        ),
        role("system:public-info-viewer", "", vec![urls("get", "/healthz /livez /readyz /version /version/")]),
        role(
            "system:basic-user",
            "",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        role(
            "system:monitoring",
            "",
            vec![
                urls("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
                rule("get", "core", "nodes/metrics"),
            ],
        ),
        role(
            "system:auth-delegator",
            "",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            "",
            vec![urls(
                "get",
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
            )],
        ),
    ]
}

/// `admin`, `edit` and `view`, and the roles that they are summed from.
fn aggregated() -> Vec<Object> {
    vec![
        sum("admin", "", &["aggregate-to-admin"]),
        sum("edit", "aggregate-to-admin", &["aggregate-to-edit"]),
        sum("view", "aggregate-to-edit", &["aggregate-to-view"]),
        role(
            "system:aggregate-to-admin",
            "aggregate-to-admin",
            vec![
                rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
                rule(READ_WRITE, RBAC, "roles rolebindings"),
            ],
        ),
        to_edit(),
        to_view(),
    ]
}

fn to_edit() -> Object {
    role(
        "system:aggregate-to-edit",
        "aggregate-to-edit",
        vec![
            rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            rule("impersonate", "core", "serviceaccounts"),
            rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            rule("create", "core", "pods/eviction"),
            rule("patch update", "core", "pods/resize"),
            rule(WRITE, "core events.k8s.io", "events"),
            rule(
                WRITE,
                "core",
                "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale \
                 secrets serviceaccounts services services/proxy",
            ),
            rule("create", "core", "serviceaccounts/token"),
            rule(
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale \
                 statefulsets statefulsets/scale",
            ),
            rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
            rule(WRITE, "batch", "cronjobs jobs"),
            rule(WRITE, "policy", "poddisruptionbudgets"),
            rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            rule(READ_WRITE, "coordination.k8s.io", "leases"),
            rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
            rule(
                WRITE,
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
                 replicasets/scale replicationcontrollers/scale",
            ),
        ],
    )
}

fn to_view() -> Object {
    role(
        "system:aggregate-to-view",
        "aggregate-to-view",
        vec![
            rule(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods \
                 replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            rule(
                READ,
                "core",
                "bindings limitranges namespaces/status pods/log pods/status \
                 replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            rule(READ, "core", "namespaces"),
            rule(READ, "core events.k8s.io", "events"),
            rule(READ, "discovery.k8s.io", "endpointslices"),
            rule(
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale \
                 deployments/status replicasets replicasets/scale replicasets/status statefulsets \
                 statefulsets/scale statefulsets/status",
            ),
            rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
            rule(
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
                 ingresses/status networkpolicies replicasets replicasets/scale replicasets/status \
                 replicationcontrollers/scale",
            ),
        ],
    )
}

fn components() -> Vec<Object> {
    vec![
        role("system:kube-scheduler", "", scheduler_rules()),
        role("system:kube-controller-manager", "", controller_rules()),
        role(
            "system:node-proxier",
            "",
            vec![
                rule("list watch", "core", "endpoints services"),
                rule(READ, "core", "nodes"),
                events(),
                rule("list watch", "discovery.k8s.io", "endpointslices"),
                rule("list watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
        // What Gantry's service proxy answers and guards beyond kube-proxy: cluster DNS and network policy.
        role(
            "gantry:netproxy",
            "",
            vec![
                rule(READ, "core", "endpoints namespaces nodes pods services"),
                rule(READ, "discovery.k8s.io", "endpointslices"),
                rule(READ, "networking.k8s.io", "networkpolicies"),
            ],
        ),
    ]
}

fn scheduler_rules() -> Vec<Value> {
    vec![
        events(),
        rule("create get list watch update patch", "coordination.k8s.io", "leases"),
        rule(READ_WRITE, "coordination.k8s.io", "leasecandidates"),
        rule(READ, "core", "nodes"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers services namespaces"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule("get list watch update", "core", "persistentvolumeclaims persistentvolumes"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        rule(READ, "scheduling.k8s.io", "priorityclasses"),
        // Devices for pods that claim them.
        rule(READ, "resource.k8s.io", "deviceclasses resourceslices"),
        rule("create delete get list watch patch update", "resource.k8s.io", "resourceclaims"),
        rule("get list watch patch update", "resource.k8s.io", "resourceclaims/status"),
        rule("update", "core", "pods/finalizers"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]
}

/// All controllers share one identity. The garbage collector and the namespace controller reach every kind, so the
/// wildcards are theirs; what controllers create is named.
fn controller_rules() -> Vec<Value> {
    vec![
        rule("get list watch patch update delete deletecollection", "*", "*"),
        events(),
        rule(
            "create",
            "core",
            "configmaps endpoints persistentvolumeclaims persistentvolumes pods pods/eviction secrets \
             serviceaccounts serviceaccounts/token services",
        ),
        rule("create", "apps", "controllerrevisions replicasets"),
        rule("create", "batch", "jobs"),
        rule("create", "discovery.k8s.io", "endpointslices"),
        rule("create", "networking.k8s.io", "ipaddresses"),
        // Cluster roles that are sums of others.
        rule("escalate", RBAC, "clusterroles"),
        rule("create", "coordination.k8s.io", "leases"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]
}

fn nodes() -> Vec<Object> {
    vec![
        role(
            "system:node",
            "",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
                rule(READ, "core", "services namespaces"),
                // Secrets, config maps, claims, volumes, accounts, and what it reads of nodes, pods and leases, are granted by
                // relation (`auth::node`).
                rule("create patch update", "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                events(),
                rule("create delete", "core", "pods"),
                rule("patch update", "core", "pods/status"),
                rule("create", "core", "pods/eviction"),
                rule("create", "core", "serviceaccounts/token"),
                rule(READ, "storage.k8s.io", "csidrivers volumeattachments"),
                rule("create delete get patch update", "storage.k8s.io", "csinodes"),
                rule(READ, "node.k8s.io", "runtimeclasses"),
                rule("deletecollection", "resource.k8s.io", "resourceslices"),
                rule(READ, "scheduling.k8s.io", "priorityclasses"),
                rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            ],
        ),
        role(
            "system:kubelet-api-admin",
            "",
            vec![
                rule(READ, "core", "nodes"),
                rule("proxy", "core", "nodes"),
                rule(
                    "*",
                    "core",
                    "nodes/checkpoint nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy \
                     nodes/spec nodes/stats",
                ),
            ],
        ),
    ]
}
