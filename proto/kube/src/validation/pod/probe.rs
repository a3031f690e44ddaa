//! Handlers: what a probe asks, and what a lifecycle hook does.

use super::super::at::{At, Errors};
use super::super::format::{http_header, port, port_or_name};

const SECONDS: [&str; 5] =
    ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];

/// The three probes of a container.
pub fn probes(container: &At<'_>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(name) else { continue };
        handler(&probe, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
        for field in SECONDS {
            probe.field(field).at_least_zero(errors);
        }
        let grace = probe.field("terminationGracePeriodSeconds");
        if grace.int().is_some_and(|seconds| seconds <= 0) {
            grace.invalid(errors, "must be greater than 0");
        }
        if name == "readinessProbe" {
            if grace.is_set() {
                grace.invalid(errors, "must not be set for readinessProbes");
            }
        } else if probe.int_of("successThreshold") != Some(1) {
            probe.field("successThreshold").invalid(errors, "must be 1");
        }
    }
}

/// The two hooks of a container; `grace` is the pod's terminationGracePeriodSeconds.
pub fn lifecycle(container: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    let Some(lifecycle) = container.get("lifecycle") else { return };
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get(hook) {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace, errors);
        }
    }
    if let Some(signal) = lifecycle.get("stopSignal")
        && !signal.text().starts_with("SIG")
    {
        signal.invalid(errors, "must be the name of a signal");
    }
}

fn handler(at: &At<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut found = 0;
    for kind in kinds {
        let Some(action) = at.get(kind) else { continue };
        found += 1;
        if found > 1 {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                let command = action.field("command");
                if command.count() == 0 {
                    command.required(errors, "");
                }
            }
            "httpGet" => http_get(&action, errors),
            "tcpSocket" => port_or_name(&action.field("port"), errors),
            "grpc" => port(&action.field("port"), errors),
            _ => sleep(&action.field("seconds"), grace, errors),
        }
    }
    if found == 0 {
        at.required(errors, "must specify a handler type");
    }
}

fn http_get(action: &At<'_>, errors: &mut Errors) {
    action.field("path").present(errors);
    port_or_name(&action.field("port"), errors);
    action.field("scheme").one_of(errors, &["HTTP", "HTTPS"]);
    for header in action.field("httpHeaders").items() {
        let name = header.field("name");
        if let Some(why) = http_header(name.text()) {
            name.invalid(errors, why);
        }
    }
}

fn sleep(seconds: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    // A template is held to the default grace period, too: both have their defaults by now.
    let Some(grace) = grace else { return seconds.at_least_zero(errors) };
    if seconds.int().is_some_and(|seconds| seconds < 0 || seconds > grace) {
        seconds.invalid(errors, format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"));
    }
}
