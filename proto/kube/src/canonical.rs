//! The canonical form of objects, so that two writers of the same thing store the same bytes; and what is wrong with them.
//!
//! [`parse_json`] reads a body and names the fields that stand in it twice. [`normalize`] then walks the object beside its
//! definition in one pass: unknown fields are taken out and named, values of the wrong type are named, null is absent,
//! quantities, times and base64 are printed in their one form, what is as good as absent (empty lists and maps, zeros that
//! mean nothing) is dropped, and what Kubernetes always writes (`status: {}`) is there. The API decides what a finding
//! means: in strict validation an error, in warn mode a Warning header, a wrong type always a 400.

mod json;
mod walk;

pub use json::{DEPTH_MAX, DUPLICATES_MAX, MAPS_MAX, check_bounds, parse_json, parse_value};
pub use walk::{Findings, Wrong, normalize, normalize_value};
pub(crate) use walk::{UNKNOWN_MAX, WRONG_MAX, named, push_index, push_key};

#[cfg(test)]
mod tests;
