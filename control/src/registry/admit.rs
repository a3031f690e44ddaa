//! Where the verbs call admission: always with the same context, made here.

use gantry_kube::{Object, Ref, Resource, Status, resource};
use tokio::time::Instant;

use super::{Registry, Writer};
use crate::admission::{self, AdmissionContext, Operation};

/// What a write is about, as admission asks.
pub(super) struct Target<'a> {
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub operation: Operation,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Registry {
    pub(super) fn admit(
        &self,
        writer: &Writer<'_>,
        target: &Target<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let context = AdmissionContext {
            identity: writer.identity,
            resource: target.resource,
            subresource: target.subresource,
            operation: target.operation,
            namespace: target.namespace,
            name: target.name,
            lookup: &*self.lookup,
            env: &self.env,
        };
        let began = Instant::now();
        let admitted = admission::admit(&context, object, old);
        self.admissions.note(target.operation, admitted.is_err(), began.elapsed());
        writer.warnings.lock().extend(admitted?);
        Ok(())
    }

    pub(super) fn admit_create(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        object: &mut Object,
    ) -> Result<(), Status> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let operation = Operation::Create;
        let target = Target { resource, subresource: "", operation, namespace: &namespace, name: &name };
        self.admit(writer, &target, object, None)
    }

    pub(super) fn admit_update(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        subresource: &str,
        new: &mut Object,
        old: &Object,
    ) -> Result<(), Status> {
        let operation = Operation::Update;
        let target = Target { resource, subresource, operation, namespace: old.namespace(), name: old.name() };
        self.admit(writer, &target, new, Some(old))
    }

    pub(super) fn admit_delete(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        old: &Object,
    ) -> Result<(), Status> {
        let operation = Operation::Delete;
        let target = Target { resource, subresource: "", operation, namespace: old.namespace(), name: old.name() };
        self.admit(writer, &target, &mut old.clone(), Some(old))
    }
}

impl Registry {
    /// A node may ask for tokens of its own pods alone: admission decides about the request's body.
    pub fn admit_token(&self, writer: &Writer<'_>, at: &Ref, body: &mut Object) -> Result<(), Status> {
        let target = Target {
            resource: &resource::SERVICE_ACCOUNT,
            subresource: "token",
            operation: Operation::Create,
            namespace: &at.namespace,
            name: &at.name,
        };
        self.admit(writer, &target, body, None)
    }
}
