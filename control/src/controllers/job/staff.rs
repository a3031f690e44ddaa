//! How many pods a Job has at work: which are made, which are too many, and how long it waits after failures.

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::indexes::Indexes;
use super::plan::{BURST_MAX, INDEX, INDEX_FAILURES, Plan, TRACKING, Tally, View, named, tracked};
use crate::controllers::dependents::plan::{mark, named_pod};
use crate::controllers::informers::Pod;
use crate::controllers::time::{later, parse, seconds_since};

const BACKOFF_FIRST_SECONDS: i64 = 10;
const BACKOFF_MAX_SECONDS: i64 = 360;

/// The Job's pods: all of them, those at work, and how many are about to end.
pub struct Pods<'a> {
    pub mine: &'a [&'a Pod],
    pub active: &'a [&'a Pod],
    pub terminating: i64,
}

/// Makes the pods that are missing, or takes away those that are too many.
pub fn staff(
    view: &View<'_>,
    tally: &Tally,
    pods: &Pods<'_>,
    now: Timestamp,
    suffix: &impl Fn(usize) -> String,
    plan: &mut Plan,
) {
    let Pods { mine, active, terminating } = *pods;
    let left = view.completions.map(|end| end - tally.all_succeeded(view) - tally.failed_indexes.len() as i64);
    let have = active.len() as i64;
    let wanted = match left {
        Some(left) => view.parallelism.min(left.max(0)),
        None if tally.all_succeeded(view) > 0 => have.min(view.parallelism),
        None => view.parallelism,
    };
    if have > wanted {
        let mut ranked = active.to_vec();
        ranked.sort_by_key(|pod| {
            (pod.ready, !pod.node.is_empty(), std::cmp::Reverse(pod.created.clone()), pod.uid.clone())
        });
        let surplus = &ranked[..(have - wanted) as usize];
        plan.release.extend(tracked(surplus));
        plan.delete.extend(surplus.iter().map(|pod| named(pod)));
        return;
    }
    let leaving = if view.only_failed { terminating } else { 0 };
    let mut missing = usize::try_from(wanted - have - leaving).unwrap_or(0).min(BURST_MAX);
    if !view.indexed {
        match backoff(mine, |_| true, now) {
            0 => plan.create.extend((0..missing).map(|_| pod(view, None, 0, &suffix(5)))),
            wait if missing > 0 => later(&mut plan.check_again, wait),
            _ => {}
        }
        return;
    }
    let index_of = |pod: &Pod| pod.job.as_ref().and_then(|run| run.index);
    let holding = |pod: &&&Pod| pod.active() || (view.only_failed && pod.deleting && !pod.finished());
    let held: Indexes = mine.iter().filter(holding).filter_map(|pod| index_of(pod)).collect();
    let free = |index: &i64| {
        !held.contains(index) && !tally.completed.contains(index) && !tally.failed_indexes.contains(index)
    };
    for index in (0..view.completions.unwrap_or(0)).filter(free) {
        if missing == 0 {
            return;
        }
        let same = |pod: &Pod| view.per_index.is_none() || index_of(pod) == Some(index);
        match backoff(mine, same, now) {
            0 => {
                let failures = |pod: &&Pod| pod.job.as_ref().map(|run| run.index_failures + 1);
                let before = mine.iter().filter(|pod| index_of(pod) == Some(index) && pod.finished());
                let failures = before.filter_map(failures).max().unwrap_or(0);
                plan.create.push(pod(view, Some(index), failures, &suffix(5)));
                missing -= 1;
            }
            wait => later(&mut plan.check_again, wait),
        }
    }
}

/// The seconds to wait after the last of the failures that no success came after: ten, and twice as long for each more.
fn backoff(pods: &[&Pod], which: impl Fn(&Pod) -> bool, now: Timestamp) -> i64 {
    let ends = |phase: &'static str| {
        let of = pods.iter().filter(move |pod| pod.phase == phase).filter(|pod| which(pod));
        of.filter_map(|pod| parse(&pod.job.as_ref()?.finished)).collect::<Vec<_>>()
    };
    let success = ends("Succeeded").into_iter().max();
    let failures: Vec<Timestamp> = ends("Failed").into_iter().filter(|at| success.is_none_or(|s| *at > s)).collect();
    let Some(last) = failures.iter().max() else { return 0 };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
    let wait = (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_MAX_SECONDS);
    (wait - seconds_since(*last, now)).max(0)
}

fn pod(view: &View<'_>, index: Option<i64>, index_failures: i64, suffix: &str) -> Object {
    let job = view.job;
    let stem = index.map_or_else(|| job.name().to_owned(), |index| format!("{}-{index}", job.name()));
    let stem = &stem[..stem.len().min(57)];
    let template = job.get("/spec/template").cloned().unwrap_or_default();
    let mut pod = named_pod(job, &template, &format!("{stem}-{suffix}"));
    pod.metadata_mut().insert("generateName".to_owned(), json!(format!("{stem}-")));
    let mut finalizers = pod.array_at("/metadata/finalizers").to_vec();
    finalizers.push(json!(TRACKING));
    pod.metadata_mut().insert("finalizers".to_owned(), json!(finalizers));
    let Some(index) = index else { return pod };
    for map in ["labels", "annotations"] {
        mark(&mut pod, map, INDEX, &index.to_string());
    }
    if view.per_index.is_some() {
        mark(&mut pod, "annotations", INDEX_FAILURES, &index_failures.to_string());
    }
    let spec = pod.map_mut("spec");
    spec.insert("hostname".to_owned(), json!(format!("{}-{index}", job.name())));
    let told = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
        "fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mut env = container["env"].as_array().cloned().unwrap_or_default();
            if !env.iter().any(|e| e["name"] == "JOB_COMPLETION_INDEX") {
                env.push(told.clone());
                container["env"] = json!(env);
            }
        }
    }
    pod
}
