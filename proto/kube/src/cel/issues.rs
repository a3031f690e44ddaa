//! What is wrong with an expression, worded and placed as users of CEL know it.

use std::fmt;

/// Issues that are shown; the rest is counted.
const ISSUES_MAX: usize = 100;
/// Longer lines of a source are not quoted.
const SNIPPET_MAX_BYTES: usize = 16_384;

/// One fault at one character of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// None where the fault is the whole expression's.
    pub at: Option<u32>,
    pub message: String,
}

/// Why an expression does not compile. Displayed as cel-go displays it: a line for each fault, the line of the source, and
/// a caret below the character.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Issues {
    source_text: String,
    list: Vec<Issue>,
    more: usize,
}

impl Issues {
    pub(super) fn new(source: &str) -> Issues {
        Issues { source_text: source.to_owned(), list: Vec::new(), more: 0 }
    }

    pub(super) fn push(&mut self, at: u32, message: impl Into<String>) {
        self.add(Issue { at: Some(at), message: message.into() });
    }

    pub(super) fn push_whole(&mut self, message: impl Into<String>) {
        self.add(Issue { at: None, message: message.into() });
    }

    fn add(&mut self, issue: Issue) {
        if self.list.len() < ISSUES_MAX {
            self.list.push(issue);
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn list(&self) -> &[Issue] {
        &self.list
    }

    /// The line (from 1), the column (from 0) and the text of the line.
    fn place(&self, at: u32) -> (usize, usize, &str) {
        let (mut line, mut left) = (1, at as usize);
        for text in self.source_text.split('\n') {
            let length = text.chars().count();
            if left <= length {
                return (line, left, text);
            }
            left -= length + 1;
            line += 1;
        }
        (line, 0, "")
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, issue: &Issue) -> fmt::Result {
        let Some(at) = issue.at else {
            return write!(f, "ERROR: <input>:-1:0: {}", issue.message);
        };
        let (line, column, text) = self.place(at);
        write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
        if text.len() > SNIPPET_MAX_BYTES {
            return Ok(());
        }
        write!(f, "\n | {}\n | ", text.replace('\t', " "))?;
        let mut chars = text.chars();
        for c in chars.by_ref().take(column) {
            // Two columns wide, as what stands above is.
            f.write_str(if c.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if chars.next().is_none_or(|c| c.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Issue> = self.list.iter().collect();
        sorted.sort_by_key(|issue| issue.at);
        for (index, issue) in sorted.into_iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            self.show(f, issue)?;
        }
        if self.more > 0 {
            write!(f, "\n{} more errors were truncated", self.more)?;
        }
        Ok(())
    }
}
