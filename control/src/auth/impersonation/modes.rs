//! The ways to act as another, in the order in which they are tried. The first that is open is taken; where none is, the
//! answer is that of the first that could have been.

use gantry_kube::Status;
use gantry_kube::validation::meta::is_subdomain;

use super::service_account;
use crate::auth::identity::{
    ANONYMOUS, AUTHENTICATED_GROUP, MASTERS_GROUP, NODE_USER_PREFIX, NODES_GROUP, SERVICE_ACCOUNTS_GROUP,
    UNAUTHENTICATED_GROUP,
};
use crate::auth::{Action, Authorizer, Identity};

/// The API group of what the constrained modes check, and of uids and extras in all of them.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Which node a service account's token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From so many on, one check of them all comes before those of each.
const MANY: usize = 4;

/// A constrained way.
struct Mode {
    name: &'static str,
    is_for: fn(&Identity, &Identity) -> bool,
}

static CONSTRAINED: [Mode; 4] = [
    Mode { name: "associated-node", is_for: |wanted, caller| is_bare(wanted) && is_on(caller, &wanted.user) },
    Mode { name: "arbitrary-node", is_for: |wanted, _| is_bare(wanted) && node(&wanted.user).is_some() },
    Mode { name: "serviceaccount", is_for: |wanted, _| is_bare(wanted) && service_account(&wanted.user).is_some() },
    Mode {
        name: "user-info",
        is_for: |wanted, _| node(&wanted.user).is_none() && service_account(&wanted.user).is_none(),
    },
];

pub fn exchange(
    authorizer: &Authorizer,
    caller: &Identity,
    wanted: &Identity,
    action: &Action<'_>,
) -> Result<Identity, Status> {
    let mut refusal = None;
    for mode in CONSTRAINED.iter().filter(|mode| (mode.is_for)(wanted, caller)) {
        let on = format!("impersonate-on:{}:{}", mode.name, action.verb());
        let verb = format!("impersonate:{}", mode.name);
        let asked = Asked { authorizer, caller, verb: &verb, group: AUTHENTICATION };
        let is_own_node = mode.name == "associated-node";
        match authorizer.check(caller, &action.with_verb(&on)).and_then(|()| asked.whole(wanted, is_own_node)) {
            Ok(()) => return Ok(constrained(wanted)),
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    let asked = Asked { authorizer, caller, verb: "impersonate", group: "" };
    match asked.all(wanted) {
        Ok(()) => Ok(complete(wanted.clone())),
        Err(status) => Err(refusal.unwrap_or(status)),
    }
}

/// Nothing is asked for but a name: all else follows from it.
fn is_bare(wanted: &Identity) -> bool {
    wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty()
}

fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_USER_PREFIX).filter(|name| is_subdomain(name))
}

/// Whether the caller is a service account whose token is bound to that node.
fn is_on(caller: &Identity, user: &str) -> bool {
    let own = caller.extra.get(NODE_NAME).map(Vec::as_slice);
    let is_account = service_account(&caller.user).is_some();
    is_account && node(user).is_some_and(|node| matches!(own, Some([name]) if name == node))
}

/// A node has one group, which nobody names.
fn constrained(wanted: &Identity) -> Identity {
    let mut other = wanted.clone();
    if node(&wanted.user).is_some() {
        other.groups = vec![NODES_GROUP.to_owned()];
    }
    complete(other)
}

/// With the groups that follow from who it is.
fn complete(mut other: Identity) -> Identity {
    if other.groups.is_empty()
        && let Some((namespace, _)) = service_account(&other.user)
    {
        other.groups = vec![SERVICE_ACCOUNTS_GROUP.to_owned(), format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}")];
    }
    if other.user == ANONYMOUS {
        other.join(UNAUTHENTICATED_GROUP);
    } else if !other.in_group(UNAUTHENTICATED_GROUP) {
        other.join(AUTHENTICATED_GROUP);
    }
    other
}

/// The checks of one mode.
struct Asked<'a> {
    authorizer: &'a Authorizer,
    caller: &'a Identity,
    verb: &'a str,
    /// Of users, groups and accounts.
    group: &'a str,
}

impl Asked<'_> {
    fn action<'b>(&'b self, group: &'b str, resource: &'b str, subresource: &'b str, name: &'b str) -> Action<'b> {
        Action::Resource { verb: self.verb, group, resource, subresource, namespace: "", name, fields: "", labels: "" }
    }

    fn may(&self, action: &Action<'_>) -> Result<(), Status> {
        self.authorizer.check(self.caller, action)
    }

    fn refuse(&self, action: &Action<'_>, why: &str) -> Status {
        action.forbidden(&format!("{}: {why}", action.denial(&self.caller.user)))
    }

    /// Each part of the other, one by one.
    fn all(&self, wanted: &Identity) -> Result<(), Status> {
        match service_account(&wanted.user) {
            Some((namespace, name)) => self.may(&Action::Resource {
                verb: self.verb,
                group: self.group,
                resource: "serviceaccounts",
                subresource: "",
                namespace,
                name,
                fields: "",
                labels: "",
            })?,
            None => self.may(&self.action(self.group, "users", "", &wanted.user))?,
        }
        self.uid(wanted)?;
        for group in &wanted.groups {
            self.may(&self.action(self.group, "groups", "", group))?;
        }
        self.extras(wanted)
    }

    fn uid(&self, wanted: &Identity) -> Result<(), Status> {
        if wanted.uid.is_empty() { Ok(()) } else { self.may(&self.action(AUTHENTICATION, "uids", "", &wanted.uid)) }
    }

    fn extras(&self, wanted: &Identity) -> Result<(), Status> {
        for (key, values) in &wanted.extra {
            for value in values {
                self.may(&self.action(AUTHENTICATION, "userextras", key, value))?;
            }
        }
        Ok(())
    }

    /// The same in a constrained mode, which takes nothing that could stand for more than it says.
    fn whole(&self, wanted: &Identity, is_own_node: bool) -> Result<(), Status> {
        if let Some(name) = node(&wanted.user) {
            return self.may(&self.action(self.group, "nodes", "", if is_own_node { "*" } else { name }));
        }
        let groups = self.action(self.group, "groups", "", "");
        if wanted.groups.iter().any(String::is_empty) {
            return Err(self.refuse(&groups, "impersonating the empty string group is not allowed"));
        }
        if wanted.in_group(MASTERS_GROUP) {
            let masters = self.action(self.group, "groups", "", MASTERS_GROUP);
            return Err(self.refuse(&masters, "impersonating the system:masters group is not allowed"));
        }
        if let Some(why) = bad_extra(wanted) {
            return Err(self.refuse(&self.action(AUTHENTICATION, "userextras", "", ""), &why));
        }
        let mut named = wanted.clone();
        if named.groups.len() >= MANY && self.may(&self.action(self.group, "groups", "", "*")).is_ok() {
            named.groups.clear();
        }
        let extras: usize = named.extra.values().map(Vec::len).sum();
        if extras >= MANY && self.may(&self.action(AUTHENTICATION, "userextras", "*", "*")).is_ok() {
            named.extra.clear();
        }
        self.all(&named)
    }
}

/// What is wrong with what is to be known of the other: a key is a path under a domain, in lower case.
fn bad_extra(wanted: &Identity) -> Option<String> {
    wanted.extra.iter().find_map(|(key, values)| {
        let under_domain = key.split_once('/').is_some_and(|(domain, path)| is_subdomain(domain) && !path.is_empty());
        if key.is_empty() {
            Some("impersonating the empty string key in extra is not allowed".to_owned())
        } else if !under_domain {
            Some(format!("impersonating an invalid key in extra is not allowed: {key:?} is no path under a domain"))
        } else if *key != key.to_lowercase() {
            Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
        } else if values.iter().any(String::is_empty) {
            Some("impersonating the empty string value in extra is not allowed".to_owned())
        } else {
            None
        }
    })
}
