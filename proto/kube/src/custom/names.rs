//! Which of its names a definition gets, and the conditions that tell of it. A name that another has in the same group is not given;
//! what was given once stays. Source: the Kubernetes documentation of CustomResourceDefinitions (NamesAccepted, Established).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definition;
use crate::Object;

/// A condition without the time that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: String,
    pub message: String,
}

/// What the status of a definition is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub accepted: Map<String, Value>,
    pub conditions: Vec<Condition>,
}

/// Names of a group that nobody else can have: of resources (plural, singular and short names) and of kinds (and their lists).
#[derive(Clone, Debug, Default)]
pub struct Taken<'a> {
    pub resources: BTreeSet<&'a str>,
    pub kinds: BTreeSet<&'a str>,
}

impl<'a> Taken<'a> {
    /// What another definition was given, where it is of that group.
    pub fn by(&mut self, group: &str, other: &'a Object) {
        if other.str_at("/spec/group") != group {
            return;
        }
        let Some(names) = other.get("/status/acceptedNames") else { return };
        let text = |key: &str| names.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        self.resources.extend([text("plural"), text("singular")].into_iter().flatten());
        self.resources.extend(texts(names, "shortNames"));
        self.kinds.extend([text("kind"), text("listKind")].into_iter().flatten());
    }
}

fn texts<'a>(names: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    names.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Plans the status of a definition. `taken` is what built-in kinds and the other definitions of its group have.
pub fn plan(object: &Object, taken: &Taken<'_>) -> Plan {
    static NONE: Value = Value::Null;
    let asked = object.get("/spec/names").unwrap_or(&NONE);
    let given = object.get("/status/acceptedNames").unwrap_or(&NONE);
    let mut accepted = given.as_object().cloned().unwrap_or_default();
    // The last conflict is told.
    let mut conflict = None;
    for (key, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        one(asked, given, key, &taken.resources, &mut accepted, &mut |message| conflict = Some((reason, message)));
    }
    if asked.get("shortNames") != given.get("shortNames") {
        let own: BTreeSet<&str> = texts(given, "shortNames").collect();
        let others = texts(asked, "shortNames").filter(|name| !own.contains(name) && taken.resources.contains(name));
        let messages: Vec<String> = others.map(in_use).collect();
        match messages.as_slice() {
            [] => copy(asked, "shortNames", &mut accepted),
            [one] => conflict = Some(("ShortNamesConflict", one.clone())),
            several => conflict = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
        }
    }
    for (key, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        one(asked, given, key, &taken.kinds, &mut accepted, &mut |message| conflict = Some((reason, message)));
    }
    copy(asked, "categories", &mut accepted);
    let names = match conflict {
        Some((reason, message)) => condition("NamesAccepted", "False", reason, message),
        None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
    };
    let established = established(object, names.status == "True");
    let mut conditions = vec![names, established];
    conditions.extend(approval(object));
    Plan { accepted, conditions }
}

fn one(
    asked: &Value,
    given: &Value,
    key: &str,
    taken: &BTreeSet<&str>,
    accepted: &mut Map<String, Value>,
    conflict: &mut dyn FnMut(String),
) {
    let text = |names: &Value| names.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = text(asked);
    if wanted != text(given) && taken.contains(wanted.as_str()) {
        conflict(in_use(&wanted));
    } else {
        copy(asked, key, accepted);
    }
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

fn copy(asked: &Value, key: &str, accepted: &mut Map<String, Value>) {
    match asked.get(key) {
        Some(value) => accepted.insert(key.to_owned(), value.clone()),
        None => accepted.remove(key),
    };
}

fn condition(kind: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Condition {
    Condition { kind, status, reason: reason.to_owned(), message: message.into() }
}

/// Once established a definition stays so, whatever names it asks for later.
fn established(object: &Object, accepted: bool) -> Condition {
    const ACCEPTED: &str = "the initial names have been accepted";
    let before = definition::condition(object, "Established");
    let text = |key: &str| before.and_then(|c| c.get(key)).and_then(Value::as_str).unwrap_or_default();
    if text("status") == "True" {
        return condition("Established", "True", text("reason"), text("message"));
    }
    if !accepted {
        return condition("Established", "False", "NotAccepted", "not all names are accepted");
    }
    if definition::has_bad_ca_bundle(object) {
        return condition("Established", "False", "InvalidCABundle", "The conversion webhook CABundle is invalid");
    }
    condition("Established", "True", "InitialNamesAccepted", ACCEPTED)
}

/// Groups of Kubernetes' own domains tell whether they were reviewed.
fn approval(object: &Object) -> Option<Condition> {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    let (state, why) = definition::approval(object)?;
    let (status, reason) = match state {
        definition::Approval::Invalid => ("False", "InvalidAnnotation"),
        definition::Approval::Missing => ("False", "MissingAnnotation"),
        definition::Approval::Given => ("True", "ApprovedAnnotation"),
        definition::Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    Some(condition(KIND, status, reason, why))
}

/// Writes a plan into the status. False where it says all of it already.
pub fn apply(object: &mut Object, plan: &Plan, now: &str) -> bool {
    let before = object.clone();
    let generation = object.generation();
    let status = object.map_mut("status");
    status.insert("acceptedNames".to_owned(), Value::Object(plan.accepted.clone()));
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return false };
    for planned in &plan.conditions {
        let known = conditions.iter_mut().find(|known| known["type"] == planned.kind);
        let since = match &known {
            Some(known) if known["status"] == planned.status && known["lastTransitionTime"].is_string() => {
                known["lastTransitionTime"].clone()
            }
            _ => Value::from(now),
        };
        let mut written = json!({"type": planned.kind, "status": planned.status, "reason": planned.reason,
            "message": planned.message, "lastTransitionTime": since});
        if generation > 0 && known.as_ref().is_some_and(|known| known["observedGeneration"].is_number()) {
            written["observedGeneration"] = json!(generation);
        }
        match known {
            Some(known) => *known = written,
            None => conditions.push(written),
        }
    }
    *object != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(names: Value, status: Value) -> Object {
        Object::from_value(
            json!({"metadata": {"name": "as.g.io"}, "spec": {"group": "g.io", "names": names}, "status": status}),
        )
        .unwrap()
    }

    fn names(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short})
    }

    fn told(plan: &Plan) -> Vec<(&str, &str, &str)> {
        plan.conditions.iter().map(|c| (c.kind, c.status, c.reason.as_str())).collect()
    }

    #[test]
    fn names_that_nobody_has_are_given() {
        let mut object = definition(names("as", "A", &["a"]), json!({}));
        let plan = super::plan(&object, &Taken::default());
        assert_eq!(
            told(&plan),
            [("NamesAccepted", "True", "NoConflicts"), ("Established", "True", "InitialNamesAccepted")]
        );
        assert!(apply(&mut object, &plan, "t1"));
        assert_eq!(object.0["status"]["acceptedNames"], names("as", "A", &["a"]));
        // The fixpoint: what was applied is planned again, and changes nothing.
        let mut again = object.clone();
        assert!(!apply(&mut again, &super::plan(&object, &Taken::default()), "t2"));
    }

    #[test]
    fn names_that_another_has_are_not() {
        let other = definition(names("bs", "B", &["s"]), json!({"acceptedNames": names("bs", "B", &["s"])}));
        let mut taken = Taken::default();
        taken.by("other.io", &other);
        assert!(taken.kinds.is_empty());
        taken.by("g.io", &other);
        let object = definition(names("as", "A", &["s"]), json!({}));
        let plan = super::plan(&object, &taken);
        assert_eq!(
            told(&plan),
            [("NamesAccepted", "False", "ShortNamesConflict"), ("Established", "False", "NotAccepted")]
        );
        assert_eq!(plan.conditions[0].message, "\"s\" is already in use");
        assert_eq!(plan.accepted.get("shortNames"), None);
        assert_eq!(plan.accepted["kind"], "A");
        let plan = super::plan(&definition(names("as", "B", &[]), json!({})), &taken);
        assert_eq!(told(&plan)[0], ("NamesAccepted", "False", "ListKindConflict"));
        // What was given before stays given, and established.
        let status = json!({"acceptedNames": names("as", "A", &[]), "conditions": [{"type": "Established", "status": "True",
            "reason": "InitialNamesAccepted", "message": "m"}]});
        let plan = super::plan(&definition(names("as", "B", &[]), status), &taken);
        assert_eq!(plan.accepted["kind"], "A");
        assert_eq!(told(&plan)[1], ("Established", "True", "InitialNamesAccepted"));
    }
}
