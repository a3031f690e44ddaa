//! PodSecurity: a namespace's pods keep to the standard that its labels name, and whoever writes what would not be allowed
//! there is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_kube::pod_security::{self, Level, Policy, Standard, Subject};
use gantry_kube::resource::{
    CRON_JOB, DAEMON_SET, DEPLOYMENT, JOB, NAMESPACE, POD, POD_TEMPLATE, REPLICA_SET, REPLICATION_CONTROLLER,
    STATEFUL_SET,
};
use gantry_kube::{Object, Ref, Resource, Status};

use super::{AdmissionContext, Operation, Warnings};

/// Where a change of a namespace's labels meets more pods than this, the rest are not looked at.
const PODS_MAX: usize = 3000;

/// What of a pod's subresources changes nothing that a check reads.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub fn check(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<Warnings, Status> {
    if !matches!(context.operation, Operation::Create | Operation::Update) {
        return Ok(Warnings::new());
    }
    if context.is(&NAMESPACE, "") {
        return namespace(context, object, old);
    }
    if context.resource == &POD {
        let same = old.is_some_and(|old| !pod_security::is_significant(object, old));
        if same || IGNORED.contains(&context.subresource) {
            return Ok(Warnings::new());
        }
        return Subject::pod(object).map_or(Ok(Warnings::new()), |subject| evaluate(context, object, subject, true));
    }
    match template(context.resource).filter(|_| context.subresource.is_empty()) {
        Some(at) => Subject::template(object, at)
            .map_or(Ok(Warnings::new()), |subject| evaluate(context, object, subject, false)),
        None => Ok(Warnings::new()),
    }
}

/// Where a workload has the template of its pods.
fn template(resource: &Resource) -> Option<&'static str> {
    let plain = [&REPLICATION_CONTROLLER, &REPLICA_SET, &DEPLOYMENT, &STATEFUL_SET, &DAEMON_SET, &JOB];
    if plain.contains(&resource) {
        Some("/spec/template")
    } else if resource == &CRON_JOB {
        Some("/spec/jobTemplate/spec/template")
    } else if resource == &POD_TEMPLATE {
        Some("/template")
    } else {
        None
    }
}

/// A pod is refused by what is enforced; its author, and a workload's, hears what would be.
fn evaluate(
    context: &AdmissionContext<'_>,
    object: &Object,
    subject: Subject<'_>,
    enforced: bool,
) -> Result<Warnings, Status> {
    let namespace = context.lookup.get(&NAMESPACE, &Ref::cluster(context.namespace));
    let Some(namespace) = namespace else { return Ok(Warnings::new()) };
    // What is wrong with the labels was told to who wrote them, and holds in its strictest sense.
    let (policy, _) = Policy::of_labels(namespace.labels());
    if enforced {
        let violations = subject.violations(policy.enforce);
        if !violations.is_empty() {
            let details = pod_security::details(&violations);
            let why = format!("violates PodSecurity {:?}: {details}", policy.enforce.to_string());
            return Err(context.forbidden(object, &why));
        }
    }
    let violations = subject.violations(policy.warn);
    let details = pod_security::details(&violations);
    let words = format!("would violate PodSecurity {:?}: {details}", policy.warn.to_string());
    Ok(if violations.is_empty() { Warnings::new() } else { vec![words] })
}

/// Labels that cannot be read are not taken; labels that hold pods to more than before name those that would not pass.
fn namespace(context: &AdmissionContext<'_>, new: &Object, old: Option<&Object>) -> Result<Warnings, Status> {
    let (policy, wrong) = Policy::of_labels(new.labels());
    let before = old.map(|old| Policy::of_labels(old.labels()));
    if !wrong.is_empty() && before.as_ref().is_none_or(|(_, known)| *known != wrong) {
        return Err(Status::invalid(&NAMESPACE, new.name(), &wrong));
    }
    let Some((before, _)) = before else { return Ok(Warnings::new()) };
    let (now, then) = (policy.enforce, before.enforce);
    let relaxed = now.version == then.version && now.level <= then.level;
    if now.level == Level::Privileged || relaxed {
        return Ok(Warnings::new());
    }
    Ok(violators(new.name(), now, context.lookup.list(&POD, Some(new.name()))))
}

/// Pods that share all that is against them are told of in one line.
fn violators(namespace: &str, standard: Standard, pods: Vec<Arc<Object>>) -> Warnings {
    let total = pods.len();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in by_interest(pods).iter().take(PODS_MAX) {
        let violations = Subject::pod(pod).map(|subject| subject.violations(standard)).unwrap_or_default();
        if !violations.is_empty() {
            found.entry(pod_security::reasons(&violations)).or_default().insert(pod.name().to_owned());
        }
    }
    let mut warnings = Warnings::new();
    if total > PODS_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_MAX} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        let standard = standard.to_string();
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {standard:?}"
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, pods)| {
            let first = pods.first().map_or("", String::as_str);
            match pods.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                several => format!("{first} (and {} other pods): {reasons}", several - 1),
            }
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

/// One pod of each controller before the others of the same: they are likely to be alike.
fn by_interest(pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
    let mut seen = BTreeSet::new();
    let mut is_first = |pod: &Arc<Object>| {
        pod.controller().is_none_or(|owner| seen.insert(owner["uid"].as_str().unwrap_or("").to_owned()))
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_first(pod));
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests;
