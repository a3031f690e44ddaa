//! Nobody grants more than they hold: the check on every write of a role or a binding.
//!
//! Two verbs lift it: `escalate` on the role that is written, `bind` on the role that is bound to.

use std::collections::BTreeSet;

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
    let same = |key: &str| old.is_some_and(|old| old.0.get(key) == object.0.get(key));
    if resource == &ROLE || resource == &CLUSTER_ROLE {
        if same("rules") && same("aggregationRule") {
            return Ok(());
        }
        role(&Policy::compile(lookup), identity, resource, object)
    } else if resource == &ROLE_BINDING || resource == &CLUSTER_ROLE_BINDING {
        if same("roleRef") && same("subjects") {
            return Ok(());
        }
        binding(lookup, identity, resource, object)
    } else {
        Ok(())
    }
}

fn role(policy: &Policy, identity: &Identity, resource: &Resource, object: &Object) -> Result<(), Status> {
    let escalate = Action::Resource {
        verb: "escalate",
        group: resource.group,
        resource: resource.plural,
        subresource: "",
        namespace: object.namespace(),
        name: object.name(),
    };
    if policy.authorize(identity, &escalate).is_allowed() {
        return Ok(());
    }
    let refused = |why: String| Status::forbidden(resource, object.name(), &why);
    if object.get("/aggregationRule").is_some_and(|rule| !rule.is_null()) {
        let star = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: star(), groups: star(), resources: star(), ..Rule::default() },
            Rule { verbs: star(), urls: star(), ..Rule::default() },
        ];
        confirm(policy, identity, object.namespace(), &everything)
            .map_err(|why| refused(format!("must have cluster-admin privileges to use the aggregationRule: {why}")))?;
    }
    let asked: Vec<Rule> = object.array_at("/rules").iter().map(Rule::from_value).collect();
    confirm(policy, identity, object.namespace(), &asked).map_err(refused)
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
    };
    if policy.authorize(identity, &bind).is_allowed() {
        return Ok(());
    }
    let reference = object.0.get("roleRef").cloned().unwrap_or_default();
    let granted = referenced_rules(lookup, &reference, namespace).ok_or_else(|| Status::not_found(target, name))?;
    confirm(&policy, identity, namespace, &granted).map_err(|why| Status::forbidden(resource, object.name(), &why))
}

/// Names every right in `asked` that `identity` does not hold itself.
fn confirm(policy: &Policy, identity: &Identity, namespace: &str, asked: &[Rule]) -> Result<(), String> {
    let held = policy.rules(identity, namespace);
    let mut missing: Vec<Rule> = Vec::new();
    for atom in asked.iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        // Rights that differ in the verb alone are told as one.
        let alike = |rule: &Rule| Rule { verbs: atom.verbs.clone(), ..rule.clone() } == atom;
        match missing.iter_mut().find(|rule| alike(rule)) {
            Some(rule) if !rule.verbs.contains(&atom.verbs[0]) => rule.verbs.extend(atom.verbs),
            Some(_) => {}
            None => missing.push(atom),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = missing.iter().map(compact).collect();
    let lines: Vec<String> = lines.into_iter().collect();
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
