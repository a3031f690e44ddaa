//! How long a request may take. All but watches and streams end within a minute, or within the `timeout` that the client
//! asks for where that is shorter; the answer is then 504, and what was under way is given up.

use std::time::Duration;

use gantry_kube::Status;

use super::query::Query;

/// Kubernetes' own (`--request-timeout`).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The time that a request has.
pub fn of(query: &Query) -> Result<Duration, Status> {
    let Some(text) = query.get("timeout") else { return Ok(REQUEST_TIMEOUT) };
    let refused = |why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}"));
    let asked = duration(text).map_err(refused)?;
    // Nothing and less ask for no limit of the client's own.
    Ok(asked.filter(|asked| !asked.is_zero()).map_or(REQUEST_TIMEOUT, |asked| asked.min(REQUEST_TIMEOUT)))
}

pub fn exceeded() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

const UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
/// What fits Go's durations.
const MAX_SECONDS: f64 = 9_223_372_036.0;

/// A duration as Go writes it (`1h2m3.5s`); `None` where it is below zero. Refusals are in Go's words, which clients show.
fn duration(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let one = number.bytes().filter(|byte| *byte == b'.').count() < 2 && number != ".";
        let number: f64 = number.parse().ok().filter(|_| one).ok_or_else(invalid)?;
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        seconds += number * factor;
        rest = behind;
    }
    if seconds > MAX_SECONDS {
        return Err(invalid());
    }
    Ok(Some(Duration::from_secs_f64(seconds)).filter(|_| !negative))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Duration, String> {
        of(&Query::parse(&format!("timeout={text}"))).map_err(|status| {
            assert_eq!(status.code, 400);
            status.message
        })
    }

    #[test]
    fn a_client_may_ask_for_less_than_a_minute() {
        assert_eq!(of(&Query::default()), Ok(REQUEST_TIMEOUT));
        for (text, millis) in [
            ("32s", 32_000),
            ("1.5s", 1500),
            ("1m30s", 60_000),
            ("300ms", 300),
            ("0", 60_000),
            ("0s", 60_000),
            ("-5s", 60_000),
        ] {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_gos_words() {
        let head = "invalid timeout specified in the request URL - time: ";
        for (text, words) in [
            ("abc", "invalid duration \"abc\""),
            ("10", "missing unit in duration \"10\""),
            ("10x", "unknown unit \"x\" in duration \"10x\""),
            ("1.2.3s", "invalid duration \"1.2.3s\""),
            (".s", "invalid duration \".s\""),
            ("-", "invalid duration \"-\""),
            ("9999999999999h", "invalid duration \"9999999999999h\""),
        ] {
            assert_eq!(read(text), Err(format!("{head}{words}")), "{text}");
        }
    }
}
