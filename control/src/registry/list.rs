//! Lists: the cache's bytes, put one behind the other.

mod protobuf;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use gantry_kube::{Ref, Resource, Status, versions};
use serde_json::{Value, json};

use super::options::{ListOptions, VersionMatch};
use super::{Registry, Selection};
use crate::store::cache::store_status;
use crate::store::{Key, Revision, StoreError, Stored, kinds};

pub use protobuf::ProtobufList;

/// A piece of a list ends with the item that reaches this.
const CHUNK_MIN_BYTES: usize = 64 << 10;
/// How long a list waits for a revision that is still to come.
const FUTURE_REVISION_WAIT: Duration = Duration::from_secs(3);

/// What a list found.
#[derive(Clone, Debug)]
pub struct Listed {
    pub items: Vec<Arc<Stored>>,
    pub revision: Revision,
    /// Hand it back as `continue`.
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl Listed {
    /// The list's metadata.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining.filter(|r| *r > 0) {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }

    /// About how long the whole list is.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.json().len() + 1).sum()
    }

    /// `{"kind":"PodList",…,"items":[…]}` in pieces that are made when they are asked for: a list that many read at once
    /// is not in memory as often.
    pub fn chunks(self, resource: &'static Resource) -> impl Iterator<Item = Bytes> + Send + use<> {
        let head = json!({"apiVersion": resource.api_version(), "kind": format!("{}List", resource.kind),
            "metadata": self.metadata()});
        let mut head = serde_json::to_vec(&head).unwrap_or_default();
        head.pop();
        head.extend_from_slice(b",\"items\":[");
        let (mut next, mut first) = (Some(head), true);
        let as_stored = !resource.custom && versions::is_stored(resource);
        let mut items = self.items.into_iter();
        std::iter::from_fn(move || {
            let mut out = next.take()?;
            while out.len() < CHUNK_MIN_BYTES {
                let Some(item) = items.next() else {
                    out.extend_from_slice(b"]}\n");
                    return Some(out.into());
                };
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                // No more is done for an item than to copy it: there may be many.
                if as_stored {
                    out.extend_from_slice(item.json());
                } else {
                    out.extend_from_slice(&super::json_as(resource, &item));
                }
            }
            next = Some(Vec::with_capacity(out.len()));
            Some(out.into())
        })
    }

    /// The same as a whole.
    pub fn json(&self, resource: &'static Resource) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + CHUNK_MIN_BYTES);
        self.clone().chunks(resource).for_each(|chunk| out.extend_from_slice(&chunk));
        out
    }
}

impl Registry {
    pub async fn list(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Listed, Status> {
        let at = match options.version_match {
            VersionMatch::NotOlderThan(at) | VersionMatch::Exact(at) => at,
        };
        self.wait_for_revision(at, options.resource_version.is_none()).await?;
        let resume = match (&options.continue_token, options.version_match) {
            (Some(token), _) => Some(self.resumed(token, &kinds::list_prefix(resource, namespace))?),
            (None, VersionMatch::Exact(at)) => Some((at, None)),
            (None, VersionMatch::NotOlderThan(_)) => None,
        };
        if resume.is_none() && options.limit == 0 {
            return self.whole(resource, namespace, &options.selection).await;
        }
        let listed = self.pages(resource, namespace, options, resume).await?;
        self.prepare(resource, &listed.items).await?;
        Ok(listed)
    }

    /// Where a token goes on: at the revision of its first page, or at the newest one, where the client was told that its
    /// own is forgotten.
    fn resumed(&self, token: &str, prefix: &str) -> Result<(Revision, Option<Key>), Status> {
        let (at, after) = decode_token(token)?;
        if !after.as_str().starts_with(prefix) {
            return Err(Status::bad_request(format!("invalid continue token: continue key is not valid: {after}")));
        }
        Ok((at.unwrap_or_else(|| self.cache.revision()), Some(after)))
    }

    /// Waits for a client's revision, a short while; for the newest one where it names none.
    pub(super) async fn wait_for_revision(&self, at: Revision, fresh: bool) -> Result<(), Status> {
        if at == 0 {
            if fresh {
                self.cache.fresh().await.map_err(|error| store_status(&error))?;
            }
            return Ok(());
        }
        if tokio::time::timeout(FUTURE_REVISION_WAIT, self.cache.wait_for(at)).await.is_err() {
            let current = self.cache.revision();
            let mut status = Status::timeout(format!("Too large resource version: {at}, current: {current}"));
            status.details = json!({"retryAfterSeconds": 1,
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
            return Err(status);
        }
        Ok(())
    }

    async fn whole(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        selection: &Selection,
    ) -> Result<Listed, Status> {
        // A list that asks for one name of one namespace is a get.
        if let Some(name) = selection.exact_name().filter(|_| !resource.namespaced || namespace.is_some()) {
            let revision = self.cache.revision();
            let found = self.cache.get(resource, &Ref::new(namespace.unwrap_or(""), name));
            let revision = found.as_ref().map_or(revision, |f| revision.max(f.revision()));
            let found: Vec<Arc<Stored>> = found.into_iter().collect();
            self.prepare(resource, &found).await?;
            let items = select(found, selection);
            return Ok(Listed { items, revision, continue_token: None, remaining: None });
        }
        let snapshot = self.cache.list(resource, namespace);
        if selection.reads_objects() {
            self.prepare(resource, &snapshot.items).await?;
        }
        let items = select(snapshot.items, selection);
        self.prepare(resource, &items).await?;
        Ok(Listed { items, revision: snapshot.revision, continue_token: None, remaining: None })
    }

    async fn pages(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
        resume: Option<(Revision, Option<Key>)>,
    ) -> Result<Listed, Status> {
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut items = Vec::new();
        let mut resume = resume;
        loop {
            let wanted = limit - items.len();
            let page = match &resume {
                Some((at, None)) => self.page_at(resource, namespace, wanted, *at).await?,
                Some((at, Some(after))) => {
                    let page = self.cache.page(resource, namespace, wanted, Some((*at, after))).await;
                    page.map_err(|error| expired_page(&error, after))?
                }
                None => {
                    self.cache.page(resource, namespace, wanted, None).await.map_err(|error| store_status(&error))?
                }
            };
            if options.selection.reads_objects() {
                self.prepare(resource, &page.items).await?;
            }
            items.extend(select(page.items, &options.selection));
            let revision = page.revision;
            let Some(next) = page.next else {
                return Ok(Listed { items, revision, continue_token: None, remaining: None });
            };
            if items.len() >= limit {
                // How many follow is known only where nothing is filtered.
                let remaining = page.remaining.filter(|_| options.selection.is_everything());
                let continue_token = Some(encode_token(Some(revision), &next));
                return Ok(Listed { items, revision, continue_token, remaining });
            }
            resume = Some((revision, Some(next)));
        }
    }

    /// The first page as of an exact revision.
    async fn page_at(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        limit: usize,
        at: Revision,
    ) -> Result<crate::store::cache::ListPage, Status> {
        // The key that stands before all others of the kind.
        let prefix = kinds::list_prefix(resource, namespace);
        let before =
            Key::parse(&format!("{prefix}\u{1}")).ok_or_else(|| Status::internal("a kind's prefix makes no key"))?;
        self.cache.page(resource, namespace, limit, Some((at, &before))).await.map_err(|error| store_status(&error))
    }
}

fn select(items: Vec<Arc<Stored>>, selection: &Selection) -> Vec<Arc<Stored>> {
    if selection.is_everything() {
        return items;
    }
    items.into_iter().filter(|item| selection.matches_stored(item)).collect()
}

/// Where the revision of the first page is forgotten, the client may have the rest as it is now.
fn expired_page(error: &StoreError, after: &Key) -> Status {
    let status = store_status(error);
    if !matches!(error, StoreError::Compacted { .. }) {
        return status;
    }
    let message = "the list that this continue token belongs to is forgotten: list anew, or take the rest as it is now \
                   with the token in this answer, which leaves out or repeats what has changed since the first page";
    Status { message: message.to_owned(), continue_token: encode_token(None, after), ..status }
}

/// Stands for the newest revision in a token.
const NEWEST: i64 = -1;

/// The token that names the place where the next page begins, and as of which revision (absent: the newest).
pub fn encode_token(revision: Option<Revision>, after: &Key) -> String {
    let revision = revision.map_or_else(|| json!(NEWEST), |revision| json!(revision));
    URL_SAFE_NO_PAD.encode(json!({"rv": revision, "after": after.as_str()}).to_string())
}

/// Reads a token that a client brings back. Public and pure: a seat for fuzzing.
pub fn decode_token(token: &str) -> Result<(Option<Revision>, Key), Status> {
    let bad = || Status::bad_request("invalid continue token: continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let revision = if value["rv"] == NEWEST { None } else { Some(value["rv"].as_u64().ok_or_else(bad)?) };
    let after = Key::parse(value["after"].as_str().ok_or_else(bad)?).ok_or_else(bad)?;
    Ok((revision, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pieces_of_a_list_are_the_list() {
        let stored = |name: &str, size: usize| {
            let (at, key) = (Ref::new("n", name), Key::new("configmaps", &Ref::new("n", name)));
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": at.name},
                "data": {"k": "x".repeat(size)}});
            let object = gantry_kube::Object::from_value(object).unwrap();
            Arc::new(Stored::new(key, 7, &crate::store::encode(&object).unwrap()))
        };
        for sizes in [&[][..], &[5], &[5, 70_000, 5], &[70_000, 70_000], &[30_000; 7]] {
            let items: Vec<_> = sizes.iter().enumerate().map(|(i, size)| stored(&i.to_string(), *size)).collect();
            let listed = Listed { items, revision: 9, continue_token: None, remaining: None };
            let whole: Value = serde_json::from_slice(&listed.json(&gantry_kube::resource::CONFIG_MAP)).unwrap();
            assert_eq!(
                (whole["kind"].as_str(), &whole["metadata"]["resourceVersion"]),
                (Some("ConfigMapList"), &json!("9"))
            );
            let sizes_of = |list: &Value| -> Vec<usize> {
                let items = list["items"].as_array().into_iter().flatten();
                items.map(|item| item["data"]["k"].as_str().unwrap().len()).collect()
            };
            assert_eq!(sizes_of(&whole), sizes);
            let body = |stored: &Stored| super::super::encoded::protobuf_as(&gantry_kube::resource::CONFIG_MAP, stored);
            let made = listed.in_protobuf("v1", "ConfigMapList", body).await.unwrap().whole();
            let read = gantry_kube::protobuf::decode(&made).unwrap().into_value();
            assert_eq!(sizes_of(&read), sizes);
            assert_eq!(read["metadata"]["resourceVersion"], "9");
        }
    }

    #[test]
    fn a_token_comes_back_and_a_forged_one_is_400() {
        let key = Key::parse("configmaps/a/b").unwrap();
        for revision in [Some(7), None] {
            assert_eq!(decode_token(&encode_token(revision, &key)).unwrap(), (revision, key.clone()));
        }
        let odd = URL_SAFE_NO_PAD.encode(r#"{"rv":-2,"after":"configmaps/a/b"}"#);
        for bad in ["", "x", "e30", "eyJydiI6MX0", &odd] {
            assert_eq!(decode_token(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
