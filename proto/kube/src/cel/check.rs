//! From an expression to a plan: names are resolved, calls are typed, macros become loops. Types are found as cel-go finds them,
//! and faults are worded as it words them.

use std::sync::Arc;

use super::ast::{Element, Entry, Expr, ExprKind, Literal, Logic};
use super::env::Env;
use super::issues::Issues;
use super::library::{self, Function, optional};
use super::plan::{Call, Node, NodeKind};
use super::types::{Bindings, Type, more_general};
use super::value::Value;

mod finish;
mod macros;

pub(super) use finish::finish;

/// What checking finds beside the plan.
pub(super) struct Checked {
    pub root: Node,
    /// Places for the variables of macros.
    pub locals: usize,
    pub bindings: Bindings,
    /// Which variables of the environment are named, by their places.
    pub named: Vec<bool>,
}

struct Checker<'e> {
    env: &'e Env,
    issues: &'e mut Issues,
    bindings: Bindings,
    scope: Vec<Local>,
    locals: usize,
    named: Vec<bool>,
}

struct Local {
    name: String,
    place: usize,
    ty: Type,
}

/// The plan of an expression, as far as it has one: what has a fault has the type of faults.
pub(super) fn check(env: &Env, expr: &Expr, issues: &mut Issues) -> Checked {
    let named = vec![false; env.variables().len()];
    let mut checker = Checker { env, issues, bindings: Bindings::default(), scope: Vec::new(), locals: 0, named };
    let root = checker.expr(expr);
    Checked { root, locals: checker.locals, bindings: checker.bindings, named: checker.named }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            ExprKind::Literal(literal) => self.literal(expr.at, literal),
            ExprKind::Ident(name) => self.ident(expr.at, name),
            ExprKind::Select { operand, field, optional } => self.select(expr, operand, field, *optional),
            ExprKind::Index { operand, index, optional } => self.index(expr.at, operand, index, *optional),
            ExprKind::Call { target, name, args } => self.call(expr.at, target.as_deref(), name, args),
            ExprKind::Unary { op, operand } => {
                let args = vec![self.expr(operand)];
                self.resolve(expr.at, op.function(), false, args)
            }
            ExprKind::Binary { op, operands } => {
                let args = operands.iter().map(|operand| self.expr(operand)).collect();
                self.resolve(expr.at, op.function(), false, args)
            }
            ExprKind::Logic { op, terms } => self.logic(expr.at, *op, terms),
            ExprKind::Ternary(parts) => self.ternary(expr.at, parts),
            ExprKind::List(elements) => self.list(expr.at, elements),
            ExprKind::Map(entries) => self.map(expr.at, entries),
            ExprKind::Message { name, .. } => match Type::named(name) {
                Some(_) => self.fault(expr.at, format!("'{name}' is not a message type")),
                None => self.fault(expr.at, undeclared(name)),
            },
        }
    }

    fn fault(&mut self, at: u32, message: impl Into<String>) -> Node {
        self.issues.push(at, message);
        Node::new(at, Type::Error, NodeKind::Constant(Value::Null))
    }

    fn mismatch(&mut self, at: u32, expected: &Type, found: &Type) {
        let (expected, found) = (self.bindings.resolve(expected), self.bindings.resolve(found));
        self.issues.push(at, format!("expected type '{expected}' but found '{found}'"));
    }

    fn literal(&mut self, at: u32, literal: &Literal) -> Node {
        let (ty, value) = match literal {
            Literal::Null => (Type::Null, Value::Null),
            Literal::Bool(value) => (Type::Bool, Value::Bool(*value)),
            Literal::Int(number) => (Type::Int, Value::Int(*number)),
            Literal::Uint(number) => (Type::Uint, Value::Uint(*number)),
            Literal::Double(number) => (Type::Double, Value::Double(*number)),
            Literal::String(text) => (Type::String, Value::text(text.as_str())),
            Literal::Bytes(bytes) => (Type::Bytes, Value::Bytes(bytes.as_slice().into())),
        };
        Node::new(at, ty, NodeKind::Constant(value))
    }

    fn ident(&mut self, at: u32, name: &str) -> Node {
        // A leading dot looks past what macros name.
        let plain = name.strip_prefix('.');
        if plain.is_none()
            && let Some(local) = self.scope.iter().rev().find(|local| local.name == name)
        {
            return Node::new(at, local.ty.clone(), NodeKind::Local(local.place));
        }
        let plain = plain.unwrap_or(name);
        if let Some(place) = self.env.place(plain) {
            self.named[place] = true;
            return Node::new(at, self.env.variables()[place].ty.clone(), NodeKind::Variable(place));
        }
        self.type_name(at, plain).unwrap_or_else(|| self.fault(at, undeclared(name)))
    }

    fn type_name(&self, at: u32, name: &str) -> Option<Node> {
        let ty = Type::named(name)?;
        let value = Value::from(ty.clone());
        Some(Node::new(at, Type::Type(Some(Arc::new(ty))), NodeKind::Constant(value)))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Node {
        if let Some(node) = expr.qualified_name().and_then(|name| self.type_name(expr.at, &name)) {
            return node;
        }
        let operand = self.expr(operand);
        let ty = self.field_type(expr.at, &operand, field, optional);
        Node::new(expr.at, ty, NodeKind::Select { operand: Box::new(operand), field: field.into(), optional })
    }

    fn field_type(&mut self, at: u32, operand: &Node, field: &str, optional: bool) -> Type {
        let operand = self.bindings.resolve(&operand.ty);
        let (target, was_optional) = match &operand {
            Type::Optional(inner) => (&**inner, true),
            other => (other, false),
        };
        let ty = match target {
            Type::Map(pair) => pair.1.clone(),
            Type::Object(decl) => {
                let known = decl.object().and_then(|object| object.fields.get(field));
                match known {
                    Some(field) => Type::of(&field.decl),
                    None => {
                        self.issues.push(at, format!("undefined field '{field}'"));
                        Type::Error
                    }
                }
            }
            Type::Var(_) => {
                self.bindings.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.issues.push(at, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(ty) } else { ty }
    }

    fn index(&mut self, at: u32, operand: &Expr, index: &Expr, optional: bool) -> Node {
        let operands = [self.expr(operand), self.expr(index)];
        let name = if optional { optional::OPTIONAL_INDEX } else { optional::INDEX };
        let Some(function) = library::find(name) else { return self.fault(at, undeclared(name)) };
        match self.overloads(at, function, false, &operands) {
            Some((_, ty)) => Node::new(at, ty, NodeKind::Index { operands: Box::new(operands), optional }),
            None => Node::new(at, Type::Error, NodeKind::Constant(Value::Null)),
        }
    }

    fn call(&mut self, at: u32, target: Option<&Expr>, name: &str, args: &[Expr]) -> Node {
        if let Some(node) = self.expand(at, target, name, args) {
            return node;
        }
        let mut nodes: Vec<Node> = args.iter().map(|arg| self.expr(arg)).collect();
        let Some(target) = target else {
            return self.resolve(at, name.strip_prefix('.').unwrap_or(name), false, nodes);
        };
        // `strings.quote(x)` has a function whose name has a dot, and no target.
        let qualified = target.qualified_name().map(|prefix| format!("{prefix}.{name}"));
        if let Some(qualified) = qualified.filter(|name| library::find(name).is_some()) {
            return self.resolve(at, &qualified, false, nodes);
        }
        nodes.insert(0, self.expr(target));
        self.resolve(at, name, true, nodes)
    }

    /// A call of the function of that name.
    fn resolve(&mut self, at: u32, name: &str, member: bool, args: Vec<Node>) -> Node {
        let Some(function) = library::find(name) else { return self.fault(at, undeclared(name)) };
        let Some((overloads, ty)) = self.overloads(at, function, member, &args) else {
            return Node::new(at, Type::Error, NodeKind::Constant(Value::Null));
        };
        if member && matches!(name, optional::OR | optional::OR_VALUE) {
            let value = name == optional::OR_VALUE;
            return match <[Node; 2]>::try_from(args) {
                Ok(operands) => Node::new(at, ty, NodeKind::OptionalOr { operands: Box::new(operands), value }),
                Err(_) => self.fault(at, undeclared(name)),
            };
        }
        let call = Call { function, overloads, member, args, pattern: None };
        Node::new(at, ty, NodeKind::Call(Box::new(call)))
    }

    /// The overloads that take these arguments, and the type that comes of them: `dyn` if they differ in it.
    fn overloads(&mut self, at: u32, function: &Function, member: bool, args: &[Node]) -> Option<(Vec<usize>, Type)> {
        let types: Vec<Type> = args.iter().map(|arg| arg.ty.clone()).collect();
        let (mut matching, mut result) = (Vec::new(), None::<Type>);
        for (index, overload) in function.overloads.iter().enumerate() {
            if overload.member != member || overload.params.len() != types.len() {
                continue;
            }
            let (params, returned) = overload.instance(&mut self.bindings);
            // The argument comes first: what it is asked for may be wider.
            if !self.bindings.all_assignable(&types, &params) {
                continue;
            }
            matching.push(index);
            let returned = self.bindings.resolve(&returned);
            result = Some(match result {
                Some(before) if !before.is_dyn() && before != returned => Type::Dyn,
                Some(before) => before,
                None => returned,
            });
        }
        if result.is_none() {
            let message = self.no_overload(function.name, member, &types);
            self.issues.push(at, message);
        }
        Some((matching, result?))
    }

    fn no_overload(&self, name: &str, member: bool, types: &[Type]) -> String {
        let mut shown: Vec<String> = types.iter().map(|ty| self.bindings.close(ty).to_string()).collect();
        let target = if member && !shown.is_empty() { format!("{}.", shown.remove(0)) } else { String::new() };
        format!("found no matching overload for '{name}' applied to '{target}({})'", shown.join(", "))
    }

    fn logic(&mut self, at: u32, op: Logic, terms: &[Expr]) -> Node {
        let terms: Vec<Node> = terms.iter().map(|term| self.expr(term)).collect();
        for term in &terms {
            self.must_be_bool(term);
        }
        let kind = if op == Logic::And { NodeKind::And(terms) } else { NodeKind::Or(terms) };
        Node::new(at, Type::Bool, kind)
    }

    fn must_be_bool(&mut self, node: &Node) {
        if !self.bindings.assignable(&node.ty, &Type::Bool) {
            self.mismatch(node.at, &Type::Bool, &node.ty);
        }
    }

    fn ternary(&mut self, at: u32, parts: &[Expr; 3]) -> Node {
        let parts = [self.expr(&parts[0]), self.expr(&parts[1]), self.expr(&parts[2])];
        match self.choice(at, &parts[0].ty, &parts[1].ty, &parts[2].ty) {
            Some(ty) => Node::new(at, ty, NodeKind::Ternary(Box::new(parts))),
            None => Node::new(at, Type::Error, NodeKind::Constant(Value::Null)),
        }
    }

    /// The type of `condition ? yes : no`.
    fn choice(&mut self, at: u32, condition: &Type, yes: &Type, no: &Type) -> Option<Type> {
        let ty = self.bindings.fresh();
        let types = [condition.clone(), yes.clone(), no.clone()];
        if self.bindings.all_assignable(&types, &[Type::Bool, ty.clone(), ty.clone()]) {
            return Some(self.bindings.resolve(&ty));
        }
        let message = self.no_overload("_?_:_", false, &types);
        self.issues.push(at, message);
        None
    }

    fn list(&mut self, at: u32, elements: &[Element]) -> Node {
        let mut joined = None;
        let mut nodes = Vec::with_capacity(elements.len());
        for element in elements {
            let node = self.expr(&element.value);
            let ty = self.element_type(&node, element.optional);
            joined = Some(self.join(joined, ty));
            nodes.push((element.optional, node));
        }
        let of = joined.unwrap_or_else(|| self.bindings.fresh());
        Node::new(at, Type::list(of), NodeKind::List(nodes))
    }

    fn map(&mut self, at: u32, entries: &[Entry]) -> Node {
        let (mut keys, mut values) = (None, None);
        let mut nodes = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, value) = (self.expr(&entry.key), self.expr(&entry.value));
            let ty = self.element_type(&value, entry.optional);
            keys = Some(self.join(keys, key.ty.clone()));
            values = Some(self.join(values, ty));
            nodes.push((entry.optional, [key, value]));
        }
        let key = keys.unwrap_or_else(|| self.bindings.fresh());
        let value = values.unwrap_or_else(|| self.bindings.fresh());
        Node::new(at, Type::map(key, value), NodeKind::Map(nodes))
    }

    /// What an element adds to the type of a literal; an optional one what it holds.
    fn element_type(&mut self, node: &Node, optional: bool) -> Type {
        if !optional {
            return node.ty.clone();
        }
        match self.bindings.resolve(&node.ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.mismatch(node.at, &Type::optional(other.clone()), &other);
                other
            }
        }
    }

    fn join(&mut self, before: Option<Type>, ty: Type) -> Type {
        match before {
            None => ty,
            Some(before) if self.bindings.assignable(&before, &ty) => more_general(&before, &ty).clone(),
            Some(_) => Type::Dyn,
        }
    }
}
