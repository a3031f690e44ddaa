//! The three patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//!
//! Each takes the stored object's JSON and the patch, and leaves the result uncanonical: the caller normalises, defaults and
//! validates it like any other write. All are pure, and bounded: the number of operations, the bytes that `copy` adds.

mod strategic;

#[cfg(test)]
mod tests;

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use crate::canonical::DEPTH_MAX;

pub use strategic::strategic;

/// Operations in one JSON patch.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of one patch may add to the document.
pub const COPIED_MAX_BYTES: usize = 3 * 1024 * 1024;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The patch itself is malformed: a 400.
    #[error("{0}")]
    Malformed(String),
    /// A 413, as Kubernetes answers it.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {COPIED_MAX_BYTES}"
    )]
    CopiesTooMuch(usize),
    #[error("the patch nests the document deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A well-formed patch that this object does not take (a failed `test`, a path that is not there): a 422.
    #[error("{0}")]
    DoesNotApply(String),
}

/// Applies a JSON patch. On an error the document is what it was.
pub fn json_patch(document: &mut Value, operations: Value) -> Result<(), MergeError> {
    if let Value::Array(list) = &operations
        && list.len() > OPERATIONS_MAX
    {
        return Err(MergeError::TooManyOperations(list.len()));
    }
    let operations: Vec<PatchOperation> =
        serde_json::from_value(operations).map_err(|error| MergeError::Malformed(error.to_string()))?;
    let mut result = document.clone();
    let mut copied = 0usize;
    let mut depth = Depth::of(document)?;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation
            && let Ok(value) = copy.from.resolve(&result)
        {
            copied = copied.saturating_add(size(value));
            if copied > COPIED_MAX_BYTES {
                return Err(MergeError::CopiesTooMuch(copied));
            }
        }
        json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation))
            .map_err(|error| MergeError::DoesNotApply(words(operation, &error)))?;
        depth.after(operation, &result)?;
    }
    *document = result;
    Ok(())
}

/// An upper bound of how deep the document is. Operations that are each small could nest it until walking it overflows
/// the stack; measuring it after each of them would cost too much.
struct Depth {
    bound: usize,
    measurements_left: usize,
}

impl Depth {
    /// Measurements in one patch, far above what a patch that is meant well needs.
    const MEASUREMENTS_MAX: usize = 64;

    fn of(document: &Value) -> Result<Depth, MergeError> {
        let bound = depth(document, DEPTH_MAX).ok_or(MergeError::TooDeep)?;
        Ok(Depth { bound, measurements_left: Depth::MEASUREMENTS_MAX })
    }

    fn after(&mut self, operation: &PatchOperation, document: &Value) -> Result<(), MergeError> {
        let levels = |pointer: &Pointer| pointer.tokens().take(DEPTH_MAX + 1).count();
        let reached = match operation {
            PatchOperation::Add(o) => levels(&o.path) + depth(&o.value, DEPTH_MAX).ok_or(MergeError::TooDeep)?,
            PatchOperation::Replace(o) => levels(&o.path) + depth(&o.value, DEPTH_MAX).ok_or(MergeError::TooDeep)?,
            PatchOperation::Copy(o) => (levels(&o.path) + self.bound).saturating_sub(levels(&o.from)),
            PatchOperation::Move(o) => (levels(&o.path) + self.bound).saturating_sub(levels(&o.from)),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        self.bound = self.bound.max(reached);
        if self.bound > DEPTH_MAX {
            self.measurements_left = self.measurements_left.checked_sub(1).ok_or(MergeError::TooDeep)?;
            self.bound = depth(document, DEPTH_MAX).ok_or(MergeError::TooDeep)?;
        }
        Ok(())
    }
}

/// How many lists and maps stand inside one another, or None where there are more than `most`.
fn depth(value: &Value, most: usize) -> Option<usize> {
    let inner = |mut items: Box<dyn Iterator<Item = &Value> + '_>| {
        let most = most.checked_sub(1)?;
        items.try_fold(0, |deepest, item| Some(depth(item, most)?.max(deepest))).map(|deepest| deepest + 1)
    };
    match value {
        Value::Array(items) => inner(Box::new(items.iter())),
        Value::Object(map) => inner(Box::new(map.values())),
        _ => Some(0),
    }
}

/// Applies a merge patch: null removes, maps merge, all else replaces.
pub fn merge_patch(document: &mut Value, patch: &Value) {
    json_patch::merge(document, patch);
}

/// An operation that failed, as users of the API know the sentence.
fn words(operation: &PatchOperation, error: &json_patch::PatchError) -> String {
    let path = operation.path();
    match operation {
        PatchOperation::Test(_) => format!("testing value {path} failed: test failed"),
        PatchOperation::Remove(_) => format!("remove operation does not apply: doc is missing path: \"{path}\""),
        PatchOperation::Replace(_) => format!("replace operation does not apply: doc is missing path: \"{path}\""),
        PatchOperation::Add(_) => format!("add operation does not apply: doc is missing path: \"{path}\""),
        PatchOperation::Move(o) => format!("move operation does not apply: from {} to {path}: {}", o.from, error.kind),
        PatchOperation::Copy(o) => format!("copy operation does not apply: from {} to {path}: {}", o.from, error.kind),
    }
}

/// About as many bytes as the value prints to.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>(),
    }
}
