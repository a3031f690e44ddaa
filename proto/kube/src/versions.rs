//! Kinds that are served in more than one version. One form is stored; the others are made of it on the way out, and read
//! into it on the way in. What a version has no field for, it carries in annotations, so that nothing is lost by passing
//! through a client that knows only that one.

mod autoscaling;
mod event;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::{Object, Resource, resource};

/// An annotation that is to hold what a version has no field for, and does not.
#[derive(Debug, thiserror::Error)]
#[error("annotation {annotation}: {why}")]
pub struct VersionError {
    annotation: &'static str,
    why: String,
}

/// A form that is served and not stored.
#[derive(Clone, Copy)]
enum Other {
    AutoscalerV1,
    EventOfItsOwnGroup,
}

fn other(served: &Resource) -> Option<Other> {
    match (served.group, served.version, served.kind) {
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => Some(Other::AutoscalerV1),
        ("events.k8s.io", "v1", "Event") => Some(Other::EventOfItsOwnGroup),
        _ => None,
    }
}

/// Whether objects are stored as this version has them.
pub fn is_stored(served: &Resource) -> bool {
    other(served).is_none()
}

/// The resource of the version that is stored.
pub fn stored(served: &Resource) -> &Resource {
    match other(served) {
        None => served,
        Some(Other::AutoscalerV1) => &resource::HORIZONTAL_POD_AUTOSCALER,
        Some(Other::EventOfItsOwnGroup) => &resource::EVENT,
    }
}

/// An object of the served version, canonical, as it is stored; without its defaults.
pub fn to_stored(served: &Resource, object: Object) -> Result<Object, VersionError> {
    match other(served) {
        None => Ok(object),
        Some(Other::AutoscalerV1) => autoscaling::from_v1(object),
        Some(Other::EventOfItsOwnGroup) => Ok(event::to_core(object)),
    }
}

/// A stored object as the served version has it.
pub fn from_stored(served: &Resource, stored: &Object) -> Object {
    match other(served) {
        None => stored.clone(),
        Some(Other::AutoscalerV1) => autoscaling::to_v1(stored),
        Some(Other::EventOfItsOwnGroup) => event::from_core(stored),
    }
}

/// The field of the stored form that the served one has under this path; None where it has none by that name.
pub fn stored_field<'a>(served: &Resource, path: &'a str) -> Option<Cow<'a, str>> {
    match other(served) {
        None | Some(Other::AutoscalerV1) => Some(path.into()),
        Some(Other::EventOfItsOwnGroup) => event::core_field(path),
    }
}
