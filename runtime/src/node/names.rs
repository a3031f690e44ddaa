use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::NodeError;

/// The names of what is being made: of two requests for the same, the second is told so.
#[derive(Debug, Default)]
pub struct Names(Arc<Mutex<BTreeSet<String>>>);

/// Holds a name until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    name: String,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Names {
    pub fn reserve(&self, name: String) -> Result<Reserved, NodeError> {
        if !self.0.lock().insert(name.clone()) {
            return Err(NodeError::BeingMade(name));
        }
        Ok(Reserved { name, names: Arc::clone(&self.0) })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_again_once_its_holder_is_done() {
        let names = Names::default();
        let held = names.reserve("a".to_owned()).unwrap();
        assert!(matches!(names.reserve("a".to_owned()), Err(NodeError::BeingMade(name)) if name == "a"));
        names.reserve("b".to_owned()).unwrap();
        drop(held);
        names.reserve("a".to_owned()).unwrap();
    }
}
