//! From text to tokens, by the lexical rules of the CEL language definition.

use super::ast::Literal;

/// A token and the character at which it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub at: u32,
    pub kind: TokenKind,
    /// As it was written.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// Any word, reserved ones too.
    Ident,
    /// Digits of an integer, without a sign: what they say is known with it.
    Int,
    Float,
    Literal(Literal),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

/// What cannot begin or end a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LexError {
    pub at: u32,
    pub message: String,
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%",
    "<", ">", "=", "&",
];

pub struct Lexer<'a> {
    rest: &'a str,
    at: u32,
}

/// All tokens, the last of which is the end.
pub fn tokens(source: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer { rest: source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let end = token.kind == TokenKind::End;
        tokens.push(token);
        if end {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Token, LexError> {
        self.skip_blanks();
        let at = self.at;
        let Some(first) = self.rest.chars().next() else {
            return Ok(Token { at, kind: TokenKind::End, text: "<EOF>".to_owned() });
        };
        let second = self.rest.chars().nth(1);
        if let Some(prefix) = quote_prefix(self.rest) {
            return self.string(prefix);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = length_of(self.rest, |b| b.is_ascii_alphanumeric() || b == b'_');
            return Ok(self.take(length, TokenKind::Ident));
        }
        if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
            return self.number();
        }
        let symbol = SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol));
        match symbol {
            Some(symbol @ ("=" | "&")) => Err(self.unknown(symbol)),
            Some(symbol) => Ok(self.take(symbol.len(), TokenKind::Symbol(symbol))),
            None => Err(self.unknown(first.encode_utf8(&mut [0; 4]))),
        }
    }

    fn unknown(&self, text: &str) -> LexError {
        LexError { at: self.at, message: format!("Syntax error: token recognition error at: '{text}'") }
    }

    fn take(&mut self, bytes: usize, kind: TokenKind) -> Token {
        let (text, rest) = self.rest.split_at(bytes);
        let token = Token { at: self.at, kind, text: text.to_owned() };
        self.at += text.chars().count() as u32;
        self.rest = rest;
        token
    }

    fn skip_blanks(&mut self) {
        loop {
            let blanks = length_of(self.rest, |b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c));
            let length = match &self.rest[blanks..] {
                comment if comment.starts_with("//") => blanks + comment.find('\n').unwrap_or(comment.len()),
                _ => blanks,
            };
            if length == 0 {
                return;
            }
            self.take(length, TokenKind::End);
        }
    }

    fn number(&mut self) -> Result<Token, LexError> {
        let digits = |text: &str| length_of(text, |b| b.is_ascii_digit());
        if self.rest.starts_with("0x") {
            let length = 2 + length_of(&self.rest[2..], |b| b.is_ascii_hexdigit());
            if length > 2 {
                return self.integer(length);
            }
        }
        let whole = digits(self.rest);
        let mut length = whole;
        let fraction = self.rest[length..].strip_prefix('.').map_or(0, digits);
        if fraction > 0 {
            length += 1 + fraction;
        }
        if let Some(exponent) = self.rest[length..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let count = digits(unsigned);
            if count > 0 {
                length += 1 + (exponent.len() - unsigned.len()) + count;
            }
        }
        if length == whole { self.integer(length) } else { Ok(self.take(length, TokenKind::Float)) }
    }

    fn integer(&mut self, length: usize) -> Result<Token, LexError> {
        if !self.rest[length..].starts_with(['u', 'U']) {
            return Ok(self.take(length, TokenKind::Int));
        }
        let text = &self.rest[..length];
        let value = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        match value {
            Ok(value) => Ok(self.take(length + 1, TokenKind::Literal(Literal::Uint(value)))),
            Err(_) => Err(LexError { at: self.at, message: "invalid uint literal".to_owned() }),
        }
    }

    fn string(&mut self, prefix: QuotePrefix) -> Result<Token, LexError> {
        let body = &self.rest[prefix.length..];
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote)).unwrap_or("\"");
        let inner = &body[quote.len()..];
        let end = closing(inner, quote, prefix.raw).ok_or_else(|| {
            // As much of it as the lexer could take for the beginning of a string.
            let shown = self.rest.lines().next().unwrap_or_default();
            self.unknown(&shown[..shown.floor_char_boundary(100)])
        })?;
        let text = inner[..end].replace("\r\n", "\n").replace('\r', "\n");
        let fail = |message: &str| LexError { at: self.at, message: message.to_owned() };
        let literal = match (prefix.bytes, prefix.raw) {
            (false, true) => Literal::String(text),
            (true, true) => Literal::Bytes(text.into_bytes()),
            (bytes, false) => {
                let unescaped = unescape(&text, bytes).map_err(fail)?;
                match bytes {
                    true => Literal::Bytes(unescaped),
                    false => Literal::String(String::from_utf8_lossy(&unescaped).into_owned()),
                }
            }
        };
        Ok(self.take(prefix.length + 2 * quote.len() + end, TokenKind::Literal(literal)))
    }
}

#[derive(Clone, Copy)]
struct QuotePrefix {
    length: usize,
    raw: bool,
    bytes: bool,
}

/// `b` and `r`, in that order, either of them or none, before a quote.
fn quote_prefix(text: &str) -> Option<QuotePrefix> {
    let after_bytes = text.strip_prefix(['b', 'B']).unwrap_or(text);
    let after_raw = after_bytes.strip_prefix(['r', 'R']).unwrap_or(after_bytes);
    after_raw.starts_with(['"', '\'']).then_some(QuotePrefix {
        length: text.len() - after_raw.len(),
        raw: after_raw.len() < after_bytes.len(),
        bytes: after_bytes.len() < text.len(),
    })
}

/// Where the closing quote begins.
fn closing(text: &str, quote: &str, raw: bool) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if text[at..].starts_with(quote) {
            return Some(at);
        }
        if c == '\\' && !raw {
            chars.next()?;
        }
        if matches!(c, '\n' | '\r') && quote.len() == 1 {
            return None;
        }
    }
    None
}

fn length_of(text: &str, of: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|b| of(*b)).count()
}

const UNESCAPE: &str = "unable to unescape string";
const OCTAL: &str = "unable to unescape octal sequence in string";
const CODE_POINT: &str = "invalid unicode code point";

/// What escapes stand for. In bytes, hexadecimal and octal ones are bytes and not characters, and `\u` has no meaning.
fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let escape = rest.chars().next().ok_or(UNESCAPE)?;
        rest = &rest[escape.len_utf8()..];
        let plain = match escape {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '\'' | '"' | '`' | '?' => escape as u8,
            _ => 0,
        };
        if plain != 0 {
            out.push(plain);
            continue;
        }
        let (digits, radix) = match escape {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => (2, 8),
            _ => return Err(UNESCAPE),
        };
        let fault = if radix == 8 { OCTAL } else { UNESCAPE };
        let digits = rest.get(..digits).filter(|d| d.chars().all(|c| c.is_digit(radix))).ok_or(fault)?;
        rest = &rest[digits.len()..];
        let first = if radix == 8 { escape.to_digit(8).unwrap_or(0) * 64 } else { 0 };
        let code = first + u32::from_str_radix(digits, radix).map_err(|_| fault)?;
        if bytes {
            out.push(code as u8);
        } else {
            let c = char::from_u32(code).ok_or(CODE_POINT)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}
