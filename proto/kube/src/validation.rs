//! The rules an object must keep before it is stored, as pure functions from objects to broken rules.
//!
//! [`meta`] holds what every kind has in common; the rules of single kinds are reached through [`create`] and
//! [`update`], so that the API server and the agent (for static pods) ask the same questions.

use crate::{FieldError, Object, Resource};

pub mod meta;

/// What is wrong with a new object's own fields (its metadata is [`meta`]'s).
pub fn create(_resource: &Resource, _object: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// What is wrong with a change from `old` to `new`.
pub fn update(resource: &Resource, new: &Object, _old: &Object) -> Vec<FieldError> {
    create(resource, new)
}
