//! One container, of any of the pod's lists.

use std::collections::BTreeSet;

use super::super::at::{At, Errors};
use super::super::format::{PROTOCOLS, config_key, env_name, ip, label, local_path, port, port_name, subdomain};
use super::{Pod, probe, resources, security};
use crate::FieldError;

/// Resources of its own container that an environment variable or a file may show.
const SHOWN_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What all containers have in common. `names` are those of the containers before it.
pub fn container<'a>(at: &At<'a>, pod: &Pod<'a>, names: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = at.field("name");
    name.required_as(errors, label);
    name.unique(errors, names);
    let image = at.field("image");
    if image.present(errors) && image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
    ports(&at.field("ports"), errors);
    env(at, errors);
    mounts(at, pod, errors);
    devices(at, pod, errors);
    at.field("imagePullPolicy").one_of(errors, &["Always", "IfNotPresent", "Never"]);
    at.field("terminationMessagePolicy").one_of(errors, &["File", "FallbackToLogsOnError"]);
    resources::resources(&at.field("resources"), &pod.claims, errors);
    resize_policy(&at.field("resizePolicy"), pod.never_restarts, errors);
    security::container(&at.field("securityContext"), errors);
    probe::probes(at, errors);
    probe::lifecycle(at, pod.grace, errors);
}

/// A container's own policy and rules; rules without a policy beside them would leave open what happens else.
pub fn restart(at: &At<'_>, errors: &mut Errors) {
    let (policy, rules) = (at.field("restartPolicy"), at.field("restartPolicyRules"));
    policy.maybe_one_of(errors, &RESTART_POLICIES);
    if rules.count() > 0 && !policy.is_set() {
        policy.required(errors, "must specify restartPolicy when restart rules are used");
    }
    rules.too_many(errors, RESTART_RULES_MAX);
    for rule in rules.items() {
        rule.field("action").one_of(errors, &["Restart"]);
        let codes = rule.field("exitCodes");
        if !codes.is_set() {
            codes.required(errors, "must be specified");
            continue;
        }
        codes.field("operator").one_of(errors, &["In", "NotIn"]);
        codes.field("values").too_many(errors, EXIT_CODES_MAX);
    }
}

/// What a change of a resource does to the container.
fn resize_policy(at: &At<'_>, never_restarts: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (n, item) in at.items().enumerate() {
        let (resource, policy) = (item.text_of("resourceName"), item.text_of("restartPolicy"));
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(format!("{}[{n}]", at.path), resource));
        }
        for (word, words) in [(resource, ["cpu", "memory"]), (policy, ["NotRequired", "RestartContainer"])] {
            match word {
                "" => at.required(errors, ""),
                word if words.contains(&word) => {}
                word => errors.push(FieldError::not_supported(at.path.as_str(), word, &words)),
            }
        }
        if never_restarts && policy == "RestartContainer" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(at.path.as_str(), policy, why));
        }
    }
}

fn ports(ports: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for at in ports.items() {
        let name = at.field("name");
        name.optional_as(errors, port_name);
        name.unique(errors, &mut names);
        let number = at.field("containerPort");
        if number.int().unwrap_or(0) == 0 {
            number.required(errors, "");
        } else {
            port(&number, errors);
        }
        let host = at.field("hostPort");
        if host.int().unwrap_or(0) != 0 {
            port(&host, errors);
        }
        at.field("hostIP").optional_as(errors, ip);
        at.field("protocol").one_of(errors, &PROTOCOLS);
    }
}

fn env(container: &At<'_>, errors: &mut Errors) {
    for at in container.field("env").items() {
        at.field("name").required_as(errors, env_name);
        if let Some(from) = at.get("valueFrom") {
            value_from(&from, at.text_of("value"), errors);
        }
    }
    for at in container.field("envFrom").items() {
        at.field("prefix").optional_as(errors, env_name);
        let sources: Vec<At<'_>> = ["configMapRef", "secretRef"].iter().filter_map(|kind| at.get(kind)).collect();
        for source in &sources {
            source.field("name").required_as(errors, subdomain);
        }
        match sources.len() {
            0 => at.invalid(errors, "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => at.invalid(errors, "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(from: &At<'_>, value: &str, errors: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = from.get("fieldRef") {
        sources += 1;
        field_ref(&field, &ENV_FIELDS, errors);
    }
    if let Some(resource) = from.get("resourceFieldRef") {
        sources += 1;
        resource_field_ref(&resource, false, errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(source) = from.get(kind) {
            sources += 1;
            source.field("name").present(errors);
            source.field("key").required_as(errors, config_key);
        }
    }
    if let Some(file) = from.get("fileKeyRef") {
        sources += 1;
        file.field("volumeName").present(errors);
        file.field("key").required_as(errors, env_name);
        file.field("path").required_as(errors, local_path);
    }
    let why = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
    } else if !value.is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(from.path.as_str(), "", why));
}

/// A field of the pod by its path, `metadata.labels['key']` among them.
pub fn field_ref(at: &At<'_>, fields: &[&str], errors: &mut Errors) {
    at.field("apiVersion").present(errors);
    let path = at.field("fieldPath");
    if !path.present(errors) {
        return;
    }
    let text = path.text();
    if let Some((map, subscript)) = text.strip_suffix("']").and_then(|text| text.split_once("['")) {
        let good = match map {
            "metadata.labels" => super::super::format::qualified(subscript),
            "metadata.annotations" => super::super::format::qualified(&subscript.to_lowercase()),
            _ => Some(format!("error converting fieldPath: field label does not support subscript: {text}")),
        };
        if let Some(why) = good {
            path.invalid(errors, why);
        }
    } else if !fields.contains(&text) {
        if matches!(text, "metadata.labels" | "metadata.annotations") || ENV_FIELDS.contains(&text) {
            path.not_supported(errors, fields);
        } else {
            path.invalid(errors, format!("error converting fieldPath: field label not supported: {text}"));
        }
    }
}

/// A resource of a container; in a file, of one that is named.
pub fn resource_field_ref(at: &At<'_>, in_file: bool, errors: &mut Errors) {
    if in_file {
        at.field("containerName").present(errors);
    }
    let resource = at.field("resource");
    if !resource.present(errors) {
        return;
    }
    let name = resource.text();
    let pages = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if !pages && !SHOWN_RESOURCES.contains(&name) {
        resource.not_supported(errors, &SHOWN_RESOURCES);
        return;
    }
    let divisor = at.field("divisor");
    let (allowed, words): (&[&str], _) = match name.rsplit('.').next() {
        Some("cpu") => (&["1", "1m"], "only divisor's values 1m and 1 are supported with the cpu resource"),
        _ => (
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             memory resource",
        ),
    };
    if !matches!(divisor.text(), "" | "0") && !allowed.contains(&divisor.text()) {
        divisor.invalid(errors, words);
    }
}

fn mounts(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let privileged = container.field("securityContext").is_true("privileged");
    let mut paths = BTreeSet::new();
    for at in container.field("volumeMounts").items() {
        let name = at.field("name");
        if name.present(errors) && !pod.volumes.contains(name.text()) {
            errors.push(FieldError::not_found(name.path.as_str(), name.text()));
        }
        let path = at.field("mountPath");
        path.present(errors);
        if !paths.insert(path.text()) {
            errors.push(FieldError::invalid(path.path.as_str(), path.text(), "must be unique"));
        }
        let (sub, expression) = (at.field("subPath"), at.field("subPathExpr"));
        sub.optional_as(errors, local_path);
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
            }
            expression.optional_as(errors, local_path);
        }
        let propagation = at.field("mountPropagation");
        propagation.maybe_one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            propagation.forbidden(errors, why);
        }
        let recursive = at.field("recursiveReadOnly");
        recursive.maybe_one_of(errors, &["Disabled", "Enabled", "IfPossible"]);
        if matches!(recursive.text(), "Enabled" | "IfPossible") && !at.is_true("readOnly") {
            recursive.forbidden(errors, "may only be specified when readOnly is true");
        }
    }
}

fn devices(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    for at in container.field("volumeDevices").items() {
        let name = at.field("name");
        if name.present(errors) && !pod.volumes.contains(name.text()) {
            errors.push(FieldError::not_found(name.path.as_str(), name.text()));
        }
        let path = at.field("devicePath");
        if path.present(errors) && !paths.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
    }
}
