//! VolumeAttachment (storage.k8s.io/v1).
//!
//! - `spec.attacher` is the name of a driver, `spec.nodeName` that of a node.
//! - `spec.source` is a volume's name, or the spec of one that stands inline: of CSI, with access modes, and without what says
//!   where such a volume is, whose, how large, and what becomes of it.
//! - The spec never changes.
//! - `status.attachmentMetadata` holds at most 256 KiB; an error's message at most 1024 bytes, and its code is not negative.

use super::at::{At, Errors};
use super::format::{driver_name, subdomain};
use super::storage;
use crate::{FieldError, Object};

const METADATA_MAX_BYTES: usize = 256 << 10;
const MESSAGE_MAX_BYTES: usize = 1024;

/// What holds for a new one, and for a changed one.
pub fn attachment(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    driver_name(&spec.field("attacher"), errors);
    let source = spec.field("source");
    let (name, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&name, &inline) {
        (None, None) => source.required(errors, exactly_one),
        (Some(_), Some(_)) => source.forbidden(errors, exactly_one),
        (Some(name), None) if name.text().is_empty() => {
            name.required(errors, "must specify non empty persistentVolumeName");
        }
        (Some(name), None) => name.optional_as(errors, subdomain),
        (None, Some(inline)) => inline_volume(inline, errors),
    }
    let node = spec.field("nodeName");
    if let Some(why) = subdomain(node.text()) {
        node.invalid(errors, why);
    }
    status(object, errors);
}

fn inline_volume(spec: &At<'_>, errors: &mut Errors) {
    for field in ["claimRef", "capacity"] {
        let at = spec.field(field);
        if at.is_set() {
            at.forbidden(errors, "may not be specified in the context of inline volumes");
        }
    }
    let csi = spec.field("csi");
    if !csi.is_set() {
        csi.required(errors, "has to be specified in the context of inline volumes");
    }
    let modes = spec.field("accessModes");
    if modes.count() == 0 {
        modes.required(errors, "");
    }
    storage::access_modes(&modes, errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !matches!(policy.text(), "" | "Retain") {
        policy.forbidden(errors, "may only be Retain in the context of inline volumes");
    }
    if spec.field("nodeAffinity").is_set() {
        let why = "may not be specified in the context of inline volumes";
        spec.field("nodeAffinity").forbidden(errors, why);
    }
    if csi.is_set() {
        storage::csi_source(&csi, errors);
    }
    spec.field("storageClassName").optional_as(errors, subdomain);
    spec.field("volumeMode").maybe_one_of(errors, &storage::VOLUME_MODES);
}

fn status(object: &Object, errors: &mut Errors) {
    let status = At::of(object, "status");
    let metadata = status.field("attachmentMetadata");
    let bytes: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if bytes > METADATA_MAX_BYTES {
        errors.push(FieldError::too_long(metadata.path.as_str(), METADATA_MAX_BYTES));
    }
    for error in ["attachError", "detachError"] {
        let error = status.field(error);
        let (message, code) = (error.field("message"), error.field("errorCode"));
        if message.text().len() > MESSAGE_MAX_BYTES {
            errors.push(FieldError::too_long(message.path.as_str(), MESSAGE_MAX_BYTES));
        }
        if code.int().is_some_and(|code| code < 0) {
            code.invalid(errors, format!("must be between 0 and {}, inclusive", i32::MAX));
        }
    }
}

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").immutable(errors, &At::of(old, "spec"));
}
