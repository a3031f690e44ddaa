//! Sets of completion indexes as a Job's status writes them: `0,2-5,9`.

use std::collections::BTreeSet;

pub type Indexes = BTreeSet<i64>;

/// What cannot be read is left out: the text is our own.
pub fn parse(text: &str, end: i64) -> Indexes {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse::<i64>().ok()?, last.parse::<i64>().ok()?))
    };
    let ranges = text.split(',').filter_map(range);
    ranges.flat_map(|(first, last)| first.max(0)..=last.min(end - 1)).collect()
}

pub fn text(indexes: &Indexes) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let parts = ranges.iter().map(|(first, last)| match last - first {
        0 => format!("{first}"),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back() {
        for written in ["", "0", "0,1", "0-2", "1,3-5,7,8"] {
            assert_eq!(text(&parse(written, 100)), written);
        }
        assert_eq!(text(&parse("0-999999999", 3)), "0-2");
        assert_eq!(text(&parse("x,2,-5", 9)), "2");
    }
}
