//! CEL, the Common Expression Language, as Kubernetes 1.36 uses it: pure, bounded, without a clock.
//!
//! The way of an expression: [`lexer`] and [`parser`] make an [`ast`] of its text; `check` finds its types, as cel-go does,
//! and makes a [`plan`] of it, in which names are places and macros are loops; [`estimate`] reckons the most that it can
//! cost; `eval` evaluates it and counts what it does cost (`price`, `meter`). An [`Env`] says which variables there are, a
//! [`Decl`] what is known of data before it is seen.
//!
//! Every bound has a name: an expression's characters and depth, an evaluation's cost, and the work and memory which that
//! cost does not see. The functions are in [`library`]; those of the authorizer, which only policies have, are not.

pub mod ast;
mod check;
pub mod data;
pub mod decl;
mod env;
pub mod escape;
pub mod estimate;
mod eval;
pub mod issues;
pub mod lexer;
pub mod library;
mod meter;
pub mod parser;
pub mod plan;
mod price;
#[cfg(test)]
mod tests;
pub mod types;
pub mod value;

pub use decl::{Decl, DeclKind, FieldDecl, ListDecl, ObjectDecl};
pub use env::{CompileError, Env, Program, Variable};
pub use eval::Evaluation;
pub use issues::Issues;
pub use meter::CALL_COST_MAX;
pub use types::Type;
pub use value::{Fault, Outcome, Value};
