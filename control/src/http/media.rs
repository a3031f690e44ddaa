//! Media types: what a client sends (Content-Type) and what it wants back (Accept).

use gantry_kube::Status;
use http::{HeaderMap, header};

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

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

    fn quality(&self) -> f32 {
        self.param("q").parse().unwrap_or(1.0)
    }
}

/// The ranges of the Accept header, best first; `*/*` where there is none.
pub fn accepted(headers: &HeaderMap) -> Vec<MediaType> {
    let mut ranges: Vec<MediaType> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter(|v| !v.trim().is_empty())
        .map(MediaType::parse)
        .collect();
    if ranges.is_empty() {
        ranges.push(MediaType::parse("*/*"));
    }
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    ranges
}

/// The shape in which an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    Table { version: &'static str },
    PartialMetadata { version: &'static str },
}

/// The encoding and shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub form: Form,
    pub yaml: bool,
}

impl Wanted {
    pub const JSON: Wanted = Wanted { form: Form::Object, yaml: false };

    pub fn content_type(&self) -> &'static str {
        if self.yaml { "application/yaml" } else { "application/json" }
    }
}

/// Which of the forms that we can make the client likes best.
pub fn negotiate(headers: &HeaderMap, watch: bool) -> Result<Wanted, Status> {
    for range in accepted(headers) {
        let yaml = match range.essence.as_str() {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" if !watch => true,
            _ => continue,
        };
        let version = match range.param("v") {
            "v1beta1" => "v1beta1",
            _ => "v1",
        };
        let known = range.param("as").is_empty()
            || (range.param("g") == "meta.k8s.io" && matches!(range.param("v"), "v1" | "v1beta1"));
        if !known {
            continue;
        }
        let form = match range.param("as") {
            "" => Form::Object,
            "Table" => Form::Table { version },
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::PartialMetadata { version },
            _ => continue,
        };
        return Ok(Wanted { form, yaml });
    }
    Err(Status::not_acceptable("application/json, application/yaml"))
}

/// The encodings in which a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

pub fn content_type(headers: &HeaderMap) -> MediaType {
    MediaType::parse(headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(""))
}

pub fn body_format(headers: &HeaderMap) -> Result<BodyFormat, Status> {
    let media = content_type(headers);
    match media.essence.as_str() {
        "" | "application/json" | "*/*" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        PROTOBUF => Ok(BodyFormat::Protobuf),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, {PROTOBUF} (it was {other:?})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        headers
    }

    #[test]
    fn kubectl_gets_its_table() {
        let headers = accept(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        );
        assert_eq!(negotiate(&headers, false).unwrap().form, Form::Table { version: "v1" });
    }

    #[test]
    fn protobuf_falls_back_to_json_only_where_the_client_says_so() {
        let both = accept("application/vnd.kubernetes.protobuf,application/json");
        assert_eq!(negotiate(&both, false).unwrap(), Wanted::JSON);
        assert_eq!(negotiate(&accept("application/vnd.kubernetes.protobuf"), false).unwrap_err().code, 406);
        assert_eq!(negotiate(&accept("text/html"), false).unwrap_err().code, 406);
        assert_eq!(negotiate(&HeaderMap::new(), false).unwrap(), Wanted::JSON);
    }

    #[test]
    fn unknown_bodies_are_415() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(body_format(&headers).unwrap_err().code, 415);
    }
}
