//! RBAC over the cached roles and bindings, compiled once and kept until one of them changes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use gantry_kube::Status;
use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
use serde_json::json;

use super::identity::MASTERS_GROUP;
use super::node::{self, Relation};
use super::policy::Policy;
use super::{Identity, Lookup};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// `namespace` is empty for cluster-scoped kinds and for all namespaces; `name` where none is named.
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
        /// The field selector of a list, a watch or a deletecollection.
        fields: &'a str,
        /// The label selector of the same.
        labels: &'a str,
    },
    /// A path that is no resource (`/healthz`); the verb is the method in lower case.
    NonResource { verb: &'a str, path: &'a str },
}

/// The answer. Nothing is allowed that no rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

impl<'a> Action<'a> {
    pub fn verb(&self) -> &'a str {
        match *self {
            Action::Resource { verb, .. } | Action::NonResource { verb, .. } => verb,
        }
    }

    /// The same with another verb.
    pub fn with_verb<'b>(self, other: &'b str) -> Action<'b>
    where
        'a: 'b,
    {
        let mut action: Action<'b> = self;
        match &mut action {
            Action::Resource { verb, .. } | Action::NonResource { verb, .. } => *verb = other,
        }
        action
    }

    /// `User "x" cannot list resource "pods" in API group "" in the namespace "y"`
    pub fn denial(&self, user: &str) -> String {
        match *self {
            Action::NonResource { verb, path } => format!("User {user:?} cannot {verb} path {path:?}"),
            Action::Resource { verb, group, resource, subresource, namespace, .. } => {
                let what =
                    if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {namespace:?}")
                };
                format!("User {user:?} cannot {verb} resource {what:?} in API group {group:?} {place}")
            }
        }
    }

    /// The 403 that answers a denied request.
    pub fn forbidden(&self, reason: &str) -> Status {
        let (head, details) = match *self {
            Action::NonResource { .. } => ("forbidden".to_owned(), json!({})),
            Action::Resource { group, resource, name, .. } => {
                let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                let head = if name.is_empty() {
                    format!("{qualified} is forbidden")
                } else {
                    format!("{qualified} {name:?} is forbidden")
                };
                let mut details = json!({"kind": resource});
                for (key, text) in [("group", group), ("name", name)] {
                    if !text.is_empty() {
                        details[key] = json!(text);
                    }
                }
                (head, details)
            }
        };
        let mut status = Status::new(403, "Forbidden", format!("{head}: {reason}"));
        status.details = details;
        status
    }
}

/// Answers [`Action`]s. Cheap to clone; clones share the compiled rules.
#[derive(Clone)]
pub struct Authorizer {
    lookup: Arc<dyn Lookup>,
    compiled: Arc<ArcSwapOption<(Versions, Arc<Policy>)>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("compiled", &self.compiled.load().is_some()).finish_non_exhaustive()
    }
}

/// The last change of each of the four kinds that the rules come from.
type Versions = [u64; 4];

impl Authorizer {
    pub fn new(lookup: Arc<dyn Lookup>) -> Authorizer {
        Authorizer { lookup, compiled: Arc::new(ArcSwapOption::empty()) }
    }

    pub fn authorize(&self, identity: &Identity, action: &Action<'_>) -> Decision {
        // Those who may do everything may do it before there is a policy, and when it is broken.
        if identity.in_group(MASTERS_GROUP) {
            return Decision::Allow { reason: String::new() };
        }
        let decision = || self.policy().authorize(identity, action);
        let Some(name) = identity.node() else { return decision() };
        match node::relation(self.lookup.as_ref(), name, action) {
            Relation::Granted => Decision::Allow { reason: String::new() },
            Relation::Unrelated => decision(),
            Relation::Missing(reason) => match decision() {
                Decision::Deny { .. } => Decision::Deny { reason },
                allowed => allowed,
            },
        }
    }

    /// [`Authorizer::authorize`] as a request handler wants it: the 403 in the words of Kubernetes, or nothing.
    pub fn check(&self, identity: &Identity, action: &Action<'_>) -> Result<(), Status> {
        match self.authorize(identity, action) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } if reason.is_empty() => Err(action.forbidden(&action.denial(&identity.user))),
            Decision::Deny { reason } => Err(action.forbidden(&format!("{}: {reason}", action.denial(&identity.user)))),
        }
    }

    /// The rules as they are now.
    pub fn policy(&self) -> Arc<Policy> {
        // Versions are read before the objects: rules that were read too new are compiled once more, never too old.
        let versions = [&ROLE, &ROLE_BINDING, &CLUSTER_ROLE, &CLUSTER_ROLE_BINDING].map(|r| self.lookup.version(r));
        if let Some(compiled) = self.compiled.load_full().filter(|compiled| compiled.0 == versions) {
            return Arc::clone(&compiled.1);
        }
        let policy = Arc::new(Policy::compile(self.lookup.as_ref()));
        self.compiled.store(Some(Arc::new((versions, Arc::clone(&policy)))));
        policy
    }
}
