use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_kube::{Object, time};
use jiff::Timestamp;
use serde_json::Value;

const EXPIRATION: &str = "expiration";

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no end.
    Stays,
    EndsIn(Duration),
    Ended,
}

/// A token without its secret.
pub fn slim(mut secret: Object) -> Object {
    secret.metadata_mut().remove("managedFields");
    if let Some(data) = secret.0.get_mut("data").and_then(Value::as_object_mut) {
        data.retain(|key, _| key == EXPIRATION);
    }
    secret
}

/// A time that cannot be read has passed: a token whose end nobody knows would never have one.
pub fn judge(secret: &Object, now: Timestamp) -> Verdict {
    let encoded = secret.str_at("/data/expiration");
    if encoded.is_empty() {
        return Verdict::Stays;
    }
    let end = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let end = end.and_then(|text| time::parse(&text).ok());
    let left = end.map(|end| end.duration_since(now)).and_then(|left| Duration::try_from(left).ok());
    left.filter(|left| !left.is_zero()).map_or(Verdict::Ended, Verdict::EndsIn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(data: Value) -> Object {
        let data = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "data": data});
        Object::from_value(data).unwrap()
    }

    fn judged(expiration: &str, now: &str) -> Verdict {
        judge(&token(json!({"expiration": STANDARD.encode(expiration)})), now.parse().unwrap())
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let seconds = |n| Verdict::EndsIn(Duration::from_secs(n));
        assert_eq!(judged("2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z"), seconds(3600));
        assert_eq!(judged("2026-01-01T01:00:00+01:00", "2025-12-31T23:59:00Z"), seconds(60));
        assert_eq!(judged("2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z"), Verdict::Ended);
        assert_eq!(judged("2026-01-01T01:00:00Z", "2027-01-01T00:00:00Z"), Verdict::Ended);
        // What it was told to wait for is over, to the nanosecond: once it is deleted nothing is left to do.
        let now: Timestamp = "2026-01-01T00:00:00.000000001Z".parse().unwrap();
        let Verdict::EndsIn(wait) = judged("2026-01-01T01:00:00Z", &now.to_string()) else { panic!() };
        assert_eq!(judged("2026-01-01T01:00:00Z", &(now + wait).to_string()), Verdict::Ended);
    }

    #[test]
    fn one_that_cannot_be_read_has_ended_and_one_that_is_not_there_never_does() {
        for text in ["tomorrow", "2099-01-01", "2099-01-01 00:00:00Z", "4070908800"] {
            assert_eq!(judged(text, "2026-01-01T00:00:00Z"), Verdict::Ended, "{text}");
        }
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(judge(&token(json!({"expiration": "no base64"})), now), Verdict::Ended);
        for data in [json!(null), json!({}), json!({"expiration": ""})] {
            assert_eq!(judge(&token(data), now), Verdict::Stays);
        }
    }

    #[test]
    fn the_secret_itself_is_not_kept() {
        let kept = slim(token(json!({"token-secret": "eA==", "expiration": "eQ=="})));
        assert_eq!(kept.0["data"], json!({"expiration": "eQ=="}));
    }
}
