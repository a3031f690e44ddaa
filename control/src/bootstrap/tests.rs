//! A first start, a second start, and what lies between.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use gantry_env::Env;
use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ENDPOINT_SLICE, SERVICE};
use gantry_kube::{Object, Ref, validation};
use serde_json::json;

use super::objects::seeds;
use super::plan::{Step, plan};
use super::policy;
use super::{Cluster, Credentials, NodeCredentials, node_credentials};
use crate::auth::objects::Objects;
use crate::auth::{Action, Authorizer, Identity};

type Stored = HashMap<(&'static str, Ref), Object>;

fn carry_out(steps: Vec<Step>, into: &mut Stored) {
    for step in steps {
        let (Step::Create { resource, object } | Step::Update { resource, object }) = step;
        into.insert((resource.plural, object.reference()), object);
    }
}

fn planned(cluster: &Cluster, objects: &Stored) -> Vec<Step> {
    plan(&seeds(cluster), |resource, at| objects.get(&(resource.plural, at.clone())))
}

fn started() -> (Cluster, Stored) {
    let (cluster, mut objects) = (Cluster::default(), Stored::new());
    carry_out(planned(&cluster, &objects), &mut objects);
    (cluster, objects)
}

#[test]
fn after_a_start_there_is_nothing_left_to_do() {
    let (cluster, objects) = started();
    assert_eq!(planned(&cluster, &objects), []);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(objects.contains_key(&("namespaces", Ref::cluster(name))), "{name}");
    }
    let service = &objects[&(SERVICE.plural, Ref::new("default", "kubernetes"))];
    assert_eq!(service.str_at("/spec/clusterIP"), "10.96.0.1");
    assert_eq!(objects[&(SERVICE.plural, Ref::new("kube-system", "kube-dns"))].str_at("/spec/clusterIP"), "10.96.0.10");
}

#[test]
fn what_is_missing_from_a_role_comes_back_and_what_was_added_stays() {
    let (cluster, mut objects) = started();
    let at = (CLUSTER_ROLE.plural, Ref::cluster("system:discovery"));
    let own = json!({"verbs": ["get"], "nonResourceURLs": ["/own"]});
    objects.get_mut(&at).unwrap().0.insert("rules".to_owned(), json!([own]));
    carry_out(planned(&cluster, &objects), &mut objects);
    assert_eq!(objects[&at].array_at("/rules").len(), 2);
    assert_eq!(objects[&at].get("/rules/0"), Some(&own));
    assert_eq!(planned(&cluster, &objects), []);

    let bound = (CLUSTER_ROLE_BINDING.plural, Ref::cluster("system:basic-user"));
    objects.get_mut(&bound).unwrap().0.remove("subjects");
    carry_out(planned(&cluster, &objects), &mut objects);
    assert_eq!(objects[&bound].str_at("/subjects/0/name"), "system:authenticated");
}

#[test]
fn who_opts_out_is_left_alone() {
    let (cluster, mut objects) = started();
    let role = objects.get_mut(&(CLUSTER_ROLE.plural, Ref::cluster("view"))).unwrap();
    role.0.remove("aggregationRule");
    role.metadata_mut()["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = json!("false");
    assert_eq!(planned(&cluster, &objects), []);
}

#[test]
fn the_apis_address_follows_the_host_and_defaults_beside_it_do_not_matter() {
    let (mut cluster, mut objects) = started();
    let at = (ENDPOINT_SLICE.plural, Ref::new("default", "kubernetes"));
    objects.get_mut(&at).unwrap().0["endpoints"][0]["conditions"]["serving"] = json!(true);
    assert_eq!(planned(&cluster, &objects), []);
    cluster.advertise = "192.0.2.7".parse().unwrap();
    let steps = planned(&cluster, &objects);
    assert_eq!(steps.len(), 2, "Endpoints and EndpointSlice: {steps:?}");
    carry_out(steps, &mut objects);
    assert_eq!(objects[&at].str_at("/endpoints/0/addresses/0"), "192.0.2.7");
}

#[test]
fn credentials_are_made_once_and_are_the_owners_alone() {
    let root = tempfile::tempdir().unwrap();
    let env = Env::system();
    let cluster = Cluster {
        data: root.path().join("control"),
        admin_kubeconfig: root.path().join("etc/admin.kubeconfig"),
        hostname: "host".to_owned(),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        ..Cluster::default()
    };
    let first = Credentials::prepare(&cluster, &env).unwrap();
    let again = Credentials::prepare(&cluster, &env).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.admin, again.admin);
    let stored = std::fs::read(root.path().join("control/pki/apiserver.pem")).unwrap();
    again.renew(&cluster, &env).unwrap();
    assert_eq!(std::fs::read(root.path().join("control/pki/apiserver.pem")).unwrap(), stored);
    for entry in std::fs::read_dir(root.path().join("control/pki")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o177, 0, "{:?}", entry.path());
    }
    let text = std::fs::read_to_string(&cluster.admin_kubeconfig).unwrap();
    assert!(text.contains("server: https://127.0.0.1:6443"));
    assert_eq!(std::fs::metadata(&cluster.admin_kubeconfig).unwrap().permissions().mode() & 0o777, 0o600);
    let names = cluster.api_names();
    for name in ["10.96.0.1", "127.0.0.1", "192.0.2.7", "host", "kubernetes.default.svc.cluster.local", "localhost"] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }
    first.server_config(&env).unwrap();
    first.kubelet_client_config(&env).unwrap();
}

#[test]
fn a_node_gets_its_own_name() {
    let root = tempfile::tempdir().unwrap();
    let env = Env::system();
    let ca = gantry_pki::Authority::create("ca", &env).unwrap();
    let node = node_credentials(&ca, "n1", &["192.0.2.1".parse().unwrap()], &env).unwrap();
    let client = node.client.facts().unwrap();
    assert_eq!((client.common_name.as_str(), client.organizations[0].as_str()), ("system:node:n1", "system:nodes"));
    assert_eq!(node.serving.facts().unwrap().names, ["192.0.2.1", "n1"]);
    let kept = NodeCredentials::load_or_issue(&ca, root.path(), "n1", &[], &env).unwrap();
    assert_eq!(NodeCredentials::load_or_issue(&ca, root.path(), "n1", &[], &env).unwrap(), kept);
}

#[test]
fn every_seed_keeps_the_rules_of_its_kind() {
    for seed in seeds(&Cluster::default()) {
        let mut object = seed.object.clone();
        gantry_kube::defaults::apply(seed.resource, &mut object);
        let mut errors = validation::meta::create(seed.resource, &object);
        errors.extend(validation::create(seed.resource, &object));
        assert_eq!(errors, [], "{} {}", seed.resource.kind, object.reference());
    }
}

#[test]
fn no_role_and_no_binding_stands_twice() {
    let mut known = HashMap::new();
    for seed in seeds(&Cluster::default()) {
        let at = (seed.resource.plural, seed.object.reference());
        assert_eq!(known.insert(at.clone(), ()), None, "{at:?}");
    }
}

/// What a stock kube-controller-manager asks for as each of its accounts: one row a controller.
#[test]
fn controllers_with_accounts_of_their_own_may_do_their_work() {
    let objects = Objects::of(policy_objects());
    let authorizer = Authorizer::new(Arc::new(objects));
    let may = |account: &str, verb, group, resource, subresource, name| {
        let identity = Identity::service_account("kube-system", account, "");
        let namespace = "a";
        let action = Action::Resource { verb, group, resource, subresource, namespace, name, fields: "", labels: "" };
        authorizer.authorize(&identity, &action).is_allowed()
    };
    for (account, verb, group, resource, subresource, name) in [
        ("attachdetach-controller", "create", "storage.k8s.io", "volumeattachments", "", ""),
        ("certificate-controller", "sign", "certificates.k8s.io", "signers", "", "kubernetes.io/kubelet-serving"),
        ("clusterrole-aggregation-controller", "escalate", "rbac.authorization.k8s.io", "clusterroles", "", ""),
        ("cronjob-controller", "create", "batch", "jobs", "", ""),
        ("daemon-set-controller", "create", "", "pods", "", ""),
        ("deployment-controller", "create", "apps", "replicasets", "", ""),
        ("device-taint-eviction-controller", "delete", "", "pods", "", ""),
        ("disruption-controller", "update", "policy", "poddisruptionbudgets", "status", ""),
        ("endpoint-controller", "create", "", "endpoints", "", ""),
        ("endpointslice-controller", "create", "discovery.k8s.io", "endpointslices", "", ""),
        ("endpointslicemirroring-controller", "update", "", "endpoints", "finalizers", ""),
        ("ephemeral-volume-controller", "create", "", "persistentvolumeclaims", "", ""),
        ("expand-controller", "patch", "", "persistentvolumeclaims", "status", ""),
        ("generic-garbage-collector", "delete", "example.com", "anything", "", ""),
        ("horizontal-pod-autoscaler", "update", "apps", "deployments", "scale", ""),
        ("job-controller", "update", "batch", "jobs", "status", ""),
        ("legacy-service-account-token-cleaner", "delete", "", "secrets", "", ""),
        ("namespace-controller", "update", "", "namespaces", "finalize", ""),
        ("node-controller", "delete", "", "nodes", "", ""),
        ("persistent-volume-binder", "update", "", "persistentvolumes", "", ""),
        ("pod-garbage-collector", "delete", "", "pods", "", ""),
        ("pv-protection-controller", "update", "", "persistentvolumes", "", ""),
        ("pvc-protection-controller", "update", "", "persistentvolumeclaims", "", ""),
        ("replicaset-controller", "create", "", "pods", "", ""),
        ("replication-controller", "update", "", "replicationcontrollers", "status", ""),
        ("resource-claim-controller", "create", "resource.k8s.io", "resourceclaims", "", ""),
        ("resourcequota-controller", "update", "", "resourcequotas", "status", ""),
        ("root-ca-cert-publisher", "create", "", "configmaps", "", ""),
        ("route-controller", "patch", "", "nodes", "status", ""),
        ("selinux-warning-controller", "watch", "storage.k8s.io", "csidrivers", "", ""),
        ("service-account-controller", "create", "", "serviceaccounts", "", ""),
        ("service-cidrs-controller", "update", "networking.k8s.io", "servicecidrs", "status", ""),
        ("service-controller", "update", "", "services", "status", ""),
        ("statefulset-controller", "create", "", "persistentvolumeclaims", "", ""),
        ("ttl-after-finished-controller", "delete", "batch", "jobs", "", ""),
        ("ttl-controller", "patch", "", "nodes", "", ""),
        (
            "validatingadmissionpolicy-status-controller",
            "update",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            "status",
            "",
        ),
        ("volumeattributesclass-protection-controller", "update", "storage.k8s.io", "volumeattributesclasses", "", ""),
    ] {
        assert!(
            may(account, verb, group, resource, subresource, name),
            "{account} may {verb} {resource}/{subresource}"
        );
    }
    for (account, resource) in [("deployment-controller", "secrets"), ("ttl-controller", "pods")] {
        assert!(!may(account, "get", "", resource, "", ""), "{account} gets no {resource}");
    }
}

fn policy_objects() -> impl Iterator<Item = serde_json::Value> {
    policy::cluster_roles().into_iter().chain(policy::cluster_role_bindings()).map(Object::into_value)
}
