//! What becomes of a log and its older parts when it has grown to its limit. Pure.

use std::collections::BTreeSet;

use gantry_base::log::{FILES_LEAST, TEMPORARY, parse_part, part_name};

/// In this order: a log never has more files than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub remove: Vec<String>,
    pub rename_to: String,
}

/// `names` are all in the log's folder. Of two rotations in one second the second is named for the next: names must sort, and
/// whoever writes that much is ahead of the clock by no more than its parts are many.
pub fn plan(log: &str, names: &[String], max_files: u32, now: i64) -> Rotation {
    let parts = names.iter().filter_map(|name| Some((parse_part(log, name)?, name)));
    // One that is being compressed is whoever's who does that.
    let parts: Vec<(i64, &String)> =
        parts.filter(|((_, form), _)| *form != TEMPORARY).map(|((second, _), name)| (second, name)).collect();
    let seconds: BTreeSet<i64> = parts.iter().map(|(second, _)| *second).collect();
    let kept = max_files.max(FILES_LEAST) - FILES_LEAST;
    let gone: BTreeSet<i64> = seconds.iter().rev().skip(kept as usize).copied().collect();
    let remove = parts.iter().filter(|(second, _)| gone.contains(second)).map(|(_, name)| (*name).clone()).collect();
    let second = seconds.last().map_or(now, |newest| now.max(newest + 1));
    Rotation { remove, rename_to: part_name(log, second) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_323_045;

    fn planned(names: &[&str], max_files: u32) -> Rotation {
        plan("0.log", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), max_files, NOW)
    }

    #[test]
    fn the_oldest_go_in_whatever_form() {
        let names = [
            "0.log",
            "0.log.20260102-030400",
            "0.log.20260102-030400.gz",
            "0.log.20260102-030401.gz",
            "0.log.20260102-030402",
            "0.log.20260102-030402.tmp",
            "0.log.mine",
            "1.log.20260102-030399",
        ];
        let rotation = planned(&names, 4);
        assert_eq!(rotation.remove, ["0.log.20260102-030400", "0.log.20260102-030400.gz"]);
        assert_eq!(rotation.rename_to, "0.log.20260102-030405");
        assert_eq!(
            planned(&names, 0).remove.len(),
            4,
            "with fewer than two files a log would lose what it has just taken"
        );
    }

    #[test]
    fn no_name_is_used_twice_and_names_sort() {
        assert_eq!(planned(&["0.log.20260102-030405.gz"], 5).rename_to, "0.log.20260102-030406");
        // Ahead of the clock, or a clock that was set back.
        assert_eq!(planned(&["0.log.20260102-235959"], 5).rename_to, "0.log.20260103-000000");
    }

    #[test]
    fn no_log_has_more_files_than_it_may() {
        let mut names = vec!["0.log".to_owned()];
        for _ in 0..20 {
            let rotation = plan("0.log", &names, 3, NOW);
            names.retain(|name| !rotation.remove.contains(name));
            names.push(rotation.rename_to);
            assert!(names.len() <= 3, "{names:?}");
        }
        assert_eq!(names, ["0.log", "0.log.20260102-030423", "0.log.20260102-030424"], "the newest stay");
    }
}
