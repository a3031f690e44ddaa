//! Who may do what, and whose token is worth nothing.

mod forgery;
mod node;
mod rbac;
