use gantry_kube::Object;
use serde_json::{Value, json};

use super::set;

pub(super) fn prepare_create(new: &mut Object) {
    set(new, "status", json!({"loadBalancer": {}}));
    normalize(new);
}

pub(super) fn prepare_update(new: &mut Object, old: &Object) {
    patch_allocated(new, old);
    normalize(new);
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
    let ports = wants_node_ports(service);
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
    if !ports && kind != "LoadBalancer" {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
}

/// Carries what was allocated over into an update that leaves it out: clients replace Services without reading them.
pub fn patch_allocated(new: &mut Object, old: &Object) {
    if wants_cluster_ip(new) && wants_cluster_ip(old) && new.str_at("/spec/clusterIP").is_empty() {
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
        prepare_update(&mut new, &old);
        assert_eq!(new.i64_at("/spec/ports/0/nodePort"), None);
    }
}
