//! Moments and durations: as they are written, as they are printed, and the parts that an expression may ask for.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::Sig::*;
use super::{Function, method};
use crate::cel::price::Price;
use crate::cel::value::{Fault, Outcome, Value, no_such_overload, raise};
use crate::cron;

pub const SECOND: i128 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
/// From the year 1 to the end of 9999, in seconds since 1970.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;
const EPOCH: Date = jiff::civil::date(1970, 1, 1);
/// Nothing that is a duration or a time is longer.
const TEXT_MAX_BYTES: usize = 256;

/// A moment between the years 1 and 9999.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since 1970, in UTC.
    pub seconds: i64,
    pub nanos: u32,
    /// East of UTC, as it was written: it is printed so, and is no part of the moment.
    offset_seconds: i32,
}

impl PartialEq for Moment {
    fn eq(&self, other: &Moment) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Moment) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Moment) -> std::cmp::Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

impl Moment {
    pub fn of_nanos(nanos: i128) -> Option<Moment> {
        let seconds = i64::try_from(nanos.div_euclid(SECOND)).ok()?;
        let within = (FIRST_SECOND..=LAST_SECOND).contains(&seconds);
        within.then_some(Moment { seconds, nanos: nanos.rem_euclid(SECOND) as u32, offset_seconds: 0 })
    }

    /// Itself, if it is between those years.
    pub fn within(self) -> Option<Moment> {
        (FIRST_SECOND..=LAST_SECOND).contains(&self.seconds).then_some(self)
    }

    pub fn nanos(self) -> i128 {
        i128::from(self.seconds) * SECOND + i128::from(self.nanos)
    }

    /// What a clock at that offset from UTC shows.
    fn civil(self, offset_seconds: i64) -> DateTime {
        let local = self.seconds + offset_seconds;
        let days = SignedDuration::from_hours(24 * local.div_euclid(DAY_SECONDS));
        let date = EPOCH.checked_add(days).unwrap_or(Date::MAX);
        let second = local.rem_euclid(DAY_SECONDS);
        let part = |number: i64| i8::try_from(number).unwrap_or(0);
        let time = Time::new(part(second / 3600), part(second / 60 % 60), part(second % 60), self.nanos as i32);
        date.to_datetime(time.unwrap_or_default())
    }
}

const HOUR: i128 = 3_600 * SECOND;
const MINUTE: i128 = 60 * SECOND;
const MILLI: i128 = 1_000_000;

/// The methods of a moment: without an argument in UTC, with one in that zone.
const PARTS: &[super::Overload] = &[method(&[Timestamp], Int), method(&[Timestamp, String], Int)];
const PARTS_AND_TOTALS: &[super::Overload] =
    &[method(&[Timestamp], Int), method(&[Timestamp, String], Int), method(&[Duration], Int)];

const fn part(name: &'static str, run: super::Run) -> Function {
    Function { name, overloads: PARTS, price: Price::Nominal, run }
}

const fn part_or_total(name: &'static str, run: super::Run) -> Function {
    Function { name, overloads: PARTS_AND_TOTALS, price: Price::Nominal, run }
}

pub const FUNCTIONS: &[Function] = &[
    part("getFullYear", |_, args| of_moment(args, |at| i64::from(at.year()))),
    part("getMonth", |_, args| of_moment(args, |at| i64::from(at.month()) - 1)),
    part("getDayOfYear", |_, args| of_moment(args, |at| i64::from(at.day_of_year()) - 1)),
    part("getDayOfMonth", |_, args| of_moment(args, |at| i64::from(at.day()) - 1)),
    part("getDate", |_, args| of_moment(args, |at| i64::from(at.day()))),
    part("getDayOfWeek", |_, args| of_moment(args, |at| i64::from(at.weekday().to_sunday_zero_offset()))),
    part_or_total("getHours", |_, args| of_either(args, HOUR, |at| i64::from(at.hour()))),
    part_or_total("getMinutes", |_, args| of_either(args, MINUTE, |at| i64::from(at.minute()))),
    part_or_total("getSeconds", |_, args| of_either(args, SECOND, |at| i64::from(at.second()))),
    part_or_total("getMilliseconds", |_, args| {
        of_either(args, MILLI, |at| i64::from(at.subsec_nanosecond() / 1_000_000))
    }),
];

fn of_moment<'a>(args: &[Value<'a>], part: fn(&DateTime) -> i64) -> Outcome<'a> {
    let civil = match args {
        [Value::Timestamp(at)] => at.civil(0),
        [Value::Timestamp(at), Value::String(zone)] => at.civil(offset_of(*at, zone)?),
        _ => return no_such_overload(),
    };
    Ok(Value::Int(part(&civil)))
}

fn of_either<'a>(args: &[Value<'a>], unit: i128, part: fn(&DateTime) -> i64) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int((i128::from(*nanos) / unit) as i64)),
        _ => of_moment(args, part),
    }
}

/// Seconds east of UTC: of a zone by its name, or of an offset such as `-02:30`.
fn offset_of(at: Moment, zone: &str) -> Result<i64, Fault> {
    if zone.len() > TEXT_MAX_BYTES {
        return raise("unknown time zone");
    }
    if let Some((hours, minutes)) = zone.split_once(':') {
        let number = |text: &str| text.parse::<i16>().ok().filter(|number| number.abs() < 100);
        let (Some(hours), Some(minutes)) = (number(hours), number(minutes)) else {
            return raise(format!("invalid time zone offset: {zone}"));
        };
        let minutes = if zone.starts_with('-') { -minutes } else { minutes };
        return Ok((i64::from(hours) * 60 + i64::from(minutes)) * 60);
    }
    if matches!(zone, "" | "UTC") {
        return Ok(0);
    }
    let Some(named) = cron::zone(zone) else { return raise(format!("unknown time zone {zone}")) };
    let within = at.seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let offset = Timestamp::from_second(within).map(|at| named.to_offset(at)).unwrap_or(Offset::UTC);
    Ok(i64::from(offset.seconds()))
}

/// A moment so much later.
pub fn shifted<'a>(at: Moment, by: i128) -> Outcome<'a> {
    let shifted = Moment::of_nanos(at.nanos() + by);
    moment(shifted.map(|shifted| Moment { offset_seconds: at.offset_seconds, ..shifted }))
}

/// The moment, or the error that there is none.
pub fn moment<'a>(at: Option<Moment>) -> Outcome<'a> {
    at.map_or_else(|| raise("timestamp overflow"), |at| Ok(Value::Timestamp(at)))
}

pub fn duration<'a>(nanos: Option<i128>) -> Outcome<'a> {
    let nanos = nanos.and_then(|nanos| i64::try_from(nanos).ok());
    nanos.map_or_else(|| raise("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
}

/// Seconds, with as much of a fraction as there is.
pub fn duration_text(nanos: i64) -> std::string::String {
    let (seconds, rest) = (nanos / SECOND as i64, nanos % SECOND as i64);
    format!("{}s", seconds as f64 + rest as f64 / SECOND as f64)
}

/// RFC 3339, at the offset that it was written with.
pub fn timestamp_text(at: Moment) -> std::string::String {
    let mut text = at.civil(i64::from(at.offset_seconds)).strftime("%Y-%m-%dT%H:%M:%S").to_string();
    if at.nanos > 0 {
        text.push_str(format!(".{:09}", at.nanos).trim_end_matches('0'));
    }
    if at.offset_seconds == 0 {
        return text + "Z";
    }
    let minutes = at.offset_seconds.abs() / 60;
    let sign = if at.offset_seconds < 0 { '-' } else { '+' };
    format!("{text}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// RFC 3339, with any offset and fraction.
pub fn parse_timestamp(text: &str) -> Option<Moment> {
    let (local, rest) = parse_local(text)?;
    let offset = match rest {
        "Z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = rest[1..].split_once(':')?;
            let (hours, minutes) = (two_digits(hours, 24)?, two_digits(minutes, 60)?);
            sign * (hours * 60 + minutes) * 60
        }
    };
    Some(Moment { seconds: local.seconds - offset, nanos: local.nanos, offset_seconds: offset as i32 })
}

/// What `format: date-time` allows: the offset may be missing, and is UTC's then.
pub fn parse_date_time(text: &str) -> Option<Moment> {
    let at = match parse_local(text)? {
        (local, "") => local,
        _ => parse_timestamp(text)?,
    };
    at.within()
}

/// `format: date`: midnight of the day.
pub fn parse_date(text: &str) -> Option<Moment> {
    let midnight = format!("{}T00:00:00", (text.len() == 10).then_some(text)?);
    parse_local(&midnight).filter(|(_, rest)| rest.is_empty()).map(|(at, _)| at)
}

/// `2006-01-02T15:04:05.999`, and what follows it.
fn parse_local(text: &str) -> Option<(Moment, &str)> {
    if !text.is_ascii() || text.len() < 19 || text.len() > TEXT_MAX_BYTES {
        return None;
    }
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| text.as_bytes()[*at] != *separator) {
        return None;
    }
    let year = text[..4].bytes().all(|b| b.is_ascii_digit()).then(|| text[..4].parse::<i16>().ok())??;
    let (month, day) = (two_digits(&text[5..7], 13)?, two_digits(&text[8..10], 32)?);
    let date = Date::new(year, month as i8, day as i8).ok()?;
    let (hour, minute, second) =
        (two_digits(&text[11..13], 24)?, two_digits(&text[14..16], 60)?, two_digits(&text[17..19], 60)?);
    let mut rest = &text[19..];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        // Finer than a nanosecond is cut off.
        nanos = format!("{:0<9}", &fraction[..digits.min(9)]).parse().ok()?;
        rest = &fraction[digits..];
    }
    let days = date.duration_since(EPOCH).as_hours() / 24;
    let seconds = days * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some((Moment { seconds, nanos, offset_seconds: 0 }, rest))
}

fn two_digits(text: &str, end: i64) -> Option<i64> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|number| *number < end)
}

/// As Go reads durations: `1h30m`, `-1.5s`, `0`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let unit = |name: &str| {
        Some(match name {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => MILLI,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            _ => return None,
        })
    };
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if unsigned == "0" {
        return Some(0);
    }
    let nanos = sum_of_parts(unsigned, unit, false)?;
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

/// What `format: duration` allows beside: `2 days`, `1 week`.
pub fn parse_lenient_duration(text: &str) -> Option<i64> {
    const DAY: i128 = 24 * HOUR;
    let unit = |name: &str| {
        Some(match name {
            "ns" | "nano" => 1,
            "us" | "\u{b5}s" | "micro" => 1_000,
            "ms" | "milli" => MILLI,
            "s" | "sec" | "second" | "seconds" => SECOND,
            "m" | "min" | "minute" | "minutes" => MINUTE,
            "h" | "hr" | "hour" | "hours" => HOUR,
            "d" | "day" | "days" => DAY,
            "w" | "wk" | "week" | "weeks" => 7 * DAY,
            _ => return None,
        })
    };
    parse_duration(text).or_else(|| i64::try_from(sum_of_parts(text, unit, true)?).ok())
}

/// Numbers with their units, one after the other.
fn sum_of_parts(text: &str, unit: impl Fn(&str) -> Option<i128>, blanks: bool) -> Option<i128> {
    if text.is_empty() || text.len() > TEXT_MAX_BYTES {
        return None;
    }
    let (mut rest, mut sum) = (text, 0i128);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at(number);
        let after = if blanks { after.trim_start_matches(' ') } else { after };
        let name = after.find(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ')).unwrap_or(after.len());
        let (name, after) = after.split_at(name);
        rest = if blanks { after.trim_start_matches(' ') } else { after };
        sum = sum.checked_add(scaled(digits, unit(name)?)?)?;
    }
    Some(sum)
}

/// `1.5` of a unit, cut off at the nanosecond.
fn scaled(digits: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(part * unit / 10i128.pow(fraction.len() as u32))
}
