//! Acting as another: the `Impersonate-*` headers, each of which needs the verb `impersonate` on what it names.

use gantry_kube::Status;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::identity::{
    ANONYMOUS, AUTHENTICATED_GROUP, SERVICE_ACCOUNT_USER_PREFIX, SERVICE_ACCOUNTS_GROUP, UNAUTHENTICATED_GROUP,
};
use super::{Action, Authorizer, Identity};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// The API group in which uids and extras are named.
const AUTHENTICATION: &str = "authentication.k8s.io";

fn text(value: &http::HeaderValue) -> Result<String, Status> {
    value.to_str().map(str::to_owned).map_err(|_| Status::bad_request("an Impersonate header is no printable text"))
}

/// The identity that the request shall act as: `identity` itself where no header asks for another.
pub fn impersonate(authorizer: &Authorizer, identity: &Identity, headers: &HeaderMap) -> Result<Identity, Status> {
    let asked = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
    if !asked {
        return Ok(identity.clone());
    }
    let known = |name: &str| matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA_PREFIX);
    if let Some(name) = headers.keys().find(|n| n.as_str().starts_with("impersonate-") && !known(n.as_str())) {
        return Err(Status::bad_request(format!("the header {:?} is not supported", name.as_str())));
    }
    let mut users = headers.get_all(USER).iter();
    let user = match (users.next(), users.next()) {
        (Some(user), None) if !user.is_empty() => text(user)?,
        _ => {
            return Err(Status::internal(format!(
                "requested {} without impersonating a user",
                headers.keys().map(|name| name.as_str()).filter(|name| known(name)).collect::<Vec<_>>().join(", ")
            )));
        }
    };
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let action = Action::Resource {
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name,
            fields: "",
            labels: "",
        };
        authorizer.check(identity, &action)
    };
    let mut other = Identity { user, ..Identity::default() };
    match other.user.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX).and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
        None => may("", "users", "", "", &other.user)?,
    }
    for value in headers.get_all(GROUP) {
        let group = text(value)?;
        may("", "groups", "", "", &group)?;
        other.join(&group);
    }
    if let Some(uid) = headers.get(UID) {
        other.uid = text(uid)?;
        may(AUTHENTICATION, "uids", "", "", &other.uid)?;
    }
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        let value = text(value)?;
        may(AUTHENTICATION, "userextras", &key, "", &value)?;
        other.extra.entry(key).or_default().push(value);
    }
    complete_groups(&mut other);
    Ok(other)
}

/// The groups that follow from who it is.
fn complete_groups(other: &mut Identity) {
    if other.groups.is_empty()
        && let Some((namespace, _)) =
            other.user.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX).and_then(|rest| rest.split_once(':'))
    {
        let of_namespace = format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}");
        other.join(SERVICE_ACCOUNTS_GROUP);
        other.join(&of_namespace);
    }
    if other.user == ANONYMOUS {
        other.join(UNAUTHENTICATED_GROUP);
    } else if !other.in_group(UNAUTHENTICATED_GROUP) {
        other.join(AUTHENTICATED_GROUP);
    }
}
