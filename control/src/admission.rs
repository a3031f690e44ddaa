//! Admission: what the cluster adds to an object, and what it refuses, after authorisation and before validation.
//!
//! One pure pipeline, [`admit`]: namespace lifecycle, node restriction, service account, default tolerations, default ingress
//! class, storage (the default class, protection of what is in use, resizes), limit ranges, priority, node taints, and the
//! check that nobody grants rights that they do not hold. Each step is a function over the same [`AdmissionContext`] and is
//! named for the plugin whose rules it follows.

mod ingress_class;
mod limits;
mod metrics;
pub mod namespace;
mod node_restriction;
mod node_taint;
mod priority;
mod service_account;
mod storage;
mod tolerations;

use gantry_env::Env;
use gantry_kube::{Object, Resource, Status};
pub use metrics::Metrics;

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
pub fn admit(context: &AdmissionContext<'_>, object: &mut Object, old: Option<&Object>) -> Result<Warnings, Status> {
    namespace::lifecycle(context, object)?;
    node_restriction::check(context, object, old)?;
    service_account::provide(context, object)?;
    tolerations::add_defaults(context, object);
    ingress_class::choose(context, object);
    storage::apply(context, object, old)?;
    limits::apply(context, object)?;
    priority::resolve(context, object, old)?;
    node_taint::taint(context, object);
    if matches!(context.operation, Operation::Create | Operation::Update) && context.subresource.is_empty() {
        escalation::check(context.lookup, context.identity, context.resource, object, old)?;
    }
    Ok(Warnings::new())
}

#[cfg(test)]
mod tests;
