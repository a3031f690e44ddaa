//! Values as Go prints them.

/// A float as `%v` has it: the fewest digits that tell it, with an exponent from a million on and below a ten-thousandth.
pub(crate) fn float(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        let all = [
            (1.0, "1"),
            (0.5, "0.5"),
            (1e5, "100000"),
            (1e6, "1e+06"),
            (1234567.0, "1.234567e+06"),
            (1e-5, "1e-05"),
            (-2.5, "-2.5"),
        ];
        for (value, text) in all {
            assert_eq!(float(value), text);
        }
    }
}
