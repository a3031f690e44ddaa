//! The phase and the conditions of a pod, from its spec and its containers' statuses.
//!
//! ```text
//!   Pending ──all containers have run──▶ Running ──every one ended──▶ Succeeded | Failed
//! ```
//! A pod whose containers will be restarted stays Running.

use serde_json::{Value, json};

use super::restart::Restart;
use super::{containers, init_containers, is_sidecar};
use crate::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Unknown => "Unknown",
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

fn status_of<'a>(statuses: &'a [Value], container: &Value) -> Option<&'a Value> {
    statuses.iter().find(|status| status["name"] == container["name"])
}

/// The phase that `statuses` (of containers) and `init_statuses` amount to.
pub fn phase(pod: &Object, statuses: &[Value], init_statuses: &[Value]) -> Phase {
    let (mut init_waiting, mut init_failed) = (false, false);
    for init in init_containers(pod) {
        let Some(status) = status_of(init_statuses, init) else {
            init_waiting = true;
            continue;
        };
        if is_sidecar(init) {
            init_waiting |= status["started"] != true;
            continue;
        }
        let ended = ended(status);
        match ended {
            Some(0) => {}
            Some(code) if !Restart::of(pod, init).again(code, true) => init_failed = true,
            _ => init_waiting = true,
        }
    }
    let (mut unknown, mut running, mut waiting, mut stopped, mut succeeded, mut again) = (0, 0, 0, 0, 0, 0);
    for container in containers(pod) {
        let restart = Restart::of(pod, container);
        match status_of(statuses, container) {
            None => unknown += 1,
            Some(status) if status["state"]["running"].is_object() => running += 1,
            Some(status) if status["state"]["terminated"].is_object() => {
                let code = ended(status).unwrap_or(0);
                stopped += 1;
                succeeded += usize::from(code == 0);
                again += usize::from(restart.again(code, code != 0));
            }
            // It has run before, and waits to run again.
            Some(status) if status["lastState"]["terminated"].is_object() => {
                let code = status["lastState"]["terminated"]["exitCode"].as_i64().unwrap_or(0);
                stopped += 1;
                succeeded += usize::from(code == 0);
                running += usize::from(restart.again(code, true));
            }
            Some(_) => waiting += 1,
        }
    }
    // Once a container of the pod has run, its init containers are past.
    let begun = running + stopped > 0;
    match () {
        () if init_failed => Phase::Failed,
        () if init_waiting && !begun => Phase::Pending,
        () if waiting > 0 => Phase::Pending,
        () if unknown > 0 && running + stopped == 0 => Phase::Pending,
        () if running > 0 && unknown == 0 => Phase::Running,
        () if running == 0 && stopped > 0 && unknown == 0 => match () {
            () if again > 0 => Phase::Running,
            () if stopped == succeeded => Phase::Succeeded,
            () => Phase::Failed,
        },
        () => Phase::Pending,
    }
}

/// The exit code of a container that stands ended, or that ended and waits to be run again.
fn ended(status: &Value) -> Option<i64> {
    status["state"]["terminated"]["exitCode"].as_i64()
}

/// What the conditions say of a pod: each as (type, status, reason, message).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    fn yes(kind: &'static str) -> Condition {
        Condition { kind, status: true, reason: "", message: String::new() }
    }

    fn no(kind: &'static str, reason: &'static str, message: String) -> Condition {
        Condition { kind, status: false, reason, message }
    }
}

/// The conditions that the agent owns, in the order in which they are written.
pub fn conditions(
    pod: &Object,
    phase: Phase,
    statuses: &[Value],
    init_statuses: &[Value],
    sandbox_ready: bool,
) -> Vec<Condition> {
    let sandbox = match sandbox_ready {
        true => Condition::yes("PodReadyToStartContainers"),
        false => Condition::no("PodReadyToStartContainers", "", String::new()),
    };
    vec![
        sandbox,
        initialized(pod, phase, statuses, init_statuses),
        ready("Ready", pod, phase, statuses, init_statuses),
        ready("ContainersReady", pod, phase, statuses, init_statuses),
    ]
}

fn initialized(pod: &Object, phase: Phase, statuses: &[Value], init_statuses: &[Value]) -> Condition {
    const KIND: &str = "Initialized";
    let begun = statuses.iter().any(|s| {
        s["state"]["running"].is_object()
            || s["state"]["terminated"].is_object()
            || s["lastState"]["terminated"].is_object()
    });
    let mut missing = Vec::new();
    for init in init_containers(pod) {
        let done = status_of(init_statuses, init).is_some_and(|status| match is_sidecar(init) {
            true => status["started"] == true,
            false => status["state"]["terminated"]["exitCode"] == 0,
        });
        if !done {
            missing.push(init["name"].as_str().unwrap_or(""));
        }
    }
    if phase == Phase::Succeeded {
        return Condition { reason: "PodCompleted", ..Condition::yes(KIND) };
    }
    if missing.is_empty() || begun {
        return Condition::yes(KIND);
    }
    let message = format!("containers with incomplete status: [{}]", missing.join(" "));
    Condition::no(KIND, "ContainersNotInitialized", message)
}

fn ready(kind: &'static str, pod: &Object, phase: Phase, statuses: &[Value], init_statuses: &[Value]) -> Condition {
    match phase {
        Phase::Succeeded => return Condition::no(kind, "PodCompleted", String::new()),
        Phase::Failed => return Condition::no(kind, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = init_containers(pod).iter().filter(|c| is_sidecar(c)).map(|c| (c, status_of(init_statuses, c)));
    let mains = containers(pod).iter().map(|c| (c, status_of(statuses, c)));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (container, status) in sidecars.chain(mains) {
        let name = container["name"].as_str().unwrap_or("");
        match status {
            None => unknown.push(name),
            Some(status) if status["ready"] != true => unready.push(name),
            Some(_) => {}
        }
    }
    let mut words = Vec::new();
    if !unknown.is_empty() {
        words.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !unready.is_empty() {
        words.push(format!("containers with unready status: [{}]", unready.join(" ")));
    }
    if words.is_empty() {
        let gates = if kind == "Ready" { gates_missing(pod) } else { Vec::new() };
        if gates.is_empty() {
            return Condition::yes(kind);
        }
        return Condition::no(kind, "ReadinessGatesNotReady", gates.join(", "));
    }
    Condition::no(kind, "ContainersNotReady", words.join(", "))
}

/// Readiness gates are conditions that others set on the pod.
fn gates_missing(pod: &Object) -> Vec<String> {
    let conditions = pod.array_at("/status/conditions");
    let mut missing = Vec::new();
    for gate in pod.array_at("/spec/readinessGates") {
        let wanted = &gate["conditionType"];
        let name = wanted.as_str().unwrap_or("");
        match conditions.iter().find(|c| c["type"] == *wanted) {
            Some(condition) if condition["status"] == "True" => {}
            Some(_) => missing.push(format!("the status of pod readiness gate {name:?} is not \"True\", but False")),
            None => missing.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
        }
    }
    missing
}

/// Writes the conditions over `old`: a condition keeps its time while its status stays, and others' conditions stay.
pub fn merge_conditions(old: &[Value], new: &[Condition], generation: i64, now: &str) -> Vec<Value> {
    let mut out = Vec::new();
    for condition in new {
        let status = if condition.status { "True" } else { "False" };
        let before = old.iter().find(|c| c["type"] == condition.kind);
        let since = match before {
            Some(b) if b["status"] == status && b["lastTransitionTime"].is_string() => b["lastTransitionTime"].clone(),
            _ => json!(now),
        };
        let mut value = json!({
            "type": condition.kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since,
        });
        if generation > 0 {
            value["observedGeneration"] = json!(generation);
        }
        if !condition.reason.is_empty() {
            value["reason"] = json!(condition.reason);
        }
        if !condition.message.is_empty() {
            value["message"] = json!(condition.message);
        }
        out.push(value);
    }
    out.extend(old.iter().filter(|c| !new.iter().any(|n| c["type"] == n.kind)).cloned());
    out
}
