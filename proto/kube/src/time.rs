//! Time and MicroTime: RFC 3339 in UTC, with whole seconds or with microseconds.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// 0000-01-01T00:00:00Z.
const YEAR_ZERO: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// Why a string is not a time, in the words that the API's users know.
#[derive(Debug, thiserror::Error)]
#[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse it")]
pub struct TimeError(pub String);

/// `2026-01-02T03:04:05Z`: Time, as metadata carries it.
pub fn seconds(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`: MicroTime, as Leases carry it.
pub fn micros(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Any RFC 3339 time, whatever its offset and precision.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    let bytes = text.as_bytes();
    // jiff reads more than RFC 3339 (spaces, short offsets, zone names), which other clients would then stumble over.
    let strict = bytes.len() >= 20
        && bytes.len() <= 40
        && bytes[10] == b'T'
        && bytes.iter().all(|b| b.is_ascii_digit() || b"-+:.TZ".contains(b))
        && (text.ends_with('Z') || bytes[bytes.len() - 3] == b':' && b"+-".contains(&bytes[bytes.len() - 6]));
    if !strict {
        return Err(TimeError(text.to_owned()));
    }
    text.parse().ok().filter(has_a_year).ok_or_else(|| TimeError(text.to_owned()))
}

/// The timestamp of a protobuf Time: seconds since 1970 and nanoseconds.
pub fn from_parts(secs: i64, nanos: i32) -> Option<Timestamp> {
    let since = SignedDuration::from_secs(secs).checked_add(SignedDuration::from_nanos(i64::from(nanos)))?;
    Timestamp::UNIX_EPOCH.checked_add(since).ok().filter(has_a_year)
}

/// Whether Go takes what [`seconds`] or [`micros`] printed for no time at all.
pub fn is_zero(printed: &str) -> bool {
    matches!(printed, "0001-01-01T00:00:00Z" | "0001-01-01T00:00:00.000000Z")
}

/// Whether its UTC has a year that four digits can say: any other would be printed as what nobody reads, ourselves
/// included.
fn has_a_year(at: &Timestamp) -> bool {
    *at >= YEAR_ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, whole, micro) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.9999999Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.999999Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z", "2026-01-02T01:04:05.000000Z"),
        ] {
            let at = parse(text).unwrap();
            assert_eq!((seconds(at).as_str(), micros(at).as_str()), (whole, micro));
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "now",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05",
            "0000-01-01T00:00:00+00:01",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("0000-01-01T00:00:00Z").is_ok() && from_parts(YEAR_ZERO.as_second(), -1).is_none());
        assert!(from_parts(i64::MAX, i32::MAX).is_none());
    }
}
