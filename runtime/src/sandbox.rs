//! Sandboxes: the namespaces of a pod ([`namespaces`]) and the files that it gives to its containers ([`files`]).

pub mod files;
pub mod namespaces;
