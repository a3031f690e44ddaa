use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use gantry_kube::Object;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::outline::Outline;
use crate::store::encode::{Encoded, splice, version_field};
use crate::store::{Key, Revision, StoreError};

/// Names one way of writing an object other than its stored JSON: another served version, another media type, a Table row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Of the kind that it is served as: one that is stored may be served in two groups.
    pub group: &'static str,
    pub version: &'static str,
    /// `application/vnd.kubernetes.protobuf`, or any name that tells two encodings apart.
    pub media: &'static str,
}

/// An encoding that was made.
struct Other {
    encoding: Encoding,
    /// The revision of what it was made by, beside the object itself: of a custom kind's definition. 0 where that is nothing.
    by: Revision,
    bytes: Bytes,
}

/// One version of one object, as the bytes that go out.
pub struct Stored {
    key: Key,
    revision: Revision,
    json: Bytes,
    /// Where the resourceVersion was spliced in.
    offset: usize,
    /// The parsed map, shared by those who hold it at the same time; it costs ten times the JSON, so it is not kept.
    parsed: Mutex<Weak<Object>>,
    others: Mutex<SmallVec<[Other; 1]>>,
    outline: OnceLock<Outline>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

impl Stored {
    /// What the store holds under `key`: JSON without resourceVersion.
    pub(crate) fn from_store(key: Key, revision: Revision, value: Bytes) -> Result<Stored, StoreError> {
        match Encoded::parse(value) {
            Ok(encoded) => Ok(Stored::new(key, revision, &encoded)),
            Err(_) => Err(StoreError::Damaged { revision, key: key.to_string(), why: "it is not an object in JSON" }),
        }
    }

    pub fn new(key: Key, revision: Revision, encoded: &Encoded) -> Stored {
        Stored {
            key,
            revision,
            json: encoded.splice(revision),
            offset: encoded.offset,
            parsed: Mutex::default(),
            others: Mutex::default(),
            outline: OnceLock::new(),
        }
    }

    /// The same content under another revision.
    pub(super) fn at(&self, revision: Revision) -> Stored {
        let tail = self.offset + version_field(self.revision).len();
        Stored {
            key: self.key.clone(),
            revision,
            json: splice(&self.json[..self.offset], revision, &self.json[tail..]),
            offset: self.offset,
            parsed: Mutex::default(),
            others: Mutex::default(),
            outline: OnceLock::new(),
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The object's resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Canonical JSON of the stored version, with its resourceVersion.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The parsed object. Parsed when asked, and shared for as long as somebody holds it.
    pub fn object(&self) -> Arc<Object> {
        let mut parsed = self.parsed.lock();
        if let Some(object) = parsed.upgrade() {
            return object;
        }
        // The bytes were checked to be a JSON map when this was made.
        let object = Arc::new(Object::from_slice(&self.json).unwrap_or_default());
        *parsed = Arc::downgrade(&object);
        object
    }

    /// Labels and `fields` (`spec.nodeName`): what selectors match. Made when first asked for, and kept; a kind has one list of
    /// fields.
    pub fn outline(&self, fields: &'static [&'static str]) -> &Outline {
        self.outline.get_or_init(|| Outline::read(&self.json, fields))
    }

    /// Another encoding of this version, made by the first who asks and kept for the others.
    pub fn encoded<E>(&self, encoding: Encoding, make: impl FnOnce(&Stored) -> Result<Bytes, E>) -> Result<Bytes, E> {
        let find = |others: &SmallVec<[Other; 1]>| {
            others.iter().find(|other| other.encoding == encoding).map(|other| other.bytes.clone())
        };
        if let Some(bytes) = find(&self.others.lock()) {
            return Ok(bytes);
        }
        // Made outside the lock: two who ask at once may both make it, the first one is kept.
        let bytes = make(self)?;
        let mut others = self.others.lock();
        if let Some(first) = find(&others) {
            return Ok(first);
        }
        others.push(Other { encoding, by: 0, bytes: bytes.clone() });
        Ok(bytes)
    }

    /// An encoding that [`Stored::keep`] was given, and the revision that it was made by.
    pub fn kept(&self, encoding: Encoding) -> Option<(Revision, Bytes)> {
        let others = self.others.lock();
        others.iter().find(|other| other.encoding == encoding).map(|other| (other.by, other.bytes.clone()))
    }

    /// Keeps an encoding that takes more than this object to make, in place of the one that was kept before.
    pub fn keep(&self, encoding: Encoding, by: Revision, bytes: Bytes) {
        let mut others = self.others.lock();
        others.retain(|other| other.encoding != encoding);
        others.push(Other { encoding, by, bytes });
    }
}
