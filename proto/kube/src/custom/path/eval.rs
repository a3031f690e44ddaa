//! What paths find.

use std::cmp::Ordering;

use serde_json::Value;

use super::{FOUND_MAX, Filter, Operand, Operator, Step};

pub(super) fn find<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    follow(steps, vec![object], object)
}

fn follow<'a>(steps: &[Step], from: Vec<&'a Value>, root: &'a Value) -> Vec<&'a Value> {
    let mut places = from;
    for step in steps {
        let mut next = Vec::new();
        for place in places {
            one(step, place, root, &mut next);
            if next.len() > FOUND_MAX {
                next.truncate(FOUND_MAX);
                break;
            }
        }
        places = next;
    }
    places
}

fn one<'a>(step: &Step, place: &'a Value, root: &'a Value, found: &mut Vec<&'a Value>) {
    match (step, place) {
        (Step::Field(name), Value::Object(map)) => found.extend(map.get(name)),
        (Step::All, Value::Object(map)) => found.extend(map.values()),
        (Step::All, Value::Array(items)) => found.extend(items),
        (Step::Descend, place) => descend(place, found),
        (Step::Items { start, end, step, single }, Value::Array(items)) => {
            let count = items.len() as i64;
            let from_front = |at: i64| if at < 0 { at + count } else { at };
            let start = from_front(start.unwrap_or(0));
            if *single {
                found.extend(usize::try_from(start).ok().and_then(|at| items.get(at)));
                return;
            }
            let end = from_front(end.unwrap_or(count)).min(count);
            let step = usize::try_from(*step).unwrap_or(usize::MAX);
            if let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) {
                found.extend(items.iter().take(end).skip(start).step_by(step));
            }
        }
        (Step::Union(parts), place) => {
            for part in parts {
                found.extend(follow(part, vec![place], root));
            }
        }
        (Step::Filter(filter), Value::Array(items)) => {
            found.extend(items.iter().filter(|item| holds(filter, item, root)));
        }
        _ => {}
    }
}

fn descend<'a>(place: &'a Value, found: &mut Vec<&'a Value>) {
    if found.len() > FOUND_MAX {
        return;
    }
    found.push(place);
    match place {
        Value::Object(map) => map.values().for_each(|inner| descend(inner, found)),
        Value::Array(items) => items.iter().for_each(|inner| descend(inner, found)),
        _ => {}
    }
}

fn holds(filter: &Filter, item: &Value, root: &Value) -> bool {
    let Some((operator, right)) = &filter.test else {
        return !matches!(operand(&filter.left, item, root), None | Some(Value::Null));
    };
    let (Some(left), Some(right)) = (operand(&filter.left, item, root), operand(right, item, root)) else {
        return false;
    };
    let order = order(left, right);
    match operator {
        Operator::Equal => left == right || order == Some(Ordering::Equal),
        Operator::Unequal => left != right && order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// The one value that an operand names; several are none.
fn operand<'a>(operand: &'a Operand, item: &'a Value, root: &'a Value) -> Option<&'a Value> {
    match operand {
        Operand::Literal(value) => Some(value),
        Operand::Path { of_item, steps } => match find(steps, if *of_item { item } else { root }).as_slice() {
            [one] => Some(one),
            _ => None,
        },
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
