//! Acting as another: what the `Impersonate-*` headers ask for, and whether the caller may.
//!
//! There are several ways ([`modes`]): the older one needs the verb `impersonate` on each part of the other, and is good for
//! every request; the constrained ones (KEP-5284) need in addition a verb that names what is to be done as the other.

mod modes;

use gantry_kube::Status;
use gantry_kube::selector::is_dns_label;
use gantry_kube::validation::meta::is_subdomain;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::identity::SERVICE_ACCOUNT_USER_PREFIX;
use super::{Action, Authorizer, Identity};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The identity that the request shall act as: `identity` itself where no header asks for another.
pub fn impersonate(
    authorizer: &Authorizer,
    identity: &Identity,
    headers: &HeaderMap,
    action: &Action<'_>,
) -> Result<Identity, Status> {
    match wanted(headers)? {
        None => Ok(identity.clone()),
        Some(wanted) => modes::exchange(authorizer, identity, &wanted, action),
    }
}

fn text(value: &http::HeaderValue) -> Result<String, Status> {
    value.to_str().map(str::to_owned).map_err(|_| Status::bad_request("an Impersonate header is no printable text"))
}

/// Whom the headers describe, as they do: no group is added that they do not name.
fn wanted(headers: &HeaderMap) -> Result<Option<Identity>, Status> {
    let known = |name: &str| matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA_PREFIX);
    let asked = || headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("impersonate-"));
    if let Some(name) = asked().find(|name| !known(name)) {
        return Err(Status::bad_request(format!("the header {name:?} is not supported")));
    }
    if asked().next().is_none() {
        return Ok(None);
    }
    let first = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut other = Identity { user: first(USER)?, uid: first(UID)?, ..Identity::default() };
    for value in headers.get_all(GROUP) {
        other.groups.push(text(value)?);
    }
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        other.extra.entry(key).or_default().push(text(value)?);
    }
    if !other.user.is_empty() {
        return Ok(Some(other));
    }
    if other.uid.is_empty() && other.groups.is_empty() && other.extra.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", other.to_value())))
}

/// The namespace and the name of a user that is a service account.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX)?.split_once(':')?;
    (is_dns_label(namespace) && is_subdomain(name)).then_some((namespace, name))
}
