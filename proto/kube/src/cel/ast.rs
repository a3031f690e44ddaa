//! Expressions as they were written: macros are calls here, and parentheses are gone.

use std::fmt;

/// An expression, and the character of the source that errors about it point to: an operator's own, a call's parenthesis.
#[derive(Clone, Debug)]
pub struct Expr {
    pub at: u32,
    /// Expressions that stand in one another, this one counted.
    pub depth: u16,
    pub kind: ExprKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Literal(Literal),
    /// With its leading dot, if it has one.
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        name: String,
        args: Vec<Expr>,
    },
    Unary {
        op: Unary,
        operand: Box<Expr>,
    },
    Binary {
        op: Binary,
        operands: Box<[Expr; 2]>,
    },
    /// A chain of `&&` or of `||`, of two terms or more.
    Logic {
        op: Logic,
        terms: Vec<Expr>,
    },
    Ternary(Box<[Expr; 3]>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    /// `Name{field: value}`.
    Message {
        name: String,
        fields: Vec<Entry>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub optional: bool,
    pub value: Expr,
}

/// An entry of a map; in a message the key is the field's name as a string.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: u32,
    pub optional: bool,
    pub key: Expr,
    pub value: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Not,
    Negate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Less,
    LessEquals,
    Greater,
    GreaterEquals,
    Equals,
    NotEquals,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// How tightly an expression holds together, in steps of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tightness {
    Ternary,
    Or,
    And,
    Relation,
    Sum,
    Product,
    Unary,
    Member,
}

/// Where something stands is no part of what it says.
impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.kind == other.kind
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.optional, &self.key, &self.value) == (other.optional, &other.key, &other.value)
    }
}

impl Unary {
    /// The name under which the function is declared.
    pub fn function(self) -> &'static str {
        match self {
            Unary::Not => "!_",
            Unary::Negate => "-_",
        }
    }
}

impl Logic {
    pub fn symbol(self) -> &'static str {
        match self {
            Logic::And => "&&",
            Logic::Or => "||",
        }
    }

    pub fn function(self) -> &'static str {
        match self {
            Logic::And => "_&&_",
            Logic::Or => "_||_",
        }
    }

    pub fn tightness(self) -> Tightness {
        match self {
            Logic::And => Tightness::And,
            Logic::Or => Tightness::Or,
        }
    }
}

impl Binary {
    pub fn of(symbol: &str) -> Option<Binary> {
        Some(match symbol {
            "<" => Binary::Less,
            "<=" => Binary::LessEquals,
            ">" => Binary::Greater,
            ">=" => Binary::GreaterEquals,
            "==" => Binary::Equals,
            "!=" => Binary::NotEquals,
            "in" => Binary::In,
            "+" => Binary::Add,
            "-" => Binary::Subtract,
            "*" => Binary::Multiply,
            "/" => Binary::Divide,
            "%" => Binary::Modulo,
            _ => return None,
        })
    }

    pub fn symbol(self) -> &'static str {
        match self {
            Binary::Less => "<",
            Binary::LessEquals => "<=",
            Binary::Greater => ">",
            Binary::GreaterEquals => ">=",
            Binary::Equals => "==",
            Binary::NotEquals => "!=",
            Binary::In => "in",
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::Modulo => "%",
        }
    }

    pub fn function(self) -> &'static str {
        match self {
            Binary::Less => "_<_",
            Binary::LessEquals => "_<=_",
            Binary::Greater => "_>_",
            Binary::GreaterEquals => "_>=_",
            Binary::Equals => "_==_",
            Binary::NotEquals => "_!=_",
            Binary::In => "@in",
            Binary::Add => "_+_",
            Binary::Subtract => "_-_",
            Binary::Multiply => "_*_",
            Binary::Divide => "_/_",
            Binary::Modulo => "_%_",
        }
    }

    pub fn tightness(self) -> Tightness {
        match self {
            Binary::Add | Binary::Subtract => Tightness::Sum,
            Binary::Multiply | Binary::Divide | Binary::Modulo => Tightness::Product,
            _ => Tightness::Relation,
        }
    }
}

impl Expr {
    /// The names of a chain of selections that begins with an identifier (`a.b.c`), joined by dots.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.clone()),
            ExprKind::Select { operand, field, optional: false } => {
                Some(format!("{}.{field}", operand.qualified_name()?))
            }
            _ => None,
        }
    }

    /// Whether a number is what it begins with when it is printed as a member.
    fn begins_with_number(&self) -> bool {
        match &self.kind {
            ExprKind::Literal(literal) => matches!(literal, Literal::Int(_) | Literal::Uint(_) | Literal::Double(_)),
            ExprKind::Select { operand, .. } | ExprKind::Index { operand, .. } => operand.begins_with_number(),
            ExprKind::Call { target: Some(target), .. } => target.begins_with_number(),
            _ => false,
        }
    }

    fn tightness(&self) -> Tightness {
        match &self.kind {
            ExprKind::Ternary(_) => Tightness::Ternary,
            ExprKind::Logic { op, .. } => op.tightness(),
            ExprKind::Binary { op, .. } => op.tightness(),
            ExprKind::Unary { .. } => Tightness::Unary,
            // A minus belongs to the number, and would not if a member of the number were asked for.
            ExprKind::Literal(Literal::Int(number)) if *number < 0 => Tightness::Unary,
            ExprKind::Literal(Literal::Double(number)) if number.is_sign_negative() => Tightness::Unary,
            _ => Tightness::Member,
        }
    }

    /// Printed so that it stands where at least that tightness is asked for.
    fn print(&self, f: &mut fmt::Formatter<'_>, least: Tightness) -> fmt::Result {
        if self.tightness() < least {
            f.write_str("(")?;
            self.print_bare(f)?;
            return f.write_str(")");
        }
        self.print_bare(f)
    }

    fn print_bare(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Literal(literal) => write!(f, "{literal}"),
            ExprKind::Ident(name) => f.write_str(name),
            ExprKind::Select { operand, field, optional } => {
                operand.print(f, Tightness::Member)?;
                write!(f, "{}{field}", if *optional { ".?" } else { "." })
            }
            ExprKind::Index { operand, index, optional } => {
                operand.print(f, Tightness::Member)?;
                f.write_str(if *optional { "[?" } else { "[" })?;
                write!(f, "{index}]")
            }
            ExprKind::Call { target, name, args } => {
                if let Some(target) = target {
                    target.print(f, Tightness::Member)?;
                    f.write_str(".")?;
                }
                write!(f, "{name}(")?;
                separated(f, args, |f, arg| write!(f, "{arg}"))?;
                f.write_str(")")
            }
            ExprKind::Unary { op, operand } => {
                f.write_str(if *op == Unary::Not { "!" } else { "-" })?;
                // A minus before digits would be read as theirs.
                if *op == Unary::Negate && operand.begins_with_number() {
                    return write!(f, "({operand})");
                }
                operand.print(f, Tightness::Member)
            }
            ExprKind::Binary { op, operands } => {
                operands[0].print(f, op.tightness())?;
                write!(f, " {} ", op.symbol())?;
                let right =
                    if op.tightness() == Tightness::Relation { Tightness::Sum } else { tighter(op.tightness()) };
                operands[1].print(f, right)
            }
            ExprKind::Logic { op, terms } => {
                for (index, term) in terms.iter().enumerate() {
                    if index > 0 {
                        write!(f, " {} ", op.symbol())?;
                    }
                    term.print(f, tighter(op.tightness()))?;
                }
                Ok(())
            }
            ExprKind::Ternary(parts) => {
                parts[0].print(f, Tightness::Or)?;
                f.write_str(" ? ")?;
                parts[1].print(f, Tightness::Or)?;
                write!(f, " : {}", parts[2])
            }
            ExprKind::List(elements) => {
                f.write_str("[")?;
                separated(f, elements, |f, e| write!(f, "{}{}", if e.optional { "?" } else { "" }, e.value))?;
                f.write_str("]")
            }
            ExprKind::Map(entries) => {
                f.write_str("{")?;
                separated(f, entries, |f, e| write!(f, "{}{}: {}", if e.optional { "?" } else { "" }, e.key, e.value))?;
                f.write_str("}")
            }
            ExprKind::Message { name, fields } => {
                write!(f, "{name}{{")?;
                separated(f, fields, |f, e| {
                    let ExprKind::Literal(Literal::String(field)) = &e.key.kind else { return Err(fmt::Error) };
                    write!(f, "{}{field}: {}", if e.optional { "?" } else { "" }, e.value)
                })?;
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_bare(f)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("null"),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Int(value) => write!(f, "{value}"),
            Literal::Uint(value) => write!(f, "{value}u"),
            // With a point or an exponent, for it would be an integer otherwise.
            Literal::Double(value) => write!(f, "{value:?}"),
            Literal::String(text) => quoted(f, text),
            Literal::Bytes(bytes) => {
                f.write_str("b\"")?;
                bytes.iter().try_for_each(|byte| match byte {
                    b'"' | b'\\' => write!(f, "\\{}", *byte as char),
                    b' '..=b'~' => write!(f, "{}", *byte as char),
                    _ => write!(f, "\\x{byte:02x}"),
                })?;
                f.write_str("\"")
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut print: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        print(f, item)?;
    }
    Ok(())
}

/// The next step of the grammar.
fn tighter(of: Tightness) -> Tightness {
    match of {
        Tightness::Ternary => Tightness::Or,
        Tightness::Or => Tightness::And,
        Tightness::And => Tightness::Relation,
        Tightness::Relation => Tightness::Sum,
        Tightness::Sum => Tightness::Product,
        Tightness::Product => Tightness::Unary,
        Tightness::Unary | Tightness::Member => Tightness::Member,
    }
}
