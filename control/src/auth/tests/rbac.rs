//! Tables and laws of authorisation.

use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE_BINDING};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::auth::objects::{Objects, binding, role};
use crate::auth::rules::Rule;
use crate::auth::{Action, Authorizer, Identity, escalation, review};
use crate::bootstrap::policy;

fn get<'a>(resource: &'a str, namespace: &'a str) -> Action<'a> {
    Action::Resource { verb: "get", group: "", resource, subresource: "", namespace, name: "x", fields: "", labels: "" }
}

pub(super) fn user(name: &str) -> Identity {
    Identity::new(name, None::<String>)
}

fn read_pods() -> Value {
    json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])
}

pub(super) fn house(objects: impl IntoIterator<Item = Value>) -> (Arc<Objects>, Authorizer) {
    let objects = Arc::new(Objects::of(objects));
    (objects.clone(), Authorizer::new(objects))
}

fn defaults() -> impl Iterator<Item = Value> {
    policy::cluster_roles().into_iter().chain(policy::cluster_role_bindings()).map(Object::into_value)
}

#[test]
fn a_binding_reaches_as_far_as_it_says() {
    let account = json!({"kind": "ServiceAccount", "name": "s", "namespace": "a"});
    let (_, authorizer) = house([
        role("reader", read_pods()),
        binding("a", "u", "reader", json!({"kind": "User", "name": "u"})),
        binding("", "g", "reader", json!({"kind": "Group", "name": "g"})),
        binding("b", "s", "reader", account),
        binding("b", "dangling", "absent", json!({"kind": "User", "name": "w"})),
        binding("b", "odd", "reader", json!({"kind": "Robot", "name": "u"})),
    ]);
    let may = |identity: &Identity, action: &Action<'_>| authorizer.authorize(identity, action).is_allowed();
    let in_g = Identity::new("v", ["g"]);
    let account = Identity::service_account("a", "s", "");
    for (who, action, expected) in [
        (&user("u"), get("pods", "a"), true),
        (&user("u"), get("pods", "b"), false),
        (&user("u"), get("pods", ""), false),
        (&user("u"), get("secrets", "a"), false),
        (&in_g, get("pods", "a"), true),
        (&in_g, get("pods", ""), true),
        (&account, get("pods", "b"), true),
        (&account, get("pods", "a"), false),
        (&user("w"), get("pods", "b"), false),
        (&user("g"), get("pods", "a"), false),
        (&Identity::anonymous(), get("pods", "a"), false),
        (&Identity::new("x", ["system:masters"]), get("secrets", ""), true),
    ] {
        assert_eq!(may(who, &action), expected, "{who:?} {action:?}");
    }
}

#[test]
fn a_change_of_policy_holds_at_once() {
    let (objects, authorizer) = house([role("reader", read_pods())]);
    assert!(!authorizer.authorize(&user("u"), &get("pods", "a")).is_allowed());
    objects.put(binding("a", "u", "reader", json!({"kind": "User", "name": "u"})));
    assert!(authorizer.authorize(&user("u"), &get("pods", "a")).is_allowed());
    objects.put(role("reader", json!([])));
    assert!(!authorizer.authorize(&user("u"), &get("pods", "a")).is_allowed());
}

#[test]
fn a_refusal_has_the_words_that_clients_know() {
    let (_, authorizer) = house([]);
    let list = Action::Resource {
        verb: "list",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "y",
        name: "",
        fields: "",
        labels: "",
    };
    let refused = authorizer.check(&user("x"), &list).unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
    );
    let log = Action::Resource {
        verb: "get",
        group: "apps",
        resource: "deployments",
        subresource: "scale",
        namespace: "",
        name: "d",
        fields: "",
        labels: "",
    };
    assert_eq!(
        authorizer.check(&user("x"), &log).unwrap_err().message,
        r#"deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#
    );
    let path = Action::NonResource { verb: "get", path: "/metrics" };
    assert_eq!(
        authorizer.check(&user("x"), &path).unwrap_err().message,
        r#"forbidden: User "x" cannot get path "/metrics""#
    );
}

#[test]
fn the_default_policy_gives_each_its_own() {
    let (objects, authorizer) = house(defaults());
    for (name, of) in [("alice", "edit"), ("bob", "view"), ("carol", "admin")] {
        objects.put(binding("a", name, of, json!({"kind": "User", "name": name})));
    }
    let verb = |verb: &'static str,
                group: &'static str,
                resource: &'static str,
                sub: &'static str,
                ns: &'static str| {
        Action::Resource { verb, group, resource, subresource: sub, namespace: ns, name: "", fields: "", labels: "" }
    };
    let rbac = "rbac.authorization.k8s.io";
    let path = |path: &'static str| Action::NonResource { verb: "get", path };
    let node = Identity::new("system:node:n", ["system:nodes"]);
    for (who, action, expected) in [
        (user("alice"), verb("create", "apps", "deployments", "", "a"), true),
        (user("alice"), verb("create", "", "pods", "exec", "a"), true),
        (user("alice"), verb("list", "", "configmaps", "", "a"), true),
        (user("alice"), verb("create", rbac, "roles", "", "a"), false),
        (user("carol"), verb("create", rbac, "roles", "", "a"), true),
        (user("carol"), verb("get", "", "pods", "log", "a"), true),
        (user("carol"), verb("get", "", "nodes", "", ""), false),
        (user("bob"), verb("list", "", "pods", "", "a"), true),
        (user("bob"), verb("get", "", "secrets", "", "a"), false),
        (user("bob"), verb("delete", "", "pods", "", "a"), false),
        (user("bob"), path("/version"), true),
        (user("bob"), path("/apis/apps/v1"), true),
        (user("bob"), path("/metrics"), false),
        (user("bob"), verb("create", "authorization.k8s.io", "selfsubjectaccessreviews", "", ""), true),
        (Identity::anonymous(), path("/healthz"), true),
        (Identity::anonymous(), path("/api"), false),
        (node.clone(), verb("patch", "", "nodes", "status", ""), true),
        (node.clone(), verb("create", "", "serviceaccounts", "token", "a"), true),
        (node.clone(), verb("delete", "", "nodes", "", ""), false),
        (node.clone(), verb("create", "", "secrets", "", "a"), false),
        (node, verb("list", "", "secrets", "", ""), false),
        (user("system:kube-scheduler"), verb("create", "", "pods", "binding", "a"), true),
        (user("system:kube-scheduler"), verb("list", "", "secrets", "", ""), false),
        (user("system:kube-controller-manager"), verb("create", "", "pods", "", "a"), true),
        (user("system:kube-controller-manager"), verb("update", "", "namespaces", "finalize", ""), true),
        (user("system:kube-proxy"), verb("watch", "discovery.k8s.io", "endpointslices", "", ""), true),
        (user("kube-apiserver-kubelet-client"), verb("get", "", "nodes", "proxy", ""), true),
    ] {
        assert_eq!(authorizer.authorize(&who, &action).is_allowed(), expected, "{} {action:?}", who.user);
    }
}

#[test]
fn nobody_grants_more_than_they_hold() {
    let (objects, _) = house(defaults());
    objects.put(binding("", "bob", "view", json!({"kind": "User", "name": "bob"})));
    let grants = json!([{"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]}]);
    objects.put(role("rbac-writer", grants));
    let write = |resource, value: Value, old: Option<Value>| {
        let read = |value| Object::from_value(value).unwrap();
        escalation::check(&*objects, &user("bob"), resource, &read(value), old.map(read).as_ref())
    };
    assert!(write(&CLUSTER_ROLE, role("r", read_pods()), None).is_ok(), "view holds that");
    let secrets = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"]}]);
    let refused = write(&CLUSTER_ROLE, role("r", secrets.clone()), None).unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "clusterroles.rbac.authorization.k8s.io \"r\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
    );
    // A role of some kilobytes is billions of rights. Nobody multiplies them out.
    let words = |stem: &str| (0..200).map(|i| format!("{stem}{i}")).collect::<Vec<_>>();
    let bomb =
        json!([{"verbs": words("v"), "apiGroups": words("g"), "resources": words("r"), "resourceNames": words("n")}]);
    let refused = write(&CLUSTER_ROLE, role("r", bomb), None).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("come to 1600000000 single permissions"), "{}", refused.message);
    let many = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": words("n")}]);
    let refused = write(&CLUSTER_ROLE, role("r", many), None).unwrap_err();
    assert!(refused.message.ends_with("and 100 more"), "{}", refused.message);
    let named = vec!["x"; 20_000];
    let wide = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": named}]);
    assert!(write(&CLUSTER_ROLE, role("r", wide), None).is_ok(), "one rule of their own covers it");
    let old = || role("r", secrets.clone());
    let mut collected = old();
    collected["metadata"]["finalizers"] = json!(["f"]);
    collected["metadata"]["ownerReferences"] = json!([{"kind": "K", "name": "n"}]);
    assert!(write(&CLUSTER_ROLE, collected, Some(old())).is_ok(), "nothing is granted anew");
    let mut summed_up = old();
    summed_up["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let refused = write(&CLUSTER_ROLE, summed_up, Some(old())).unwrap_err();
    assert!(
        refused.message.contains("not currently held"),
        "a label makes it part of another role: {}",
        refused.message
    );
    let aggregating = json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let must = "must have cluster-admin privileges to use the aggregationRule: user \"bob\"";
    let refused = write(&CLUSTER_ROLE, aggregating.clone(), None).unwrap_err();
    assert!(refused.message.contains(must), "{}", refused.message);
    let ended = json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": []});
    assert!(write(&CLUSTER_ROLE, ended, Some(aggregating)).unwrap_err().message.contains(must));
    let several = json!([
        {"verbs": ["patch", "create"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
        {"verbs": ["update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
        {"verbs": ["post", "get"], "nonResourceURLs": ["/x"]},
    ]);
    let refused = write(&CLUSTER_ROLE, role("r", several), None).unwrap_err();
    assert_eq!(
        refused.message.split_once(":\n").unwrap().1,
        "{APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"a\"], Verbs:[\"patch\" \"create\" \"update\"]}\n\
         {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}\n\
         {NonResourceURLs:[\"/x\"], Verbs:[\"post\"]}"
    );

    let me = json!({"kind": "User", "name": "bob"});
    assert_eq!(
        write(&CLUSTER_ROLE_BINDING, binding("", "x", "cluster-admin", me.clone()), None).unwrap_err().code,
        403
    );
    assert!(write(&ROLE_BINDING, binding("a", "x", "view", me.clone()), None).is_ok());
    assert_eq!(write(&ROLE_BINDING, binding("a", "x", "absent", me.clone()), None).unwrap_err().code, 404);

    objects.put(binding("", "lifted", "rbac-writer", me.clone()));
    assert!(write(&CLUSTER_ROLE, role("r", secrets), None).is_ok(), "escalate");
    assert!(write(&CLUSTER_ROLE_BINDING, binding("", "x", "cluster-admin", me), None).is_ok(), "bind");
}

#[test]
fn a_review_answers_what_a_request_would_be_told() {
    let (_, authorizer) =
        house([role("reader", read_pods()), binding("a", "u", "reader", json!({"kind": "User", "name": "u"}))]);
    let body = |spec: Value| Object::from_value(json!({"spec": spec})).unwrap();
    let pods = |ns: &str| json!({"verb": "get", "group": "", "resource": "pods", "namespace": ns});
    let own = |ns: &str| {
        let asked = body(json!({"resourceAttributes": pods(ns)}));
        review::self_subject_access(&authorizer, &user("u"), &asked).unwrap().bool_at("/status/allowed")
    };
    assert_eq!((own("a"), own("b")), (Some(true), Some(false)));
    let theirs = body(json!({"user": "u", "resourceAttributes": pods("a")}));
    assert_eq!(review::subject_access(&authorizer, &theirs).unwrap().bool_at("/status/allowed"), Some(true));
    assert_eq!(review::local_subject_access(&authorizer, "b", &theirs).unwrap_err().code, 422);
    assert!(review::local_subject_access(&authorizer, "a", &theirs).is_ok());
    let path = json!({"verb": "get", "path": "/x"});
    let one = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let somebody = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
    let selecting = |selector: Value| {
        let mut asked = pods("a");
        asked["labelSelector"] = selector;
        json!({"user": "u", "resourceAttributes": asked})
    };
    let at = "spec.resourceAttributes.labelSelector";
    for (bad, why) in [
        (json!({}), format!("[spec.resourceAttributes: Invalid value: null: {one}, {somebody}]")),
        (json!({"user": "u"}), format!("spec.resourceAttributes: Invalid value: null: {one}")),
        (json!({"resourceAttributes": pods("a")}), somebody.to_owned()),
        (
            json!({"user": "u", "resourceAttributes": pods("a"), "nonResourceAttributes": path}),
            "spec.nonResourceAttributes: Invalid value: {\"path\":\"/x\",\"verb\":\"get\"}: cannot be specified in \
             combination with resourceAttributes"
                .to_owned(),
        ),
        (
            selecting(json!({})),
            format!(
                "{at}.requirements: Required value: when {at} is specified, requirements or rawSelector is required"
            ),
        ),
        (
            selecting(json!({"rawSelector": "a", "requirements": [{"key": "a", "operator": "Exists"}]})),
            format!("{at}.rawSelector: Invalid value: \"a\": may not specified at the same time as requirements"),
        ),
        (
            selecting(json!({"requirements": [{"operator": "In"}]})),
            format!(
                "[{at}.requirements[0].key: Required value: must be specified, {at}.requirements[0].values: Required value: \
                 must be specified when `operator` is 'In' or 'NotIn']"
            ),
        ),
    ] {
        let refused = review::subject_access(&authorizer, &body(bad.clone())).unwrap_err();
        assert_eq!(
            (refused.code, refused.message),
            (422, format!("SubjectAccessReview.authorization.k8s.io \"\" is invalid: {why}")),
            "{bad}"
        );
    }
    let listed = |selector: Value| {
        let asked = json!({"verb": "list", "resource": "pods", "fieldSelector": selector});
        let spec = json!({"user": "system:node:n", "groups": ["system:nodes"], "resourceAttributes": asked});
        review::subject_access(&authorizer, &body(spec)).unwrap().bool_at("/status/allowed").unwrap()
    };
    let bound = |operator: &str, nodes: Value| json!({"requirements": [{"key": "spec.nodeName", "operator": operator, "values": nodes}]});
    assert!(listed(bound("In", json!(["n"]))) && listed(json!({"rawSelector": "spec.nodeName=n"})));
    for wider in [
        bound("In", json!(["n", "m"])),
        bound("NotIn", json!(["n"])),
        json!({"rawSelector": "spec.nodeName=m"}),
        json!({"rawSelector": "=="}),
    ] {
        assert!(!listed(wider.clone()), "{wider}");
    }
    let named = Object::from_value(json!({"metadata": {"name": "x"}, "spec": theirs.get("/spec")})).unwrap();
    assert!(review::subject_access(&authorizer, &named).unwrap_err().message.ends_with("must be empty"));
    let local = body(json!({"user": "u", "nonResourceAttributes": path}));
    let refused = review::local_subject_access(&authorizer, "a", &local).unwrap_err();
    assert!(refused.message.ends_with("disallowed on this kind of request"), "{}", refused.message);
    let reason = review::subject_access(&authorizer, &theirs).unwrap().str_at("/status/reason").to_owned();
    assert_eq!(reason, "RBAC: allowed by RoleBinding \"u/a\" of ClusterRole \"reader\" to User \"u\"");
    let nowhere = review::self_subject_rules(&authorizer, &user("u"), &body(json!({}))).unwrap_err();
    assert_eq!((nowhere.code, nowhere.message.as_str()), (400, "no namespace on request"));
    let rules = review::self_subject_rules(&authorizer, &user("u"), &body(json!({"namespace": "a"}))).unwrap();
    assert_eq!(rules.str_at("/status/resourceRules/0/resources/0"), "pods");
    assert_eq!(rules.bool_at("/status/incomplete"), Some(false));
    let node = Identity::new("system:node:n", ["system:nodes"]);
    let rules = review::self_subject_rules(&authorizer, &node, &body(json!({"namespace": "a"}))).unwrap();
    assert_eq!(rules.bool_at("/status/incomplete"), Some(true), "its own objects are granted by relation");
    assert_eq!(rules.str_at("/status/evaluationError"), "node authorizer does not support user rule resolution");
    assert_eq!(review::self_subject(&user("u"), &body(json!({}))).str_at("/status/userInfo/username"), "u");
}

fn words(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(all).prop_map(str::to_owned), 0..3)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let verbs = words(&["get", "list", "create", "*"]);
    let groups = words(&["", "apps", "*"]);
    let resources = words(&["pods", "pods/log", "secrets", "*/log", "*"]);
    let (names, urls) = (words(&["a", "b"]), words(&["/healthz", "/api/*", "*"]));
    (verbs, groups, resources, names, urls).prop_map(|(verbs, groups, resources, names, urls)| Rule {
        verbs,
        groups,
        resources,
        names,
        urls,
    })
}

const VERBS: [&str; 4] = ["get", "list", "create", "delete"];
const RESOURCES: [(&str, &str); 4] = [("pods", ""), ("pods", "log"), ("secrets", ""), ("configmaps", "")];

fn any_action() -> impl Strategy<Value = Action<'static>> {
    let resource = (
        proptest::sample::select(&VERBS[..]),
        proptest::sample::select(&["", "apps"][..]),
        proptest::sample::select(&RESOURCES[..]),
        proptest::sample::select(&["", "a", "b"][..]),
        proptest::sample::select(&["", "a", "c"][..]),
    )
        .prop_map(|(verb, group, (resource, subresource), namespace, name)| Action::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            fields: "",
            labels: "",
        });
    let path =
        (proptest::sample::select(&VERBS[..]), proptest::sample::select(&["/healthz", "/api/v1", "/metrics"][..]))
            .prop_map(|(verb, path)| Action::NonResource { verb, path });
    prop_oneof![resource, path]
}

proptest! {
    #[test]
    fn nothing_is_allowed_without_a_binding(rules in proptest::collection::vec(any_rule(), 0..4), action in any_action()) {
        let rules: Vec<Value> = rules.iter().map(Rule::to_value).collect();
        let (_, authorizer) = house([
            role("r", json!(rules)),
            binding("", "b", "r", json!({"kind": "User", "name": "else"})),
        ]);
        prop_assert!(!authorizer.authorize(&user("u"), &action).is_allowed());
        prop_assert!(!authorizer.authorize(&Identity::anonymous(), &action).is_allowed());
    }

    #[test]
    fn a_rule_more_never_takes_anything_away(
        rules in proptest::collection::vec(any_rule(), 0..4), more in any_rule(), action in any_action(),
    ) {
        let bound = |rules: &[Rule]| {
            let rules: Vec<Value> = rules.iter().map(Rule::to_value).collect();
            house([role("r", json!(rules)), binding("", "b", "r", json!({"kind": "User", "name": "u"}))]).1
        };
        let before = bound(&rules).authorize(&user("u"), &action).is_allowed();
        let mut all = rules.clone();
        all.push(more);
        let after = bound(&all).authorize(&user("u"), &action).is_allowed();
        prop_assert!(after || !before);
        prop_assert_eq!(before, rules.iter().any(|rule| rule.matches(&action)));
    }

    #[test]
    fn what_covers_a_rule_allows_all_that_it_allows(owner in any_rule(), asked in any_rule(), action in any_action()) {
        let covered = asked.atoms().iter().all(|atom| owner.covers(atom));
        if covered && asked.matches(&action) {
            prop_assert!(owner.matches(&action), "{owner:?} covers {asked:?} but not {action:?}");
        }
    }
}
