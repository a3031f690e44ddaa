//! Stored objects in the version that a request names, made before the answer is: what converts them may have to be asked.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use gantry_kube::{Object, Resource, Status};

use super::Custom;
use crate::registry::{Answer, Registry};
use crate::store::Stored;
use crate::store::cache::Encoding;

/// Objects that are converted together. A webhook's request is bounded by it, and so is what a list holds parsed at a time.
const TOGETHER_MAX: usize = 500;

fn encoding(resource: &Resource) -> Encoding {
    Encoding { group: resource.group, version: resource.version, media: "application/json" }
}

/// A custom object's bytes in the version that was asked for, where [`Registry::prepare`] has made them.
pub fn json(resource: &Resource, stored: &Stored) -> Bytes {
    stored.kept(encoding(resource)).map_or_else(|| stored.json().clone(), |(_, bytes)| bytes)
}

impl Registry {
    /// Makes sure that the objects are there in the resource's version, with its defaults. Nothing to do for built-in kinds,
    /// and once for each object, version and revision of the definition.
    pub async fn prepare(&self, resource: &Resource, items: &[Arc<Stored>]) -> Result<(), Status> {
        let Some(custom) = self.kinds.of(resource)? else { return Ok(()) };
        let (encoding, by) = (encoding(resource), custom.definition.revision);
        let is_ready = |stored: &&Arc<Stored>| stored.kept(encoding).is_some_and(|(made_by, _)| made_by == by);
        let missing: Vec<&Arc<Stored>> = items.iter().filter(|stored| !is_ready(stored)).collect();
        for together in missing.chunks(TOGETHER_MAX) {
            tokio::task::consume_budget().await;
            let objects = together.iter().map(|stored| stored.object().as_ref().clone()).collect();
            for (stored, object) in together.iter().zip(self.converter.read(&custom, objects).await?) {
                let bytes = if object == *stored.object() { stored.json().clone() } else { object.to_vec().into() };
                stored.keep(encoding, by, bytes);
            }
        }
        Ok(())
    }

    /// One object in the resource's version.
    pub(crate) async fn object(&self, resource: &Resource, stored: &Arc<Stored>) -> Result<Arc<Object>, Status> {
        if resource.custom {
            self.prepare(resource, std::slice::from_ref(stored)).await?;
        }
        Ok(prepared(resource, stored))
    }

    /// What was answered, in the resource's version.
    pub(crate) async fn answer_object(&self, resource: &Resource, answer: &Answer) -> Result<Arc<Object>, Status> {
        match answer {
            Answer::Stored(stored) => self.object(resource, stored).await,
            Answer::Made(object) => Ok(Arc::new(object.clone())),
        }
    }

    /// An object of the resource's version as it is stored.
    pub(crate) async fn stored_form<'a>(
        &self,
        custom: Option<&Custom>,
        object: &'a Object,
    ) -> Result<Cow<'a, Object>, Status> {
        match custom {
            Some(custom) => Ok(Cow::Owned(self.converter.write(custom, object.clone()).await?)),
            None => Ok(Cow::Borrowed(object)),
        }
    }

    /// Whether a write that changes nothing is one all the same: it moves the object into the version that is stored now.
    pub(crate) fn is_to_be_stored_anew(&self, resource: &Resource, stored: &Stored) -> Result<bool, Status> {
        let Some(custom) = self.kinds.of(resource)? else { return Ok(false) };
        let version = custom.definition.stored_version().resource.api_version();
        Ok(stored.object().api_version() != version)
    }
}

/// A stored object in the resource's version, which has been prepared.
pub fn prepared(resource: &Resource, stored: &Stored) -> Arc<Object> {
    if !resource.custom {
        return stored.object();
    }
    let bytes = json(resource, stored);
    // The same bytes are the same object, which others may hold parsed.
    if bytes == *stored.json() { stored.object() } else { Arc::new(Object::from_slice(&bytes).unwrap_or_default()) }
}
