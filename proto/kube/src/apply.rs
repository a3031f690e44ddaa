//! Server-side apply: which fields an object has, who owns them, and what becomes of an object when one of its owners says anew what
//! it wants of it. Pure: values and the schema go in. The rules are those of Kubernetes' documentation of server-side apply, and of
//! the merge of its structured values: maps and structs merge field by field, lists by what the schema says of them (atomic, a set,
//! a map by keys), and whatever is atomic belongs to one owner as a whole.

mod custom;
mod fields;
mod typed;

pub use fields::{Fields, PATHS_MAX};
pub use typed::{Changes, Typed, compare, compare_objects, in_canonical_values, merge, prune};

#[cfg(test)]
mod tests;
