//! Numbers against their bounds: integers are compared as such, all else as doubles.

use std::cmp::Ordering;

use serde_json::Value;

use super::formats::Format;
use crate::custom::structural::JsonType;

/// Which format a number is not of, as errors tell it.
pub(super) fn out_of_range(ty: JsonType, format: Option<Format>, number: &Value, value: f64) -> Option<&'static str> {
    let is_integer = number.is_i64() || is_whole(value);
    match (ty, format) {
        (JsonType::Integer, Some(Format::Int32)) => {
            let fits = is_integer && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
            (!fits).then_some("with format int32")
        }
        (JsonType::Integer, Some(Format::Int64)) => (!is_integer).then_some("with format int64"),
        (JsonType::Integer, _) => (!is_integer).then_some("(default format)"),
        (JsonType::Number, Some(Format::Float)) => (value.abs() > f64::from(f32::MAX)).then_some("with format float"),
        _ => None,
    }
}

/// Integers that a double holds exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

/// Whether a double is an integer, as JSON knows them.
pub(super) fn is_whole(value: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    let difference = (value - value.trunc()).abs();
    value.abs() <= WHOLE_MAX && (difference == 0.0 || difference / (value.abs() + value.trunc().abs()) < EPSILON)
}

/// None where no number can be a multiple of the factor.
pub(super) fn is_multiple(number: &Value, factor: f64) -> Option<bool> {
    if factor <= 0.0 {
        return None;
    }
    if let (Some(number), true) = (number.as_i64(), is_whole(factor)) {
        return Some(number % factor as i64 == 0);
    }
    let number = number.as_f64().unwrap_or(0.0);
    Some(is_whole(if factor < 1.0 { 1.0 / factor * number } else { number / factor }))
}

/// Integers are compared as such where the bound is one.
pub(super) fn compare(number: &Value, bound: f64) -> Option<Ordering> {
    match number.as_i64() {
        Some(number) if is_whole(bound) => Some(number.cmp(&(bound as i64))),
        _ => number.as_f64()?.partial_cmp(&bound),
    }
}
