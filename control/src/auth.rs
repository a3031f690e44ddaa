//! Who asks, and whether they may.
//!
//! The way of a request: [`Authenticator`] turns a verified client certificate or a bearer token into an [`Identity`];
//! [`impersonation`] exchanges it where the caller may act as another; [`Authorizer`] answers an [`Action`] with a
//! [`Decision`] from RBAC objects that it compiles once and keeps until one of them changes; a node's credential reads
//! the secrets of its own pods by [`node`]. The reviews by which a
//! client asks the same questions ([`review`]) and the rules against granting more than one has ([`escalation`]) are
//! pure functions over the same rules. Everything here reads objects through [`Lookup`], and nothing of it writes.

pub mod authenticator;
pub mod authorizer;
pub mod escalation;
pub mod identity;
pub mod impersonation;
pub mod lookup;
pub mod node;
pub mod policy;
pub mod review;
pub mod rules;
pub mod token;

pub use authenticator::Authenticator;
pub use authorizer::{Action, Authorizer, Decision};
pub use identity::Identity;
pub use lookup::Lookup;
pub use policy::Policy;
pub use token::Tokens;

#[cfg(test)]
pub(crate) mod objects;
#[cfg(test)]
mod tests;
