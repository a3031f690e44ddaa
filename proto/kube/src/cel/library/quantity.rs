//! Quantities (`500m`, `1.5Gi`): Kubernetes' library.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Sig::*;
use super::{Function, QUANTITY, SEMVER, call, method};
use crate::cel::price::Price;
use crate::cel::value::{Outcome, Value, no_such_overload, raise};
use crate::quantity::{Format, Quantity};

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "quantity",
        overloads: &[call(&[String], QUANTITY)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => match Quantity::parse(text) {
                Ok(quantity) => Ok(Value::Quantity(Arc::new(quantity))),
                Err(error) => raise(error.to_string()),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isQuantity",
        overloads: &[call(&[String], Bool)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
            _ => no_such_overload(),
        },
    },
    // Upstream declares it as a function, and documents it as a method.
    Function {
        name: "sign",
        overloads: &[call(&[QUANTITY], Int)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Quantity(q)] => Ok(Value::Int((**q).cmp(&Quantity::ZERO) as i64)),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isGreaterThan",
        overloads: &[method(&[QUANTITY, QUANTITY], Bool), method(&[SEMVER, SEMVER], Bool)],
        price: Price::Nominal,
        run: |_, args| compared(args, |order| Value::Bool(order.is_gt())),
    },
    Function {
        name: "isLessThan",
        overloads: &[method(&[QUANTITY, QUANTITY], Bool), method(&[SEMVER, SEMVER], Bool)],
        price: Price::Nominal,
        run: |_, args| compared(args, |order| Value::Bool(order.is_lt())),
    },
    Function {
        name: "compareTo",
        overloads: &[method(&[QUANTITY, QUANTITY], Int), method(&[SEMVER, SEMVER], Int)],
        price: Price::Nominal,
        run: |_, args| compared(args, |order| Value::Int(order as i64)),
    },
    Function {
        name: "asApproximateFloat",
        overloads: &[method(&[QUANTITY], Double)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Quantity(q)] => Ok(Value::Double(q.approximate())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "asInteger",
        overloads: &[method(&[QUANTITY], Int)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Quantity(q)] => match q.integer() {
                Some(number) => Ok(Value::Int(number)),
                None => raise("cannot convert value to integer"),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isInteger",
        overloads: &[method(&[QUANTITY], Bool)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Quantity(q)] => Ok(Value::Bool(q.integer().is_some())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "add",
        overloads: &[method(&[QUANTITY, QUANTITY], QUANTITY), method(&[QUANTITY, Int], QUANTITY)],
        price: Price::Nominal,
        run: |_, args| combined(args, Quantity::add),
    },
    Function {
        name: "sub",
        overloads: &[method(&[QUANTITY, QUANTITY], QUANTITY), method(&[QUANTITY, Int], QUANTITY)],
        price: Price::Nominal,
        run: |_, args| combined(args, Quantity::sub),
    },
];

fn compared<'a>(args: &[Value<'a>], result: fn(Ordering) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(result(a.cmp(b))),
        [Value::Semver(a), Value::Semver(b)] => Ok(result(a.cmp(b))),
        _ => no_such_overload(),
    }
}

fn combined<'a>(args: &[Value<'a>], combine: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    let other = match args {
        [_, Value::Quantity(other)] => **other,
        [_, Value::Int(number)] => Quantity::from_i64(*number, Format::DecimalExponent),
        _ => return no_such_overload(),
    };
    match args {
        [Value::Quantity(q), _] => Ok(Value::Quantity(Arc::new(combine(**q, other)))),
        _ => no_such_overload(),
    }
}
