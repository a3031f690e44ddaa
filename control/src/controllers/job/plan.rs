use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::indexes::{self, Indexes};
use super::policy::{self, Verdict};
use super::staff::{self, Pods};
use crate::controllers::dependents::plan::{Outstanding, claim};
use crate::controllers::informers::{JobPod, Pod};
use crate::controllers::time::{later, parse, seconds_since};

/// Keeps a pod until it has been counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Pods that are made in one turn, and that wait to be counted in one status.
pub(super) const BURST_MAX: usize = 500;

/// What one turn does, in this order: a pod is let go only after the status that counts it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub ownership: Vec<(Ref, Value)>,
    pub status: Option<Value>,
    /// Pods whose finalizer is taken away.
    pub release: Vec<(Ref, String)>,
    pub delete: Vec<(Ref, String)>,
    pub create: Vec<Object>,
    /// Kind, reason and message of events.
    pub events: Vec<(&'static str, String, String)>,
    /// Its time to live after its end is over.
    pub expired: bool,
    pub check_again: Option<Duration>,
}

/// The Job with the numbers that every rule needs.
pub(super) struct View<'a> {
    pub job: &'a Object,
    pub parallelism: i64,
    pub completions: Option<i64>,
    pub indexed: bool,
    pub per_index: Option<i64>,
    suspended: bool,
    /// Only what has ended is replaced, not what is about to.
    pub only_failed: bool,
}

impl<'a> View<'a> {
    fn new(job: &'a Object) -> View<'a> {
        View {
            job,
            parallelism: job.i64_at("/spec/parallelism").unwrap_or(1),
            completions: job.i64_at("/spec/completions"),
            indexed: job.str_at("/spec/completionMode") == "Indexed",
            per_index: job.i64_at("/spec/backoffLimitPerIndex"),
            suspended: job.bool_at("/spec/suspend") == Some(true),
            only_failed: job.str_at("/spec/podReplacementPolicy") == "Failed",
        }
    }

    fn failed(&self, pod: &Pod) -> bool {
        let given_up = pod.deleting && pod.phase != "Succeeded" && (!self.only_failed || pod.node.is_empty());
        pod.phase == "Failed" || given_up
    }

    fn condition(&self, kind: &str) -> Option<&'a Value> {
        let all = self.job.array_at("/status/conditions");
        all.iter().find(|c| c["type"] == kind && c["status"] == "True")
    }
}

/// What has ended, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    succeeded: i64,
    failed: i64,
    /// Uids that stand in the status, not yet in its numbers.
    waiting_succeeded: Vec<String>,
    waiting_failed: Vec<String>,
    pub completed: Indexes,
    pub failed_indexes: Indexes,
    /// What the policy says about the Job.
    broken: Option<String>,
}

impl Tally {
    pub fn all_succeeded(&self, view: &View<'_>) -> i64 {
        if view.indexed { self.completed.len() as i64 } else { self.succeeded + self.waiting_succeeded.len() as i64 }
    }

    fn all_failed(&self) -> i64 {
        self.failed + self.waiting_failed.len() as i64
    }
}

pub fn is_finished(job: &Object) -> Option<&Value> {
    let ends = |c: &&Value| (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True";
    job.array_at("/status/conditions").iter().find(ends)
}

/// `suffix` gives the random part of a name.
pub fn plan(
    job: &Object,
    pods: &[Arc<Pod>],
    outstanding: &Outstanding,
    now: Timestamp,
    suffix: impl Fn(usize) -> String,
) -> Plan {
    let view = View::new(job);
    let (mine, ownership) = claim(job, pods);
    if let Some(end) = is_finished(job) {
        return after_the_end(job, end, &mine, now);
    }
    if job.deletion_timestamp().is_some() {
        return Plan { release: tracked(&mine), ..Plan::default() };
    }
    let mut plan = Plan { ownership, ..Plan::default() };
    let tally = tally(&view, &mine, &mut plan);
    let active: Vec<&Pod> =
        mine.iter().copied().filter(|p| p.active() && !outstanding.deleted.contains(&p.uid)).collect();
    let terminating = mine.iter().filter(|pod| pod.deleting && !pod.finished()).count() as i64;
    let start = start_time(&view, now);
    let verdict = verdict(&view, &tally, &active, start, now, &mut plan.check_again);
    if verdict.is_some() {
        plan.delete.extend(active.iter().map(|pod| named(pod)));
    } else if view.suspended {
        // Not counted as failures: they are let go before they go.
        plan.release.extend(tracked(&active));
        plan.delete.extend(active.iter().map(|pod| named(pod)));
    } else if outstanding.is_empty() {
        let pods = Pods { mine: &mine, active: &active, terminating };
        staff::staff(&view, &tally, &pods, now, &suffix, &mut plan);
    }
    let quiet = active.is_empty() && terminating == 0 && outstanding.is_empty();
    let counted = tally.waiting_succeeded.is_empty() && tally.waiting_failed.is_empty();
    let mut status = numbers(&view, &tally, &active, terminating, start);
    let conditions = conditions(&view, verdict, quiet && counted, now, &mut plan.events);
    if conditions.iter().any(|c| c["type"] == "Complete") {
        status["completionTime"] = json!(format_seconds(now));
    }
    if !conditions.is_empty() {
        status["conditions"] = json!(conditions);
    }
    if job.get("/status") != Some(&status) {
        plan.status = Some(status);
    }
    plan
}

fn after_the_end(job: &Object, end: &Value, mine: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan { release: tracked(mine), ..Plan::default() };
    let ttl = job.i64_at("/spec/ttlSecondsAfterFinished").filter(|_| job.deletion_timestamp().is_none());
    if let (Some(ttl), Some(ended)) = (ttl, end["lastTransitionTime"].as_str().and_then(parse)) {
        match ttl - seconds_since(ended, now) {
            left if left > 0 => later(&mut plan.check_again, left),
            _ => plan.expired = true,
        }
    }
    plan
}

pub(super) fn named(pod: &Pod) -> (Ref, String) {
    (pod.reference(), pod.uid.clone())
}

pub(super) fn tracked(pods: &[&Pod]) -> Vec<(Ref, String)> {
    pods.iter().filter(|pod| pod.job.as_ref().is_some_and(|run| run.tracked)).map(|pod| named(pod)).collect()
}

/// Counts what has ended. A uid stands in the status until its pod is seen without the finalizer, and only then in the
/// numbers: whatever dies between two writes, each pod is counted once.
fn tally(view: &View<'_>, mine: &[&Pod], plan: &mut Plan) -> Tally {
    let job = view.job;
    let end = view.completions.unwrap_or(0);
    let mut tally = Tally {
        succeeded: job.i64_at("/status/succeeded").unwrap_or(0),
        failed: job.i64_at("/status/failed").unwrap_or(0),
        completed: indexes::parse(job.str_at("/status/completedIndexes"), end),
        failed_indexes: indexes::parse(job.str_at("/status/failedIndexes"), end),
        ..Tally::default()
    };
    let holds: BTreeMap<&str, &Pod> = mine
        .iter()
        .filter(|pod| pod.job.as_ref().is_some_and(|run| run.tracked))
        .map(|pod| (pod.uid.as_str(), *pod))
        .collect();
    let listed = |kind: &str| -> Vec<String> {
        let all = job.array_at(&format!("/status/uncountedTerminatedPods/{kind}"));
        all.iter().filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
    };
    let (succeeded, failed) = (listed("succeeded"), listed("failed"));
    for (uids, count, waiting) in [
        (&succeeded, &mut tally.succeeded, &mut tally.waiting_succeeded),
        (&failed, &mut tally.failed, &mut tally.waiting_failed),
    ] {
        for uid in uids {
            match holds.get(uid.as_str()) {
                Some(pod) => {
                    plan.release.push(named(pod));
                    waiting.push(uid.clone());
                }
                None => *count += 1,
            }
        }
    }
    let known = |uid: &String| succeeded.contains(uid) || failed.contains(uid);
    for pod in holds.values().filter(|pod| !known(&pod.uid)).take(BURST_MAX) {
        if let Some(run) = &pod.job {
            ended(view, pod, run, &mut tally, plan);
        }
    }
    if view.indexed {
        tally.succeeded = tally.completed.len() as i64;
        tally.waiting_succeeded.clear();
    }
    tally
}

/// Counts one pod that has ended, if it has.
fn ended(view: &View<'_>, pod: &Pod, run: &JobPod, tally: &mut Tally, plan: &mut Plan) {
    let in_range = run.index.filter(|index| view.completions.is_some_and(|end| (0..end).contains(index)));
    if pod.phase == "Succeeded" {
        plan.release.push(named(pod));
        match in_range {
            // The set of indexes is the count: an index twice is one.
            Some(index) if view.indexed => drop(tally.completed.insert(index)),
            None if view.indexed => {}
            _ => tally.waiting_succeeded.push(pod.uid.clone()),
        }
        return;
    }
    if !view.failed(pod) {
        return;
    }
    plan.release.push(named(pod));
    let verdict = if pod.phase == "Failed" { policy::verdict(view.job, pod, run) } else { Verdict::Count };
    if verdict == Verdict::Ignore {
        return;
    }
    tally.waiting_failed.push(pod.uid.clone());
    let too_often = view.per_index.is_some_and(|limit| run.index_failures + 1 > limit);
    if let Some(index) = in_range.filter(|_| view.per_index.is_some())
        && (too_often || verdict == Verdict::FailIndex)
        && !tally.completed.contains(&index)
    {
        tally.failed_indexes.insert(index);
    }
    if let Verdict::FailJob(why) = verdict {
        tally.broken.get_or_insert(why);
    }
}

fn start_time(view: &View<'_>, now: Timestamp) -> Option<Timestamp> {
    if view.suspended {
        return None;
    }
    Some(parse(view.job.str_at("/status/startTime")).unwrap_or(now))
}

/// What the Job has come to: the condition, its reason and message.
type Outcome = (&'static str, String, String);

fn verdict(
    view: &View<'_>,
    tally: &Tally,
    active: &[&Pod],
    start: Option<Timestamp>,
    now: Timestamp,
    check_again: &mut Option<Duration>,
) -> Option<Outcome> {
    for kind in ["FailureTarget", "SuccessCriteriaMet"] {
        if let Some(condition) = view.condition(kind) {
            let text = |key: &str| condition[key].as_str().unwrap_or("").to_owned();
            return Some((
                if kind == "FailureTarget" { "Failed" } else { "Complete" },
                text("reason"),
                text("message"),
            ));
        }
    }
    let failed = |reason: &str, message: &str| Some(("Failed", reason.to_owned(), message.to_owned()));
    if let Some(why) = &tally.broken {
        return failed("PodFailurePolicy", why);
    }
    let limit = view.job.i64_at("/spec/backoffLimit").unwrap_or(6);
    let on_failure = view.job.str_at("/spec/template/spec/restartPolicy") == "OnFailure";
    let restarts: i64 = active.iter().map(|pod| pod.restarts).sum();
    if tally.all_failed() > limit || (on_failure && restarts > 0 && restarts >= limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if let (Some(deadline), Some(start)) = (view.job.i64_at("/spec/activeDeadlineSeconds"), start) {
        match deadline - seconds_since(start, now) {
            left if left > 0 => later(check_again, left),
            _ => return failed("DeadlineExceeded", "Job was active longer than specified deadline"),
        }
    }
    let failed_indexes = tally.failed_indexes.len() as i64;
    if view.job.i64_at("/spec/maxFailedIndexes").is_some_and(|max| failed_indexes > max) {
        return failed("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    }
    let end = view.completions.unwrap_or(0);
    if let Some(rule) = policy::success_rule(view.job, &tally.completed, end) {
        return Some(("Complete", "SuccessPolicy".to_owned(), format!("Matched rules at index {rule}")));
    }
    let done = tally.all_succeeded(view);
    if view.indexed && failed_indexes > 0 && done + failed_indexes >= end {
        return failed("FailedIndexes", "Job has failed indexes");
    }
    let enough = match view.completions {
        Some(end) => done >= end,
        // A queue of work is empty once one has found it so, and the others have ended.
        None => done > 0 && active.is_empty(),
    };
    enough
        .then(|| ("Complete", "CompletionsReached".to_owned(), "Reached expected number of succeeded pods".to_owned()))
}

fn numbers(view: &View<'_>, tally: &Tally, active: &[&Pod], terminating: i64, start: Option<Timestamp>) -> Value {
    let mut waiting = json!({});
    for (kind, uids) in [("succeeded", &tally.waiting_succeeded), ("failed", &tally.waiting_failed)] {
        if !uids.is_empty() {
            waiting[kind] = json!(uids);
        }
    }
    let ready = active.iter().filter(|pod| pod.ready).count();
    let mut status = json!({"ready": ready, "terminating": terminating, "uncountedTerminatedPods": waiting});
    for (key, value) in [("active", active.len() as i64), ("succeeded", tally.succeeded), ("failed", tally.failed)] {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    if view.indexed && !tally.completed.is_empty() {
        status["completedIndexes"] = json!(indexes::text(&tally.completed));
    }
    if view.per_index.is_some() {
        status["failedIndexes"] = json!(indexes::text(&tally.failed_indexes));
    }
    if let Some(start) = start {
        status["startTime"] = json!(format_seconds(start));
    }
    status
}

fn conditions(
    view: &View<'_>,
    verdict: Option<Outcome>,
    over: bool,
    now: Timestamp,
    events: &mut Vec<(&'static str, String, String)>,
) -> Vec<Value> {
    let mut all = view.job.array_at("/status/conditions").to_vec();
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        let at = format_seconds(now);
        let wanted = json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": at, "lastTransitionTime": at});
        match all.iter_mut().find(|c| c["type"] == kind) {
            Some(there) if there["status"] == status => false,
            Some(there) => {
                *there = wanted;
                true
            }
            None => {
                all.push(wanted);
                true
            }
        }
    };
    if let Some((kind, reason, message)) = verdict {
        let (first, tell) =
            if kind == "Failed" { ("FailureTarget", "Warning") } else { ("SuccessCriteriaMet", "Normal") };
        set(first, "True", &reason, &message);
        if over && set(kind, "True", &reason, &message) {
            let told = if kind == "Failed" { (reason, message) } else { ("Completed".into(), "Job completed".into()) };
            events.push((tell, told.0, told.1));
        }
    } else if view.suspended {
        if set("Suspended", "True", "JobSuspended", "Job suspended") {
            events.push(("Normal", "Suspended".into(), "Job suspended".into()));
        }
    } else if view.condition("Suspended").is_some() && set("Suspended", "False", "JobResumed", "Job resumed") {
        events.push(("Normal", "Resumed".into(), "Job resumed".into()));
    }
    all
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
