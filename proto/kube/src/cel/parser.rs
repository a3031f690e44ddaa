//! From tokens to expressions, by the grammar of the CEL language definition, with the syntax of optional values.

use super::ast::{Binary, Element, Entry, Expr, ExprKind, Literal, Logic, Tightness, Unary};
use super::issues::Issues;
use super::lexer::{Token, TokenKind, tokens};

/// Characters of one expression.
pub const EXPRESSION_MAX_CHARS: usize = 100_000;
/// Expressions in one another, parentheses counted: what walks an expression recurses that deep.
pub const DEPTH_MAX: u16 = 250;

/// Words that are no identifiers, and stand for no field behind a dot either.
const KEYWORDS: [&str; 4] = ["in", "true", "false", "null"];
/// Words that are kept for other languages: no variables, but fields.
pub const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const EXPECTING_EXPRESSION: &str = "expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
                                    NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Why the text is no expression. The first fault ends the reading.
struct Fault {
    at: Option<u32>,
    message: String,
}

type Parsed<T> = Result<T, Fault>;

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    nesting: u16,
}

/// Reads one whole expression.
pub fn parse(source: &str) -> Result<Expr, Issues> {
    let mut issues = Issues::new(source);
    let fault = match read(source) {
        Ok(expr) => return Ok(expr),
        Err(fault) => fault,
    };
    match fault.at {
        Some(at) => issues.push(at, fault.message),
        None => issues.push_whole(fault.message),
    }
    Err(issues)
}

fn read(source: &str) -> Parsed<Expr> {
    let size = source.chars().count();
    if size > EXPRESSION_MAX_CHARS {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {EXPRESSION_MAX_CHARS}");
        return Err(Fault { at: None, message });
    }
    let tokens = tokens(source).map_err(|error| Fault { at: Some(error.at), message: error.message })?;
    let mut parser = Parser { tokens, next: 0, nesting: 0 };
    let expr = parser.expr(Tightness::Ternary)?;
    match parser.peek().kind {
        TokenKind::End => Ok(expr),
        _ => Err(parser.unexpected("mismatched input", "expecting <EOF>")),
    }
}

impl Parser {
    /// The last token is the end, which is never taken.
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek().kind, TokenKind::Symbol(s) if s == symbol)
    }

    fn at(&self) -> u32 {
        self.peek().at
    }

    /// Takes the symbol if it comes next, and says where it stood.
    fn eat(&mut self, symbol: &str) -> Option<u32> {
        let at = self.is(symbol).then(|| self.at())?;
        self.next += 1;
        Some(at)
    }

    fn expect(&mut self, symbol: &str) -> Parsed<u32> {
        self.eat(symbol).ok_or_else(|| self.unexpected("mismatched input", &format!("expecting '{symbol}'")))
    }

    fn unexpected(&self, what: &str, expecting: &str) -> Fault {
        let token = self.peek();
        Fault { at: Some(token.at), message: format!("Syntax error: {what} '{}' {expecting}", token.text) }
    }

    fn too_deep(&self) -> Fault {
        Fault { at: None, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") }
    }

    fn node(&self, at: u32, children: u16, kind: ExprKind) -> Parsed<Expr> {
        if children >= DEPTH_MAX {
            return Err(self.too_deep());
        }
        Ok(Expr { at, depth: children + 1, kind })
    }

    /// An expression that holds together at least as tightly as is asked for.
    fn expr(&mut self, least: Tightness) -> Parsed<Expr> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            return Err(self.too_deep());
        }
        let left = self.unary()?;
        let expr = self.operators(left, least);
        self.nesting -= 1;
        expr
    }

    /// What follows a first operand.
    fn operators(&mut self, mut left: Expr, least: Tightness) -> Parsed<Expr> {
        while let Some((op, tightness)) = self.operator().filter(|(_, tightness)| *tightness >= least) {
            let at = self.at();
            self.next += 1;
            left = match op {
                Operator::Binary(op) => self.binary(at, op, left, tightness)?,
                Operator::Logic(op) => self.logic(at, op, left)?,
                Operator::Ternary => self.ternary(at, left)?,
            };
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, Tightness)> {
        let token = self.peek();
        match token.kind {
            TokenKind::Symbol("?") => Some((Operator::Ternary, Tightness::Ternary)),
            TokenKind::Symbol("||") => Some((Operator::Logic(Logic::Or), Tightness::Or)),
            TokenKind::Symbol("&&") => Some((Operator::Logic(Logic::And), Tightness::And)),
            TokenKind::Symbol(_) | TokenKind::Ident => {
                Binary::of(&token.text).map(|op| (Operator::Binary(op), op.tightness()))
            }
            _ => None,
        }
    }

    fn binary(&mut self, at: u32, op: Binary, left: Expr, tightness: Tightness) -> Parsed<Expr> {
        let right = self.expr(match tightness {
            Tightness::Relation => Tightness::Sum,
            Tightness::Sum => Tightness::Product,
            _ => Tightness::Unary,
        })?;
        let depth = left.depth.max(right.depth);
        self.node(at, depth, ExprKind::Binary { op, operands: Box::new([left, right]) })
    }

    /// A chain is one expression, so that its length is no depth.
    fn logic(&mut self, at: u32, op: Logic, left: Expr) -> Parsed<Expr> {
        let mut terms = vec![left];
        loop {
            terms.push(self.expr(if op == Logic::Or { Tightness::And } else { Tightness::Relation })?);
            if self.eat(op.symbol()).is_none() {
                break;
            }
        }
        let depth = deepest(&terms);
        self.node(at, depth, ExprKind::Logic { op, terms })
    }

    fn ternary(&mut self, at: u32, condition: Expr) -> Parsed<Expr> {
        let yes = self.expr(Tightness::Or)?;
        self.expect(":")?;
        let no = self.expr(Tightness::Ternary)?;
        let parts = [condition, yes, no];
        let depth = deepest(&parts);
        self.node(at, depth, ExprKind::Ternary(Box::new(parts)))
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let op = if self.is("!") {
            Unary::Not
        } else if self.is("-") && !self.is_negative_number() {
            Unary::Negate
        } else {
            return self.member();
        };
        let symbol = if op == Unary::Not { "!" } else { "-" };
        let mut count = 0;
        while self.is(symbol) && !(op == Unary::Negate && self.is_negative_number()) {
            self.next += 1;
            count += 1;
        }
        let operand = self.member()?;
        // Two of them undo each other.
        if count % 2 == 0 {
            return Ok(operand);
        }
        self.node(at, operand.depth, ExprKind::Unary { op, operand: Box::new(operand) })
    }

    fn is_negative_number(&self) -> bool {
        let after = self.tokens.get(self.next + 1).map(|token| &token.kind);
        self.is("-") && matches!(after, Some(TokenKind::Int | TokenKind::Float))
    }

    fn member(&mut self) -> Parsed<Expr> {
        let mut operand = self.primary()?;
        loop {
            operand = if let Some(at) = self.eat(".") {
                self.select(at, operand)?
            } else if let Some(at) = self.eat("[") {
                self.index(at, operand)?
            } else {
                return Ok(operand);
            };
        }
    }

    fn index(&mut self, at: u32, operand: Expr) -> Parsed<Expr> {
        let optional = self.eat("?").is_some();
        let index = self.expr(Tightness::Ternary)?;
        self.expect("]")?;
        let depth = operand.depth.max(index.depth);
        self.node(at, depth, ExprKind::Index { operand: Box::new(operand), index: Box::new(index), optional })
    }

    fn select(&mut self, at: u32, operand: Expr) -> Parsed<Expr> {
        let optional = self.eat("?").is_some();
        let name = self.word()?;
        if !optional && self.is("(") {
            let at = self.at();
            self.next += 1;
            let args = self.args()?;
            let depth = deepest(&args).max(operand.depth);
            return self.node(at, depth, ExprKind::Call { target: Some(Box::new(operand)), name, args });
        }
        let depth = operand.depth;
        self.node(at, depth, ExprKind::Select { operand: Box::new(operand), field: name, optional })
    }

    /// An identifier, a reserved one too.
    fn word(&mut self) -> Parsed<String> {
        let token = self.peek();
        if token.kind != TokenKind::Ident || KEYWORDS.contains(&token.text.as_str()) {
            return Err(self.unexpected("no viable alternative at input", "expecting IDENTIFIER"));
        }
        let word = token.text.clone();
        self.next += 1;
        Ok(word)
    }

    /// Arguments up to and with the closing parenthesis.
    fn args(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr(Tightness::Ternary)?);
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match (&self.peek().kind, self.peek().text.as_str()) {
            (TokenKind::Literal(_), _) => self.literal(),
            (TokenKind::Int | TokenKind::Float, _) | (TokenKind::Symbol("-"), _) if self.is_number() => self.number(),
            (TokenKind::Ident, "true" | "false" | "null") => self.literal(),
            (TokenKind::Ident, word) if word != "in" => self.name(),
            (TokenKind::Symbol("."), _) => self.name(),
            (TokenKind::Symbol("("), _) => self.nested(),
            (TokenKind::Symbol("["), _) => self.list(),
            (TokenKind::Symbol("{"), _) => self.map(),
            _ => Err(self.unexpected("mismatched input", EXPECTING_EXPRESSION)),
        }
    }

    fn literal(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        let literal = match (&token.kind, token.text.as_str()) {
            (TokenKind::Literal(literal), _) => literal.clone(),
            (_, "null") => Literal::Null,
            (_, word) => Literal::Bool(word == "true"),
        };
        let at = token.at;
        self.next += 1;
        self.node(at, 0, ExprKind::Literal(literal))
    }

    fn nested(&mut self) -> Parsed<Expr> {
        self.next += 1;
        let inner = self.expr(Tightness::Ternary)?;
        self.expect(")")?;
        Ok(inner)
    }

    fn map(&mut self) -> Parsed<Expr> {
        let at = self.expect("{")?;
        let entries = self.entries(|parser| parser.expr(Tightness::Ternary))?;
        self.node(at, deepest_entry(&entries), ExprKind::Map(entries))
    }

    fn is_number(&self) -> bool {
        self.is_negative_number() || matches!(self.peek().kind, TokenKind::Int | TokenKind::Float)
    }

    fn number(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let sign = if self.eat("-").is_some() { "-" } else { "" };
        let token = self.peek().clone();
        self.next += 1;
        let fault = |message: &str| Fault { at: Some(at), message: message.to_owned() };
        let literal = if token.kind == TokenKind::Float {
            let number: f64 = format!("{sign}{}", token.text).parse().map_err(|_| fault("invalid double literal"))?;
            // Go's ParseFloat calls what is too large an error.
            if number.is_infinite() {
                return Err(fault("invalid double literal"));
            }
            Literal::Double(number)
        } else {
            let number = match token.text.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
                None => format!("{sign}{}", token.text).parse(),
            };
            Literal::Int(number.map_err(|_| fault("invalid int literal"))?)
        };
        self.node(at, 0, ExprKind::Literal(literal))
    }

    /// What begins with a word: a variable, a call, or a message with its fields.
    fn name(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let dot = if self.eat(".").is_some() { "." } else { "" };
        if let Some(words) = self.message_name() {
            return self.message(dot, words);
        }
        let word = self.word()?;
        if RESERVED.contains(&word.as_str()) {
            return Err(Fault { at: Some(at), message: format!("reserved identifier: {word}") });
        }
        let name = format!("{dot}{word}");
        if self.is("(") { self.global_call(name) } else { self.node(at, 0, ExprKind::Ident(name)) }
    }

    fn global_call(&mut self, name: String) -> Parsed<Expr> {
        let at = self.expect("(")?;
        let args = self.args()?;
        self.node(at, deepest(&args), ExprKind::Call { target: None, name, args })
    }

    /// A message, whose name has so many words.
    fn message(&mut self, dot: &str, words: usize) -> Parsed<Expr> {
        let end = self.next + words * 2 - 1;
        let name: String = self.tokens[self.next..end].iter().map(|token| token.text.as_str()).collect();
        self.next = end;
        let at = self.expect("{")?;
        let fields = self.entries(|parser| {
            let at = parser.at();
            let field = Literal::String(parser.word()?);
            parser.node(at, 0, ExprKind::Literal(field))
        })?;
        self.node(at, deepest_entry(&fields), ExprKind::Message { name: format!("{dot}{name}"), fields })
    }

    /// The number of words, joined by dots, before an opening brace.
    fn message_name(&self) -> Option<usize> {
        let mut words = 0;
        loop {
            let at = self.next + words * 2;
            if self.tokens.get(at)?.kind != TokenKind::Ident {
                return None;
            }
            words += 1;
            match self.tokens.get(at + 1)?.kind {
                TokenKind::Symbol(".") => {}
                TokenKind::Symbol("{") => return Some(words),
                _ => return None,
            }
        }
    }

    fn list(&mut self) -> Parsed<Expr> {
        let at = self.expect("[")?;
        let mut elements = Vec::new();
        while self.eat("]").is_none() {
            elements.push(self.element()?);
            if self.eat(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        let depth = elements.iter().map(|element| element.value.depth).max().unwrap_or(0);
        self.node(at, depth, ExprKind::List(elements))
    }

    fn element(&mut self) -> Parsed<Element> {
        let optional = self.eat("?").is_some();
        Ok(Element { optional, value: self.expr(Tightness::Ternary)? })
    }

    /// Keys and values up to and with the closing brace.
    fn entries(&mut self, mut key: impl FnMut(&mut Parser) -> Parsed<Expr>) -> Parsed<Vec<Entry>> {
        let mut entries = Vec::new();
        while self.eat("}").is_none() {
            let optional = self.eat("?").is_some();
            let key = key(self)?;
            let at = self.expect(":")?;
            entries.push(Entry { at, optional, key, value: self.expr(Tightness::Ternary)? });
            if self.eat(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }
}

enum Operator {
    Binary(Binary),
    Logic(Logic),
    Ternary,
}

fn deepest(exprs: &[Expr]) -> u16 {
    exprs.iter().map(|expr| expr.depth).max().unwrap_or(0)
}

fn deepest_entry(entries: &[Entry]) -> u16 {
    entries.iter().map(|entry| entry.key.depth.max(entry.value.depth)).max().unwrap_or(0)
}
