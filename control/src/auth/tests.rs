//! Who may do what, and whose token is worth nothing.

mod forgery;
mod impersonation;
mod node;
mod rbac;
