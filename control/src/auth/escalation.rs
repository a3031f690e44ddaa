//! Nobody grants more than they hold: the check on every write of a role or a binding.
//!
//! Two verbs lift it: `escalate` on the role that is written, `bind` on the role that is bound to.

use std::collections::{BTreeSet, HashMap};

use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
use gantry_kube::{Object, Resource, Status};

use super::identity::MASTERS_GROUP;
use super::policy::{Policy, referenced_rules};
use super::rules::Rule;
use super::{Action, Identity, Lookup};

/// Whether `identity` may write `object`; `old` is what stands there now. Kinds outside RBAC pass.
pub fn check(
    lookup: &dyn Lookup,
    identity: &Identity,
    resource: &Resource,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if identity.in_group(MASTERS_GROUP) {
        return Ok(());
    }
    let known = [&ROLE, &CLUSTER_ROLE, &ROLE_BINDING, &CLUSTER_ROLE_BINDING];
    // Even a label can grant: by it a role becomes part of those that sum up others.
    if !known.contains(&resource) || old.is_some_and(|old| without_upkeep(object) == without_upkeep(old)) {
        return Ok(());
    }
    if resource == &ROLE || resource == &CLUSTER_ROLE {
        role(&Policy::compile(lookup), identity, resource, object, old)
    } else {
        binding(lookup, identity, resource, object)
    }
}

/// The object without what garbage collection changes of it, which grants nothing.
fn without_upkeep(object: &Object) -> Object {
    let mut object = object.clone();
    for key in ["ownerReferences", "finalizers", "managedFields", "selfLink"] {
        object.metadata_mut().remove(key);
    }
    object
}

fn role(
    policy: &Policy,
    identity: &Identity,
    resource: &Resource,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let escalate = Action::Resource {
        verb: "escalate",
        group: resource.group,
        resource: resource.plural,
        subresource: "",
        namespace: object.namespace(),
        name: object.name(),
        fields: "",
        labels: "",
    };
    if policy.authorize(identity, &escalate).is_allowed() {
        return Ok(());
    }
    let refused = |why: String| Status::forbidden(resource, object.name(), &why);
    let asked: Vec<Rule> = object.array_at("/rules").iter().map(Rule::from_value).collect();
    confirm(policy, identity, object.namespace(), &asked).map_err(refused)?;
    // What sums up others can come to hold anything, and who ends it may keep what it held.
    let sums = |role: &Object| role.get("/aggregationRule").is_some_and(|rule| !rule.is_null());
    if sums(object) || old.is_some_and(sums) {
        let star = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: star(), groups: star(), resources: star(), ..Rule::default() },
            Rule { verbs: star(), urls: star(), ..Rule::default() },
        ];
        confirm(policy, identity, object.namespace(), &everything)
            .map_err(|why| refused(format!("must have cluster-admin privileges to use the aggregationRule: {why}")))?;
    }
    Ok(())
}

fn binding(lookup: &dyn Lookup, identity: &Identity, resource: &Resource, object: &Object) -> Result<(), Status> {
    let policy = Policy::compile(lookup);
    let target = if object.str_at("/roleRef/kind") == ROLE.kind { &ROLE } else { &CLUSTER_ROLE };
    let (name, namespace) = (object.str_at("/roleRef/name"), object.namespace());
    let bind = Action::Resource {
        verb: "bind",
        group: target.group,
        resource: target.plural,
        subresource: "",
        namespace,
        name,
        fields: "",
        labels: "",
    };
    if policy.authorize(identity, &bind).is_allowed() {
        return Ok(());
    }
    let reference = object.0.get("roleRef").cloned().unwrap_or_default();
    let granted = referenced_rules(lookup, &reference, namespace).ok_or_else(|| Status::not_found(target, name))?;
    confirm(&policy, identity, namespace, &granted).map_err(|why| Status::forbidden(resource, object.name(), &why))
}

/// So many single rights are looked at one by one: a role of a few kilobytes can multiply to billions.
const ATOMS_MAX: usize = 10_000;
/// So many of the missing ones are named.
const NAMED_MAX: usize = 100;

/// Names the rights in `asked` that `identity` does not hold itself.
fn confirm(policy: &Policy, identity: &Identity, namespace: &str, asked: &[Rule]) -> Result<(), String> {
    let held = policy.rules(identity, namespace);
    // What one rule covers as a whole needs no look at its parts.
    let open: Vec<&Rule> = asked.iter().filter(|asked| !held.iter().any(|rule| rule.covers(asked))).collect();
    let count = open.iter().map(|rule| rule.atom_count()).fold(0, usize::saturating_add);
    if count > ATOMS_MAX {
        return Err(format!(
            "the rules come to {count} single permissions that user {:?} does not hold by one rule of their own, and \
             {ATOMS_MAX} are the most that can be checked",
            identity.user
        ));
    }
    // Rights to one resource that differ in the verb alone are told as one.
    let mut missing: Vec<Rule> = Vec::new();
    let mut told: HashMap<Rule, usize> = HashMap::new();
    for mut atom in open.into_iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        let verbs = std::mem::take(&mut atom.verbs);
        match told.get(&atom) {
            Some(index) if atom.urls.is_empty() => missing[*index].verbs.extend(verbs),
            _ => {
                told.insert(atom.clone(), missing.len());
                missing.push(Rule { verbs, ..atom });
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let total = missing.len();
    let named: BTreeSet<String> = missing.iter().take(NAMED_MAX).map(compact).collect();
    let mut lines: Vec<String> = named.into_iter().collect();
    if total > NAMED_MAX {
        lines.push(format!("and {} more", total - NAMED_MAX));
    }
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.user,
        quoted(&identity.groups),
        lines.join("\n")
    ))
}

/// `["a" "b"]`
fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`
fn compact(rule: &Rule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(name, list)| format!("{name}:{}", quoted(list)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}
