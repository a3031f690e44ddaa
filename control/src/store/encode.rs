use bytes::{BufMut, Bytes, BytesMut};
use gantry_kube::Object;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Revision;

/// An object's canonical JSON without its resourceVersion, and the place where that belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Bytes,
    /// Where `"resourceVersion":"N",` goes: just behind the brace that opens `metadata`.
    pub offset: usize,
}

/// Why bytes or a map cannot be stored as an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("an object without metadata cannot be stored")]
    NoMetadata,
    #[error("a stored object is not JSON: {0}")]
    NotJson(String),
}

/// Encodes an object for the store: one pass, `metadata.resourceVersion` left out.
pub fn encode(object: &Object) -> Result<Encoded, EncodeError> {
    let mut out = Vec::with_capacity(512);
    let mut offset = None;
    out.push(b'{');
    for (key, value) in &object.0 {
        if out.len() > 1 {
            out.push(b',');
        }
        write_json(&mut out, key)?;
        out.push(b':');
        match value {
            Value::Object(metadata) if key == "metadata" => {
                out.push(b'{');
                offset = Some(out.len());
                let start = out.len();
                for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                    if out.len() > start {
                        out.push(b',');
                    }
                    write_json(&mut out, key)?;
                    out.push(b':');
                    write_json(&mut out, value)?;
                }
                if out.len() == start {
                    return Err(EncodeError::NoMetadata);
                }
                out.push(b'}');
            }
            value => write_json(&mut out, value)?,
        }
    }
    out.push(b'}');
    Ok(Encoded { bytes: out.into(), offset: offset.ok_or(EncodeError::NoMetadata)? })
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    serde_json::to_writer(out, value).map_err(|error| EncodeError::NotJson(error.to_string()))
}

impl Encoded {
    /// Finds the place of the resourceVersion in what [`encode`] made.
    pub fn parse(bytes: Bytes) -> Result<Encoded, EncodeError> {
        #[derive(Deserialize)]
        struct Outline<'a> {
            #[serde(borrow)]
            metadata: Option<&'a RawValue>,
        }
        let outline: Outline<'_> =
            serde_json::from_slice(&bytes).map_err(|error| EncodeError::NotJson(error.to_string()))?;
        let metadata = outline.metadata.ok_or(EncodeError::NoMetadata)?.get();
        if !metadata.starts_with("{\"") {
            return Err(EncodeError::NoMetadata);
        }
        let offset = metadata.as_ptr().addr() - bytes.as_ptr().addr() + 1;
        Ok(Encoded { bytes, offset })
    }

    /// The JSON that clients see.
    pub fn splice(&self, revision: Revision) -> Bytes {
        splice(&self.bytes[..self.offset], revision, &self.bytes[self.offset..])
    }
}

pub(super) fn splice(head: &[u8], revision: Revision, tail: &[u8]) -> Bytes {
    let field = version_field(revision);
    let mut out = BytesMut::with_capacity(head.len() + field.len() + tail.len());
    out.put_slice(head);
    out.put_slice(field.as_bytes());
    out.put_slice(tail);
    out.freeze()
}

pub(super) fn version_field(revision: Revision) -> String {
    format!("\"resourceVersion\":\"{revision}\",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_is_spliced_where_it_was_left_out() {
        let mut value = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{\"metadata\":{"},
            "metadata": {"name": "a\"b", "resourceVersion": "7", "labels": {"x": "y"}},
        });
        let object = Object::from_value(value.clone()).unwrap();
        let encoded = encode(&object).unwrap();
        assert_eq!(Encoded::parse(encoded.bytes.clone()).unwrap(), encoded);
        value["metadata"]["resourceVersion"] = json!("12");
        assert_eq!(serde_json::from_slice::<Value>(&encoded.splice(12)).unwrap(), value);
        let unversioned = Object::from_slice(&encoded.bytes).unwrap();
        assert_eq!(unversioned.resource_version(), "");
    }

    #[test]
    fn an_object_without_metadata_is_refused() {
        for bad in
            [json!({}), json!({"metadata": {}}), json!({"metadata": {"resourceVersion": "1"}}), json!({"metadata": 1})]
        {
            assert_eq!(encode(&Object::from_value(bad).unwrap()), Err(EncodeError::NoMetadata));
        }
        for bad in ["{}", "{\"metadata\":{}}", "{\"metadata\":null}", "{\"metadata\":3}"] {
            assert_eq!(Encoded::parse(Bytes::from(bad)), Err(EncodeError::NoMetadata), "{bad}");
        }
        assert!(matches!(Encoded::parse(Bytes::from("{")), Err(EncodeError::NotJson(_))));
    }
}
