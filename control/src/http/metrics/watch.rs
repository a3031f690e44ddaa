//! Events that went out to watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gantry_env::metrics::{Histogram, Text};
use gantry_kube::{Resource, Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::http::media::BodyFormat;
use crate::registry::watch::Shape;
use crate::store::Stored;

/// A kibibyte and its doubles.
const EVENT_BYTES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0];

/// Group, version and plural.
type Kind = (&'static str, &'static str, &'static str);

/// By kind.
#[derive(Debug, Default)]
pub struct WatchEvents(Mutex<BTreeMap<Kind, Arc<Histogram>>>);

impl WatchEvents {
    /// The same shape, its events counted.
    pub fn counted<S>(&self, resource: &'static Resource, shape: S) -> Counted<S> {
        let kind = (resource.group, resource.version, resource.plural);
        let sizes = self.0.lock().entry(kind).or_insert_with(|| Arc::new(Histogram::new(EVENT_BYTES))).clone();
        Counted { shape, sizes }
    }

    pub fn write(&self, text: &mut Text) {
        let all = self.0.lock().clone();
        let labels =
            |(group, version, plural): &Kind| [("group", *group), ("resource", *plural), ("version", *version)];
        text.family("apiserver_watch_events_total", "counter", "Events that went out to watchers");
        for (kind, sizes) in &all {
            text.count("apiserver_watch_events_total", &labels(kind), sizes.count());
        }
        text.family("apiserver_watch_events_sizes", "histogram", "How large their objects were, in bytes");
        for (kind, sizes) in &all {
            text.histogram("apiserver_watch_events_sizes", &labels(kind), sizes);
        }
    }
}

/// A shape that counts what it makes.
pub struct Counted<S> {
    shape: S,
    sizes: Arc<Histogram>,
}

impl<S: Shape> Shape for Counted<S> {
    fn format(&self) -> BodyFormat {
        self.shape.format()
    }

    fn object(&mut self, stored: &Arc<Stored>) -> Result<Bytes, Status> {
        let bytes = self.shape.object(stored)?;
        self.sizes.observe(bytes.len() as f64);
        Ok(bytes)
    }

    fn bookmark(&mut self, bookmark: Value) -> Value {
        self.shape.bookmark(bookmark)
    }
}
