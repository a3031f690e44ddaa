//! Custom kinds: what a CustomResourceDefinition says of its objects, and what is done with them by it. Pure: schemas and values go
//! in, values and findings come out.
//!
//! [`Structural`] is a version's schema, compiled once. The rules are those of Kubernetes' documentation of structural schemas.

pub mod pattern;
mod structural;

pub use pattern::Pattern;
pub use structural::{
    Additional, CompileError, JsonType, NODES_MAX, Nested, PATTERNS_MAX, Rule, SCHEMA_DEPTH_MAX, Structural,
    ValueValidation,
};
