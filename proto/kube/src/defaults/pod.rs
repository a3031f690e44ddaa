//! Defaults of pods, and of the templates from which pods are made.

use serde_json::{Value, json};

use super::{Fields, absent, each, text, with, zero};

/// The three lists of containers that a pod can have.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Read and write for the owner, read for the rest (0644): files of volumes that are made from objects.
const FILE_MODE: i64 = 0o644;

/// A pod gets what its template would, and three things more, which templates leave to their pods.
pub(super) fn pod(map: &mut Fields) {
    with(map, "spec", |pod| {
        spec(pod);
        absent(pod, "enableServiceLinks", true);
        let host_network = pod.get("hostNetwork").is_some_and(|h| h == true);
        for list in &CONTAINER_LISTS[..2] {
            each(pod, list, |container| {
                with(container, "resources", requests_from_limits);
                if host_network {
                    each(container, "ports", |port| {
                        if let Some(number) = port.get("containerPort").cloned() {
                            zero(port, "hostPort", number);
                        }
                    });
                }
            });
        }
    });
}

/// What is limited and not asked for is asked for in full.
fn requests_from_limits(resources: &mut Fields) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    absent(resources, "requests", json!({}));
    with(resources, "requests", |requests| {
        for (name, quantity) in &limits {
            absent(requests, name, quantity.clone());
        }
    });
}

pub(super) fn spec(spec: &mut Fields) {
    zero(spec, "restartPolicy", "Always");
    zero(spec, "dnsPolicy", "ClusterFirst");
    zero(spec, "schedulerName", "default-scheduler");
    absent(spec, "terminationGracePeriodSeconds", 30);
    absent(spec, "securityContext", json!({}));
    for list in CONTAINER_LISTS {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
}

fn container(container: &mut Fields) {
    let policy = pull_policy(text(container, "image"));
    zero(container, "imagePullPolicy", policy);
    zero(container, "terminationMessagePath", "/dev/termination-log");
    zero(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| zero(port, "protocol", "TCP"));
    each(container, "env", |env| with(env, "valueFrom", reference));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, name, probe);
    }
    with(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            with(lifecycle, hook, |hook| with(hook, "httpGet", http_get));
        }
    });
}

/// Images whose tag may move are looked up each time; a digest, or any other tag, is taken to stay what it is.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':').map(|(_, tag)| tag) {
        Some("latest") => "Always",
        None if !digest && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Fields) {
    zero(probe, "timeoutSeconds", 1);
    zero(probe, "periodSeconds", 10);
    zero(probe, "successThreshold", 1);
    zero(probe, "failureThreshold", 3);
    with(probe, "httpGet", http_get);
    with(probe, "grpc", |grpc| absent(grpc, "service", ""));
}

fn http_get(action: &mut Fields) {
    zero(action, "path", "/");
    zero(action, "scheme", "HTTP");
}

/// A reference to a field or a resource of the pod, in the environment or in a file.
fn reference(holder: &mut Fields) {
    with(holder, "fieldRef", |field| zero(field, "apiVersion", "v1"));
    with(holder, "resourceFieldRef", |resource| absent(resource, "divisor", "0"));
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        with(volume, source, |source| absent(source, "defaultMode", FILE_MODE));
    }
    with(volume, "hostPath", |path| absent(path, "type", ""));
    with(volume, "ephemeral", |source| with(source, "volumeClaimTemplate", super::claim));
    with(volume, "downwardAPI", |source| each(source, "items", reference));
    with(volume, "projected", |projected| {
        each(projected, "sources", |source| {
            with(source, "downwardAPI", |source| each(source, "items", reference));
            with(source, "serviceAccountToken", |token| absent(token, "expirationSeconds", 3600));
        });
    });
    with(volume, "ephemeral", |ephemeral| {
        with(ephemeral, "volumeClaimTemplate", |claim| {
            with(claim, "spec", |spec| absent(spec, "volumeMode", "Filesystem"));
        });
    });
    with(volume, "image", |image| {
        let policy = pull_policy(text(image, "reference"));
        zero(image, "pullPolicy", policy);
    });
}
