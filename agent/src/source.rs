//! Where pods come from, beside the API: manifests in a folder, and what was admitted before a restart.

pub mod checkpoint;
pub mod files;
pub mod mirror;
