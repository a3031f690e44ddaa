//! Where the verbs call admission: always with the same context, made here.

use std::time::Duration;

use gantry_kube::{Object, Ref, Resource, Status, resource};
use tokio::time::Instant;

use super::{Registry, Writer};
use crate::admission::service_account::DEFAULT_ACCOUNT;
use crate::admission::{self, AdmissionContext, MIRROR_ANNOTATION, Operation, Step};
use crate::auth::token::service_account_of;

/// How long a pod waits for the account of its namespace.
const ACCOUNT_WAIT: Duration = Duration::from_millis(1500);

/// What a write is about, as admission asks.
pub(super) struct Target<'a> {
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub operation: Operation,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn create(resource: &'a Resource, namespace: &'a str, name: &'a str) -> Target<'a> {
        Target { resource, subresource: "", operation: Operation::Create, namespace, name }
    }

    pub(super) fn update(resource: &'a Resource, subresource: &'a str, old: &'a Object) -> Target<'a> {
        Target { resource, subresource, operation: Operation::Update, namespace: old.namespace(), name: old.name() }
    }
}

impl Registry {
    fn context<'a>(&'a self, writer: &Writer<'a>, target: &Target<'a>) -> AdmissionContext<'a> {
        AdmissionContext {
            identity: writer.identity,
            resource: target.resource,
            subresource: target.subresource,
            operation: target.operation,
            namespace: target.namespace,
            name: target.name,
            lookup: &*self.lookup,
            env: &self.env,
        }
    }

    /// The first half of admission, which may mend the object: before the kind's own rules are asked.
    pub(super) fn mutate(
        &self,
        writer: &Writer<'_>,
        target: &Target<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let began = Instant::now();
        let admitted = admission::mutate(&self.context(writer, target), object, old);
        self.admissions.note(target.operation, Step::Admit, admitted.is_err(), began.elapsed());
        admitted
    }

    /// The second half, which sees what would be stored.
    pub(super) fn validate(
        &self,
        writer: &Writer<'_>,
        target: &Target<'_>,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let began = Instant::now();
        let admitted = admission::validate(&self.context(writer, target), object, old);
        self.admissions.note(target.operation, Step::Validate, admitted.is_err(), began.elapsed());
        writer.warnings.lock().extend(admitted?);
        Ok(())
    }

    /// Both halves, for requests whose body is no object that is stored.
    pub(super) fn admit(
        &self,
        writer: &Writer<'_>,
        target: &Target<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        self.mutate(writer, target, object, old)?;
        self.validate(writer, target, object, old)
    }

    /// A pod may come right after its namespace, whose account is on its way then. Any other account must be there.
    pub(super) async fn await_account(&self, resource: &Resource, pod: &Object) {
        let waits = *resource == resource::POD && matches!(service_account_of(pod), "" | DEFAULT_ACCOUNT);
        if !waits || pod.annotation(MIRROR_ANNOTATION).is_some() {
            return;
        }
        let at = Ref::new(pod.namespace(), DEFAULT_ACCOUNT);
        let mut progress = self.cache.progress();
        let comes = async {
            while self.cache.get(&resource::SERVICE_ACCOUNT, &at).is_none() && self.is_active(&at.namespace) {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        // Cancel-safe: only looks. Where it does not come in time, admission says that it is not there.
        drop(tokio::time::timeout(ACCOUNT_WAIT, comes).await);
    }

    fn is_active(&self, namespace: &str) -> bool {
        let found = self.cache.get(&resource::NAMESPACE, &Ref::cluster(namespace));
        found.is_some_and(|namespace| namespace.object().deletion_timestamp().is_none())
    }

    pub(super) fn mutate_new(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        object: &mut Object,
    ) -> Result<(), Status> {
        let Ref { namespace, name } = object.reference();
        self.mutate(writer, &Target::create(resource, &namespace, &name), object, None)
    }

    pub(super) fn validate_new(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        object: &Object,
    ) -> Result<(), Status> {
        self.validate(writer, &Target::create(resource, object.namespace(), object.name()), object, None)
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
