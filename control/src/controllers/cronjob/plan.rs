use std::sync::Arc;
use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::cron::{self, Schedule};
use gantry_kube::{Object, Ref};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::controllers::dependents::plan::owner_reference;
use crate::controllers::job::plan::is_finished;
use crate::controllers::time::parse;

/// On every Job that was made: the moment that it is of, in the time zone of its CronJob.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks that are a little apart do not make a turn come just too early.
const LATER: Duration = Duration::from_millis(100);

/// What a turn sees.
pub struct World {
    /// The CronJob's own.
    pub jobs: Vec<Arc<Object>>,
    pub now: Timestamp,
}

/// A run whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub job: Object,
    pub at: Timestamp,
}

/// What one turn does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Kind, reason and message.
    pub events: Vec<(&'static str, &'static str, String)>,
    pub delete: Vec<(Ref, String)>,
    pub start: Option<Start>,
    /// References to the Jobs that run.
    active: Vec<Value>,
    last_run: Option<Timestamp>,
    last_success: Option<Timestamp>,
    pub check_again: Option<Duration>,
}

impl Plan {
    /// The status, once what is to be made has been.
    pub fn status(&self, made: Option<(&Start, &Object)>) -> Value {
        let mut status = json!({});
        let mut active = self.active.clone();
        let mut last = self.last_run;
        if let Some((start, job)) = made {
            last = Some(start.at);
            if is_finished(job).is_none() && !active.iter().any(|of| of["uid"] == job.uid()) {
                active.push(reference(job));
            }
        }
        if !active.is_empty() {
            status["active"] = json!(active);
        }
        for (key, at) in [("lastScheduleTime", last), ("lastSuccessfulTime", self.last_success)] {
            if let Some(at) = at {
                status[key] = json!(format_seconds(at));
            }
        }
        status
    }
}

pub fn plan(cron: &Object, world: &World) -> Plan {
    let mut plan = Plan::default();
    plan.look_at_jobs(cron, world);
    if cron.deletion_timestamp().is_some() {
        return plan;
    }
    plan.clean_up(cron, world);
    if cron.bool_at("/spec/suspend") != Some(true) {
        plan.look_at_clock(cron, world);
    }
    plan
}

fn named(job: &Object) -> (Ref, String) {
    (job.reference(), job.uid().to_owned())
}

fn reference(job: &Object) -> Value {
    json!({"kind": "Job", "namespace": job.namespace(), "name": job.name(), "uid": job.uid(), "apiVersion": "batch/v1",
        "resourceVersion": job.resource_version()})
}

/// The name of the Job of one moment.
fn job_name(cron: &Object, at: Timestamp) -> String {
    format!("{}-{}", cron.name(), at.as_second().div_euclid(60))
}

impl Plan {
    /// Which Jobs run, which have ended since, and when one last succeeded. A Job that somebody has made of the template by
    /// hand does not count as a run.
    fn look_at_jobs(&mut self, cron: &Object, world: &World) {
        let listed = cron.array_at("/status/active");
        let recorded = parse(cron.str_at("/status/lastScheduleTime"));
        self.last_run = recorded;
        self.last_success = parse(cron.str_at("/status/lastSuccessfulTime"));
        for of in listed.iter().filter(|of| !world.jobs.iter().any(|job| of["uid"] == job.uid())) {
            let name = of["name"].as_str().unwrap_or("");
            self.events.push(("Normal", "MissingJob", format!("Active job went missing: {name}")));
        }
        for job in &world.jobs {
            let known = listed.iter().find(|of| of["uid"] == job.uid());
            // One that was made by a turn that was cut off before it could say so is known by its name.
            let of = job.annotation(SCHEDULED).and_then(parse).filter(|at| job_name(cron, *at) == job.name());
            let unrecorded = of > recorded;
            self.last_run = self.last_run.max(of);
            let Some(end) = is_finished(job) else {
                if known.is_some() || unrecorded {
                    self.active.push(known.cloned().unwrap_or_else(|| reference(job)));
                }
                continue;
            };
            let kind = end["type"].as_str().unwrap_or("");
            if known.is_some() {
                let message = format!("Saw completed job: {}, condition: {kind}", job.name());
                self.events.push(("Normal", "SawCompletedJob", message));
            }
            if kind == "Complete" {
                self.last_success = self.last_success.max(parse(job.str_at("/status/completionTime")));
            }
        }
        self.active.sort_by_key(|of| listed.iter().position(|l| l["uid"] == of["uid"]).unwrap_or(usize::MAX));
    }

    /// Of the Jobs that have ended, the newest are kept: so many that succeeded, so many that failed.
    fn clean_up(&mut self, cron: &Object, world: &World) {
        for (kind, limit) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
            let Some(limit) = cron.i64_at(&format!("/spec/{limit}")).and_then(|l| usize::try_from(l).ok()) else {
                continue;
            };
            let ended = |job: &&Arc<Object>| is_finished(job).is_some_and(|end| end["type"] == kind);
            let mut jobs: Vec<&Arc<Object>> =
                world.jobs.iter().filter(ended).filter(|job| job.deletion_timestamp().is_none()).collect();
            jobs.sort_by_key(|job| (job.str_at("/status/startTime").to_owned(), job.name().to_owned()));
            let surplus = jobs.len().saturating_sub(limit);
            self.delete.extend(jobs[..surplus].iter().map(|job| named(job)));
        }
    }

    fn look_at_clock(&mut self, cron: &Object, world: &World) {
        let (text, name) = (cron.str_at("/spec/schedule"), cron.str_at("/spec/timeZone"));
        let zone = if name.is_empty() { Some(TimeZone::UTC) } else { cron::zone(name) };
        let Some(zone) = zone else {
            let message = format!("invalid timeZone: {name:?}: unknown time zone {name}");
            return self.events.push(("Warning", "UnknownTimeZone", message));
        };
        let schedule = match Schedule::parse(text) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {text:?} : {error}");
                return self.events.push(("Warning", "UnparseableSchedule", message));
            }
        };
        let due = self.due(cron, world.now, &schedule, &zone);
        let after = self.next_look(cron, due, world.now, &schedule, &zone);
        self.check_again = after.map(|at| {
            let wait = Duration::try_from(at.duration_since(world.now)).unwrap_or_default();
            wait + LATER
        });
        if let Some(at) = due {
            self.run(cron, world, at, &zone);
        }
    }

    /// The newest moment that has come, was not run, and is not too long ago.
    fn due(&mut self, cron: &Object, now: Timestamp, schedule: &Schedule, zone: &TimeZone) -> Option<Timestamp> {
        let last = self.last_look(cron)?;
        let mut since = last;
        let deadline = cron.i64_at("/spec/startingDeadlineSeconds");
        let oldest = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        if let Some(oldest) = oldest {
            // The moment at the deadline itself is still in time.
            since = since.max(oldest.checked_sub(SignedDuration::from_secs(1)).unwrap_or(oldest));
        }
        let missed = schedule.missed(since, now, zone);
        if missed.many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.events.push(("Warning", "TooManyMissedTimes", message.to_owned()));
        }
        if missed.last.is_none()
            && oldest.is_some()
            && let Some(at) = schedule.missed(last, now, zone).last
        {
            let at = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.events.push(("Warning", "MissSchedule", format!("Missed scheduled time to start a job: {at}")));
        }
        missed.last
    }

    fn next_look(
        &self,
        cron: &Object,
        due: Option<Timestamp>,
        now: Timestamp,
        schedule: &Schedule,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        // A delay counts from the last time; the clock's moments do not depend on it.
        let from = match schedule {
            Schedule::Every(_) => due.or_else(|| self.last_look(cron)).unwrap_or(now),
            Schedule::At(_) => now,
        };
        schedule.next(from, zone).map(|at| at.max(now))
    }

    fn run(&mut self, cron: &Object, world: &World, at: Timestamp, zone: &TimeZone) {
        let name = job_name(cron, at);
        match cron.str_at("/spec/concurrencyPolicy") {
            "Forbid" if !self.active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.events.push(("Normal", "JobAlreadyActive", message.to_owned()));
            }
            "Replace" => {
                let runs = |job: &&Arc<Object>| self.active.iter().any(|of| of["uid"] == job.uid());
                self.delete.extend(world.jobs.iter().filter(runs).map(|job| named(job)));
                self.active.clear();
            }
            _ => {}
        }
        self.start = Some(Start { job: job(cron, &name, at, zone), at });
    }

    /// The last moment that was run, or, before the first, when the CronJob was made.
    fn last_look(&self, cron: &Object) -> Option<Timestamp> {
        self.last_run.or_else(|| parse(cron.str_at("/metadata/creationTimestamp")))
    }
}

fn job(cron: &Object, name: &str, at: Timestamp, zone: &TimeZone) -> Object {
    let template = cron.get("/spec/jobTemplate").cloned().unwrap_or_default();
    let mut job = Object::from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "spec": template["spec"]}))
        .unwrap_or_default();
    let metadata = job.metadata_mut();
    if let Some(labels) = template["metadata"].get("labels") {
        metadata.insert("labels".to_owned(), labels.clone());
    }
    let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let offset = if local.offset().is_zero() { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    annotations.insert(SCHEDULED.to_owned(), json!(format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S"))));
    metadata.insert("annotations".to_owned(), json!(annotations));
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(cron.namespace()));
    metadata.insert("ownerReferences".to_owned(), json!([owner_reference(cron)]));
    job
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
