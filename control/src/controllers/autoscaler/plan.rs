use gantry_env::format_seconds;
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Resource};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::behavior::{Memory, Rules, limit, stabilize};
use super::metrics::{self, Proposal, Refusal, Scene, Tolerance};

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// What there is.
#[derive(Debug)]
pub struct Observed {
    /// The target's Scale, or why it cannot be had.
    pub scale: Result<Object, String>,
    /// Those that the scale selects.
    pub pods: Vec<Object>,
    /// Their PodMetrics, or why these cannot be had.
    pub metrics: Result<Vec<Object>, String>,
    /// The other autoscalers of the namespace, by name, and what their targets select.
    pub others: Vec<(String, LabelSelector)>,
    pub now: Timestamp,
}

/// The scale of the target is set to this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    pub from: i64,
    pub to: i64,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub rescale: Option<Rescale>,
    /// Kind, reason and message.
    pub events: Vec<(&'static str, &'static str, String)>,
    memory: Memory,
    conditions: Vec<Value>,
    current: i64,
    desired: i64,
    metrics: Vec<Value>,
    last_scaled: Option<Value>,
    generation: i64,
    now: Timestamp,
}

/// The resource that an autoscaler's target is of.
pub fn target(autoscaler: &Object, all: &[&'static Resource]) -> Result<&'static Resource, String> {
    let of = |field: &str| autoscaler.str_at(&format!("/spec/scaleTargetRef/{field}"));
    let (kind, version) = (of("kind"), of("apiVersion"));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let found = all.iter().copied().find(|target| target.kind == kind && target.group == group);
    found.ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
}

/// The names of all who would scale by these pods, where they are several: each would undo what the other does.
fn rivals(autoscaler: &Object, observed: &Observed) -> Option<String> {
    let shares =
        |(_, selector): &&(String, LabelSelector)| observed.pods.iter().any(|pod| selector.matches_object(pod));
    let mut names: Vec<&str> = observed.others.iter().filter(shares).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    names.push(autoscaler.name());
    names.sort_unstable();
    let names: Vec<String> = names.iter().map(|name| format!("{}/{name}", autoscaler.namespace())).collect();
    Some(names.join(" "))
}

pub fn plan(autoscaler: &Object, observed: &Observed, memory: &Memory) -> Plan {
    let mut plan = Plan::keeping(autoscaler, memory, observed.now);
    let scale = match &observed.scale {
        Ok(scale) => scale,
        Err(why) => {
            plan.events.push(("Warning", "FailedGetScale", why.clone()));
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            plan.condition(ABLE, false, "FailedGetScale", &message);
            return plan;
        }
    };
    let message = "the HPA controller was able to get the target's current scale";
    plan.condition(ABLE, true, "SucceededGetScale", message);
    let current = scale.i64_at("/spec/replicas").unwrap_or(0);
    plan.memory.begin(current, observed.now);
    plan.current = current;
    let min = autoscaler.i64_at("/spec/minReplicas").unwrap_or(1);
    let max = autoscaler.i64_at("/spec/maxReplicas").unwrap_or(min);
    if current == 0 && min != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        plan.condition(ACTIVE, false, "ScalingDisabled", message);
        (plan.desired, plan.metrics) = (0, Vec::new());
    } else if current > max || current < min {
        let (to, which) = if current > max { (max, "above Spec.MaxReplicas") } else { (min, "below Spec.MinReplicas") };
        plan.metrics.clear();
        plan.set(current, to, format!("Current number of replicas {which}"));
    } else {
        plan.by_metrics(autoscaler, scale, observed, (min, max));
    }
    plan
}

impl Plan {
    /// What was told of the autoscaler before.
    fn keeping(autoscaler: &Object, memory: &Memory, now: Timestamp) -> Plan {
        let number = |field: &str| autoscaler.i64_at(&format!("/status/{field}")).unwrap_or(0);
        Plan {
            rescale: None,
            events: Vec::new(),
            memory: memory.clone(),
            conditions: autoscaler.array_at("/status/conditions").to_vec(),
            current: number("currentReplicas"),
            desired: number("desiredReplicas"),
            metrics: autoscaler.array_at("/status/currentMetrics").to_vec(),
            last_scaled: autoscaler.get("/status/lastScaleTime").cloned(),
            generation: autoscaler.generation(),
            now,
        }
    }

    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let before = self.conditions.iter_mut().find(|c| c["type"] == kind);
        let kept = before.as_ref().filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
        let since = kept.unwrap_or_else(|| json!(format_seconds(self.now)));
        let wanted = json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since});
        match before {
            Some(there) => *there = wanted,
            None => self.conditions.push(wanted),
        }
    }

    fn set(&mut self, from: i64, to: i64, reason: String) {
        self.desired = to;
        self.rescale = (from != to).then_some(Rescale { from, to, reason });
    }

    fn by_metrics(&mut self, autoscaler: &Object, scale: &Object, observed: &Observed, bounds: (i64, i64)) {
        let (current, now) = (self.current, self.now);
        if scale.str_at("/status/selector").is_empty() {
            self.events.push(("Warning", "SelectorRequired", "selector is required".to_owned()));
            let message = "the HPA target's scale is missing a selector";
            self.condition(ACTIVE, false, "InvalidSelector", message);
            return;
        }
        if let Some(names) = rivals(autoscaler, observed) {
            let selector = scale.str_at("/status/selector");
            let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{names}]");
            self.condition(ACTIVE, false, "AmbiguousSelector", &message);
            self.metrics.clear();
            for reason in ["AmbiguousSelector", "FailedComputeMetricsReplicas"] {
                self.events.push(("Warning", reason, message.clone()));
            }
            return;
        }
        let (up, down) = (Rules::up(autoscaler), Rules::down(autoscaler));
        let scene = Scene {
            namespace: autoscaler.namespace(),
            current,
            pods: &observed.pods,
            metrics: observed.metrics.as_deref().map_err(String::as_str),
            tolerance: Tolerance { up: up.tolerance, down: down.tolerance },
            now,
        };
        let specs = autoscaler.array_at("/spec/metrics");
        let Some((wanted, name)) = self.highest(specs, &scene) else { return };
        let stable = stabilize(&mut self.memory, &up, &down, current, wanted, now);
        self.condition(ABLE, true, stable.reason, stable.message);
        let limited = limit(&self.memory, &up, &down, bounds, current, stable.replicas, now);
        self.condition(LIMITED, limited.replicas != stable.replicas, limited.reason, limited.message);
        let reason =
            if wanted > current { format!("{name} above target") } else { "All metrics below target".to_owned() };
        self.set(current, limited.replicas, reason);
    }

    /// The most that any metric asks for, and which does. Where some cannot be had, pods may be added but none may go.
    fn highest(&mut self, specs: &[Value], scene: &Scene<'_>) -> Option<(i64, String)> {
        let results: Vec<Result<Proposal, Refusal>> = specs.iter().map(|spec| metrics::evaluate(spec, scene)).collect();
        let unknown = json!({"type": ""});
        self.metrics = results.iter().map(|r| r.as_ref().map_or(unknown.clone(), |p| p.status.clone())).collect();
        let refusals: Vec<&Refusal> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        for refusal in &refusals {
            self.events.push(("Warning", refusal.reason, refusal.why.clone()));
        }
        // Of those that ask for as much, the first.
        let best = results.iter().flatten().rev().max_by_key(|proposal| proposal.replicas);
        let shrinks = best.is_some_and(|best| best.replicas < scene.current);
        let chosen = best.filter(|_| refusals.is_empty() || !shrinks);
        if let Some(best) = chosen {
            let message = format!("the HPA was able to successfully calculate a replica count from {}", best.name);
            self.condition(ACTIVE, true, "ValidMetricFound", &message);
            return Some((best.replicas, best.name.clone()));
        }
        if let Some(first) = refusals.first() {
            let message = format!("the HPA was unable to compute the replica count: {}", first.why);
            self.condition(ACTIVE, false, first.reason, &message);
            let (bad, all) = (refusals.len(), specs.len());
            let message = format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.error);
            self.events.push(("Warning", "FailedComputeMetricsReplicas", message));
        }
        None
    }

    /// What is to be remembered, once the scale was set or could not be.
    pub fn memory_after(&self, written: bool) -> Memory {
        let mut memory = self.memory.clone();
        if let Some(rescale) = self.rescale.as_ref().filter(|_| written) {
            memory.scaled(rescale.from, rescale.to, self.now);
        }
        memory
    }

    /// What is told, once the scale was set (where it was to be) or could not be.
    pub fn status(mut self, written: Result<(), &str>) -> Value {
        if let Some(rescale) = self.rescale.take() {
            match written {
                Ok(()) => {
                    let message = format!("the HPA controller was able to update the target scale to {}", rescale.to);
                    self.condition(ABLE, true, "SucceededRescale", &message);
                    self.last_scaled = Some(json!(format_seconds(self.now)));
                }
                Err(why) => {
                    let message = format!("the HPA controller was unable to update the target scale: {why}");
                    self.condition(ABLE, false, "FailedUpdateScale", &message);
                    self.desired = self.current;
                }
            }
        }
        let mut status = Map::new();
        status.insert("observedGeneration".to_owned(), json!(self.generation));
        status.insert("desiredReplicas".to_owned(), json!(self.desired));
        if self.current != 0 {
            status.insert("currentReplicas".to_owned(), json!(self.current));
        }
        if let Some(at) = self.last_scaled {
            status.insert("lastScaleTime".to_owned(), at);
        }
        if !self.metrics.is_empty() {
            status.insert("currentMetrics".to_owned(), json!(self.metrics));
        }
        status.insert("conditions".to_owned(), json!(self.conditions));
        Value::Object(status)
    }
}
