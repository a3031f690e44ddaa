//! Numbers as Go prints and reads them.

use crate::custom::print;

/// The longest text of a number that is read: no number needs more.
const FLOAT_TEXT_MAX_BYTES: usize = 1_024;

/// Go's `%g`: as few digits as tell the number from all others, with an exponent for what is large or small.
pub fn shortest(number: f64) -> String {
    if let Some(word) = word(number) {
        return word.to_owned();
    }
    print::float(number)
}

/// Infinities, and what is no number.
pub fn word(number: f64) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        n if n.is_infinite() => Some(if n > 0.0 { "+Inf" } else { "-Inf" }),
        _ => None,
    }
}

/// Go's ParseFloat, without its hexadecimal forms.
pub fn parse_float(text: &str) -> Option<f64> {
    if text.len() > FLOAT_TEXT_MAX_BYTES || text.is_empty() {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    let digits = text.trim_start_matches(['+', '-']);
    let spelled = digits.starts_with(|c: char| c.is_ascii_alphabetic());
    (spelled || number.is_finite()).then_some(number)
}
