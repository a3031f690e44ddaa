//! Which stored kind a served resource belongs to: the first part of its keys.

use gantry_kube::{Ref, Resource, versions};

use super::Key;

/// The kind part of the keys of a resource: `pods`, `deployments.apps`. All served versions of a kind share it, those of
/// another group too.
pub fn prefix(resource: &Resource) -> String {
    versions::stored(resource).qualified()
}

pub fn key(resource: &Resource, reference: &Ref) -> Key {
    Key::new(&prefix(resource), reference)
}

/// The text with which all keys of a kind begin: of one namespace, or of all.
pub fn list_prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{}/{namespace}/", prefix(resource)),
        None => format!("{}/", prefix(resource)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource::{ALL, DEPLOYMENT};

    #[test]
    fn prefixes_are_unambiguous() {
        assert_eq!(list_prefix(&DEPLOYMENT, Some("a")), "deployments.apps/a/");
        let mut seen: Vec<String> = ALL.iter().map(|resource| prefix(resource)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), ALL.len());
        let newer = Resource::by_kind("events.k8s.io", "v1", "Event").unwrap();
        assert_eq!(prefix(newer), "events");
    }
}
