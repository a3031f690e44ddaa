//! Custom kinds: what a CustomResourceDefinition says of its objects, and what is done with them by it. Pure: schemas and values go
//! in, values and findings come out.
//!
//! [`Structural`] is a version's schema, compiled once. What comes in goes through [`normalize`] (what the schema does not know goes,
//! defaults come), then through [`validate`]. The rules are those of Kubernetes' documentation of structural schemas. [`definition`] is
//! the CustomResourceDefinition itself, [`names`] which of its names it gets, [`columns`] and [`scale`] what is read of its objects by
//! the [`path`]s that it names. How its objects merge is `apply`'s, how documents describe them `openapi`'s.

pub mod columns;
pub mod defaults;
pub mod definition;
pub mod names;
pub mod path;
pub mod pattern;
pub(crate) mod print;
mod prune;
pub mod rules;
pub mod scale;
mod structural;
pub mod validate;

pub use path::JsonPath;
pub use pattern::Pattern;
pub use prune::prune;
pub use rules::{Asked, Rules};
pub use structural::{
    Additional, CompileError, JsonType, NODES_MAX, Nested, PATTERNS_MAX_BYTES, Rule, SCHEMA_DEPTH_MAX, Structural,
    ValueValidation,
};

use crate::Object;
use crate::canonical::{Findings, Wrong};

#[cfg(test)]
pub(crate) mod tests;

/// Brings an object into the form that it is stored in, and names what was no part of it. What is stored is brought into it again
/// when it is read, as the schema may have changed; the findings mean nothing then.
pub fn normalize(schema: &Structural, object: &mut Object) -> Findings {
    let mut findings = prune(schema, object);
    if let Err(error) = defaults::fill(schema, &mut object.0) {
        findings.wrong.push(Wrong { path: String::new(), message: error.to_string() });
    }
    findings
}
