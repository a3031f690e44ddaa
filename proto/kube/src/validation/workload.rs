//! What keeps pods running: Deployments, ReplicaSets, DaemonSets, StatefulSets, and the revisions of their templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::at::{At, Errors};
use super::format::{count_or_percent, label, percent};
use super::{pod, selector, storage};
use crate::selector::LabelSelector;
use crate::{FieldError, Object};

pub fn deployment(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    common(&spec, &REPLICATED, errors);
    strategy(&spec.field("strategy"), errors);
    spec.field("revisionHistoryLimit").at_least_zero(errors);
    let deadline = spec.field("progressDeadlineSeconds");
    deadline.at_least_zero(errors);
    if deadline.int().is_some_and(|deadline| deadline <= spec.int_of("minReadySeconds").unwrap_or(0)) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

pub fn replica_set(object: &Object, errors: &mut Errors) {
    common(&At::of(object, "spec"), &REPLICATED, errors);
}

pub fn daemon_set(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    common(&spec, &ON_EVERY_NODE, errors);
    spec.field("revisionHistoryLimit").at_least_zero(errors);
    let strategy = spec.field("updateStrategy");
    match (strategy.text_of("type"), strategy.get("rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", Some(rolling)) => rolling_nodes(&rolling, errors),
        ("RollingUpdate", None) => strategy.field("rollingUpdate").required(errors, ""),
        _ => strategy.field("type").not_supported(errors, &["OnDelete", "RollingUpdate"]),
    }
}

/// Either fewer pods or more of them while the nodes are gone through, and one of the two.
fn rolling_nodes(at: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (at.field("maxUnavailable"), at.field("maxSurge"));
    for share in [&unavailable, &surge] {
        count_or_percent(share, errors);
        if percent(share.text()).is_some_and(|percent| percent > 100) {
            share.invalid(errors, "must not be greater than 100%");
        }
    }
    match (is_nothing(&unavailable), is_nothing(&surge)) {
        (false, false) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

/// A ReplicationController selects by labels alone.
pub fn replication_controller(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    spec.field("minReadySeconds").at_least_zero(errors);
    spec.field("replicas").at_least_zero(errors);
    let (selector, at) = (spec.field("selector"), spec.field("template"));
    if selector.map().is_none_or(|labels| labels.is_empty()) {
        selector.required(errors, "");
    }
    if !at.is_set() {
        at.required(errors, "");
        return;
    }
    let labels = at.field("metadata").field("labels");
    if let Some(wanted) = selector.map()
        && !LabelSelector::from_map(wanted).matches(labels.map())
    {
        labels.invalid(errors, DIFFERENT_LABELS);
    }
    of_pods(&at, &IN_CONTROLLER, errors);
}

pub fn stateful_set(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let policy = spec.field("podManagementPolicy");
    if !matches!(policy.text(), "OrderedReady" | "Parallel") {
        policy.invalid(errors, "must be 'OrderedReady' or 'Parallel'");
    }
    ordered_strategy(&spec.field("updateStrategy"), errors);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.field(field).maybe_one_of(errors, &["Delete", "Retain"]);
    }
    let mut claims = BTreeSet::new();
    for claim in spec.field("volumeClaimTemplates").items() {
        let name = claim.field("metadata").field("name");
        name.required_as(errors, label);
        name.unique(errors, &mut claims);
        storage::claim(&claim.field("spec"), errors);
    }
    spec.field("revisionHistoryLimit").at_least_zero(errors);
    spec.field("ordinals").field("start").at_least_zero(errors);
    let value = with_claims(spec.value, &claims);
    common(&At { path: spec.path, value: &value }, &IN_ORDER, errors);
}

/// The spec with the volumes that its pods will have of the claims.
fn with_claims(spec: &Value, claims: &BTreeSet<&str>) -> Value {
    let mut spec = spec.clone();
    let Some(template) = spec.pointer_mut("/template/spec").and_then(Value::as_object_mut) else { return spec };
    let volumes = template.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        let added = claims.iter().filter(|name| !volumes.iter().any(|volume| volume["name"] == **name));
        let added = added.map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        volumes.extend(added.collect::<Vec<_>>());
    }
    spec
}

fn ordered_strategy(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.field("rollingUpdate");
    match at.text_of("type") {
        "OnDelete" if rolling.is_set() => {
            rolling.invalid(errors, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.field("partition").at_least_zero(errors);
            let Some(unavailable) = rolling.get("maxUnavailable") else { return };
            count_or_percent(&unavailable, errors);
            if percent(unavailable.text()).is_some_and(|percent| percent > 100) {
                unavailable.invalid(errors, "must not be greater than 100%");
            }
            if is_nothing(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
        }
        _ => at.invalid(errors, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

pub fn stateful_set_update(new: &Object, old: &Object, errors: &mut Errors) {
    const MAY_CHANGE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let kept = |object: &Object| {
        let mut spec = At::of(object, "spec").map().cloned().unwrap_or_default();
        MAY_CHANGE.iter().for_each(|field| drop(spec.remove(*field)));
        spec
    };
    if kept(new) != kept(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                   'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                   'minReadySeconds' are forbidden";
        At::of(new, "spec").forbidden(errors, why);
    }
}

/// A template that was, kept as the patch that brings it back.
pub fn revision(object: &Object, errors: &mut Errors) {
    let data = At::of(object, "data");
    if !data.is_set() {
        data.required(errors, "data is mandatory");
    }
    At::of(object, "revision").at_least_zero(errors);
}

pub fn revision_update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "data").immutable(errors, &At::of(old, "data"));
}

const DIFFERENT_LABELS: &str = "`selector` does not match template `labels`";

/// What differs between the kinds in rules that are otherwise the same.
struct Words {
    empty_selector: &'static str,
    deadline: &'static str,
}

const REPLICATED: Words = Words {
    empty_selector: "empty selector is invalid for deployment",
    deadline: "activeDeadlineSeconds in ReplicaSet is not Supported",
};
const ON_EVERY_NODE: Words = Words {
    empty_selector: "empty selector is invalid for daemonset",
    deadline: "activeDeadlineSeconds in DaemonSet is not Supported",
};
const IN_ORDER: Words = Words {
    empty_selector: "empty selector is invalid for statefulset",
    deadline: "activeDeadlineSeconds in StatefulSet is not Supported",
};
const IN_CONTROLLER: Words =
    Words { empty_selector: "", deadline: "activeDeadlineSeconds in ReplicationController is not Supported" };

/// A workload's selector says which pods are its own, for ever.
pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").field("selector").immutable(errors, &At::of(old, "spec").field("selector"));
}

fn common(spec: &At<'_>, words: &Words, errors: &mut Errors) {
    spec.field("replicas").at_least_zero(errors);
    spec.field("minReadySeconds").at_least_zero(errors);
    let selector = spec.field("selector");
    if selector.is_set() {
        selector::label_selector(&selector, errors);
        if selector::is_empty(&selector) {
            selector.invalid(errors, words.empty_selector);
        }
    } else {
        selector.required(errors, "");
    }
    template(&spec.field("template"), &selector, words, errors);
}

fn template(at: &At<'_>, selector: &At<'_>, words: &Words, errors: &mut Errors) {
    if !at.is_set() {
        at.required(errors, "");
        return;
    }
    if selector.is_set() && !selector::is_empty(selector) {
        let labels = at.field("metadata").field("labels");
        match LabelSelector::from_value(selector.value) {
            Ok(wanted) if !wanted.matches(labels.map()) => {
                let value = if labels.is_set() { labels.value.clone() } else { Value::Object(Default::default()) };
                errors.push(FieldError::invalid(labels.path.as_str(), value, DIFFERENT_LABELS));
            }
            Ok(_) => {}
            Err(_) => selector.invalid(errors, "invalid label selector"),
        }
    }
    of_pods(at, words, errors);
}

/// The template of pods that are kept running.
fn of_pods(at: &At<'_>, words: &Words, errors: &mut Errors) {
    pod::template(at, errors);
    let spec = at.field("spec");
    let restart = spec.field("restartPolicy");
    if !matches!(restart.text(), "" | "Always") {
        restart.not_supported(errors, &["Always"]);
    }
    if spec.field("activeDeadlineSeconds").is_set() {
        spec.field("activeDeadlineSeconds").forbidden(errors, words.deadline);
    }
}

fn strategy(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.field("rollingUpdate");
    match at.text_of("type") {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            if rolling.is_set() {
                rolling_update(&rolling, errors);
            } else {
                rolling.required(errors, "this should be defaulted and never be nil");
            }
        }
        kind => {
            let words = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported(at.field("type").path, kind, &words));
        }
    }
}

fn rolling_update(at: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (at.field("maxUnavailable"), at.field("maxSurge"));
    count_or_percent(&unavailable, errors);
    count_or_percent(&surge, errors);
    if is_nothing(&unavailable) && is_nothing(&surge) {
        unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
    }
    if percent(unavailable.text()).is_some_and(|percent| percent > 100) {
        unavailable.invalid(errors, "must not be greater than 100%");
    }
}

/// `0` or `0%`.
fn is_nothing(at: &At<'_>) -> bool {
    match at.value {
        Value::String(text) => percent(text) == Some(0),
        value => value.as_i64().unwrap_or(0) == 0,
    }
}
