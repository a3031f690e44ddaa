//! What other parts of the agent ask of the pods: that one ends before its time, and which there are.

use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::pod::is_terminal;
use tokio::sync::oneshot;
use tracing::warn;

use super::Pods;
use crate::events::Kind;
use crate::pod::want::{Failed, Goal};
use crate::pod::worker::Desired;

#[derive(Debug)]
pub enum Order {
    End(Termination),
    /// The pods that have not had their run. Whoever comes later was admitted later.
    Tell(oneshot::Sender<Vec<Arc<Object>>>),
}

/// One pod that has to go, and is not taken again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    pub uid: String,
    /// What it gets to end at most, where that is less than its own time.
    pub grace_seconds: i64,
    /// Its status's, as long as the API has it.
    pub reason: &'static str,
    pub message: String,
    /// Whether an event tells of it, too.
    pub is_event: bool,
}

impl Pods {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::End(termination) => self.terminate(termination),
            Order::Tell(answer) => {
                self.asking.push(answer);
                self.answer();
            }
        }
    }

    /// Once every source has told what was there when the agent began.
    pub(super) fn answer(&mut self) {
        if self.held.is_none() || !self.has_manifests() {
            return;
        }
        for answer in std::mem::take(&mut self.asking) {
            let desired = self.entries.values().map(|entry| entry.desired.borrow());
            let pods = desired.filter(|d| !is_terminal(&d.pod)).map(|d| d.pod.clone()).collect();
            // Who asked may have gone.
            let _ = answer.send(pods);
        }
    }

    fn terminate(&mut self, termination: Termination) {
        let Some(entry) = self.entries.get(&termination.uid) else { return };
        if !entry.desired.send_if_modified(|desired| end(desired, &termination)) {
            return;
        }
        let Termination { reason, message, .. } = termination;
        let pod = entry.desired.borrow().pod.clone();
        warn!(pod = %pod.reference(), reason, message, "the pod has to end");
        if termination.is_event {
            self.shared.events.pod(&pod, None, Kind::Warning, reason, message);
        }
    }
}

/// One that is ending already may have less time for it from now on; why it ends stays what it was. Whether that changes
/// anything.
fn end(desired: &mut Desired, termination: &Termination) -> bool {
    let before = (desired.goal, desired.failed.clone());
    let most = termination.grace_seconds;
    let mut failed = desired.failed.clone().unwrap_or_else(|| Failed {
        reason: termination.reason.to_owned(),
        message: termination.message.clone(),
        disrupted: true,
        grace_max_seconds: None,
    });
    failed.grace_max_seconds = Some(failed.grace_max_seconds.map_or(most, |before| before.min(most)));
    desired.goal = desired.goal.under(Some(&failed), &desired.pod);
    // Nobody is told any more why a pod goes that nobody knows.
    if !matches!(desired.goal, Goal::Forget { .. }) {
        desired.failed = Some(failed);
    }
    before != (desired.goal, desired.failed.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::worker::Source;
    use serde_json::json;

    fn ordered(goal: Goal, failed: Option<Failed>, grace_seconds: i64) -> (bool, Goal, Option<Failed>) {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"terminationGracePeriodSeconds": 30}});
        let pod = Arc::new(Object::from_value(pod).unwrap());
        let mut desired = Desired { pod, goal, failed, resize: None, source: Source::Api, report_to: None };
        let termination = Termination {
            uid: "u".into(),
            grace_seconds,
            reason: "Terminated",
            message: "the node goes".into(),
            is_event: false,
        };
        let changed = end(&mut desired, &termination);
        assert!(!end(&mut desired, &termination), "what was told already changes nothing");
        (changed, desired.goal, desired.failed)
    }

    #[test]
    fn a_pod_that_ends_already_may_have_less_time_and_keeps_its_reason() {
        let (changed, goal, failed) = ordered(Goal::Run, None, 20);
        let failed = failed.unwrap();
        assert_eq!((changed, goal), (true, Goal::Fail { grace_seconds: 20 }));
        assert_eq!(
            (failed.reason.as_str(), failed.disrupted, failed.grace_max_seconds),
            ("Terminated", true, Some(20))
        );
        assert_eq!(ordered(Goal::Run, None, 60).1, Goal::Fail { grace_seconds: 30 }, "never more than its own");

        let (_, goal, failed) = ordered(Goal::Stop { grace_seconds: 3600 }, None, 5);
        assert_eq!((goal, failed.unwrap().reason.as_str()), (Goal::Stop { grace_seconds: 5 }, "Terminated"));
        let evicted = Failed { reason: "Evicted".into(), grace_max_seconds: Some(9), ..Failed::default() };
        let fails = Goal::Fail { grace_seconds: 9 };
        for (grace_seconds, left) in [(5, 5), (20, 9)] {
            let (changed, goal, failed) = ordered(fails, Some(evicted.clone()), grace_seconds);
            assert_eq!((changed, goal), (left == 5, Goal::Fail { grace_seconds: left }));
            let failed = failed.unwrap();
            assert_eq!((failed.reason.as_str(), failed.disrupted), ("Evicted", false));
        }
        let (changed, goal, failed) = ordered(Goal::Forget { grace_seconds: 40 }, None, 5);
        assert_eq!((changed, goal, failed), (true, Goal::Forget { grace_seconds: 5 }, None));
    }
}
