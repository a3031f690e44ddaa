//! Sandboxes: the namespaces of a pod ([`namespaces`]; that of its processes: [`processes`], of its users: [`users`]), its
//! cgroup ([`cgroup`]) and the files that it gives to its containers ([`files`]).

pub mod cgroup;
pub mod files;
pub mod namespaces;
pub mod processes;
pub mod users;
