//! Who may act as whom, and for what.

use http::HeaderMap;
use serde_json::{Value, json};

use super::rbac::{house, user};
use crate::auth::impersonation::impersonate;
use crate::auth::objects::{binding, role};
use crate::auth::{Action, Authorizer, Identity};
use gantry_kube::Status;

const GET_PODS: Action<'_> = Action::Resource {
    verb: "get",
    group: "",
    resource: "pods",
    subresource: "",
    namespace: "a",
    name: "",
    fields: "",
    labels: "",
};

fn allowed(rules: Value) -> Authorizer {
    house([role("actor", rules), binding("", "actor", "actor", json!({"kind": "Group", "name": "actors"}))]).1
}

fn act(
    authorizer: &Authorizer,
    caller: &Identity,
    headers: &[(&'static str, &'static str)],
) -> Result<Identity, Status> {
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, value)| {
        map.append(*name, value.parse().unwrap());
    });
    impersonate(authorizer, caller, &map, &GET_PODS)
}

fn actor() -> Identity {
    Identity::new("me", ["actors"])
}

#[test]
fn each_part_of_another_needs_the_verb() {
    let authorizer = allowed(json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["u"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["g"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["own"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
    ]));
    let act = |headers: &[_]| act(&authorizer, &actor(), headers);
    assert_eq!(act(&[("x-other", "y")]).unwrap(), actor());
    assert_eq!(act(&[("impersonate-user", "")]).unwrap(), actor(), "nobody is asked for");
    let other =
        act(&[("impersonate-user", "u"), ("impersonate-group", "g"), ("impersonate-extra-scopes", "s")]).unwrap();
    assert_eq!(other.groups, ["g", "system:authenticated"]);
    assert_eq!(other.extra["scopes"], ["s"]);
    let account = act(&[("impersonate-user", "system:serviceaccount:a:own")]).unwrap();
    assert_eq!(account.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    for headers in [
        &[("impersonate-user", "root")][..],
        &[("impersonate-user", "u"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "u"), ("impersonate-uid", "1")],
        &[("impersonate-user", "system:serviceaccount:a:b")],
        &[("impersonate-user", "system:serviceaccount:a:own:x")],
        &[("impersonate-user", "u"), ("impersonate-extra-other", "s")],
    ] {
        assert_eq!(act(headers).unwrap_err().code, 403, "{headers:?}");
    }
    let nobody = act(&[("impersonate-group", "g")]).unwrap_err();
    assert_eq!(nobody.code, 400);
    assert!(nobody.message.ends_with("without impersonating a user name"), "{}", nobody.message);
    assert_eq!(act(&[("impersonate-user", "u"), ("impersonate-nonsense", "g")]).unwrap_err().code, 400);
}

#[test]
fn acting_as_another_may_be_for_some_requests_alone() {
    let on = |mode: &str, verb: &str| format!("impersonate-on:{mode}:{verb}");
    let pods = |mode: &str, verb: &str| json!({"verbs": [on(mode, verb)], "apiGroups": [""], "resources": ["pods"]});
    let whom = |verb: &str, resources: Value, names: Value| {
        json!({"verbs": [format!("impersonate:{verb}")], "apiGroups": ["authentication.k8s.io"], "resources": resources,
            "resourceNames": names})
    };
    let authorizer = allowed(json!([
        pods("user-info", "get"),
        whom("user-info", json!(["users"]), json!(["u"])),
        whom("user-info", json!(["groups"]), json!(["g", "*"])),
        whom("user-info", json!(["userextras/example.com/scope"]), json!(["s"])),
        pods("serviceaccount", "get"),
        whom("serviceaccount", json!(["serviceaccounts"]), json!(["own"])),
        pods("arbitrary-node", "list"),
        whom("arbitrary-node", json!(["nodes"]), json!(["n"])),
        pods("associated-node", "get"),
        whom("associated-node", json!(["nodes"]), json!(["*"])),
    ]));
    let me = actor();
    let as_me = |headers: &[_]| act(&authorizer, &me, headers);
    let u = ("impersonate-user", "u");
    assert_eq!(as_me(&[u]).unwrap().groups, ["system:authenticated"]);
    let group = |name| ("impersonate-group", name);
    assert_eq!(
        as_me(&[u, group("g"), group("h"), group("i"), group("j")]).unwrap().groups.len(),
        5,
        "all of many at once"
    );
    assert_eq!(as_me(&[u, ("impersonate-extra-example.com%2fscope", "s")]).unwrap().extra["example.com/scope"], ["s"]);
    assert!(
        as_me(&[("impersonate-user", "system:serviceaccount:a:own")]).unwrap().in_group("system:serviceaccounts:a")
    );
    let refused = |headers: &[_], why: &str| {
        let status = as_me(headers).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (403, why), "{headers:?}");
    };
    let cannot = |what: &str| format!("{what} in API group \"authentication.k8s.io\" at the cluster scope");
    refused(
        &[("impersonate-user", "root")],
        &format!(
            "users.authentication.k8s.io \"root\" is forbidden: User \"me\" {}",
            cannot("cannot impersonate:user-info resource \"users\"")
        ),
    );
    refused(
        &[u, group("system:masters")],
        &format!(
            "groups.authentication.k8s.io \"system:masters\" is forbidden: User \"me\" {}: impersonating the system:masters \
             group is not allowed",
            cannot("cannot impersonate:user-info resource \"groups\"")
        ),
    );
    refused(
        &[("impersonate-user", "system:node:n")],
        "pods is forbidden: User \"me\" cannot impersonate-on:arbitrary-node:get resource \"pods\" in API group \"\" in the \
         namespace \"a\"",
    );
    assert_eq!(as_me(&[u, ("impersonate-extra-bare", "s")]).unwrap_err().code, 403, "a key is a path under a domain");
    assert_eq!(as_me(&[u, ("impersonate-uid", "1")]).unwrap_err().code, 403);

    let mut agent = Identity::service_account("a", "agent", "1");
    agent.join("actors");
    agent.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec!["n".to_owned()]);
    let node = act(&authorizer, &agent, &[("impersonate-user", "system:node:n")]).unwrap();
    assert_eq!((node.node(), node.groups.len()), (Some("n"), 2));
    assert_eq!(
        act(&authorizer, &agent, &[("impersonate-user", "system:node:m")]).unwrap_err().code,
        403,
        "not its own"
    );
    let more = [("impersonate-user", "system:node:n"), ("impersonate-group", "g")];
    assert_eq!(act(&authorizer, &agent, &more).unwrap_err().code, 403, "a node is nothing but a node");
}

#[test]
fn a_refusal_of_who_may_nothing_names_what_is_missing() {
    let status = act(&allowed(json!([])), &user("bob"), &[("impersonate-user", "u")]).unwrap_err();
    assert_eq!(
        status.message,
        "pods is forbidden: User \"bob\" cannot impersonate-on:user-info:get resource \"pods\" in API group \"\" in the \
         namespace \"a\""
    );
}
