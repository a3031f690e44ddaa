//! The generic verbs: every kind is made, read, changed and deleted by the same code, and what is special to one kind is
//! its [`strategy`].
//!
//! A write is a pure function from the stored object to the wanted one, run inside a compare-and-swap loop: read, decide,
//! write if nothing came between. Reads and watches hand out the cache's bytes as they are.

mod admit;
pub mod apply;
pub mod columns;
mod create;
pub mod decode;
pub mod delete;
pub mod deletion;
pub mod eviction;
pub mod list;
mod managed;
pub mod options;
pub mod quota;
pub mod services;
pub mod strategy;
pub mod subresource;
pub mod update;
pub mod watch;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use gantry_env::Env;
use gantry_kube::{Object, Ref, Resource, Status, versions};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::auth::{Identity, Lookup};
use crate::store::cache::Encoding;
use crate::store::{Cache, Stored};
use crate::trace::Trace;

pub use decode::Decoded;
pub use list::Listed;
pub use options::{DeleteOptions, ListOptions, Propagation, Selection, WriteOptions};
pub use quota::Quotas;
pub use services::ServiceAllocator;

/// What a verb answers with: a version of the store, or (for a dry run, or a view like Scale) an object of its own.
#[derive(Clone, Debug)]
pub enum Answer {
    Stored(Arc<Stored>),
    Made(Object),
}

impl Answer {
    /// As the stored version has it.
    pub fn json(&self) -> Bytes {
        match self {
            Answer::Stored(stored) => stored.json().clone(),
            Answer::Made(object) => object.to_vec().into(),
        }
    }

    /// As the version has it that was asked for.
    pub fn json_as(&self, resource: &Resource) -> Bytes {
        match self {
            Answer::Stored(stored) => json_as(resource, stored),
            Answer::Made(object) => versions::from_stored(resource, object).to_vec().into(),
        }
    }

    pub fn object(&self) -> Arc<Object> {
        match self {
            Answer::Stored(stored) => stored.object(),
            Answer::Made(object) => Arc::new(object.clone()),
        }
    }
}

/// A stored object's bytes in the version that was asked for: made by the first who asks, and kept with the others.
pub fn json_as(resource: &Resource, stored: &Stored) -> Bytes {
    if versions::is_stored(resource) {
        return stored.json().clone();
    }
    let encoding = Encoding { api_version: resource.version, media: "application/json" };
    let made: Result<Bytes, Infallible> =
        stored.encoded(encoding, |stored| Ok(versions::from_stored(resource, &stored.object()).to_vec().into()));
    match made {
        Ok(bytes) => bytes,
    }
}

/// Who writes, and how.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    pub identity: &'a Identity,
    pub options: &'a WriteOptions,
    /// When the request came in.
    pub received: Timestamp,
    /// What the client is to be told beside the answer.
    pub warnings: &'a Mutex<Vec<String>>,
}

/// The store of all kinds with the rules of the API around it. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) cache: Cache,
    pub(crate) env: Env,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) services: ServiceAllocator,
    pub(crate) quotas: Quotas,
    pub(crate) trace: Trace,
}

impl Registry {
    pub fn new(cache: Cache, env: Env, services: ServiceAllocator, trace: Trace) -> Registry {
        let lookup = Arc::new(cache.clone());
        Registry { cache, env, lookup, services, quotas: Quotas::default(), trace }
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn get(&self, resource: &Resource, at: &Ref) -> Result<Arc<Stored>, Status> {
        self.cache.get(resource, at).ok_or_else(|| Status::not_found(resource, &at.name))
    }
}

/// Admission and authorisation read the cache.
impl Lookup for Cache {
    fn get(&self, resource: &Resource, at: &Ref) -> Option<Arc<Object>> {
        self.object(resource, at)
    }

    fn list(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        Cache::list(self, resource, namespace).items.iter().map(|stored| stored.object()).collect()
    }

    fn version(&self, resource: &Resource) -> u64 {
        self.last_change(resource)
    }

    fn any(
        &self,
        resource: &Resource,
        namespace: &str,
        words: &[&str],
        accept: &mut dyn FnMut(&Object) -> bool,
    ) -> bool {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let finders: Vec<_> = quoted.iter().map(|word| memchr::memmem::Finder::new(word.as_bytes())).collect();
        Cache::list(self, resource, Some(namespace))
            .items
            .iter()
            .any(|stored| finders.iter().all(|finder| finder.find(stored.json()).is_some()) && accept(&stored.object()))
    }
}
