//! What both rotators of container logs agree on, a supervisor and a kubelet: limits, and the names of a log's older parts.
//!
//! A part is named for the log and a time in UTC, as kubelets name them: `0.log.20260102-030405`, and with `.gz` once it is
//! compressed. Names sort as the parts follow each other.

use crate::time::{date, second_of};
use crate::wire_struct;

pub const COMPRESSED: &str = ".gz";
pub const TEMPORARY: &str = ".tmp";
/// The log itself and one part: with fewer, a rotation would throw away what was just written.
pub const FILES_LEAST: u32 = 2;
const STAMP_SHAPE: &[u8] = b"dddddddd-dddddd";

wire_struct! {
    /// When a log is rotated.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LogLimits {
        /// No file of a log grows beyond that, but by a single line; 0 for whoever rotates logs himself.
        pub max_bytes: u64,
        /// Files of one log, the one being written included; at least [`FILES_LEAST`].
        pub max_files: u32,
    }
}

/// The name of the part that is made at a time, in seconds since the epoch.
pub fn part_name(log: &str, seconds: i64) -> String {
    let ((year, month, day), second) = date(seconds);
    format!("{log}.{year:04}{month:02}{day:02}-{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The time in a part's name and its form (`""`, [`COMPRESSED`] or [`TEMPORARY`]); None of what is no part of `log`.
pub fn parse_part<'a>(log: &str, name: &'a str) -> Option<(i64, &'a str)> {
    let (stamp, form) = name.strip_prefix(log)?.strip_prefix('.')?.split_at_checked(STAMP_SHAPE.len())?;
    let fits = |(c, shape): (u8, &u8)| if *shape == b'd' { c.is_ascii_digit() } else { c == *shape };
    if !stamp.bytes().zip(STAMP_SHAPE).all(fits) || !["", COMPRESSED, TEMPORARY].contains(&form) {
        return None;
    }
    let number = |from: usize, to: usize| stamp[from..to].parse::<i64>().ok();
    let day = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    Some((second_of(day, number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?), form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_its_name() {
        assert_eq!(part_name("0.log", 1_767_323_045), "0.log.20260102-030405");
        for second in [0, 951_827_696, 1_767_323_045, 4_102_444_799] {
            assert_eq!(parse_part("0.log", &part_name("0.log", second)), Some((second, "")));
        }
        assert_eq!(parse_part("0.log", "0.log.20260102-030405.gz"), Some((1_767_323_045, ".gz")));
        for none in
            ["0.log", "0.log.mine", "10.log.20260102-030405", "0.log.20260102-030405.bz2", "0.log.2026-102-030405"]
        {
            assert_eq!(parse_part("0.log", none), None, "{none}");
        }
    }
}
