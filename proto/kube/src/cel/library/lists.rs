//! Lists: Kubernetes' own library, and cel-go's extension, version 3.

use super::Sig::*;
use super::{Function, LIST, Overload, arith, call, compare, method};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::types::Type;
use crate::cel::value::{Fault, List, Outcome, Value, no_such_overload, raise};

const INTS: super::Sig = List(&Int);
const UINTS: super::Sig = List(&Uint);
const DOUBLES: super::Sig = List(&Double);
const BOOLS: super::Sig = List(&Bool);
const DURATIONS: super::Sig = List(&Duration);
const TIMESTAMPS: super::Sig = List(&Timestamp);
const STRINGS: super::Sig = List(&String);
const BYTE_LISTS: super::Sig = List(&Bytes);

/// Of lists of what has an order: the element.
const EXTREME: &[Overload] = &[
    method(&[INTS], Int),
    method(&[UINTS], Uint),
    method(&[DOUBLES], Double),
    method(&[BOOLS], Bool),
    method(&[DURATIONS], Duration),
    method(&[TIMESTAMPS], Timestamp),
    method(&[STRINGS], String),
    method(&[BYTE_LISTS], Bytes),
];

const IS_SORTED: &[Overload] = &[
    method(&[INTS], Bool),
    method(&[UINTS], Bool),
    method(&[DOUBLES], Bool),
    method(&[BOOLS], Bool),
    method(&[DURATIONS], Bool),
    method(&[TIMESTAMPS], Bool),
    method(&[STRINGS], Bool),
    method(&[BYTE_LISTS], Bool),
];

const SORT: &[Overload] = &[
    method(&[INTS], INTS),
    method(&[UINTS], UINTS),
    method(&[DOUBLES], DOUBLES),
    method(&[BOOLS], BOOLS),
    method(&[DURATIONS], DURATIONS),
    method(&[TIMESTAMPS], TIMESTAMPS),
    method(&[STRINGS], STRINGS),
    method(&[BYTE_LISTS], BYTE_LISTS),
];

const SORT_BY: &[Overload] = &[
    method(&[LIST, INTS], LIST),
    method(&[LIST, UINTS], LIST),
    method(&[LIST, DOUBLES], LIST),
    method(&[LIST, BOOLS], LIST),
    method(&[LIST, DURATIONS], LIST),
    method(&[LIST, TIMESTAMPS], LIST),
    method(&[LIST, STRINGS], LIST),
    method(&[LIST, BYTE_LISTS], LIST),
];

const SUMS: &[Overload] =
    &[method(&[INTS], Int), method(&[UINTS], Uint), method(&[DOUBLES], Double), method(&[DURATIONS], Duration)];

/// The sums of nothing that are no integers.
const EMPTY_SUMS: [(Type, Function); 3] = [
    (Type::Uint, function("sum", SUMS, Price::Traverse, |meter, args| sum(meter, args, Value::Uint(0)))),
    (Type::Double, function("sum", SUMS, Price::Traverse, |meter, args| sum(meter, args, Value::Double(0.0)))),
    (Type::Duration, function("sum", SUMS, Price::Traverse, |meter, args| sum(meter, args, Value::Duration(0)))),
];

/// `sum` for a result of that type: an empty list has no element that would tell it.
pub fn sum_of(result: &Type) -> Option<&'static Function> {
    static SUMS: [(Type, Function); 3] = EMPTY_SUMS;
    SUMS.iter().find(|(ty, _)| ty == result).map(|(_, function)| function)
}

/// Into what `sortBy` turns.
pub const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";

const fn function(name: &'static str, overloads: &'static [Overload], price: Price, run: super::Run) -> Function {
    Function { name, overloads, price, run }
}

pub const FUNCTIONS: &[Function] = &[
    function("isSorted", IS_SORTED, Price::Traverse, |_, args| is_sorted(list(args)?)),
    function("sum", SUMS, Price::Traverse, |meter, args| sum(meter, args, Value::Int(0))),
    function("min", EXTREME, Price::Traverse, |_, args| extreme(list(args)?, "min", std::cmp::Ordering::is_lt)),
    function("max", EXTREME, Price::Traverse, |_, args| extreme(list(args)?, "max", std::cmp::Ordering::is_gt)),
    function("slice", &[method(&[LIST, Int, Int], LIST)], Price::Slice, |_, args| match args {
        [Value::List(list), Value::Int(from), Value::Int(to)] => slice(list, *from, *to),
        _ => no_such_overload(),
    }),
    function(
        "flatten",
        &[method(&[List(&LIST)], LIST), method(&[List(&Dyn), Int], List(&Dyn))],
        Price::Flatten,
        |meter, args| {
            let depth = match args {
                [_] => 1,
                [_, Value::Int(depth)] => *depth,
                _ => return no_such_overload(),
            };
            if depth < 0 {
                return raise("level must be non-negative");
            }
            let mut out = Vec::new();
            flatten(meter, list(args)?, depth, &mut out)?;
            Ok(Value::list(out))
        },
    ),
    function("sort", SORT, Price::SelfCompare, |_, args| {
        let list = list(args)?;
        sort_by(list, list)
    }),
    function(SORT_BY_KEYS, SORT_BY, Price::SelfCompareKeys, |_, args| match args {
        [Value::List(list), Value::List(keys)] => sort_by(list, keys),
        _ => no_such_overload(),
    }),
    function("lists.range", &[call(&[Int], INTS)], Price::Range, |_, args| match args {
        [Value::Int(count)] => Ok(Value::list((0..*count).map(Value::Int).collect())),
        _ => no_such_overload(),
    }),
    function("reverse", &[method(&[LIST], LIST)], Price::CopyList, |_, args| {
        let mut items = items(list(args)?)?;
        items.reverse();
        Ok(Value::list(items))
    }),
    function("distinct", &[method(&[LIST], LIST)], Price::SelfCompare, |meter, args| {
        let (mut known, mut out) = (compare::Set::default(), Vec::new());
        for item in list(args)?.iter() {
            let item = item?;
            if !known.contains(meter, &item)? {
                known.insert(item.clone());
                out.push(item);
            }
        }
        Ok(Value::list(out))
    }),
];

fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, Fault> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => no_such_overload(),
    }
}

fn items<'a>(list: &List<'a>) -> Result<Vec<Value<'a>>, Fault> {
    list.iter().collect()
}

/// The index of the first element that is equal, or of the last; -1 if none is.
pub fn position<'a>(meter: &mut Meter, list: &List<'a>, value: &Value<'a>, last: bool) -> Outcome<'a> {
    let mut found = -1;
    for (index, item) in list.iter().enumerate() {
        if compare::equal(meter, &item?, value)? {
            found = index as i64;
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn is_sorted<'a>(list: &List<'a>) -> Outcome<'a> {
    let mut before: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        if let Some(before) = &before
            && compare::order(before, &item)?.is_gt()
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(meter: &mut Meter, args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let mut sum: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        sum = Some(match sum {
            Some(sum) => arith::add(meter, &sum, &item)?,
            None => item,
        });
    }
    Ok(sum.unwrap_or(zero))
}

fn extreme<'a>(list: &List<'a>, name: &str, better: fn(std::cmp::Ordering) -> bool) -> Outcome<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        let takes = match &best {
            Some(best) => better(compare::order(&item, best)?),
            None => true,
        };
        if takes {
            best = Some(item);
        }
    }
    best.map_or_else(|| raise(format!("{name} called on empty list")), Ok)
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Outcome<'a> {
    let length = list.len() as i64;
    let fault = |why: std::string::String| raise(format!("cannot slice({from}, {to}), {why}"));
    if from < 0 || to < 0 {
        return fault("negative indexes not supported".to_owned());
    }
    if from > to {
        return fault("start index must be less than or equal to end index".to_owned());
    }
    if length < to {
        return fault(format!("list is length {length}"));
    }
    let taken = list.iter().skip(from as usize).take((to - from) as usize);
    Ok(Value::list(taken.collect::<Result<_, _>>()?))
}

fn flatten<'a>(meter: &mut Meter, list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), Fault> {
    meter.work(list.len() as u64)?;
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten(meter, &inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn sort_by<'a>(list: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    let (values, keys) = (items(list)?, items(keys)?);
    if values.len() != keys.len() {
        return raise(format!(
            "{SORT_BY_KEYS}() expected a list of the same size as the associated keys list, but got {} and {} elements \
             respectively",
            values.len(),
            keys.len()
        ));
    }
    let Some(first) = keys.first() else { return Ok(Value::list(values)) };
    if compare::order(first, first).is_err() {
        return raise("list elements must be comparable");
    }
    if keys.iter().any(|key| key.type_name() != first.type_name()) {
        return raise("list elements must have the same type");
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| compare::order(&keys[*a], &keys[*b]).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list(order.into_iter().map(|index| values[index].clone()).collect()))
}
