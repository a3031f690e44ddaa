//! NamespaceLifecycle: nothing new in a namespace that is not there or is on its way out, and some namespaces stay.

use gantry_kube::resource::{LOCAL_SUBJECT_ACCESS_REVIEW, NAMESPACE};
use gantry_kube::{Object, Ref, Status};
use serde_json::json;

use super::{AdmissionContext, Operation};

/// The namespaces that the cluster itself stands on.
pub const IMMORTAL: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub fn lifecycle(context: &AdmissionContext<'_>, object: &Object) -> Result<(), Status> {
    if context.is(&NAMESPACE, "") {
        let immortal = context.operation == Operation::Delete && IMMORTAL.contains(&context.name);
        return if immortal {
            Err(Status::forbidden(&NAMESPACE, context.name, "this namespace may not be deleted"))
        } else {
            Ok(())
        };
    }
    if context.namespace.is_empty()
        || !context.resource.namespaced
        || context.is(&LOCAL_SUBJECT_ACCESS_REVIEW, "")
        || matches!(context.operation, Operation::Delete | Operation::Connect)
    {
        return Ok(());
    }
    let Some(namespace) = context.lookup.get(&NAMESPACE, &Ref::cluster(context.namespace)) else {
        return Err(Status::not_found(&NAMESPACE, context.namespace));
    };
    let terminating = namespace.str_at("/status/phase") == "Terminating" || namespace.deletion_timestamp().is_some();
    if context.operation == Operation::Create && terminating {
        let name = context.namespace;
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = context.forbidden(object, &why);
        status.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {name} is being terminated"),
            "field": "metadata.namespace",
        }]);
        return Err(status);
    }
    Ok(())
}
