use super::*;

const IMMUTABLE: &str = "field is immutable";

fn slice() -> Value {
    json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n",
        "pool": {"name": "p/q", "generation": 0, "resourceSliceCount": 1},
        "devices": [{"name": "g0", "attributes": {"model": {"string": "x"}, "example.com/cores": {"int": 4}},
            "capacity": {"memory": {"value": "8Gi"}}}]}})
}

#[test]
fn slices() {
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let selector = |terms: Value| json!({ "nodeSelectorTerms": terms });
    let term = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    let devices = |count: usize, extra: Value| -> Value {
        (0..count).map(|i| with(&extra, "/name", json!(format!("g{i}")))).collect::<Vec<_>>().into()
    };
    let tainted = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    refuses(
        &RESOURCE_SLICE,
        &slice(),
        &[
            ("/spec/driver", json!(""), &["spec.driver: Required value"]),
            ("/spec/pool/name", json!(""), &["spec.pool.name: Required value"]),
            (
                "/spec/pool/resourceSliceCount",
                json!(0),
                &["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
            ),
            (
                "/spec/pool/generation",
                json!(-1),
                &["spec.pool.generation: Invalid value: -1: must be greater than or equal to zero"],
            ),
            ("/spec/nodeName", Value::Null, &[&format!("spec: Required value: {one}")]),
            (
                "/spec/nodeName",
                json!(""),
                &[
                    "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string",
                    &format!("spec: Required value: {one}"),
                ],
            ),
            (
                "/spec/allNodes",
                json!(true),
                &[&format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set")],
            ),
            (
                "/spec/allNodes",
                json!(false),
                &["spec.allNodes: Invalid value: false: must be either unset or set to true"],
            ),
            (
                "/spec/sharedCounters",
                json!([{"name": "c", "counters": {"a": {"value": "1"}}}]),
                &["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"],
            ),
            ("/spec/devices", devices(129, json!({})), &["spec.devices: Too many: 129: must have at most 128 items"]),
            ("/spec/devices", devices(65, tainted), &["spec.devices: Too many: 65: must have at most 64 items"]),
            ("/spec/devices/1", json!({"name": "g0"}), &["spec.devices[1]: Duplicate value: \"g0\""]),
        ],
    );
    accepts(&RESOURCE_SLICE, &slice(), &[("/spec/devices", devices(128, json!({})))]);
    let mut everywhere = slice();
    everywhere["spec"].as_object_mut().unwrap().remove("nodeName");
    everywhere["spec"]["nodeSelector"] = selector(json!([term]));
    let terms = "spec.nodeSelector.nodeSelectorTerms: Invalid value";
    let exactly_one = "must have exactly one node selector term";
    let two = json!([term, term]);
    refuses(
        &RESOURCE_SLICE,
        &everywhere,
        &[("/spec/nodeSelector", selector(two.clone()), &[&format!("{terms}: {two}: {exactly_one}")])],
    );
    changes(
        &RESOURCE_SLICE,
        &slice(),
        &[
            ("/spec/pool/generation", json!(1), &[]),
            ("/spec/pool/name", json!("r"), &[&format!("spec.pool.name: Invalid value: \"r\": {IMMUTABLE}")]),
            ("/spec/driver", json!("e"), &[&format!("spec.driver: Invalid value: \"e\": {IMMUTABLE}")]),
            ("/spec/nodeName", json!("m"), &[&format!("spec.nodeName: Invalid value: \"m\": {IMMUTABLE}")]),
        ],
    );
}

#[test]
fn devices_of_slices() {
    let (at, path) = ("/spec/devices/0", "spec.devices[0]");
    let many: Value = (0..31).map(|i| (format!("a{i}"), json!({"bool": true}))).collect();
    refuses(
        &RESOURCE_SLICE,
        &slice(),
        &[
            (
                &format!("{at}/attributes"),
                with(&many, "/b", json!({"bool": true})),
                &[&format!(
                    "{path}: Invalid value: 33: the total number of attributes and capacities must not exceed 32"
                )],
            ),
            (
                &format!("{at}/attributes/model"),
                json!({}),
                &[&format!("{path}.attributes[model]: Invalid value: \"\": exactly one value must be specified")],
            ),
            (
                &format!("{at}/attributes/model"),
                json!({"bool": true, "int": 1}),
                &[&format!(
                    "{path}.attributes[model]: Invalid value: {{\"bool\":true,\"int\":1}}: exactly one value must be specified"
                )],
            ),
            (
                &format!("{at}/attributes/model"),
                json!({"string": "x".repeat(65)}),
                &[&format!("{path}.attributes[model].string: Too long: may not be more than 64 bytes")],
            ),
            (
                &format!("{at}/capacity/memory/requestPolicy"),
                json!({"default": "1Gi"}),
                &[&format!("{path}.capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true")],
            ),
            (
                &format!("{at}/taints"),
                json!([{"key": "a", "effect": ""}]),
                &[&format!("{path}.taints[0].effect: Required value")],
            ),
            (
                &format!("{at}/consumesCounters"),
                json!([{"counterSet": "c", "counters": {}}, {"counterSet": "", "counters": {"a": {"value": "1"}}}]),
                &[
                    &format!("{path}.consumesCounters[0].counters: Required value"),
                    &format!("{path}.consumesCounters[1].counterSet: Required value"),
                ],
            ),
            (
                &format!("{at}/allNodes"),
                json!(true),
                &[&format!(
                    "{path}: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
                     `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
                )],
            ),
            (
                &format!("{at}/bindingConditions"),
                json!(["a", "a"]),
                &[
                    &format!("{path}.bindingConditions[1]: Duplicate value: \"a\""),
                    &format!(
                        "{path}.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use \
                         bindingConditions"
                    ),
                ],
            ),
        ],
    );
    let overlap = with(&slice(), &format!("{at}/bindingConditions"), json!(["a"]));
    let object = prepared(&RESOURCE_SLICE, &with(&overlap, &format!("{at}/bindingFailureConditions"), json!(["a"])));
    let why = "bindingFailureConditions must not overlap with bindingConditions";
    assert_eq!(
        words(create(&RESOURCE_SLICE, &object)),
        [format!("{path}.bindingFailureConditions[0]: Invalid value: \"a\": {why}")]
    );
    for (version, good) in [
        ("1.2.3", true),
        ("0.0.0-rc.1+build.5", true),
        ("1.2.3-0a", true),
        ("1.2", false),
        ("01.2.3", false),
        ("1.2.3-01", false),
        ("1.2.3+", false),
        ("v1.2.3", false),
    ] {
        let object =
            prepared(&RESOURCE_SLICE, &with(&slice(), &format!("{at}/attributes/model"), json!({"version": version})));
        assert_eq!(create(&RESOURCE_SLICE, &object).is_empty(), good, "{version}");
    }
}

#[test]
fn devices_choose_their_nodes() {
    let mut base = slice();
    base["spec"].as_object_mut().unwrap().remove("nodeName");
    base["spec"]["perDeviceNodeSelection"] = json!(true);
    base["spec"]["devices"][0]["nodeName"] = json!("n");
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
               true in the ResourceSlice spec";
    let path = "spec.devices[0]";
    refuses(
        &RESOURCE_SLICE,
        &base,
        &[
            ("/spec/devices/0/nodeName", Value::Null, &[&format!("{path}: Required value: {one}")]),
            (
                "/spec/devices/0/nodeName",
                json!(""),
                &[
                    &format!("{path}.nodeName: Invalid value: \"\": must not be empty"),
                    &format!("{path}: Required value: {one}"),
                ],
            ),
            (
                "/spec/devices/0/allNodes",
                json!(true),
                &[&format!("{path}: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}")],
            ),
        ],
    );
}

#[test]
fn shared_capacities() {
    let mut base = slice();
    base["spec"]["devices"][0]["allowMultipleAllocations"] = json!(true);
    let at = "/spec/devices/0/capacity/memory/requestPolicy";
    let path = "spec.devices[0].capacity[memory].requestPolicy";
    let range = |value: Value| json!({"default": "2Gi", "validRange": value});
    refuses(
        &RESOURCE_SLICE,
        &base,
        &[
            (
                at,
                json!({"default": "1", "validValues": ["1"], "validRange": {"min": "1"}}),
                &[&format!(
                    "{path}: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" \
                     at the same time"
                )],
            ),
            (
                at,
                json!({"validValues": ["1"]}),
                &[&format!("{path}.default: Required value: required when validValues is defined")],
            ),
            (
                at,
                json!({"validRange": {"min": "1"}}),
                &[&format!("{path}.default: Required value: required when validRange is defined")],
            ),
            (
                at,
                json!({"default": "3Gi", "validValues": ["2Gi", "1Gi", "9Gi", "9Gi"]}),
                &[
                    &format!("{path}.validValues[1]: Invalid value: \"1Gi\": values must be sorted in ascending order"),
                    &format!(
                        "{path}.validValues[2]: Invalid value: \"9Gi\": option is larger than capacity value: 8Gi"
                    ),
                    &format!(
                        "{path}.validValues[3]: Invalid value: \"9Gi\": option is larger than capacity value: 8Gi"
                    ),
                    &format!("{path}.validValues[3]: Duplicate value: \"9663676416\""),
                    &format!(
                        "{path}.validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy"
                    ),
                ],
            ),
            (
                at,
                range(json!({})),
                &[&format!("{path}.validRange.min: Required value: required when validRange is defined")],
            ),
            (
                at,
                range(json!({"min": "9Gi"})),
                &[
                    &format!("{path}.validRange.min: Invalid value: \"9Gi\": min is larger than capacity value: 8Gi"),
                    &format!("{path}.validRange.min: Invalid value: \"2Gi\": default is less than min: 9Gi"),
                ],
            ),
            (
                at,
                range(json!({"min": "2Gi", "max": "1Gi"})),
                &[
                    &format!("{path}.validRange.max: Invalid value: \"2Gi\": min is larger than max: 1Gi"),
                    &format!("{path}.validRange.max: Invalid value: \"2Gi\": default is more than max: 1Gi"),
                ],
            ),
            (
                at,
                range(json!({"min": "1Gi", "max": "9Gi"})),
                &[&format!("{path}.validRange.max: Invalid value: \"9Gi\": max is larger than capacity value: 8Gi")],
            ),
            (
                at,
                range(json!({"min": "1Gi", "step": "8Gi"})),
                &[
                    &format!(
                        "{path}.validRange.step: Invalid value: \"8Gi\": one step 9Gi is larger than capacity value: 8Gi"
                    ),
                    &format!(
                        "{path}.validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (8Gi) from (1Gi)"
                    ),
                ],
            ),
        ],
    );
    accepts(
        &RESOURCE_SLICE,
        &base,
        &[
            (at, json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]})),
            (at, range(json!({"min": "1Gi", "max": "8Gi", "step": "1Gi"}))),
            (at, range(json!({"min": "2Gi", "step": "0"}))),
        ],
    );
}

#[test]
fn shared_counters() {
    let mut base = slice();
    base["spec"].as_object_mut().unwrap().remove("devices");
    let counters: Value = (0..33).map(|i| (format!("c{i}"), json!({"value": "1"}))).collect();
    base["spec"]["sharedCounters"] = json!([{"name": "a", "counters": {"c": {"value": "1"}}}]);
    let set = json!({"name": "a", "counters": {"c": {"value": "1"}}});
    let many: Value = (0..9).map(|i| with(&set, "/name", json!(format!("s{i}")))).collect::<Vec<_>>().into();
    refuses(
        &RESOURCE_SLICE,
        &base,
        &[
            ("/spec/sharedCounters", many, &["spec.sharedCounters: Too many: 9: must have at most 8 items"]),
            ("/spec/sharedCounters/1", set, &["spec.sharedCounters[1]: Duplicate value: \"a\""]),
            ("/spec/sharedCounters/0/name", json!(""), &["spec.sharedCounters[0].name: Required value"]),
            ("/spec/sharedCounters/0/counters", json!({}), &["spec.sharedCounters[0].counters: Required value"]),
            (
                "/spec/sharedCounters/0/counters",
                counters,
                &["spec.sharedCounters[0].counters: Too many: 33: must have at most 32 items"],
            ),
        ],
    );
}
