//! Whether a pod may run here: it fits what is left of the node, and the node is one that it wants. Pure.

use gantry_kube::Object;
use gantry_kube::pod::qos::{self, QosClass};
use gantry_kube::pod::resources::{Amounts, requests};
use serde_json::{Map, Value};

use crate::eviction::rank::CRITICAL_PRIORITY;
use crate::eviction::{EVICTED, Pressure, Pressures};
use crate::shared::NodeFacts;

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Why a pod is failed instead of run: its status's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

fn reject(reason: impl Into<String>, why: impl std::fmt::Display) -> Rejection {
    Rejection { reason: reason.into(), message: format!("Pod was rejected: {why}") }
}

/// Of a pod that comes when the node's shutdown has begun.
pub const NODE_SHUTDOWN: &str = "NodeShutdown";

pub fn going_down(is_shutting_down: bool) -> Result<(), Rejection> {
    if is_shutting_down {
        return Err(reject(NODE_SHUTDOWN, "Pod was rejected as the node is shutting down."));
    }
    Ok(())
}

/// `others` are the pods that the node has already taken and that have not ended.
pub fn admit(
    pod: &Object,
    others: &[&Object],
    node: &NodeFacts,
    node_name: &str,
    max_pods: i64,
) -> Result<(), Rejection> {
    fits(pod, others, &node.allocatable, max_pods)?;
    if !matches_node(pod, &node.labels, node_name) {
        let why = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(reject("NodeAffinity", why));
    }
    host_ports(pod, others)
}

/// A node that runs short takes nothing but what keeps the cluster going; of memory alone, all but who asks for none.
pub fn under_pressure(pod: &Object, pressures: &Pressures) -> Result<(), Rejection> {
    let critical = pod.i64_at("/spec/priority").is_some_and(|p| p >= CRITICAL_PRIORITY);
    if pressures.is_empty() || critical {
        return Ok(());
    }
    if pressures.iter().all(|pressure| *pressure == Pressure::Memory) {
        let tolerates = |t: &Value| {
            (t["key"] == MEMORY_TAINT || t["key"].as_str().unwrap_or("").is_empty() && t["operator"] == "Exists")
                && matches!(t["effect"].as_str(), None | Some("" | "NoSchedule"))
        };
        if qos::class(pod) != QosClass::BestEffort || pod.array_at("/spec/tolerations").iter().any(tolerates) {
            return Ok(());
        }
    }
    let names: Vec<&str> = pressures.iter().map(|pressure| pressure.condition()).collect();
    Err(reject(EVICTED, format!("The node had condition: [{}]. ", names.join(" "))))
}

fn fits(pod: &Object, others: &[&Object], allocatable: &Amounts, max_pods: i64) -> Result<(), Rejection> {
    let short = |name: &str, asked: i64, used: i64, capacity: i64| {
        let why =
            format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}");
        reject(format!("OutOf{name}"), why)
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count >= max_pods {
        return Err(short("pods", 1, count, max_pods));
    }
    let mut used = Amounts::default();
    for other in others {
        used.add(&requests(other));
    }
    let asked = requests(pod);
    let checks = [
        ("cpu", asked.cpu_milli, used.cpu_milli, allocatable.cpu_milli),
        ("memory", asked.memory_bytes, used.memory_bytes, allocatable.memory_bytes),
        (
            "ephemeral-storage",
            asked.ephemeral_storage_bytes,
            used.ephemeral_storage_bytes,
            allocatable.ephemeral_storage_bytes,
        ),
    ];
    for (name, asked, used, capacity) in checks {
        if asked > 0 && used.saturating_add(asked) > capacity {
            return Err(short(name, asked, used, capacity));
        }
    }
    for (name, amount) in asked.other.iter().filter(|(_, amount)| **amount > 0) {
        let used = used.other.get(name).copied().unwrap_or(0);
        let capacity = allocatable.other.get(name).copied().unwrap_or(0);
        if used.saturating_add(*amount) > capacity {
            return Err(short(name, *amount, used, capacity));
        }
    }
    Ok(())
}

fn matches_node(pod: &Object, labels: &Map<String, Value>, node_name: &str) -> bool {
    // Labels are not known before the node is registered; the scheduler has looked at them.
    if labels.is_empty() {
        return true;
    }
    let selector = pod.get("/spec/nodeSelector").and_then(Value::as_object);
    if !selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = pod.get("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    let Some(terms) = required.and_then(|r| r["nodeSelectorTerms"].as_array()) else { return true };
    terms.iter().any(|term| {
        let list = |key: &str| term[key].as_array().map(Vec::as_slice).unwrap_or(&[]);
        let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
        (!expressions.is_empty() || !fields.is_empty())
            && expressions.iter().all(|e| holds(e, labels.get(e["key"].as_str().unwrap_or("")).and_then(Value::as_str)))
            && fields.iter().all(|e| holds(e, (e["key"] == "metadata.name").then_some(node_name)))
    })
}

fn holds(expression: &Value, value: Option<&str>) -> bool {
    let mut values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    match expression["operator"].as_str().unwrap_or("") {
        "In" => value.is_some_and(|v| values.any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(number(values.next())).is_some_and(|(v, bound)| v > bound),
        "Lt" => number(value).zip(number(values.next())).is_some_and(|(v, bound)| v < bound),
        _ => false,
    }
}

/// Two pods cannot have the same port of the host.
fn host_ports(pod: &Object, others: &[&Object]) -> Result<(), Rejection> {
    let taken: Vec<(String, i64, String)> = others.iter().flat_map(|other| ports_of(other)).collect();
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    for (protocol, port, ip) in ports_of(pod) {
        let clash = taken.iter().any(|(p, n, i)| *p == protocol && *n == port && (*i == ip || any(i) || any(&ip)));
        if clash {
            let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Err(reject("NodePorts", why));
        }
    }
    Ok(())
}

fn ports_of(pod: &Object) -> Vec<(String, i64, String)> {
    let containers = gantry_kube::pod::containers(pod).iter();
    let ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().filter(|n| *n > 0)?;
            let text = |key: &str| port[key].as_str().unwrap_or("").to_owned();
            let protocol = if text("protocol").is_empty() { "TCP".to_owned() } else { text("protocol") };
            Some((protocol, number, text("hostIP")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"spec": spec})).unwrap()
    }

    fn node() -> NodeFacts {
        NodeFacts {
            labels: json!({"disk": "ssd"}).as_object().unwrap().clone(),
            allocatable: Amounts { cpu_milli: 1000, memory_bytes: 1 << 30, ..Amounts::default() },
            ..NodeFacts::default()
        }
    }

    fn cpu(milli: &str) -> Object {
        pod(json!({"containers": [{"resources": {"requests": {"cpu": milli}}}]}))
    }

    fn reason(pod: &Object, others: &[&Object]) -> Option<String> {
        admit(pod, others, &node(), "n", 2).err().map(|r| r.reason)
    }

    #[test]
    fn what_does_not_fit_is_rejected_by_name() {
        assert_eq!(reason(&cpu("600m"), &[&cpu("400m")]), None);
        assert_eq!(reason(&cpu("601m"), &[&cpu("400m")]).as_deref(), Some("OutOfcpu"));
        assert_eq!(reason(&cpu("0"), &[&cpu("0"), &cpu("0")]).as_deref(), Some("OutOfpods"));
        let gpu = pod(json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}));
        assert_eq!(reason(&gpu, &[]).as_deref(), Some("OutOfexample.com/gpu"));
    }

    #[test]
    fn a_node_that_runs_short_takes_what_it_must() {
        let verdict = |spec: Value, pressures: &[Pressure]| {
            under_pressure(&pod(spec), &pressures.iter().copied().collect()).err().map(|r| r.message)
        };
        let (memory, disk) = ([Pressure::Memory], [Pressure::Disk, Pressure::Memory]);
        let careless = json!({"containers": [{"name": "c"}]});
        let careful = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerant =
            json!({"containers": [{"name": "c"}], "tolerations": [{"key": MEMORY_TAINT, "operator": "Exists"}]});
        let critical = json!({"priority": 2_000_000_000, "containers": [{"name": "c"}]});
        assert_eq!(verdict(careless.clone(), &[]), None);
        assert_eq!(
            verdict(careless, &memory).as_deref(),
            Some("Pod was rejected: The node had condition: [MemoryPressure]. ")
        );
        assert_eq!((verdict(careful.clone(), &memory), verdict(tolerant, &memory)), (None, None));
        assert_eq!(
            verdict(careful, &disk).as_deref(),
            Some("Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. ")
        );
        assert_eq!(verdict(critical, &disk), None);
    }

    #[test]
    fn selectors_affinity_and_host_ports() {
        assert_eq!(reason(&pod(json!({"nodeSelector": {"disk": "ssd"}})), &[]), None);
        assert_eq!(reason(&pod(json!({"nodeSelector": {"disk": "hdd"}})), &[]).as_deref(), Some("NodeAffinity"));
        let affinity = |operator: &str| {
            pod(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator, "values": ["ssd"]}]}]}}}}))
        };
        assert_eq!(reason(&affinity("In"), &[]), None);
        assert!(reason(&affinity("NotIn"), &[]).is_some());
        let port = pod(json!({"containers": [{"ports": [{"hostPort": 80}]}]}));
        assert_eq!(reason(&port, &[&port]).as_deref(), Some("NodePorts"));
    }
}
