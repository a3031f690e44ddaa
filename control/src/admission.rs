//! Admission: what the cluster adds to an object, and what it refuses, after authorisation and before it is stored.
//!
//! A pure pipeline in two halves. [`mutate`] mends the object before the rules of its kind are asked; [`validate`] sees it
//! as it would be stored, and changes nothing. Each step is a function over the same [`AdmissionContext`], is named for the
//! plugin whose rules it follows, and stands in the order of kube-apiserver's plugins; a plugin that does both has a step in
//! either half. (What comes at the very end there, the quota, is charged with the write: `registry/quota.rs`.) Mutating
//! twice is mutating once, so that whatever else may change an object can have it mutated again.

mod certificates;
mod ingress_class;
mod limits;
mod metrics;
pub mod namespace;
mod node_restriction;
mod node_taint;
mod pod_security;
mod priority;
mod runtime_class;
pub(crate) mod service_account;
mod storage;
mod tolerations;
mod topology;

use gantry_env::Env;
use gantry_kube::{Object, Resource, Status};
pub use metrics::{Metrics, Step};

use crate::auth::{Identity, Lookup, escalation};

/// Marks the shadow of a static pod that an agent runs on its own.
pub(crate) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Where the nodes' heartbeats are.
pub(crate) const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// The verb, as admission sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As admission reviews and messages name it.
    fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// All that a decision may depend on besides the object itself.
#[derive(Clone, Copy)]
pub struct AdmissionContext<'a> {
    pub identity: &'a Identity,
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub operation: Operation,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Empty for a create with generateName.
    pub name: &'a str,
    pub lookup: &'a dyn Lookup,
    pub env: &'a Env,
}

/// Words for the `Warning` headers.
pub type Warnings = Vec<String>;

impl AdmissionContext<'_> {
    fn is(&self, resource: &Resource, subresource: &str) -> bool {
        self.resource.plural == resource.plural
            && self.resource.group == resource.group
            && self.subresource == subresource
    }

    /// 403 in the words of Kubernetes; a create by generateName is named by its stem.
    fn forbidden(&self, object: &Object, why: &str) -> Status {
        let name = [self.name, object.name(), object.str_at("/metadata/generateName"), "Unknown"];
        let name = name.iter().find(|name| !name.is_empty()).copied().unwrap_or("");
        Status::forbidden(self.resource, name, why)
    }
}

/// Mends `object` in place, or says why it is refused. On a delete `object` is the stored one and stays as it is; for a
/// subresource that has a body of its own (binding, token) `object` is that body.
pub fn mutate(context: &AdmissionContext<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    namespace::lifecycle(context, object)?;
    limits::fill_in(context, object, old);
    service_account::provide(context, object)?;
    node_restriction::check(context, object, old)?;
    node_taint::taint(context, object);
    priority::resolve(context, object, old)?;
    tolerations::add_defaults(context, object);
    storage::provide(context, object);
    runtime_class::provide(context, object)?;
    ingress_class::choose(context, object);
    topology::label(context, object);
    if matches!(context.operation, Operation::Create | Operation::Update) && context.subresource.is_empty() {
        escalation::check(context.lookup, context.identity, context.resource, object, old)?;
    }
    Ok(())
}

/// Says why what would be stored is refused, or what its author should know.
pub fn validate(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<Warnings, Status> {
    limits::check(context, object, old)?;
    service_account::check(context, object)?;
    let warnings = pod_security::check(context, object, old)?;
    priority::check(context, object)?;
    certificates::check(context, object, old)?;
    storage::check(context, object, old)?;
    runtime_class::check(context, object)?;
    Ok(warnings)
}

#[cfg(test)]
mod tests;
