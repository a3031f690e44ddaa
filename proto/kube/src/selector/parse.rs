//! The text of a label selector. The grammar, and the words for what is none of it, are those of Kubernetes' `labels.Parse`:
//!
//! ```text
//! selector    = [ requirement { "," requirement } ]
//! requirement = [ "!" ] KEY
//!             | KEY ( "in" | "notin" ) "(" [ VALUE ] { "," [ VALUE ] } ")"
//!             | KEY ( "=" | "==" | "!=" | ">" | "<" ) [ VALUE ]
//! ```

use std::collections::BTreeSet;

use super::{Requirement, SelectorError};
use crate::FieldError;
use crate::validation::format;

/// What is read at a time: a word, an operator, or marks that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Mark(&'a str),
    Odd(&'a str),
    End,
}

/// Of marks that stand together the longest is taken that is an operator.
const MARKS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

fn is_mark(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn split(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches(is_blank);
        let Some(first) = text.chars().next() else { return (Token::End, text) };
        if !is_mark(first) {
            let end = text.find(|c| is_mark(c) || is_blank(c)).unwrap_or(text.len());
            return (Token::Word(&text[..end]), &text[end..]);
        }
        match MARKS.iter().find(|mark| text.starts_with(**mark)) {
            Some(mark) => (Token::Mark(&text[..mark.len()]), &text[mark.len()..]),
            None => (Token::Odd(&text[..first.len_utf8()]), &text[first.len_utf8()..]),
        }
    }

    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }
}

fn shown(token: Token<'_>) -> String {
    match token {
        Token::Word(text) | Token::Mark(text) | Token::Odd(text) => text.to_owned(),
        Token::End => String::new(),
    }
}

/// Inside a requirement, something else was to come.
fn wanted(token: Token<'_>, expected: &'static str) -> SelectorError {
    SelectorError::Requirement { found: shown(token), expected }
}

/// Between requirements.
fn misplaced(token: Token<'_>, expected: &'static str) -> SelectorError {
    SelectorError::Selector { found: shown(token), expected }
}

pub(super) fn selector(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut words = Words { rest: text };
    let mut all = Vec::new();
    loop {
        match words.peek() {
            Token::End => return Ok(all),
            Token::Word(_) | Token::Mark("!") => all.push(requirement(&mut words)?),
            other => return Err(misplaced(other, "!, identifier, or 'end of string'")),
        }
        match (words.next(), words.peek()) {
            (Token::End, _) => return Ok(all),
            (Token::Mark(","), Token::Word(_) | Token::Mark("!")) => {}
            (Token::Mark(","), other) => return Err(misplaced(other, "identifier after ','")),
            (other, _) => return Err(misplaced(other, "',' or 'end of string'")),
        }
    }
}

fn requirement(words: &mut Words<'_>) -> Result<Requirement, SelectorError> {
    let mut first = words.next();
    let absent = first == Token::Mark("!");
    if absent {
        first = words.next();
    }
    let Token::Word(key) = first else { return Err(wanted(first, "identifier")) };
    if let Some(why) = format::qualified(key) {
        return Err(SelectorError::Invalid(FieldError::invalid("<nil>", key, why)));
    }
    let key = key.to_owned();
    if absent {
        return Ok(Requirement::DoesNotExist(key));
    }
    if matches!(words.peek(), Token::End | Token::Mark(",")) {
        return Ok(Requirement::Exists(key));
    }
    match words.next() {
        Token::Word("in") => Ok(Requirement::In(key.clone(), values(words, &key)?)),
        Token::Word("notin") => Ok(Requirement::NotIn(key.clone(), values(words, &key)?)),
        Token::Mark("=" | "==") => Ok(Requirement::In(key.clone(), vec![value(words, &key)?])),
        Token::Mark("!=") => Ok(Requirement::NotIn(key.clone(), vec![value(words, &key)?])),
        Token::Mark(">") => Ok(Requirement::GreaterThan(key, bound(words)?)),
        Token::Mark("<") => Ok(Requirement::LessThan(key, bound(words)?)),
        other => Err(wanted(other, OPERATORS)),
    }
}

/// What stands between parentheses, each once.
fn values(words: &mut Words<'_>, key: &str) -> Result<Vec<String>, SelectorError> {
    let open = words.next();
    if open != Token::Mark("(") {
        return Err(wanted(open, "'('"));
    }
    let mut all = BTreeSet::new();
    loop {
        let word = match words.peek() {
            Token::Word(word) => {
                words.next();
                word
            }
            Token::Mark("," | ")") => "",
            other => return Err(wanted(other, "',', or identifier")),
        };
        all.insert(word);
        match words.next() {
            Token::Mark(",") => {}
            Token::Mark(")") => break,
            other => return Err(wanted(other, "',' or ')'")),
        }
    }
    all.into_iter().enumerate().map(|(at, value)| checked(key, at, value)).collect()
}

fn word<'a>(words: &mut Words<'a>) -> Result<&'a str, SelectorError> {
    match words.peek() {
        Token::End | Token::Mark(",") => Ok(""),
        _ => match words.next() {
            Token::Word(word) => Ok(word),
            other => Err(wanted(other, "identifier")),
        },
    }
}

fn value(words: &mut Words<'_>, key: &str) -> Result<String, SelectorError> {
    checked(key, 0, word(words)?)
}

fn bound(words: &mut Words<'_>) -> Result<i64, SelectorError> {
    let text = word(words)?;
    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
    text.parse().map_err(|_| SelectorError::Invalid(FieldError::invalid("values[0]", text, why)))
}

fn checked(key: &str, at: usize, value: &str) -> Result<String, SelectorError> {
    match format::label_value(value) {
        None => Ok(value.to_owned()),
        Some(why) => Err(SelectorError::Invalid(FieldError::invalid(format!("values[{at}][{key}]"), value, why))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        selector(text).expect_err(text).to_string()
    }

    #[test]
    fn every_form_of_a_requirement() {
        let pairs = |key: &str, values: &[&str]| (key.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
        let with = |build: fn(String, Vec<String>) -> Requirement, key: &str, values: &[&str]| {
            let (key, values) = pairs(key, values);
            build(key, values)
        };
        let read = |text: &str| selector(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(
            read("x in (foo,,baz),y,z notin ()"),
            [
                with(Requirement::In, "x", &["", "baz", "foo"]),
                Requirement::Exists("y".into()),
                with(Requirement::NotIn, "z", &[""]),
            ]
        );
        assert_eq!(
            read("a=,b==in , !c,\td!=e"),
            [
                with(Requirement::In, "a", &[""]),
                with(Requirement::In, "b", &["in"]),
                Requirement::DoesNotExist("c".into()),
                with(Requirement::NotIn, "d", &["e"]),
            ]
        );
        assert_eq!(
            read("x/y>-3,in<4,notin in (in,notin,in)"),
            [
                Requirement::GreaterThan("x/y".into(), -3),
                Requirement::LessThan("in".into(), 4),
                with(Requirement::In, "notin", &["in", "notin"]),
            ]
        );
        assert_eq!(read(" \n"), []);
    }

    #[test]
    fn what_is_none_is_told_in_the_words_of_kubernetes() {
        let head = "unable to parse requirement: ";
        for (text, expected) in [
            ("a b c", format!("{head}found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
            ("a,", "found '', expected: identifier after ','".to_owned()),
            ("a,,b", "found ',', expected: identifier after ','".to_owned()),
            ("=b", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("!=b", "found '!=', expected: !, identifier, or 'end of string'".to_owned()),
            ("!", format!("{head}found '', expected: identifier")),
            ("!a in (b)", "found 'in', expected: ',' or 'end of string'".to_owned()),
            ("a in b", format!("{head}found 'b', expected: '('")),
            ("a in (b", format!("{head}found '', expected: ',' or ')'")),
            ("a in (((", format!("{head}found '(', expected: ',', or identifier")),
            ("a=(b)", format!("{head}found '(', expected: identifier")),
            (
                "n>q",
                format!(
                    "{head}values[0]: Invalid value: \"q\": for 'Gt', 'Lt' operators, the value must be an integer"
                ),
            ),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
        assert!(words("-a=b").starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"));
        assert!(
            words("a in (b,-c)")
                .starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-c\": a valid label")
        );
    }
}
