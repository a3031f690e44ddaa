//! What a version of a custom kind does with its objects, in the order of a write: pruned, given defaults, and checked.

use gantry_kube::canonical::Findings;
use gantry_kube::custom::{Asked, defaults, prune, validate};
use gantry_kube::{FieldError, Object, Status};

use super::Version;
use crate::registry::update::Part;

impl Version {
    /// Takes out what the schema does not know, and brings the metadata into its canonical form.
    pub fn prune(&self, object: &mut Object) -> Findings {
        prune(&self.schema, object)
    }

    pub fn set_defaults(&self, object: &mut Object) -> Result<(), Status> {
        let filled = defaults::fill(&self.schema, &mut object.0);
        filled.map_err(|error| Status::new(413, "RequestEntityTooLarge", error.to_string()))
    }

    /// An object from elsewhere than a request: from the store, or from what converts objects.
    pub(super) fn complete(&self, object: &mut Object) -> Result<(), Status> {
        self.prune(object);
        self.set_defaults(object)
    }

    /// What is wrong with a new object.
    pub fn validate_create(&self, new: &Object) -> Asked {
        let mut errors = validate::create(&self.schema, &new.0);
        errors.extend(self.scale.iter().flat_map(|scale| scale.check(new, false)));
        self.with_rules(errors, || self.rules.create(&self.schema, &new.0))
    }

    /// What is wrong with a change.
    pub fn validate_update(&self, part: Part, new: &Object, old: &Object) -> Asked {
        let mut errors = match part {
            Part::Status => validate::status_update(&self.schema, &new.0, &old.0),
            _ => validate::update(&self.schema, &new.0, &old.0),
        };
        errors.extend(self.scale.iter().flat_map(|scale| scale.check(new, part == Part::Status)));
        self.with_rules(errors, || self.rules.update(&self.schema, &new.0, &old.0))
    }

    /// Rules compute with what has the types that the schema says, and come after it.
    fn with_rules(&self, mut errors: Vec<FieldError>, ask: impl FnOnce() -> Asked) -> Asked {
        if self.rules.is_empty() {
            return Asked { errors, warnings: Vec::new() };
        }
        if validate::blocks_rules(&errors) {
            errors.push(validate::rules_not_checked());
            return Asked { errors, warnings: Vec::new() };
        }
        let mut asked = ask();
        asked.errors.splice(0..0, errors);
        asked
    }
}
