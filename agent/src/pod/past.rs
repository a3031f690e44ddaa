//! Runs of which the runtime has no record any more. A reboot takes its records; what the API was told of a container,
//! and what the checkpoint holds, stay. From these follows what must not be run again. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a container shows that ran and of which nobody knows how it ended, as upstream has it.
const LOST_EXIT_CODE: i32 = 137;
const LOST_REASON: &str = "ContainerStatusUnknown";
const LOST_MESSAGE: &str = "The container could not be located when the pod was terminated";

const LISTS: [&str; 3] = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];

/// The runs of one container so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    pub runs: u32,
    /// Of the last one.
    pub exit_code: i32,
}

/// By container name: those that have run, by the pod's status.
pub fn of_status(status: &Value) -> BTreeMap<String, Past> {
    entries(status)
        .filter_map(|(_, entry)| {
            let exit_code = i32::try_from(end(entry)?["exitCode"].as_i64()?).unwrap_or(LOST_EXIT_CODE);
            let restarts = u32::try_from(entry["restartCount"].as_u64().unwrap_or(0)).unwrap_or(u32::MAX);
            Some((entry["name"].as_str()?.to_owned(), Past { runs: restarts.saturating_add(1), exit_code }))
        })
        .collect()
}

/// How the last run of a container ended whose record is gone; `None` where it never ran.
pub fn end(entry: &Value) -> Option<Value> {
    if entry["state"]["running"].is_object() {
        return Some(json!({
            "exitCode": LOST_EXIT_CODE, "reason": LOST_REASON, "message": LOST_MESSAGE,
            "startedAt": entry["state"]["running"]["startedAt"], "finishedAt": null,
            "containerID": entry["containerID"],
        }));
    }
    let ends = [&entry["state"]["terminated"], &entry["lastState"]["terminated"]];
    ends.into_iter().find(|end| end.is_object()).cloned()
}

/// What the API was told, with what the checkpoint knows better: an agent may die before it tells of an end.
pub fn newer(told: &Value, saved: &Value) -> Value {
    if told.is_null() {
        return saved.clone();
    }
    let mut out = told.clone();
    for (list, entry) in entries(saved) {
        let Some(known) = out[list].as_array_mut() else { continue };
        if let Some(slot) = known.iter_mut().find(|e| e["name"] == entry["name"])
            && progress(entry) > progress(slot)
        {
            *slot = entry.clone();
        }
    }
    out
}

/// Of a status, the runs alone: what a pod begins with that is to run once more.
pub fn runs(status: &Value) -> Value {
    LISTS.into_iter().filter_map(|list| Some((list.to_owned(), status.get(list)?.clone()))).collect()
}

/// Grows over the life of a container.
fn progress(entry: &Value) -> (u64, u8) {
    let stage = match end(entry) {
        None => 0,
        Some(_) if entry["state"]["running"].is_object() => 1,
        Some(_) => 2,
    };
    (entry["restartCount"].as_u64().unwrap_or(0), stage)
}

pub fn entries(status: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    LISTS.into_iter().flat_map(|list| status[list].as_array().into_iter().flatten().map(move |entry| (list, entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(entry: Value) -> Value {
        let mut entry = entry;
        entry["name"] = json!("c");
        json!({"phase": "Running", "containerStatuses": [entry]})
    }

    #[test]
    fn what_ran_has_an_end_and_what_did_not_has_none() {
        let of = |entry: Value| of_status(&status(entry)).get("c").copied();
        let past = |runs, exit_code| Some(Past { runs, exit_code });
        assert_eq!(of(json!({"restartCount": 0, "state": {"waiting": {}}, "containerID": "x"})), None);
        assert_eq!(of(json!({"restartCount": 2, "state": {"running": {}}})), past(3, 137));
        assert_eq!(of(json!({"restartCount": 0, "state": {"terminated": {"exitCode": 0}}})), past(1, 0));
        let waits = json!({"restartCount": 1, "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 3}}});
        assert_eq!(of(waits), past(2, 3));
    }

    #[test]
    fn the_checkpoint_is_believed_where_it_is_ahead_of_the_api() {
        let runs = status(json!({"restartCount": 1, "state": {"running": {}}}));
        let ended = status(json!({"restartCount": 1, "state": {"terminated": {"exitCode": 0}}}));
        let before = status(json!({"restartCount": 0, "state": {"terminated": {"exitCode": 1}}}));
        assert_eq!(newer(&runs, &ended), ended);
        assert_eq!(newer(&ended, &runs), ended);
        assert_eq!(newer(&runs, &before), runs);
        assert_eq!(newer(&Value::Null, &ended), ended);
        assert_eq!(newer(&runs, &Value::Null), runs);
    }
}
