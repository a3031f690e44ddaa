use super::*;
use proptest::prelude::*;

fn job(spec: Value) -> Object {
    let mut value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "a", "uid": "o", "generation": 1},
        "spec": {"parallelism": 1, "backoffLimit": 6, "selector": {"matchLabels": {"app": "j"}},
                 "template": {"metadata": {"labels": {"app": "j"}},
                              "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
    });
    json_patch::merge(&mut value, &json!({"spec": spec}));
    Object::from_value(value).unwrap()
}

/// A cluster in which what is planned happens, as far as a test lets it.
struct Cluster {
    job: Object,
    pods: Vec<Arc<Pod>>,
    second: i64,
    made: usize,
    /// What ended, by phase: what the status must come to.
    ended: BTreeMap<&'static str, i64>,
}

impl Cluster {
    fn new(spec: Value) -> Cluster {
        Cluster { job: job(spec), pods: Vec::new(), second: 1000, made: 0, ended: BTreeMap::new() }
    }

    fn plan(&self) -> Plan {
        let now = Timestamp::from_second(self.second).unwrap();
        plan(&self.job, &self.pods, &Outstanding::default(), now, |_| format!("x{:04}", self.made))
    }

    /// One turn, of which only the first `steps` effects are done before it is cut off.
    fn turn(&mut self, mut steps: usize) -> bool {
        let plan = self.plan();
        let mut may = || steps.checked_sub(1).map(|left| steps = left).is_some();
        if let Some(status) = plan.status.clone().filter(|_| may()) {
            self.job.0.insert("status".into(), status);
        }
        for (_, uid) in &plan.release {
            if !may() {
                break;
            }
            for pod in self.pods.iter_mut().filter(|pod| &pod.uid == uid) {
                Arc::make_mut(pod).job.as_mut().unwrap().tracked = false;
            }
        }
        for (_, uid) in &plan.delete {
            for pod in self.pods.iter_mut().filter(|pod| &pod.uid == uid) {
                Arc::make_mut(pod).deleting = true;
            }
        }
        for made in &plan.create {
            self.made += 1;
            let mut object = made.clone();
            object.metadata_mut().insert("uid".into(), json!(format!("u{}", self.made)));
            object.metadata_mut().insert("name".into(), json!(format!("j-{}", self.made)));
            object.0.insert("status".into(), json!({"phase": "Pending"}));
            object.map_mut("spec").insert("nodeName".into(), json!("n"));
            self.pods.push(Arc::new(Pod::project(object)));
        }
        // What goes and is held by nothing is gone.
        self.pods.retain(|pod| !pod.deleting || pod.job.as_ref().unwrap().tracked);
        plan.status.is_some() || !plan.create.is_empty() || !plan.delete.is_empty() || !plan.release.is_empty()
    }

    fn end(&mut self, uid: &str, phase: &'static str, code: i64) {
        let at = Timestamp::from_second(self.second).unwrap().to_string();
        let pod = self.pods.iter_mut().find(|pod| pod.uid == uid && !pod.finished()).unwrap();
        let pod = Arc::make_mut(pod);
        pod.phase = phase.to_owned();
        let run = pod.job.as_mut().unwrap();
        (run.finished, run.exits) = (at, vec![("c".to_owned(), code)]);
        *self.ended.entry(phase).or_default() += 1;
    }

    fn running(&self) -> Vec<String> {
        self.pods.iter().filter(|pod| pod.active()).map(|pod| pod.uid.clone()).collect()
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.turn(usize::MAX) {
                return;
            }
        }
        panic!("it never settles: {:?}", self.plan());
    }

    fn end_all(&mut self, phase: &'static str, code: i64) {
        for uid in self.running() {
            self.end(&uid, phase, code);
        }
        self.settle();
    }

    fn count(&self, field: &str) -> i64 {
        self.job.i64_at(&format!("/status/{field}")).unwrap_or(0)
    }

    fn outcome(&self) -> Option<(String, String)> {
        let text = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
        is_finished(&self.job).map(|c| (text(c, "type"), text(c, "reason")))
    }
}

fn came_to(kind: &str, reason: &str) -> Option<(String, String)> {
    Some((kind.to_owned(), reason.to_owned()))
}

#[test]
fn as_many_as_are_wanted_and_not_more_at_a_time() {
    let mut cluster = Cluster::new(json!({"completions": 3, "parallelism": 2}));
    cluster.settle();
    assert_eq!((cluster.running().len(), cluster.count("active")), (2, 2));
    cluster.end_all("Succeeded", 0);
    assert_eq!((cluster.running().len(), cluster.count("succeeded")), (1, 2));
    cluster.end_all("Succeeded", 0);
    assert_eq!(cluster.outcome(), came_to("Complete", "CompletionsReached"));
    assert_eq!((cluster.count("succeeded"), cluster.count("active"), cluster.pods.len()), (3, 0, 3));
    assert!(cluster.job.get("/status/completionTime").is_some());
    assert!(cluster.pods.iter().all(|pod| !pod.job.as_ref().unwrap().tracked), "a pod is still held");
}

#[test]
fn failures_are_tried_again_later_and_later_and_then_no_more() {
    let mut cluster = Cluster::new(json!({"completions": 1, "backoffLimit": 2}));
    cluster.settle();
    for wait in [10, 20] {
        cluster.end_all("Failed", 1);
        assert!(cluster.running().is_empty());
        assert_eq!(cluster.plan().check_again, Some(Duration::from_secs(wait)));
        cluster.second += i64::try_from(wait).unwrap();
        cluster.settle();
        assert_eq!(cluster.running().len(), 1);
    }
    cluster.end_all("Failed", 1);
    assert_eq!((cluster.outcome(), cluster.count("failed")), (came_to("Failed", "BackoffLimitExceeded"), 3));
}

#[test]
fn every_index_succeeds_once_and_is_told_which_it_is() {
    let mut cluster = Cluster::new(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"}));
    let pod = cluster.plan().create.remove(1);
    assert_eq!((pod.label(INDEX), pod.str_at("/spec/hostname")), (Some("1"), "j-1"));
    assert_eq!(pod.str_at("/spec/containers/0/env/0/name"), "JOB_COMPLETION_INDEX");
    cluster.settle();
    cluster.end("u1", "Succeeded", 0);
    cluster.end("u3", "Succeeded", 0);
    cluster.settle();
    assert_eq!(cluster.job.str_at("/status/completedIndexes"), "0,2");
    cluster.end_all("Succeeded", 0);
    assert_eq!(cluster.job.str_at("/status/completedIndexes"), "0-3");
    assert_eq!(cluster.outcome(), came_to("Complete", "CompletionsReached"));
}

#[test]
fn an_index_fails_alone_up_to_a_bound() {
    let spec = |bound: Value| {
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
               "backoffLimit": i32::MAX, "maxFailedIndexes": bound})
    };
    let mut cluster = Cluster::new(spec(Value::Null));
    cluster.settle();
    cluster.end("u1", "Failed", 1);
    cluster.settle();
    assert_eq!((cluster.job.str_at("/status/failedIndexes"), cluster.outcome()), ("0", None));
    cluster.end_all("Succeeded", 0);
    assert_eq!(cluster.outcome(), came_to("Failed", "FailedIndexes"));
    let mut cluster = Cluster::new(spec(json!(0)));
    cluster.settle();
    cluster.end("u1", "Failed", 1);
    cluster.settle();
    assert_eq!(cluster.outcome(), came_to("Failed", "MaxFailedIndexesExceeded"));
    assert!(cluster.running().is_empty());
}

#[test]
fn a_failure_means_what_the_policy_says() {
    let spec = |action: &str| {
        let rule = json!({"action": action, "onExitCodes": {"operator": "In", "values": [42]}});
        json!({"completions": 1, "backoffLimit": 0, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": [rule]}})
    };
    let mut cluster = Cluster::new(spec("FailJob"));
    cluster.settle();
    cluster.end_all("Failed", 42);
    assert_eq!(cluster.outcome(), came_to("Failed", "PodFailurePolicy"));
    let why = cluster.job.str_at("/status/conditions/0/message");
    assert_eq!(why, "Container c for pod a/j-1 failed with exit code 42 matching FailJob rule at index 0");
    let mut cluster = Cluster::new(spec("Ignore"));
    cluster.settle();
    cluster.end_all("Failed", 42);
    assert_eq!((cluster.outcome(), cluster.count("failed")), (None, 0));
    cluster.second += 60;
    cluster.settle();
    cluster.end_all("Failed", 1);
    assert_eq!(cluster.outcome(), came_to("Failed", "BackoffLimitExceeded"));
}

#[test]
fn enough_is_what_the_success_policy_says() {
    let mut cluster = Cluster::new(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}}));
    cluster.settle();
    cluster.end("u2", "Succeeded", 0);
    cluster.settle();
    assert_eq!(cluster.outcome(), None);
    cluster.end("u3", "Succeeded", 0);
    cluster.settle();
    assert_eq!(cluster.outcome(), came_to("Complete", "SuccessPolicy"));
}

#[test]
fn one_that_is_suspended_has_no_pods_and_no_failures() {
    let mut cluster = Cluster::new(json!({"completions": 2, "parallelism": 2}));
    cluster.settle();
    cluster.job.map_mut("spec").insert("suspend".into(), json!(true));
    cluster.settle();
    assert_eq!((cluster.pods.len(), cluster.count("failed")), (0, 0));
    assert_eq!(cluster.job.str_at("/status/conditions/0/reason"), "JobSuspended");
    assert_eq!(cluster.job.get("/status/startTime"), None);
    cluster.job.map_mut("spec").insert("suspend".into(), json!(false));
    cluster.settle();
    assert_eq!(cluster.running().len(), 2);
    assert_eq!(cluster.job.str_at("/status/conditions/0/reason"), "JobResumed");
}

#[test]
fn it_ends_at_its_deadline_and_goes_when_its_time_is_over() {
    let mut cluster =
        Cluster::new(json!({"completions": 1, "activeDeadlineSeconds": 30, "ttlSecondsAfterFinished": 5}));
    cluster.settle();
    assert_eq!(cluster.plan().check_again, Some(Duration::from_secs(30)));
    cluster.second += 30;
    cluster.settle();
    assert_eq!(cluster.outcome(), came_to("Failed", "DeadlineExceeded"));
    assert_eq!((cluster.plan().check_again, cluster.plan().expired), (Some(Duration::from_secs(5)), false));
    cluster.second += 5;
    assert!(cluster.plan().expired);
}

#[test]
fn a_queue_of_work_is_done_when_one_has_found_it_empty_and_the_rest_have_ended() {
    let mut cluster = Cluster::new(json!({"parallelism": 3}));
    cluster.settle();
    cluster.end("u1", "Succeeded", 0);
    cluster.settle();
    assert_eq!((cluster.running().len(), cluster.outcome()), (2, None));
    cluster.end_all("Succeeded", 0);
    assert_eq!((cluster.count("succeeded"), cluster.outcome()), (3, came_to("Complete", "CompletionsReached")));
}

proptest! {
    /// Wherever a turn is cut off, every pod that ended is counted once, and never are more at work than may be.
    #[test]
    fn every_end_is_counted_once(
        completions in 1_i64..6, parallelism in 1_i64..4,
        steps in proptest::collection::vec((any::<u8>(), any::<bool>(), 0_usize..4), 1..40),
    ) {
        let spec = json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 1000});
        let mut cluster = Cluster::new(spec);
        for (pick, succeeds, effects) in steps {
            cluster.turn(effects);
            prop_assert!(cluster.running().len() as i64 <= parallelism);
            let running = cluster.running();
            if let Some(uid) = running.get(usize::from(pick) % running.len().max(1)) {
                if succeeds { cluster.end(uid, "Succeeded", 0) } else { cluster.end(uid, "Failed", 1) }
            }
            cluster.second += 400;
        }
        while cluster.outcome().is_none() {
            cluster.settle();
            cluster.second += 400;
            cluster.settle();
            cluster.end_all("Succeeded", 0);
        }
        cluster.settle();
        let of = |phase: &str| cluster.ended.get(phase).copied().unwrap_or(0);
        prop_assert_eq!((cluster.count("succeeded"), cluster.count("failed")), (of("Succeeded"), of("Failed")));
        prop_assert_eq!(cluster.count("succeeded"), completions);
        prop_assert!(cluster.plan() == Plan::default(), "not empty after a full apply");
    }
}
