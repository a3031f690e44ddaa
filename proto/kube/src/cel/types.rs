//! The types of expressions, and which may stand where another is asked for.
//!
//! Inference is that of cel-go: a variable of a declaration stands for one type in a call, and what it stands for is found
//! by unification, where `dyn` goes with anything.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::decl::{Decl, DeclKind};

/// Parts of one type; what lies beyond is `dyn`. Without a bound a short expression can have a type that no machine can hold.
const PARTS_MAX: u32 = 1_000;
/// Steps of inference for one expression: enough for the longest ones that are written, and an end for those that are made
/// to take for ever.
const STEPS_MAX: u32 = 10_000_000;

#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    Dyn,
    /// Of an expression that has a fault: it goes with anything, so that a fault is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// An object that a schema declares.
    Object(Arc<Decl>),
    Opaque(Opaque),
    /// A variable of inference.
    Var(u32),
}

/// Types with nothing to see but what functions tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    Quantity,
    Url,
    Ip,
    Cidr,
    Semver,
    Format,
}

impl Opaque {
    pub const ALL: [Opaque; 6] =
        [Opaque::Quantity, Opaque::Url, Opaque::Ip, Opaque::Cidr, Opaque::Semver, Opaque::Format];

    pub fn name(self) -> &'static str {
        match self {
            Opaque::Quantity => "kubernetes.Quantity",
            Opaque::Url => "kubernetes.URL",
            Opaque::Ip => "net.IP",
            Opaque::Cidr => "net.CIDR",
            Opaque::Semver => "kubernetes.Semver",
            Opaque::Format => "kubernetes.NamedFormat",
        }
    }
}

impl Type {
    pub fn list(of: Type) -> Type {
        Type::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    /// What an expression finds where data is declared so.
    pub fn of(decl: &Arc<Decl>) -> Type {
        match &decl.kind {
            DeclKind::Any | DeclKind::IntOrString => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Duration => Type::Duration,
            DeclKind::Date | DeclKind::DateTime => Type::Timestamp,
            DeclKind::List(list) => Type::list(Type::of(&list.items)),
            DeclKind::Map(values) => Type::map(Type::String, Type::of(values)),
            DeclKind::Object(_) => Type::Object(decl.clone()),
        }
    }

    /// The names of types in expressions.
    pub fn named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "type" => Type::Type(None),
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            _ => return Opaque::ALL.into_iter().find(|opaque| opaque.name() == name).map(Type::Opaque),
        })
    }

    /// The name by which `type(x)` prints, without the types of parts.
    pub fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Optional(_) => "optional_type",
            Type::Type(_) => "type",
            Type::Object(decl) => decl.object().map_or("object", |object| &object.name),
            Type::Opaque(opaque) => opaque.name(),
            Type::Var(_) => "dyn",
        }
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// What null may stand for.
    fn takes_null(&self) -> bool {
        matches!(
            self,
            Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Duration | Type::Timestamp
        )
    }

    /// Of a size that is known without the value.
    pub fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            Type::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }
}

/// The same type, part for part.
impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a == b,
            (Type::Map(a), Type::Map(b)) => a == b,
            (Type::Type(a), Type::Type(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b),
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Var(a), Type::Var(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => {
                write!(f, "{}({inner})", self.name())
            }
            Type::Map(pair) => write!(f, "map({}, {})", pair.0, pair.1),
            Type::Var(number) => write!(f, "_var{number}"),
            other => f.write_str(other.name()),
        }
    }
}

/// What the variables of inference stand for.
#[derive(Debug, Default)]
pub struct Bindings {
    bound: Vec<Option<Type>>,
    /// What a match has changed so far, with what was there before, so that one that fails is undone.
    trail: Vec<(u32, Option<Type>)>,
    steps: Cell<u32>,
}

impl Bindings {
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Var(self.bound.len() as u32 - 1)
    }

    fn get(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Var(number) => self.bound.get(*number as usize)?.as_ref(),
            _ => None,
        }
    }

    fn bind(&mut self, variable: &Type, ty: Type) {
        let Type::Var(number) = variable else { return };
        let before = self.bound[*number as usize].replace(ty);
        self.trail.push((*number, before));
    }

    /// Whether a value of the second type may stand where the first is asked for; if so, variables are bound by it.
    pub fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        self.attempt(|bindings| bindings.unify(to, from))
    }

    /// The same for a whole list of arguments, at once.
    pub fn all_assignable(&mut self, to: &[Type], from: &[Type]) -> bool {
        to.len() == from.len()
            && self.attempt(|bindings| to.iter().zip(from).all(|(to, from)| bindings.unify(to, from)))
    }

    fn attempt(&mut self, attempt: impl FnOnce(&mut Bindings) -> bool) -> bool {
        let matched = attempt(self);
        while let Some((number, before)) = self.trail.pop() {
            if !matched {
                self.bound[number as usize] = before;
            }
        }
        matched
    }

    /// Whether there is a step left.
    fn step(&self) -> bool {
        self.steps.set(self.steps.get().saturating_add(1));
        self.steps.get() < STEPS_MAX
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if !self.step() {
            return false;
        }
        if let Type::Var(_) = b {
            let (valid, bound) = self.substitute(a, b);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Var(_) = a {
            return self.substitute(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => other.takes_null(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (a, b) => a == b,
        }
    }

    /// Whether the variable may stand for the type, and whether it stood for one already.
    fn substitute(&mut self, ty: &Type, variable: &Type) -> (bool, bool) {
        if ty == variable {
            return (true, true);
        }
        if let Some(bound) = self.get(variable).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if self.unify(ty, &bound) {
                let general = more_general(ty, &bound).clone();
                if self.is_free_of(variable, &general) {
                    self.bind(variable, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.is_free_of(variable, ty) {
            self.bind(variable, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether the variable does not occur in the type.
    fn is_free_of(&self, variable: &Type, ty: &Type) -> bool {
        if variable == ty || !self.step() {
            return false;
        }
        match ty {
            Type::Var(_) => self.get(ty).is_none_or(|bound| self.is_free_of(variable, bound)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => self.is_free_of(variable, inner),
            Type::Map(pair) => self.is_free_of(variable, &pair.0) && self.is_free_of(variable, &pair.1),
            _ => true,
        }
    }

    /// The type with what variables stand for; those that stand for nothing stay.
    pub fn resolve(&self, ty: &Type) -> Type {
        self.walk(ty, false, &mut { PARTS_MAX })
    }

    /// The same, and what is still open is `dyn`.
    pub fn close(&self, ty: &Type) -> Type {
        self.walk(ty, true, &mut { PARTS_MAX })
    }

    fn walk(&self, ty: &Type, close: bool, left: &mut u32) -> Type {
        if *left == 0 {
            return Type::Dyn;
        }
        *left -= 1;
        match ty {
            Type::Var(_) => match self.get(ty) {
                Some(bound) => self.walk(bound, close, left),
                None if close => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(inner) => Type::list(self.walk(inner, close, left)),
            Type::Optional(inner) => Type::optional(self.walk(inner, close, left)),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.walk(inner, close, left)))),
            Type::Map(pair) => Type::map(self.walk(&pair.0, close, left), self.walk(&pair.1, close, left)),
            other => other.clone(),
        }
    }
}

/// The one of the two that says less.
pub fn more_general<'a>(a: &'a Type, b: &'a Type) -> &'a Type {
    if is_as_general(a, b) { a } else { b }
}

fn is_as_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => is_as_general(a, b),
        (Type::Map(a), Type::Map(b)) => is_as_general(&a.0, &b.0) && is_as_general(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
