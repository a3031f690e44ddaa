use serde_json::json;

use super::*;
use crate::pod::want::{Goal, Wanted};

fn pod(spec: Value) -> Object {
    Object::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

fn image() -> ImageFacts {
    ImageFacts { image_ref: "sha256:1".into(), uid: Some(0), username: String::new(), size_bytes: 1 }
}

fn make(pod: &Object, variables: Vec<(String, String)>) -> Result<ContainerConfig, SpecError> {
    let wanted = Wanted::from_object(pod, Goal::Run);
    let spec = &pod.array_at("/spec/containers")[0];
    let image = image();
    let given = Given {
        attempt: 2,
        image: &image,
        variables,
        mounts: Vec::new(),
        node_memory_bytes: 1 << 30,
        cgroup_v2: true,
        target_id: None,
    };
    container(pod, spec, &wanted.containers[0], given)
}

#[test]
fn a_sandbox_lies_under_its_class_and_publishes_host_ports_only() {
    let one = pod(json!({"containers": [{"name": "c", "ports": [
        {"containerPort": 80}, {"containerPort": 81, "hostPort": 8081, "protocol": "UDP"}]}]}));
    let config = sandbox(&one, 3, "h".into(), DnsConfig::default(), "/gantry", "/var/log/pods", 99);
    let linux = config.linux.unwrap();
    assert_eq!(linux.cgroup_parent, "/gantry/besteffort/podu");
    assert_eq!(config.log_directory, "/var/log/pods/ns_p_u");
    assert_eq!(config.port_mappings.len(), 1);
    assert_eq!(config.port_mappings[0].host_port, 8081);
    let resources = linux.resources.unwrap();
    assert_eq!((resources.cpu_shares, resources.unified["pids.max"].as_str()), (2, "99"));
}

#[test]
fn a_pods_cgroup_is_limited_where_every_container_is() {
    let container = |limits: Value| json!({"name": "c", "resources": {"requests": {"cpu": "100m"}, "limits": limits}});
    let both = json!({"cpu": "200m", "memory": "1Mi"});
    let cases = [
        (json!({"containers": [container(both.clone()), container(both.clone())]}), (204, 40_000, 2 << 20)),
        (json!({"containers": [container(both.clone()), container(json!({"cpu": "50m"}))]}), (204, 25_000, 0)),
        (json!({"containers": [container(both.clone()), container(json!({"cpu": "0", "memory": "0"}))]}), (204, 0, 0)),
        (json!({"containers": [container(both.clone())], "initContainers": [container(json!({}))]}), (102, 0, 0)),
        (json!({"containers": [container(json!({}))], "resources": {"limits": both}}), (102, 20_000, 1 << 20)),
        (json!({"containers": [{"name": "c"}]}), (2, 0, 0)),
    ];
    for (spec, expected) in cases {
        let config = sandbox(&pod(spec.clone()), 0, "h".into(), DnsConfig::default(), "/gantry", "/var/log/pods", 99);
        let r = config.linux.unwrap().resources.unwrap();
        assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes), expected, "{spec}");
    }
}

#[test]
fn commands_are_expanded_and_the_log_is_the_attempts() {
    let one = pod(json!({"containers": [{"name": "c", "image": "i", "command": ["$(A)", "$$(A)"]}]}));
    let config = make(&one, vec![("A".into(), "x".into())]).unwrap();
    assert_eq!(config.command, ["x", "$(A)"]);
    assert_eq!(config.log_path, "c/2.log");
    assert_eq!(config.linux.unwrap().resources.unwrap().unified["memory.oom.group"], "1");
    assert_eq!(config.image.unwrap().user_specified_image, "i");
}

#[test]
fn root_is_refused_where_the_pod_says_so() {
    let one = pod(json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "image": "i"}]}));
    assert!(matches!(make(&one, Vec::new()), Err(SpecError::ImageRunsAsRoot { .. })));
    let other = pod(json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 7}, "containers": [{"name": "c"}]}));
    let security = make(&other, Vec::new()).unwrap().linux.unwrap().security_context.unwrap();
    assert_eq!(security.run_as_user.as_ref().unwrap().value, 7);
    assert_eq!(security.supplemental_groups_policy(), SupplementalGroupsPolicy::Merge);
    let strict = pod(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}, "containers": [{"name": "c"}]}));
    let security = make(&strict, Vec::new()).unwrap().linux.unwrap().security_context.unwrap();
    assert_eq!(security.supplemental_groups_policy(), SupplementalGroupsPolicy::Strict);
}

#[test]
fn a_sandbox_is_told_what_it_takes() {
    let told = |spec: Value| {
        let dns = gantry_cri::v1::DnsConfig::default();
        super::sandbox(&pod(spec), 0, String::new(), dns, "/gantry", "/logs", 10).linux.unwrap()
    };
    assert_eq!(told(json!({"containers": []})).overhead, None);
    let limited = json!({"name": "c", "resources": {"limits": {"memory": "1Mi"}}});
    let linux = told(json!({"containers": [limited], "overhead": {"cpu": "500m", "memory": "2Mi"}}));
    let overhead = linux.overhead.unwrap();
    assert_eq!((overhead.cpu_shares, overhead.memory_limit_in_bytes), (512, 2 << 20));
    assert_eq!(linux.resources.unwrap().memory_limit_in_bytes, 3 << 20, "the pod has room for both");
}

#[test]
fn what_would_not_be_done_is_refused_by_name() {
    let plain = Object::from_value(serde_json::json!({"spec": {}})).unwrap();
    let none = serde_json::json!({"name": "c"});
    assert!(super::refuse_unsupported(&plain, &none, "c").is_ok());
    for (field, value) in [("resourceClaims", json!([{"name": "gpu"}])), ("resources", json!({"limits": {"cpu": "1"}}))]
    {
        let value: serde_json::Value = value;
        let pod = Object::from_value(serde_json::json!({"spec": {field: value}})).unwrap();
        let refusal = super::refuse_unsupported(&pod, &none, "c").unwrap_err().to_string();
        assert!(refusal.contains(field), "{refusal}");
    }
}

#[test]
fn what_a_container_asks_for_in_vain_is_refused_by_name() {
    let refusal = |spec: Value, init: bool| {
        let list = if init { "initContainers" } else { "containers" };
        let one = pod(json!({list: [spec.clone()]}));
        super::refuse_unsupported(&one, &spec, "c").err().map(|error| error.to_string())
    };
    let port = |ip: &str| json!({"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]});
    for (spec, word) in [
        (json!({"name": "c", "resources": {"claims": [{"name": "gpu"}]}}), "resources.claims"),
        (port("::1"), "ports.hostIP: ::1"),
    ] {
        assert!(refusal(spec, false).unwrap().contains(word), "{word}");
    }
    assert_eq!((refusal(port("192.0.2.1"), false), refusal(port(""), false)), (None, None));
}

#[test]
fn what_is_read_only_may_be_so_all_the_way_down() {
    let recursive = |mount: Value, readonly| super::bind("/v", "/h".into(), readonly, &mount).recursive_read_only;
    for mode in ["Enabled", "IfPossible"] {
        assert!(recursive(json!({"recursiveReadOnly": mode}), true), "{mode}");
        assert!(!recursive(json!({"recursiveReadOnly": mode}), false), "{mode}");
    }
    assert!(!recursive(json!({"recursiveReadOnly": "Disabled"}), true) && !recursive(json!({}), true));
}

#[test]
fn a_proc_of_its_own_users_may_show_everything() {
    let with = |spec: Value| make(&pod(spec), Vec::new());
    let container = |mount: &str| json!([{"name": "c", "image": "i", "securityContext": {"procMount": mount}}]);
    let paths = |config: ContainerConfig| {
        let security = config.linux.unwrap().security_context.unwrap();
        (security.masked_paths.len(), security.readonly_paths.len())
    };
    let own = with(json!({"hostUsers": false, "containers": container("Unmasked")})).unwrap();
    assert_eq!(paths(own), (0, 0));
    let masked = with(json!({"hostUsers": false, "containers": container("Default")})).unwrap();
    assert_eq!(paths(masked), (12, 5));
    for host in
        [json!({"containers": container("Unmasked")}), json!({"hostUsers": true, "containers": container("Unmasked")})]
    {
        let error = with(host).unwrap_err().to_string();
        assert!(error.contains("procMount: Unmasked with the host's users"), "{error}");
    }
}
