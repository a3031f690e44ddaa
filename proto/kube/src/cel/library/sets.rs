//! Lists as sets: cel-go's extension.

use super::Sig::*;
use super::{Function, LIST, Overload, call, compare};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::{Fault, List, Outcome, Value, no_such_overload};

const TWO_LISTS: &[Overload] = &[call(&[LIST, LIST], Bool)];

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "sets.contains",
        overloads: TWO_LISTS,
        price: Price::Product(1),
        run: |meter, args| two_lists(args, |a, b| has_all(meter, a, b)),
    },
    Function {
        name: "sets.equivalent",
        overloads: TWO_LISTS,
        price: Price::Product(2),
        run: |meter, args| two_lists(args, |a, b| Ok(has_all(meter, a, b)? && has_all(meter, b, a)?)),
    },
    Function {
        name: "sets.intersects",
        overloads: TWO_LISTS,
        price: Price::Product(1),
        run: |meter, args| {
            two_lists(args, |a, b| {
                for item in a.iter() {
                    if compare::contains(meter, b, &item?)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
        },
    },
];

fn two_lists<'a>(args: &[Value<'a>], test: impl FnOnce(&List<'a>, &List<'a>) -> Result<bool, Fault>) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => test(a, b).map(Value::Bool),
        _ => no_such_overload(),
    }
}

fn has_all<'a>(meter: &mut Meter, list: &List<'a>, items: &List<'a>) -> Result<bool, Fault> {
    for item in items.iter() {
        if !compare::contains(meter, list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
