//! What the kernel's network speaks, in safe Rust: nf_tables in atomic batches, links, addresses, routes and neighbours,
//! and the conntrack table. It is what `runtime` (the pod network) and `netproxy` (services) share, and nothing more:
//! no policy, no names of ours, no async. Every call is one round trip on a socket that belongs to the network namespace
//! of the thread that opened it.
//!
//! Messages are written straight into one buffer and read in place. The crates for this were tried first: half of the
//! expressions that the rules need (nat, numgen, fib, ct, dynset, reject, masq) are raw attributes there too, and a dump
//! fails as a whole on the first attribute that they do not know.

#![forbid(unsafe_code)]

mod error;
pub mod message;
mod socket;

pub mod conntrack;
pub mod nft;
pub mod route;

pub use error::Error;
