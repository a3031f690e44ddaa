//! Media types: what a client sends (Content-Type) and what it wants back (Accept).
//!
//! Ranges are tried from the best quality down, and for each of them the encodings in one order: JSON, YAML, protobuf.
//! A range with parameters that an endpoint does not honour is passed over; where none is left, the answer is 406.

use gantry_kube::{Resource, Status, schema};
use http::{HeaderMap, HeaderValue, header};

pub use gantry_kube::protobuf::CONTENT_TYPE as PROTOBUF;

/// One media range with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    pub essence: String,
    pub params: Vec<(String, String)>,
}

impl MediaType {
    pub fn parse(text: &str) -> MediaType {
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or("").trim().to_ascii_lowercase();
        let params = parts
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().trim_matches('"').to_owned()))
            .collect();
        MediaType { essence, params }
    }

    pub fn param(&self, key: &str) -> &str {
        self.params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str())
    }

    /// What is no number is the least, as Go's parser leaves it.
    fn quality(&self) -> f32 {
        if self.param("q").is_empty() { 1.0 } else { self.param("q").parse().unwrap_or(0.0) }
    }

    /// Whether it names this type, or a range that has it.
    pub fn covers(&self, format: BodyFormat) -> bool {
        matches!(self.essence.as_str(), "*/*" | "*" | "application/*") || self.essence == format.content_type()
    }
}

/// The ranges of the Accept header, best first, and of equal ones those first that name more; `*/*` where there is none.
pub fn accepted(headers: &HeaderMap) -> Vec<MediaType> {
    ranges(headers.get_all(header::ACCEPT).iter())
}

/// The same of the header's values alone.
fn ranges<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<MediaType> {
    let mut ranges: Vec<MediaType> = values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter(|v| !v.trim().is_empty())
        .map(MediaType::parse)
        .collect();
    if ranges.is_empty() {
        ranges.push(MediaType::parse("*/*"));
    }
    let wide = |range: &MediaType| range.essence.matches('*').count();
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()).then_with(|| wide(a).cmp(&wide(b))));
    ranges
}

/// The shape in which an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    Table { version: &'static str },
    PartialMetadata { version: &'static str },
}

/// The encodings of bodies, those that come and those that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

impl BodyFormat {
    /// In the order in which they are preferred, and named to those who take none of them.
    const ALL: [BodyFormat; 3] = [BodyFormat::Json, BodyFormat::Yaml, BodyFormat::Protobuf];

    pub fn content_type(self) -> &'static str {
        match self {
            BodyFormat::Json => "application/json",
            BodyFormat::Yaml => "application/yaml",
            BodyFormat::Protobuf => PROTOBUF,
        }
    }

    /// The type of a watch's body; there is none in YAML.
    pub fn watch_content_type(self) -> &'static str {
        match self {
            BodyFormat::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            other => other.content_type(),
        }
    }
}

/// The encoding and shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub form: Form,
    pub format: BodyFormat,
}

impl Wanted {
    pub const JSON: Wanted = Wanted { form: Form::Object, format: BodyFormat::Json };

    pub fn content_type(&self) -> &'static str {
        self.format.content_type()
    }
}

/// What an endpoint has in protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InProtobuf {
    Nothing,
    /// PartialObjectMetadata alone: the objects themselves are of a kind that has no numbers on that wire.
    Metadata,
    Everything,
}

/// What an endpoint can answer with, beside whole objects in JSON and YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub protobuf: InProtobuf,
    /// Rows of a table, and metadata alone, in place of whole objects.
    pub forms: bool,
}

impl Offer {
    /// Refusals, and objects that are made for one answer.
    pub const MADE: Offer = Offer { protobuf: InProtobuf::Everything, forms: false };
    /// What is measured, not stored.
    pub const MEASURED: Offer = Offer { protobuf: InProtobuf::Nothing, forms: true };

    /// What is stored of a kind. Kinds of which the schema table knows nothing are in JSON alone.
    pub fn of(resource: &Resource) -> Offer {
        let known = schema::for_kind(resource.group, resource.version, resource.kind).is_some();
        Offer { protobuf: if known { InProtobuf::Everything } else { InProtobuf::Metadata }, forms: true }
    }

    fn has(self, format: BodyFormat, form: Form) -> bool {
        let protobuf = match (self.protobuf, form) {
            (InProtobuf::Nothing, _) | (_, Form::Table { .. }) => false,
            (InProtobuf::Metadata, form) => form != Form::Object,
            (InProtobuf::Everything, _) => true,
        };
        (self.forms || form == Form::Object) && (protobuf || format != BodyFormat::Protobuf)
    }
}

/// Which of what an endpoint offers the client likes best.
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Result<Wanted, Status> {
    best(&accepted(headers), offer)
        .ok_or_else(|| Status::not_acceptable(&BodyFormat::ALL.map(BodyFormat::content_type).join(", ")))
}

/// The same for a watch, which has a framing in JSON and in protobuf, and none in YAML.
pub fn negotiate_watch(headers: &HeaderMap, offer: Offer) -> Result<Wanted, Status> {
    let wanted = negotiate(headers, offer)?;
    if wanted.format == BodyFormat::Yaml {
        let framed =
            [BodyFormat::Json, BodyFormat::Protobuf].map(|format| format!("{};stream=watch", format.content_type()));
        return Err(Status::not_acceptable(&framed.join(", ")));
    }
    Ok(wanted)
}

/// In what a refusal, or whatever was made for an answer, goes out to a client with these Accept headers: what has been
/// done does not fail for want of an encoding.
pub fn format_of_made<'a>(accept: impl Iterator<Item = &'a HeaderValue>) -> BodyFormat {
    best(&ranges(accept), Offer::MADE).map_or(BodyFormat::Json, |wanted| wanted.format)
}

fn best(ranges: &[MediaType], offer: Offer) -> Option<Wanted> {
    ranges.iter().find_map(|range| {
        let mut formats = BodyFormat::ALL.into_iter().filter(|format| range.covers(*format));
        formats.find_map(|format| {
            let form = form(range, format)?;
            offer.has(format, form).then_some(Wanted { form, format })
        })
    })
}

/// The form that a range asks for; none where it asks for what nobody has.
fn form(range: &MediaType, format: BodyFormat) -> Option<Form> {
    let streams = match range.param("stream") {
        "" => true,
        "watch" => format != BodyFormat::Yaml,
        _ => false,
    };
    if !streams || !matches!(range.param("sv"), "" | "v1") {
        return None;
    }
    let version = match (range.param("as"), range.param("g"), range.param("v")) {
        ("", "", "") => return Some(Form::Object),
        (_, "meta.k8s.io", "v1") => "v1",
        (_, "meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    match range.param("as") {
        "Table" => Some(Form::Table { version }),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Form::PartialMetadata { version }),
        _ => None,
    }
}

pub fn content_type(headers: &HeaderMap) -> MediaType {
    MediaType::parse(headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(""))
}

/// In what a request's body is to be read.
pub fn body_format(headers: &HeaderMap) -> Result<BodyFormat, Status> {
    let media = content_type(headers);
    if matches!(media.essence.as_str(), "" | "*/*") {
        return Ok(BodyFormat::Json);
    }
    let known = BodyFormat::ALL.into_iter().find(|format| format.content_type() == media.essence);
    known.ok_or_else(|| Status::unknown_body(&BodyFormat::ALL.map(BodyFormat::content_type)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;

    const KIND: Offer = Offer { protobuf: InProtobuf::Everything, forms: true };
    const CUSTOM: Offer = Offer { protobuf: InProtobuf::Metadata, forms: true };
    const TABLE: Form = Form::Table { version: "v1" };
    const METADATA: Form = Form::PartialMetadata { version: "v1" };

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        headers
    }

    fn wanted(value: &str, offer: Offer) -> Option<(Form, BodyFormat)> {
        negotiate(&accept(value), offer).ok().map(|wanted| (wanted.form, wanted.format))
    }

    #[test]
    fn kubectl_gets_its_table() {
        let tables = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        let accept = format!("{tables},application/json");
        assert_eq!(wanted(&accept, KIND), Some((TABLE, BodyFormat::Json)));
        assert_eq!(wanted(&accept, Offer::MADE), Some((Form::Object, BodyFormat::Json)));
        assert_eq!(wanted(tables, Offer::MADE), None);
    }

    #[test]
    fn each_range_is_tried_with_what_there_is() {
        let object = |format| Some((Form::Object, format));
        for (accept, expected) in [
            ("*/*", object(BodyFormat::Json)),
            ("application/*", object(BodyFormat::Json)),
            ("application/yaml", object(BodyFormat::Yaml)),
            ("application/vnd.kubernetes.protobuf", object(BodyFormat::Protobuf)),
            ("application/vnd.kubernetes.protobuf,application/json", object(BodyFormat::Protobuf)),
            ("application/vnd.kubernetes.protobuf, */*", object(BodyFormat::Protobuf)),
            ("*/*, application/vnd.kubernetes.protobuf", object(BodyFormat::Protobuf)),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json;q=0.9", object(BodyFormat::Json)),
            ("application/yaml;q=x, application/json;q=0.1", object(BodyFormat::Json)),
            ("application/json;stream=watch", object(BodyFormat::Json)),
            ("*/*;stream=watch", object(BodyFormat::Json)),
            ("application/yaml;stream=watch", None),
            ("application/json;stream=other", None),
            ("application/json;sv=v2,application/yaml", object(BodyFormat::Yaml)),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", None),
            ("application/json;v=v1", None),
            ("text/html", None),
            ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", object(BodyFormat::Json)),
        ] {
            assert_eq!(wanted(accept, KIND), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), KIND), Ok(Wanted::JSON));
    }

    #[test]
    fn not_everything_is_in_protobuf() {
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
        assert_eq!(wanted(table, KIND), None);
        assert_eq!(wanted(&format!("{table},application/yaml"), KIND), Some((Form::Object, BodyFormat::Yaml)));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        for offer in [KIND, CUSTOM] {
            assert_eq!(wanted(metadata, offer), Some((METADATA, BodyFormat::Protobuf)));
        }
        assert_eq!(wanted("application/vnd.kubernetes.protobuf", CUSTOM), None);
        let both = "application/vnd.kubernetes.protobuf,application/json;q=0.1";
        assert_eq!(wanted(both, CUSTOM), Some((Form::Object, BodyFormat::Json)));
        assert_eq!(wanted(&format!("{metadata},{both}"), Offer::MEASURED), Some((Form::Object, BodyFormat::Json)));
        assert_eq!((Offer::of(&resource::POD), Offer::of(&resource::NODE_METRICS)), (KIND, CUSTOM));
    }

    #[test]
    fn a_refusal_names_what_there_is() {
        let refusal = negotiate(&accept("text/html"), KIND).unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (406, "NotAcceptable"));
        assert_eq!(
            refusal.message,
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf"
        );
        let refusal = negotiate_watch(&accept("application/yaml, application/json"), KIND).unwrap_err();
        assert_eq!(
            refusal.message,
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch"
        );
        let watch = negotiate_watch(&accept("application/vnd.kubernetes.protobuf;stream=watch"), KIND).unwrap();
        assert_eq!(watch.format.watch_content_type(), "application/vnd.kubernetes.protobuf;stream=watch");
        assert_eq!(Wanted::JSON.format.watch_content_type(), "application/json");
        for (accept, format) in [("text/html", BodyFormat::Json), (PROTOBUF, BodyFormat::Protobuf)] {
            assert_eq!(format_of_made([&HeaderValue::from_static(accept)].into_iter()), format);
        }
    }

    #[test]
    fn unknown_bodies_are_415() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        let refusal = body_format(&headers).unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (415, "UnsupportedMediaType"));
        assert_eq!(
            refusal.message,
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf"
        );
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        assert_eq!(body_format(&headers), Ok(BodyFormat::Json));
    }
}
