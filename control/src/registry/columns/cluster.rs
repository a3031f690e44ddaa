//! Rows of the kinds that say what a cluster is made of and how it is extended: drivers, devices, certificates, flows,
//! admission, APIs.

use gantry_kube::{Object, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Columns, age, boolean, columns, human_duration, integer, name, or_none, text, workload};

pub(super) fn of(resource: &Resource) -> Option<&'static Columns> {
    let found = match resource.group {
        "" | "node.k8s.io" | "networking.k8s.io" => machine(resource.kind)?,
        "storage.k8s.io" => storage(resource.kind)?,
        "certificates.k8s.io" => columns!(
            [
                text("Name"),
                text("Age"),
                text("SignerName"),
                text("Requestor"),
                text("RequestedDuration"),
                text("Condition")
            ],
            signing_request
        ),
        "resource.k8s.io" => devices(resource.kind)?,
        "flowcontrol.apiserver.k8s.io" => flow_control(resource.kind)?,
        "admissionregistration.k8s.io" => admission(resource.kind)?,
        "apiextensions.k8s.io" => columns!([text("Name"), text("Created At")], |o, _| vec![
            name(o),
            json!(o.str_at("/metadata/creationTimestamp"))
        ]),
        "apiregistration.k8s.io" => {
            columns!([text("Name"), text("Service"), text("Available"), text("Age")], api_service)
        }
        _ => return None,
    };
    Some(found)
}

fn machine(kind: &str) -> Option<&'static Columns> {
    Some(match kind {
        "ComponentStatus" => {
            columns!([text("Name"), text("Status"), text("Message"), text("Error")], component)
        }
        "RuntimeClass" => columns!([text("Name"), text("Handler"), text("Age")], |o, now| vec![
            name(o),
            json!(o.str_at("/handler")),
            age(o, now)
        ]),
        "ServiceCIDR" => columns!([text("Name"), text("CIDRs"), text("Age")], |o, now| vec![
            name(o),
            json!(joined(o.array_at("/spec/cidrs"))),
            age(o, now)
        ]),
        _ => return None,
    })
}

fn storage(kind: &str) -> Option<&'static Columns> {
    Some(match kind {
        "CSIDriver" => columns!(
            [
                text("Name"),
                boolean("AttachRequired"),
                boolean("PodInfoOnMount"),
                boolean("StorageCapacity"),
                text("TokenRequests"),
                boolean("RequiresRepublish"),
                text("Modes"),
                text("Age")
            ],
            driver
        ),
        "CSINode" => columns!([text("Name"), integer("Drivers"), text("Age")], |o, now| vec![
            name(o),
            json!(o.array_at("/spec/drivers").len()),
            age(o, now)
        ]),
        "CSIStorageCapacity" => columns!([text("Name"), text("StorageClassName"), text("Capacity")], |o, _| vec![
            name(o),
            json!(o.str_at("/storageClassName")),
            or_unset(o, "/capacity")
        ]),
        "VolumeAttachment" => columns!(
            [text("Name"), text("Attacher"), text("PV"), text("Node"), boolean("Attached"), text("Age")],
            |o, now| vec![
                name(o),
                json!(o.str_at("/spec/attacher")),
                json!(o.str_at("/spec/source/persistentVolumeName")),
                json!(o.str_at("/spec/nodeName")),
                flag(o, "/status/attached", false),
                age(o, now)
            ]
        ),
        "VolumeAttributesClass" => {
            columns!([text("Name"), text("DriverName"), text("Age")], |o, now| vec![
                attributes_class_name(o),
                json!(o.str_at("/driverName")),
                age(o, now)
            ])
        }
        _ => return None,
    })
}

fn devices(kind: &str) -> Option<&'static Columns> {
    Some(match kind {
        "ResourceClaim" => columns!([text("Name"), text("State"), text("Age")], |o, now| vec![
            name(o),
            json!(claim_state(o)),
            age(o, now)
        ]),
        "ResourceSlice" => {
            columns!([text("Name"), text("Node"), text("Driver"), text("Pool"), text("Age")], |o, now| {
                vec![
                    name(o),
                    json!(o.str_at("/spec/nodeName")),
                    json!(o.str_at("/spec/driver")),
                    json!(o.str_at("/spec/pool/name")),
                    age(o, now),
                ]
            })
        }
        _ => return None,
    })
}

fn flow_control(kind: &str) -> Option<&'static Columns> {
    Some(match kind {
        "FlowSchema" => columns!(
            [
                text("Name"),
                text("PriorityLevel"),
                text("MatchingPrecedence"),
                text("DistinguisherMethod"),
                text("Age"),
                text("MissingPL")
            ],
            flow_schema
        ),
        "PriorityLevelConfiguration" => columns!(
            [
                text("Name"),
                text("Type"),
                text("NominalConcurrencyShares"),
                text("Queues"),
                text("HandSize"),
                text("QueueLengthLimit"),
                text("Age")
            ],
            priority_level
        ),
        _ => return None,
    })
}

fn admission(kind: &str) -> Option<&'static Columns> {
    Some(match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            columns!([text("Name"), integer("Webhooks"), text("Age")], |o, now| vec![
                name(o),
                json!(o.array_at("/webhooks").len()),
                age(o, now)
            ])
        }
        "MutatingAdmissionPolicy" => {
            columns!([text("Name"), integer("Mutations"), text("ParamKind"), text("Age")], |o, now| vec![
                name(o),
                json!(o.array_at("/spec/mutations").len()),
                param_kind(o),
                age(o, now)
            ])
        }
        "ValidatingAdmissionPolicy" => {
            columns!([text("Name"), integer("Validations"), text("ParamKind"), text("Age")], |o, now| vec![
                name(o),
                json!(o.array_at("/spec/validations").len()),
                param_kind(o),
                age(o, now)
            ])
        }
        _ => columns!([text("Name"), text("PolicyName"), text("ParamRef"), text("Age")], |o, now| vec![
            name(o),
            json!(o.str_at("/spec/policyName")),
            param_ref(o),
            age(o, now)
        ]),
    })
}

fn joined(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn or_unset(object: &Object, pointer: &str) -> Value {
    object.get(pointer).cloned().unwrap_or_else(|| json!("<unset>"))
}

fn flag(object: &Object, pointer: &str, default: bool) -> Value {
    json!(object.bool_at(pointer).unwrap_or(default))
}

fn component(object: &Object, _: Timestamp) -> Vec<Value> {
    let healthy = object.array_at("/conditions").iter().find(|condition| condition["type"] == "Healthy");
    let part = |field: &str| json!(healthy.and_then(|condition| condition[field].as_str()).unwrap_or(""));
    let status = match healthy {
        None => "Unknown",
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
    };
    vec![name(object), json!(status), part("message"), part("error")]
}

fn driver(object: &Object, now: Timestamp) -> Vec<Value> {
    let audiences: Vec<&str> =
        object.array_at("/spec/tokenRequests").iter().map(|r| r["audience"].as_str().unwrap_or("")).collect();
    let tokens = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
    vec![
        name(object),
        flag(object, "/spec/attachRequired", true),
        flag(object, "/spec/podInfoOnMount", false),
        flag(object, "/spec/storageCapacity", false),
        json!(tokens),
        flag(object, "/spec/requiresRepublish", false),
        or_none(joined(object.array_at("/spec/volumeLifecycleModes"))),
        age(object, now),
    ]
}

fn attributes_class_name(class: &Object) -> Value {
    let default = class.annotation("storage.kubernetes.io/volume-attributes-class-is-default") == Some("true");
    json!(if default { format!("{} (default)", class.name()) } else { class.name().to_owned() })
}

fn signing_request(object: &Object, now: Timestamp) -> Vec<Value> {
    let is = |kind: &str| object.array_at("/status/conditions").iter().any(|condition| condition["type"] == kind);
    let mut state = if is("Denied") {
        "Denied".to_owned()
    } else if is("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if is("Failed") {
        state.push_str(",Failed");
    }
    if !object.str_at("/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    vec![
        name(object),
        age(object, now),
        or_none(object.str_at("/spec/signerName").to_owned()),
        json!(object.str_at("/spec/username")),
        or_none(object.i64_at("/spec/expirationSeconds").map(human_duration).unwrap_or_default()),
        json!(state),
    ]
}

fn claim_state(claim: &Object) -> String {
    let leaves = claim.deletion_timestamp().is_some();
    let mut states = Vec::new();
    if leaves {
        states.push("deleted");
    }
    if claim.get("/status/allocation").is_some() {
        states.push("allocated");
        if !claim.array_at("/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !leaves {
        states.push("pending");
    }
    states.join(",")
}

fn flow_schema(object: &Object, now: Timestamp) -> Vec<Value> {
    let dangling = object.array_at("/status/conditions").iter().find(|condition| condition["type"] == "Dangling");
    vec![
        name(object),
        json!(object.str_at("/spec/priorityLevelConfiguration/name")),
        json!(object.i64_at("/spec/matchingPrecedence").unwrap_or(0)),
        or_none(object.str_at("/spec/distinguisherMethod/type").to_owned()),
        age(object, now),
        json!(dangling.and_then(|condition| condition["status"].as_str()).unwrap_or("?")),
    ]
}

fn priority_level(object: &Object, now: Timestamp) -> Vec<Value> {
    let number = |pointer: &str| object.i64_at(pointer).map_or_else(|| json!("<none>"), |number| json!(number));
    vec![
        name(object),
        json!(object.str_at("/spec/type")),
        number("/spec/limited/nominalConcurrencyShares"),
        number("/spec/limited/limitResponse/queuing/queues"),
        number("/spec/limited/limitResponse/queuing/handSize"),
        number("/spec/limited/limitResponse/queuing/queueLengthLimit"),
        age(object, now),
    ]
}

fn param_kind(policy: &Object) -> Value {
    if policy.get("/spec/paramKind").is_none() {
        return json!("<unset>");
    }
    json!(format!("{}/{}", policy.str_at("/spec/paramKind/apiVersion"), policy.str_at("/spec/paramKind/kind")))
}

fn param_ref(binding: &Object) -> Value {
    if binding.get("/spec/paramRef").is_none() {
        return json!("<unset>");
    }
    let [namespace, name] = ["namespace", "name"].map(|part| binding.str_at(&format!("/spec/paramRef/{part}")));
    if name.is_empty() {
        return workload::selector(binding.get("/spec/paramRef/selector"));
    }
    // From here nobody can tell whether it is in a namespace at all.
    json!(if namespace.is_empty() { format!("*/{name}") } else { format!("{namespace}/{name}") })
}

fn api_service(object: &Object, now: Timestamp) -> Vec<Value> {
    let service = match object.get("/spec/service") {
        None => "Local".to_owned(),
        Some(_) => format!("{}/{}", object.str_at("/spec/service/namespace"), object.str_at("/spec/service/name")),
    };
    let available = object.array_at("/status/conditions").iter().find(|condition| condition["type"] == "Available");
    let state = available.map(|condition| {
        let [status, reason] = ["status", "reason"].map(|part| condition[part].as_str().unwrap_or(""));
        if status == "True" || reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") }
    });
    vec![name(object), json!(service), json!(state.unwrap_or_else(|| "Unknown".to_owned())), age(object, now)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource::*;

    /// The cells of an object of that kind, its age left out.
    fn cells(resource: &Resource, value: Value) -> Vec<Value> {
        let columns = super::super::of(resource);
        let object = Object::from_value(value).unwrap();
        let mut cells = (columns.cells)(&object, Timestamp::UNIX_EPOCH);
        if let Some(age) = columns.columns.iter().position(|column| column.name == "Age") {
            cells.remove(age);
        }
        cells
    }

    #[test]
    fn requests_for_certificates() {
        let cells = |status: Value| {
            cells(
                &CERTIFICATE_SIGNING_REQUEST,
                json!({"metadata": {"name": "r"}, "status": status,
                "spec": {"signerName": "a.b/c", "username": "me", "expirationSeconds": 3600}}),
            )
        };
        let row = |state: &str| vec![json!("r"), json!("a.b/c"), json!("me"), json!("60m"), json!(state)];
        assert_eq!(cells(json!({})), row("Pending"));
        assert_eq!(cells(json!({"conditions": [{"type": "Approved"}], "certificate": "YQ=="})), row("Approved,Issued"));
        assert_eq!(cells(json!({"conditions": [{"type": "Approved"}, {"type": "Failed"}]})), row("Approved,Failed"));
        assert_eq!(cells(json!({"conditions": [{"type": "Denied"}]})), row("Denied"));
    }

    #[test]
    fn storage_kinds() {
        let row = cells(
            &CSI_DRIVER,
            json!({"metadata": {"name": "d"}, "spec": {"attachRequired": false,
            "tokenRequests": [{"audience": "a"}, {}], "volumeLifecycleModes": ["Persistent", "Ephemeral"]}}),
        );
        let wanted = json!(["d", false, false, false, "a,", false, "Persistent,Ephemeral"]);
        assert_eq!(json!(row), wanted);
        let row = cells(&CSI_DRIVER, json!({"metadata": {"name": "d"}}));
        assert_eq!(json!(row), json!(["d", true, false, false, "<unset>", false, "<none>"]));
        assert_eq!(
            json!(cells(&CSI_NODE, json!({"metadata": {"name": "n"}, "spec": {"drivers": [{}]}}))),
            json!(["n", 1])
        );
        let row = cells(&CSI_STORAGE_CAPACITY, json!({"metadata": {"name": "c"}, "storageClassName": "s"}));
        assert_eq!(json!(row), json!(["c", "s", "<unset>"]));
        let row = cells(
            &VOLUME_ATTACHMENT,
            json!({"metadata": {"name": "v"}, "spec": {"attacher": "a", "nodeName": "n",
            "source": {"persistentVolumeName": "p"}}, "status": {"attached": true}}),
        );
        assert_eq!(json!(row), json!(["v", "a", "p", "n", true]));
        let default = json!({"storage.kubernetes.io/volume-attributes-class-is-default": "true"});
        let row = cells(
            &VOLUME_ATTRIBUTES_CLASS,
            json!({"metadata": {"name": "v", "annotations": default}, "driverName": "d"}),
        );
        assert_eq!(json!(row), json!(["v (default)", "d"]));
    }

    #[test]
    fn device_kinds() {
        let claim = |value| cells(&RESOURCE_CLAIM, value)[1].clone();
        assert_eq!(claim(json!({})), "pending");
        assert_eq!(claim(json!({"status": {"allocation": {}}})), "allocated");
        assert_eq!(claim(json!({"status": {"allocation": {}, "reservedFor": [{}]}})), "allocated,reserved");
        assert_eq!(claim(json!({"metadata": {"deletionTimestamp": "t"}})), "deleted");
        let slice = json!({"metadata": {"name": "s"}, "spec": {"nodeName": "n", "driver": "d", "pool": {"name": "p"}}});
        assert_eq!(json!(cells(&RESOURCE_SLICE, slice)), json!(["s", "n", "d", "p"]));
        assert_eq!(json!(cells(&DEVICE_CLASS, json!({"metadata": {"name": "c"}}))), json!(["c"]));
    }

    #[test]
    fn flows_and_their_levels() {
        let flow = json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "p"},
            "matchingPrecedence": 9}, "status": {"conditions": [{"type": "Dangling", "status": "False"}]}});
        assert_eq!(json!(cells(&FLOW_SCHEMA, flow)), json!(["f", "p", 9, "<none>", "False"]));
        let level =
            |limited: Value| cells(&PRIORITY_LEVEL_CONFIGURATION, json!({"metadata": {"name": "l"}, "spec": limited}));
        let queuing = json!({"queues": 1, "handSize": 2, "queueLengthLimit": 3});
        let limited = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"queuing": queuing}}});
        assert_eq!(json!(level(limited)), json!(["l", "Limited", 0, 1, 2, 3]));
        let none = json!("<none>");
        assert_eq!(json!(level(json!({"type": "Exempt"}))), json!(["l", "Exempt", none, none, none, none]));
    }

    #[test]
    fn what_extends_the_api() {
        let hooks = json!({"metadata": {"name": "h"}, "webhooks": [{}, {}]});
        assert_eq!(json!(cells(&MUTATING_WEBHOOK_CONFIGURATION, hooks)), json!(["h", 2]));
        let policy = json!({"metadata": {"name": "p"}, "spec": {"validations": [{}], "mutations": [{}, {}],
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
        assert_eq!(json!(cells(&VALIDATING_ADMISSION_POLICY, policy.clone())), json!(["p", 1, "v1/ConfigMap"]));
        assert_eq!(json!(cells(&MUTATING_ADMISSION_POLICY, policy)), json!(["p", 2, "v1/ConfigMap"]));
        let binding = |param: Value| {
            let spec = json!({"policyName": "p", "paramRef": param});
            json!(cells(&VALIDATING_ADMISSION_POLICY_BINDING, json!({"metadata": {"name": "b"}, "spec": spec})))
        };
        assert_eq!(binding(json!({"namespace": "n", "name": "m"})), json!(["b", "p", "n/m"]));
        assert_eq!(binding(json!({"name": "m"})), json!(["b", "p", "*/m"]));
        assert_eq!(binding(json!({"selector": {"matchLabels": {"a": "b"}}})), json!(["b", "p", "a=b"]));
        let api = |spec: Value, condition: Value| {
            json!(cells(
                &API_SERVICE,
                json!({"metadata": {"name": "a"}, "spec": spec, "status": {"conditions": [condition]}})
            ))
        };
        let down = json!({"type": "Available", "status": "False", "reason": "Gone"});
        let service = json!({"service": {"namespace": "n", "name": "s"}});
        assert_eq!(api(service, down), json!(["a", "n/s", "False (Gone)"]));
        assert_eq!(
            api(json!({}), json!({"type": "Available", "status": "True", "reason": "Local"})),
            json!(["a", "Local", "True"])
        );
        assert_eq!(api(json!({}), json!({"type": "Other"})), json!(["a", "Local", "Unknown"]));
    }

    #[test]
    fn parts_of_the_machine() {
        let component = |conditions: Value| {
            json!(cells(&COMPONENT_STATUS, json!({"metadata": {"name": "c"}, "conditions": conditions})))
        };
        assert_eq!(component(json!([])), json!(["c", "Unknown", "", ""]));
        let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
        assert_eq!(component(healthy), json!(["c", "Healthy", "ok", ""]));
        let ill = json!([{"type": "Healthy", "status": "False", "error": "x"}]);
        assert_eq!(component(ill), json!(["c", "Unhealthy", "", "x"]));
        assert_eq!(json!(cells(&RUNTIME_CLASS, json!({"metadata": {"name": "r"}, "handler": "h"}))), json!(["r", "h"]));
        let cidr = json!({"metadata": {"name": "s"}, "spec": {"cidrs": ["10.0.0.0/8", "fd00::/8"]}});
        assert_eq!(json!(cells(&SERVICE_CIDR, cidr)), json!(["s", "10.0.0.0/8,fd00::/8"]));
    }
}
