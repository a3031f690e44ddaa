//! What calls of functions can cost, and how large what they make can be.

use super::{CREATE_LIST, Call, Entries, Estimate, Estimator, Facts, Node, ONE, PATTERN, Place, TEXT, UNKNOWN};
use crate::cel::library::{Overload, Sig};
use crate::cel::types::{Opaque, Type};
use crate::cel::value::Value;

/// The longest pattern of a named format, as upstream reckons.
const FORMAT_PATTERN_CHARS: f64 = 128.0;
/// The longest name of a format.
const FORMAT_NAME_MAX: u64 = 64;
/// An address of either family, in bytes.
const ADDRESS: Estimate = Estimate { min: 4, max: 16 };

/// Of a call by itself, without what its arguments cost.
struct Reckoned {
    cost: Estimate,
    size: Option<Estimate>,
}

impl Reckoned {
    fn cost(cost: Estimate) -> Reckoned {
        Reckoned { cost, size: None }
    }

    fn sized(cost: Estimate, size: Estimate) -> Reckoned {
        Reckoned { cost, size: Some(size) }
    }
}

impl Estimator<'_> {
    pub(super) fn call(&mut self, node: &Node, call: &Call) -> Facts {
        let args: Vec<Facts> = call.args.iter().map(|arg| self.node(arg)).collect();
        let args_cost = args.iter().fold(Estimate::default(), |sum, arg| sum.plus(arg.cost));
        if call.function.name == "dyn" {
            let of = args.into_iter().next().unwrap_or_default();
            return Facts { cost: ONE.plus(args_cost), place: None, ..of };
        }
        let mut all: Option<Reckoned> = None;
        for index in &call.overloads {
            let one = reckon(call, &call.function.overloads[*index], &args);
            all = Some(match all {
                None => one,
                Some(all) => Reckoned {
                    cost: all.cost.or(one.cost),
                    size: match (all.size, one.size) {
                        (Some(a), Some(b)) => Some(a.or(b)),
                        (a, b) => a.or(b),
                    },
                },
            });
        }
        let reckoned = all.unwrap_or(Reckoned::cost(ONE));
        let entries = match (call.function.name, args.as_slice()) {
            ("_+_", [a, b]) => a.entries.zip(b.entries).map(|(a, b): (Entries, Entries)| a.or(b)),
            _ => None,
        };
        Facts { cost: reckoned.cost.plus(args_cost), size: reckoned.size, entries, place: None }.settled(&node.ty)
    }
}

/// The whole number that an argument is, if it is a literal.
fn literal(node: &Node) -> Option<u64> {
    match node.literal() {
        Some(Value::Int(number)) => Some((*number).max(0).unsigned_abs()),
        _ => None,
    }
}

/// A list that is made, so many steps an element.
fn list_call(factor: f64, size: Estimate) -> Reckoned {
    Reckoned::sized(size.scaled(factor).plus(Estimate::fixed(1 + CREATE_LIST)), size)
}

fn reckon(call: &Call, overload: &Overload, args: &[Facts]) -> Reckoned {
    let size = |index: usize| args.get(index).map_or(UNKNOWN, Facts::size_or_unknown);
    let text = |index: usize| size(index).scaled(TEXT);
    match call.function.name {
        "slice" | "lists.range" | "reverse" | "flatten" | "distinct" | "sort" | "@sortByAssociatedKeys" => {
            list_function(call, overload, args)
        }
        "sets.contains" | "sets.intersects" => Reckoned::cost(size(0).times(size(1)).plus(ONE)),
        "sets.equivalent" => Reckoned::cost(size(0).times(size(1)).scaled(2.0).plus(ONE)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Reckoned::cost(traversal(call, args)),
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" => Reckoned::sized(text(0), size(0)),
        "replace" => Reckoned::sized(size(0).scaled(2.0 * TEXT), replaced(size(0), size(1), size(2))),
        "split" => {
            let most = call.args.get(2).and_then(literal).unwrap_or(size(0).max);
            Reckoned::sized(size(0).scaled(2.0 * TEXT), Estimate { min: 0, max: most })
        }
        "join" => {
            let joined = joined(call, args);
            Reckoned::sized(joined.scaled(TEXT), joined)
        }
        "find" | "findAll" => Reckoned::sized(matching(size(0), size(1)), Estimate { min: 0, max: size(0).max }),
        "matches" => Reckoned::cost(matching(size(0), size(1))),
        "ip" if overload.member => Reckoned::cost(ONE),
        "ip" | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            Reckoned::cost(text(0))
        }
        "ip.isCanonical" => Reckoned::cost(size(0).scaled(2.0 * TEXT)),
        "containsIP" | "containsCIDR" => {
            let mut cost = ADDRESS.plus(ADDRESS).scaled(TEXT);
            if call.function.name == "containsCIDR" {
                cost = cost.plus(ADDRESS.scaled(TEXT)).plus(ONE);
            }
            if overload.params.get(1) == Some(&Sig::String) {
                cost = cost.plus(text(1));
            }
            Reckoned::cost(cost)
        }
        "validate" => Reckoned::cost(text(1).scaled(FORMAT_PATTERN_CHARS * PATTERN)),
        "_==_" | "_!=_" => Reckoned::cost(equality(call, args)),
        _ => standard(call, overload, args),
    }
}

/// What the language itself has.
fn standard(call: &Call, overload: &Overload, args: &[Facts]) -> Reckoned {
    let size = |index: usize| args.get(index).map_or(UNKNOWN, Facts::size_or_unknown);
    let text = |index: usize| size(index).scaled(TEXT);
    let double = |size: Estimate, factor: u64| size.max.saturating_mul(factor);
    match (call.function.name, overload.params) {
        ("format", _) => Reckoned::cost(text(0)),
        ("bytes", [Sig::String]) => Reckoned::sized(text(0), Estimate { min: size(0).min, max: double(size(0), 4) }),
        ("string", [Sig::Bytes]) => Reckoned::sized(text(0), Estimate { min: size(0).min / 4, max: size(0).max }),
        ("strings.quote", _) => {
            let quoted = Estimate { min: size(0).min, max: double(size(0), 2) }.plus(Estimate::fixed(2));
            Reckoned::sized(text(0), quoted)
        }
        // Reckoned by what is looked for.
        ("startsWith" | "endsWith", _) => Reckoned::cost(text(1)),
        ("contains", _) => Reckoned::cost(text(0).times(text(1))),
        ("@in", [_, Sig::List(_)]) => Reckoned::cost(size(1)),
        ("_+_", [Sig::String | Sig::Bytes, _]) => {
            let sum = size(0).plus(size(1));
            Reckoned::sized(sum.scaled(TEXT), sum)
        }
        ("_+_", [Sig::List(_), _]) => Reckoned::sized(ONE, size(0).plus(size(1))),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [Sig::String | Sig::Bytes, _]) => Reckoned::cost(smaller(args)),
        _ => Reckoned::cost(ONE),
    }
}

fn list_function(call: &Call, overload: &Overload, args: &[Facts]) -> Reckoned {
    let size = |index: usize| args.get(index).map_or(UNKNOWN, Facts::size_or_unknown);
    let argument = |index: usize| call.args.get(index).and_then(literal);
    let square = |keys: usize| {
        let of = overload.params.get(keys);
        let texts = matches!(of, Some(Sig::List(Sig::String | Sig::Bytes)));
        list_call(if texts { 2.0 + TEXT } else { 2.0 }, size(keys).times(size(keys)))
    };
    match call.function.name {
        "slice" => {
            let (from, to) = (argument(1).unwrap_or(0), argument(2).unwrap_or(size(0).max));
            // Backwards is as far as can be, as upstream has it.
            list_call(1.0, Estimate::fixed(to.wrapping_sub(from)))
        }
        "lists.range" => list_call(1.0, Estimate::fixed(argument(0).unwrap_or(u64::MAX))),
        "flatten" => {
            let depth = if call.args.len() == 1 { 1 } else { argument(1).unwrap_or(u64::MAX) };
            list_call(depth as f64, size(0))
        }
        "distinct" => list_call(2.0, size(0).times(size(0))),
        "sort" => square(0),
        "@sortByAssociatedKeys" => square(1),
        _ => list_call(1.0, size(0)),
    }
}

/// Every element of a list, and the text of each.
fn traversal(call: &Call, args: &[Facts]) -> Estimate {
    let (Some(target), Some(facts)) = (call.args.first(), args.first()) else { return UNKNOWN };
    let Type::List(element) = &target.ty else { return facts.size_or_unknown().scaled(TEXT) };
    let text = match **element {
        Type::String | Type::Bytes => element_size(facts).scaled(TEXT),
        _ => Estimate::default(),
    };
    facts.size_or_unknown().times(ONE.plus(text))
}

/// The size of the elements of declared data.
fn element_size(list: &Facts) -> Estimate {
    list.place.as_ref().and_then(Place::element).map_or(UNKNOWN, |place| place.size())
}

fn matching(text: Estimate, pattern: Estimate) -> Estimate {
    text.plus(ONE).scaled(TEXT).times(pattern.scaled(PATTERN))
}

fn joined(call: &Call, args: &[Facts]) -> Estimate {
    let Some(list) = args.first() else { return UNKNOWN };
    let count = list.size_or_unknown();
    let is_list = matches!(call.args.first().map(|arg| &arg.ty), Some(Type::List(_)));
    let texts = if is_list { count.times(element_size(list)) } else { Estimate::default() };
    let between = Estimate { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
    match args.get(1) {
        Some(separator) => texts.plus(separator.size_or_unknown().times(between)),
        None => texts,
    }
}

/// How long a text can be in which one part is replaced by another.
fn replaced(text: Estimate, old: Estimate, new: Estimate) -> Estimate {
    let parts = |size: u64, part: u64| (size as f64 / part as f64).ceil() as u64;
    let (most, kept_max) = if old.min == 0 {
        // Nothing is found before and behind every character.
        (text.max.saturating_add(1), text.max)
    } else if new.max <= old.min {
        (0, text.max)
    } else {
        (parts(text.max, old.min), 0)
    };
    let (least, kept_min) = if old.max == 0 {
        (text.min.saturating_add(1), text.min)
    } else if old.max <= new.min {
        (0, text.min)
    } else {
        (parts(text.min, old.max), 0)
    };
    Estimate { min: least, max: most }.times(new).plus(Estimate { min: kept_min, max: kept_max })
}

fn smaller(args: &[Facts]) -> Estimate {
    let max = args.iter().map(|arg| arg.size_or_unknown().max).min().unwrap_or(0);
    Estimate { min: max.min(1), max }.scaled(TEXT)
}

fn equality(call: &Call, args: &[Facts]) -> Estimate {
    if call.function.name == "_==_"
        && let [a, b] = call.args.as_slice()
        && a.ty == b.ty
        && let Type::Opaque(opaque) = a.ty
    {
        return match opaque {
            Opaque::Format => Estimate { min: 1, max: FORMAT_NAME_MAX }.scaled(TEXT),
            _ => ONE,
        };
    }
    smaller(args)
}
