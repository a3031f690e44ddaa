//! The status of a pod as the API shows it, from its spec, what the runtime says and what was planned. Pure.

use std::collections::BTreeSet;

use gantry_kube::Object;
use gantry_kube::pod::phase::{Phase, conditions, merge_conditions, phase};
use gantry_kube::pod::{containers, ephemeral_containers, init_containers, is_sidecar, qos};
use gantry_kube::time;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cri::{container_resources, is_recursively_read_only};
use super::memory::Memory;
use super::past;
use super::plan::Plan;
use super::resize::{Limits, Pending};
use super::seen::{Container, Seen, State};
use super::want::{Failed, Goal};

/// The lists of a pod's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Init,
    Main,
    Ephemeral,
}

impl List {
    /// Where the statuses of its containers are.
    fn statuses(self) -> &'static str {
        match self {
            List::Init => "initContainerStatuses",
            List::Main => "containerStatuses",
            List::Ephemeral => "ephemeralContainerStatuses",
        }
    }
}

/// How a container id is written: the runtime's scheme before it.
pub const ID_SCHEME: &str = "gantry://";

pub struct Inputs<'a> {
    pub pod: &'a Object,
    pub goal: Goal,
    /// Why the pod failed as a whole.
    pub failed: Option<&'a Failed>,
    /// Why it has not been given what it asks for.
    pub resize: Option<&'a Pending>,
    pub seen: &'a Seen,
    pub plan: &'a Plan,
    pub memory: &'a Memory,
    /// Containers (by id) whose readiness probe holds.
    pub ready: &'a BTreeSet<String>,
    pub host_ip: &'a str,
    /// The status that was last reported or, after a restart, is in the API.
    pub previous: &'a Value,
    pub now: Timestamp,
}

pub fn status(inputs: &Inputs<'_>) -> Value {
    let now = time::seconds(inputs.now);
    let previous = inputs.previous;
    let generation = inputs.pod.generation();
    let host_network = inputs.pod.bool_at("/spec/hostNetwork").unwrap_or(false);
    let mut out = Map::new();
    let inits: Vec<Value> = init_containers(inputs.pod).iter().map(|c| container(inputs, c, List::Init)).collect();
    let mains: Vec<Value> = containers(inputs.pod).iter().map(|c| container(inputs, c, List::Main)).collect();
    let ephemeral: Vec<Value> =
        ephemeral_containers(inputs.pod).iter().map(|c| container(inputs, c, List::Ephemeral)).collect();
    // A pod that is failed as a whole has ended only once its containers have: until then nothing may take its place.
    let lives = inputs.seen.containers.iter().any(Container::is_alive);
    let reached = match inputs.failed {
        Some(_) if !lives => Phase::Failed,
        _ => phase(inputs.pod, &mains, &inits),
    };
    let before = previous["phase"].as_str().unwrap_or("");
    // An end is final, whatever becomes of the records.
    let reached = match before {
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        _ => stopped_phase(inputs, reached, &mains),
    };
    let sandbox = inputs.seen.sandbox().filter(|s| s.ready);
    let network_ready = sandbox.is_some_and(|s| host_network || !s.ips.is_empty());
    let mut list = conditions(inputs.pod, reached, &mains, &inits, network_ready);
    list.retain(|c| inputs.failed.is_none() || mains_known(&mains) || c.kind != "Initialized");
    let old = previous["conditions"].as_array().map(Vec::as_slice).unwrap_or(&[]);
    let mut merged = merge_conditions(old, &list, generation, &now);
    if !merged.iter().any(|c| c["type"] == "PodScheduled") {
        merged
            .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    }
    if let Some(failed) = inputs.failed.filter(|failed| failed.disrupted)
        && !merged.iter().any(is_own_disruption)
    {
        merged.retain(|c| c["type"] != DISRUPTION);
        merged.push(json!({"type": DISRUPTION, "status": "True", "reason": TERMINATED_BY_NODE,
            "message": failed.message, "lastProbeTime": null, "lastTransitionTime": now}));
    }
    resize_conditions(inputs, old, &now, &mut merged);
    if generation > 0 {
        out.insert("observedGeneration".into(), json!(generation));
    }
    out.insert("phase".into(), json!(reached.as_str()));
    out.insert("conditions".into(), Value::Array(merged));
    if let Some(failed) = inputs.failed {
        out.insert("reason".into(), json!(failed.reason));
        out.insert("message".into(), json!(failed.message));
    } else if reached.is_terminal() {
        // Why it was rejected or evicted outlives the agent that did it.
        for key in ["reason", "message"] {
            out.extend(previous.get(key).map(|v| (key.to_owned(), v.clone())));
        }
    }
    out.insert("hostIP".into(), json!(inputs.host_ip));
    out.insert("hostIPs".into(), json!([{"ip": inputs.host_ip}]));
    let ips = match (host_network, sandbox) {
        (true, Some(_)) => vec![inputs.host_ip.to_owned()],
        (false, Some(sandbox)) => sandbox.ips.clone(),
        (_, None) => Vec::new(),
    };
    if let Some(first) = ips.first() {
        out.insert("podIP".into(), json!(first));
        out.insert("podIPs".into(), ips.iter().map(|ip| json!({"ip": ip})).collect());
    } else if reached.is_terminal() || !matches!(inputs.goal, Goal::Run) {
        for key in ["podIP", "podIPs"] {
            out.extend(previous.get(key).map(|v| (key.to_owned(), v.clone())));
        }
    }
    let started = previous["startTime"].as_str().map(str::to_owned).unwrap_or(now);
    out.insert("startTime".into(), json!(started));
    if inputs.failed.is_none() || mains_known(&mains) {
        for (list, statuses) in [(List::Init, inits), (List::Ephemeral, ephemeral)] {
            if !statuses.is_empty() {
                out.insert(list.statuses().into(), Value::Array(statuses));
            }
        }
        out.insert(List::Main.statuses().into(), Value::Array(mains));
    }
    out.insert("qosClass".into(), json!(qos::class(inputs.pod).as_str()));
    Value::Object(out)
}

/// A pod that was rejected before anything of it ran shows no containers.
fn mains_known(mains: &[Value]) -> bool {
    mains.iter().any(|m| m["containerID"].is_string() || m["lastState"]["terminated"].is_object())
}

/// A pod that was told to stop and has stopped has ended, whatever its restart policy.
fn stopped_phase(inputs: &Inputs<'_>, reached: Phase, mains: &[Value]) -> Phase {
    let stopping = matches!(inputs.goal, Goal::Stop { .. } | Goal::Forget { .. });
    if !stopping || !inputs.plan.settled || reached.is_terminal() {
        return reached;
    }
    let code = |m: &Value| m["state"]["terminated"]["exitCode"].as_i64();
    match mains.iter().all(|m| code(m) == Some(0)) && !mains.is_empty() {
        true => Phase::Succeeded,
        false => Phase::Failed,
    }
}

fn container(inputs: &Inputs<'_>, spec: &Value, list: List) -> Value {
    let name = spec["name"].as_str().unwrap_or("");
    let runs = inputs.seen.runs(name);
    let before = previous_of(inputs.previous, name, list);
    let mut out = Map::new();
    out.insert("name".into(), json!(name));
    let Some(latest) = runs.first() else { return unseen(inputs, spec, before) };
    let waiting = inputs.plan.waiting.get(name);
    let (state, last) = match (latest.state, waiting) {
        (State::Exited, Some(waiting)) => (waiting_state(&waiting.reason, &waiting.message), Some(terminated(latest))),
        (State::Exited, None) => (terminated(latest), None),
        (State::Running, _) if inputs.memory.starting.contains(&latest.id) => {
            (waiting_state(if list == List::Init { "PodInitializing" } else { "ContainerCreating" }, ""), None)
        }
        (State::Running | State::Unknown, _) => {
            let at = time::seconds(latest.started_at.unwrap_or(latest.created_at));
            (json!({"running": {"startedAt": at}}), None)
        }
        (State::Created, Some(waiting)) => (waiting_state(&waiting.reason, &waiting.message), None),
        (State::Created, None) => (waiting_state("ContainerCreating", ""), None),
    };
    let last = last.or_else(|| runs.get(1).filter(|c| c.state == State::Exited).map(|c| terminated(c)));
    let last = last.unwrap_or_else(|| match before["restartCount"].as_u64() == Some(u64::from(latest.attempt)) {
        true => before["lastState"].clone(),
        // Records of before a reboot are gone, but for what the API was told.
        false if latest.attempt > 0 => past::end(before).map_or(json!({}), |end| json!({"terminated": end})),
        false => json!({}),
    });
    let (started, ready) = started_and_ready(inputs, spec, latest, list);
    out.insert("state".into(), state);
    out.insert("lastState".into(), if last.is_object() { last } else { json!({}) });
    out.insert("ready".into(), json!(ready));
    out.insert("restartCount".into(), json!(latest.attempt));
    out.insert(
        "image".into(),
        json!(if latest.image.is_empty() { spec["image"].as_str().unwrap_or("") } else { &latest.image }),
    );
    out.insert("imageID".into(), json!(latest.image_ref));
    out.insert("containerID".into(), json!(format!("{ID_SCHEME}{}", latest.id)));
    out.insert("started".into(), json!(started));
    resources(spec, latest, before, &mut out);
    if let Some(user) = &latest.user {
        let (uid, gid, groups) = (user.uid, user.gid, &user.supplemental_groups);
        out.insert("user".into(), json!({"linux": {"uid": uid, "gid": gid, "supplementalGroups": groups}}));
    }
    let mounts = volume_mounts(spec, Some(latest));
    if !mounts.is_empty() {
        out.insert("volumeMounts".into(), Value::Array(mounts));
    }
    Value::Object(out)
}

/// The mounts as they are made: whether what is mounted below a read-only one is read-only too is known only here.
fn volume_mounts(spec: &Value, seen: Option<&Container>) -> Vec<Value> {
    let shown = |mount: &Value| {
        let mut out = json!({"name": mount["name"], "mountPath": mount["mountPath"]});
        if mount["readOnly"] == true {
            out["readOnly"] = json!(true);
            out["recursiveReadOnly"] = json!(if is_recursively_read_only(mount) { "Enabled" } else { "Disabled" });
        }
        let at = mount["mountPath"].as_str().unwrap_or("");
        if let Some(image) = seen.and_then(|seen| seen.mounted_images.get(at)) {
            out["volumeStatus"] = json!({"image": {"imageRef": image}});
        }
        out
    };
    spec["volumeMounts"].as_array().into_iter().flatten().map(shown).collect()
}

/// What the container was given, and what it has: the same, but for while the runtime is being told.
fn resources(spec: &Value, latest: &Container, before: &Value, out: &mut Map<String, Value>) {
    let given = &spec["resources"];
    if let Some(requests) = given["requests"].as_object().filter(|requests| !requests.is_empty()) {
        out.insert("allocatedResources".into(), json!(requests));
    }
    let has_it = latest.limits.is_none_or(|limits| limits == Limits::of(&container_resources(spec)));
    let shown = if has_it || !before["resources"].is_object() { given } else { &before["resources"] };
    if let Some(shown) = shown.as_object().filter(|shown| !shown.is_empty()) {
        out.insert("resources".into(), json!(shown));
    }
}

/// What stands between a pod and the resources that it asks for.
const RESIZE_CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

fn resize_conditions(inputs: &Inputs<'_>, old: &[Value], now: &str, merged: &mut Vec<Value>) {
    merged.retain(|c| RESIZE_CONDITIONS.iter().all(|kind| c["type"] != *kind));
    let waits = |spec: &Value| {
        let latest = inputs.seen.latest(spec["name"].as_str().unwrap_or("")).filter(|c| c.state == State::Running);
        latest.and_then(|c| c.limits).is_some_and(|limits| limits != Limits::of(&container_resources(spec)))
    };
    let failure = inputs.memory.resize_failure.as_ref();
    let in_progress = init_containers(inputs.pod).iter().chain(containers(inputs.pod)).any(waits);
    let pending = inputs.resize.map(|pending| (pending.reason, pending.message.as_str()));
    let working = in_progress.then(|| failure.map_or(("", ""), |f| (f.reason.as_str(), f.message.as_str())));
    for (kind, found) in RESIZE_CONDITIONS.into_iter().zip([pending, working]) {
        let Some((reason, message)) = found else { continue };
        let before = old.iter().find(|c| c["type"] == kind && c["reason"].as_str().unwrap_or("") == reason);
        let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        let mut condition = json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": since});
        for (key, text) in [("reason", reason), ("message", message)] {
            if !text.is_empty() {
                condition[key] = json!(text);
            }
        }
        merged.push(condition);
    }
}

fn started_and_ready(inputs: &Inputs<'_>, spec: &Value, latest: &Container, list: List) -> (bool, bool) {
    let started = latest.state == State::Running
        && !inputs.memory.starting.contains(&latest.id)
        && (!spec["startupProbe"].is_object() || inputs.memory.started.contains(&latest.id));
    if list == List::Ephemeral {
        return (false, false);
    }
    if list == List::Init && !is_sidecar(spec) {
        return (latest.state == State::Running, latest.state == State::Exited && latest.exit_code == 0);
    }
    let probed = spec["readinessProbe"].is_object();
    (started, started && (!probed || inputs.ready.contains(&latest.id)))
}

/// A container of which the runtime has no record.
fn unseen(inputs: &Inputs<'_>, spec: &Value, before: &Value) -> Value {
    let name = spec["name"].as_str().unwrap_or("");
    let end = past::end(before);
    let waiting = inputs.plan.waiting.get(name);
    if let (Some(end), None) = (&end, waiting) {
        let mut out = before.clone();
        let is_init_done = before["ready"] == true && before["state"]["terminated"].is_object();
        out["state"] = json!({"terminated": end});
        out["ready"] = json!(is_init_done);
        out["started"] = json!(false);
        return out;
    }
    let (reason, message) = waiting.map_or(("ContainerCreating", ""), |w| (w.reason.as_str(), w.message.as_str()));
    let mut out = json!({
        "name": name, "state": waiting_state(reason, message),
        "lastState": end.map_or(json!({}), |end| json!({"terminated": end})),
        "ready": false, "started": false, "restartCount": before["restartCount"].as_u64().unwrap_or(0),
        "image": spec["image"], "imageID": before["imageID"].as_str().unwrap_or(""),
    });
    let mounts = volume_mounts(spec, None);
    if !mounts.is_empty() {
        out["volumeMounts"] = Value::Array(mounts);
    }
    out
}

fn previous_of<'a>(previous: &'a Value, name: &str, list: List) -> &'a Value {
    let mut list = previous[list.statuses()].as_array().into_iter().flatten();
    list.find(|s| s["name"] == name).unwrap_or(&Value::Null)
}

fn waiting_state(reason: &str, message: &str) -> Value {
    match message {
        "" => json!({"waiting": {"reason": reason}}),
        message => json!({"waiting": {"reason": reason, "message": message}}),
    }
}

fn terminated(container: &Container) -> Value {
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let at = |t: Option<Timestamp>| t.map_or(Value::Null, |t| json!(time::seconds(t)));
    let mut inner = json!({
        "exitCode": container.exit_code, "reason": reason,
        "startedAt": at(container.started_at), "finishedAt": at(container.finished_at),
        "containerID": format!("{ID_SCHEME}{}", container.id),
    });
    if !container.message.is_empty() {
        inner["message"] = json!(container.message);
    }
    json!({"terminated": inner})
}

/// What a pod that was ended for the sake of others carries (policies of Jobs look for it), and that it was the node.
const DISRUPTION: &str = "DisruptionTarget";
const TERMINATED_BY_NODE: &str = "TerminationByKubelet";

fn is_own_disruption(condition: &Value) -> bool {
    condition["type"] == DISRUPTION && condition["reason"] == TERMINATED_BY_NODE
}

/// Why the pod was failed as a whole, by a status that says so. It has ended.
pub fn failed_by(status: &Value) -> Option<Failed> {
    let reason = status["reason"].as_str().filter(|_| status["phase"] == "Failed")?;
    Some(Failed {
        reason: reason.to_owned(),
        message: status["message"].as_str().unwrap_or("").to_owned(),
        disrupted: status["conditions"].as_array().is_some_and(|list| list.iter().any(is_own_disruption)),
        grace_max_seconds: None,
    })
}

/// The conditions that the agent writes; others belong to others.
const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The patch that brings the API's status to `new`: keys that are no more are removed by name.
pub fn patch(uid: &str, old: &Value, new: &Value) -> Value {
    let mut status = new.clone();
    if let Some(Value::Array(list)) = status.get_mut("conditions") {
        let own = OWN_CONDITIONS.iter().chain(&RESIZE_CONDITIONS);
        list.retain(|c| is_own_disruption(c) || own.clone().any(|own| c["type"] == *own));
        for condition in list.iter_mut() {
            remove_old_reason(old, condition);
        }
        let has = |list: &[Value], kind: &str| list.iter().any(|c| c["type"] == kind);
        let before = old["conditions"].as_array().map(Vec::as_slice).unwrap_or(&[]);
        for kind in RESIZE_CONDITIONS {
            if has(before, kind) && !has(list, kind) {
                list.push(json!({"$patch": "delete", "type": kind}));
            }
        }
    }
    // Lists of addresses merge by address: an old one would stay beside the new.
    for key in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(list)) = status.get_mut(key)
            && old[key].is_array()
            && old[key] != new[key]
        {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    for key in [
        "reason",
        "message",
        "podIP",
        "podIPs",
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ] {
        if !old[key].is_null() && new[key].is_null() {
            status[key] = Value::Null;
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Conditions merge by their type: a reason that holds no more would stay beside the new status.
fn remove_old_reason(old: &Value, condition: &mut Value) {
    let mut before = old["conditions"].as_array().into_iter().flatten();
    let Some(before) = before.find(|c| c["type"] == condition["type"]) else { return };
    for key in ["reason", "message"] {
        if !before[key].is_null() && condition[key].is_null() {
            condition[key] = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests;
