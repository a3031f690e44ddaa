//! The times in CRI logs and in the names of their parts, without a calendar crate.

/// `2026-01-02T03:04:05.000000006Z`, in 30 bytes.
pub fn rfc3339_nanos(seconds: i64, nanos: u32) -> String {
    let ((year, month, day), second) = date(seconds);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a time since the epoch, and the second of that day.
pub fn date(seconds: i64) -> ((i64, i64, i64), i64) {
    (civil(seconds.div_euclid(86_400)), seconds.rem_euclid(86_400))
}

/// The time since the epoch of a second of a day; what [`date`] takes apart.
pub fn second_of((year, month, day): (i64, i64, i64), second: i64) -> i64 {
    let from_march = (month + 9) % 12;
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * from_march + 2) / 5 + day - 1;
    (era * 146_097 + day_of_era - 719_468) * 86_400 + second
}

/// The Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(rfc3339_nanos(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339_nanos(951_827_696, 7), "2000-02-29T12:34:56.000000007Z");
        assert_eq!(rfc3339_nanos(1_798_761_599, 999_999_999), "2026-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339_nanos(-1, 0), "1969-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn a_date_leads_back_to_its_second() {
        for seconds in (-4_000_000_000..8_000_000_000).step_by(86_400 * 3 + 12_345) {
            let (day, second) = date(seconds);
            assert_eq!(second_of(day, second), seconds, "{day:?}");
        }
    }
}
