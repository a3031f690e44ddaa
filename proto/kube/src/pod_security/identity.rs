//! Whom a container may run as.

use serde_json::Value;

use super::containers::{named, setters};
use super::{Subject, Violation};

pub fn non_root(subject: &Subject<'_>) -> Option<Violation> {
    let said = |of: &Value| of["securityContext"]["runAsNonRoot"].as_bool();
    let reason = "runAsNonRoot != true";
    let pod = said(subject.spec);
    if let Some(who) = setters(pod == Some(false), &subject.names(|container| said(container) == Some(false))) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation { reason, detail });
    }
    let silent = subject.names(|container| said(container).or(pod).is_none());
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    (!silent.is_empty()).then_some(Violation { reason, detail })
}

pub fn user(subject: &Subject<'_>) -> Option<Violation> {
    let root = |of: &Value| of["securityContext"]["runAsUser"] == 0;
    let who = setters(root(subject.spec), &subject.names(root))?;
    Some(Violation { reason: "runAsUser=0", detail: format!("{who} must not set runAsUser=0") })
}
