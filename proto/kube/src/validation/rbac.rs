//! Roles and their bindings.

use super::at::{At, Errors};
use super::format::subdomain;
use super::selector::label_selector;
use crate::{FieldError, Object};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role (`namespaced`) or a ClusterRole.
pub fn role(object: &Object, namespaced: bool, errors: &mut Errors) {
    for rule in At::of(object, "rules").items() {
        self::rule(&rule, namespaced, errors);
    }
    if let Some(selectors) = At::of(object, "aggregationRule").get("clusterRoleSelectors") {
        for selector in selectors.items() {
            label_selector(&selector, errors);
        }
    } else if At::of(object, "aggregationRule").is_set() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        At::of(object, "aggregationRule").field("clusterRoleSelectors").required(errors, why);
    }
}

fn rule(at: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let (verbs, urls) = (at.field("verbs"), at.field("nonResourceURLs"));
    let (groups, resources) = (at.field("apiGroups"), at.field("resources"));
    if verbs.count() == 0 {
        verbs.required(errors, "verbs must contain at least one value");
    }
    if urls.count() > 0 {
        if namespaced {
            urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
        }
        if [&groups, &resources, &at.field("resourceNames")].iter().any(|list| list.count() > 0) {
            urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.count() == 0 {
        groups.required(errors, "resource rules must supply at least one api group");
    }
    if resources.count() == 0 {
        resources.required(errors, "resource rules must supply at least one resource");
    }
}

/// A RoleBinding (`namespaced`) or a ClusterRoleBinding.
pub fn binding(object: &Object, namespaced: bool, errors: &mut Errors) {
    let role = At::of(object, "roleRef");
    if role.text_of("apiGroup") != GROUP {
        let path = role.field("apiGroup").path;
        errors.push(FieldError::not_supported(path, role.text_of("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text_of("kind")) {
        errors.push(FieldError::not_supported(role.field("kind").path, role.text_of("kind"), kinds));
    }
    role.field("name").required_as(errors, path_segment);
    for subject in At::of(object, "subjects").items() {
        self::subject(&subject, namespaced, errors);
    }
}

fn subject(at: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let name = at.field("name");
    name.present(errors);
    let group = at.text_of("apiGroup");
    let mut of_group = |wanted: &str| {
        if group != wanted {
            errors.push(FieldError::not_supported(at.field("apiGroup").path, group, &[wanted]));
        }
    };
    match at.text_of("kind") {
        "ServiceAccount" => {
            of_group("");
            name.optional_as(errors, subdomain);
            if !namespaced || at.text_of("namespace").is_empty() {
                at.field("namespace").present(errors);
            }
        }
        "User" | "Group" => of_group(GROUP),
        kind => {
            let words = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(at.field("kind").path, kind, &words));
        }
    }
}

/// What is granted may change; to whom a role's name leads may not.
pub fn binding_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (role, before) = (At::of(new, "roleRef"), At::of(old, "roleRef"));
    if role.value != before.value {
        role.invalid(errors, "cannot change roleRef");
    }
}

fn path_segment(text: &str) -> Option<String> {
    super::meta::name_problem(super::meta::NameRule::PathSegment, text)
}
