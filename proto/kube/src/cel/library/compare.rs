//! Equality, order and membership. Values of different types are unequal; numbers are compared as numbers, whatever their
//! types are. Lists that a schema calls sets or keys by fields are equal in any order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::Sig::*;
use super::{Function, LIST, MAP, Overload, call};
use crate::cel::data::{MapData, Shape};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::{Fault, Key, List, Map, Outcome, Value, no_such_overload, raise};
use crate::schema::ListType;

/// Texts are compared at some sixty bytes a step.
const TEXT_BYTES_PER_STEP: u64 = 64;

const ORDERED: &[Overload] = &[
    call(&[Bool, Bool], Bool),
    call(&[Int, Int], Bool),
    call(&[Int, Double], Bool),
    call(&[Int, Uint], Bool),
    call(&[Uint, Uint], Bool),
    call(&[Uint, Double], Bool),
    call(&[Uint, Int], Bool),
    call(&[Double, Double], Bool),
    call(&[Double, Int], Bool),
    call(&[Double, Uint], Bool),
    call(&[String, String], Bool),
    call(&[Bytes, Bytes], Bool),
    call(&[Timestamp, Timestamp], Bool),
    call(&[Duration, Duration], Bool),
];

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "_==_",
        overloads: &[call(&[A, A], Bool)],
        price: Price::Compare,
        run: |meter, args| match args {
            [a, b] => equal(meter, a, b).map(Value::Bool),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "_!=_",
        overloads: &[call(&[A, A], Bool)],
        price: Price::Compare,
        run: |meter, args| match args {
            [a, b] => equal(meter, a, b).map(|equal| Value::Bool(!equal)),
            _ => no_such_overload(),
        },
    },
    Function { name: "_<_", overloads: ORDERED, price: Price::Compare, run: |_, args| ordered(args, Ordering::is_lt) },
    Function { name: "_<=_", overloads: ORDERED, price: Price::Compare, run: |_, args| ordered(args, Ordering::is_le) },
    Function { name: "_>_", overloads: ORDERED, price: Price::Compare, run: |_, args| ordered(args, Ordering::is_gt) },
    Function { name: "_>=_", overloads: ORDERED, price: Price::Compare, run: |_, args| ordered(args, Ordering::is_ge) },
    Function {
        name: "@in",
        overloads: &[call(&[A, LIST], Bool), call(&[A, MAP], Bool)],
        price: Price::In,
        run: |meter, args| match args {
            [value, Value::List(list)] => contains(meter, list, value).map(Value::Bool),
            [key, Value::Map(map)] => Ok(Value::Bool(map.get(key)?.is_some())),
            _ => no_such_overload(),
        },
    },
];

fn ordered<'a>(args: &[Value<'a>], wanted: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => order(a, b).map(|order| Value::Bool(wanted(order))),
        _ => no_such_overload(),
    }
}

/// The order of two values that have one.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Fault> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => match numbers(a, b) {
            Some(Some(order)) => order,
            Some(None) => return raise("NaN values cannot be ordered"),
            None => return no_such_overload(),
        },
    })
}

/// None for what is no two numbers; inside, None where one is no number after all.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    Some(match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => whole_and_double(whole(b)?, *a).map(Ordering::reverse),
        (a, Value::Double(b)) => whole_and_double(whole(a)?, *b),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    })
}

/// Exact, where a conversion of the integer would round it.
fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond this every integer of ours is nearer to zero.
    const BEYOND: f64 = 1e20;
    if double.abs() > BEYOND {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

pub fn equal<'a>(meter: &mut Meter, a: &Value<'a>, b: &Value<'a>) -> Result<bool, Fault> {
    meter.work(1)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            meter.work(a.len().min(b.len()) as u64 / TEXT_BYTES_PER_STEP)?;
            a == b
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.work(a.len().min(b.len()) as u64 / TEXT_BYTES_PER_STEP)?;
            a == b
        }
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => return lists_equal(meter, a, b),
        (Value::Map(a), Value::Map(b)) => return maps_equal(meter, a, b),
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => return equal(meter, a, b),
        (Value::Optional(a), Value::Optional(b)) => a.is_none() && b.is_none(),
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a.cmp(b) == Ordering::Equal,
        (Value::Format(a), Value::Format(b)) => a.name == b.name,
        _ => numbers(a, b) == Some(Some(Ordering::Equal)),
    })
}

fn lists_equal<'a>(meter: &mut Meter, a: &List<'a>, b: &List<'a>) -> Result<bool, Fault> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match a.declared().map(|decl| (decl.list_type, &decl.keys)) {
        Some((ListType::Set, _)) => {
            let (set, mut seen) = (Set::of(a)?, Set::default());
            for item in b.iter() {
                let item = item?;
                if !set.contains(meter, &item)? || seen.contains(meter, &item)? {
                    return Ok(false);
                }
                seen.insert(item);
            }
            Ok(true)
        }
        Some((ListType::Map, keys)) => {
            let mut by_key = BTreeMap::new();
            for item in a.iter() {
                let item = item?;
                by_key.insert(composite_key(&item, keys)?, item);
            }
            let count = by_key.len();
            let mut met = 0;
            for item in b.iter() {
                let item = item?;
                let Some(other) = by_key.remove(&composite_key(&item, keys)?) else { return Ok(false) };
                if !equal(meter, &other, &item)? {
                    return Ok(false);
                }
                met += 1;
            }
            Ok(met == count)
        }
        _ => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(meter, &a?, &b?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn maps_equal<'a>(meter: &mut Meter, a: &Map<'a>, b: &Map<'a>) -> Result<bool, Fault> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (Map::Data(a), Map::Data(b)) = (a, b)
        && let Shape::Object(decl) = a.shape
    {
        return objects_equal(meter, a, b, decl);
    }
    for key in a.keys() {
        let key = key.value();
        let (Some(mine), Some(other)) = (a.get(&key)?, b.get(&key)?) else { return Ok(false) };
        if !equal(meter, &mine, &other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fields that the schema names by what it says of them, others as they stand.
fn objects_equal<'a>(
    meter: &mut Meter,
    a: &MapData<'a>,
    b: &MapData<'a>,
    decl: &'a crate::cel::decl::ObjectDecl,
) -> Result<bool, Fault> {
    for (name, mine) in a.entries {
        meter.work(1)?;
        let Some(other) = b.entries.get(name) else { return Ok(false) };
        let same = match decl.properties.get(name) {
            Some(decl) if !mine.is_null() && !other.is_null() => {
                let (mine, other) = (crate::cel::data::read(mine, decl)?, crate::cel::data::read(other, decl)?);
                equal(meter, &mine, &other)?
            }
            _ => mine == other,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

pub fn contains<'a>(meter: &mut Meter, list: &List<'a>, value: &Value<'a>) -> Result<bool, Fault> {
    let mut fault = None;
    for item in list.iter() {
        match item {
            Ok(item) if equal(meter, &item, value)? => return Ok(true),
            Ok(_) => {}
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    fault.map_or(Ok(false), Err)
}

/// Values that are looked for: those that can be keys by their order, others one by one.
#[derive(Debug, Default)]
pub struct Set<'a> {
    keys: BTreeSet<Key<'a>>,
    others: Vec<Value<'a>>,
}

impl<'a> Set<'a> {
    pub fn of(list: &List<'a>) -> Result<Set<'a>, Fault> {
        let mut set = Set::default();
        for item in list.iter() {
            set.insert(item?);
        }
        Ok(set)
    }

    pub fn insert(&mut self, value: Value<'a>) {
        match Key::of(&value) {
            Some(key) => {
                self.keys.insert(key);
            }
            None => self.others.push(value),
        }
    }

    pub fn contains(&self, meter: &mut Meter, value: &Value<'a>) -> Result<bool, Fault> {
        if let Some(key) = Key::of(value) {
            return Ok(self.keys.contains(&key));
        }
        for other in &self.others {
            if equal(meter, other, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What tells an item of a keyed list from others.
pub fn composite_key<'a>(item: &Value<'a>, keys: &[std::string::String]) -> Result<Vec<Option<Key<'a>>>, Fault> {
    let Value::Map(map) = item else {
        return raise("unexpected data format for element of array with x-kubernetes-list-type=map");
    };
    let key = |name: &std::string::String| Ok(map.get(&Value::text(name.clone()))?.as_ref().and_then(Key::of));
    keys.iter().map(key).collect()
}
