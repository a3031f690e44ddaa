//! RBAC over the cached roles and bindings, compiled once and kept until one of them changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, Status};
use serde_json::{Value, json};

use super::identity::{MASTERS_GROUP, SERVICE_ACCOUNT_USER_PREFIX};
use super::rules::Rule;
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

impl Action<'_> {
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
    compiled: Arc<ArcSwapOption<Compiled>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("compiled", &self.compiled.load().is_some()).finish_non_exhaustive()
    }
}

/// The last change of each of the four kinds that the rules come from.
type Versions = [u64; 4];

/// Who is bound to what, by subject.
#[derive(Debug, Default)]
struct Compiled {
    versions: Versions,
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

/// The bindings of one subject: in the whole cluster, and by namespace.
#[derive(Debug, Default)]
struct Grants {
    cluster: Vec<Arc<Grant>>,
    namespaces: HashMap<String, Vec<Arc<Grant>>>,
}

/// One binding and its role's rules.
#[derive(Debug)]
struct Grant {
    binding: String,
    role: String,
    rules: Arc<[Rule]>,
}

impl Authorizer {
    pub fn new(lookup: Arc<dyn Lookup>) -> Authorizer {
        Authorizer { lookup, compiled: Arc::new(ArcSwapOption::empty()) }
    }

    pub fn authorize(&self, identity: &Identity, action: &Action<'_>) -> Decision {
        if identity.in_group(MASTERS_GROUP) {
            return Decision::Allow { reason: String::new() };
        }
        let compiled = self.compiled();
        let namespace = match *action {
            Action::Resource { namespace, .. } => namespace,
            Action::NonResource { .. } => "",
        };
        for (subject, grants) in compiled.of(identity) {
            let allows = |grant: &&Arc<Grant>| grant.rules.iter().any(|rule| rule.matches(action));
            if let Some(grant) = grants.at(namespace).find(allows) {
                return Decision::Allow {
                    reason: format!("RBAC: allowed by {} of {} to {subject}", grant.binding, grant.role),
                };
            }
        }
        Decision::Deny { reason: String::new() }
    }

    /// [`Authorizer::authorize`] as a request handler wants it: the 403 in the words of Kubernetes, or nothing.
    pub fn check(&self, identity: &Identity, action: &Action<'_>) -> Result<(), Status> {
        match self.authorize(identity, action) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } if reason.is_empty() => Err(action.forbidden(&action.denial(&identity.user))),
            Decision::Deny { reason } => Err(action.forbidden(&format!("{}: {reason}", action.denial(&identity.user)))),
        }
    }

    /// Every rule that holds for `identity` in `namespace` (empty: cluster-wide grants only), without repetition.
    pub fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let mut all: Vec<Rule> = Vec::new();
        if identity.in_group(MASTERS_GROUP) {
            let star = || vec!["*".to_owned()];
            all.push(Rule { verbs: star(), groups: star(), resources: star(), ..Rule::default() });
            all.push(Rule { verbs: star(), urls: star(), ..Rule::default() });
        }
        for (_, grants) in self.compiled().of(identity) {
            for rule in grants.at(namespace).flat_map(|grant| grant.rules.iter()) {
                if !all.contains(rule) {
                    all.push(rule.clone());
                }
            }
        }
        all
    }

    fn compiled(&self) -> Arc<Compiled> {
        // Versions are read before the objects: rules that were read too new are compiled once more, never too old.
        let versions = [&ROLE, &ROLE_BINDING, &CLUSTER_ROLE, &CLUSTER_ROLE_BINDING].map(|r| self.lookup.version(r));
        if let Some(compiled) = self.compiled.load_full().filter(|c| c.versions == versions) {
            return compiled;
        }
        let compiled = Arc::new(Compiled::from(self.lookup.as_ref(), versions));
        self.compiled.store(Some(Arc::clone(&compiled)));
        compiled
    }
}

impl Grants {
    fn at(&self, namespace: &str) -> impl Iterator<Item = &Arc<Grant>> {
        let local = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.iter().chain(local.into_iter().flatten())
    }
}

impl Compiled {
    fn from(lookup: &dyn Lookup, versions: Versions) -> Compiled {
        let cluster_roles = effective_cluster_roles(&lookup.list(&CLUSTER_ROLE, None));
        let roles: HashMap<Ref, Arc<[Rule]>> =
            lookup.list(&ROLE, None).iter().map(|role| (role.reference(), own_rules(role).into())).collect();
        let mut compiled = Compiled { versions, ..Compiled::default() };
        for binding in lookup.list(&CLUSTER_ROLE_BINDING, None) {
            let name = binding.str_at("/roleRef/name");
            if let Some(rules) = cluster_roles.get(name).filter(|_| refers_to(&binding, "ClusterRole")) {
                compiled.bind(&binding, "", rules);
            }
        }
        for binding in lookup.list(&ROLE_BINDING, None) {
            let (namespace, name) = (binding.namespace(), binding.str_at("/roleRef/name"));
            let rules = if refers_to(&binding, "ClusterRole") {
                cluster_roles.get(name)
            } else if refers_to(&binding, "Role") {
                roles.get(&Ref::new(namespace, name))
            } else {
                None
            };
            // A binding without a namespace is no RoleBinding: it must not turn into a cluster-wide one.
            if let Some(rules) = rules.filter(|_| !namespace.is_empty()) {
                compiled.bind(&binding, namespace, rules);
            }
        }
        compiled
    }

    fn bind(&mut self, binding: &Object, namespace: &str, rules: &Arc<[Rule]>) {
        let role = format!("{} {:?}", binding.str_at("/roleRef/kind"), binding.str_at("/roleRef/name"));
        let scope = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let binding_name = format!("{scope} {:?}", binding.reference().to_string());
        let grant = Arc::new(Grant { binding: binding_name, role, rules: Arc::clone(rules) });
        for subject in binding.array_at("/subjects") {
            let name = subject["name"].as_str().unwrap_or("");
            let rbac_group = |expected: &str| subject["apiGroup"].as_str().unwrap_or(expected) == expected;
            let grants = match subject["kind"].as_str().unwrap_or("") {
                "User" if rbac_group(ROLE.group) => self.users.entry(name.to_owned()),
                "Group" if rbac_group(ROLE.group) => {
                    let grants = self.groups.entry(name.to_owned()).or_default();
                    grants.add(namespace, &grant);
                    continue;
                }
                "ServiceAccount" if rbac_group("") => {
                    let of = subject["namespace"].as_str().filter(|ns| !ns.is_empty()).unwrap_or(namespace);
                    if of.is_empty() {
                        continue;
                    }
                    self.users.entry(format!("{SERVICE_ACCOUNT_USER_PREFIX}{of}:{name}"))
                }
                _ => continue,
            };
            grants.or_default().add(namespace, &grant);
        }
    }

    fn of<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = (String, &'a Grants)> {
        let user = self.users.get(&identity.user).map(|g| (format!("User {:?}", identity.user), g));
        let groups =
            identity.groups.iter().filter_map(|name| Some((format!("Group {name:?}"), self.groups.get(name)?)));
        user.into_iter().chain(groups)
    }
}

impl Grants {
    fn add(&mut self, namespace: &str, grant: &Arc<Grant>) {
        if namespace.is_empty() {
            self.cluster.push(Arc::clone(grant));
        } else {
            self.namespaces.entry(namespace.to_owned()).or_default().push(Arc::clone(grant));
        }
    }
}

fn refers_to(binding: &Object, kind: &str) -> bool {
    binding.str_at("/roleRef/kind") == kind
        && matches!(binding.str_at("/roleRef/apiGroup"), "" | "rbac.authorization.k8s.io")
}

pub(super) fn own_rules(role: &Object) -> Vec<Rule> {
    role.array_at("/rules").iter().map(Rule::from_value).collect()
}

/// Each cluster role's rules; where it aggregates, those of every role that its selectors match, in the order of names.
fn effective_cluster_roles(roles: &[Arc<Object>]) -> HashMap<String, Arc<[Rule]>> {
    let mut by_name: Vec<&Arc<Object>> = roles.iter().collect();
    by_name.sort_by(|a, b| a.name().cmp(b.name()));
    by_name
        .iter()
        .map(|role| {
            let mut seen = BTreeSet::new();
            (role.name().to_owned(), aggregated(role, &by_name, &mut seen).into())
        })
        .collect()
}

/// `seen` keeps two roles that aggregate each other from turning for ever.
fn aggregated(role: &Object, all: &[&Arc<Object>], seen: &mut BTreeSet<String>) -> Vec<Rule> {
    let mut rules = own_rules(role);
    if !seen.insert(role.name().to_owned()) {
        return rules;
    }
    for selector in role.array_at("/aggregationRule/clusterRoleSelectors") {
        let Ok(selector) = LabelSelector::from_value(selector) else { continue };
        for other in all.iter().filter(|other| other.name() != role.name() && selector.matches_object(other)) {
            for rule in aggregated(other, all, seen) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    rules
}

/// The rules of the role that a binding names, as escalation checks want them; `None` where there is no such role.
pub fn referenced_rules(lookup: &dyn Lookup, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
    let name = role_ref["name"].as_str()?;
    match role_ref["kind"].as_str()? {
        "ClusterRole" => {
            effective_cluster_roles(&lookup.list(&CLUSTER_ROLE, None)).get(name).map(|rules| rules.to_vec())
        }
        "Role" => lookup.get(&ROLE, &Ref::new(namespace, name)).map(|role| own_rules(&role)),
        _ => None,
    }
}
