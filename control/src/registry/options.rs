//! The options of writes, deletes, lists and watches, read from the query (and, for deletes, the body).

use std::borrow::Cow;

use gantry_kube::selector::{FieldSelector, LabelSelector};
use gantry_kube::{Object, Resource, Status};
use serde_json::Value;

use super::strategy;
use crate::http::query::Query;
use crate::store::Stored;

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The options that create, update and patch share.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
    pub manager: String,
    /// The object comes with its managedFields: it is what server-side apply has made.
    pub applied: bool,
}

const MANAGER_MAX_CHARS: usize = 128;

impl WriteOptions {
    pub fn read(query: &Query, user_agent: &str) -> Result<WriteOptions, Status> {
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                return Err(Status::new(
                    422,
                    "Invalid",
                    format!(
                        "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
                    ),
                ));
            }
        };
        let manager = match query.get("fieldManager") {
            Some(name) if name.chars().count() > MANAGER_MAX_CHARS || name.chars().any(char::is_control) => {
                return Err(Status::bad_request(format!(
                    "fieldManager: Invalid value: {name:?}: may not be more than {MANAGER_MAX_CHARS} printable characters"
                )));
            }
            Some(name) => name.to_owned(),
            // As upstream: the program's name out of `kubectl/v1.32 (linux/amd64)`.
            None => user_agent.split('/').next().unwrap_or("").chars().take(MANAGER_MAX_CHARS).collect(),
        };
        Ok(WriteOptions { dry_run: dry_run(query.all("dryRun"))?, validation, manager, applied: false })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            return Err(Status::new(
                422,
                "Invalid",
                format!("dryRun: Unsupported value: {value:?}: supported values: \"All\""),
            ));
        }
        dry = true;
    }
    Ok(dry)
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Options in the body take the place of those in the query.
    pub fn read(query: &Query, body: Option<&Object>) -> Result<DeleteOptions, Status> {
        let options = match body {
            Some(body) if !body.0.is_empty() => DeleteOptions::of_body(body)?,
            _ => DeleteOptions {
                dry_run: dry_run(query.all("dryRun"))?,
                grace_period_seconds: query.number("gracePeriodSeconds")?,
                propagation: propagation(query.get("propagationPolicy"), query.bool("orphanDependents")?)?,
                uid: None,
                resource_version: None,
            },
        };
        if query.flag("ignoreStoreReadErrorWithClusterBreakingPotential") {
            let name = "ignoreStoreReadErrorWithClusterBreakingPotential";
            return Err(Status::bad_request(format!("query parameter {name:?} is not supported")));
        }
        match options.grace_period_seconds {
            Some(grace) if grace < 0 => Ok(DeleteOptions { grace_period_seconds: Some(1), ..options }),
            _ => Ok(options),
        }
    }

    fn of_body(body: &Object) -> Result<DeleteOptions, Status> {
        if !matches!(body.kind(), "" | "DeleteOptions") {
            return Err(Status::bad_request(format!(
                "the body of a delete is a DeleteOptions, this is a {:?}",
                body.kind()
            )));
        }
        let text = |pointer: &str| body.get(pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(DeleteOptions {
            dry_run: dry_run(body.array_at("/dryRun").iter().filter_map(Value::as_str))?,
            grace_period_seconds: body.i64_at("/gracePeriodSeconds"),
            propagation: propagation(
                body.get("/propagationPolicy").and_then(Value::as_str),
                body.bool_at("/orphanDependents"),
            )?,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
        })
    }

    /// 409 where the object is not the one that the caller meant.
    pub fn check_preconditions(&self, resource: &Resource, object: &Object) -> Result<(), Status> {
        let differs = |what: &str, wanted: &Option<String>, found: &str| match wanted {
            Some(wanted) if wanted != found => Err(Status::conflict(
                resource,
                object.name(),
                &format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"),
            )),
            _ => Ok(()),
        };
        differs("UID", &self.uid, object.uid())?;
        differs("ResourceVersion", &self.resource_version, object.resource_version())
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    let invalid = |message: String| Err(Status::new(422, "Invalid", message));
    match (policy, orphan) {
        (Some(_), Some(_)) => invalid(
            "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set".to_owned(),
        ),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => invalid(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        )),
        (None, None) => Ok(None),
    }
}

/// Which objects of a kind are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// What the kind can be selected by, apart from names and labels.
    selectable: &'static [&'static str],
}

impl Selection {
    pub fn read(query: &Query, resource: &Resource) -> Result<Selection, Status> {
        let unable = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(|e| unable(&e))?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or("")).map_err(|e| unable(&e))?;
        for requirement in &fields.0 {
            let known = match requirement.path.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => resource.namespaced,
                path => strategy::of(resource).fields.contains(&path),
            };
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {}", requirement.path)));
            }
        }
        Ok(Selection { labels, fields, selectable: strategy::of(resource).fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches_object(object) && self.fields.matches(object)
    }

    /// The same, without parsing more of a stored object than selectors ask for.
    pub fn matches_stored(&self, stored: &Stored) -> bool {
        // Names are in the key: whoever asks for one object has none of the others parsed.
        let (namespace, name) = stored.key().place();
        let field = |path: &str| match path {
            "metadata.name" => Some(Cow::Borrowed(name)),
            "metadata.namespace" => Some(Cow::Borrowed(namespace)),
            path => stored.outline(self.selectable).field(path),
        };
        let label = |key: &str| stored.outline(self.selectable).label(key);
        self.fields.matches_by(field) && self.labels.matches_by(label)
    }

    /// The one name that is asked for, if the field selector asks for one.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields.0.iter().find(|r| r.equal && r.path == "metadata.name").map(|r| r.value.as_str())
    }
}

/// How the resourceVersion of a list is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The newest, or anything not older than the given one: the cache serves both.
    NotOlderThan(u64),
    Exact(u64),
}

/// A watch that asks for more ends after a month; no clock can wait for the largest number that fits the parameter.
const WATCH_MAX_SECONDS: u64 = 30 * 24 * 3600;

/// The options of list and watch.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub selection: Selection,
    pub limit: usize,
    pub continue_token: Option<String>,
    pub resource_version: Option<u64>,
    pub version_match: VersionMatch,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub fn read(query: &Query, resource: &Resource, watch: bool) -> Result<ListOptions, Status> {
        let invalid = |field: &str, why: String| Status::new(422, "Invalid", format!("{field}: {why}"));
        let version_text = query.get("resourceVersion");
        let resource_version = match version_text {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                invalid("resourceVersion", format!("Invalid value: {text:?}: strconv.ParseUint: invalid syntax"))
            })?),
        };
        let send_initial_events = query.bool("sendInitialEvents")?;
        let matched = query.get("resourceVersionMatch");
        let continue_token = query.get("continue").map(str::to_owned);
        if !watch && send_initial_events.is_some() {
            return Err(invalid("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list".to_owned()));
        }
        if send_initial_events.is_some() && matched != Some("NotOlderThan") {
            let why = "Forbidden: resourceVersionMatch=NotOlderThan is required with sendInitialEvents";
            return Err(invalid("resourceVersionMatch", why.to_owned()));
        }
        if matched.is_some() && send_initial_events.is_none() && (watch || version_text.is_none()) {
            let why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(invalid("resourceVersionMatch", why.to_owned()));
        }
        if continue_token.is_some() && matched.is_some() {
            let why = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
            return Err(invalid("resourceVersionMatch", why.to_owned()));
        }
        let at = resource_version.unwrap_or(0);
        if continue_token.is_some() && at != 0 {
            let why = "specifying resource version is not allowed when using continue: the token names its own";
            return Err(Status::bad_request(why));
        }
        let version_match = match matched {
            None | Some("NotOlderThan") => VersionMatch::NotOlderThan(at),
            Some("Exact") if at > 0 => VersionMatch::Exact(at),
            Some("Exact") => {
                let why = "Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
                return Err(invalid("resourceVersionMatch", why.to_owned()));
            }
            Some(other) => {
                let why = format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\"");
                return Err(invalid("resourceVersionMatch", why));
            }
        };
        let limit = query.number("limit")?.unwrap_or(0);
        let timeout = query.number("timeoutSeconds")?;
        Ok(ListOptions {
            selection: Selection::read(query, resource)?,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            resource_version,
            version_match,
            bookmarks: query.bool("allowWatchBookmarks")?.unwrap_or(false),
            send_initial_events,
            timeout_seconds: timeout
                .and_then(|t| u64::try_from(t).ok())
                .filter(|t| *t > 0)
                .map(|t| t.min(WATCH_MAX_SECONDS)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;
    use serde_json::json;

    #[test]
    fn field_labels_that_a_kind_does_not_have_are_400() {
        let read = |text: &str| Selection::read(&Query::parse(text), &resource::POD);
        assert!(read("fieldSelector=spec.nodeName%3Da").is_ok());
        let refusal = read("fieldSelector=spec.shiny%3Da").unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (400, "field label not supported: spec.shiny"));
    }

    #[test]
    fn list_options_that_contradict_each_other() {
        let read = |text: &str, watch| ListOptions::read(&Query::parse(text), &resource::POD, watch);
        for (text, watch) in [
            ("resourceVersionMatch=Exact", false),
            ("sendInitialEvents=true", true),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", false),
            ("resourceVersion=0&resourceVersionMatch=Exact", false),
            ("resourceVersion=x", false),
        ] {
            assert_eq!(read(text, watch).unwrap_err().code, 422, "{text}");
        }
        assert_eq!(read("continue=x&resourceVersion=5", false).unwrap_err().code, 400);
        assert!(read("continue=x&resourceVersion=0", false).is_ok());
        assert!(read("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=", true).is_ok());
        let long = read("timeoutSeconds=9223372036854775807", true).unwrap();
        assert_eq!(long.timeout_seconds, Some(WATCH_MAX_SECONDS));
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let query = Query::parse("gracePeriodSeconds=5&propagationPolicy=Orphan");
        let of_query = DeleteOptions::read(&query, None).unwrap();
        assert_eq!((of_query.grace_period_seconds, of_query.propagation), (Some(5), Some(Propagation::Orphan)));
        let body = Object::from_value(json!({"kind": "DeleteOptions", "dryRun": ["All"],
            "preconditions": {"uid": "u"}}))
        .unwrap();
        let of_body = DeleteOptions::read(&query, Some(&body)).unwrap();
        assert!(of_body.dry_run && of_body.uid.as_deref() == Some("u") && of_body.grace_period_seconds.is_none());
        assert!(DeleteOptions::read(&Query::parse("propagationPolicy=Later"), None).is_err());
    }
}
