//! A checked expression: names are places, calls are functions, macros are loops. It is what is evaluated, and by what its
//! greatest cost is reckoned.

use std::sync::Arc;

use super::library::Function;
use super::types::Type;
use super::value::Value;
use crate::custom::Pattern;

#[derive(Debug)]
pub struct Node {
    /// The character of the source that errors about it point to.
    pub at: u32,
    pub ty: Type,
    pub kind: NodeKind,
}

#[derive(Debug)]
pub enum NodeKind {
    Constant(Value<'static>),
    /// A list or a map of literals, or a conversion of one, made once: it costs nothing when it is evaluated.
    Folded {
        value: Value<'static>,
        from: Box<Node>,
    },
    /// A variable of the environment.
    Variable(usize),
    /// A variable of a macro.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Node>,
        field: Arc<str>,
    },
    Index {
        operands: Box<[Node; 2]>,
        optional: bool,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
    Ternary(Box<[Node; 3]>),
    Call(Box<Call>),
    /// `x in [literals]`, where the literals are looked up and not gone through.
    InSet {
        value: Box<Node>,
        set: Box<Node>,
    },
    /// `a.or(b)`, or `a.orValue(b)`.
    OptionalOr {
        operands: Box<[Node; 2]>,
        value: bool,
    },
    List(Vec<(bool, Node)>),
    Map(Vec<(bool, [Node; 2])>),
    Fold(Box<Fold>),
    /// `target.optMap(local, body)`, or `optFlatMap`, whose body is optional itself.
    OptionalMap {
        target: Box<Node>,
        local: usize,
        body: Box<Node>,
        flat: bool,
    },
    /// `target.sortBy(local, key)`: the list, and the list of its keys.
    SortBy {
        target: Box<Node>,
        local: usize,
        call: Box<Node>,
    },
}

#[derive(Debug)]
pub struct Call {
    pub function: &'static Function,
    /// The overloads that may be meant, by their places in the function's table.
    pub overloads: Vec<usize>,
    pub member: bool,
    /// The target of a method first.
    pub args: Vec<Node>,
    /// Of a literal.
    pub pattern: Option<Arc<Pattern>>,
}

/// A macro over a list or a map.
#[derive(Debug)]
pub struct Fold {
    pub range: Node,
    /// The element of a list, the key of a map; with a second variable the index of a list.
    pub local: usize,
    /// The element of a list or the value of a map.
    pub second: Option<usize>,
    pub step: Step,
}

/// What is done with each element.
#[derive(Debug)]
pub enum Step {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    /// Elements that the filter lets through, as what they are made to.
    List {
        filter: Option<Node>,
        value: Node,
    },
    /// The key with a new value.
    Map {
        filter: Option<Node>,
        value: Node,
    },
    /// Entries of their own.
    Entries {
        filter: Option<Node>,
        entry: Node,
    },
}

impl Node {
    pub fn new(at: u32, ty: Type, kind: NodeKind) -> Node {
        Node { at, ty, kind }
    }

    /// The value, where it is known before anything is evaluated.
    pub fn constant(&self) -> Option<&Value<'static>> {
        match &self.kind {
            NodeKind::Constant(value) | NodeKind::Folded { value, .. } => Some(value),
            _ => None,
        }
    }

    /// A literal.
    pub fn literal(&self) -> Option<&Value<'static>> {
        match &self.kind {
            NodeKind::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Shows every part that stands right below.
    pub fn children<'n>(&'n self, see: &mut dyn FnMut(&'n Node)) {
        match &self.kind {
            NodeKind::Constant(_) | NodeKind::Folded { .. } | NodeKind::Variable(_) | NodeKind::Local(_) => {}
            NodeKind::Select { operand, .. } | NodeKind::Has { operand, .. } => see(operand),
            NodeKind::Index { operands, .. } | NodeKind::OptionalOr { operands, .. } => operands.iter().for_each(see),
            NodeKind::And(terms) | NodeKind::Or(terms) => terms.iter().for_each(see),
            NodeKind::Ternary(parts) => parts.iter().for_each(see),
            NodeKind::Call(call) => call.args.iter().for_each(see),
            NodeKind::InSet { value, set } => [value, set].into_iter().for_each(|node| see(node)),
            NodeKind::List(elements) => elements.iter().for_each(|(_, element)| see(element)),
            NodeKind::Map(entries) => entries.iter().flat_map(|(_, entry)| entry).for_each(see),
            NodeKind::Fold(fold) => {
                see(&fold.range);
                fold.step.parts().into_iter().for_each(see);
            }
            NodeKind::OptionalMap { target, body, .. } => [target, body].into_iter().for_each(|node| see(node)),
            NodeKind::SortBy { target, call, .. } => [target, call].into_iter().for_each(|node| see(node)),
        }
    }

    /// The same, to change them.
    pub fn children_mut(&mut self, see: &mut dyn FnMut(&mut Node)) {
        match &mut self.kind {
            NodeKind::Constant(_) | NodeKind::Folded { .. } | NodeKind::Variable(_) | NodeKind::Local(_) => {}
            NodeKind::Select { operand, .. } | NodeKind::Has { operand, .. } => see(operand),
            NodeKind::Index { operands, .. } | NodeKind::OptionalOr { operands, .. } => {
                operands.iter_mut().for_each(see)
            }
            NodeKind::And(terms) | NodeKind::Or(terms) => terms.iter_mut().for_each(see),
            NodeKind::Ternary(parts) => parts.iter_mut().for_each(see),
            NodeKind::Call(call) => call.args.iter_mut().for_each(see),
            NodeKind::InSet { value, set } => [value, set].into_iter().for_each(|node| see(node)),
            NodeKind::List(elements) => elements.iter_mut().for_each(|(_, element)| see(element)),
            NodeKind::Map(entries) => entries.iter_mut().flat_map(|(_, entry)| entry).for_each(see),
            NodeKind::Fold(fold) => {
                see(&mut fold.range);
                fold.step.parts_mut().into_iter().for_each(see);
            }
            NodeKind::OptionalMap { target, body, .. } => [target, body].into_iter().for_each(|node| see(node)),
            NodeKind::SortBy { target, call, .. } => [target, call].into_iter().for_each(|node| see(node)),
        }
    }
}

impl Step {
    fn parts(&self) -> Vec<&Node> {
        match self {
            Step::All(test) | Step::Exists(test) | Step::ExistsOne(test) => vec![test],
            Step::List { filter, value } | Step::Map { filter, value } | Step::Entries { filter, entry: value } => {
                filter.iter().chain([value]).collect()
            }
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut Node> {
        match self {
            Step::All(test) | Step::Exists(test) | Step::ExistsOne(test) => vec![test],
            Step::List { filter, value } | Step::Map { filter, value } | Step::Entries { filter, entry: value } => {
                filter.iter_mut().chain([value]).collect()
            }
        }
    }
}
