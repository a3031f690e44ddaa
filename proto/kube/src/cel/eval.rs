//! Evaluation: a walk of the plan that counts what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::library::{Function, pattern};
use super::meter::Meter;
use super::plan::{Call, Fold, Node, NodeKind, Step};
use super::value::{Fault, Key, List, Map, Outcome, Text, Value, no_such_overload, raise};

/// Naming a variable, or selecting a field.
const NAME: u64 = 1;
/// What upstream's loops do around a step, in names and calls: to ask whether to go on (`all`, `exists`), and to name and
/// grow what is gathered.
const ASK_ALL: u64 = 2;
const ASK_EXISTS: u64 = 3;
const COUNT: u64 = 2;
const APPEND: u64 = NAME + CREATE_LIST + 1;
const INSERT: u64 = 2 * NAME + 1;
const INSERT_ENTRIES: u64 = NAME + 1;
pub(super) const CREATE_LIST: u64 = 10;
pub(super) const CREATE_MAP: u64 = 30;

/// What came of an evaluation, and what it cost.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub outcome: Outcome<'a>,
    pub cost: u64,
}

struct Scope<'a, 'v> {
    variables: &'v [Option<Value<'a>>],
    locals: Vec<Value<'a>>,
    meter: Meter,
}

pub(super) fn evaluate<'a>(root: &Node, locals: usize, variables: &[Option<Value<'a>>], limit: u64) -> Evaluation<'a> {
    let mut scope = Scope { variables, locals: vec![Value::Null; locals], meter: Meter::new(limit) };
    let outcome = scope.eval(root);
    Evaluation { outcome, cost: scope.meter.spent() }
}

impl<'a> Scope<'a, '_> {
    fn eval(&mut self, node: &Node) -> Outcome<'a> {
        match &node.kind {
            NodeKind::Constant(value) | NodeKind::Folded { value, .. } => Ok(value.clone()),
            NodeKind::Variable(place) => self.variable(*place),
            NodeKind::Local(place) => self.local(*place),
            NodeKind::Select { operand, field, optional } => self.select(operand, field, *optional),
            NodeKind::Has { operand, field } => self.has(operand, field),
            NodeKind::Index { operands, optional } => self.index(operands, *optional),
            NodeKind::And(terms) => self.logic(terms, false),
            NodeKind::Or(terms) => self.logic(terms, true),
            NodeKind::Ternary(parts) => self.ternary(parts),
            NodeKind::Call(call) => self.call(call),
            NodeKind::InSet { value, set } => self.in_set(value, set),
            NodeKind::OptionalOr { operands, value } => self.optional_or(operands, *value),
            NodeKind::List(elements) => self.list(elements),
            NodeKind::Map(entries) => self.map(entries),
            NodeKind::Fold(fold) => self.fold(fold),
            NodeKind::OptionalMap { target, local, body, flat } => self.optional_map(target, *local, body, *flat),
            NodeKind::SortBy { target, local, call } => self.sort_by(target, *local, call),
        }
    }

    fn local(&mut self, place: usize) -> Outcome<'a> {
        self.meter.charge(NAME)?;
        Ok(self.locals[place].clone())
    }

    fn select(&mut self, operand: &Node, field: &Arc<str>, optional: bool) -> Outcome<'a> {
        select(&self.member(operand)?, field, optional)
    }

    fn has(&mut self, operand: &Node, field: &Arc<str>) -> Outcome<'a> {
        Ok(Value::Bool(find_field(&self.eval(operand)?, field)?.is_some()))
    }

    fn index(&mut self, operands: &[Node; 2], optional: bool) -> Outcome<'a> {
        let operand = self.member(&operands[0])?;
        let index = self.eval(&operands[1])?;
        // A name in brackets costs as a name alone.
        if is_named(&operands[1]) {
            self.meter.refund(NAME);
        }
        element(&operand, &index, optional)
    }

    fn ternary(&mut self, parts: &[Node; 3]) -> Outcome<'a> {
        match self.eval(&parts[0])? {
            Value::Bool(true) => self.branch(&parts[1]),
            Value::Bool(false) => self.branch(&parts[2]),
            _ => no_such_overload(),
        }
    }

    fn in_set(&mut self, value: &Node, set: &Node) -> Outcome<'a> {
        let value = self.eval(value)?;
        match self.eval(set)? {
            Value::Map(set) => Ok(Value::Bool(set.get(&value)?.is_some())),
            _ => no_such_overload(),
        }
    }

    #[inline(never)]
    fn sort_by(&mut self, target: &Node, local: usize, call: &Node) -> Outcome<'a> {
        self.locals[local] = self.eval(target)?;
        self.eval(call)
    }

    fn variable(&mut self, place: usize) -> Outcome<'a> {
        self.meter.charge(NAME)?;
        match self.variables.get(place) {
            Some(Some(value)) => Ok(value.clone()),
            _ => raise("no such attribute(s)"),
        }
    }

    /// What a field or an element is asked of, and the price of asking: what is no name is one more step.
    fn member(&mut self, operand: &Node) -> Outcome<'a> {
        let named = is_named(operand) || matches!(operand.kind, NodeKind::Ternary(_));
        let value = self.eval(operand)?;
        self.meter.charge(if named { NAME } else { 2 * NAME })?;
        Ok(value)
    }

    /// One side of a choice. If it is a name, upstream takes it without counting that.
    fn branch(&mut self, node: &Node) -> Outcome<'a> {
        let outcome = self.eval(node);
        if is_named(node) && !matches!(outcome, Err(Fault::Exhausted)) {
            self.meter.refund(NAME);
        }
        outcome
    }

    /// `&&`, which `false` decides, or `||`, which `true` does: whatever errors stand before it.
    fn logic(&mut self, terms: &[Node], decisive: bool) -> Outcome<'a> {
        let mut fault = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => fault = fault.or(no_such_overload::<()>().err()),
                Err(Fault::Exhausted) => return Err(Fault::Exhausted),
                Err(raised) => fault = fault.or(Some(raised)),
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    #[inline(never)]
    fn call(&mut self, call: &Call) -> Outcome<'a> {
        match call.args.as_slice() {
            [a] => match self.eval(a) {
                Ok(a) => self.run(call, &[a]),
                Err(fault) => self.fail(fault),
            },
            [a, b] => match (self.eval(a), self.eval(b)) {
                (Ok(a), Ok(b)) => self.run(call, &[a, b]),
                (_, Err(Fault::Exhausted)) => Err(Fault::Exhausted),
                (Err(fault), _) | (_, Err(fault)) => self.fail(fault),
            },
            args => {
                let args = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
                self.run(call, &args)
            }
        }
    }

    /// A call that has an error for an argument costs all the same.
    fn fail(&mut self, fault: Fault) -> Outcome<'a> {
        self.meter.charge(1)?;
        Err(fault)
    }

    fn run(&mut self, call: &Call, args: &[Value<'a>]) -> Outcome<'a> {
        let Function { name, price, run, .. } = call.function;
        self.meter.charge(price.of(args))?;
        let result = match &call.pattern {
            Some(compiled) => pattern::with(&mut self.meter, args, compiled, name)?,
            None => run(&mut self.meter, args)?,
        };
        self.meter.charge(price.of_result(&result))?;
        Ok(result)
    }

    #[inline(never)]
    fn optional_or(&mut self, operands: &[Node; 2], value: bool) -> Outcome<'a> {
        match self.eval(&operands[0])? {
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.eval(&operands[1]),
            _ => no_such_overload(),
        }
    }

    #[inline(never)]
    fn list(&mut self, elements: &[(bool, Node)]) -> Outcome<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for (optional, element) in elements {
            match (optional, self.eval(element)?) {
                (false, value) => items.push(value),
                (true, Value::Optional(Some(value))) => items.push((*value).clone()),
                (true, Value::Optional(None)) => {}
                (true, other) => {
                    return raise(format!("cannot initialize optional list element from non-optional value {other}"));
                }
            }
        }
        self.meter.charge(CREATE_LIST)?;
        Ok(Value::list(items))
    }

    #[inline(never)]
    fn map(&mut self, entries: &[(bool, [Node; 2])]) -> Outcome<'a> {
        let mut map = BTreeMap::new();
        for (optional, [key, value]) in entries {
            let key = self.eval(key)?;
            let value = match (optional, self.eval(value)?) {
                (false, value) => value,
                (true, Value::Optional(Some(value))) => (*value).clone(),
                (true, Value::Optional(None)) => continue,
                (true, other) => {
                    return raise(format!("cannot initialize optional entry '{key}' from non-optional value {other}"));
                }
            };
            insert(&mut map, &key, value)?;
        }
        self.meter.charge(CREATE_MAP)?;
        Ok(Value::map(map))
    }

    #[inline(never)]
    fn optional_map(&mut self, target: &Node, local: usize, body: &Node, flat: bool) -> Outcome<'a> {
        let before = self.meter.spent();
        let target = self.eval(target)?;
        // Upstream evaluates the target once to ask for a value and once more to take it.
        let again = self.meter.spent() - before;
        self.meter.charge(1)?;
        match target {
            Value::Optional(None) => {
                self.meter.charge(1)?;
                Ok(Value::Optional(None))
            }
            Value::Optional(Some(inner)) => {
                self.meter.charge(again + 1)?;
                self.locals[local] = (*inner).clone();
                let made = self.eval(body)?;
                if flat {
                    return Ok(made);
                }
                self.meter.charge(1)?;
                Ok(Value::some(made))
            }
            _ => no_such_overload(),
        }
    }

    #[inline(never)]
    fn fold(&mut self, fold: &Fold) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let mut gathered = Gathered::of(&fold.step);
        match &range {
            Value::List(list) => {
                for index in 0..list.len() {
                    self.enter_list(fold, list, index)?;
                    if !self.step(&fold.step, fold.local, &mut gathered)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                let keys = map.keys();
                self.meter.work(keys.len() as u64)?;
                for key in keys {
                    self.enter_map(fold, map, &key)?;
                    if !self.step(&fold.step, fold.local, &mut gathered)? {
                        break;
                    }
                }
            }
            other => return raise(format!("got '{}', expected iterable type", other.type_name())),
        }
        self.meter.charge(if matches!(fold.step, Step::ExistsOne(_)) { COUNT } else { NAME })?;
        gathered.result()
    }

    fn enter_list(&mut self, fold: &Fold, list: &List<'a>, index: usize) -> Result<(), Fault> {
        let item = list.get(index).unwrap_or_else(|| raise(format!("index out of bounds: {index}")))?;
        match fold.second {
            None => self.locals[fold.local] = item,
            Some(second) => {
                self.locals[fold.local] = Value::Int(index as i64);
                self.locals[second] = item;
            }
        }
        Ok(())
    }

    fn enter_map(&mut self, fold: &Fold, map: &Map<'a>, key: &Key<'a>) -> Result<(), Fault> {
        let key = key.value();
        if let Some(second) = fold.second {
            self.locals[second] = map.get(&key)?.unwrap_or(Value::Null);
        }
        self.locals[fold.local] = key;
        Ok(())
    }

    /// One turn of a loop. False where it ends before the range does.
    fn step(&mut self, step: &Step, local: usize, gathered: &mut Gathered<'a>) -> Result<bool, Fault> {
        match (step, gathered) {
            (Step::All(test), Gathered::Truth(truth)) => self.quantify(test, false, ASK_ALL, truth),
            (Step::Exists(test), Gathered::Truth(truth)) => self.quantify(test, true, ASK_EXISTS, truth),
            (Step::ExistsOne(test), Gathered::Count(count)) => {
                let passes = self.passes(Some(test))?;
                self.meter.charge(if passes { COUNT } else { 0 })?;
                *count += u64::from(passes);
                Ok(true)
            }
            (Step::List { filter, value }, Gathered::List(items)) => {
                if self.passes(filter.as_ref())? {
                    let value = self.eval(value)?;
                    self.meter.charge(APPEND)?;
                    items.push(value);
                }
                Ok(true)
            }
            (Step::Map { filter, value }, Gathered::Map(map)) => {
                if self.passes(filter.as_ref())? {
                    let key = self.locals[local].clone();
                    let value = self.eval(value)?;
                    self.meter.charge(INSERT)?;
                    insert(map, &key, value)?;
                }
                Ok(true)
            }
            (Step::Entries { filter, entry }, Gathered::Map(map)) => {
                if !self.passes(filter.as_ref())? {
                    return Ok(true);
                }
                let Value::Map(entries) = self.eval(entry)? else { return no_such_overload() };
                self.meter.charge(INSERT_ENTRIES)?;
                let keys = entries.keys();
                self.meter.work(keys.len() as u64)?;
                for key in keys {
                    let key = key.value();
                    let value = entries.get(&key)?.unwrap_or(Value::Null);
                    insert(map, &key, value)?;
                }
                Ok(true)
            }
            _ => no_such_overload(),
        }
    }

    fn quantify(&mut self, test: &Node, decisive: bool, ask: u64, truth: &mut Truth) -> Result<bool, Fault> {
        self.meter.charge(ask)?;
        if truth.decided.is_some() {
            return Ok(false);
        }
        self.meter.charge(NAME)?;
        match self.eval(test) {
            Ok(Value::Bool(value)) if value == decisive => truth.decided = Some(decisive),
            Ok(Value::Bool(_)) => {}
            Ok(_) => truth.fault = truth.fault.take().or(no_such_overload::<()>().err()),
            Err(Fault::Exhausted) => return Err(Fault::Exhausted),
            Err(raised) => truth.fault = truth.fault.take().or(Some(raised)),
        }
        Ok(true)
    }

    fn passes(&mut self, filter: Option<&Node>) -> Result<bool, Fault> {
        match filter.map_or(Ok(Value::Bool(true)), |filter| self.eval(filter))? {
            Value::Bool(passes) => Ok(passes),
            _ => no_such_overload(),
        }
    }
}

/// Whether it is a variable, or what is selected of one.
fn is_named(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Variable(_) | NodeKind::Local(_) | NodeKind::Select { .. } | NodeKind::Index { .. })
}

/// What a loop has gathered so far.
enum Gathered<'a> {
    Truth(Truth),
    Count(u64),
    List(Vec<Value<'a>>),
    Map(BTreeMap<Key<'a>, Value<'a>>),
}

#[derive(Default)]
struct Truth {
    otherwise: bool,
    decided: Option<bool>,
    fault: Option<Fault>,
}

impl<'a> Gathered<'a> {
    fn of(step: &Step) -> Gathered<'a> {
        match step {
            Step::All(_) => Gathered::Truth(Truth { otherwise: true, ..Truth::default() }),
            Step::Exists(_) => Gathered::Truth(Truth::default()),
            Step::ExistsOne(_) => Gathered::Count(0),
            Step::List { .. } => Gathered::List(Vec::new()),
            Step::Map { .. } | Step::Entries { .. } => Gathered::Map(BTreeMap::new()),
        }
    }

    fn result(self) -> Outcome<'a> {
        match self {
            Gathered::Truth(Truth { decided: Some(decided), .. }) => Ok(Value::Bool(decided)),
            Gathered::Truth(Truth { fault: Some(fault), .. }) => Err(fault),
            Gathered::Truth(truth) => Ok(Value::Bool(truth.otherwise)),
            Gathered::Count(count) => Ok(Value::Bool(count == 1)),
            Gathered::List(items) => Ok(Value::list(items)),
            Gathered::Map(map) => Ok(Value::map(map)),
        }
    }
}

fn insert<'a>(map: &mut BTreeMap<Key<'a>, Value<'a>>, key: &Value<'a>, value: Value<'a>) -> Result<(), Fault> {
    let Some(place) = Key::of(key) else { return raise(format!("unsupported key type: {}", key.type_name())) };
    match map.insert(place, value) {
        None => Ok(()),
        Some(_) => raise(format!("insert failed: key {key} already exists")),
    }
}

fn find_field<'a>(operand: &Value<'a>, field: &Arc<str>) -> Result<Option<Value<'a>>, Fault> {
    match operand {
        Value::Optional(Some(inner)) => find_field(inner, field),
        Value::Map(Map::Data(data)) => data.get(field).transpose(),
        Value::Map(Map::Made(entries)) => Ok(entries.get(&Key::String(Text::Shared(field.clone()))).cloned()),
        _ => Ok(None),
    }
}

fn select<'a>(operand: &Value<'a>, field: &Arc<str>, optional: bool) -> Outcome<'a> {
    let optional = optional || matches!(operand, Value::Optional(_));
    match find_field(operand, field)? {
        Some(value) if optional => Ok(Value::some(value)),
        Some(value) => Ok(value),
        None if optional => Ok(Value::Optional(None)),
        None => raise(format!("no such key: {field}")),
    }
}

fn find_element<'a>(operand: &Value<'a>, index: &Value<'a>) -> Result<Option<Value<'a>>, Fault> {
    match operand {
        Value::Optional(Some(inner)) => find_element(inner, index),
        Value::Map(map) => map.get(index),
        Value::List(list) => {
            let index = match Key::of(index) {
                Some(Key::Int(index)) => usize::try_from(index).ok(),
                Some(Key::Uint(index)) => usize::try_from(index).ok(),
                _ => return raise(format!("unsupported index type '{}' in list", index.type_name())),
            };
            index.and_then(|index| list.get(index)).transpose()
        }
        _ => Ok(None),
    }
}

fn element<'a>(operand: &Value<'a>, index: &Value<'a>, optional: bool) -> Outcome<'a> {
    let optional = optional || matches!(operand, Value::Optional(_));
    match find_element(operand, index)? {
        Some(value) if optional => Ok(Value::some(value)),
        Some(value) => Ok(value),
        None if optional => Ok(Value::Optional(None)),
        None if matches!(operand, Value::List(_)) => raise(format!("index out of bounds: {index}")),
        None => raise(format!("no such key: {index}")),
    }
}
