use super::*;

const IMMUTABLE: &str = "field is immutable";
const SUBDOMAIN: &str = meta::SUBDOMAIN;

#[test]
fn drivers() {
    let base = json!({"metadata": {"name": "d.example.com"}, "spec": {}});
    refuses(
        &CSI_DRIVER,
        &base,
        &[
            (
                "/spec/fsGroupPolicy",
                json!("Always"),
                &["spec.fsGroupPolicy: Unsupported value: \"Always\": supported values: \"File\", \"None\", \
                   \"ReadWriteOnceWithFSType\""],
            ),
            (
                "/spec/volumeLifecycleModes",
                json!(["Persistent", "Eternal"]),
                &["spec.volumeLifecycleModes: Unsupported value: \"Eternal\": supported values: \"Ephemeral\", \
                   \"Persistent\""],
            ),
            (
                "/spec/tokenRequests",
                json!([{"audience": ""}, {"audience": "a"}, {"audience": "a"}]),
                &["spec.tokenRequests[2].audience: Duplicate value: \"a\""],
            ),
            (
                "/spec/tokenRequests",
                json!([{"audience": "a", "expirationSeconds": 599}]),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 \
                   minutes",
                ],
            ),
            (
                "/spec/tokenRequests",
                json!([{"audience": "a", "expirationSeconds": 4_294_967_297_i64}]),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger \
                   than 2^32 seconds",
                ],
            ),
            (
                "/spec/nodeAllocatableUpdatePeriodSeconds",
                json!(9),
                &[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                ],
            ),
        ],
    );
    accepts(
        &CSI_DRIVER,
        &base,
        &[
            ("/spec/tokenRequests", json!([{"audience": "a", "expirationSeconds": 600}, {"audience": "b"}])),
            ("/spec/nodeAllocatableUpdatePeriodSeconds", json!(10)),
            ("/spec/attachRequired", json!(false)),
        ],
    );
    // Without its defaults it lacks four things.
    let bare = Object::from_value(json!({"spec": {}})).unwrap();
    let lacks = ["spec.attachedRequired", "spec.podInfoOnMount", "spec.storageCapacity", "spec.seLinuxMount"];
    assert_eq!(words(create(&CSI_DRIVER, &bare)), lacks.map(|path| format!("{path}: Required value")));
    changes(
        &CSI_DRIVER,
        &base,
        &[
            ("/spec/requiresRepublish", json!(true), &[]),
            ("/spec/tokenRequests", json!([{"audience": "a"}]), &[]),
            (
                "/spec/attachRequired",
                json!(false),
                &[&format!("spec.attachedRequired: Invalid value: false: {IMMUTABLE}")],
            ),
            (
                "/spec/volumeLifecycleModes",
                json!(["Ephemeral"]),
                &[&format!("spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: {IMMUTABLE}")],
            ),
        ],
    );
}

#[test]
fn nodes_with_drivers() {
    let driver = json!({"name": "d.example.com", "nodeID": "n", "topologyKeys": ["example.com/zone"]});
    let base = json!({"metadata": {"name": "n"}, "spec": {"drivers": [driver]}});
    let second = |name: &str| json!({"name": name, "nodeID": "n"});
    refuses(
        &CSI_NODE,
        &base,
        &[
            ("/spec/drivers/0/name", json!(""), &["spec.drivers[0].name: Required value"]),
            (
                "/spec/drivers/0/name",
                json!("no name"),
                &[&format!("spec.drivers[0].name: Invalid value: \"no name\": {SUBDOMAIN}")],
            ),
            (
                "/spec/drivers/0/name",
                json!("a".repeat(64)),
                &["spec.drivers[0].name: Too long: may not be more than 63 bytes"],
            ),
            ("/spec/drivers/0/nodeID", json!(""), &["spec.drivers[0].nodeID: Required value"]),
            (
                "/spec/drivers/0/nodeID",
                json!("n".repeat(257)),
                &[&format!(
                    "spec.drivers[0].nodeID: Invalid value: {:?}: must be 256 characters or less",
                    "n".repeat(257)
                )],
            ),
            (
                "/spec/drivers/0/allocatable",
                json!({"count": -1}),
                &["spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/drivers/1", second("d.example.com"), &["spec.drivers[1].name: Duplicate value: \"d.example.com\""]),
            ("/spec/drivers/0/topologyKeys", json!([""]), &["spec.drivers[0]: Required value"]),
            ("/spec/drivers/0/topologyKeys", json!(["a", "a"]), &["spec.drivers[0]: Duplicate value: \"a\""]),
            (
                "/spec/drivers/0/topologyKeys",
                json!(["a/b/c"]),
                &[&format!("spec.drivers[0]: Invalid value: \"a/b/c\": {}", meta::QUALIFIED)],
            ),
        ],
    );
    accepts(&CSI_NODE, &base, &[("/spec/drivers/1", second("other")), ("/spec/drivers", json!([]))]);
    changes(
        &CSI_NODE,
        &base,
        &[
            ("/spec/drivers/1", second("other"), &[]),
            ("/spec/drivers/0/allocatable", json!({"count": 5}), &[]),
            ("/spec/drivers", json!([]), &[]),
            (
                "/spec/drivers/0/nodeID",
                json!("m"),
                &["spec.drivers: Invalid value: {\"name\":\"d.example.com\",\"nodeID\":\"m\",\"topologyKeys\":\
                   [\"example.com/zone\"]}: field is immutable"],
            ),
        ],
    );
}

#[test]
fn capacities() {
    let base = json!({"metadata": {"name": "c", "namespace": "n"}, "storageClassName": "s", "capacity": "1Gi",
        "nodeTopology": {"matchLabels": {"a": "b"}}});
    refuses(
        &CSI_STORAGE_CAPACITY,
        &base,
        &[
            ("/storageClassName", json!("S"), &[&format!("storageClassName: Invalid value: \"S\": {SUBDOMAIN}")]),
            ("/capacity", json!("-1"), &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"]),
            (
                "/nodeTopology",
                json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}),
                &["nodeTopology.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"],
            ),
        ],
    );
    accepts(&CSI_STORAGE_CAPACITY, &base, &[("/capacity", json!("0")), ("/nodeTopology", Value::Null)]);
    changes(
        &CSI_STORAGE_CAPACITY,
        &base,
        &[
            ("/capacity", json!("2Gi"), &[]),
            ("/storageClassName", json!("t"), &[&format!("storageClassName: Invalid value: \"t\": {IMMUTABLE}")]),
            ("/nodeTopology", Value::Null, &[&format!("nodeTopology: Invalid value: null: {IMMUTABLE}")]),
        ],
    );
}

#[test]
fn attribute_classes() {
    let base = json!({"metadata": {"name": "c"}, "driverName": "d.example.com", "parameters": {"iops": "1"}});
    let many: Value = (0..513).map(|i| (i.to_string(), json!(""))).collect();
    refuses(
        &VOLUME_ATTRIBUTES_CLASS,
        &base,
        &[
            ("/driverName", json!(""), &["driverName: Required value"]),
            ("/driverName", json!("a b"), &[&format!("driverName: Invalid value: \"a b\": {}", meta::QUALIFIED)]),
            ("/parameters", Value::Null, &["parameters: Required value: must contain at least one key/value pair"]),
            ("/parameters", many, &["parameters: Too long: may not be more than 512 bytes"]),
            ("/parameters", json!({"": "a"}), &["parameters: Invalid value: \"\": field can not be empty."]),
            (
                "/parameters",
                json!({"a": "x".repeat(256 << 10)}),
                &["parameters: Too long: may not be more than 262144 bytes"],
            ),
        ],
    );
    changes(
        &VOLUME_ATTRIBUTES_CLASS,
        &base,
        &[
            ("/metadata/labels", json!({"a": "b"}), &[]),
            ("/driverName", json!("e"), &["driverName: Forbidden: updates to driverName are forbidden."]),
            ("/parameters", json!({"iops": "2"}), &["parameters: Forbidden: updates to parameters are forbidden."]),
        ],
    );
}

#[test]
fn attachments() {
    let base = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": "n",
        "source": {"persistentVolumeName": "v"}}});
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let inline = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d.example.com", "volumeHandle": "h"}});
    refuses(
        &VOLUME_ATTACHMENT,
        &base,
        &[
            ("/spec/attacher", json!(""), &["spec.attacher: Required value"]),
            ("/spec/attacher", json!("D_"), &[&format!("spec.attacher: Invalid value: \"D_\": {SUBDOMAIN}")]),
            ("/spec/nodeName", json!(""), &[&format!("spec.nodeName: Invalid value: \"\": {SUBDOMAIN}")]),
            ("/spec/source", json!({}), &[&format!("spec.source: Required value: {exactly_one}")]),
            ("/spec/source/inlineVolumeSpec", inline.clone(), &[&format!("spec.source: Forbidden: {exactly_one}")]),
            (
                "/spec/source/persistentVolumeName",
                json!(""),
                &["spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName"],
            ),
            (
                "/spec/source/persistentVolumeName",
                json!("V"),
                &[&format!("spec.source.persistentVolumeName: Invalid value: \"V\": {SUBDOMAIN}")],
            ),
            (
                "/status/attachError",
                json!({"message": "m".repeat(1025), "errorCode": -1}),
                &[
                    "status.attachError.message: Too long: may not be more than 1024 bytes",
                    "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                "/status/attachmentMetadata",
                json!({"a": "x".repeat(256 << 10)}),
                &["status.attachmentMetadata: Too long: may not be more than 262144 bytes"],
            ),
        ],
    );
    let inlined = with(&base, "/spec/source", json!({"inlineVolumeSpec": inline}));
    let not_here = "may not be specified in the context of inline volumes";
    let at = "/spec/source/inlineVolumeSpec";
    let path = "spec.source.inlineVolumeSpec";
    refuses(
        &VOLUME_ATTACHMENT,
        &inlined,
        &[
            (&format!("{at}/claimRef"), json!({"name": "c"}), &[&format!("{path}.claimRef: Forbidden: {not_here}")]),
            (&format!("{at}/capacity"), json!({"storage": "1"}), &[&format!("{path}.capacity: Forbidden: {not_here}")]),
            (
                &format!("{at}/csi"),
                Value::Null,
                &[&format!("{path}.csi: Required value: has to be specified in the context of inline volumes")],
            ),
            (&format!("{at}/csi/volumeHandle"), json!(""), &[&format!("{path}.csi.volumeHandle: Required value")]),
            (&format!("{at}/accessModes"), Value::Null, &[&format!("{path}.accessModes: Required value")]),
            (
                &format!("{at}/persistentVolumeReclaimPolicy"),
                json!("Delete"),
                &[&format!(
                    "{path}.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline \
                            volumes"
                )],
            ),
            (
                &format!("{at}/nodeAffinity"),
                json!({"required": {"nodeSelectorTerms": [{}]}}),
                &[&format!("{path}.nodeAffinity: Forbidden: {not_here}")],
            ),
        ],
    );
    let spec = json!({"attacher": "d.example.com", "nodeName": "m", "source": {"persistentVolumeName": "v"}});
    changes(
        &VOLUME_ATTACHMENT,
        &base,
        &[("/spec/nodeName", json!("m"), &[&format!("spec: Invalid value: {spec}: {IMMUTABLE}")])],
    );
    statuses(
        &VOLUME_ATTACHMENT,
        "status",
        &base,
        &[
            ("/status/attached", json!(true), &[]),
            (
                "/status/detachError",
                json!({"message": "m".repeat(1025)}),
                &["status.detachError.message: Too long: may not be more than 1024 bytes"],
            ),
        ],
    );
}
