//! What an evaluation may take: the cost that Kubernetes counts, and beside it the work that this cost does not see.

use std::sync::Arc;

use super::value::Fault;
use crate::custom::Pattern;
use crate::custom::pattern::PatternError;

/// Cost of one evaluation: about a tenth of a second of a slow machine.
pub const CALL_COST_MAX: u64 = 1_000_000;
/// Steps and bytes of one evaluation that cost nothing as Kubernetes counts: parts of nested values that are compared, texts
/// that replacements and splits make. No expression that is meant to be evaluated comes near.
const WORK_MAX: u64 = 64 << 20;
/// What it takes to compile a pattern that is no literal.
const PATTERN_WORK: u64 = 1 << 16;
const PATTERN_BYTE_WORK: u64 = 1 << 10;
/// Patterns that are kept for the rest of an evaluation.
const PATTERNS_KEPT_MAX: usize = 16;

/// Counts, and stops the evaluation where a bound is reached.
#[derive(Debug)]
pub struct Meter {
    spent: u64,
    limit: u64,
    work: u64,
    patterns: Vec<Arc<Pattern>>,
}

impl Meter {
    pub fn new(limit: u64) -> Meter {
        Meter { spent: 0, limit, work: 0, patterns: Vec::new() }
    }

    /// Cost so far.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Fault::Exhausted) } else { Ok(()) }
    }

    /// Takes back what was charged for something that costs nothing where it stands.
    pub fn refund(&mut self, cost: u64) {
        self.spent = self.spent.saturating_sub(cost);
    }

    pub fn work(&mut self, steps: u64) -> Result<(), Fault> {
        self.work = self.work.saturating_add(steps);
        if self.work > WORK_MAX { Err(Fault::Exhausted) } else { Ok(()) }
    }

    /// A pattern that only the evaluation knows.
    pub fn pattern(&mut self, source: &str) -> Result<Arc<Pattern>, Fault> {
        if let Some(known) = self.patterns.iter().find(|pattern| pattern.source() == source) {
            return Ok(known.clone());
        }
        self.work(PATTERN_WORK + PATTERN_BYTE_WORK * source.len() as u64)?;
        let pattern =
            Pattern::compile(source).map_err(|error| Fault::Raised(pattern_problem(source, &error).into()))?;
        let pattern = Arc::new(pattern);
        if self.patterns.len() >= PATTERNS_KEPT_MAX {
            self.patterns.remove(0);
        }
        self.patterns.push(pattern.clone());
        Ok(pattern)
    }
}

/// Worded as Go words it, as far as one line goes.
fn pattern_problem(source: &str, error: &PatternError) -> String {
    let shown = &source[..source.floor_char_boundary(100)];
    match error {
        PatternError::Syntax(regex::Error::Syntax(text)) => {
            let last = text.lines().last().unwrap_or_default();
            format!("error parsing regexp: {}: `{shown}`", last.strip_prefix("error: ").unwrap_or(last))
        }
        other => format!("error parsing regexp: {other}: `{shown}`"),
    }
}

/// A tenth of a size, rounded up: what going through a text once costs.
pub fn scan(size: u64) -> u64 {
    size.div_ceil(10)
}
