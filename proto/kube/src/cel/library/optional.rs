//! Values that may be there or not. `or` and `orValue` are no functions when they are evaluated: what is behind them is
//! evaluated only where it is wanted.

use super::Sig::*;
use super::{Function, LIST, MAP, call, method};
use crate::cel::price::Price;
use crate::cel::value::{List, Outcome, Value, no_such_overload, raise};

const SOME: super::Sig = Optional(&A);
const SOME_LIST: super::Sig = Optional(&LIST);
const SOME_MAP: super::Sig = Optional(&MAP);

pub const OR: &str = "or";
pub const OR_VALUE: &str = "orValue";
pub const INDEX: &str = "_[_]";
pub const OPTIONAL_INDEX: &str = "_[?_]";
/// The list of optional elements that `unwrap` takes.
const OPTIONALS: super::Sig = List(&SOME);

/// Declared, so that calls are typed by it, and evaluated elsewhere.
const fn elsewhere(name: &'static str, overloads: &'static [super::Overload]) -> Function {
    Function { name, overloads, price: Price::Nominal, run: |_, _| no_such_overload() }
}

pub const FUNCTIONS: &[Function] = &[
    elsewhere(OR, &[method(&[SOME, SOME], SOME)]),
    elsewhere(OR_VALUE, &[method(&[SOME, A], A)]),
    elsewhere(
        INDEX,
        &[call(&[LIST, Int], A), call(&[MAP, A], B), call(&[SOME_LIST, Int], SOME), call(&[SOME_MAP, A], Optional(&B))],
    ),
    elsewhere(
        OPTIONAL_INDEX,
        &[
            call(&[LIST, Int], SOME),
            call(&[SOME_LIST, Int], SOME),
            call(&[MAP, A], Optional(&B)),
            call(&[SOME_MAP, A], Optional(&B)),
        ],
    ),
    Function {
        name: "optional.of",
        overloads: &[call(&[A], SOME)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value] => Ok(Value::some(value.clone())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "optional.ofNonZeroValue",
        overloads: &[call(&[A], SOME)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value] if value.is_zero() => Ok(Value::Optional(None)),
            [value] => Ok(Value::some(value.clone())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "optional.none",
        overloads: &[call(&[], SOME)],
        price: Price::Nominal,
        run: |_, _| Ok(Value::Optional(None)),
    },
    Function {
        name: "value",
        overloads: &[method(&[SOME], A)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Optional(Some(value))] => Ok((**value).clone()),
            [Value::Optional(None)] => raise("optional.none() dereference"),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "hasValue",
        overloads: &[method(&[SOME], Bool)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "first",
        overloads: &[method(&[LIST], SOME)],
        price: Price::Nominal,
        run: |_, args| end_of(args, |_| 0),
    },
    Function {
        name: "last",
        overloads: &[method(&[LIST], SOME)],
        price: Price::Nominal,
        run: |_, args| end_of(args, |length| length.wrapping_sub(1)),
    },
    Function {
        name: "optional.unwrap",
        overloads: &[call(&[OPTIONALS], LIST)],
        price: Price::Nominal,
        run: |meter, args| unwrap(meter, args),
    },
    Function {
        name: "unwrapOpt",
        overloads: &[method(&[OPTIONALS], LIST)],
        price: Price::Nominal,
        run: |meter, args| unwrap(meter, args),
    },
];

fn end_of<'a>(args: &[Value<'a>], index: fn(usize) -> usize) -> Outcome<'a> {
    match args {
        [Value::List(list)] => match list.get(index(list.len())) {
            Some(item) => Ok(Value::some(item?)),
            None => Ok(Value::Optional(None)),
        },
        _ => no_such_overload(),
    }
}

fn unwrap<'a>(meter: &mut crate::cel::meter::Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_such_overload() };
    meter.work(List::len(list) as u64)?;
    let mut out = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(value)) => out.push((*value).clone()),
            Value::Optional(None) => {}
            other => return raise(format!("value {other} is not optional")),
        }
    }
    Ok(Value::list(out))
}
