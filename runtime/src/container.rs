//! Containers: what they may do ([`capabilities`], [`seccomp`], [`modules`]) and what they are made of ([`spec`]).

pub mod capabilities;
pub mod modules;
pub mod seccomp;
mod seccomp_file;
pub mod spec;
