//! The text form of Prometheus (exposition format 0.0.4), with times where a number has one of its own, and OpenMetrics 1.0,
//! which is the same but for the names of counters and the last line.

use std::fmt::Write;

use super::Histogram;

/// What is answered with it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
pub const OPEN_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A document that grows by families: all samples of one name stand together, under what that name means.
#[derive(Default)]
pub struct Text {
    out: String,
    /// It is OpenMetrics.
    open: bool,
}

/// Names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    pub fn open_metrics() -> Text {
        Text { open: true, ..Text::default() }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = match name.strip_suffix("_total") {
            Some(family) if self.open && kind == "counter" => family,
            _ => name,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number; `at` is in milliseconds.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64, at: Option<i64>) {
        self.line(name, labels, None, value);
        if let Some(at) = at {
            let _ = write!(self.out, " {at}");
        }
        self.out.push('\n');
    }

    /// A number that whole numbers alone can be.
    pub fn count(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.sample(name, labels, value as f64, None);
    }

    /// The lines of one histogram of a family.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let mut all = 0;
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulated() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
            self.line(&bucket, labels, Some(&bound), count as f64);
            self.out.push('\n');
            all = count;
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum(), None);
        self.count(&format!("{name}_count"), labels, all);
    }

    fn line(&mut self, name: &str, labels: Labels<'_>, bound: Option<&str>, value: f64) {
        self.out.push_str(name);
        for (i, (label, value)) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))).enumerate() {
            let _ = write!(self.out, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(value));
        }
        if !labels.is_empty() || bound.is_some() {
            self.out.push('}');
        }
        let _ = write!(self.out, " {value}");
    }

    pub fn done(mut self) -> String {
        if self.open {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

fn escape(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        return value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into();
    }
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let mut text = Text::default();
        text.family("a", "counter", "What it is");
        text.sample("a", &[], 1.0, None);
        text.sample("a", &[("b", "c\"\n\\"), ("d", "")], 0.25, Some(7));
        let lines = "# HELP a What it is\n# TYPE a counter\na 1\na{b=\"c\\\"\\n\\\\\",d=\"\"} 0.25 7\n";
        assert_eq!(text.done(), lines);
    }

    #[test]
    fn open_metrics_names_a_counter_without_its_ending_and_ends() {
        let mut text = Text::open_metrics();
        text.family("a_total", "counter", "What it is");
        text.count("a_total", &[], 3);
        assert_eq!(text.done(), "# HELP a What it is\n# TYPE a counter\na_total 3\n# EOF\n");
    }

    #[test]
    fn a_histogram_is_buckets_sum_and_count() {
        let histogram = Histogram::new(&[0.5, 2.0]);
        histogram.observe(1.0);
        let mut text = Text::default();
        text.histogram("h", &[("a", "b")], &histogram);
        let lines = "h_bucket{a=\"b\",le=\"0.5\"} 0\nh_bucket{a=\"b\",le=\"2\"} 1\nh_bucket{a=\"b\",le=\"+Inf\"} 1\n\
                     h_sum{a=\"b\"} 1\nh_count{a=\"b\"} 1\n";
        assert_eq!(text.done(), lines);
    }
}
