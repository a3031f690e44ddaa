//! Quantities (`500m`, `1.5Gi`): parsed, computed with, and printed in the one canonical form that Kubernetes prints.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/api/resource`: three formats, no finer than a nano (rounded away from
//! zero), no larger than 2^63-1, printed with the largest suffix that leaves no fraction.

use std::fmt;

/// One whole unit.
const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;
/// Longer numbers are refused: no quantity needs them.
const TEXT_MAX_BYTES: usize = 64;

/// How a quantity is printed; it keeps the family of suffixes in which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// A fixed-point number of nano-units and the format it prints in.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a string is not a quantity, worded as Kubernetes words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        if number.is_empty() {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Numeric);
        }
        let (format, base, exponent) = interpret(suffix)?;
        let nanos = scaled(whole, fraction, base, exponent);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub fn from_i64(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * NANOS, format }
    }

    pub fn from_milli(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        clamp(div_away(self.nanos, NANOS))
    }

    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        clamp(div_away(self.nanos, NANOS / 1000))
    }

    /// The number, if it is whole, and none that was held at the largest.
    pub fn integer(&self) -> Option<i64> {
        (self.nanos % NANOS == 0 && self.nanos.abs() < MAX_NANOS).then(|| i64::try_from(self.nanos / NANOS).ok())?
    }

    /// As near as a float comes.
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Rounded up to whole thousandths, as resource lists are.
    pub fn round_up_milli(self) -> Quantity {
        Quantity { nanos: div_away(self.nanos, NANOS / 1000) * (NANOS / 1000), ..self }
    }

    /// The sum; zero takes the format of the other.
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX_NANOS, MAX_NANOS), format }
    }

    #[allow(clippy::should_implement_trait)]
    pub fn sub(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos - other.nanos).clamp(-MAX_NANOS, MAX_NANOS), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small numbers print as decimals even when they were written in Ki and the like: 0.5Ki is 512.
        let small = self.nanos.abs() < 1024 * NANOS;
        let mut nanos = self.nanos;
        if self.format == Format::BinarySi && !small {
            let (mut number, mut power) = (div_away(self.nanos, NANOS), 0);
            nanos = number * NANOS;
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            // Whoever reads a number without a suffix takes it for a decimal one: Kubernetes' own store does, before a
            // client sees it.
            if power > 0 {
                return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
            }
        }
        // Thousands are taken off, beginning at nanos, for as long as no fraction comes of it.
        let (mut number, mut exponent) = (nanos, -9i32);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
        write!(f, "{number}{suffix}")
    }
}

/// The canonical text of a quantity's text.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    Ok(Quantity::parse(text)?.to_string())
}

/// What a suffix says: the format, the base (2 or 10) and the exponent.
fn interpret(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    let decimal = |exponent| Ok((Format::DecimalSi, 10, exponent));
    let binary = |exponent| Ok((Format::BinarySi, 2, exponent));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
            let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
            if !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(QuantityError::Format);
            }
            let exponent = suffix.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok());
            exponent.map(|e| (Format::DecimalExponent, 10, e)).ok_or(QuantityError::Suffix)
        }
    }
}

/// `whole.fraction * base^exponent` in nanos: rounded away from zero at the nano, held at the largest quantity.
fn scaled(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let places = fraction.len() as i32;
    // The decimal shift that turns the digits into nanos; a binary factor is applied before digits are lost.
    let shift = (if base == 10 { exponent } else { 0 }).saturating_sub(places).saturating_add(9);
    let factor = if base == 2 { 1i128 << exponent } else { 1 };
    let (kept, dropped) = if shift < 0 {
        let cut = digits.len().saturating_sub(shift.unsigned_abs() as usize);
        digits.split_at(cut)
    } else {
        (&digits[..], &[][..])
    };
    let grow = |from: i128, digit: u8| from.saturating_mul(10).saturating_add(i128::from(digit));
    let mut number = kept.iter().fold(0i128, |n, d| grow(n, *d));
    if factor == 1 {
        if dropped.iter().any(|d| *d != 0) {
            number = number.saturating_add(1);
        }
    } else if !dropped.is_empty() {
        // number + 0.dropped, times the factor: as many dropped digits as fit are multiplied, the rest round up.
        let taken = dropped.len().min(18);
        let part = dropped[..taken].iter().fold(0i128, |n, d| grow(n, *d));
        let unit = 10i128.pow(taken as u32);
        let rest = i128::from(dropped[taken..].iter().any(|d| *d != 0));
        let product = part.saturating_add(rest).saturating_mul(factor);
        return number.saturating_mul(factor).saturating_add(div_away(product, unit)).min(MAX_NANOS);
    }
    for _ in 0..shift.max(0) {
        if number == 0 || number >= MAX_NANOS {
            break;
        }
        number = number.saturating_mul(10);
    }
    number.saturating_mul(factor).min(MAX_NANOS)
}

/// Division that rounds away from zero.
fn div_away(number: i128, by: i128) -> i128 {
    let quotient = number / by;
    if number % by == 0 { quotient } else { quotient + number.signum() }
}

fn clamp(number: i128) -> i64 {
    number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_kubernetes_prints() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("0", "0"),
            ("-0", "0"),
            ("0Mi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("100", "100"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1025Ki", "1025Ki"),
            ("0.3Mi", "314573"),
            ("1000.9765625Ki", "1025k"),
            ("123456789", "123456789"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e2", "100"),
            ("1.1e3", "1100"),
            ("2e-3", "2e-3"),
            ("1E", "1E"),
            ("12E", "9223372036854775807"),
            ("1e30", "9223372036854775807"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("100u", "100u"),
            (".5", "500m"),
            ("5.", "5"),
            ("+5", "5"),
            ("-5Gi", "-5Gi"),
            ("1e-99999", "1e-9"),
            ("0.0000000000001Ki", "1n"),
        ] {
            assert_eq!(super::canonical(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("m", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1gb", QuantityError::Format),
            ("1GiB", QuantityError::Format),
            ("1ki", QuantityError::Suffix),
            ("1KM", QuantityError::Suffix),
            ("1.2.3", QuantityError::Numeric),
            (".", QuantityError::Numeric),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn computes() {
        let q = |s| Quantity::parse(s).unwrap();
        assert_eq!(q("1.5").value(), 2);
        assert_eq!(q("1.5").milli_value(), 1500);
        assert_eq!(q("100u").round_up_milli().to_string(), "1m");
        assert_eq!(q("1Gi").add(q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("1").sub(q("250m")).to_string(), "750m");
        assert!(q("1Gi") > q("1G") && q("0.5") == q("500m"));
        assert_eq!(Quantity::ZERO.add(q("1Mi")).to_string(), "1Mi");
    }

    proptest! {
        #[test]
        fn never_panics_and_is_a_fixed_point(text in "[+-]?[0-9.]{0,30}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            if let Ok(once) = super::canonical(&text) {
                prop_assert_eq!(super::canonical(&once).unwrap(), once);
            }
        }

        #[test]
        fn keeps_the_value(number in -1_000_000_000i64..1_000_000_000, suffix in "(n|u|m||k|M|Ki|Mi|Gi)") {
            let q = Quantity::parse(&format!("{number}{suffix}")).unwrap();
            prop_assert_eq!(Quantity::parse(&q.to_string()).unwrap(), q);
        }

        #[test]
        fn any_text_is_safe(text in ".{0,80}") {
            let _ = Quantity::parse(&text);
        }
    }
}
