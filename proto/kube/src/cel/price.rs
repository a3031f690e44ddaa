//! What calls cost when they are evaluated. The figures are Kubernetes': rules that pass there pass here, and the other way
//! round. (Sizes: see [`Value::size`].)

use super::meter::scan;
use super::value::{List, Map, Value};

/// By which rule a function's calls are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// One unit.
    Nominal,
    /// Going through the first text once; one unit for what is no text.
    Scan,
    /// Making a text of bytes; one unit for anything else.
    Decode,
    /// Going through it, and making as much again.
    ScanTwice,
    /// Twice through what comes of it; known after the call.
    Join,
    /// Text against pattern.
    Match,
    /// Text against text.
    Contains,
    /// Both texts, or one unit for what has no size.
    Concat,
    /// The smaller of the two.
    Compare,
    /// Every element of a list, one unit for a map.
    In,
    /// Everything in the first value.
    Traverse,
    /// Elements of one list times those of the other, so often.
    Product(u64),
    /// A list of the length of the first.
    CopyList,
    /// A list from one index to another.
    Slice,
    /// A list of so many numbers.
    Range,
    /// A list as long as the first, for each level.
    Flatten,
    /// Every element of a list against every other.
    SelfCompare,
    /// The same for the list in the second place.
    SelfCompareKeys,
    ContainsIp,
    ContainsCidr,
    /// Text against the pattern of a format.
    Validate,
}

const LIST: u64 = 10;

impl Price {
    /// What a call costs, as far as its arguments say.
    pub fn of(self, args: &[Value<'_>]) -> u64 {
        let size = |index: usize| args.get(index).map_or(1, Value::size);
        match self {
            Price::Nominal => 1,
            Price::Join => 0,
            Price::Scan => match args.first() {
                Some(Value::String(_) | Value::Bytes(_)) => scan(size(0)),
                _ => 1,
            },
            Price::Decode => match args.first() {
                Some(Value::Bytes(bytes)) => scan(bytes.len() as u64),
                _ => 1,
            },
            Price::ScanTwice => scan(size(0).saturating_mul(2)),
            Price::Match => scan(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4)),
            Price::Contains => scan(size(0)).saturating_mul(scan(size(1))),
            Price::Concat => match args.first() {
                Some(Value::String(_) | Value::Bytes(_)) => scan(size(0).saturating_add(size(1))),
                _ => 1,
            },
            Price::Compare => compare(args),
            Price::In => match args.get(1) {
                Some(Value::List(list)) => list.len() as u64,
                _ => 1,
            },
            Price::Traverse => match args.first() {
                Some(Value::String(text)) => text.len() as u64 / 10,
                Some(value) => traversal(value),
                None => 0,
            },
            Price::Product(times) => 1 + size(0).saturating_mul(size(1)).saturating_mul(times),
            Price::CopyList => 1 + LIST + size(0),
            Price::Slice => match args {
                [_, Value::Int(from), Value::Int(to)] => 1 + LIST + to.saturating_sub(*from).max(0).unsigned_abs(),
                _ => 1 + LIST,
            },
            Price::Range => match args {
                [Value::Int(count)] => (1 + LIST).saturating_add((*count).max(0).unsigned_abs()),
                _ => 1 + LIST,
            },
            Price::Flatten => {
                let depth = args.get(1).map_or(1, |depth| match depth {
                    Value::Int(depth) => (*depth).max(0).unsigned_abs(),
                    _ => 1,
                });
                (1 + LIST).saturating_add(size(0).saturating_mul(depth))
            }
            Price::SelfCompare => self_compare(args.first()),
            Price::SelfCompareKeys => self_compare(args.get(1)),
            Price::ContainsIp => match args.get(1) {
                Some(Value::String(text)) => scan(2 * size(0)) + scan(text.len() as u64),
                _ => scan(2 * size(0)),
            },
            Price::ContainsCidr => {
                let net = scan(2 * size(0)) + scan(size(0)) + 1;
                net + if let Some(Value::String(text)) = args.get(1) { scan(text.len() as u64) } else { 0 }
            }
            Price::Validate => match args.first() {
                Some(Value::Format(format)) => scan(size(1) + 1).saturating_mul(format.pattern_chars.div_ceil(4)),
                _ => 1,
            },
        }
    }

    /// What is known of it only by the result.
    pub fn of_result(self, result: &Value<'_>) -> u64 {
        if self == Price::Join { scan(result.size().saturating_mul(2)) } else { 0 }
    }
}

fn compare(args: &[Value<'_>]) -> u64 {
    match args {
        [
            Value::Quantity(_) | Value::Url(_) | Value::Ip(_) | Value::Cidr(_) | Value::Semver(_) | Value::Format(_),
            ..,
        ] => 1,
        // Two texts cost by the shorter one, and that is found without counting both to their ends.
        [Value::String(a), Value::String(b)] => {
            let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
            let short = short.chars().count() as u64;
            scan(if long.is_ascii() || short * 4 <= long.len() as u64 {
                short
            } else {
                short.min(long.chars().count() as u64)
            })
        }
        [a, b] => scan(a.size().min(b.size())),
        _ => 1,
    }
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 + LIST };
    let square = (list.len() as u64).saturating_mul(list.len() as u64);
    let texts = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
    let compared = square.saturating_mul(2);
    compared.saturating_add(if texts { square / 10 } else { 0 }).saturating_add(1 + LIST)
}

/// Everything that a value holds: texts by their length, the rest one by one.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => text.len() as u64 / 10,
        Value::Bytes(bytes) => bytes.len() as u64 / 10,
        Value::List(list) => match list {
            // Texts of the data are counted without being read.
            List::Data(data) => data.items.iter().map(json_traversal).fold(0, u64::saturating_add),
            List::Made { items, .. } => items.iter().map(traversal).fold(0, u64::saturating_add),
        },
        Value::Map(Map::Made(entries)) => {
            let entry = |(key, value): (&super::value::Key<'_>, &Value<'_>)| traversal(&key.value()) + traversal(value);
            entries.iter().map(entry).fold(0, u64::saturating_add)
        }
        Value::Map(Map::Data(data)) => {
            let entry = |(key, value): (&String, &serde_json::Value)| key.len() as u64 / 10 + json_traversal(value);
            data.entries.iter().map(entry).fold(0, u64::saturating_add)
        }
        _ => 1,
    }
}

fn json_traversal(json: &serde_json::Value) -> u64 {
    match json {
        serde_json::Value::String(text) => text.len() as u64 / 10,
        serde_json::Value::Array(items) => items.iter().map(json_traversal).fold(0, u64::saturating_add),
        serde_json::Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| key.len() as u64 / 10 + json_traversal(value))
            .fold(0, u64::saturating_add),
        _ => 1,
    }
}
