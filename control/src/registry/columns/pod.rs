//! A Pod's row: what the containers are doing, condensed to one word.

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, name, or_none, since};

/// What the walk over the container statuses gathers.
#[derive(Default)]
struct Summary {
    ready: usize,
    restarts: i64,
    last_restart: String,
    status: String,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let finished = container["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or("");
        // RFC 3339 in UTC sorts as text.
        if finished > self.last_restart.as_str() {
            finished.clone_into(&mut self.last_restart);
        }
    }
}

pub(super) fn cells(pod: &Object, now: Timestamp) -> Vec<Value> {
    let sidecars: Vec<&str> = pod
        .array_at("/spec/initContainers")
        .iter()
        .filter(|c| c["restartPolicy"] == "Always")
        .filter_map(|c| c["name"].as_str())
        .collect();
    let total = pod.array_at("/spec/containers").len() + sidecars.len();
    let summary = summarise(pod, &sidecars);
    let restarts = match summary.restarts {
        0 => "0".to_owned(),
        n if summary.last_restart.is_empty() => n.to_string(),
        n => format!("{n} ({} ago)", since(&summary.last_restart, now)),
    };
    let ip = match pod.array_at("/status/podIPs").first().and_then(|ip| ip["ip"].as_str()) {
        Some(ip) => ip.to_owned(),
        None => pod.str_at("/status/podIP").to_owned(),
    };
    vec![
        name(pod),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.status),
        json!(restarts),
        age(pod, now),
        or_none(ip),
        or_none(pod.str_at("/spec/nodeName").to_owned()),
        or_none(pod.str_at("/status/nominatedNodeName").to_owned()),
        readiness_gates(pod),
    ]
}

fn summarise(pod: &Object, sidecars: &[&str]) -> Summary {
    let phase = pod.str_at("/status/phase");
    let own_reason = pod.str_at("/status/reason");
    let status = if own_reason.is_empty() { phase.to_owned() } else { own_reason.to_owned() };
    let mut summary = Summary { status, ..Summary::default() };
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        summary.status = "SchedulingGated".to_owned();
    }
    let sidecar_restarts = init_containers(pod, sidecars, &mut summary);
    let initializing = summary.status.starts_with("Init:");
    if !initializing || condition(pod, "Initialized").is_some_and(|c| c["status"] == "True") {
        (summary.restarts, summary.last_restart) = sidecar_restarts;
        containers(pod, &mut summary);
    }
    if pod.deletion_timestamp().is_some() {
        if own_reason == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers to the first that is not done. Returns the restarts of sidecars alone.
fn init_containers(pod: &Object, sidecars: &[&str], summary: &mut Summary) -> (i64, String) {
    let mut of_sidecars = Summary::default();
    let count = pod.array_at("/spec/initContainers").len();
    for (i, container) in pod.array_at("/status/initContainerStatuses").iter().enumerate() {
        summary.count_restarts(container);
        let sidecar = sidecars.contains(&container["name"].as_str().unwrap_or(""));
        if sidecar {
            of_sidecars.count_restarts(container);
        }
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated["exitCode"] == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waits = waiting["reason"].as_str().unwrap_or("");
        summary.status = if terminated.is_object() {
            format!("Init:{}", end_reason(terminated))
        } else if !waits.is_empty() && waits != "PodInitializing" {
            format!("Init:{waits}")
        } else {
            format!("Init:{i}/{count}")
        };
        break;
    }
    (of_sidecars.restarts, of_sidecars.last_restart)
}

fn containers(pod: &Object, summary: &mut Summary) {
    let mut running = false;
    for container in pod.array_at("/status/containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        match waiting["reason"].as_str() {
            Some(reason) if !reason.is_empty() => summary.status = reason.to_owned(),
            _ if terminated.is_object() => summary.status = end_reason(terminated),
            _ if container["ready"] == true && container["state"]["running"].is_object() => {
                running = true;
                summary.ready += 1;
            }
            _ => {}
        }
    }
    if summary.status == "Completed" && running {
        let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        summary.status = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn end_reason(terminated: &Value) -> String {
    match terminated["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => match terminated["signal"].as_i64() {
            Some(signal) if signal != 0 => format!("Signal:{signal}"),
            _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        },
    }
}

fn condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a Value> {
    pod.array_at("/status/conditions").iter().find(|c| c["type"] == kind)
}

fn readiness_gates(pod: &Object) -> Value {
    let gates = pod.array_at("/spec/readinessGates");
    if gates.is_empty() {
        return json!("<none>");
    }
    let passed = gates
        .iter()
        .filter(|gate| {
            condition(pod, gate["conditionType"].as_str().unwrap_or("")).is_some_and(|c| c["status"] == "True")
        })
        .count();
    json!(format!("{passed}/{}", gates.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: Value, extra: Value) -> Vec<Value> {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}]}, "status": status});
        json_patch::merge(&mut pod, &extra);
        cells(&Object::from_value(pod).unwrap(), "2026-01-01T00:00:10Z".parse().unwrap())
    }

    #[test]
    fn a_crash_loop_with_its_last_restart() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:05Z"}}}]});
        let cells = row(status, json!({}));
        assert_eq!(cells[1..4], [json!("0/1"), json!("CrashLoopBackOff"), json!("3 (5s ago)")]);
    }

    #[test]
    fn init_containers_come_first() {
        let waiting = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}]});
        assert_eq!(row(waiting, json!({}))[2], "Init:0/1");
        let failed = json!({"phase": "Pending",
            "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]});
        assert_eq!(row(failed, json!({}))[2], "Init:ExitCode:2");
    }

    #[test]
    fn ends_and_deletions() {
        let done = json!({"phase": "Succeeded",
            "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
        assert_eq!(row(done, json!({}))[2], "Completed");
        let running = json!({"phase": "Running",
            "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]});
        assert_eq!(row(running.clone(), json!({}))[1..3], [json!("1/1"), json!("Running")]);
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(row(running, leaving)[2], "Terminating");
    }
}
