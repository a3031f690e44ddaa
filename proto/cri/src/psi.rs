//! The kernel's pressure files (its psi.rst) as CRI tells of them: a node's, a pod's and a container's have one form.

use crate::v1::{PsiData, PsiStats};

/// Two lines, `some` and `full`, with averages in percent and a sum. The kernel counts that in microseconds, CRI in
/// nanoseconds.
pub fn parse(text: &str) -> Option<PsiStats> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key| value(key)?.parse().ok();
        Some(PsiData {
            total: value("total")?.parse::<u64>().ok()?.saturating_mul(1000),
            avg10: average("avg10")?,
            avg60: average("avg60")?,
            avg300: average("avg300")?,
        })
    };
    Some(PsiStats { some: Some(line("some")?), full: line("full") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_in_nanoseconds() {
        let some = "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\n";
        let read = parse(&format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=2\n")).unwrap();
        assert_eq!(read.some, Some(PsiData { total: 7000, avg10: 1.5, avg60: 0.25, avg300: 0.0 }));
        assert_eq!(read.full.map(|full| full.total), Some(2000));
        assert_eq!(parse(some).unwrap().full, None);
        for bad in ["", "some", "some avg10=x avg60=0 avg300=0 total=1", "something avg10=0 avg60=0 avg300=0 total=1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
