use gantry_kube::Object;
use serde_json::{Value, json};

use super::set;

pub(super) fn prepare_create(new: &mut Object) {
    set(new, "status", json!({"loadBalancer": {}}));
    normalize(new);
}

pub(super) fn prepare_update(new: &mut Object, old: &Object) {
    patch_allocated(new, old);
    drop_unwanted(new, old);
    normalize(new);
}

/// What the old type had and the new one does not goes, where the client left it as it was: it asked for another type.
fn drop_unwanted(new: &mut Object, old: &Object) {
    let kind = new.str_at("/spec/type").to_owned();
    if kind == old.str_at("/spec/type") {
        return;
    }
    let balancer = kind == "LoadBalancer";
    let reachable = balancer || kind == "NodePort" || !new.array_at("/spec/externalIPs").is_empty();
    let fields = [
        ("allocateLoadBalancerNodePorts", balancer),
        ("loadBalancerClass", balancer),
        ("loadBalancerSourceRanges", balancer),
        ("healthCheckNodePort", balancer),
        ("externalTrafficPolicy", reachable),
        ("externalName", kind == "ExternalName"),
    ];
    let nodes = wants_node_ports(new);
    let given: Vec<i64> = old.array_at("/spec/ports").iter().filter_map(|port| port["nodePort"].as_i64()).collect();
    let spec = new.map_mut("spec");
    for (field, wanted) in fields {
        if !wanted && spec.get(field) == old.get(&format!("/spec/{field}")) {
            spec.remove(field);
        }
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["nodePort"].as_i64();
        if !nodes && !balancer && number.is_some_and(|number| given.contains(&number)) {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
}

/// True where a Service of this shape owns a cluster address.
pub fn wants_cluster_ip(service: &Object) -> bool {
    service.str_at("/spec/type") != "ExternalName" && service.str_at("/spec/clusterIP") != "None"
}

pub fn wants_node_ports(service: &Object) -> bool {
    match service.str_at("/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at("/spec/allocateLoadBalancerNodePorts") != Some(false),
        _ => false,
    }
}

/// clusterIP and clusterIPs say the same; what a type does not have goes.
fn normalize(service: &mut Object) {
    let kind = service.str_at("/spec/type").to_owned();
    let ip = service.str_at("/spec/clusterIP").to_owned();
    let first = service.str_at("/spec/clusterIPs/0").to_owned();
    let spec = service.map_mut("spec");
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(field);
        }
    } else {
        let ip = if ip.is_empty() { first } else { ip };
        if !ip.is_empty() {
            spec.insert("clusterIPs".to_owned(), json!([ip]));
            spec.insert("clusterIP".to_owned(), json!(ip));
        }
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
        spec.entry("internalTrafficPolicy").or_insert_with(|| json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        spec.entry("externalTrafficPolicy").or_insert_with(|| json!("Cluster"));
    }
}

/// Carries what was allocated over into an update that leaves it out: clients replace Services without reading them.
pub fn patch_allocated(new: &mut Object, old: &Object) {
    // A headless Service stays one.
    let had = old.str_at("/spec/type") != "ExternalName";
    if wants_cluster_ip(new) && had && new.str_at("/spec/clusterIP").is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(&format!("/spec/{field}")).cloned() {
                new.map_mut("spec").insert(field.to_owned(), value);
            }
        }
    }
    if !(wants_node_ports(new) && wants_node_ports(old)) {
        return;
    }
    let allocated: Vec<Value> = old.array_at("/spec/ports").to_vec();
    for port in new.map_mut("spec").get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let same = allocated.iter().find(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]);
        if let Some(node_port) = same.map(|o| &o["nodePort"]).filter(|p| p.is_number()) {
            port["nodePort"] = node_port.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allocated_is_carried_over() {
        let old = Object::from_value(json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}}))
        .unwrap();
        let mut new = Object::from_value(json!({"metadata": {}, "spec": {"type": "NodePort",
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}}))
        .unwrap();
        prepare_update(&mut new, &old);
        assert_eq!(new.str_at("/spec/clusterIP"), "10.0.0.1");
        assert_eq!(new.i64_at("/spec/ports/0/nodePort"), Some(30001));
        assert_eq!(new.i64_at("/spec/ports/1/nodePort"), None);
        new.map_mut("spec").insert("type".into(), json!("ClusterIP"));
        new.map_mut("spec").insert("externalTrafficPolicy".into(), json!("Local"));
        prepare_update(&mut new, &old);
        assert_eq!(new.i64_at("/spec/ports/0/nodePort"), None);
        // What the client itself asks for is left to validation.
        assert_eq!(new.str_at("/spec/externalTrafficPolicy"), "Local");
    }
}
