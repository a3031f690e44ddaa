//! The Pod Security Standards: what a pod may ask of its node where a namespace says that it holds to one.
//!
//! A namespace names a level and a version of the standards for each of three modes by labels ([`Policy`]); each
//! version has its own set of checks ([`checks`]), so that a namespace that is pinned to one keeps what it was measured by.
//! The rules and their words are those of `k8s.io/pod-security-admission`.

mod checks;
mod containers;
mod host;
mod identity;
mod profiles;

use std::fmt;

use serde_json::{Map, Value};

use crate::{FieldError, Object};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may ask for, the freest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Which minor version's checks are meant; the latest is newer than any that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u64),
    Latest,
}

/// A level as a version has it: `restricted:v1.30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

/// What a namespace holds its pods to: what is refused, and what is warned of. (What is to be audited is checked for its
/// form; there is nobody who would read the result.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

/// A pod, or the template that pods are made from, as the checks read it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    annotations: Option<&'a Map<String, Value>>,
    spec: &'a Value,
}

/// What one check has against a pod: in short where many pods are told of, with the detail where one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

impl Level {
    fn parse(text: &str) -> Result<Level, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl Version {
    fn parse(text: &str) -> Result<Version, &'static str> {
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'..=b'9'] => digits.parse().ok(),
            [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => digits.parse().ok(),
            _ => None,
        };
        match text {
            "latest" => Ok(Version::Latest),
            _ => text.strip_prefix("v1.").and_then(number).map(Version::Minor).ok_or("must be \"latest\" or \"v1.x\""),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What one label says.
#[derive(Clone, Copy)]
enum Said<T> {
    Nothing,
    Nonsense,
    This(T),
}

impl<T> Said<T> {
    fn or(self, nothing: T, nonsense: T) -> T {
        match self {
            Said::Nothing => nothing,
            Said::Nonsense => nonsense,
            Said::This(value) => value,
        }
    }
}

/// The labels of a namespace, and what is wrong with those that were read.
struct Labels<'a> {
    all: &'a Map<String, Value>,
    wrong: Vec<FieldError>,
}

impl Labels<'_> {
    fn read<T>(&mut self, name: &str, parse: fn(&str) -> Result<T, &'static str>) -> Said<T> {
        let key = format!("{PREFIX}{name}");
        let Some(text) = self.all.get(&key).map(|value| value.as_str().unwrap_or("")) else { return Said::Nothing };
        match parse(text) {
            Ok(value) => Said::This(value),
            Err(why) => {
                self.wrong.push(FieldError::invalid(format!("metadata.labels[{key}]"), text, why));
                Said::Nonsense
            }
        }
    }
}

impl Policy {
    /// What a namespace's labels say, and what is wrong with them. An unreadable label never frees anybody: pods are held
    /// to the strictest level then, and are warned of nothing.
    pub fn of_labels(labels: Option<&Map<String, Value>>) -> (Policy, Vec<FieldError>) {
        use Level::{Privileged, Restricted};
        let free = Standard { level: Privileged, version: Version::Latest };
        let Some(all) = labels else { return (Policy { enforce: free, warn: free }, Vec::new()) };
        let mut labels = Labels { all, wrong: Vec::new() };
        let enforced = labels.read("enforce", Level::parse);
        let version = labels.read("enforce-version", Version::parse).or(Version::Latest, Version::Latest);
        let enforce = Standard { level: enforced.or(Privileged, Restricted), version };
        labels.read("audit", Level::parse);
        labels.read("audit-version", Version::parse);
        let warned = labels.read("warn", Level::parse);
        let version = labels.read("warn-version", Version::parse);
        // Who enforces and says nothing of warnings wants to hear of workloads whose pods will be refused.
        let warn = match (warned, enforced) {
            (Said::Nothing, Said::This(level)) if level > Privileged => {
                Standard { level, version: version.or(enforce.version, Version::Latest) }
            }
            _ => Standard {
                level: warned.or(Privileged, Privileged),
                version: version.or(Version::Latest, Version::Latest),
            },
        };
        (Policy { enforce, warn }, labels.wrong)
    }
}

impl<'a> Subject<'a> {
    pub fn pod(pod: &'a Object) -> Option<Subject<'a>> {
        let annotations = pod.get("/metadata/annotations").and_then(Value::as_object);
        Some(Subject { annotations, spec: pod.get("/spec")? })
    }

    /// The template at `pointer` of a workload; None where it has none.
    pub fn template(workload: &'a Object, pointer: &str) -> Option<Subject<'a>> {
        let template = workload.get(pointer)?;
        Some(Subject { annotations: template["metadata"]["annotations"].as_object(), spec: &template["spec"] })
    }

    /// All that this has against the standard's checks, in the order in which it is told.
    pub fn violations(self, standard: Standard) -> Vec<Violation> {
        checks::of(standard).filter_map(|rule| rule(&self)).collect()
    }
}

/// `host namespaces, privileged`
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

/// `host namespaces (hostPID=true), privileged (container "a" must not set securityContext.privileged=true)`
pub fn details(violations: &[Violation]) -> String {
    let each = violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail));
    each.collect::<Vec<_>>().join(", ")
}

/// Whether an update of a pod is one that checks could find otherwise than before: containers came, or their images
/// changed. All else that may change in a pod is no matter of theirs.
pub fn is_significant(new: &Object, old: &Object) -> bool {
    ["/spec/containers", "/spec/initContainers"].into_iter().any(|list| {
        let (new, old) = (new.array_at(list), old.array_at(list));
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| new["image"] != old["image"])
    }) || new.array_at("/spec/ephemeralContainers").iter().any(|new| {
        let before = old.array_at("/spec/ephemeralContainers").iter().find(|old| old["name"] == new["name"]);
        before.is_none_or(|old| old["image"] != new["image"])
    })
}

#[cfg(test)]
mod tests;
