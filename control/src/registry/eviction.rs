//! An eviction is a delete that asks the pod's disruption budget first. What it takes from the budget and what it does to
//! the pod are one write: of any number of evictions at once, as many are done as the budget allows.

use gantry_env::format_seconds;
use gantry_kube::resource::{POD, POD_DISRUPTION_BUDGET};
use gantry_kube::{Object, Ref, Status};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::admit::Target;
use super::create::write_status;
use super::deletion::{self, Deletion};
use super::update::SWAP_TRIES;
use super::{DeleteOptions, Registry, Writer};
use crate::admission::Operation;
use crate::controllers::disruption::plan::{conditions, selects};
use crate::store::cache::{Change, WriteError};

/// Pods that one budget has let go and that are not seen to be gone.
const EVICTED_MAX: usize = 2000;
/// The controller has seen a changed budget long before this.
const RETRY_SECONDS: u32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What an eviction costs.
#[derive(Debug, PartialEq)]
pub(crate) enum Permit {
    Free,
    /// The budget, with one disruption less to give.
    Paid(Box<Object>),
}

/// Whether a pod that these budgets are about may be evicted.
pub(crate) fn permit(pod: &Object, budgets: &[&Object], now: Timestamp) -> Result<Permit, Status> {
    let phase = pod.str_at("/status/phase");
    // What is over, or has never begun, serves nobody.
    if pod.deletion_timestamp().is_some() || matches!(phase, "Succeeded" | "Failed" | "Pending") {
        return Ok(Permit::Free);
    }
    let budget = match budgets {
        [] => return Ok(Permit::Free),
        [budget] => budget,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, "", why));
        }
    };
    let number = |field: &str| budget.i64_at(&format!("/status/{field}")).unwrap_or(0);
    let ready = pod.array_at("/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    if !ready {
        let enough = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        if budget.str_at("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow" || enough {
            return Ok(Permit::Free);
        }
    }
    spend(pod, budget, now)
}

fn spend(pod: &Object, budget: &Object, now: Timestamp) -> Result<Permit, Status> {
    let name = budget.name();
    let forbidden = |why: &str| Err(Status::forbidden(&POD_DISRUPTION_BUDGET, name, why));
    if budget.i64_at("/status/observedGeneration").unwrap_or(0) < budget.generation() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(RETRY_SECONDS, &why));
    }
    let allowed = budget.i64_at("/status/disruptionsAllowed").unwrap_or(0);
    let evicted = budget.get("/status/disruptedPods").and_then(Value::as_object).map_or(0, Map::len);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if evicted > EVICTED_MAX {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refused(0, &why_none(budget)));
    }
    let mut spent = budget.clone();
    if allowed == 1 {
        let told = conditions(budget, false, "InsufficientPods", "", now);
        spent.map_mut("status").insert("conditions".to_owned(), told);
    }
    let status = spent.map_mut("status");
    status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
    pods[pod.name()] = json!(format_seconds(now));
    Ok(Permit::Paid(Box::new(spent)))
}

fn why_none(budget: &Object) -> String {
    let name = budget.name();
    let failed = budget.array_at("/status/conditions").iter().find(|c| c["reason"] == "SyncFailed");
    if let Some(condition) = failed {
        let why = condition["message"].as_str().unwrap_or("");
        return format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
        );
    }
    let number = |field: &str| budget.i64_at(&format!("/status/{field}")).unwrap_or(0);
    let (wanted, current) = (number("desiredHealthy"), number("currentHealthy"));
    format!("The disruption budget {name} needs {wanted} healthy pods and has {current} currently")
}

/// 429, with the budget's part in it as a cause.
fn refused(retry_after_seconds: u32, why: &str) -> Status {
    let mut status = Status::new(429, "TooManyRequests", REFUSED);
    status.details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if retry_after_seconds > 0 {
        status.details["retryAfterSeconds"] = json!(retry_after_seconds);
    }
    status
}

/// The pod with the condition that tells its owner why it ends.
fn told(pod: &Object, now: Timestamp) -> Object {
    let mut told = pod.clone();
    let mut all: Vec<Value> =
        pod.array_at("/status/conditions").iter().filter(|c| c["type"] != "DisruptionTarget").cloned().collect();
    let mut condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": format_seconds(now)});
    if pod.generation() > 0 {
        condition["observedGeneration"] = json!(pod.generation());
    }
    all.push(condition);
    told.map_mut("status").insert("conditions".to_owned(), json!(all));
    told
}

impl Registry {
    /// `eviction` is the request's body.
    pub async fn evict(
        &self,
        writer: &Writer<'_>,
        at: &Ref,
        mut eviction: Object,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let target = Target {
            resource: &POD,
            subresource: "eviction",
            operation: Operation::Create,
            namespace: &at.namespace,
            name: &at.name,
        };
        self.admit(writer, &target, &mut eviction, None)?;
        for _ in 0..SWAP_TRIES {
            let current = self.get(&POD, at)?;
            let pod = current.object();
            options.check_preconditions(&POD, &pod)?;
            let labels = pod.labels().cloned().unwrap_or_default();
            let mut budgets = self.cache.list(&POD_DISRUPTION_BUDGET, Some(&at.namespace)).items;
            budgets.retain(|budget| selects(&budget.object(), &labels));
            let objects: Vec<_> = budgets.iter().map(|stored| stored.object()).collect();
            let now = self.env.clock.now();
            let permit = permit(&pod, &objects.iter().map(AsRef::as_ref).collect::<Vec<_>>(), now)?;
            if options.dry_run {
                return Ok(());
            }
            let of_pod = match deletion::plan(&POD, &told(&pod, now), options, now) {
                Deletion::Pending => return Ok(()),
                Deletion::Remove => Ok(Change::delete(&POD, at, current.revision())),
                Deletion::Mark(new) => Change::update(&POD, at, current.revision(), &new),
            };
            let mut changes = vec![of_pod.map_err(|error| write_status(&error, &POD, &at.name))?];
            if let (Permit::Paid(spent), Some(budget)) = (permit, budgets.first()) {
                let change = Change::update(&POD_DISRUPTION_BUDGET, &spent.reference(), budget.revision(), &spent);
                changes.push(change.map_err(|error| write_status(&error, &POD_DISRUPTION_BUDGET, spent.name()))?);
            }
            match self.cache.write(changes).await {
                Ok(_) => {
                    self.count_after(&POD, Some(&pod), self.cache.get(&POD, at).map(|now| now.object()).as_deref());
                    return Ok(());
                }
                // The pod or its budget was changed meanwhile: both are read again.
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_status(&error, &POD, &at.name)),
            }
        }
        Err(Status::stale(&POD, &at.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(base: Value, more: Value) -> Object {
        let mut value = base;
        json_patch::merge(&mut value, &more);
        Object::from_value(value).unwrap()
    }

    fn pod(more: Value) -> Object {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let base = json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": ready}});
        object(base, more)
    }

    fn budget(more: Value) -> Object {
        let status =
            json!({"observedGeneration": 2, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2});
        object(json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status}), more)
    }

    fn ask(pod: &Object, budgets: &[&Object]) -> Result<Permit, Status> {
        permit(pod, budgets, Timestamp::UNIX_EPOCH)
    }

    fn why(refused: Result<Permit, Status>) -> (u16, String, Value) {
        let status = refused.unwrap_err();
        let cause = &status.details["causes"][0];
        assert!(cause.is_null() || cause["reason"] == "DisruptionBudget");
        let words = cause["message"].as_str().unwrap_or(&status.message).to_owned();
        (status.code, words, status.details["retryAfterSeconds"].clone())
    }

    #[test]
    fn a_budget_gives_what_it_has() {
        let Ok(Permit::Paid(spent)) = ask(&pod(json!({})), &[&budget(json!({}))]) else { panic!("refused") };
        assert_eq!(
            (spent.i64_at("/status/disruptionsAllowed"), spent.i64_at("/status/currentHealthy")),
            (Some(0), Some(3))
        );
        assert_eq!(spent.str_at("/status/disruptedPods/p"), "1970-01-01T00:00:00Z");
        assert_eq!(spent.str_at("/status/conditions/0/reason"), "InsufficientPods");
        let (code, words, after) = why(ask(&pod(json!({})), &[&spent]));
        assert_eq!((code, after), (429, Value::Null));
        assert_eq!(words, "The disruption budget b needs 2 healthy pods and has 3 currently");
        let (code, words, after) = why(ask(&pod(json!({})), &[&budget(json!({"metadata": {"generation": 3}}))]));
        assert_eq!((code, after), (429, json!(10)));
        assert_eq!(words, "The disruption budget b is still being processed by the server.");
        let failed =
            json!({"status": {"disruptionsAllowed": 0, "conditions": [{"reason": "SyncFailed", "message": "x"}]}});
        assert!(why(ask(&pod(json!({})), &[&budget(failed)])).1.ends_with("because it failed sync: x"));
        assert_eq!(why(ask(&pod(json!({})), &[&budget(json!({})), &budget(json!({}))])).0, 500);
        assert_eq!(why(ask(&pod(json!({})), &[&budget(json!({"status": {"disruptionsAllowed": -1}}))])).0, 403);
    }

    #[test]
    fn what_serves_nobody_costs_nothing() {
        let spent = budget(json!({"status": {"disruptionsAllowed": 0}}));
        for free in [
            json!({"status": {"phase": "Succeeded"}}),
            json!({"status": {"phase": "Pending"}}),
            json!({"metadata": {"deletionTimestamp": "t"}}),
        ] {
            assert_eq!(ask(&pod(free), &[&spent]), Ok(Permit::Free));
        }
        assert_eq!(ask(&pod(json!({})), &[]), Ok(Permit::Free));
        // One that runs and is not healthy goes while the rest is, or always where the budget says so.
        let unready = pod(json!({"status": {"conditions": []}}));
        assert_eq!(ask(&unready, &[&spent]), Ok(Permit::Free));
        let short = |policy: &str| {
            budget(
                json!({"spec": {"unhealthyPodEvictionPolicy": policy}, "status": {"currentHealthy": 1, "disruptionsAllowed": 0}}),
            )
        };
        assert_eq!(why(ask(&unready, &[&short("IfHealthyBudget")])).0, 429);
        assert_eq!(ask(&unready, &[&short("AlwaysAllow")]), Ok(Permit::Free));
    }
}
