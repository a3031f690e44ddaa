//! Sandboxes: the namespaces of a pod ([`namespaces`]), its cgroup ([`cgroup`]) and the files that it gives to its
//! containers ([`files`]).

pub mod cgroup;
pub mod files;
pub mod namespaces;
