//! What authentication, authorisation and admission read of the cluster's objects: the watch cache, or a test's map.

use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource};

/// Reads of the newest state that is at hand, without waiting.
pub trait Lookup: Send + Sync {
    fn get(&self, resource: &Resource, at: &Ref) -> Option<Arc<Object>>;

    /// The objects of one namespace, or of all.
    fn list(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Object>>;

    /// A number that changes with every change to any object of the kind (the revision of its last event will do).
    fn version(&self, resource: &Resource) -> u64;

    /// Whether `accept` takes any object of the namespace in which each of `words` stands as a JSON string. The words are
    /// there to spare work: an implementation may look for them in the bytes before it parses anything.
    fn any(
        &self,
        resource: &Resource,
        namespace: &str,
        words: &[&str],
        accept: &mut dyn FnMut(&Object) -> bool,
    ) -> bool {
        let _ = words;
        self.list(resource, Some(namespace)).iter().any(|object| accept(object))
    }
}
