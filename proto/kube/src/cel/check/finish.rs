//! The last look at a plan: types are final, literals are tried, and what is known is made once and for all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::issues::Issues;
use super::super::library::{lists, pattern, printf};
use super::super::meter::Meter;
use super::super::plan::{Call, Node, NodeKind};
use super::super::types::{Bindings, Type};
use super::super::value::{Fault, Key, Value};
use crate::custom::Pattern;

/// Conversions that are done at once where they are asked of a literal.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "dyn", "duration", "int", "string", "timestamp", "type", "uint"];

/// Finishes a plan without faults. The error is that of a conversion that can only fail.
pub(in super::super) fn finish(root: &mut Node, bindings: &Bindings, issues: &mut Issues) -> Result<(), Fault> {
    let mut finisher = Finisher { bindings, issues, fault: None };
    finisher.node(root, false);
    finisher.fault.map_or(Ok(()), Err)
}

struct Finisher<'a> {
    bindings: &'a Bindings,
    issues: &'a mut Issues,
    fault: Option<Fault>,
}

impl Finisher<'_> {
    /// `formatted`: below the arguments of a format, which may be of many types.
    fn node(&mut self, node: &mut Node, formatted: bool) {
        node.ty = self.bindings.close(&node.ty);
        let below = formatted || matches!(&node.kind, NodeKind::Call(call) if call.function.name == "format");
        node.children_mut(&mut |child| self.node(child, below));
        match &mut node.kind {
            NodeKind::List(elements) if !formatted => {
                let elements = elements.iter().map(|(optional, node)| (*optional, node));
                self.same_types(elements);
            }
            NodeKind::Map(entries) if !formatted => {
                self.same_types(entries.iter().map(|(_, [key, _])| (false, key)));
                self.same_types(entries.iter().map(|(optional, [_, value])| (*optional, value)));
            }
            NodeKind::Call(call) => self.call(call, &node.ty),
            _ => {}
        }
        self.fold_constants(node);
    }

    /// A literal has elements of one type.
    fn same_types<'n>(&mut self, elements: impl Iterator<Item = (bool, &'n Node)>) {
        let mut first: Option<Type> = None;
        for (optional, node) in elements {
            let ty = match &node.ty {
                Type::Optional(inner) if optional => (**inner).clone(),
                other => other.clone(),
            };
            match &first {
                None => first = Some(ty),
                Some(first) if *first != ty => {
                    self.issues.push(node.at, format!("expected type '{first}' but found '{ty}'"));
                    return;
                }
                Some(_) => {}
            }
        }
    }

    fn call(&mut self, call: &mut Call, result: &Type) {
        let name = call.function.name;
        match (name, call.args.as_slice()) {
            ("duration" | "timestamp", [arg]) if arg.literal().is_some() => {
                let value = arg.literal().cloned().unwrap_or(Value::Null);
                if (call.function.run)(&mut Meter::new(u64::MAX), &[value]).is_err() {
                    self.issues.push(arg.at, format!("invalid {name} argument"));
                }
            }
            ("format", [form, values]) => {
                if let (Some(Value::String(form_text)), NodeKind::List(values)) = (form.literal(), unfolded(values)) {
                    let form_text = form_text.to_string();
                    self.format(form.at, &form_text, values);
                }
            }
            ("sum", _) => call.function = lists::sum_of(result).unwrap_or(call.function),
            (_, [_, source, ..]) if pattern::takes_pattern(name) => {
                let Some(Value::String(text)) = source.literal() else { return };
                match Pattern::compile(text) {
                    Ok(pattern) => call.pattern = Some(Arc::new(pattern)),
                    Err(_) => self.issues.push(source.at, "invalid matches argument"),
                }
            }
            _ => {}
        }
    }

    /// A format that is a literal goes with its arguments.
    fn format(&mut self, at: u32, form: &str, values: &[(bool, Node)]) {
        let pieces = match printf::pieces(form) {
            Ok(pieces) => pieces,
            Err(why) => return self.issues.push(at, why),
        };
        let mut taken = 0;
        for piece in pieces {
            let printf::Piece::Clause(clause) = piece else { continue };
            let Some((_, value)) = values.get(taken) else {
                return self.issues.push(at, format!("index {taken} out of range"));
            };
            if let Some(bad) = refused(clause, value) {
                return self.issues.push(bad.at, clause.refusal(bad.ty.name()));
            }
            taken += 1;
        }
        if values.len() > taken {
            let message =
                format!("too many arguments supplied to string.format (expected {taken}, got {})", values.len());
            self.issues.push(at, message);
        }
    }

    fn fold_constants(&mut self, node: &mut Node) {
        let value = match &node.kind {
            NodeKind::List(elements) => elements
                .iter()
                .map(|(optional, element)| element.constant().filter(|_| !optional).cloned())
                .collect::<Option<Vec<_>>>()
                .map(Value::list),
            NodeKind::Map(entries) => map_of(entries),
            NodeKind::Call(call) if CONVERSIONS.contains(&call.function.name) => {
                let arg = call.args.first().and_then(Node::constant).filter(|_| call.args.len() == 1);
                match arg.map(|arg| (call.function.run)(&mut Meter::new(u64::MAX), std::slice::from_ref(arg))) {
                    Some(Err(fault)) => {
                        self.fault.get_or_insert(fault);
                        None
                    }
                    Some(Ok(value)) => Some(value),
                    None => None,
                }
            }
            _ => None,
        };
        if let Some(value) = value {
            let from = std::mem::replace(&mut node.kind, NodeKind::Constant(Value::Null));
            let from = Box::new(Node::new(node.at, node.ty.clone(), from));
            node.kind = NodeKind::Folded { value, from };
        } else if let Some(kind) = membership(node) {
            node.kind = kind;
        }
    }
}

/// What stood in the place of a literal before it was made.
fn unfolded(node: &Node) -> &NodeKind {
    match &node.kind {
        NodeKind::Folded { from, .. } => &from.kind,
        kind => kind,
    }
}

/// The value that a clause cannot print, by its type: the argument or a part of it.
fn refused(clause: printf::Clause, value: &Node) -> Option<&Node> {
    use printf::Clause;
    let fits = match (clause, &value.ty) {
        (_, Type::Dyn) => true,
        (Clause::String, ty) => !matches!(ty, Type::Object(_) | Type::Opaque(_) | Type::Optional(_)),
        (Clause::Decimal | Clause::Octal, ty) => matches!(ty, Type::Int | Type::Uint),
        (Clause::Fixed(_) | Clause::Scientific(_), ty) => matches!(ty, Type::Double | Type::String),
        (Clause::Binary, ty) => matches!(ty, Type::Int | Type::Uint | Type::Bool),
        (Clause::Hex { .. }, ty) => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes),
    };
    if !fits {
        return Some(value);
    }
    if clause != Clause::String {
        return None;
    }
    match unfolded(value) {
        NodeKind::List(elements) => elements.iter().find_map(|(_, element)| refused(clause, element)),
        NodeKind::Map(entries) => entries.iter().flat_map(|(_, entry)| entry).find_map(|part| refused(clause, part)),
        _ => None,
    }
}

/// A map of literals. One with a key twice is left to fail when it is evaluated.
fn map_of(entries: &[(bool, [Node; 2])]) -> Option<Value<'static>> {
    let mut map = BTreeMap::new();
    for (optional, [key, value]) in entries {
        let (key, value) = (Key::of(key.constant()?)?, value.constant().filter(|_| !optional)?.clone());
        if map.insert(key, value).is_some() {
            return None;
        }
    }
    Some(Value::map(map))
}

/// `x in [literals]`, if all of them can be looked up.
fn membership(node: &mut Node) -> Option<NodeKind> {
    let NodeKind::Call(call) = &mut node.kind else { return None };
    let [_, list] = call.args.as_slice() else { return None };
    let (true, Some(Value::List(items))) = (call.function.name == "@in", list.constant()) else { return None };
    let mut keys = BTreeMap::new();
    for item in items.iter() {
        let item = item.ok()?;
        keys.insert(Key::of(&item)?, Value::Null);
    }
    let mut args = std::mem::take(&mut call.args).into_iter();
    let (value, list) = (args.next()?, args.next()?);
    let ty = list.ty.clone();
    let kind = NodeKind::Folded { value: Value::map(keys), from: Box::new(list) };
    Some(NodeKind::InSet { value: Box::new(value), set: Box::new(Node::new(node.at, ty, kind)) })
}
