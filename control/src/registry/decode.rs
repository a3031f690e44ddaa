//! From the bytes of a body to an object of the kind that the request is about, and from a patch to what it makes.

use gantry_kube::{FieldError, Object, Resource, Status, canonical, defaults, merge, protobuf, schema, versions};
use serde_json::Value;

use super::options::FieldValidation;
use crate::custom::Custom;
use crate::http::media::BodyFormat;

/// What aliases may stand for in one body, in nodes and their ends. A few hundred bytes of them could stand for as much
/// as the largest body holds.
const YAML_ALIASED_MAX_EVENTS: usize = 10_000;

/// A body as a canonical object with its defaults, and what the client is to be warned of.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub object: Object,
    pub warnings: Vec<String>,
}

/// A body as JSON, and the paths of the fields that stand in it twice.
pub struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// The bytes as JSON, whatever text they came in. Protobuf carries objects alone and is read apart.
pub fn value(bytes: &[u8], format: BodyFormat) -> Result<Parsed, Status> {
    match format {
        BodyFormat::Json => {
            let parsed = canonical::parse_value(bytes).or_else(|error| match std::str::from_utf8(bytes) {
                Ok(_) => Err(error),
                // As upstream: what is no text stands for a character that says so.
                Err(_) => canonical::parse_value(String::from_utf8_lossy(bytes).as_bytes()),
            });
            let (value, duplicates) = parsed.map_err(|error| malformed(&error))?;
            Ok(Parsed { value, duplicates })
        }
        BodyFormat::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
            let aliases = serde_saphyr::alias_limits! { max_total_replayed_events: YAML_ALIASED_MAX_EVENTS };
            let options = serde_saphyr::options! { alias_limits: aliases };
            let value = serde_saphyr::from_str_with_options(text, options).map_err(|error| malformed(&error))?;
            canonical::check_bounds(&value).map_err(|error| malformed(&error))?;
            Ok(Parsed { value, duplicates: Vec::new() })
        }
        BodyFormat::Protobuf => {
            Err(Status::unsupported_media_type("a body in protobuf is an object, and this request takes none"))
        }
    }
}

fn malformed(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::bad_request(format!("the object provided is unrecognized: {}", gantry_env::chain(error)))
}

/// The bytes as an object; in protobuf, one of the kind that the endpoint tells where it does not name its own.
fn object(bytes: &[u8], format: BodyFormat, api_version: &str, kind: &str) -> Result<(Object, Vec<String>), Status> {
    if format == BodyFormat::Protobuf {
        let object = protobuf::decode_as(bytes, api_version, kind).map_err(|error| malformed(&error))?;
        return Ok((object, Vec::new()));
    }
    let parsed = value(bytes, format)?;
    let object = Object::from_value(parsed.value).map_err(|error| malformed(&error))?;
    Ok((object, parsed.duplicates))
}

/// Reads the body of a create or an update.
pub fn decode(
    resource: &Resource,
    custom: Option<&Custom>,
    bytes: &[u8],
    format: BodyFormat,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let api_version = resource.api_version();
    let (mut object, duplicates) = object(bytes, format, &api_version, resource.kind)?;
    check_kind(&mut object, &api_version, resource.kind)?;
    let decoded = canonical(resource, custom, object, &duplicates, validation)?;
    with_defaults(resource, custom, decoded)
}

/// What is canonical in the version that was sent, with its defaults: of a built-in kind in the version that is stored.
pub(super) fn with_defaults(
    resource: &Resource,
    custom: Option<&Custom>,
    mut decoded: Decoded,
) -> Result<Decoded, Status> {
    if let Some(custom) = custom {
        custom.set_defaults(&mut decoded.object)?;
        return Ok(decoded);
    }
    if !versions::is_stored(resource) {
        let unreadable = |why: String| Status::bad_request(unhandled(resource.version, resource.kind, &why));
        let object = versions::to_stored(resource, decoded.object).map_err(|error| unreadable(error.to_string()))?;
        let stored = versions::stored(resource);
        decoded.object = canonical_as((stored.group, stored.version, stored.kind), object)?;
    }
    defaults::apply(resource, &mut decoded.object);
    Ok(decoded)
}

/// Reads a body that is not of a stored kind (Binding, Eviction, Scale, DeleteOptions).
pub fn decode_as(
    (group, version, kind): (&str, &str, &str),
    bytes: &[u8],
    format: BodyFormat,
) -> Result<Object, Status> {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (mut object, _) = object(bytes, format, &api_version, kind)?;
    if kind != "DeleteOptions" {
        check_kind(&mut object, &api_version, kind)?;
    }
    canonical_as((group, version, kind), object)
}

/// An object that no registry keeps, in its canonical form; 400 where a field has a wrong type.
pub fn canonical_as((group, version, kind): (&str, &str, &str), mut object: Object) -> Result<Object, Status> {
    if let Some(ty) = schema::for_kind(group, version, kind) {
        let findings = canonical::normalize(ty, &mut object);
        if let Some(error) = findings.decode_error() {
            return Err(Status::bad_request(unhandled(version, kind, error)));
        }
    }
    Ok(object)
}

fn unhandled(version: &str, kind: &str, why: &str) -> String {
    format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")
}

/// Brings an object into its canonical form, or says which fields it may not have.
pub(super) fn canonical(
    resource: &Resource,
    custom: Option<&Custom>,
    mut object: Object,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let built_in = schema::for_kind(resource.group, resource.version, resource.kind);
    let findings = match (custom, built_in) {
        (Some(custom), _) => custom.prune(&mut object),
        (None, Some(ty)) => canonical::normalize(ty, &mut object),
        (None, None) => return Ok(Decoded { object, warnings: Vec::new() }),
    };
    if let Some(error) = findings.decode_error() {
        return Err(Status::bad_request(unhandled(resource.version, resource.kind, error)));
    }
    let strict = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => findings.strict(duplicates),
    };
    if validation == FieldValidation::Strict && !strict.is_empty() {
        let why = format!("strict decoding error: {}", strict.join(", "));
        return Err(Status::bad_request(unhandled(resource.version, resource.kind, &why)));
    }
    Ok(Decoded { object, warnings: strict })
}

/// The body must be of the kind that the path names; where it says nothing, it is taken to be.
pub fn check_kind(object: &mut Object, api_version: &str, kind: &str) -> Result<(), Status> {
    let (own_version, own_kind) = (object.api_version(), object.kind());
    if !own_kind.is_empty() && own_kind != kind {
        return Err(Status::bad_request(format!(
            "{own_kind} in version {own_version:?} cannot be handled as a {kind}: the request is about a {kind}"
        )));
    }
    if !own_version.is_empty() && own_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({own_version}) does not match the expected API version ({api_version})"
        )));
    }
    object.0.insert("apiVersion".to_owned(), Value::from(api_version));
    object.0.insert("kind".to_owned(), Value::from(kind));
    Ok(())
}

/// Server-side apply, in YAML or in the part of it that is JSON.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCHES: [&str; 4] = ["application/json-patch+json", "application/merge-patch+json", STRATEGIC, APPLY_PATCH];
/// How lists of custom kinds merge is not told by strategies.
const CUSTOM_PATCHES: [&str; 3] = ["application/json-patch+json", "application/merge-patch+json", APPLY_PATCH];

/// The patches that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

impl PatchKind {
    pub fn of(content_type: &str) -> Result<PatchKind, Status> {
        match content_type {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            STRATEGIC => Ok(PatchKind::Strategic),
            _ => Err(Status::unknown_body(&PATCHES)),
        }
    }
}

/// A patch as it came, applied to whatever version of the object stands.
pub struct Patch {
    pub kind: PatchKind,
    pub value: Value,
    pub duplicates: Vec<String>,
}

impl Patch {
    pub fn read(kind: PatchKind, bytes: &[u8]) -> Result<Patch, Status> {
        let parsed = value(bytes, BodyFormat::Json)?;
        if kind != PatchKind::Json && !parsed.value.is_object() {
            return Err(Status::bad_request("a merge patch is a JSON map"));
        }
        Ok(Patch { kind, value: parsed.value, duplicates: parsed.duplicates })
    }

    /// What the patch makes of `old`, as it is: neither canonical nor with defaults.
    pub fn raw(&self, definition: (&str, &str, &str), old: &Object) -> Result<Object, Status> {
        let mut document = old.clone().into_value();
        let result = match self.kind {
            PatchKind::Json => merge::json_patch(&mut document, self.value.clone()),
            PatchKind::Merge => {
                merge::merge_patch(&mut document, &self.value);
                Ok(())
            }
            PatchKind::Strategic => {
                let (group, version, kind) = definition;
                let ty = schema::for_kind(group, version, kind).ok_or_else(|| Status::unknown_body(&CUSTOM_PATCHES))?;
                match merge::strategic(ty, document, self.value.clone()) {
                    Ok(merged) => {
                        document = merged;
                        Ok(())
                    }
                    Err(error) => return Err(refused(&error)),
                }
            }
        };
        result.map_err(|error| refused(&error))?;
        Object::from_value(document).map_err(|error| malformed(&error))
    }

    /// What the patch makes of `old`, canonical and with defaults.
    pub fn apply(
        &self,
        resource: &Resource,
        custom: Option<&Custom>,
        old: &Object,
        validation: FieldValidation,
    ) -> Result<Decoded, Status> {
        let definition = (resource.group, resource.version, resource.kind);
        let mut new = match versions::is_stored(resource) {
            true => self.raw(definition, old)?,
            false => self.raw(definition, &versions::from_stored(resource, old))?,
        };
        check_kind(&mut new, &resource.api_version(), resource.kind)?;
        let decoded = canonical(resource, custom, new, &self.duplicates, validation).map_err(|status| {
            // A patch that leads to unknown fields is well-formed itself.
            if !status.message.contains("strict decoding error") {
                return status;
            }
            let error = FieldError::invalid("patch", self.value.clone(), status.message.clone());
            Status::invalid(resource, old.name(), &[error])
        })?;
        with_defaults(resource, custom, decoded)
    }
}

fn refused(error: &merge::MergeError) -> Status {
    match error {
        merge::MergeError::Malformed(_) => Status::bad_request(error.to_string()),
        merge::MergeError::TooManyOperations(_) | merge::MergeError::CopiesTooMuch(_) => {
            Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}"))
        }
        merge::MergeError::TooDeep | merge::MergeError::DoesNotApply(_) => Status::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource::{CONFIG_MAP, POD};

    fn read(text: &str, validation: FieldValidation) -> Result<Decoded, Status> {
        decode(&CONFIG_MAP, None, text.as_bytes(), BodyFormat::Json, validation)
    }

    #[test]
    fn unknown_and_duplicate_fields_by_validation() {
        let text = r#"{"metadata":{"name":"a"},"data":{"x":"1","x":"2"},"shiny":1}"#;
        let warned = read(text, FieldValidation::Warn).unwrap();
        assert_eq!(warned.warnings.len(), 2, "{:?}", warned.warnings);
        assert!(read(text, FieldValidation::Ignore).unwrap().warnings.is_empty());
        let refused = read(text, FieldValidation::Strict).unwrap_err();
        assert_eq!(refused.code, 400);
        assert!(refused.message.contains("unknown field \"shiny\""), "{}", refused.message);
    }

    #[test]
    fn what_is_not_the_kind_is_400() {
        for bad in [
            "",
            "[]",
            "{",
            r#"{"kind":"Pod"}"#,
            r#"{"apiVersion":"v2","kind":"ConfigMap"}"#,
            r#"{"data":{"a":1}}"#,
            r#"{"data":7}"#,
        ] {
            assert_eq!(read(bad, FieldValidation::Warn).unwrap_err().code, 400, "{bad}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(300), "}".repeat(300));
        assert_eq!(read(&deep, FieldValidation::Warn).unwrap_err().code, 400);
    }

    #[test]
    fn yaml_is_read_too() {
        let text = "metadata:\n  name: a\ndata:\n  x: \"1\"\n";
        let decoded = decode(&CONFIG_MAP, None, text.as_bytes(), BodyFormat::Yaml, FieldValidation::Strict).unwrap();
        assert_eq!(decoded.object.str_at("/data/x"), "1");
        assert_eq!(
            decode(&CONFIG_MAP, None, b"a: [", BodyFormat::Yaml, FieldValidation::Strict).unwrap_err().code,
            400
        );
    }

    #[test]
    fn patches_apply_or_say_why() {
        let pod = decode(
            &POD,
            None,
            br#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"x"}]}}"#,
            BodyFormat::Json,
            FieldValidation::Strict,
        )
        .unwrap()
        .object;
        let strategic = r#"{"spec":{"containers":[{"name":"a","image":"y"}]}}"#;
        let patch = Patch::read(PatchKind::Strategic, strategic.as_bytes()).unwrap();
        let new = patch.apply(&POD, None, &pod, FieldValidation::Strict).unwrap().object;
        assert_eq!(new.str_at("/spec/containers/0/image"), "y");
        let test = Patch::read(PatchKind::Json, br#"[{"op":"test","path":"/metadata/name","value":"q"}]"#).unwrap();
        assert_eq!(test.apply(&POD, None, &pod, FieldValidation::Warn).unwrap_err().code, 422);
        assert_eq!(PatchKind::of("application/apply-patch+cbor").unwrap_err().code, 415);
        assert!(Patch::read(PatchKind::Merge, b"[1]").is_err());
    }
}
