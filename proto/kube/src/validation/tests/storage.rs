use super::*;

fn affinity() -> Value {
    json!({"required": {"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}})
}

#[test]
fn claims() {
    let base = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let modes = "supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    refuses(
        &PERSISTENT_VOLUME_CLAIM,
        &base,
        &[
            ("/spec/accessModes", json!([]), &["spec.accessModes: Required value: at least 1 access mode is required"]),
            (
                "/spec/accessModes",
                json!(["ReadWriteTwice"]),
                &[&format!("spec.accessModes: Unsupported value: \"ReadWriteTwice\": {modes}")],
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOnce", "ReadWriteOncePod"]),
                &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            ("/spec/resources", Value::Null, &["spec.resources[storage]: Required value"]),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                "/spec/volumeMode",
                json!("Tape"),
                &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
            ),
            ("/spec/dataSource", json!({"kind": "X", "name": ""}), &["spec.dataSource.name: Required value"]),
        ],
    );
    let made = prepared(&PERSISTENT_VOLUME_CLAIM, &with(&base, "/spec/storageClassName", json!("No Name")));
    let found = words(create(&PERSISTENT_VOLUME_CLAIM, &made));
    assert!(found[0].starts_with("spec.storageClassName: Invalid value: \"No Name\""), "{found:?}");
    accepts(
        &PERSISTENT_VOLUME_CLAIM,
        &base,
        &[("/spec/storageClassName", json!("")), ("/spec/selector", json!({"matchLabels": {"a": "b"}}))],
    );
}

#[test]
fn what_a_claim_asks_for_stays() {
    let kept = "spec: Forbidden: spec is immutable after creation except resources.requests and \
                volumeAttributesClassName for bound claims";
    let claim = |status: Value| {
        json!({"metadata": {"name": "a", "namespace": "n"}, "status": status, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}})
    };
    let waiting = claim(json!({"phase": "Pending"}));
    changes(
        &PERSISTENT_VOLUME_CLAIM,
        &waiting,
        &[
            ("/spec/volumeName", json!("v"), &[]),
            ("/spec/storageClassName", json!("c"), &[]),
            ("/spec/accessModes", json!(["ReadWriteMany"]), &[kept]),
            ("/spec/resources/requests/storage", json!("3Gi"), &[kept]),
        ],
    );
    let mut bound = claim(json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}));
    bound["spec"]["volumeName"] = json!("v");
    bound["spec"]["storageClassName"] = json!("c");
    changes(
        &PERSISTENT_VOLUME_CLAIM,
        &bound,
        &[
            ("/spec/resources/requests/storage", json!("3Gi"), &[]),
            (
                "/spec/resources/requests/storage",
                json!("1Gi"),
                &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
            ),
            ("/spec/volumeName", json!("w"), &[kept]),
            ("/spec/storageClassName", json!("d"), &[kept]),
        ],
    );
}

/// The containers of a StatefulSet mount what its claims will be.
#[test]
fn members_mount_their_claims() {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let container = json!({"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let base = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
        "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}});
    refuses(
        &STATEFUL_SET,
        &base,
        &[
            (
                "/spec/volumeClaimTemplates/0/metadata/name",
                json!("other"),
                &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
            ),
            (
                "/spec/volumeClaimTemplates/0/metadata",
                json!({}),
                &[
                    "spec.volumeClaimTemplates[0].metadata.name: Required value",
                    "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
                ],
            ),
        ],
    );
}

#[test]
fn volumes() {
    let base = json!({"metadata": {"name": "a"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}});
    refuses(
        &PERSISTENT_VOLUME,
        &base,
        &[
            ("/spec/accessModes", Value::Null, &["spec.accessModes: Required value"]),
            ("/spec/capacity", Value::Null, &["spec.capacity: Required value"]),
            (
                "/spec/capacity",
                json!({"cpu": "1"}),
                &["spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\""],
            ),
            (
                "/spec/capacity/storage",
                json!("-1"),
                &["spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero"],
            ),
            ("/spec/hostPath", Value::Null, &["spec: Required value: must specify a volume type"]),
            (
                "/spec/hostPath/path",
                json!("/a/../b"),
                &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/p"}),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec",
                json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": "/d"}}),
                &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                "/spec/nodeAffinity",
                json!({}),
                &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
            ),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("Burn"),
                &[
                    "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                ],
            ),
            (
                "",
                json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"},
                    "hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}}),
                &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
            ),
        ],
    );
    changes(
        &PERSISTENT_VOLUME,
        &base,
        &[
            (
                "/spec/hostPath/path",
                json!("/other"),
                &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
            ),
            ("/spec/volumeMode", json!("Block"), &["volumeMode: Invalid value: \"Block\": field is immutable"]),
            ("/spec/persistentVolumeReclaimPolicy", json!("Delete"), &[]),
            ("/spec/capacity/storage", json!("2Gi"), &[]),
            ("/spec/nodeAffinity", affinity(), &[]),
        ],
    );
    let placed = prepared(&PERSISTENT_VOLUME, &with(&base, "/spec/nodeAffinity", affinity()));
    let found = words(update(&PERSISTENT_VOLUME, &prepared(&PERSISTENT_VOLUME, &base), &placed));
    assert_eq!(found, ["nodeAffinity: Invalid value: null: field is immutable"]);
}

#[test]
fn classes() {
    let base = json!({"metadata": {"name": "a"}, "provisioner": "example.com/disk", "parameters": {"x": "y"}});
    refuses(
        &STORAGE_CLASS,
        &base,
        &[
            ("/provisioner", json!(""), &["provisioner: Required value"]),
            (
                "/reclaimPolicy",
                json!("Recycle"),
                &["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                "/volumeBindingMode",
                json!("Later"),
                &[
                    "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
        ],
    );
    changes(
        &STORAGE_CLASS,
        &base,
        &[
            ("/provisioner", json!("other"), &["provisioner: Forbidden: updates to provisioner are forbidden."]),
            ("/parameters", json!({}), &["parameters: Forbidden: updates to parameters are forbidden."]),
            ("/reclaimPolicy", json!("Retain"), &["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."]),
            (
                "/volumeBindingMode",
                json!("WaitForFirstConsumer"),
                &["volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
            ),
            ("/allowVolumeExpansion", json!(true), &[]),
        ],
    );
}
