//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize: what claims and volumes are given at
//! their birth, and which claims may grow.

use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use gantry_kube::{Object, Ref, Status, storage};
use serde_json::json;

use super::service_account::list;
use super::{AdmissionContext, Operation};

pub fn provide(context: &AdmissionContext<'_>, object: &mut Object) {
    let claim = context.is(&PERSISTENT_VOLUME_CLAIM, "");
    if context.operation != Operation::Create || !(claim || context.is(&PERSISTENT_VOLUME, "")) {
        return;
    }
    protect(object, if claim { storage::CLAIM_PROTECTION } else { storage::VOLUME_PROTECTION });
    if claim && storage::class_of(object).is_none() {
        let classes = context.lookup.list(&STORAGE_CLASS, None);
        if let Some(class) = storage::default_class(classes.iter().map(AsRef::as_ref)) {
            object.map_mut("spec").insert("storageClassName".to_owned(), json!(class.name()));
        }
    }
}

pub fn check(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
    match old {
        Some(old)
            if context.is(&PERSISTENT_VOLUME_CLAIM, "")
                && context.operation == Operation::Update
                && storage::requested(object) > storage::requested(old) =>
        {
            may_grow(context, object, old)
        }
        _ => Ok(()),
    }
}

fn protect(object: &mut Object, finalizer: &str) {
    if !object.finalizers().any(|known| known == finalizer) {
        list(object.metadata_mut(), "finalizers").push(json!(finalizer));
    }
}

fn may_grow(context: &AdmissionContext<'_>, claim: &Object, old: &Object) -> Result<(), Status> {
    if old.str_at("/status/phase") != "Bound" {
        return Err(context.forbidden(claim, "Only bound persistent volume claims can be expanded"));
    }
    let class = storage::class_of(claim).and_then(|name| context.lookup.get(&STORAGE_CLASS, &Ref::cluster(name)));
    if class.is_some_and(|class| class.bool_at("/allowVolumeExpansion") == Some(true)) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
               resize";
    Err(context.forbidden(claim, why))
}
