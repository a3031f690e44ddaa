//! Volumes: one source each, and what each source must say.

use std::collections::BTreeSet;

use super::super::at::{At, Errors};
use super::super::format::{config_key, file_path, label, mode, no_climbing};
use super::super::storage;
use super::container::{field_ref, resource_field_ref};
use crate::quantity::Quantity;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The pod's volumes, and their names.
pub fn volumes<'a>(volumes: &At<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for at in volumes.items() {
        let name = at.field("name");
        name.required_as(errors, label);
        name.unique(errors, &mut names);
        let mut sources = 0;
        for (kind, _) in at.map().into_iter().flatten().filter(|(kind, value)| *kind != "name" && !value.is_null()) {
            sources += 1;
            let source = at.field(kind);
            if sources > 1 {
                source.forbidden(errors, "may not specify more than 1 volume type");
            } else {
                self::source(kind, &source, errors);
            }
        }
        if sources == 0 {
            at.required(errors, "must specify a volume type");
        }
    }
    names
}

fn source(kind: &str, at: &At<'_>, errors: &mut Errors) {
    let must = |fields: &[&str], errors: &mut Errors| {
        for field in fields {
            at.field(field).present(errors);
        }
    };
    match kind {
        "emptyDir" => empty_dir(at, errors),
        "hostPath" => host_path(at, errors),
        "secret" => {
            must(&["secretName"], errors);
            files(at, errors);
        }
        "configMap" => {
            must(&["name"], errors);
            files(at, errors);
        }
        "downwardAPI" => {
            mode(&at.field("defaultMode"), errors);
            for item in at.field("items").items() {
                downward_file(&item, errors);
            }
        }
        "projected" => projected(at, errors),
        "persistentVolumeClaim" => must(&["claimName"], errors),
        "nfs" => {
            must(&["server"], errors);
            let path = at.field("path");
            if path.present(errors) && !path.text().starts_with('/') {
                path.invalid(errors, "must be an absolute path");
            }
        }
        "image" => {
            must(&["reference"], errors);
            at.field("pullPolicy").maybe_one_of(errors, &["Always", "IfNotPresent", "Never"]);
        }
        "csi" => must(&["driver"], errors),
        "ephemeral" => {
            let claim = at.field("volumeClaimTemplate");
            if claim.is_set() {
                storage::claim(&claim.field("spec"), errors);
            } else {
                claim.required(errors, "");
            }
        }
        "iscsi" => must(&["targetPortal", "iqn"], errors),
        "gitRepo" => must(&["repository"], errors),
        _ => {}
    }
}

pub fn host_path(at: &At<'_>, errors: &mut Errors) {
    at.field("path").required_as(errors, no_climbing);
    at.field("type").maybe_one_of(errors, &HOST_PATH_TYPES);
}

fn empty_dir(at: &At<'_>, errors: &mut Errors) {
    let limit = at.field("sizeLimit");
    if Quantity::parse(limit.text()).is_ok_and(|limit| limit.is_negative()) {
        limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
    }
    let medium = at.text_of("medium");
    if !matches!(medium, "" | "Memory" | "HugePages") && !medium.starts_with("HugePages-") {
        at.field("medium").not_supported(errors, &["", "HugePages", "Memory"]);
    }
}

/// The files that are made of an object's keys.
fn files(at: &At<'_>, errors: &mut Errors) {
    mode(&at.field("defaultMode"), errors);
    for item in at.field("items").items() {
        let key = item.field("key");
        key.required_as(errors, config_key);
        item.field("path").required_as(errors, file_path);
        mode(&item.field("mode"), errors);
    }
}

fn downward_file(item: &At<'_>, errors: &mut Errors) {
    item.field("path").required_as(errors, file_path);
    match (item.get("fieldRef"), item.get("resourceFieldRef")) {
        (Some(field), None) => field_ref(&field, &FILE_FIELDS, errors),
        (None, Some(resource)) => resource_field_ref(&resource, true, errors),
        (Some(_), Some(_)) => {
            item.invalid(errors, "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
        (None, None) => item.required(errors, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(&item.field("mode"), errors);
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    mode(&at.field("defaultMode"), errors);
    for source in at.field("sources").items() {
        let mut kinds = 0;
        for (kind, _) in source.map().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            kinds += 1;
            let inner = source.field(kind);
            if kinds > 1 {
                inner.forbidden(errors, "may not specify more than 1 volume type per source");
                continue;
            }
            match kind.as_str() {
                "secret" | "configMap" => {
                    inner.field("name").present(errors);
                    files(&inner, errors);
                }
                "downwardAPI" => inner.field("items").items().for_each(|item| downward_file(&item, errors)),
                "serviceAccountToken" => token(&inner, errors),
                "clusterTrustBundle" => inner.field("path").required_as(errors, file_path),
                _ => {}
            }
        }
        if kinds == 0 {
            source.required(errors, "may not specify a source without a volume type");
        }
    }
}

fn token(at: &At<'_>, errors: &mut Errors) {
    let seconds = at.field("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
        seconds.invalid(errors, "may not specify a duration less than 10 minutes");
    } else if seconds.int().is_some_and(|seconds| seconds > TOKEN_SECONDS_MAX) {
        seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
    }
    at.field("path").required_as(errors, file_path);
}
