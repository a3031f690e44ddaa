use super::*;

const IMMUTABLE: &str = "field is immutable";
const REQUEST_NAME: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn exactly(class: &str) -> Value {
    json!({"deviceClassName": class})
}

fn claim() -> Value {
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": {
        "requests": [
            {"name": "a", "exactly": exactly("gpu")},
            {"name": "b", "firstAvailable": [{"name": "big", "deviceClassName": "gpu"}, {"name": "small", "deviceClassName": "gpu"}]},
        ],
        "constraints": [{"requests": ["a", "b"], "matchAttribute": "example.com/numa"}],
        "config": [{"requests": ["b/small"], "opaque": {"driver": "d.example.com", "parameters": {"a": 1}}}],
    }}})
}

#[test]
fn claims() {
    let (devices, path) = ("/spec/devices", "spec.devices");
    let first = "/spec/devices/requests/0";
    let names = |count: usize| -> Value {
        (0..count).map(|i| json!({"name": format!("r{i}"), "exactly": exactly("gpu")})).collect::<Vec<_>>().into()
    };
    let alone = |requests: Value| json!({ "requests": requests });
    refuses(
        &RESOURCE_CLAIM,
        &claim(),
        &[
            (devices, alone(names(33)), &["spec.devices.requests: Too many: 33: must have at most 32 items"]),
            (
                &format!("{devices}/requests/2"),
                json!({"name": "a", "exactly": exactly("gpu")}),
                &["spec.devices.requests[2]: Duplicate value: \"a\""],
            ),
            (
                first,
                json!({"name": "a"}),
                &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
            ),
            (
                &format!("{first}/firstAvailable"),
                json!([{"name": "x", "deviceClassName": "gpu"}]),
                &[
                    "spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, \
                   but multiple fields are set",
                ],
            ),
            (
                &format!("{first}/exactly"),
                exactly(""),
                &["spec.devices.requests[0].exactly.deviceClassName: Required value"],
            ),
            (
                &format!("{first}/exactly/allocationMode"),
                json!("Some"),
                &[
                    "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \
                   \"ExactCount\"",
                ],
            ),
            (
                &format!("{first}/exactly/count"),
                json!(-1),
                &["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"],
            ),
            (
                &format!("{first}/exactly"),
                json!({"deviceClassName": "gpu", "allocationMode": "All", "count": 2}),
                &[
                    "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is \
                   'All'",
                ],
            ),
            (
                &format!("{first}/exactly/selectors"),
                json!([{}, {"cel": {"expression": "x".repeat(10_241)}}]),
                &[
                    "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
                    "spec.devices.requests[0].exactly.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
                ],
            ),
            (
                &format!("{first}/exactly/tolerations"),
                json!([{"operator": "Exists", "value": "v"}, {"key": "a"}, {"operator": "Is", "effect": "Never"}]),
                &[
                    "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator \
                     `Exists`",
                    "spec.devices.requests[0].exactly.tolerations[1].operator: Required value",
                    "spec.devices.requests[0].exactly.tolerations[2].operator: Unsupported value: \"Is\": supported values: \
                     \"Equal\", \"Exists\"",
                    "spec.devices.requests[0].exactly.tolerations[2].effect: Unsupported value: \"Never\": supported values: \
                     \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
            (
                &format!("{devices}/constraints/0/requests"),
                json!(["a", "a", "other", "b/other", "a/b/c"]),
                &[
                    &format!("{path}.constraints[0].requests[2]: Invalid value: \"other\": {REQUEST_NAME}"),
                    &format!("{path}.constraints[0].requests[3]: Invalid value: \"b/other\": {REQUEST_NAME}"),
                    &format!("{path}.constraints[0].requests[4]: Invalid value: \"a/b/c\": {REQUEST_NAME}"),
                    &format!("{path}.constraints[0].requests[1]: Duplicate value: \"a\""),
                ],
            ),
            (
                &format!("{devices}/constraints/0"),
                json!({}),
                &[
                    "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" \
                   is required, but multiple fields are set",
                ],
            ),
            (
                &format!("{devices}/constraints/0/matchAttribute"),
                json!("numa"),
                &[
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a \
                   domain and a name separated by a slash",
                ],
            ),
            (
                &format!("{devices}/constraints/0/matchAttribute"),
                json!("/"),
                &[
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"\": the domain must not be empty",
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"\": the name must not be empty",
                ],
            ),
            (
                &format!("{devices}/constraints/0/matchAttribute"),
                json!(format!("a.b/{}", "x".repeat(33))),
                &["spec.devices.constraints[0].matchAttribute: Too long: may not be more than 32 bytes"],
            ),
            (&format!("{devices}/config/0/opaque"), Value::Null, &["spec.devices.config[0].opaque: Required value"]),
            (
                &format!("{devices}/config/0/opaque"),
                json!({"driver": "", "parameters": [1]}),
                &[
                    "spec.devices.config[0].opaque.driver: Required value",
                    "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                ],
            ),
            (
                &format!("{devices}/config/0/opaque/parameters"),
                json!({"a": "x".repeat(10_240)}),
                &["spec.devices.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"],
            ),
        ],
    );
    accepts(
        &RESOURCE_CLAIM,
        &claim(),
        &[
            (devices, alone(names(32))),
            (&format!("{first}/exactly"), json!({"deviceClassName": "gpu", "allocationMode": "All"})),
            (&format!("{devices}/constraints/0/distinctAttribute"), json!("example.com/id")),
            (
                &format!("{first}/exactly/tolerations"),
                json!([{"operator": "Exists"}, {"operator": "Equal", "value": "v", "effect": "NoExecute"}]),
            ),
        ],
    );
    let made = prepared(&RESOURCE_CLAIM, &claim());
    assert_eq!(made.i64_at("/spec/devices/requests/0/exactly/count"), Some(1));
    assert_eq!(made.str_at("/spec/devices/requests/1/firstAvailable/0/allocationMode"), "ExactCount");
}

#[test]
fn names_in_claims() {
    let at = |pointer: &str, name: &str| {
        let object = prepared(&RESOURCE_CLAIM, &with(&claim(), pointer, json!(name)));
        words(create(&RESOURCE_CLAIM, &object))
    };
    let found = at("/spec/devices/requests/0/exactly/deviceClassName", "G");
    assert!(
        found[0].starts_with(
            "spec.devices.requests[0].exactly.deviceClassName: Invalid value: \"G\": a lowercase RFC 1123"
        )
    );
    let found = at("/spec/devices/requests/1/firstAvailable/1/name", "S");
    assert!(
        found[0]
            .starts_with("spec.devices.requests[1].firstAvailable[1].name: Invalid value: \"S\": a lowercase RFC 1123")
    );
    let found = at("/spec/devices/constraints/0/matchAttribute", "a.b/1");
    assert!(found[0].ends_with("[A-Za-z_][A-Za-z0-9_]*')"), "{found:?}");
}

#[test]
fn specs_of_claims_stay() {
    let old = prepared(&RESOURCE_CLAIM, &claim());
    let new = prepared(&RESOURCE_CLAIM, &with(&claim(), "/spec/devices/config", Value::Null));
    let found = words(update(&RESOURCE_CLAIM, &new, &old));
    assert!(
        found.len() == 1 && found[0].starts_with("spec: Invalid value: ") && found[0].ends_with(IMMUTABLE),
        "{found:?}"
    );
    let template = json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": claim()["spec"]}});
    refuses(
        &RESOURCE_CLAIM_TEMPLATE,
        &template,
        &[
            (
                "/spec/spec/devices/requests/0/exactly/deviceClassName",
                json!(""),
                &["spec.spec.devices.requests[0].exactly.deviceClassName: Required value"],
            ),
            (
                "/spec/metadata",
                json!({"labels": {"a": "b c"}}),
                &[&format!("spec.metadata.labels: Invalid value: \"b c\": {}", meta::LABEL_VALUE)],
            ),
            (
                "/spec/metadata",
                json!({"annotations": {"a b": ""}}),
                &[&format!("spec.metadata.annotations: Invalid value: \"a b\": {}", meta::QUALIFIED)],
            ),
        ],
    );
    let old = prepared(&RESOURCE_CLAIM_TEMPLATE, &template);
    let new = prepared(&RESOURCE_CLAIM_TEMPLATE, &with(&template, "/spec/metadata", json!({"labels": {"a": "b"}})));
    assert!(words(update(&RESOURCE_CLAIM_TEMPLATE, &new, &old))[0].starts_with("spec: Invalid value: "));
}

#[test]
fn classes_of_devices() {
    let base = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "true"}}]}});
    let extended = "must be a valid extended resource name";
    let many: Value = (0..33).map(|_| json!({"cel": {"expression": "true"}})).collect::<Vec<_>>().into();
    refuses(
        &DEVICE_CLASS,
        &base,
        &[
            ("/spec/selectors", many, &["spec.selectors: Too many: 33: must have at most 32 items"]),
            ("/spec/config", json!([{}]), &["spec.config[0].opaque: Required value"]),
            (
                "/spec/extendedResourceName",
                json!("cpu"),
                &[&format!("spec.extendedResourceName: Invalid value: \"cpu\": {extended}")],
            ),
            (
                "/spec/extendedResourceName",
                json!("kubernetes.io/gpu"),
                &[&format!("spec.extendedResourceName: Invalid value: \"kubernetes.io/gpu\": {extended}")],
            ),
        ],
    );
    accepts(&DEVICE_CLASS, &base, &[("/spec/extendedResourceName", json!("example.com/gpu"))]);
}

fn allocation() -> Value {
    json!({"devices": {"results": [{"request": "a", "driver": "d.example.com", "pool": "p", "device": "g0"}]}})
}

#[test]
fn allocations() {
    let consumer = |uid: &str| json!({"resource": "pods", "name": "p", "uid": uid});
    let path = "status.allocation.devices";
    let with_allocation = |pointer: &str, value: Value| with(&allocation(), pointer, value);
    let result = |field: &str, value: Value| with_allocation(&format!("/devices/results/0/{field}"), value);
    let config = json!([{"source": "Nobody", "opaque": {"driver": "d", "parameters": {}}}]);
    statuses(
        &RESOURCE_CLAIM,
        "status",
        &claim(),
        &[
            ("/status/allocation", allocation(), &[]),
            (
                "/status/reservedFor",
                json!([consumer("u")]),
                &["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"],
            ),
            (
                "/status",
                json!({"allocation": allocation(), "reservedFor": [consumer("u"), consumer("u"), {}]}),
                &[
                    "status.reservedFor[2].resource: Required value",
                    "status.reservedFor[2].name: Required value",
                    "status.reservedFor[2].uid: Required value",
                    "status.reservedFor[1]: Duplicate value: \"u\"",
                ],
            ),
            (
                "/status/allocation",
                result("request", json!("z")),
                &[&format!("{path}.results[0].request: Invalid value: \"z\": {REQUEST_NAME}")],
            ),
            (
                "/status/allocation",
                result("driver", json!("")),
                &[&format!("{path}.results[0].driver: Required value")],
            ),
            ("/status/allocation", result("pool", json!("")), &[&format!("{path}.results[0].pool: Required value")]),
            (
                "/status/allocation",
                result("shareID", json!("u")),
                &[&format!(
                    "{path}.results[0].shareID: Invalid value: \"u\": uid must be in RFC 4122 normalized form, \
                     `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters"
                )],
            ),
            (
                "/status/allocation",
                result("bindingConditions", json!(["a"])),
                &[&format!(
                    "{path}.results[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required \
                     to use bindingConditions"
                )],
            ),
            (
                "/status/allocation",
                with_allocation("/devices/config", config),
                &[&format!(
                    "{path}.config[0].source: Unsupported value: \"Nobody\": supported values: \"FromClaim\", \"FromClass\""
                )],
            ),
            (
                "/status/allocation",
                with_allocation("/nodeSelector", json!({"nodeSelectorTerms": []})),
                &[
                    "status.allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector \
                   term",
                ],
            ),
        ],
    );
    let allocated = with(&claim(), "/status/allocation", allocation());
    let old = prepared(&RESOURCE_CLAIM, &allocated);
    let other = prepared(&RESOURCE_CLAIM, &with(&claim(), "/status/allocation", result("device", json!("g1"))));
    assert!(words(status(&RESOURCE_CLAIM, "status", &other, &old))[0].ends_with(IMMUTABLE));
    let leaving = with(&allocated, "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    let late = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
    statuses(
        &RESOURCE_CLAIM,
        "status",
        &leaving,
        &[
            ("/status/reservedFor", json!([consumer("u")]), &[&format!("status.reservedFor: Forbidden: {late}")]),
            ("/status/allocation", Value::Null, &[]),
        ],
    );
}

#[test]
fn what_drivers_say_of_devices() {
    let allocated = with(&claim(), "/status/allocation", allocation());
    let device = json!({"driver": "d.example.com", "pool": "p", "device": "g0"});
    let say = |field: &str, value: Value| json!([with(&device, field, value)]);
    let condition =
        json!({"type": "Ready", "status": "True", "reason": "Up", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let all_wrong = json!({"type": "a b", "status": "Maybe", "observedGeneration": -1, "reason": "1"});
    let many: Value = (0..9).map(|i| with(&condition, "/type", json!(format!("c{i}")))).collect::<Vec<_>>().into();
    let path = "status.devices[0]";
    statuses(
        &RESOURCE_CLAIM,
        "status",
        &allocated,
        &[
            ("/status/devices", json!([device]), &[]),
            ("/status/devices", say("/conditions", json!([condition])), &[]),
            (
                "/status/devices",
                json!([device, device]),
                &["status.devices[1]: Duplicate value: \"d.example.com/p/g0\""],
            ),
            (
                "/status/devices",
                say("/device", json!("g1")),
                &[&format!("{path}: Invalid value: \"d.example.com/p/g1\": must be an allocated device in the claim")],
            ),
            (
                "/status/devices",
                say("/conditions", many),
                &[&format!("{path}.conditions: Too many: 9: must have at most 8 items")],
            ),
            (
                "/status/devices",
                say("/data", json!([])),
                &[&format!("{path}.data: Invalid value: \"<value omitted>\": must be a valid JSON object")],
            ),
            (
                "/status/devices",
                say("/networkData", json!({"interfaceName": "x".repeat(257), "hardwareAddress": "x".repeat(129)})),
                &[
                    &format!("{path}.networkData.interfaceName: Too long: may not be more than 256 bytes"),
                    &format!("{path}.networkData.hardwareAddress: Too long: may not be more than 128 bytes"),
                ],
            ),
            (
                "/status/devices",
                say("/networkData", json!({"ips": ["10.0.0.1/24", "10.0.0.1/24", "10.0.0.1", "fd00:0::1/64"]})),
                &[
                    &format!(
                        "{path}.networkData.ips[2]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form, (e.g. \
                         10.9.8.7/24 or 2001:db8::1/64)"
                    ),
                    &format!(
                        "{path}.networkData.ips[3]: Invalid value: \"fd00:0::1/64\": must be in canonical form (\"fd00::1/64\")"
                    ),
                    &format!("{path}.networkData.ips[1]: Duplicate value: \"10.0.0.1/24\""),
                ],
            ),
        ],
    );
    let new = prepared(&RESOURCE_CLAIM, &with(&allocated, "/status/devices", say("/conditions", json!([all_wrong]))));
    let found = words(status(&RESOURCE_CLAIM, "status", &new, &prepared(&RESOURCE_CLAIM, &allocated)));
    let paths: Vec<&str> = found.iter().filter_map(|text| text.split(": ").next()?.rsplit('.').next()).collect();
    assert_eq!(paths, ["type", "status", "observedGeneration", "lastTransitionTime", "reason"], "{found:?}");
}
