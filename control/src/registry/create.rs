use gantry_kube::{Object, Ref, Resource, Status, resource, validation};
use serde_json::{Value, json};

use super::managed::Manager;
use super::services::Written;
use super::{Answer, Registry, Writer, certificates, managed, strategy};
use crate::custom::Custom;
use crate::store::WriteError;
use crate::trace::Step;

/// Names are drawn anew this often when a generated one is taken.
const GENERATE_NAME_TRIES: usize = 8;
const GENERATED_SUFFIX_CHARS: usize = 5;
const GENERATE_NAME_BASE_MAX_CHARS: usize = 58;

impl Registry {
    /// Stores a new object. `namespace` is the request's; `object` is canonical and has its defaults.
    pub async fn create(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        namespace: &str,
        mut object: Object,
    ) -> Result<Answer, Status> {
        stamp_place(resource, namespace, &mut object)?;
        let applied = writer.options.applied.then(|| object.array_at("/metadata/managedFields").to_vec());
        strategy::of_built_in(resource).check_built(resource, &object)?;
        self.stamp_birth(&mut object);
        self.await_account(resource, &object).await;
        self.mutate_new(writer, resource, &mut object)?;
        let generated = object.name().is_empty() && !object.str_at("/metadata/generateName").is_empty();
        if !generated {
            return self.create_once(writer, resource, object, applied).await;
        }
        let mut tries = GENERATE_NAME_TRIES;
        loop {
            tries -= 1;
            let mut candidate = object.clone();
            self.generate_name(&mut candidate);
            match self.create_once(writer, resource, candidate, applied.clone()).await {
                Err(status) if tries > 0 && status.reason == "AlreadyExists" => continue,
                result => return result,
            }
        }
    }

    fn generate_name(&self, object: &mut Object) {
        let base: String = object.str_at("/metadata/generateName").chars().take(GENERATE_NAME_BASE_MAX_CHARS).collect();
        let name = format!("{base}{}", self.env.rng.name_suffix(GENERATED_SUFFIX_CHARS));
        object.metadata_mut().insert("name".to_owned(), json!(name));
    }

    /// The metadata that a client cannot choose.
    fn stamp_birth(&self, object: &mut Object) {
        let metadata = object.metadata_mut();
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), json!(self.env.rng.uuid()));
        metadata.insert("creationTimestamp".to_owned(), json!(self.env.clock.now_rfc3339()));
    }

    async fn create_once(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        mut object: Object,
        applied: Option<Vec<Value>>,
    ) -> Result<Answer, Status> {
        let custom = self.custom(resource)?;
        strategy::of(resource, custom.as_ref()).create(&mut object, writer.identity);
        let mut errors = validation::meta::create(resource, &object);
        errors.extend(match &custom {
            Some(custom) => self.told(writer, custom.validate_create(&object)),
            None => validation::create(resource, &object),
        });
        errors.extend(certificates::create(resource, &object));
        writer.warnings.lock().extend(validation::warnings(resource, &object, None));
        if !errors.is_empty() {
            return Err(Status::invalid(resource, object.name(), &errors));
        }
        self.validate_new(writer, resource, &object)?;
        let at = object.reference();
        match applied {
            Some(entries) => managed::restore(&mut object, entries),
            None => {
                let now = self.env.clock.now_rfc3339();
                let manager = Manager::new(&writer.options.manager, "", &now, custom.as_ref());
                managed::on_create(&mut object, &resource.api_version(), &manager);
            }
        }
        let admitted = self.env.clock.now();
        let dry = writer.options.dry_run;
        if dry && self.cache.get(resource, &at).is_some() {
            return Err(Status::already_exists(resource, &at.name));
        }
        let charged = self.charge(resource, &object, None, dry).await?;
        let written = self.write_new(resource, custom.as_ref(), &at, &object, dry).await;
        self.settle(charged, written.is_ok()).await;
        let answer = written?;
        if !dry {
            self.count_after(resource, None, Some(&object));
            self.trace_create(writer, resource, &object, admitted);
        }
        Ok(answer)
    }

    async fn write_new(
        &self,
        resource: &'static Resource,
        custom: Option<&Custom>,
        at: &Ref,
        object: &Object,
        dry: bool,
    ) -> Result<Answer, Status> {
        if *resource == resource::SERVICE {
            return match self.write_service(at, None, object, dry).await? {
                Written::Stored(stored) => Ok(Answer::Stored(stored)),
                Written::Dry(object) => Ok(Answer::Made(object)),
                Written::Newer(_) => Err(Status::already_exists(resource, &at.name)),
            };
        }
        if dry {
            return Ok(Answer::Made(object.clone()));
        }
        let stored_form = self.stored_form(custom, object).await?;
        let written = self.cache.create(resource, at, &stored_form).await;
        let stored = written.map_err(|error| write_status(&error, resource, &at.name))?;
        self.answered(resource, Answer::Stored(stored)).await
    }

    fn trace_create(&self, writer: &Writer<'_>, resource: &Resource, object: &Object, admitted: jiff::Timestamp) {
        if *resource != resource::POD {
            return;
        }
        let now = self.trace.now();
        self.trace.record(object.uid(), Step::Received, writer.received);
        self.trace.record(object.uid(), Step::Admitted, admitted);
        self.trace.record(object.uid(), Step::Stored, now);
        self.trace.record(object.uid(), Step::Published, now);
        if object.controller().is_some() {
            self.trace.record(object.uid(), Step::Controlled, writer.received);
        }
        if !object.str_at("/spec/nodeName").is_empty() {
            self.trace.record(object.uid(), Step::Bound, now);
        }
    }
}

/// The answer to a write that the store did not do.
pub(super) fn write_status(error: &WriteError, resource: &Resource, name: &str) -> Status {
    error.status(resource, name)
}

/// Namespace and resourceVersion of a new object against the request's.
fn stamp_place(resource: &Resource, namespace: &str, object: &mut Object) -> Result<(), Status> {
    if !object.resource_version().is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    match_namespace(resource, namespace, object)
}

/// The object's namespace is the request's, or absent.
pub(super) fn match_namespace(resource: &Resource, namespace: &str, object: &mut Object) -> Result<(), Status> {
    if !resource.namespaced {
        if object.namespace().is_empty() {
            object.metadata_mut().remove("namespace");
        }
        return Ok(());
    }
    let own = object.namespace();
    if own.is_empty() {
        object.metadata_mut().insert("namespace".to_owned(), json!(namespace));
    } else if own != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
