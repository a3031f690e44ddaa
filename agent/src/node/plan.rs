use gantry_kube::quantity::{Format, Quantity};
use gantry_kube::{Object, storage};
use serde_json::{Value, json};

use super::NodeConfig;
use super::facts::Facts;
use crate::eviction::Pressure;
use crate::shutdown::NOT_READY;

/// The Node as it is first written; control gives it a pod range and takes its taint away once it is ready.
pub fn registration(config: &NodeConfig, facts: &Facts, now: &str) -> Object {
    let mut labels = json!({
        "kubernetes.io/hostname": facts.hostname, "kubernetes.io/os": "linux", "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": facts.architecture,
    });
    for (key, value) in &config.labels {
        labels[key] = json!(value);
    }
    let mut status = status(config, facts);
    status["conditions"] = json!(conditions(&[], facts, now));
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.name, "labels": labels, "annotations": {
            "node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            storage::LOCAL_PATH_ROOT: config.volumes_dir,
        }},
        "spec": {}, "status": status,
    }))
    .unwrap_or_default()
}

/// Everything of the status but its conditions.
fn status(config: &NodeConfig, facts: &Facts) -> Value {
    let quantities = |cpu_milli: i64, memory: i64| {
        let mut list = json!({
            "cpu": Quantity::from_milli(cpu_milli).to_string(), "memory": bytes(memory),
            "pods": config.max_pods.to_string(), "ephemeral-storage": bytes(facts.storage_bytes),
        });
        for (size, total) in &facts.huge_pages {
            list[format!("hugepages-{}", Quantity::from_i64(*size, Format::BinarySi))] = json!(bytes(*total));
        }
        list
    };
    // Pages that are set aside can be used for nothing else.
    let set_aside: i64 = facts.huge_pages.values().sum();
    let images = facts.images.iter().map(|i| json!({"names": i.names, "sizeBytes": i.size_bytes}));
    let handlers = facts.handlers.iter().map(|handler| {
        json!({"name": handler.name, "features": {
            "recursiveReadOnlyMounts": handler.recursive_read_only_mounts, "userNamespaces": handler.user_namespaces,
        }})
    });
    json!({
        "addresses": [
            {"type": "InternalIP", "address": config.ip.to_string()},
            {"type": "Hostname", "address": facts.hostname},
        ],
        "capacity": quantities(facts.cpus * 1000, facts.memory_bytes),
        "allocatable": quantities(
            (facts.cpus * 1000 - config.reserved_cpu_milli).max(0),
            (facts.memory_bytes - set_aside - config.reserved_memory_bytes).max(0),
        ),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": {
            "machineID": facts.machine_id, "systemUUID": facts.system_uuid, "bootID": facts.boot_id,
            "kernelVersion": facts.kernel, "osImage": facts.os_image, "operatingSystem": "linux",
            "architecture": facts.architecture, "containerRuntimeVersion": facts.runtime_version,
            "kubeletVersion": config.kubelet_version, "kubeProxyVersion": "",
            "swap": {"capacity": facts.swap_bytes},
        },
        "features": {"supplementalGroupsPolicy": facts.supplemental_groups_policy},
        "runtimeHandlers": handlers.collect::<Vec<_>>(),
        "images": images.collect::<Vec<_>>(),
    })
}

/// Whole KiB, in the form in which the API gives them back.
fn bytes(count: i64) -> String {
    Quantity::from_i64(count & !1023, Format::BinarySi).to_string()
}

/// The conditions; one that says what it said keeps the time at which it began to.
fn conditions(old: &[Value], facts: &Facts, now: &str) -> Vec<Value> {
    let why = [facts.runtime.as_ref().err(), facts.network.as_ref().err()].into_iter().flatten().map(String::as_str);
    let why: Vec<&str> = why.chain(facts.shutting_down.then_some(NOT_READY)).collect();
    let ready = match why.as_slice() {
        [] => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        [one] => ("Ready", false, "KubeletNotReady", (*one).to_owned()),
        // As the kubelet lists them.
        all => ("Ready", false, "KubeletNotReady", format!("[{}]", all.join(", "))),
    };
    let pressure = |kind, under, has: (&'static str, &str), hasnt: (&'static str, &str)| {
        let (reason, words) = if under { has } else { hasnt };
        (kind, under, reason, words.to_owned())
    };
    let all = [
        pressure(
            "MemoryPressure",
            facts.pressures.contains(&Pressure::Memory),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            facts.pressures.contains(&Pressure::Disk),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            facts.pressures.contains(&Pressure::Pids),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ];
    let condition = |(kind, holds, reason, message): (&str, bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|c| c["type"] == kind && c["status"] == status);
        let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": since})
    };
    all.into_iter().map(condition).collect()
}

/// What to write; `None` where the API says the same and no report is due.
pub fn status_patch(config: &NodeConfig, node: &Object, facts: &Facts, now: &str, due: bool) -> Option<Value> {
    let old = node.array_at("/status/conditions");
    let new = conditions(old, facts, now);
    let status = status(config, facts);
    let says = |list: &[Value], kind: &Value| {
        let found = list.iter().find(|c| c["type"] == *kind);
        found.map(|c| (c["status"].clone(), c["reason"].clone(), c["message"].clone()))
    };
    let same = new.iter().all(|c| says(old, &c["type"]) == says(&new, &c["type"]))
        && status.as_object()?.iter().all(|(key, value)| node.get(&format!("/status/{key}")) == Some(value));
    if same && !due {
        return None;
    }
    let mut status = status;
    status["conditions"] = json!(new);
    Some(json!({"status": status}))
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Handler, Image};
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig {
            name: "n".into(),
            ip: "192.0.2.1".parse().unwrap(),
            kubelet_port: 10250,
            kubelet_version: "v1.36.0".into(),
            max_pods: 110,
            labels: vec![("rack".into(), "7".into())],
            reserved_cpu_milli: 100,
            reserved_memory_bytes: 0,
            data_dir: "/".into(),
            volumes_dir: "/volumes".into(),
        }
    }

    fn facts() -> Facts {
        Facts {
            cpus: 2,
            memory_bytes: 1 << 30,
            huge_pages: [(2 << 20, 4 << 20)].into(),
            images: vec![Image { names: vec!["i:1".into()], size_bytes: 7 }],
            handlers: vec![Handler { recursive_read_only_mounts: true, ..Handler::default() }],
            supplemental_groups_policy: true,
            ..Facts::read(std::path::Path::new("/"))
        }
    }

    #[test]
    fn a_registered_node_says_what_it_has() {
        let node = registration(&config(), &facts(), "2026-01-01T00:00:00Z");
        assert_eq!(node.label("rack"), Some("7"));
        assert_eq!(node.annotation(storage::LOCAL_PATH_ROOT), Some("/volumes"));
        assert_eq!(node.str_at("/status/capacity/cpu"), "2");
        assert_eq!(node.str_at("/status/allocatable/cpu"), "1900m");
        assert_eq!(node.str_at("/status/addresses/0/address"), "192.0.2.1");
        assert_eq!(node.str_at("/status/capacity/memory"), "1Gi");
        assert_eq!(node.str_at("/status/capacity/hugepages-2Mi"), "4Mi");
        assert_eq!(node.str_at("/status/allocatable/memory"), "1020Mi");
        assert_eq!(node.get("/status/images"), Some(&json!([{"names": ["i:1"], "sizeBytes": 7}])));
        let features = json!({"recursiveReadOnlyMounts": true, "userNamespaces": false});
        assert_eq!(node.get("/status/runtimeHandlers"), Some(&json!([{"name": "", "features": features}])));
        assert_eq!(node.get("/status/features"), Some(&json!({"supplementalGroupsPolicy": true})));
    }

    #[test]
    fn nothing_is_written_until_something_changes_or_is_due() {
        let node = registration(&config(), &facts(), "2026-01-01T00:00:00Z");
        let later = "2026-01-01T00:01:00Z";
        assert_eq!(status_patch(&config(), &node, &facts(), later, false), None);
        assert!(status_patch(&config(), &node, &facts(), later, true).is_some());
        let mut broken = facts();
        broken.network = Err("NetworkPluginNotReady: no pod range".into());
        let patch = status_patch(&config(), &node, &broken, later, false).unwrap();
        let ready = &patch["status"]["conditions"][3];
        assert_eq!((&ready["status"], &ready["lastTransitionTime"]), (&json!("False"), &json!(later)));
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_node_that_goes_down_says_so_with_whatever_else_it_lacks() {
        let node = registration(&config(), &facts(), "2026-01-01T00:00:00Z");
        let ready = |facts: &Facts| {
            let patch = status_patch(&config(), &node, facts, "2026-01-01T00:01:00Z", false).unwrap();
            let ready = patch["status"]["conditions"][3].clone();
            [&ready["status"], &ready["reason"], &ready["message"]].map(|v| v.as_str().unwrap().to_owned())
        };
        let mut going = Facts { shutting_down: true, ..facts() };
        assert_eq!(ready(&going), ["False", "KubeletNotReady", "node is shutting down"]);
        going.network = Err("no pod range".into());
        assert_eq!(ready(&going)[2], "[no pod range, node is shutting down]");
    }
}
