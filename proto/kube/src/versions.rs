//! Kinds that are served in more than one version. One form is stored; the others are made of it on the way out, and read
//! into it on the way in. What a version has no field for, it carries in annotations, so that nothing is lost by passing
//! through a client that knows only that one.

mod autoscaling;
#[cfg(test)]
mod tests;

use crate::{Object, Resource, resource};

/// An annotation that is to hold what a version has no field for, and does not.
#[derive(Debug, thiserror::Error)]
#[error("annotation {annotation}: {why}")]
pub struct VersionError {
    annotation: &'static str,
    why: String,
}

/// Whether objects are stored as this version has them.
pub fn is_stored(served: &Resource) -> bool {
    (served.group, served.kind, served.version) != ("autoscaling", resource::HORIZONTAL_POD_AUTOSCALER.kind, "v1")
}

/// The resource of the version that is stored.
pub fn stored(served: &Resource) -> &Resource {
    if is_stored(served) { served } else { &resource::HORIZONTAL_POD_AUTOSCALER }
}

/// An object of the served version, canonical, as it is stored; without its defaults.
pub fn to_stored(served: &Resource, object: Object) -> Result<Object, VersionError> {
    if is_stored(served) { Ok(object) } else { autoscaling::from_v1(object) }
}

/// A stored object as the served version has it.
pub fn from_stored(served: &Resource, stored: &Object) -> Object {
    if is_stored(served) { stored.clone() } else { autoscaling::to_v1(stored) }
}
