use std::cmp::Ordering;

/// How clients rank the versions of a group (Kubernetes: "Version priority"): stable before beta before alpha, newer before
/// older, and whatever is no such version behind them by its name.
pub fn version_order(a: &str, b: &str) -> Ordering {
    match (Rank::of(a), Rank::of(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// `(stability, major, minor)`, the greater the better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u8, u32, u32);

impl Rank {
    fn of(version: &str) -> Option<Rank> {
        let rest = version.strip_prefix('v')?;
        for (word, stability) in [("alpha", 0), ("beta", 1)] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some(Rank(stability, number(major)?, number(minor)?));
            }
        }
        Some(Rank(2, number(rest)?, 0))
    }
}

fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_published_order() {
        let published =
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut shuffled = published;
        shuffled.reverse();
        shuffled.sort_by(|a, b| version_order(a, b));
        assert_eq!(shuffled, published);
        assert_eq!(version_order("v1", "v01"), Ordering::Less);
    }
}
