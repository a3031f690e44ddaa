//! The functions that expressions can call: the standard ones, cel-go's extensions and Kubernetes' own libraries, as far as
//! Kubernetes 1.36 has them for the rules of custom kinds. One file a library; each declares its functions in a table of
//! overloads, from which calls are typed, and one function of Rust that is called with the values.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::meter::Meter;
use super::price::Price;
use super::types::{Bindings, Opaque, Type};
use super::value::{Outcome, Value};

pub mod arith;
pub mod compare;
pub mod convert;
pub mod format;
pub mod lists;
pub mod net;
pub mod number;
pub mod optional;
pub mod pattern;
pub mod printf;
pub mod quantity;
pub mod semver;
pub mod sets;
pub mod strings;
#[cfg(test)]
mod tests;
pub mod time;
pub mod url;

/// A function under its name, with all its overloads.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub overloads: &'static [Overload],
    pub price: Price,
    /// The target of a method is the first value.
    pub run: Run,
}

pub type Run = for<'a> fn(&mut Meter, &[Value<'a>]) -> Outcome<'a>;

#[derive(Debug)]
pub struct Overload {
    /// Called as `x.f(y)`.
    pub member: bool,
    pub params: &'static [Sig],
    pub result: Sig,
}

/// A type in a declaration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sig {
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// Any type, the same one wherever it stands in the overload.
    A,
    B,
    List(&'static Sig),
    Map(&'static Sig, &'static Sig),
    Optional(&'static Sig),
    TypeOf(&'static Sig),
    Opaque(Opaque),
}

pub(super) const fn call(params: &'static [Sig], result: Sig) -> Overload {
    Overload { member: false, params, result }
}

pub(super) const fn method(params: &'static [Sig], result: Sig) -> Overload {
    Overload { member: true, params, result }
}

pub(super) const LIST: Sig = Sig::List(&Sig::A);
pub(super) const MAP: Sig = Sig::Map(&Sig::A, &Sig::B);
pub(super) const STRINGS: Sig = Sig::List(&Sig::String);
pub(super) const QUANTITY: Sig = Sig::Opaque(Opaque::Quantity);
pub(super) const URL: Sig = Sig::Opaque(Opaque::Url);
pub(super) const IP: Sig = Sig::Opaque(Opaque::Ip);
pub(super) const CIDR: Sig = Sig::Opaque(Opaque::Cidr);
pub(super) const SEMVER: Sig = Sig::Opaque(Opaque::Semver);
pub(super) const FORMAT: Sig = Sig::Opaque(Opaque::Format);

impl Sig {
    /// The type, with the variables of one call.
    pub fn instance(&self, a: &Type, b: &Type) -> Type {
        match self {
            Sig::Dyn => Type::Dyn,
            Sig::Bool => Type::Bool,
            Sig::Int => Type::Int,
            Sig::Uint => Type::Uint,
            Sig::Double => Type::Double,
            Sig::String => Type::String,
            Sig::Bytes => Type::Bytes,
            Sig::Duration => Type::Duration,
            Sig::Timestamp => Type::Timestamp,
            Sig::A => a.clone(),
            Sig::B => b.clone(),
            Sig::List(inner) => Type::list(inner.instance(a, b)),
            Sig::Map(key, value) => Type::map(key.instance(a, b), value.instance(a, b)),
            Sig::Optional(inner) => Type::optional(inner.instance(a, b)),
            Sig::TypeOf(inner) => Type::Type(Some(inner.instance(a, b).into())),
            Sig::Opaque(opaque) => Type::Opaque(*opaque),
        }
    }

    fn has_variable(&self) -> bool {
        match self {
            Sig::A | Sig::B => true,
            Sig::List(inner) | Sig::Optional(inner) | Sig::TypeOf(inner) => inner.has_variable(),
            Sig::Map(key, value) => key.has_variable() || value.has_variable(),
            _ => false,
        }
    }
}

impl Overload {
    /// Parameters and result for one call.
    pub fn instance(&self, bindings: &mut Bindings) -> (Vec<Type>, Type) {
        let generic = self.result.has_variable() || self.params.iter().any(Sig::has_variable);
        let (a, b) = if generic { (bindings.fresh(), bindings.fresh()) } else { (Type::Dyn, Type::Dyn) };
        (self.params.iter().map(|param| param.instance(&a, &b)).collect(), self.result.instance(&a, &b))
    }
}

const LIBRARIES: [&[Function]; 16] = [
    arith::FUNCTIONS,
    compare::FUNCTIONS,
    convert::FUNCTIONS,
    format::FUNCTIONS,
    format::CONSTANTS,
    lists::FUNCTIONS,
    net::FUNCTIONS,
    optional::FUNCTIONS,
    pattern::FUNCTIONS,
    printf::FUNCTIONS,
    quantity::FUNCTIONS,
    semver::FUNCTIONS,
    sets::FUNCTIONS,
    strings::FUNCTIONS,
    time::FUNCTIONS,
    url::FUNCTIONS,
];

/// The function of that name.
pub fn find(name: &str) -> Option<&'static Function> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Function>> =
        LazyLock::new(|| LIBRARIES.into_iter().flatten().map(|function| (function.name, function)).collect());
    BY_NAME.get(name).copied()
}
