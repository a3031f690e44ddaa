//! Containers: what they may do ([`capabilities`], [`seccomp`]) and what they are made of ([`spec`]).

pub mod capabilities;
pub mod seccomp;
mod seccomp_file;
pub mod spec;
