//! The RBAC objects, compiled: who is bound to which rules, and what those allow.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref};
use serde_json::Value;

use super::identity::{MASTERS_GROUP, SERVICE_ACCOUNT_USER_PREFIX};
use super::rules::Rule;
use super::{Action, Decision, Identity, Lookup};

/// Who is bound to what, by subject.
#[derive(Debug, Default)]
pub struct Policy {
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
    /// `RoleBinding "b/ns" of Role "r" to User "u"`
    source: String,
    rules: Arc<[Rule]>,
}

impl Policy {
    pub fn authorize(&self, identity: &Identity, action: &Action<'_>) -> Decision {
        if identity.in_group(MASTERS_GROUP) {
            return Decision::Allow { reason: String::new() };
        }
        let namespace = match *action {
            Action::Resource { namespace, .. } => namespace,
            Action::NonResource { .. } => "",
        };
        for grants in self.of(identity) {
            let allows = |grant: &&Arc<Grant>| grant.rules.iter().any(|rule| rule.matches(action));
            if let Some(grant) = grants.at(namespace).find(allows) {
                return Decision::Allow { reason: format!("RBAC: allowed by {}", grant.source) };
            }
        }
        Decision::Deny { reason: String::new() }
    }

    /// Every rule that holds for `identity` in `namespace` (empty: cluster-wide grants only), without repetition.
    pub fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let mut all: Vec<Rule> = Vec::new();
        if identity.in_group(MASTERS_GROUP) {
            let star = || vec!["*".to_owned()];
            all.push(Rule { verbs: star(), groups: star(), resources: star(), ..Rule::default() });
            all.push(Rule { verbs: star(), urls: star(), ..Rule::default() });
        }
        for grants in self.of(identity) {
            for rule in grants.at(namespace).flat_map(|grant| grant.rules.iter()) {
                if !all.contains(rule) {
                    all.push(rule.clone());
                }
            }
        }
        all
    }

    pub fn compile(lookup: &dyn Lookup) -> Policy {
        let cluster_roles = effective_cluster_roles(&lookup.list(&CLUSTER_ROLE, None));
        let roles: HashMap<Ref, Arc<[Rule]>> =
            lookup.list(&ROLE, None).iter().map(|role| (role.reference(), own_rules(role).into())).collect();
        let mut policy = Policy::default();
        for binding in lookup.list(&CLUSTER_ROLE_BINDING, None) {
            let name = binding.str_at("/roleRef/name");
            if let Some(rules) = cluster_roles.get(name).filter(|_| refers_to(&binding, "ClusterRole")) {
                policy.bind(&binding, "", rules);
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
                policy.bind(&binding, namespace, rules);
            }
        }
        policy
    }

    fn bind(&mut self, binding: &Object, namespace: &str, rules: &Arc<[Rule]>) {
        let role = format!("{} {:?}", binding.str_at("/roleRef/kind"), binding.str_at("/roleRef/name"));
        let binding_name = if namespace.is_empty() {
            format!("ClusterRoleBinding {:?}", binding.name())
        } else {
            format!("RoleBinding {:?}", format!("{}/{namespace}", binding.name()))
        };
        for subject in binding.array_at("/subjects") {
            let (kind, name) = (subject["kind"].as_str().unwrap_or(""), subject["name"].as_str().unwrap_or(""));
            let rbac_group = |expected: &str| subject["apiGroup"].as_str().unwrap_or(expected) == expected;
            let (grants, to) = match kind {
                "User" if rbac_group(ROLE.group) => (self.users.entry(name.to_owned()), name.to_owned()),
                "Group" if rbac_group(ROLE.group) => (self.groups.entry(name.to_owned()), name.to_owned()),
                "ServiceAccount" if rbac_group("") => {
                    let of = subject["namespace"].as_str().filter(|ns| !ns.is_empty()).unwrap_or(namespace);
                    if of.is_empty() {
                        continue;
                    }
                    let user = format!("{SERVICE_ACCOUNT_USER_PREFIX}{of}:{name}");
                    (self.users.entry(user), format!("{name}/{of}"))
                }
                _ => continue,
            };
            let source = format!("{binding_name} of {role} to {kind} {to:?}");
            grants.or_default().add(namespace, Arc::new(Grant { source, rules: Arc::clone(rules) }));
        }
    }

    /// What each of the subjects that `identity` is holds.
    fn of<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Grants> {
        let groups = identity.groups.iter().filter_map(|name| self.groups.get(name));
        self.users.get(&identity.user).into_iter().chain(groups)
    }
}

impl Grants {
    fn at(&self, namespace: &str) -> impl Iterator<Item = &Arc<Grant>> {
        let local = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.iter().chain(local.into_iter().flatten())
    }

    fn add(&mut self, namespace: &str, grant: Arc<Grant>) {
        if namespace.is_empty() {
            self.cluster.push(grant);
        } else {
            self.namespaces.entry(namespace.to_owned()).or_default().push(grant);
        }
    }
}

fn refers_to(binding: &Object, kind: &str) -> bool {
    binding.str_at("/roleRef/kind") == kind
        && matches!(binding.str_at("/roleRef/apiGroup"), "" | "rbac.authorization.k8s.io")
}

fn own_rules(role: &Object) -> Vec<Rule> {
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
pub(super) fn referenced_rules(lookup: &dyn Lookup, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
    let name = role_ref["name"].as_str()?;
    match role_ref["kind"].as_str()? {
        "ClusterRole" => {
            effective_cluster_roles(&lookup.list(&CLUSTER_ROLE, None)).get(name).map(|rules| rules.to_vec())
        }
        "Role" => lookup.get(&ROLE, &Ref::new(namespace, name)).map(|role| own_rules(&role)),
        _ => None,
    }
}
