//! The options of writes, deletes, lists and watches, read from the query (and, for deletes, the body).

use std::borrow::Cow;

use gantry_kube::selector::{FieldSelector, LabelSelector};
use gantry_kube::{FieldError, Object, Resource, Status, versions};
use serde_json::Value;

use super::strategy;
use crate::custom::{self, Custom};
use crate::http::query::{Query, parse_words};
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

const MANAGER_MAX_BYTES: usize = 128;

impl WriteOptions {
    /// Those of a write with this verb. A delete's are read apart ([`DeleteOptions`]).
    pub fn read(query: &Query, verb: &str, user_agent: &str) -> Result<WriteOptions, Status> {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => return Ok(WriteOptions { manager: manager_of(user_agent), ..WriteOptions::default() }),
        };
        let named = query.get("fieldManager").unwrap_or("");
        let mut errors = manager_errors(named);
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let validation = match query.get("fieldValidation").unwrap_or("") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &supported));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid_options(kind, &errors));
        }
        let manager = if named.is_empty() { manager_of(user_agent) } else { named.to_owned() };
        Ok(WriteOptions { dry_run, validation, manager, applied: false })
    }
}

/// As upstream: the program's name out of `kubectl/v1.32 (linux/amd64)`.
fn manager_of(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or("");
    let mut manager = String::new();
    for printable in name.chars().filter(|c| is_printable(*c)) {
        if manager.len() + printable.len_utf8() > MANAGER_MAX_BYTES {
            break;
        }
        manager.push(printable);
    }
    manager
}

fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().count() == 1
}

fn manager_errors(name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > MANAGER_MAX_BYTES {
        errors.push(FieldError::too_long("fieldManager", MANAGER_MAX_BYTES));
    }
    // One that is told is enough: how many there are is a client's to choose.
    if let Some((at, c)) = name.char_indices().find(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid("fieldManager", name, why));
    }
    errors
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported("dryRun", values.clone(), &["All"]));
    }
    !values.is_empty()
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
        let mut errors = Vec::new();
        let options = match body {
            Some(body) if !body.0.is_empty() => DeleteOptions::of_body(body, &mut errors)?,
            _ => {
                let (policy, orphan) = (query.get("propagationPolicy"), query.bool("orphanDependents"));
                let propagation = propagation(policy, orphan, &mut errors);
                DeleteOptions {
                    dry_run: dry_run(query.all("dryRun"), &mut errors),
                    grace_period_seconds: query.number("gracePeriodSeconds")?,
                    propagation,
                    uid: None,
                    resource_version: None,
                }
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid_options("DeleteOptions", &errors));
        }
        if query.flag("ignoreStoreReadErrorWithClusterBreakingPotential") {
            let name = "ignoreStoreReadErrorWithClusterBreakingPotential";
            return Err(Status::bad_request(format!("query parameter {name:?} is not supported")));
        }
        match options.grace_period_seconds {
            Some(grace) if grace < 0 => Ok(DeleteOptions { grace_period_seconds: Some(1), ..options }),
            _ => Ok(options),
        }
    }

    fn of_body(body: &Object, errors: &mut Vec<FieldError>) -> Result<DeleteOptions, Status> {
        if !matches!(body.kind(), "" | "DeleteOptions") {
            return Err(Status::bad_request(format!(
                "the body of a delete is a DeleteOptions, this is a {:?}",
                body.kind()
            )));
        }
        let text = |pointer: &str| body.get(pointer).and_then(Value::as_str).map(str::to_owned);
        let policy = body.get("/propagationPolicy").and_then(Value::as_str);
        let propagation = propagation(policy, body.bool_at("/orphanDependents"), errors);
        Ok(DeleteOptions {
            dry_run: dry_run(body.array_at("/dryRun").iter().filter_map(Value::as_str), errors),
            grace_period_seconds: body.i64_at("/gracePeriodSeconds"),
            propagation,
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

fn propagation(policy: Option<&str>, orphan: Option<bool>, errors: &mut Vec<FieldError>) -> Option<Propagation> {
    const FIELD: &str = "propagationPolicy";
    if let (Some(policy), Some(_)) = (policy, orphan) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(FIELD, policy, why));
    }
    match (policy, orphan) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some(other), _) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(FIELD, other, &supported));
            None
        }
        (None, None) => None,
    }
}

/// Which objects of a kind are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// What the kind can be selected by, apart from names and labels.
    selectable: &'static [&'static str],
    /// Of a custom kind, the version whose fields are selected by: they are read from the object in that version.
    custom: Option<&'static Resource>,
}

impl Selection {
    pub fn read(query: &Query, resource: &'static Resource, custom: Option<&Custom>) -> Result<Selection, Status> {
        let unable = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(|e| unable(&e))?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or("")).map_err(|e| unable(&e))?;
        for requirement in &mut fields.0 {
            let stored = versions::stored_field(resource, &requirement.path);
            let known = stored.filter(|path| match path.as_ref() {
                "metadata.name" => true,
                "metadata.namespace" => resource.namespaced,
                path => match custom {
                    Some(custom) => custom.selectable.iter().any(|known| known == path),
                    None => strategy::of_built_in(resource).fields.contains(&path),
                },
            });
            let Some(path) = known.map(|path| path.into_owned()) else {
                return Err(Status::bad_request(format!("field label not supported: {}", requirement.path)));
            };
            requirement.path = path;
        }
        let reads_objects = fields.0.iter().any(|requirement| !requirement.path.starts_with("metadata."));
        let custom = custom.filter(|_| reads_objects).map(|custom| custom.resource);
        Ok(Selection { labels, fields, selectable: strategy::of_built_in(resource).fields, custom })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches_object(object) && self.fields.matches(object)
    }

    /// The same, without parsing more of a stored object than selectors ask for.
    pub fn matches_stored(&self, stored: &Stored) -> bool {
        if let Some(resource) = self.custom {
            return self.matches(&custom::prepared(resource, stored));
        }
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

    /// Whether stored objects must have been prepared to be matched.
    pub fn reads_objects(&self) -> bool {
        self.custom.is_some()
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
    pub fn read(
        query: &Query,
        resource: &'static Resource,
        custom: Option<&Custom>,
        watch: bool,
    ) -> Result<ListOptions, Status> {
        let limit = query.number("limit")?.unwrap_or(0);
        let timeout = query.number("timeoutSeconds")?;
        let selection = Selection::read(query, resource, custom)?;
        let send_initial_events = query.bool("sendInitialEvents");
        let contradictions = contradictions(query, watch, send_initial_events.is_some());
        if !contradictions.is_empty() {
            return Err(Status::invalid_options("ListOptions", &contradictions));
        }
        let resource_version = resource_version(query, resource, watch)?;
        let at = resource_version.unwrap_or(0);
        let continue_token = query.get("continue").map(str::to_owned);
        if continue_token.is_some() && at != 0 {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let version_match = match query.get("resourceVersionMatch") {
            Some("Exact") if at > 0 => VersionMatch::Exact(at),
            _ => VersionMatch::NotOlderThan(at),
        };
        Ok(ListOptions {
            selection,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            resource_version,
            version_match,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
            timeout_seconds: timeout
                .and_then(|t| u64::try_from(t).ok())
                .filter(|t| *t > 0)
                .map(|t| t.min(WATCH_MAX_SECONDS)),
        })
    }
}

/// What of a list's or watch's options does not go together.
fn contradictions(query: &Query, watch: bool, initial_events: bool) -> Vec<FieldError> {
    const MATCH: &str = "resourceVersionMatch";
    let mut errors = Vec::new();
    let forbid = |errors: &mut Vec<FieldError>, field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
    let matched = query.get(MATCH);
    let continues = query.get("continue").is_some();
    if watch && initial_events && matched != Some("NotOlderThan") {
        forbid(&mut errors, MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if let Some(matched) = matched {
        if watch && !initial_events {
            forbid(
                &mut errors,
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if !watch && query.get("resourceVersion").is_none() {
            forbid(&mut errors, MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !watch && continues {
            forbid(&mut errors, MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        let supported: &[&str] = if watch { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
        if !supported.contains(&matched) {
            errors.push(FieldError::not_supported(MATCH, matched, supported));
        }
        if !watch && matched == "Exact" && query.get("resourceVersion") == Some("0") {
            forbid(&mut errors, MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if watch && continues {
            forbid(&mut errors, MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    if !watch && initial_events {
        forbid(&mut errors, "sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    errors
}

fn resource_version(query: &Query, resource: &Resource, watch: bool) -> Result<Option<u64>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
        let why = format!("strconv.ParseUint: parsing {text:?}: {}", parse_words(&error));
        let error = FieldError::invalid("resourceVersion", text, why);
        match watch {
            true => Status::invalid_kind(resource.group, resource.plural, "", &[error]),
            false => Status::bad_request(format!("invalid resource version: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;
    use serde_json::json;

    #[test]
    fn field_labels_that_a_kind_does_not_have_are_400() {
        let read = |text: &str| Selection::read(&Query::parse(text), &resource::POD, None);
        assert!(read("fieldSelector=spec.nodeName%3Da").is_ok());
        let refusal = read("fieldSelector=spec.shiny%3Da").unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (400, "field label not supported: spec.shiny"));
    }

    #[test]
    fn list_options_that_contradict_each_other() {
        let read = |text: &str, watch| ListOptions::read(&Query::parse(text), &resource::POD, None, watch);
        for (text, watch) in [
            ("resourceVersionMatch=Exact", false),
            ("sendInitialEvents=true", true),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", false),
            ("resourceVersion=0&resourceVersionMatch=Exact", false),
            ("resourceVersion=5&resourceVersionMatch=Newest", false),
            ("continue=x&resourceVersion=0&resourceVersionMatch=NotOlderThan", false),
            ("resourceVersionMatch=NotOlderThan", true),
            ("resourceVersion=x", true),
        ] {
            assert_eq!(read(text, watch).unwrap_err().code, 422, "{text}");
        }
        assert_eq!(read("resourceVersion=x", false).unwrap_err().code, 400);
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
        let refused = DeleteOptions::read(&Query::parse("propagationPolicy=Later&dryRun=Some"), None).unwrap_err();
        assert_eq!(
            refused.message,
            "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Unsupported value: \"Later\": supported \
             values: \"Foreground\", \"Background\", \"Orphan\", \"nil\", dryRun: Unsupported value: \
             [\"Some\"]: supported values: \"All\"]"
        );
    }

    #[test]
    fn a_manager_is_short_and_printable() {
        let read =
            |name: &str, agent| WriteOptions::read(&Query::parse(&format!("fieldManager={name}")), "patch", agent);
        let words = |name: &str| read(name, "").unwrap_err().message;
        let head = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: ";
        assert_eq!(words(&"m".repeat(129)), format!("{head}Too long: may not be more than 128 bytes"));
        assert_eq!(
            words("a%07b"),
            format!("{head}Invalid value: \"a\\u0007b\": invalid character U+0007 (at position 1)")
        );
        assert_eq!(read("a b", "").unwrap().manager, "a b");
        assert_eq!(read("", "kubectl\u{7}/v1.32 (linux)").unwrap().manager, "kubectl");
        assert_eq!(read("", &"m".repeat(200)).unwrap().manager.len(), 128);
    }
}
