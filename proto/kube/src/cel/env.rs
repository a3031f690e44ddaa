//! What an expression can name, and the way from its text to a program.

use std::sync::Arc;

use super::check::{Checked, check, finish};
use super::decl::Decl;
use super::estimate::Estimate;
use super::eval::{Evaluation, evaluate};
use super::issues::Issues;
use super::parser::parse;
use super::plan::Node;
use super::types::Type;
use super::value::{Fault, Value};

/// The variables of an expression.
#[derive(Debug, Default)]
pub struct Env {
    variables: Vec<Variable>,
}

#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub ty: Type,
    /// What is known of its size.
    pub decl: Option<Arc<Decl>>,
}

/// Why an expression is no program.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompileError {
    #[error("{0}")]
    Issues(Issues),
    /// It would fail whatever its variables are.
    #[error("{0}")]
    Instantiation(Fault),
}

/// A compiled expression. It is shared by those who evaluate it.
#[derive(Debug)]
pub struct Program {
    root: Node,
    locals: usize,
    named: Vec<bool>,
    cost: Estimate,
}

impl Env {
    pub fn new() -> Env {
        Env::default()
    }

    /// Adds a variable; values are given in the order in which variables were added.
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Env {
        self.variables.push(Variable { name: name.to_owned(), ty, decl: None });
        self
    }

    /// Adds a variable that is read from JSON.
    #[must_use]
    pub fn declared(mut self, name: &str, decl: &Arc<Decl>) -> Env {
        self.variables.push(Variable { name: name.to_owned(), ty: Type::of(decl), decl: Some(decl.clone()) });
        self
    }

    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|variable| variable.name == name)
    }

    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let expr = parse(source).map_err(CompileError::Issues)?;
        let mut issues = Issues::new(source);
        let Checked { mut root, locals, bindings, named } = check(self, &expr, &mut issues);
        if !issues.is_empty() {
            return Err(CompileError::Issues(issues));
        }
        let made = finish(&mut root, &bindings, &mut issues);
        if !issues.is_empty() {
            return Err(CompileError::Issues(issues));
        }
        made.map_err(CompileError::Instantiation)?;
        let cost = Estimate::of(self, &root, locals);
        Ok(Program { root, locals, named, cost })
    }
}

impl Program {
    /// The type of what comes of it.
    pub fn ty(&self) -> &Type {
        &self.root.ty
    }

    /// Whether it names the variable of that place.
    pub fn names(&self, variable: usize) -> bool {
        self.named.get(variable) == Some(&true)
    }

    /// The most that an evaluation can cost, by what is known of the variables' sizes.
    pub fn cost_max(&self) -> u64 {
        self.cost.max
    }

    /// Evaluates it with these variables, up to a cost. A variable that has no value is missed only where it is named.
    pub fn evaluate<'a>(&self, variables: &[Option<Value<'a>>], cost_limit: u64) -> Evaluation<'a> {
        evaluate(&self.root, self.locals, variables, cost_limit)
    }
}
