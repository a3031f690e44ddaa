//! Custom kinds: what the CustomResourceDefinitions of the store bring, as the API serves it.
//!
//! A definition is compiled once for each of its revisions ([`Definition`]); [`Kinds`] is all that is served now, a function of
//! the definitions in the cache that is made anew when one of them has changed since it was last asked. So whoever has seen a
//! definition established finds its kind served, on every API server, and there is no state beside the store's.
//!
//! The verbs of the registry carry out what is asked of custom kinds as of all others. They work in the version that a
//! request names; [`conversion`] reads stored objects into it and writes them back into the version that is stored.

pub mod conversion;
mod definition;
mod kinds;
mod object;
mod prepared;

pub use definition::{Definition, TERMINATING, Version, names_of};
pub use kinds::{Custom, Kinds, Table};
pub use prepared::{json, prepared};
