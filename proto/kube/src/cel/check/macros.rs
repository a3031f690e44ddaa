//! Macros: calls that name a variable and say what is done with it.

use super::super::ast::{Expr, ExprKind};
use super::super::library::lists;
use super::super::plan::{Fold, Node, NodeKind, Step};
use super::super::types::Type;
use super::super::value::Value;
use super::{Checker, Local};

/// Names that cannot be given to variables, for upstream's loops have them.
const ACCUMULATOR: &str = "__result__";
const NOT_A_NAME: &str = "argument must be a simple name";

impl Checker<'_> {
    /// The plan of a call that is a macro; None for one that is none.
    pub(super) fn expand(&mut self, at: u32, target: Option<&Expr>, name: &str, args: &[Expr]) -> Option<Node> {
        let Some(target) = target else {
            return match (name, args) {
                ("has", [arg]) => Some(self.has(at, arg)),
                _ => None,
            };
        };
        Some(match (name, args) {
            ("all" | "exists" | "exists_one" | "existsOne", [v, test]) => {
                self.fold(at, target, &[v], NOT_A_NAME, |checker| checker.quantifier(at, name, test))
            }
            ("all" | "exists" | "exists_one" | "existsOne", [v1, v2, test]) => {
                self.fold(at, target, &[v1, v2], NOT_A_NAME, |checker| checker.quantifier(at, name, test))
            }
            ("map", [v, value]) => self.map_macro(at, target, v, None, value),
            ("map", [v, filter, value]) => self.map_macro(at, target, v, Some(filter), value),
            ("filter", [v, test]) => self.filter_macro(at, target, v, test),
            ("transformList", [v1, v2, value]) => self.transform_list(at, target, [v1, v2], None, value),
            ("transformList", [v1, v2, filter, value]) => {
                self.transform_list(at, target, [v1, v2], Some(filter), value)
            }
            ("transformMap", [v1, v2, value]) => self.transform_map(at, target, [v1, v2], None, value),
            ("transformMap", [v1, v2, filter, value]) => self.transform_map(at, target, [v1, v2], Some(filter), value),
            ("transformMapEntry", [v1, v2, entry]) => self.transform_entries(at, target, [v1, v2], None, entry),
            ("transformMapEntry", [v1, v2, filter, entry]) => {
                self.transform_entries(at, target, [v1, v2], Some(filter), entry)
            }
            ("optMap", [v, body]) => self.optional_map(at, target, v, body, false),
            ("optFlatMap", [v, body]) => self.optional_map(at, target, v, body, true),
            ("sortBy", [v, key]) => self.sort_by(at, target, v, key),
            _ => return None,
        })
    }

    fn has(&mut self, at: u32, arg: &Expr) -> Node {
        let ExprKind::Select { operand, field, optional: false } = &arg.kind else {
            return self.fault(arg.at, "invalid argument to has() macro");
        };
        let operand = self.expr(operand);
        self.field_type(arg.at, &operand, field, false);
        Node::new(at, Type::Bool, NodeKind::Has { operand: Box::new(operand), field: field.as_str().into() })
    }

    /// The names of the variables, which differ, and of which none is upstream's own.
    fn names(&mut self, args: &[&Expr], complaint: &str) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for arg in args {
            let ExprKind::Ident(name) = &arg.kind else {
                self.issues.push(arg.at, complaint);
                return None;
            };
            if names.contains(name) {
                self.issues.push(arg.at, format!("duplicate variable name: {name}"));
                return None;
            }
            if name == ACCUMULATOR {
                self.issues.push(arg.at, "iteration variable overwrites accumulator variable");
                return None;
            }
            names.push(name.clone());
        }
        Some(names)
    }

    fn push(&mut self, name: String, ty: Type) -> usize {
        let place = self.locals;
        self.locals += 1;
        self.scope.push(Local { name, place, ty });
        place
    }

    /// A loop over a list or a map; `step` is checked where the variables are known, and says the type of the whole.
    fn fold(
        &mut self,
        at: u32,
        target: &Expr,
        variables: &[&Expr],
        complaint: &str,
        step: impl FnOnce(&mut Self) -> Option<(Step, Type)>,
    ) -> Node {
        let Some(names) = self.names(variables, complaint) else {
            return Node::new(at, Type::Error, NodeKind::Constant(Value::Null));
        };
        let range = self.expr(target);
        let types = self.range_types(&range, names.len() == 2);
        let places: Vec<usize> = names.into_iter().zip(types).map(|(name, ty)| self.push(name, ty)).collect();
        let step = step(self);
        self.scope.truncate(self.scope.len() - places.len());
        let Some((step, ty)) = step else {
            return Node::new(at, Type::Error, NodeKind::Constant(Value::Null));
        };
        let fold = Fold { range, local: places[0], second: places.get(1).copied(), step };
        Node::new(at, ty, NodeKind::Fold(Box::new(fold)))
    }

    /// The types of the variables of a loop over that.
    fn range_types(&mut self, range: &Node, two: bool) -> [Type; 2] {
        let ty = self.bindings.resolve(&range.ty);
        match &ty {
            Type::List(element) if two => [Type::Int, (**element).clone()],
            Type::List(element) => [(**element).clone(), Type::Dyn],
            Type::Map(pair) => [pair.0.clone(), pair.1.clone()],
            Type::Dyn | Type::Error => [Type::Dyn, Type::Dyn],
            Type::Var(_) => {
                self.bindings.assignable(&Type::Dyn, &ty);
                [Type::Dyn, Type::Dyn]
            }
            _ => {
                let message = format!(
                    "expression of type '{ty}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issues.push(range.at, message);
                [Type::Error, Type::Error]
            }
        }
    }

    fn quantifier(&mut self, at: u32, name: &str, test: &Expr) -> Option<(Step, Type)> {
        let test = self.expr(test);
        let step = match name {
            "all" | "exists" => {
                self.must_be_bool(&test);
                if name == "all" { Step::All(test) } else { Step::Exists(test) }
            }
            _ => {
                self.choice(at, &test.ty, &Type::Int, &Type::Int)?;
                Step::ExistsOne(test)
            }
        };
        Some((step, Type::Bool))
    }

    fn map_macro(&mut self, at: u32, target: &Expr, v: &Expr, filter: Option<&Expr>, value: &Expr) -> Node {
        self.fold(at, target, &[v], "argument is not an identifier", |checker| checker.listed(at, filter, value))
    }

    fn transform_list(&mut self, at: u32, target: &Expr, vs: [&Expr; 2], filter: Option<&Expr>, value: &Expr) -> Node {
        self.fold(at, target, &vs, NOT_A_NAME, |checker| checker.listed(at, filter, value))
    }

    fn listed(&mut self, at: u32, filter: Option<&Expr>, value: &Expr) -> Option<(Step, Type)> {
        let filter = filter.map(|filter| self.expr(filter));
        let value = self.expr(value);
        let ty = Type::list(value.ty.clone());
        if let Some(filter) = &filter {
            self.choice(at, &filter.ty, &ty, &ty)?;
        }
        Some((Step::List { filter, value }, ty))
    }

    fn filter_macro(&mut self, at: u32, target: &Expr, v: &Expr, test: &Expr) -> Node {
        self.fold(at, target, &[v], "argument is not an identifier", |checker| {
            let test = checker.expr(test);
            let value = checker.expr(v);
            let ty = Type::list(value.ty.clone());
            checker.choice(at, &test.ty, &ty, &ty)?;
            Some((Step::List { filter: Some(test), value }, ty))
        })
    }

    fn transform_map(&mut self, at: u32, target: &Expr, vs: [&Expr; 2], filter: Option<&Expr>, value: &Expr) -> Node {
        self.fold(at, target, &vs, NOT_A_NAME, |checker| {
            let filter = filter.map(|filter| checker.expr(filter));
            let key = checker.expr(vs[0]);
            let value = checker.expr(value);
            let ty = Type::map(key.ty, value.ty.clone());
            if let Some(filter) = &filter {
                checker.choice(at, &filter.ty, &ty, &ty)?;
            }
            Some((Step::Map { filter, value }, ty))
        })
    }

    fn transform_entries(
        &mut self,
        at: u32,
        target: &Expr,
        vs: [&Expr; 2],
        filter: Option<&Expr>,
        entry: &Expr,
    ) -> Node {
        self.fold(at, target, &vs, NOT_A_NAME, |checker| {
            let filter = filter.map(|filter| checker.expr(filter));
            let entry = checker.expr(entry);
            let ty = Type::map(checker.bindings.fresh(), checker.bindings.fresh());
            if !checker.bindings.assignable(&ty, &entry.ty) {
                let message = checker.no_overload("cel.@mapInsert", false, &[ty, entry.ty]);
                checker.issues.push(at, message);
                return None;
            }
            if let Some(filter) = &filter {
                checker.choice(at, &filter.ty, &ty, &ty)?;
            }
            let ty = checker.bindings.resolve(&ty);
            Some((Step::Entries { filter, entry }, ty))
        })
    }

    fn optional_map(&mut self, at: u32, target: &Expr, v: &Expr, body: &Expr, flat: bool) -> Node {
        let complaint =
            format!("{}() variable name must be a simple identifier", if flat { "optFlatMap" } else { "optMap" });
        let fault = Node::new(at, Type::Error, NodeKind::Constant(Value::Null));
        let Some(names) = self.names(&[v], &complaint) else { return fault };
        let target = self.expr(target);
        let inner = self.bindings.fresh();
        if !self.bindings.assignable(&target.ty, &Type::optional(inner.clone())) {
            let message = self.no_overload("hasValue", true, &[target.ty]);
            return self.fault(at, message);
        }
        let inner = self.bindings.resolve(&inner);
        let place = names.into_iter().map(|name| self.push(name, inner.clone())).next().unwrap_or_default();
        let body = self.expr(body);
        self.scope.pop();
        let made = if flat { body.ty.clone() } else { Type::optional(body.ty.clone()) };
        let none = Type::optional(self.bindings.fresh());
        let Some(ty) = self.choice(at, &Type::Bool, &made, &none) else { return fault };
        let kind = NodeKind::OptionalMap { target: Box::new(target), local: place, body: Box::new(body), flat };
        Node::new(at, ty, kind)
    }

    /// The list is named, so that it can be gone through for its keys and be sorted by them.
    fn sort_by(&mut self, at: u32, target: &Expr, v: &Expr, key: &Expr) -> Node {
        let named = matches!(
            target.kind,
            ExprKind::List(_)
                | ExprKind::Select { .. }
                | ExprKind::Ident(_)
                | ExprKind::Call { .. }
                | ExprKind::Index { .. }
                | ExprKind::Binary { .. }
                | ExprKind::Ternary(_)
        );
        if !named {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return self.fault(target.at, message);
        }
        let list = self.expr(target);
        // No expression can say the name.
        let input = "@list".to_owned();
        let place = self.push(input.clone(), list.ty.clone());
        let again = Expr { at: target.at, depth: 1, kind: ExprKind::Ident(input) };
        let keys = self.map_macro(at, &again, v, None, key);
        let again = self.expr(&again);
        let call = self.resolve(at, lists::SORT_BY_KEYS, true, vec![again, keys]);
        self.scope.pop();
        let ty = call.ty.clone();
        Node::new(at, ty, NodeKind::SortBy { target: Box::new(list), local: place, call: Box::new(call) })
    }
}
