//! What becomes of one container's log and of the parts it was rotated into. Pure.
//!
//! The newest part stays as it is until the next rotation: whoever ships logs may still be reading it.

pub use gantry_base::log::{COMPRESSED, TEMPORARY};
use gantry_base::log::{FILES_LEAST, parse_part, part_name};
use jiff::Timestamp;

/// The kubelet's defaults.
pub const MAX_BYTES: u64 = 10 << 20;
pub const MAX_FILES: usize = 5;
/// The log itself and one part: with fewer, a rotation would throw away what was just written.
pub const MAX_FILES_LEAST: usize = FILES_LEAST as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A log of this size is rotated.
    pub max_bytes: u64,
    /// Files of one log, the one being written included; at least [`MAX_FILES_LEAST`].
    pub max_files: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: MAX_BYTES, max_files: MAX_FILES }
    }
}

/// The folder of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Of the log; none where it is not there.
    pub size: Option<u64>,
    /// Every name in the folder.
    pub names: Vec<String>,
}

/// In this order, the log being opened anew before anything is compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub remove: Vec<String>,
    pub rename_to: Option<String>,
    pub reopen: bool,
    pub compress: Vec<String>,
}

/// Whether `name` is a part of `log`, in whatever form.
pub fn is_part(log: &str, name: &str) -> bool {
    parse_part(log, name).is_some()
}

/// A runtime that rotates as it writes leaves no log that has grown to its limit; its parts are put in order all the same.
pub fn plan(log: &str, found: &Found, limits: Limits, now: Timestamp) -> Plan {
    // A rotation was cut short, or someone took the file away: the container writes into a file without a name.
    let missing = found.size.is_none();
    let rotate = found.size.is_some_and(|size| size >= limits.max_bytes);
    let taken = |name: &str| found.names.iter().any(|n| n == name);
    let is_left_over = |part: &String| part.ends_with(TEMPORARY) || taken(&format!("{part}{COMPRESSED}"));
    let parts = found.names.iter().filter(|n| is_part(log, n)).cloned();
    let (mut remove, mut parts): (Vec<String>, Vec<String>) = parts.partition(is_left_over);
    // Names are times, so the oldest sort first. Of two rotations in a second, or after the clock was set back, the next is
    // named for the second after the newest.
    parts.sort();
    let newest = parts.iter().filter_map(|part| parse_part(log, part)).map(|(second, _)| second).max();
    let second = newest.map_or(now.as_second(), |newest| now.as_second().max(newest + 1));
    // The log and the part it becomes count too.
    let room = limits.max_files.max(MAX_FILES_LEAST) - 1 - usize::from(rotate);
    remove.extend(parts.drain(..parts.len().saturating_sub(room)));
    if !rotate {
        parts.pop();
    }
    parts.retain(|part| !part.ends_with(COMPRESSED));
    Plan { remove, rename_to: rotate.then(|| part_name(log, second)), reopen: rotate || missing, compress: parts }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 100, max_files: 4 };

    fn at(second: i64) -> Timestamp {
        Timestamp::new(1_767_323_045 + second, 0).unwrap()
    }

    fn found(size: u64, names: &[&str]) -> Found {
        Found { size: Some(size), names: names.iter().map(|n| (*n).to_owned()).collect() }
    }

    #[test]
    fn a_small_log_is_left_alone_and_a_missing_one_is_opened() {
        assert_eq!(plan("0.log", &found(99, &["0.log"]), LIMITS, at(0)), Plan::default());
        let missing = Found { size: None, names: vec!["0.log.20260102-030400".to_owned()] };
        assert_eq!(plan("0.log", &missing, LIMITS, at(0)), Plan { reopen: true, ..Plan::default() });
    }

    #[test]
    fn the_oldest_go_and_older_ones_are_compressed() {
        let names = [
            "0.log",
            "0.log.20260102-030401",
            "0.log.20260102-030400.gz",
            "0.log.20260102-030402",
            "0.log.20260102-030403",
            "0.log.20260102-030403.tmp",
            "0.log.20260102-030404",
            "0.log.20260102-030404.gz",
            "0.log.mine",
            "10.log.20260102-030400",
        ];
        let plan = plan("0.log", &found(100, &names), LIMITS, at(0));
        assert_eq!(
            plan.remove,
            [
                "0.log.20260102-030403.tmp",
                "0.log.20260102-030404",
                "0.log.20260102-030400.gz",
                "0.log.20260102-030401",
                "0.log.20260102-030402",
            ]
        );
        assert_eq!(plan.rename_to.as_deref(), Some("0.log.20260102-030405"));
        assert!(plan.reopen);
        assert_eq!(plan.compress, ["0.log.20260102-030403"]);
    }

    #[test]
    fn no_name_is_used_twice_and_names_sort() {
        for taken in ["0.log.20260102-030405", "0.log.20260102-030405.gz"] {
            let plan = plan("0.log", &found(100, &["0.log", taken]), LIMITS, at(0));
            assert_eq!(plan.rename_to.as_deref(), Some("0.log.20260102-030406"));
        }
        let ahead = plan("0.log", &found(100, &["0.log", "0.log.20260102-235959"]), LIMITS, at(0));
        assert_eq!(ahead.rename_to.as_deref(), Some("0.log.20260103-000000"));
    }

    #[test]
    fn what_a_runtime_has_rotated_is_compressed_and_bounded() {
        let names = ["0.log", "0.log.20260102-030401", "0.log.20260102-030402", "0.log.20260102-030403"];
        let plan = plan("0.log", &found(1, &names), LIMITS, at(0));
        let compress = ["0.log.20260102-030401", "0.log.20260102-030402"].map(str::to_owned).to_vec();
        assert_eq!(plan, Plan { compress, ..Plan::default() }, "but for the newest");
        let plan = super::plan("0.log", &found(1, &names), Limits { max_files: 2, ..LIMITS }, at(0));
        assert_eq!(plan.remove, ["0.log.20260102-030401", "0.log.20260102-030402"]);
        assert_eq!((plan.rename_to, plan.compress), (None, Vec::new()));
    }

    fn apply(found: &Found, plan: &Plan) -> Found {
        let mut names: BTreeSet<String> = found.names.iter().cloned().collect();
        names.retain(|n| !plan.remove.contains(n));
        names.extend(plan.rename_to.clone());
        for part in &plan.compress {
            assert!(names.remove(part), "{part} is compressed and gone");
            names.insert(format!("{part}{COMPRESSED}"));
        }
        let size = if plan.reopen { Some(0) } else { found.size };
        Found { size, names: names.into_iter().collect() }
    }

    proptest! {
        #[test]
        fn after_an_apply_nothing_is_left_to_do(
            size in proptest::option::of(0_u64..200),
            parts in proptest::collection::vec((0_u8..20, 0_usize..3), 0..12),
            max_files in MAX_FILES_LEAST..6,
        ) {
            let limits = Limits { max_files, ..LIMITS };
            let form = |form| ["", COMPRESSED, TEMPORARY][form];
            let names = parts.iter().map(|(s, f)| format!("0.log.20260102-0303{s:02}{}", form(*f)));
            let names: BTreeSet<String> = names.chain(["0.log".to_owned()]).collect();
            let found = Found { size, names: names.into_iter().collect() };
            let first = plan("0.log", &found, limits, at(0));
            let after = apply(&found, &first);
            prop_assert_eq!(plan("0.log", &after, limits, at(10)), Plan::default());
            if first.rename_to.is_some() {
                let kept = after.names.iter().filter(|n| is_part("0.log", n)).count();
                prop_assert!(kept < max_files);
                prop_assert!(!after.names.iter().any(|n| n.ends_with(TEMPORARY)));
            }
        }

        #[test]
        fn the_newest_part_is_never_removed(seconds in proptest::collection::btree_set(0_u8..60, 1..9)) {
            let names: Vec<String> = seconds.iter().map(|s| format!("0.log.20260102-0303{s:02}")).collect();
            let plan = plan("0.log", &Found { size: Some(100), names: names.clone() }, LIMITS, at(60));
            prop_assert!(!plan.remove.contains(names.last().unwrap()));
        }
    }
}
