use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource, Status, resource, validation};
use serde_json::{Value, json};

use super::admit::Target;
use super::create::{match_namespace, write_status};
use super::managed::Manager;
use super::services::Written;
use super::{Answer, Registry, Writer, certificates, deletion, managed, strategy};
use crate::store::{Stored, WriteError};

/// Attempts of a write that names no resourceVersion before it gives up on a busy object.
pub(super) const SWAP_TRIES: usize = 32;

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// `status.conditions` of a signing request.
    Approval,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// What the containers of a pod ask for.
    Resize,
    /// `spec.replicas`, as the Scale that was written says.
    Scale,
    /// A change that the server itself makes (binding): nothing is put back.
    Whole,
}

impl Part {
    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main | Part::Whole => "",
            Part::Status => "status",
            Part::Approval => "approval",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Scale => "scale",
        }
    }
}

impl Registry {
    /// Replaces an object with `new`, which is canonical and has its defaults.
    pub async fn update(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        part: Part,
        mut new: Object,
    ) -> Result<Answer, Status> {
        match_namespace(resource, &at.namespace, &mut new)?;
        if new.name().is_empty() {
            return Err(Status::bad_request("name must be provided"));
        }
        if new.name() != at.name {
            let (own, asked) = (new.name(), &at.name);
            return Err(Status::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({asked})"
            )));
        }
        self.modify(writer, resource, at, part, |_| Ok(new.clone())).await
    }

    /// Runs `change` on the stored object until its result is written on top of what it was made from. A result whose
    /// resourceVersion is not the stored one is stale, and is not tried again.
    pub async fn modify(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        part: Part,
        mut change: impl FnMut(&Object) -> Result<Object, Status>,
    ) -> Result<Answer, Status> {
        let mut current = self.get(resource, at)?;
        for _ in 0..SWAP_TRIES {
            let old = self.object(resource, &current).await?;
            let new = change(&old)?;
            check_identity(resource, &new, &old)?;
            let new = self.prepare_update(writer, resource, part, new, &old)?;
            if new == *old && !self.is_to_be_stored_anew(resource, &current)? {
                return Ok(Answer::Stored(current));
            }
            match self.swap(writer, resource, at, &current, new).await? {
                Swap::Done(answer) => return Ok(answer),
                Swap::Retry(newer) => current = newer,
            }
        }
        Err(Status::stale(resource, &at.name))
    }

    /// Everything that the server decides about a change: what is kept, admission, validation, managedFields.
    fn prepare_update(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        part: Part,
        mut new: Object,
        old: &Object,
    ) -> Result<Object, Status> {
        let custom = self.custom(resource)?;
        let strategy = strategy::of(resource, custom.as_ref());
        let applied = writer.options.applied.then(|| new.array_at("/metadata/managedFields").to_vec());
        match part {
            Part::Main => {
                strategy.check_built(resource, &new)?;
                carry_metadata(&mut new, old);
                strategy.update(&mut new, old);
            }
            Part::Status => new = strategy.update_status(resource, &new, old),
            Part::Approval => new = strategy.update_approval(&new, old),
            Part::Finalize => {
                let finalizers = new.get("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
                new = old.clone();
                new.map_mut("spec").insert("finalizers".to_owned(), finalizers);
            }
            Part::EphemeralContainers => new = strategy.update_ephemeral_containers(&new, old),
            Part::Resize => new = strategy.update_resources(&new, old),
            Part::Scale | Part::Whole => {}
        }
        if matches!(part, Part::Status | Part::Approval) {
            (strategy.date_status)(&mut new, old, &self.env.clock.now_rfc3339());
        }
        let target = Target::update(resource, part.subresource(), old);
        self.mutate(writer, &target, &mut new, Some(old))?;
        if custom.is_some() || !matches!(part, Part::Finalize | Part::Scale | Part::Whole) {
            let mut errors = validation::meta::update(resource, &new, old);
            errors.extend(match (&custom, part) {
                (Some(custom), _) => self.told(writer, custom.validate_update(part, &new, old)),
                (None, Part::Main) => validation::update(resource, &new, old),
                (None, Part::EphemeralContainers) => validation::pod::ephemeral_containers(&new, old),
                (None, Part::Resize) => validation::pod::resize(&new, old),
                (None, Part::Status | Part::Approval) => validation::status(resource, part.subresource(), &new, old),
                (None, Part::Finalize | Part::Scale | Part::Whole) => Vec::new(),
            });
            errors.extend(certificates::update(resource, &new, old));
            writer.warnings.lock().extend(validation::warnings(resource, &new, Some(old)));
            if !errors.is_empty() {
                return Err(Status::invalid(resource, new.name(), &errors));
            }
        }
        self.validate(writer, &target, &new, Some(old))?;
        match applied {
            Some(entries) => {
                managed::restore(&mut new, entries);
                // What defaults and the strategy have undone is no write.
                if managed::differ_in_times_alone(&new, old) {
                    return Ok(old.clone());
                }
            }
            None => {
                let now = self.env.clock.now_rfc3339();
                let manager = Manager::new(&writer.options.manager, part.subresource(), &now, custom.as_ref());
                managed::on_update(&mut new, old, &resource.api_version(), &manager);
            }
        }
        Ok(new)
    }

    async fn swap(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        current: &Arc<Stored>,
        new: Object,
    ) -> Result<Swap, Status> {
        let dry = writer.options.dry_run;
        let released = deletion::is_released(resource, &new);
        let old = self.object(resource, current).await?;
        let charged = self.charge(resource, &new, Some(&old), dry).await?;
        let swapped = self.write_swap(resource, at, current, &new, released, dry).await;
        let written = matches!(swapped, Ok(Swap::Done(_)));
        self.settle(charged, written).await;
        if written {
            self.count_after(resource, Some(&old), Some(&new).filter(|_| !released));
        }
        swapped
    }

    async fn write_swap(
        &self,
        resource: &'static Resource,
        at: &Ref,
        current: &Arc<Stored>,
        new: &Object,
        released: bool,
        dry: bool,
    ) -> Result<Swap, Status> {
        if *resource == resource::SERVICE && !released {
            return Ok(match self.write_service(at, Some(current), new, dry).await? {
                Written::Stored(stored) => Swap::Done(Answer::Stored(stored)),
                Written::Dry(object) => Swap::Done(Answer::Made(object)),
                Written::Newer(newer) => Swap::Retry(newer),
            });
        }
        if dry {
            return Ok(Swap::Done(Answer::Made(new.clone())));
        }
        let written = if released {
            self.remove(resource, at, current).await.map(|_| None)
        } else {
            let stored_form = self.stored_form(self.custom(resource)?.as_ref(), new).await?;
            self.cache.update(resource, at, current.revision(), &stored_form).await.map(Some)
        };
        match written {
            Ok(Some(stored)) => Ok(Swap::Done(self.answered(resource, Answer::Stored(stored)).await?)),
            Ok(None) => Ok(Swap::Done(Answer::Made(new.clone()))),
            Err(WriteError::Conflict { current: Some(newer), key }) if key == *current.key() => Ok(Swap::Retry(newer)),
            // An allocation beside the object changed: the same object is read again.
            Err(WriteError::Conflict { key, .. }) if key != *current.key() => Ok(Swap::Retry(self.get(resource, at)?)),
            Err(error) => Err(write_status(&error, resource, &at.name)),
        }
    }
}

enum Swap {
    Done(Answer),
    Retry(Arc<Stored>),
}

/// The object must be the stored one: its uid and, where the caller names one, its version.
pub(super) fn check_identity(resource: &Resource, new: &Object, old: &Object) -> Result<(), Status> {
    if !new.uid().is_empty() && new.uid() != old.uid() {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", new.uid(), old.uid());
        return Err(Status::conflict(resource, old.name(), &why));
    }
    if !new.resource_version().is_empty() && new.resource_version() != old.resource_version() {
        return Err(Status::stale(resource, old.name()));
    }
    Ok(())
}

/// Metadata that only the server writes.
fn carry_metadata(new: &mut Object, old: &Object) {
    let metadata = new.metadata_mut();
    metadata.remove("selfLink");
    for field in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match old.get(&format!("/metadata/{field}")) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    // An empty list asks for the record to be dropped; a client that leaves it out keeps it.
    if metadata.get("managedFields").is_none_or(Value::is_null)
        && let Some(kept) = old.get("/metadata/managedFields")
    {
        metadata.insert("managedFields".to_owned(), kept.clone());
    }
}
