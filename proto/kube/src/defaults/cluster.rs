//! Defaults of drivers, devices, flows and APIs.

use serde_json::{Value, json};

use super::{Fields, absent, each, text, with, zero};

pub(super) fn csi_driver(spec: &mut Fields) {
    absent(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        absent(spec, field, false);
    }
    absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(|modes| modes.is_empty()) {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

/// The spec of a claim: each request is for one device where it does not say for how many.
pub(super) fn device_claim(spec: &mut Fields) {
    with(spec, "devices", |devices| {
        each(devices, "requests", |request| {
            with(request, "exactly", device_request);
            each(request, "firstAvailable", device_request);
        });
    });
}

fn device_request(request: &mut Fields) {
    zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        zero(request, "count", 1);
    }
}

pub(super) fn flow_schema(spec: &mut Fields) {
    zero(spec, "matchingPrecedence", 1000);
}

pub(super) fn priority_level(spec: &mut Fields) {
    with(spec, "exempt", |exempt| {
        absent(exempt, "nominalConcurrencyShares", 0);
        absent(exempt, "lendablePercent", 0);
    });
    with(spec, "limited", |limited| {
        absent(limited, "nominalConcurrencyShares", 30);
        absent(limited, "lendablePercent", 0);
        with(limited, "limitResponse", |response| {
            with(response, "queuing", |queuing| {
                zero(queuing, "handSize", 8);
                zero(queuing, "queues", 64);
                zero(queuing, "queueLengthLimit", 50);
            });
        });
    });
}

pub(super) fn api_service(spec: &mut Fields) {
    with(spec, "service", |service| absent(service, "port", 443));
}
