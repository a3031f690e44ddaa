use super::*;
use proptest::prelude::*;

const MADE: &str = "2025-01-01T00:00:30Z";

/// A cluster in which what is planned happens, as far as a test lets it.
struct Cluster {
    cron: Object,
    world: World,
    /// Every Job that ever was, by name.
    made: Vec<String>,
    events: Vec<&'static str>,
}

impl Cluster {
    fn new(spec: Value) -> Cluster {
        let mut value = json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "c", "namespace": "a", "uid": "o", "creationTimestamp": MADE},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3,
                     "failedJobsHistoryLimit": 1, "jobTemplate": {"metadata": {"labels": {"l": "v"}, "annotations": {"n": "v"}},
                     "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}},
            "status": {},
        });
        json_patch::merge(&mut value, &json!({"spec": spec}));
        let world = World { jobs: Vec::new(), now: MADE.parse().unwrap() };
        Cluster { cron: Object::from_value(value).unwrap(), world, made: Vec::new(), events: Vec::new() }
    }

    fn plan(&self) -> Plan {
        plan(&self.cron, &self.world)
    }

    /// One turn, of which only the first `steps` effects are done before it is cut off. True where it did anything.
    fn turn(&mut self, mut steps: usize) -> bool {
        let plan = self.plan();
        let mut may = || steps.checked_sub(1).map(|left| steps = left).is_some();
        self.events.extend(plan.events.iter().map(|(_, reason, _)| *reason));
        for (_, uid) in &plan.delete {
            if !may() {
                return true;
            }
            self.world.jobs.retain(|job| job.uid() != uid);
        }
        let mut made = None;
        if let Some(start) = &plan.start {
            if !may() {
                return true;
            }
            let mut job = start.job.clone();
            assert!(!self.world.jobs.iter().any(|there| there.name() == job.name()), "{} is made twice", job.name());
            let uid = format!("u-{}", job.name());
            job.metadata_mut().insert("uid".into(), json!(uid));
            job.0.insert("status".into(), json!({"startTime": format_seconds(self.world.now)}));
            self.made.push(job.name().to_owned());
            self.world.jobs.push(Arc::new(job.clone()));
            made = Some((start, job));
        }
        let status = plan.status(made.as_ref().map(|(start, job)| (*start, job)));
        let changed = self.cron.get("/status") != Some(&status);
        if may() {
            self.cron.0.insert("status".into(), status);
        }
        changed || plan.start.is_some() || !plan.delete.is_empty()
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            if !self.turn(usize::MAX) {
                return;
            }
        }
        panic!("it never settles: {:?}", self.plan());
    }

    /// Waits for as long as the plan asks, and not longer, until that moment has come.
    fn wait_until(&mut self, time: &str) {
        let end: Timestamp = time.parse().unwrap();
        self.settle();
        while let Some(wait) = self.plan().check_again {
            let next = self.world.now + wait;
            if next > end {
                break;
            }
            self.world.now = next;
            self.settle();
        }
        self.world.now = end;
        self.settle();
    }

    fn end(&mut self, name: &str, kind: &str) {
        let now = format_seconds(self.world.now);
        let job = self.world.jobs.iter_mut().find(|job| job.name() == name).unwrap();
        let status = Arc::make_mut(job).map_mut("status");
        status.insert("conditions".into(), json!([{"type": kind, "status": "True"}]));
        status.insert("completionTime".into(), json!(now));
    }

    fn names(&self) -> Vec<&str> {
        self.world.jobs.iter().map(|job| job.name().trim_start_matches("c-")).collect()
    }

    fn active(&self) -> usize {
        self.cron.array_at("/status/active").len()
    }

    fn change(&mut self, spec: Value) {
        let mut value = self.cron.clone().into_value();
        json_patch::merge(&mut value, &json!({"spec": spec}));
        self.cron = Object::from_value(value).unwrap();
    }
}

#[test]
fn a_job_comes_each_time_and_is_named_after_it() {
    let mut cluster = Cluster::new(json!({"schedule": "*/5 * * * *", "timeZone": "Asia/Kolkata"}));
    cluster.settle();
    assert_eq!(cluster.plan().check_again, Some(Duration::from_millis(270_100)));
    cluster.wait_until("2025-01-01T00:12:00Z");
    assert_eq!((cluster.names(), cluster.active()), (vec!["28928165", "28928170"], 2));
    let job = &cluster.world.jobs[1];
    assert_eq!((job.label("l"), job.annotation("n")), (Some("v"), Some("v")));
    assert_eq!(job.annotation(SCHEDULED), Some("2025-01-01T05:40:00+05:30"));
    assert_eq!((job.str_at("/metadata/ownerReferences/0/kind"), job.namespace()), ("CronJob", "a"));
    assert_eq!(cluster.cron.str_at("/status/lastScheduleTime"), "2025-01-01T00:10:00Z");
    assert_eq!(cluster.cron.str_at("/status/active/0/name"), "c-28928165");
    cluster.end("c-28928165", "Complete");
    cluster.settle();
    assert_eq!((cluster.active(), cluster.cron.str_at("/status/lastSuccessfulTime")), (1, "2025-01-01T00:12:00Z"));
    cluster.world.jobs.remove(1);
    cluster.settle();
    assert_eq!((cluster.active(), &cluster.events[..]), (0, &["SawCompletedJob", "MissingJob"][..]));
    assert_eq!(cluster.cron.str_at("/status/lastScheduleTime"), "2025-01-01T00:10:00Z");
}

#[test]
fn who_forbids_waits_and_then_makes_up_for_it_once() {
    let mut cluster = Cluster::new(json!({"concurrencyPolicy": "Forbid"}));
    cluster.wait_until("2025-01-01T00:04:20Z");
    assert_eq!(cluster.names(), ["28928161"]);
    assert!(cluster.events.contains(&"JobAlreadyActive"));
    cluster.end("c-28928161", "Complete");
    cluster.settle();
    assert_eq!((cluster.names(), cluster.active()), (vec!["28928161", "28928164"], 1));
}

#[test]
fn who_replaces_ends_what_still_runs() {
    let mut cluster = Cluster::new(json!({"concurrencyPolicy": "Replace"}));
    cluster.wait_until("2025-01-01T00:03:10Z");
    assert_eq!((cluster.names(), cluster.active(), cluster.made.len()), (vec!["28928163"], 1, 3));
}

#[test]
fn what_is_too_late_is_left_out() {
    let mut cluster = Cluster::new(json!({"schedule": "0 * * * *", "startingDeadlineSeconds": 60}));
    cluster.world.now = "2025-01-01T01:01:05Z".parse().unwrap();
    cluster.settle();
    assert_eq!((cluster.names().len(), cluster.events[0]), (0, "MissSchedule"));
    cluster.world.now = "2025-01-01T02:01:00Z".parse().unwrap();
    cluster.settle();
    assert_eq!(cluster.names(), ["28928280"]);
    // Without a bound the last of very many is run, and that there were many is told.
    let mut cluster = Cluster::new(json!({}));
    cluster.world.now = "2025-01-02T00:00:00Z".parse().unwrap();
    cluster.settle();
    assert_eq!((cluster.names(), &cluster.events[..1]), (vec!["28929600"], &["TooManyMissedTimes"][..]));
}

#[test]
fn one_that_is_suspended_starts_nothing_and_then_the_last_that_it_missed() {
    let mut cluster = Cluster::new(json!({"suspend": true}));
    cluster.wait_until("2025-01-01T00:10:00Z");
    assert_eq!((cluster.names().len(), cluster.plan()), (0, Plan::default()));
    cluster.change(json!({"suspend": false}));
    cluster.settle();
    assert_eq!(cluster.names(), ["28928170"]);
}

#[test]
fn the_newest_of_those_that_ended_are_kept() {
    let mut cluster = Cluster::new(json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0}));
    cluster.wait_until("2025-01-01T00:05:00Z");
    for (name, kind) in cluster.made.clone().iter().zip(["Complete", "Failed", "Complete", "Complete"]) {
        cluster.end(name, kind);
    }
    cluster.settle();
    assert_eq!((cluster.names(), cluster.active()), (vec!["28928163", "28928164", "28928165"], 1));
}

#[test]
fn a_job_made_by_hand_is_no_run() {
    let mut cluster = Cluster::new(json!({"concurrencyPolicy": "Forbid"}));
    let by_hand = json!({"metadata": {"name": "x", "namespace": "a", "uid": "x"}, "spec": {}, "status": {}});
    cluster.world.jobs.push(Arc::new(Object::from_value(by_hand).unwrap()));
    cluster.wait_until("2025-01-01T00:01:10Z");
    assert_eq!((cluster.names(), cluster.active()), (vec!["x", "28928161"], 1));
}

#[test]
fn what_cannot_be_read_is_told() {
    for (spec, reason) in
        [(json!({"schedule": "often"}), "UnparseableSchedule"), (json!({"timeZone": "Nowhere"}), "UnknownTimeZone")]
    {
        let mut cluster = Cluster::new(spec);
        cluster.world.now = "2025-01-01T01:00:00Z".parse().unwrap();
        cluster.settle();
        assert_eq!((cluster.names().len(), cluster.events[0]), (0, reason));
    }
}

proptest! {
    /// Wherever a turn is cut off, no moment is run twice, the policy holds, and once all is done there is nothing to do.
    #[test]
    fn no_moment_is_run_twice(
        policy in prop::sample::select(vec!["Allow", "Forbid", "Replace"]),
        deadline in prop::option::of(0_i64..200), kept in 0_i64..3,
        steps in prop::collection::vec((0_i64..150, 0_usize..4, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut cluster = Cluster::new(json!({"concurrencyPolicy": policy, "startingDeadlineSeconds": deadline,
            "successfulJobsHistoryLimit": kept}));
        for (seconds, effects, ends, succeeds) in steps {
            cluster.world.now += SignedDuration::from_secs(seconds);
            cluster.turn(effects);
            let running = |job: &&Arc<Object>| is_finished(job).is_none();
            let names: Vec<String> = cluster.world.jobs.iter().filter(running).map(|j| j.name().to_owned()).collect();
            prop_assert!(policy == "Allow" || names.len() <= 1, "{:?} run at once", names);
            if let Some(name) = names.first().filter(|_| ends) {
                cluster.end(name, if succeeds { "Complete" } else { "Failed" });
            }
            // Whoever was made is in the status before it can be forgotten.
            cluster.turn(usize::MAX);
        }
        cluster.settle();
        let mut once = cluster.made.clone();
        once.dedup();
        prop_assert_eq!(&once, &cluster.made);
        let plan = cluster.plan();
        prop_assert!(plan.start.is_none() && plan.delete.is_empty());
        prop_assert_eq!(Some(&plan.status(None)), cluster.cron.get("/status"));
    }
}
