//! The generic verbs: every kind is made, read, changed and deleted by the same code, and what is special to one kind is
//! its [`strategy`].
//!
//! A write is a pure function from the stored object to the wanted one, run inside a compare-and-swap loop: read, decide,
//! write if nothing came between. Reads and watches hand out the cache's bytes as they are.

mod admit;
pub mod apply;
pub(crate) mod certificates;
pub mod columns;
mod create;
pub mod decode;
pub mod delete;
pub mod deletion;
pub mod encoded;
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

use std::sync::Arc;

use bytes::Bytes;
use gantry_env::Env;
use gantry_kube::custom::Asked;
use gantry_kube::{FieldError, Object, Ref, Resource, Status, versions};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::admission;
use crate::auth::{Identity, Lookup};
use crate::custom::conversion::Converter;
use crate::custom::{Custom, Kinds};
use crate::store::{Cache, Stored};
use crate::trace::Trace;

pub use decode::Decoded;
pub use encoded::json_as;
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
    pub(crate) kinds: Kinds,
    pub(crate) converter: Converter,
    pub(crate) services: ServiceAllocator,
    pub(crate) quotas: Quotas,
    pub(crate) trace: Trace,
    pub(crate) admissions: Arc<admission::Metrics>,
}

impl Registry {
    pub fn new(cache: Cache, env: Env, services: ServiceAllocator, trace: Trace) -> Registry {
        let (lookup, kinds) = (Arc::new(cache.clone()), Kinds::new(cache.clone()));
        let (converter, quotas) = (Converter::new(cache.clone(), env.clone()), Quotas::default());
        Registry { cache, env, lookup, kinds, converter, services, quotas, trace, admissions: Arc::default() }
    }

    /// How long admission took.
    pub fn admissions(&self) -> &admission::Metrics {
        &self.admissions
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

    /// The custom kinds that are served.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// What is known of a custom kind's version; none for a built-in kind.
    pub(crate) fn custom(&self, resource: &Resource) -> Result<Option<Custom>, Status> {
        self.kinds.of(resource)
    }

    /// The errors of what was asked; the client hears of the warnings.
    fn told(&self, writer: &Writer<'_>, asked: Asked) -> Vec<FieldError> {
        writer.warnings.lock().extend(asked.warnings);
        asked.errors
    }

    /// An answer that can be written in the resource's version.
    async fn answered(&self, resource: &Resource, answer: Answer) -> Result<Answer, Status> {
        if let Answer::Stored(stored) = &answer {
            self.prepare(resource, std::slice::from_ref(stored)).await?;
        }
        Ok(answer)
    }

    /// What would be stored, as an answer in the resource's version.
    async fn made(&self, resource: &Resource, object: Object) -> Result<Answer, Status> {
        let Some(custom) = self.custom(resource)? else { return Ok(Answer::Made(object)) };
        let mut read = self.converter.read(&custom, vec![object]).await?;
        Ok(Answer::Made(read.pop().unwrap_or_default()))
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
