//! What a delete does to an object, decided from the object and the options alone.

use gantry_env::format_seconds;
use gantry_kube::{Object, Resource, resource};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::options::{DeleteOptions, Propagation};
use super::strategy;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const POD_GRACE_DEFAULT_SECONDS: i64 = 30;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Deletion {
    /// Nothing holds it: it goes.
    Remove,
    /// It is marked, and goes when its finalizers or its grace period are over.
    Mark(Box<Object>),
    /// It was marked before, and this delete changes nothing.
    Pending,
}

pub fn plan(resource: &Resource, old: &Object, options: &DeleteOptions, now: Timestamp) -> Deletion {
    let finalizers = finalizers(resource, old, options);
    let grace = grace_seconds(resource, old, options);
    let held = !finalizers.is_empty() || (is_namespace(resource) && !old.array_at("/spec/finalizers").is_empty());
    if grace == 0 && !held {
        return Deletion::Remove;
    }
    let mut new = old.clone();
    if finalizers.is_empty() {
        new.metadata_mut().remove("finalizers");
    } else {
        new.metadata_mut().insert("finalizers".to_owned(), json!(finalizers));
    }
    let before = old.i64_at("/metadata/deletionGracePeriodSeconds");
    match old.deletion_timestamp() {
        // A client may ask for more time than a calendar holds.
        None => mark(&mut new, now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX), grace),
        Some(at) if before.is_some_and(|before| grace < before) => {
            let shorter = SignedDuration::from_secs(before.unwrap_or(0).saturating_sub(grace));
            let at = at.parse::<Timestamp>().ok().and_then(|at| at.checked_sub(shorter).ok());
            mark(&mut new, at.unwrap_or(now), grace);
        }
        Some(_) => {}
    }
    if is_definition(resource) {
        strategy::custom::mark_terminating(&mut new, now);
    }
    if is_namespace(resource) {
        new.map_mut("status").insert("phase".to_owned(), json!("Terminating"));
    }
    if new == *old { Deletion::Pending } else { Deletion::Mark(Box::new(new)) }
}

fn mark(object: &mut Object, at: Timestamp, grace: i64) {
    let generation = object.generation();
    let metadata = object.metadata_mut();
    metadata.insert("deletionTimestamp".to_owned(), json!(format_seconds(at)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if generation > 0 {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

fn is_definition(resource: &Resource) -> bool {
    *resource == resource::CUSTOM_RESOURCE_DEFINITION
}

fn is_namespace(resource: &Resource) -> bool {
    *resource == resource::NAMESPACE
}

/// How long the object stays to end in peace; 0 for everything but pods that run somewhere.
fn grace_seconds(resource: &Resource, old: &Object, options: &DeleteOptions) -> i64 {
    if !strategy::of_built_in(resource).graceful {
        return 0;
    }
    let before = old.i64_at("/metadata/deletionGracePeriodSeconds");
    if old.deletion_timestamp().is_some() {
        // A second delete can only shorten the wait.
        let before = before.unwrap_or(0);
        return options.grace_period_seconds.map_or(before, |asked| asked.min(before));
    }
    if old.str_at("/spec/nodeName").is_empty() || matches!(old.str_at("/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = old.i64_at("/spec/terminationGracePeriodSeconds").unwrap_or(POD_GRACE_DEFAULT_SECONDS);
    let seconds = options.grace_period_seconds.unwrap_or(own);
    if seconds < 0 { 1 } else { seconds }
}

fn finalizers(resource: &Resource, old: &Object, options: &DeleteOptions) -> Vec<String> {
    let mut all: Vec<String> = old.finalizers().map(str::to_owned).collect();
    // What is being deleted waits for its objects, which are deleted once.
    let cleanup = strategy::custom::CLEANUP_FINALIZER;
    if is_definition(resource) && old.deletion_timestamp().is_none() && !all.iter().any(|own| own == cleanup) {
        all.push(cleanup.to_owned());
    }
    let Some(policy) = options.propagation else { return all };
    all.retain(|f| f != ORPHAN && f != FOREGROUND);
    match policy {
        Propagation::Orphan => all.push(ORPHAN.to_owned()),
        Propagation::Foreground => all.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    all
}

/// True where an update has taken away the last thing that held a marked object.
pub fn is_released(resource: &Resource, new: &Object) -> bool {
    new.deletion_timestamp().is_some()
        && new.i64_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && new.array_at("/metadata/finalizers").is_empty()
        && (!is_namespace(resource) || new.array_at("/spec/finalizers").is_empty())
}

/// The Status that answers a delete of something that is gone.
pub fn success(resource: &Resource, object: &Object) -> Object {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": object.name(), "group": resource.group, "kind": resource.plural, "uid": object.uid()}});
    Object::from_value(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pod(extra: Value) -> Object {
        let mut pod = json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n",
            "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        json_patch::merge(&mut pod, &extra);
        Object::from_value(pod).unwrap()
    }

    fn marked(deletion: Deletion) -> Object {
        match deletion {
            Deletion::Mark(object) => *object,
            other => panic!("{other:?}"),
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_may_be_hurried() {
        let first = marked(plan(&resource::POD, &pod(json!({})), &DeleteOptions::default(), NOW));
        assert_eq!(first.deletion_timestamp(), Some("1970-01-01T00:00:30Z"));
        assert_eq!(first.generation(), 2);
        assert_eq!(plan(&resource::POD, &first, &DeleteOptions::default(), NOW), Deletion::Pending);
        assert_eq!(plan(&resource::POD, &first, &grace(60), NOW), Deletion::Pending);
        let hurried = marked(plan(&resource::POD, &first, &grace(5), NOW));
        assert_eq!(hurried.deletion_timestamp(), Some("1970-01-01T00:00:05Z"));
        assert_eq!(plan(&resource::POD, &hurried, &grace(0), NOW), Deletion::Remove);
    }

    #[test]
    fn a_grace_period_that_no_calendar_holds_ends_with_the_calendar() {
        let first = marked(plan(&resource::POD, &pod(json!({})), &grace(i64::MAX), NOW));
        assert_eq!(first.deletion_timestamp(), Some("9999-12-30T22:00:00Z"));
        let hurried = marked(plan(&resource::POD, &first, &grace(5), NOW));
        assert_eq!(hurried.deletion_timestamp(), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_pod_that_runs_nowhere_goes_at_once() {
        let waiting = pod(json!({"spec": {"nodeName": null}}));
        assert_eq!(plan(&resource::POD, &waiting, &DeleteOptions::default(), NOW), Deletion::Remove);
        let done = pod(json!({"status": {"phase": "Succeeded"}}));
        assert_eq!(plan(&resource::POD, &done, &DeleteOptions::default(), NOW), Deletion::Remove);
    }

    #[test]
    fn finalizers_hold() {
        let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
        let object = Object::from_value(json!({"metadata": {"name": "d"}})).unwrap();
        let held = marked(plan(&resource::DEPLOYMENT, &object, &orphan, NOW));
        assert_eq!(held.str_at("/metadata/finalizers/0"), ORPHAN);
        assert!(!is_released(&resource::DEPLOYMENT, &held));
        let mut free = held.clone();
        free.metadata_mut().remove("finalizers");
        assert!(is_released(&resource::DEPLOYMENT, &free));
        assert_eq!(plan(&resource::DEPLOYMENT, &object, &DeleteOptions::default(), NOW), Deletion::Remove);
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let ns = Object::from_value(
            json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        )
        .unwrap();
        let mut leaving = marked(plan(&resource::NAMESPACE, &ns, &DeleteOptions::default(), NOW));
        assert_eq!(leaving.str_at("/status/phase"), "Terminating");
        assert!(!is_released(&resource::NAMESPACE, &leaving));
        leaving.map_mut("spec").insert("finalizers".into(), json!([]));
        assert!(is_released(&resource::NAMESPACE, &leaving));
    }
}
