//! Server-side apply: a client says what it wants of an object, whole, each time; what it leaves out the next time goes, unless
//! somebody else wants it. The merge is `gantry_kube::apply`, ownership is [`super::managed`].

use gantry_kube::apply::Typed;
use gantry_kube::{Object, Ref, Resource, Status, schema, versions};
use serde_json::{Value, json};

use super::managed::{self, Manager, Wanted};
use super::options::FieldValidation;
use super::subresource::{REPLICAS, scale_of, scaled};
use super::update::{Part, SWAP_TRIES, check_identity};
use super::{Answer, Decoded, Registry, Writer, decode};
use crate::custom::Custom;
use crate::http::media::BodyFormat;

/// A configuration as it came, in the version that the request is about.
pub struct Configuration {
    said: Object,
    canonical: Object,
    force: bool,
    custom: Option<Custom>,
}

impl Configuration {
    pub fn read(
        resource: &Resource,
        custom: Option<Custom>,
        at: &Ref,
        bytes: &[u8],
        force: bool,
    ) -> Result<Configuration, Status> {
        // JSON is read as what it is: it is more often that, and is sooner read.
        let looks_like_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let parsed = match looks_like_json.then(|| decode::value(bytes, BodyFormat::Json)) {
            Some(Ok(parsed)) => parsed,
            _ => decode::value(bytes, BodyFormat::Yaml)?,
        };
        let mut said = Object::from_value(parsed.value)
            .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
        decode::check_kind(&mut said, &resource.api_version(), resource.kind)?;
        if said.get("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        place(&mut said, at)?;
        let built_in = || schema::for_kind(resource.group, resource.version, resource.kind).map(Typed::kind);
        let typed = custom.as_ref().map(|custom| Typed::custom(&custom.schema)).or_else(built_in);
        if let Some(wrong) = typed.and_then(|typed| typed.wrong(&said.0)) {
            let named = if at.namespace.is_empty() { at.name.clone() } else { format!("{}/{}", at.namespace, at.name) };
            let what = format!("{named}; {}, Kind={}", resource.api_version(), resource.kind);
            // As upstream, though the fault is the client's.
            return Err(Status::internal(format!("failed to create typed patch object ({what}): {wrong}")));
        }
        let canonical =
            decode::canonical(resource, custom.as_ref(), said.clone(), &[], FieldValidation::Ignore)?.object;
        Ok(Configuration { said, canonical, force, custom })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { said: &self.said, canonical: &self.canonical, force: self.force }
    }

    /// What it makes of an object, or of none.
    fn on(&self, resource: &Resource, old: Option<&Object>, manager: &Manager<'_>) -> Result<Decoded, Status> {
        let applied = match old {
            Some(old) if versions::is_stored(resource) => managed::apply(old, &self.wanted(), manager)?,
            Some(old) => managed::apply(&versions::from_stored(resource, old), &self.wanted(), manager)?,
            None => managed::on_create_by_apply(&self.wanted(), manager),
        };
        if let Some(old) = old {
            // What changes nothing is stale all the same, where it says of what it was made.
            check_identity(resource, &self.said, old)?;
        }
        let custom = self.custom.as_ref();
        let decoded = decode::canonical(resource, custom, applied, &[], FieldValidation::Ignore)?;
        decode::with_defaults(resource, custom, decoded)
    }
}

/// The request's name and namespace count where the configuration has none.
fn place(said: &mut Object, at: &Ref) -> Result<(), Status> {
    let (own_name, own_namespace) = (said.name().to_owned(), said.namespace().to_owned());
    if !own_name.is_empty() && own_name != at.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own_name}) does not match the name on the URL ({})",
            at.name
        )));
    }
    if !own_namespace.is_empty() && own_namespace != at.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let metadata = said.metadata_mut();
    metadata.insert("name".to_owned(), json!(at.name));
    match at.namespace.as_str() {
        "" => metadata.remove("namespace"),
        namespace => metadata.insert("namespace".to_owned(), Value::from(namespace)),
    };
    Ok(())
}

/// What an apply makes of an object, or of none. Public and pure: a seat for fuzzing.
pub fn applied(
    resource: &Resource,
    at: &Ref,
    old: Option<&Object>,
    bytes: &[u8],
    force: bool,
    manager: &str,
) -> Result<Object, Status> {
    let manager = Manager::new(manager, "", "2026-01-01T00:00:00Z", None);
    Ok(Configuration::read(resource, None, at, bytes, force)?.on(resource, old, &manager)?.object)
}

/// What a Scale is, for those who apply one.
pub static SCALE: Resource = Resource {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    namespaced: true,
    short_names: &[],
    categories: &[],
    virtual_only: true,
    custom: false,
};

impl Registry {
    /// Applies a Scale to an object that has replicas; answers the Scale that it has then.
    pub async fn apply_scale(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        configuration: &Configuration,
    ) -> Result<Answer, Status> {
        let now = self.env.clock.now_rfc3339();
        let manager = Manager::new(&writer.options.manager, Part::Scale.subresource(), &now, None);
        let custom = self.custom(resource)?;
        let paths = custom.as_ref().and_then(|custom| custom.scale.as_ref());
        let path = paths.map_or(REPLICAS, |paths| &paths.spec_replicas);
        let change = |old: &Object| {
            let live = managed::scale::of(old, scale_of(old, paths)?, path);
            let applied = managed::apply(&live, &configuration.wanted(), &manager)?;
            check_identity(resource, &configuration.said, old)?;
            let mut new = scaled(resource, old, &applied, paths)?;
            managed::scale::hand_back(&mut new, &applied, path);
            Ok(new)
        };
        let answer = self.modify(writer, resource, at, Part::Scale, change).await?;
        let stored = self.answer_object(resource, &answer).await?;
        Ok(Answer::Made(managed::scale::of(&stored, scale_of(&stored, paths)?, path)))
    }

    /// Applies a configuration, to an object that may not be there yet: whether it was made. `may_create` is asked then.
    pub async fn apply(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        part: Part,
        configuration: &Configuration,
        may_create: impl Fn() -> Result<(), Status>,
    ) -> Result<(Answer, bool), Status> {
        let now = self.env.clock.now_rfc3339();
        let manager = Manager::new(&writer.options.manager, part.subresource(), &now, configuration.custom.as_ref());
        for _ in 0..SWAP_TRIES {
            match self.get(resource, at) {
                Err(status) if status.code == 404 && part == Part::Main => {}
                Err(status) => return Err(status),
                Ok(_) => {
                    let applied = self
                        .modify(writer, resource, at, part, |old| {
                            Ok(configuration.on(resource, Some(old), &manager)?.object)
                        })
                        .await;
                    match applied {
                        // Gone in between: it is made.
                        Err(status) if status.code == 404 && part == Part::Main && self.get(resource, at).is_err() => {
                            continue;
                        }
                        applied => return Ok((applied?, false)),
                    }
                }
            }
            let uid = configuration.said.uid();
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Status::conflict(resource, &at.name, &why));
            }
            may_create()?;
            let object = configuration.on(resource, None, &manager)?.object;
            match self.create(writer, resource, &at.namespace, object).await {
                Err(status) if status.reason == "AlreadyExists" => {}
                made => return Ok((made?, true)),
            }
        }
        Err(Status::stale(resource, &at.name))
    }
}
