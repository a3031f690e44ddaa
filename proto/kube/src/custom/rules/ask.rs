//! What is wrong with an object by the rules of its kind. A change need not mend what it does not touch; what it leaves wrong is told
//! as a warning.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::{CompiledRule, Place, Rules};
use crate::FieldError;
use crate::cel::data::{MapData, Shape, read};
use crate::cel::value::Map as MapValue;
use crate::cel::{CALL_COST_MAX, Decl, Fault, Program, Value};
use crate::custom::structural::{Additional, JsonType, Structural};
use crate::custom::validate::old::{Old, OldItems};
use crate::field::FieldErrorKind;
use crate::validation::at::ERRORS_MAX;

/// What all rules together may cost for one object: about a second of a slow machine.
pub const ASK_COST_MAX: u64 = 10_000_000;
/// What an expression may say as a message.
const MESSAGE_MAX_BYTES: usize = 5 << 10;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What rules have to say of an object.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    pub errors: Vec<FieldError>,
    /// Errors of what a change does not touch.
    pub warnings: Vec<String>,
}

impl Rules {
    /// What is wrong with a new object.
    pub fn create(&self, schema: &Structural, object: &Map<String, Json>) -> Asked {
        self.ask(schema, object, None)
    }

    /// What is wrong with a change of an object.
    pub fn update(&self, schema: &Structural, new: &Map<String, Json>, old: &Map<String, Json>) -> Asked {
        self.ask(schema, new, Some(old))
    }

    fn ask(&self, schema: &Structural, new: &Map<String, Json>, old: Option<&Map<String, Json>>) -> Asked {
        let mut asking = Asking::default();
        if let Some(root) = &self.root {
            let here = Here {
                schema,
                path: Path::Root(""),
                new: Node::Object(new),
                old: old.map(Node::Object),
                before: Before { own: old.map(|old| Old::of_object(schema, old)), nearest: None },
            };
            // The end is told by an error.
            let _ = asking.place(root, &here);
        }
        asking.asked
    }

    /// Asks of a value that stands at that path, as a default does: as it was before, or new.
    pub(super) fn ask_one(&self, asking: &mut Asking, schema: &Structural, path: &str, value: &Json, unchanged: bool) {
        let Some(root) = &self.root else { return };
        let new = Node::Value(value);
        let old = unchanged.then_some(new);
        let here = Here { schema, path: Path::Root(path), new, old, before: Before::default() };
        asking.over |= asking.place(root, &here).is_err();
    }
}

/// No more is asked: the budget is used up, or there are errors enough.
struct Stopped;

/// A value: an object's map, which is borrowed as it is, or any other.
#[derive(Clone, Copy)]
enum Node<'a> {
    Object(&'a Map<String, Json>),
    Value(&'a Json),
}

impl<'a> Node<'a> {
    fn map(self) -> Option<&'a Map<String, Json>> {
        match self {
            Node::Object(map) => Some(map),
            Node::Value(value) => value.as_object(),
        }
    }

    fn items(self) -> Option<&'a [Json]> {
        match self {
            Node::Value(Json::Array(items)) => Some(items),
            _ => None,
        }
    }

    fn is_null(self) -> bool {
        matches!(self, Node::Value(Json::Null))
    }

    fn read(self, decl: &'a Decl) -> Result<Value<'a>, Fault> {
        match (self, decl.object()) {
            (Node::Object(entries), Some(object)) => {
                Ok(Value::Map(MapValue::Data(MapData { entries, shape: Shape::Object(object) })))
            }
            (Node::Object(entries), None) => Ok(Value::Map(MapValue::Data(MapData { entries, shape: Shape::Any }))),
            (Node::Value(value), _) => read(value, decl),
        }
    }

    /// Whether it was that before.
    fn was(self, old: Old<'_>) -> bool {
        match self {
            Node::Object(map) => old.is_object(map),
            Node::Value(value) => old.is_value(value),
        }
    }
}

/// The way to a value, printed when an error names it.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Child(&'a Path<'a>, &'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(path) => f.write_str(path),
            Path::Child(Path::Root(""), name) => f.write_str(name),
            Path::Child(path, name) => write!(f, "{path}.{name}"),
            Path::Key(path, key) => write!(f, "{path}[{key}]"),
            Path::Index(path, index) => write!(f, "{path}[{index}]"),
        }
    }
}

/// What stood in the place before a change.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    own: Option<Old<'a>>,
    /// Of what holds the value, the nearest that can be told again, with what it is now.
    nearest: Option<(Old<'a>, Node<'a>)>,
}

/// One value and all that is known of its place.
#[derive(Clone, Copy)]
struct Here<'a> {
    schema: &'a Structural,
    path: Path<'a>,
    new: Node<'a>,
    /// What `oldSelf` is.
    old: Option<Node<'a>>,
    before: Before<'a>,
}

impl<'a> Here<'a> {
    /// Whether the change touched neither the value nor what holds it.
    fn is_untouched(&self) -> bool {
        match (self.before.own, self.before.nearest) {
            (Some(own), _) => self.new.was(own),
            (None, Some((nearest, new))) => new.was(nearest),
            (None, None) => false,
        }
    }

    fn below(&self, own: Option<Old<'a>>) -> Before<'a> {
        match self.before.own {
            Some(nearest) => Before { own, nearest: Some((nearest, self.new)) },
            None => self.before,
        }
    }

    fn key(&self, name: &str) -> Before<'a> {
        // Versions are converted before: what they were before that is not told.
        if self.before.nearest.is_none() && matches!(name, "apiVersion" | "kind") {
            return Before::default();
        }
        self.below(self.before.own.and_then(|own| own.key(name)))
    }

    fn type_name(&self) -> &'static str {
        self.schema.ty.map_or("", JsonType::name)
    }
}

/// What was said so far, and what may still be spent.
pub(super) struct Asking {
    pub(super) asked: Asked,
    left: u64,
    over: bool,
}

impl Default for Asking {
    fn default() -> Asking {
        Asking { asked: Asked::default(), left: ASK_COST_MAX, over: false }
    }
}

impl Asking {
    /// Whether no more can be asked.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn place(&mut self, place: &Place, here: &Here<'_>) -> Result<(), Stopped> {
        if here.new.is_null() {
            return Ok(());
        }
        self.rules(place, here)?;
        for all_of in &place.all_of {
            let before = Before { own: None, ..here.before };
            self.place(all_of, &Here { before, ..*here })?;
        }
        if let (Some(items), Some(below)) = (here.new.items(), &place.items) {
            self.items(below, items, here)?;
        }
        if let Some(map) = here.new.map() {
            self.entries(place, map, here)?;
        }
        Ok(())
    }

    fn items(&mut self, below: &Place, items: &[Json], here: &Here<'_>) -> Result<(), Stopped> {
        let Some(schema) = here.schema.items.as_deref() else { return Ok(()) };
        let old_items = here.old.and_then(|old| match old {
            Node::Value(value) => Old::of_value(here.schema, value).items(),
            Node::Object(_) => None,
        });
        let before_items: Option<OldItems<'_>> = here.before.own.and_then(Old::items);
        for (index, item) in items.iter().enumerate() {
            let old = old_items.as_ref().and_then(|items| items.item(item)).map(Node::Value);
            let before = here.below(before_items.as_ref().and_then(|items| items.of(item)));
            let path = Path::Index(&here.path, index);
            self.place(below, &Here { schema, path, new: Node::Value(item), old, before })?;
        }
        Ok(())
    }

    fn entries(&mut self, place: &Place, map: &Map<String, Json>, here: &Here<'_>) -> Result<(), Stopped> {
        if place.properties.is_empty() && place.additional.is_none() {
            return Ok(());
        }
        let old_map = here.old.and_then(Node::map);
        for (name, value) in map {
            let old = old_map.and_then(|old| old.get(name)).filter(|old| !old.is_null()).map(Node::Value);
            let (new, before) = (Node::Value(value), here.key(name));
            if let (Some(below), Additional::Schema(schema)) = (&place.additional, &here.schema.additional) {
                self.place(below, &Here { schema, path: Path::Key(&here.path, name), new, old, before })?;
            }
            if let (Some(below), Some(schema)) = (place.properties.get(name), here.schema.properties.get(name)) {
                self.place(below, &Here { schema, path: Path::Child(&here.path, name), new, old, before })?;
            }
        }
        Ok(())
    }

    fn rules(&mut self, place: &Place, here: &Here<'_>) -> Result<(), Stopped> {
        let Some(decl) = place.decl.as_deref().filter(|_| !place.rules.is_empty()) else { return Ok(()) };
        if self.left == 0 {
            return self.stop(here, OUT_OF_BUDGET.to_owned());
        }
        let new = here.new.read(decl);
        let old = here.old.map(|old| old.read(decl));
        for rule in &place.rules {
            self.rule(rule, here, &new, old.as_ref())?;
        }
        Ok(())
    }

    fn rule<'a>(
        &mut self,
        rule: &CompiledRule,
        here: &Here<'a>,
        new: &Result<Value<'a>, Fault>,
        old: Option<&Result<Value<'a>, Fault>>,
    ) -> Result<(), Stopped> {
        let program = match &rule.program {
            None => return Ok(()),
            Some(Err(why)) => return self.error(typed(here, format!("rule compile error: {why}"))),
            Some(Ok(program)) => program,
        };
        let optional = rule.rule.optional_old_self == Some(true);
        // A rule of changes has nothing to say of what was not there before.
        if rule.uses_old_self && old.is_none() && !optional {
            return Ok(());
        }
        let values = new.clone().and_then(|new| Ok([Some(new), old_self(optional, old)?]));
        let outcome = match values {
            Ok(values) => {
                let outcome = self.evaluate(program, &values, here)?;
                outcome.map(|outcome| (outcome.is_true(), values))
            }
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok((true, _)) => Ok(()),
            Ok((false, values)) => self.broken(rule, here, &values),
            Err(fault) => self.fault(rule, here, &fault),
        }
    }

    /// Evaluates, and takes what it cost from what is left.
    fn evaluate<'a>(
        &mut self,
        program: &Program,
        values: &[Option<Value<'a>>],
        here: &Here<'_>,
    ) -> Result<Result<Value<'a>, Fault>, Stopped> {
        let evaluation = program.evaluate(values, CALL_COST_MAX.min(self.left));
        if evaluation.cost > self.left {
            self.stop(here, OUT_OF_BUDGET.to_owned())?;
        }
        self.left -= evaluation.cost.min(self.left);
        Ok(evaluation.outcome)
    }

    fn fault(&mut self, rule: &CompiledRule, here: &Here<'_>, fault: &Fault) -> Result<(), Stopped> {
        let name = name_of(rule);
        let text = fault.to_string();
        if *fault == Fault::Exhausted {
            return self.stop(
                here,
                format!(
                    "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                ),
            );
        }
        let detail = if text.starts_with("no such overload") {
            format!(
                "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
            )
        } else {
            format!("{text} evaluating rule: {name}")
        };
        self.error(typed(here, detail))
    }

    /// Reports that a rule is broken, unless the change leaves it as it was.
    fn broken(&mut self, rule: &CompiledRule, here: &Here<'_>, values: &[Option<Value<'_>>]) -> Result<(), Stopped> {
        let path = match &rule.field_path {
            Some(below) => Path::Child(&here.path, below).to_string(),
            None => shown(here),
        };
        let message = match &rule.message {
            Some(Ok(program)) => self.message(program, rule, values),
            _ => Ok(None),
        };
        let (error, end) = match message {
            Ok(message) => (broken_error(rule, here, path, message.unwrap_or_else(|| default_message(rule))), false),
            Err(why) => (FieldError::invalid(path, here.type_name(), why), true),
        };
        if !rule.uses_old_self && here.is_untouched() {
            if self.asked.warnings.len() < ERRORS_MAX {
                self.asked.warnings.push(error.to_string());
            }
        } else {
            self.error(error)?;
        }
        if end { Err(Stopped) } else { Ok(()) }
    }

    /// What the expression says; None where it says nothing that can be a message. The error ends the asking.
    fn message(
        &mut self,
        program: &Program,
        rule: &CompiledRule,
        values: &[Option<Value<'_>>],
    ) -> Result<Option<String>, String> {
        let evaluation = program.evaluate(values, CALL_COST_MAX.min(self.left));
        if evaluation.cost > self.left {
            return Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation \
                        rules will be run"
                    .to_owned(),
            );
        }
        self.left -= evaluation.cost;
        match evaluation.outcome {
            Err(Fault::Exhausted) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                rule.rule.message_expression
            )),
            Ok(Value::String(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && text.len() <= MESSAGE_MAX_BYTES && !text.contains('\n');
                Ok(fits.then(|| text.to_owned()))
            }
            _ => Ok(None),
        }
    }

    fn error(&mut self, error: FieldError) -> Result<(), Stopped> {
        self.asked.errors.push(error);
        if self.asked.errors.len() >= ERRORS_MAX { Err(Stopped) } else { Ok(()) }
    }

    fn stop(&mut self, here: &Here<'_>, why: String) -> Result<(), Stopped> {
        self.asked.errors.push(typed(here, why));
        Err(Stopped)
    }
}

/// What `oldSelf` is for a rule: with `optionalOldSelf` there always is one, which may hold nothing.
fn old_self<'a>(optional: bool, old: Option<&Result<Value<'a>, Fault>>) -> Result<Option<Value<'a>>, Fault> {
    let old = old.cloned().transpose()?;
    Ok(match (optional, old) {
        (true, Some(old)) => Some(Value::some(old)),
        (true, None) => Some(Value::Optional(None)),
        (false, old) => old,
    })
}

/// The path; that of the object itself is none.
fn shown(here: &Here<'_>) -> String {
    match here.path {
        Path::Root("") => "<nil>".to_owned(),
        path => path.to_string(),
    }
}

/// An error that shows the type in place of the value.
fn typed(here: &Here<'_>, detail: String) -> FieldError {
    FieldError::invalid(shown(here), here.type_name(), detail)
}

fn broken_error(rule: &CompiledRule, here: &Here<'_>, path: String, message: String) -> FieldError {
    let large = matches!(here.schema.ty, Some(JsonType::Object | JsonType::Array));
    let kind = match rule.rule.reason.as_str() {
        "FieldValueForbidden" => return FieldError::forbidden(path, message),
        "FieldValueRequired" => return FieldError::required(path, message),
        "FieldValueDuplicate" => FieldErrorKind::Duplicate,
        _ => FieldErrorKind::Invalid,
    };
    let value = match here.new {
        Node::Value(value) if !large => value.clone(),
        _ => Json::Null,
    };
    let error = match kind {
        FieldErrorKind::Duplicate => FieldError::duplicate(path, value),
        _ => FieldError::invalid(path, value, message),
    };
    if large { error.without_value() } else { error }
}

fn default_message(rule: &CompiledRule) -> String {
    match rule.rule.message.trim() {
        "" => format!("failed rule: {}", rule.rule.rule.trim()),
        message => message.to_owned(),
    }
}

/// How errors call a rule.
fn name_of(rule: &CompiledRule) -> &str {
    match rule.rule.message.trim() {
        "" => rule.rule.rule.trim(),
        message => message,
    }
}
