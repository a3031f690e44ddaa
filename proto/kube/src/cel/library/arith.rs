//! Operators that make a value of values. Integers that do not fit are errors, and never wrap.

use super::Sig::*;
use super::{Function, LIST, call, compare, time};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::{Fault, List, Outcome, Value, no_such_overload, raise};

const NUMBERS: &[super::Overload] =
    &[call(&[Double, Double], Double), call(&[Int, Int], Int), call(&[Uint, Uint], Uint)];

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "_+_",
        overloads: &[
            call(&[Bytes, Bytes], Bytes),
            call(&[Double, Double], Double),
            call(&[Duration, Duration], Duration),
            call(&[Duration, Timestamp], Timestamp),
            call(&[Timestamp, Duration], Timestamp),
            call(&[Int, Int], Int),
            call(&[LIST, LIST], LIST),
            call(&[String, String], String),
            call(&[Uint, Uint], Uint),
        ],
        price: Price::Concat,
        run: |meter, args| match args {
            [a, b] => add(meter, a, b),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "_-_",
        overloads: &[
            call(&[Double, Double], Double),
            call(&[Duration, Duration], Duration),
            call(&[Int, Int], Int),
            call(&[Timestamp, Duration], Timestamp),
            call(&[Timestamp, Timestamp], Duration),
            call(&[Uint, Uint], Uint),
        ],
        price: Price::Nominal,
        run: |_, args| subtract(args),
    },
    Function { name: "_*_", overloads: NUMBERS, price: Price::Nominal, run: |_, args| multiply(args) },
    Function { name: "_/_", overloads: NUMBERS, price: Price::Nominal, run: |_, args| divide(args) },
    Function {
        name: "_%_",
        overloads: &[call(&[Int, Int], Int), call(&[Uint, Uint], Uint)],
        price: Price::Nominal,
        run: |_, args| modulo(args),
    },
    Function {
        name: "-_",
        overloads: &[call(&[Double], Double), call(&[Int], Int)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Int(a)] => int(a.checked_neg()),
            [Value::Double(a)] => Ok(Value::Double(-a)),
            [Value::Duration(a)] => time::duration(a.checked_neg().map(i128::from)),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "!_",
        overloads: &[call(&[Bool], Bool)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Bool(a)] => Ok(Value::Bool(!a)),
            _ => no_such_overload(),
        },
    },
];

/// An integer, or the error that none fits.
pub fn int<'a>(number: Option<i64>) -> Outcome<'a> {
    number.map_or_else(|| raise("integer overflow"), |number| Ok(Value::Int(number)))
}

pub fn uint<'a>(number: Option<u64>) -> Outcome<'a> {
    number.map_or_else(|| raise("unsigned integer overflow"), |number| Ok(Value::Uint(number)))
}

pub fn add<'a>(meter: &mut Meter, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            meter.work((a.len() + b.len()) as u64)?;
            Ok(Value::text([&**a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.work((a.len() + b.len()) as u64)?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::Duration(a), Value::Duration(b)) => time::duration(a.checked_add(*b).map(i128::from)),
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            time::shifted(*at, i128::from(*by))
        }
        (Value::List(a), Value::List(b)) => concat(meter, a, b),
        _ => no_such_overload(),
    }
}

/// Sets and keyed lists of the data stay what they are: what is there already is not added, or takes the other's place.
fn concat<'a>(meter: &mut Meter, a: &List<'a>, b: &List<'a>) -> Outcome<'a> {
    meter.work((a.len() + b.len()) as u64)?;
    let mut items = a.iter().collect::<Result<Vec<_>, Fault>>()?;
    let like = a.declared();
    match like.map(|decl| (decl.list_type, &decl.keys)) {
        Some((crate::schema::ListType::Set, _)) => {
            let mut known = compare::Set::of(a)?;
            for item in b.iter() {
                let item = item?;
                if !known.contains(meter, &item)? {
                    known.insert(item.clone());
                    items.push(item);
                }
            }
        }
        Some((crate::schema::ListType::Map, keys)) => {
            let key = |item: &Value<'a>| compare::composite_key(item, keys);
            let mut places = std::collections::BTreeMap::new();
            for (index, item) in items.iter().enumerate() {
                places.insert(key(item)?, index);
            }
            for item in b.iter() {
                let item = item?;
                match places.get(&key(&item)?) {
                    Some(index) => items[*index] = item,
                    None => items.push(item),
                }
            }
        }
        _ => items.extend(b.iter().collect::<Result<Vec<_>, Fault>>()?),
    }
    Ok(Value::List(List::Made { items: items.into(), like }))
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => time::duration(a.checked_sub(*b).map(i128::from)),
        [Value::Timestamp(at), Value::Duration(by)] => time::shifted(*at, -i128::from(*by)),
        [Value::Timestamp(a), Value::Timestamp(b)] => time::duration(Some(a.nanos() - b.nanos())),
        _ => no_such_overload(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => no_such_overload(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => raise("division by zero"),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => no_such_overload(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => raise("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => no_such_overload(),
    }
}
