//! Conditions as newer kinds have them (`metav1.Condition`): a qualified type that stands there once, a status of three, a
//! time, a reason that is an identifier of at most 1 KiB, and a message of at most 32 KiB.

use std::collections::BTreeSet;

use super::at::{At, Errors};
use super::format::qualified;
use crate::FieldError;

const REASON_MAX_BYTES: usize = 1 << 10;
const MESSAGE_MAX_BYTES: usize = 32 << 10;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  \
    or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

pub fn conditions(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for at in list.items() {
        let (kind, status) = (at.field("type"), at.field("status"));
        kind.unique(errors, &mut seen);
        if let Some(why) = qualified(kind.text()) {
            errors.push(FieldError::invalid(kind.path.as_str(), kind.text(), why));
        }
        if !["True", "False", "Unknown"].contains(&status.text()) {
            let words = ["False", "True", "Unknown"];
            errors.push(FieldError::not_supported(status.path.as_str(), status.text(), &words));
        }
        let generation = at.field("observedGeneration");
        if generation.int().is_some_and(|generation| generation < 0) {
            generation.invalid(errors, "must be greater than or equal to zero");
        }
        if !at.field("lastTransitionTime").is_set() {
            at.field("lastTransitionTime").required(errors, "");
        }
        let (reason, message) = (at.field("reason"), at.field("message"));
        reason.required_as(errors, |text| (!is_reason(text)).then(|| REASON.to_owned()));
        for (text, max) in [(reason, REASON_MAX_BYTES), (message, MESSAGE_MAX_BYTES)] {
            if text.text().len() > max {
                errors.push(FieldError::too_long(text.path.as_str(), max));
            }
        }
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|b| inner(b) || b",:".contains(b))
}
