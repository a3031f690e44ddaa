//! What is asked for again and again stays parsed: the namespace of each create, the account behind each token.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use gantry_kube::Object;
use parking_lot::Mutex;

use super::Stored;

const SLOTS: usize = 64;
/// What is larger is parsed each time. A parsed object is some ten times as large.
const WARM_MAX_BYTES: usize = 16 << 10;

/// Parsed objects, each in the slot that its key falls into; the last that was asked for has it.
#[derive(Debug)]
pub(super) struct Warm([Mutex<Option<Arc<Object>>>; SLOTS]);

impl Default for Warm {
    fn default() -> Warm {
        Warm(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Warm {
    /// The parsed object. A version of it that is kept here is what [`Stored::object`] then finds.
    pub fn object(&self, stored: &Stored) -> Arc<Object> {
        let object = stored.object();
        if stored.json().len() <= WARM_MAX_BYTES {
            let mut hasher = DefaultHasher::new();
            stored.key().hash(&mut hasher);
            *self.0[hasher.finish() as usize % SLOTS].lock() = Some(object.clone());
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, encode};
    use serde_json::json;

    fn stored(name: &str, bytes: usize) -> Stored {
        let object = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}});
        let encoded = encode(&Object::from_value(object).unwrap()).unwrap();
        Stored::new(Key::parse(&format!("configmaps/n/{name}")).unwrap(), 7, &encoded)
    }

    #[test]
    fn what_was_asked_for_is_parsed_once_and_little_is_kept() {
        let warm = Warm::default();
        let (small, large) = (stored("a", 10), stored("b", WARM_MAX_BYTES));
        let at = |stored: &Stored| Arc::as_ptr(&warm.object(stored));
        assert_eq!(at(&small), at(&small));
        assert_eq!(Arc::strong_count(&warm.object(&large)), 1);
        // However many are asked for, no more stay than there are slots.
        let others: Vec<Stored> = (0..10 * SLOTS).map(|i| stored(&i.to_string(), 10)).collect();
        others.iter().for_each(|other| drop(warm.object(other)));
        let kept = others.iter().filter(|other| Arc::strong_count(&other.object()) > 1).count();
        assert!((1..=SLOTS).contains(&kept), "{kept}");
    }
}
