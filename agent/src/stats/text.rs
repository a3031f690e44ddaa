//! The text form of Prometheus (exposition format 0.0.4), with times where a number has one of its own.

use std::fmt::Write;

/// What is answered with it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A document that grows by families: all samples of one name stand together, under what that name means.
#[derive(Default)]
pub struct Text(String);

/// Names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number; `at` is in milliseconds.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64, at: Option<i64>) {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(value));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let _ = write!(self.0, " {at}");
        }
        self.0.push('\n');
    }

    pub fn done(self) -> String {
        self.0
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
}
