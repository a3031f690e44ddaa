//! The most that an expression can cost, reckoned before it is ever evaluated from what is known of the sizes of its
//! variables. The figures are upstream's, for by them it is decided which rules a definition may have.

use std::sync::Arc;

use super::decl::{Decl, DeclKind};
use super::env::Env;
use super::eval::{CREATE_LIST, CREATE_MAP};
use super::plan::{Call, Fold, Node, NodeKind, Step};
use super::types::Type;
use super::value::Value;

mod calls;

/// From the least to the most: of a cost, or of a size as [`Value::size`] counts it. What is too large for a number is its
/// largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    pub min: u64,
    pub max: u64,
}

const UNKNOWN: Estimate = Estimate { min: 0, max: u64::MAX };
/// What a text costs a character, and a pattern.
const TEXT: f64 = 0.1;
const PATTERN: f64 = 0.25;

impl Estimate {
    pub(super) fn of(env: &Env, root: &Node, locals: usize) -> Estimate {
        let locals = (0..locals).map(|_| Facts::default()).collect();
        Estimator { env, locals }.node(root).cost
    }

    const fn fixed(number: u64) -> Estimate {
        Estimate { min: number, max: number }
    }

    fn plus(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Times a factor, rounded up.
    fn scaled(self, factor: f64) -> Estimate {
        // A cast keeps what is too large at the largest.
        let scale = |number: u64| (number as f64 * factor).ceil() as u64;
        Estimate { min: scale(self.min), max: scale(self.max) }
    }

    fn or(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What is reckoned of one part.
#[derive(Clone, Debug, Default)]
struct Facts {
    cost: Estimate,
    size: Option<Estimate>,
    entries: Option<Entries>,
    place: Option<Place>,
}

/// The sizes of what stands in a list or a map that an expression makes.
#[derive(Clone, Copy, Debug)]
struct Entries {
    list: bool,
    key: Estimate,
    value: Estimate,
}

/// Where in the declared data a part is.
#[derive(Clone, Debug)]
enum Place {
    At(Arc<Decl>),
    /// Among the keys of a map, which upstream takes for empty.
    Key,
}

impl Place {
    fn size(&self) -> Estimate {
        match self {
            Place::At(decl) => Estimate { min: 0, max: decl.max_elements },
            Place::Key => Estimate::default(),
        }
    }

    fn element(&self) -> Option<Place> {
        match self {
            Place::At(decl) => decl.element().cloned().map(Place::At),
            Place::Key => None,
        }
    }
}

impl Entries {
    fn or(self, other: Entries) -> Entries {
        Entries { list: self.list, key: self.key.or(other.key), value: self.value.or(other.value) }
    }
}

impl Facts {
    fn costing(cost: Estimate) -> Facts {
        Facts { cost, ..Facts::default() }
    }

    fn size_or_unknown(&self) -> Estimate {
        self.size.unwrap_or(UNKNOWN)
    }

    /// With the size that follows from the place, or from the type, if none is known.
    fn settled(mut self, ty: &Type) -> Facts {
        self.size = self
            .size
            .or_else(|| self.place.as_ref().map(Place::size))
            .or_else(|| ty.is_scalar().then_some(Estimate::fixed(1)));
        self
    }
}

struct Estimator<'e> {
    env: &'e Env,
    locals: Vec<Facts>,
}

/// A name, and a call of which nothing more is known.
const ONE: Estimate = Estimate::fixed(1);

impl Estimator<'_> {
    fn node(&mut self, node: &Node) -> Facts {
        match &node.kind {
            NodeKind::Constant(value) => self.constant(value),
            NodeKind::Folded { from, .. } => self.node(from),
            NodeKind::Variable(place) => self.variable(node, *place),
            NodeKind::Local(place) => self.local(node, *place),
            NodeKind::Select { operand, field, optional } => self.select(node, operand, field, *optional),
            NodeKind::Has { operand, .. } => self.all_of([&**operand], Estimate::default()).settled(&node.ty),
            NodeKind::Index { operands, optional } => self.index(node, operands, *optional),
            NodeKind::And(terms) | NodeKind::Or(terms) => self.chain(node, terms),
            NodeKind::Ternary(parts) => self.ternary(parts),
            NodeKind::Call(call) => self.call(node, call),
            NodeKind::InSet { value, set } => self.in_set(node, value, set),
            NodeKind::OptionalOr { operands, .. } => self.all_of(operands.iter(), ONE).settled(&node.ty),
            NodeKind::List(elements) => self.list(elements),
            NodeKind::Map(entries) => self.map(entries),
            NodeKind::Fold(fold) => self.fold(fold),
            NodeKind::OptionalMap { target, local, body, flat } => self.optional_map(node, target, *local, body, *flat),
            NodeKind::SortBy { target, local, call } => self.sort_by(target, *local, call),
        }
    }

    /// The cost of all parts, and of what is done with them.
    fn all_of<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>, more: Estimate) -> Facts {
        Facts::costing(nodes.into_iter().fold(more, |sum, node| sum.plus(self.node(node).cost)))
    }

    fn variable(&self, node: &Node, place: usize) -> Facts {
        let decl = self.env.variables().get(place).and_then(|variable| variable.decl.clone());
        Facts { cost: ONE, place: decl.map(Place::At), ..Facts::default() }.settled(&node.ty)
    }

    fn local(&self, node: &Node, place: usize) -> Facts {
        let local = &self.locals[place];
        let known = Facts { cost: ONE, size: None, ..local.clone() }.settled(&node.ty);
        Facts { size: known.size.or(local.size), ..known }
    }

    fn chain(&mut self, node: &Node, terms: &[Node]) -> Facts {
        let (mut all, mut min) = (Estimate::default(), None);
        for term in terms {
            let cost = self.node(term).cost;
            min.get_or_insert(cost.min);
            all = all.plus(cost);
        }
        Facts::costing(Estimate { min: min.unwrap_or(0), max: all.max }).settled(&node.ty)
    }

    fn ternary(&mut self, parts: &[Node; 3]) -> Facts {
        let [condition, yes, no] = [&parts[0], &parts[1], &parts[2]].map(|part| self.node(part));
        Facts {
            cost: condition.cost.plus(yes.cost.or(no.cost)),
            size: Some(yes.size_or_unknown().or(no.size_or_unknown())),
            entries: yes.entries.zip(no.entries).map(|(yes, no)| yes.or(no)),
            place: None,
        }
    }

    fn in_set(&mut self, node: &Node, value: &Node, set: &Node) -> Facts {
        let (value, set) = (self.node(value), self.node(set));
        Facts::costing(set.size_or_unknown().plus(value.cost).plus(set.cost)).settled(&node.ty)
    }

    fn sort_by(&mut self, target: &Node, local: usize, call: &Node) -> Facts {
        let list = self.node(target);
        let cost = Estimate::fixed(CREATE_LIST).plus(list.cost);
        self.locals[local] = list;
        let sorted = self.node(call);
        Facts { cost: cost.plus(sorted.cost), ..sorted }
    }

    /// The declaration in which upstream looks up what is in no place: that of the first variable, whose name it takes off
    /// every path unseen. Costs are compared with those that it reckons.
    fn stray(&self) -> Option<Place> {
        self.env.variables().first()?.decl.clone().map(Place::At)
    }

    fn constant(&self, value: &Value<'static>) -> Facts {
        let size = Estimate::fixed(value.size());
        // The name of a type is a name.
        if matches!(value, Value::Type(_)) {
            return Facts {
                cost: ONE,
                size: Some(self.stray().map_or(size, |place| place.size())),
                ..Facts::default()
            };
        }
        Facts { size: Some(size), ..Facts::default() }
    }

    fn select(&mut self, node: &Node, operand: &Node, field: &str, optional: bool) -> Facts {
        let of = self.node(operand);
        if optional {
            return Facts::costing(of.cost.plus(ONE)).settled(&node.ty);
        }
        let step = if matches!(operand.ty, Type::Map(_) | Type::Object(_)) { ONE } else { Estimate::default() };
        let place = match &of.place {
            Some(Place::At(decl)) => {
                let field = decl.object().and_then(|object| object.fields.get(field));
                field.map(|field| Place::At(field.decl.clone()))
            }
            _ => None,
        };
        Facts { cost: of.cost.plus(step), place, ..Facts::default() }.settled(&node.ty)
    }

    fn index(&mut self, node: &Node, operands: &[Node; 2], optional: bool) -> Facts {
        let [of, index] = [self.node(&operands[0]), self.node(&operands[1])];
        let cost = ONE.plus(of.cost).plus(index.cost);
        if optional || matches!(operands[0].ty, Type::Optional(_)) {
            return Facts::costing(cost).settled(&node.ty);
        }
        let place = of.place.as_ref().and_then(Place::element);
        Facts { cost, size: of.entries.map(|entries| entries.value), entries: None, place }.settled(&node.ty)
    }

    fn list(&mut self, elements: &[(bool, Node)]) -> Facts {
        let (mut cost, mut value) = (Estimate::fixed(CREATE_LIST), None::<Estimate>);
        for (_, element) in elements {
            let element = self.node(element);
            cost = cost.plus(element.cost);
            let size = element.size_or_unknown();
            value = Some(value.map_or(size, |value| value.or(size)));
        }
        let entries = Entries { list: true, key: ONE, value: value.unwrap_or_default() };
        Facts { cost, size: Some(Estimate::fixed(elements.len() as u64)), entries: Some(entries), place: None }
    }

    fn map(&mut self, entries: &[(bool, [Node; 2])]) -> Facts {
        let mut cost = Estimate::fixed(CREATE_MAP);
        let mut sizes: [Option<Estimate>; 2] = [None, None];
        for (_, entry) in entries {
            for (part, known) in entry.iter().zip(&mut sizes) {
                let part = self.node(part);
                cost = cost.plus(part.cost);
                let size = part.size_or_unknown();
                *known = Some(known.map_or(size, |known| known.or(size)));
            }
        }
        let [key, value] = sizes.map(Option::unwrap_or_default);
        let size = Some(Estimate::fixed(entries.len() as u64));
        Facts { cost, size, entries: Some(Entries { list: false, key, value }), place: None }
    }

    /// The variables of a loop: elements of a list, keys and values of a map.
    fn enter(&mut self, fold: &Fold, range: &Facts) {
        let list = range.entries.map_or(matches!(fold.range.ty, Type::List(_)), |entries| entries.list);
        let (key_place, value_place) = match &range.place {
            None => (self.stray(), self.stray()),
            Some(place) => {
                let keyed = matches!(place, Place::At(decl) if matches!(decl.kind, DeclKind::Map(_)));
                ((keyed && !list).then_some(Place::Key), place.element())
            }
        };
        let key = Facts { size: range.entries.map(|entries| entries.key), place: key_place, ..Facts::default() };
        let value = Facts { size: range.entries.map(|entries| entries.value), place: value_place, ..Facts::default() };
        match fold.second {
            Some(second) => {
                self.locals[fold.local] = key;
                self.locals[second] = value;
            }
            None => self.locals[fold.local] = if list { value } else { key },
        }
    }

    fn fold(&mut self, fold: &Fold) -> Facts {
        let range = self.node(&fold.range);
        self.enter(fold, &range);
        let count = range.size_or_unknown();
        let chain = |test: Estimate| Estimate { min: 1, max: test.max.saturating_add(1) };
        // What upstream's loops are made of: the beginning, each turn, and the end.
        let (begin, turn, end, size, entries) = match &fold.step {
            Step::All(test) => {
                let test = self.node(test).cost;
                (0, Estimate::fixed(2).plus(chain(test)), 1, ONE, None)
            }
            Step::Exists(test) => {
                let test = self.node(test).cost;
                (0, Estimate::fixed(3).plus(chain(test)), 1, ONE, None)
            }
            Step::ExistsOne(test) => {
                let test = self.node(test).cost;
                (0, test.plus(Estimate { min: 1, max: 2 }), 2, ONE, None)
            }
            Step::List { filter, value } => {
                let filter = filter.as_ref().map(|filter| self.node(filter).cost);
                let value = self.node(value);
                let append = Estimate::fixed(2 + CREATE_LIST).plus(value.cost);
                let size = value.size_or_unknown();
                let entries = Entries { list: true, key: ONE, value: Estimate { min: 0, max: size.max } };
                (CREATE_LIST, filtered(filter, append), 1, count, Some(entries))
            }
            Step::Map { filter, value } => {
                let filter = filter.as_ref().map(|filter| self.node(filter).cost);
                let insert = Estimate::fixed(3).plus(self.node(value).cost);
                (CREATE_MAP, filtered(filter, insert), 1, count, None)
            }
            Step::Entries { filter, entry } => {
                let filter = filter.as_ref().map(|filter| self.node(filter).cost);
                let insert = Estimate::fixed(2).plus(self.node(entry).cost);
                (CREATE_MAP, filtered(filter, insert), 1, count, None)
            }
        };
        let cost = range.cost.plus(Estimate::fixed(begin + end)).plus(count.times(turn));
        Facts { cost, size: Some(size), entries, place: None }
    }

    fn optional_map(&mut self, node: &Node, target: &Node, local: usize, body: &Node, flat: bool) -> Facts {
        let of = self.node(target);
        let scalar = matches!(&target.ty, Type::Optional(inner) if inner.is_scalar());
        self.locals[local] = Facts { size: scalar.then_some(ONE), ..Facts::default() };
        let body = self.node(body);
        let bound = Estimate::fixed(CREATE_LIST + 1).plus(of.cost).plus(body.cost);
        let made = if flat { bound } else { bound.plus(ONE) };
        Facts::costing(ONE.plus(of.cost).plus(made.or(ONE))).settled(&node.ty)
    }
}

fn filtered(filter: Option<Estimate>, step: Estimate) -> Estimate {
    match filter {
        Some(filter) => filter.plus(step.or(ONE)),
        None => step,
    }
}
