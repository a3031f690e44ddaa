//! What goes out of an object, in each encoding: made of a stored version by the first who asks, and kept for the others.

use std::convert::Infallible;

use bytes::Bytes;
use gantry_kube::protobuf::encode;
use gantry_kube::{Object, Resource, Status, versions};
use serde_json::{Map, Value, json};

use crate::custom;
use crate::http::media::{BodyFormat, PROTOBUF};
use crate::store::Stored;
use crate::store::cache::Encoding;

const META_GROUP: &str = "meta.k8s.io";
const PARTIAL_METADATA: &str = "PartialObjectMetadata";

/// A stored object's JSON in the version that was asked for.
pub fn json_as(resource: &Resource, stored: &Stored) -> Bytes {
    if resource.custom {
        return custom::json(resource, stored);
    }
    if versions::is_stored(resource) {
        return stored.json().clone();
    }
    let encoding = Encoding { group: resource.group, version: resource.version, media: "application/json" };
    let made: Result<Bytes, Infallible> =
        stored.encoded(encoding, |stored| Ok(versions::from_stored(resource, &stored.object()).to_vec().into()));
    match made {
        Ok(bytes) => bytes,
    }
}

/// A stored object as a whole body in protobuf, in the version that was asked for.
pub fn protobuf_as(resource: &Resource, stored: &Stored) -> Result<Bytes, Status> {
    stored.encoded(Encoding { group: resource.group, version: resource.version, media: PROTOBUF }, |stored| {
        let object = stored.object();
        if versions::is_stored(resource) {
            return in_protobuf(&object);
        }
        in_protobuf(&versions::from_stored(resource, &object))
    })
}

/// A stored object's metadata as a PartialObjectMetadata of that version of meta.k8s.io.
pub fn partial(stored: &Stored, version: &'static str, format: BodyFormat) -> Result<Bytes, Status> {
    let media = match format {
        BodyFormat::Protobuf => "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata",
        BodyFormat::Json | BodyFormat::Yaml => "application/json;as=PartialObjectMetadata",
    };
    let made = stored.encoded(Encoding { group: META_GROUP, version, media }, |stored| {
        let partial = partial_of(&stored.object(), version);
        if format == BodyFormat::Protobuf { in_protobuf(&partial) } else { Ok(partial.to_vec().into()) }
    })?;
    if format == BodyFormat::Yaml { yaml(&made) } else { Ok(made) }
}

/// An object's metadata alone.
pub fn partial_of(object: &Object, version: &str) -> Object {
    let mut partial = Map::new();
    partial.insert("apiVersion".to_owned(), json!(format!("{META_GROUP}/{version}")));
    partial.insert("kind".to_owned(), json!(PARTIAL_METADATA));
    partial.insert("metadata".to_owned(), object.0.get("metadata").cloned().unwrap_or_default());
    Object(partial)
}

/// An object that is made for one answer, and names its kind itself.
pub fn made(object: &Object, format: BodyFormat) -> Result<Bytes, Status> {
    match format {
        BodyFormat::Json => Ok(object.to_vec().into()),
        BodyFormat::Yaml => serde_saphyr::to_string(&object.0).map(Into::into).map_err(Status::internal),
        BodyFormat::Protobuf => in_protobuf(object),
    }
}

fn in_protobuf(object: &Object) -> Result<Bytes, Status> {
    let nothing = Map::new();
    let written = if object.kind() == PARTIAL_METADATA {
        let metadata = object.0.get("metadata").and_then(Value::as_object).unwrap_or(&nothing);
        encode::partial_metadata(object.api_version(), metadata)
    } else {
        encode::encode(object)
    };
    written.map(Into::into).map_err(Status::internal)
}

/// JSON in YAML.
pub fn yaml(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_saphyr::to_string(&value).map(Into::into).map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, encode as stored_form};
    use gantry_kube::{protobuf, resource};

    #[test]
    fn an_encoding_is_made_once_and_says_the_same_as_the_json() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}});
        let key = Key::parse("pods/n/a").unwrap();
        let stored = Stored::new(key, 9, &stored_form(&Object::from_value(pod).unwrap()).unwrap());
        let body = protobuf_as(&resource::POD, &stored).unwrap();
        assert_eq!(protobuf_as(&resource::POD, &stored).unwrap().as_ptr(), body.as_ptr());
        let read = protobuf::decode(&body).unwrap();
        assert_eq!((read.name(), read.resource_version()), ("a", "9"));
        assert_eq!(read.str_at("/spec/containers/0/name"), "c");
        let json: Value = serde_json::from_slice(&partial(&stored, "v1", BodyFormat::Json).unwrap()).unwrap();
        assert_eq!(json["metadata"], stored.object().0["metadata"]);
        let body = partial(&stored, "v1", BodyFormat::Protobuf).unwrap();
        assert_eq!(partial(&stored, "v1", BodyFormat::Protobuf).unwrap().as_ptr(), body.as_ptr());
        let metadata = stored.object().0["metadata"].clone();
        let expected = encode::partial_metadata("meta.k8s.io/v1", metadata.as_object().unwrap()).unwrap();
        assert_eq!(body, expected);
    }
}
