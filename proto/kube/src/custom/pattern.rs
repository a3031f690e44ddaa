//! Patterns, as Go's RE2 reads them. The syntax of the regex crate is a cousin of it: classes such as `\d` are ASCII in Go and Unicode
//! there, `\Q…\E` and a brace that repeats nothing are Go's alone, and a set within a set is not. What differs is rewritten.

use regex::bytes::{Regex, RegexBuilder};

/// A pattern's own length.
pub const PATTERN_MAX_BYTES: usize = 64 << 10;
/// What a pattern may compile to, from what most do to what the largest sensible ones do (classes of Unicode, repeated). Kubernetes
/// bounds repetitions (at 1000) and not the program.
const PROGRAM_SIZES_BYTES: [usize; 4] = [16 << 10, 128 << 10, 1 << 20, 16 << 20];
/// What a search may remember of a pattern, for each thread that searches.
const MEMORY_MAX_BYTES: usize = 256 << 10;
/// The most that Go lets a repetition count.
const REPEAT_MAX: u32 = 1000;

/// A pattern that searches a text (it is not anchored by itself).
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
    bytes: usize,
}

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("more than {PATTERN_MAX_BYTES} bytes")]
    TooLong,
    #[error("invalid repeat count: `{0}`")]
    Repeat(String),
    #[error(transparent)]
    Syntax(#[from] regex::Error),
}

impl Pattern {
    pub fn compile(source: &str) -> Result<Pattern, PatternError> {
        if source.len() > PATTERN_MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        let rewritten = Rewrite { rest: source, out: String::with_capacity(source.len() + 16) }.pattern()?;
        let mut error = None;
        for bytes in PROGRAM_SIZES_BYTES {
            match RegexBuilder::new(&rewritten).size_limit(bytes).dfa_size_limit(MEMORY_MAX_BYTES).build() {
                Ok(regex) => return Ok(Pattern { source: source.to_owned(), regex, bytes }),
                Err(larger @ regex::Error::CompiledTooBig(_)) => error = Some(larger),
                Err(other) => return Err(other.into()),
            }
        }
        Err(error.map_or(PatternError::TooLong, PatternError::from))
    }

    /// What it takes at most, in bytes.
    pub fn size(&self) -> usize {
        self.bytes
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// The first match that begins at that byte or later: where it begins and ends, at characters' borders.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let mut at = from;
        loop {
            let found = self.regex.find_at(text.as_bytes(), at)?;
            if text.is_char_boundary(found.start()) && text.is_char_boundary(found.end()) {
                return Some((found.start(), found.end()));
            }
            // `\B` of ASCII holds between the bytes of a character, where Go does not look.
            at = found.start() + 1;
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

struct Rewrite<'a> {
    rest: &'a str,
    out: String,
}

impl Rewrite<'_> {
    fn pattern(mut self) -> Result<String, PatternError> {
        while let Some(next) = self.next() {
            match next {
                '\\' => self.escape(false),
                '[' => self.class(),
                '{' => self.brace()?,
                other => self.out.push(other),
            }
        }
        Ok(self.out)
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    /// What stands behind a backslash.
    fn escape(&mut self, in_class: bool) {
        let Some(next) = self.next() else { return self.out.push('\\') };
        let ascii = match next {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => "[\\t\\n\\f\\r ]",
            'S' => "[^\\t\\n\\f\\r ]",
            'b' if !in_class => "(?-u:\\b)",
            'B' if !in_class => "(?-u:\\B)",
            // To the other of the two these are the ends of a word.
            '<' => "<",
            '>' => ">",
            'Q' if !in_class => return self.quoted(),
            '0'..='7' => return self.octal(next),
            _ => "",
        };
        if ascii.is_empty() {
            self.out.push('\\');
            self.out.push(next);
        } else {
            self.out.push_str(ascii);
        }
        // The braces of `\x{263a}` and `\p{Greek}` are their own.
        if matches!(next, 'x' | 'p' | 'P')
            && self.rest.starts_with('{')
            && let Some((braced, rest)) = self.rest.split_once('}')
        {
            self.out.push_str(braced);
            self.out.push('}');
            self.rest = rest;
        }
    }

    fn quoted(&mut self) {
        let (text, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
        self.out.push_str(&regex::escape(text));
        self.rest = rest;
    }

    /// `\012` and `\0` are characters; `\1` would be a reference backwards, which neither has.
    fn octal(&mut self, first: char) {
        let more = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if first != '0' && more == 0 {
            self.out.push('\\');
            return self.out.push(first);
        }
        let digits = format!("{first}{}", &self.rest[..more]);
        self.rest = &self.rest[more..];
        let code = u32::from_str_radix(&digits, 8).unwrap_or(0);
        self.out.push_str(&format!("\\x{{{code:X}}}"));
    }

    fn class(&mut self) {
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.out.push('^');
            self.rest = rest;
        }
        // First of all a closing bracket is one of the set.
        if let Some(rest) = self.rest.strip_prefix(']') {
            self.out.push_str("\\]");
            self.rest = rest;
        }
        let mut before = '\0';
        while let Some(next) = self.next() {
            match next {
                ']' => return self.out.push(']'),
                '\\' => self.escape(true),
                '[' if self.rest.starts_with(':') && self.rest.contains(":]") => {
                    let end = self.rest.find(":]").map_or(self.rest.len(), |at| at + 2);
                    self.out.push('[');
                    self.out.push_str(&self.rest[..end]);
                    self.rest = &self.rest[end..];
                }
                '[' | '&' | '~' => self.out.extend(['\\', next]),
                '-' if before == '-' => self.out.push_str("\\-"),
                '-' if self.rest.starts_with('-') && before == '\0' => self.out.push_str("\\-"),
                other => self.out.push(other),
            }
            before = next;
        }
    }

    /// A repetition, or a brace and no more.
    fn brace(&mut self) -> Result<(), PatternError> {
        let counts = self.rest.split_once('}').map(|(counts, _)| counts).filter(|counts| is_repetition(counts));
        let Some(counts) = counts else {
            self.out.push_str("\\{");
            return Ok(());
        };
        let is_too_many = |count: &str| !count.is_empty() && count.parse().is_ok_and(|count: u32| count > REPEAT_MAX);
        if counts.split(',').any(is_too_many) || counts.len() > 10 {
            return Err(PatternError::Repeat(format!("{{{counts}}}")));
        }
        self.out.push('{');
        self.out.push_str(counts);
        self.out.push('}');
        self.rest = &self.rest[counts.len() + 1..];
        Ok(())
    }
}

/// `3`, `3,` or `3,5`.
fn is_repetition(counts: &str) -> bool {
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    !least.is_empty() && [least, most].iter().all(|count| count.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, good, bad) in [
            (r"^\d+$", "12", "१२"),
            (r"^[\d.]+$", "1.2", "x"),
            (r"^[^\D]$", "1", "x"),
            (r"^\w+$", "a_1", "é"),
            (r"^\S+$", "\u{a0}", " "),
            (r"a{,2}", "a{,2}", "aa"),
            (r"^{x}$", "{x}", "x"),
            (r"^a{2,3}$", "aaa", "a"),
            (r"^[[a]+$", "[a", "b"),
            (r"^[]a]+$", "]a", "b"),
            (r"^[&&a]$", "&", "b"),
            (r"^[+--]$", ",", "/"),
            (r"^[[:alpha:]-]+$", "a-", "1"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^\<\>$", "<>", "<"),
            (r"^\101$", "A", "B"),
            (r"^[a-z]+(\.[a-z]+)*$", "a.b", "a..b"),
            (r"^(?:x|\x{263a}|\pL)$", "é", "1"),
            (r"\bfoo\b", "a foo", "afoo"),
        ] {
            let compiled = Pattern::compile(pattern).unwrap();
            assert!(compiled.is_match(good), "{pattern} {good}");
            assert!(!compiled.is_match(bad), "{pattern} {bad}");
            assert_eq!(compiled.source(), pattern);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["(", "a**b)", "[a", r"\", "x{1001}", r"(a)\1", "(?=a)"] {
            assert!(Pattern::compile(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::compile(&"a".repeat(PATTERN_MAX_BYTES + 1)).is_err());
        assert!(matches!(Pattern::compile(&"(\\pL{1000}){1000}".repeat(4)), Err(PatternError::Syntax(_))));
        assert!(Pattern::compile("^a+$").unwrap().size() < Pattern::compile("^\\pL{60}$").unwrap().size());
    }
}
