use std::sync::Arc;

use gantry_kube::resource::LEASE;
use gantry_kube::{Object, Ref, Resource, Status};
use serde_json::{Map, Value};

use super::{Cache, Stored};
use crate::store::{Compare, Conflict, EncodeError, Encoded, Expect, Key, Op, Revision, StoreError, encode, kinds};

/// The namespace of the nodes' heartbeats.
const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// One change of a write of several kinds.
#[derive(Clone, Debug)]
pub enum Change {
    Create {
        key: Key,
        encoded: Encoded,
    },
    /// `revision` is the one that the caller read.
    Update {
        key: Key,
        encoded: Encoded,
        revision: Revision,
    },
    Delete {
        key: Key,
        revision: Revision,
    },
}

impl Change {
    pub fn create(resource: &Resource, reference: &Ref, object: &Object) -> Result<Change, WriteError> {
        Ok(Change::Create { key: kinds::key(resource, reference), encoded: encode(object)? })
    }

    pub fn update(
        resource: &Resource,
        reference: &Ref,
        revision: Revision,
        object: &Object,
    ) -> Result<Change, WriteError> {
        Ok(Change::Update { key: kinds::key(resource, reference), encoded: encode(object)?, revision })
    }

    pub fn delete(resource: &Resource, reference: &Ref, revision: Revision) -> Change {
        Change::Delete { key: kinds::key(resource, reference), revision }
    }

    pub fn key(&self) -> &Key {
        match self {
            Change::Create { key, .. } | Change::Update { key, .. } | Change::Delete { key, .. } => key,
        }
    }

    fn compare(&self) -> Compare {
        let expect = match self {
            Change::Create { .. } => Expect::Absent,
            Change::Update { revision, .. } | Change::Delete { revision, .. } => Expect::Revision(*revision),
        };
        Compare { key: self.key().clone(), expect }
    }

    fn op(&self) -> Op {
        match self {
            Change::Create { key, encoded } | Change::Update { key, encoded, .. } => {
                Op::Put { key: key.clone(), value: encoded.bytes.clone() }
            }
            Change::Delete { key, .. } => Op::Delete { key: key.clone() },
        }
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{key} already exists")]
    Exists { key: Key, current: Arc<Stored> },
    /// The object is not (or no longer) what the caller read; `current` is absent where it is gone.
    #[error("{key} was changed meanwhile")]
    Conflict { key: Key, current: Option<Arc<Stored>> },
    #[error("the object cannot be stored")]
    Encode(#[from] EncodeError),
    #[error("the store refused the write")]
    Store(#[source] StoreError),
}

impl WriteError {
    /// The API's words for it.
    pub fn status(&self, resource: &Resource, name: &str) -> Status {
        match self {
            WriteError::Exists { .. } => Status::already_exists(resource, name),
            WriteError::Conflict { current: None, .. } => Status::not_found(resource, name),
            WriteError::Conflict { current: Some(_), .. } => Status::stale(resource, name),
            WriteError::Encode(error) => Status::bad_request(error.to_string()),
            WriteError::Store(error) => store_status(error),
        }
    }
}

/// The API's words for a store that did not do as asked.
pub fn store_status(error: &StoreError) -> Status {
    let text = gantry_env::chain(error);
    match error {
        StoreError::NoSpace => Status::new(507, "InsufficientStorage", text),
        StoreError::ValueTooLarge { .. } | StoreError::WriteTooLarge { .. } => {
            Status::new(413, "RequestEntityTooLarge", text)
        }
        StoreError::Compacted { asked, oldest } => Status::gone(format!(
            "resource version {asked} is too old: what was before {oldest} is forgotten, list without a resourceVersion"
        )),
        StoreError::Future { asked, current } => {
            Status::timeout(format!("Too large resource version: {asked}, current: {current}"))
        }
        // Whoever asks again has to look first: the write may have been done.
        StoreError::Unknown { .. } => Status::timeout(text),
        StoreError::Io { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Broken
        | StoreError::Closed
        | StoreError::WriterPanicked => Status::unavailable(text),
        StoreError::Conflict(_)
        | StoreError::OpCount { .. }
        | StoreError::KindTwice { .. }
        | StoreError::RenewNotAlone { .. }
        | StoreError::Damaged { .. }
        | StoreError::FileDamaged { .. }
        | StoreError::Foreign { .. }
        | StoreError::Sealed { .. }
        | StoreError::InUse { .. } => Status::internal(text),
    }
}

impl Cache {
    pub async fn create(
        &self,
        resource: &Resource,
        reference: &Ref,
        object: &Object,
    ) -> Result<Arc<Stored>, WriteError> {
        self.write_one(Change::create(resource, reference, object)?).await
    }

    /// Replaces what the caller read at `revision`.
    pub async fn update(
        &self,
        resource: &Resource,
        reference: &Ref,
        revision: Revision,
        object: &Object,
    ) -> Result<Arc<Stored>, WriteError> {
        let change = Change::update(resource, reference, revision, object)?;
        let lease = resource.plural == LEASE.plural && resource.group == LEASE.group;
        if lease && reference.namespace == NODE_LEASE_NAMESPACE {
            let current = self.get(resource, reference).filter(|current| current.revision() == revision);
            if current.is_some_and(|current| is_heartbeat(&current.object(), object)) {
                return self.renew(change).await;
            }
        }
        self.write_one(change).await
    }

    /// Deletes what the caller read at `revision`; answers its content under the revision of the delete.
    pub async fn delete(
        &self,
        resource: &Resource,
        reference: &Ref,
        revision: Revision,
    ) -> Result<Arc<Stored>, WriteError> {
        self.write_one(Change::delete(resource, reference, revision)).await
    }

    async fn write_one(&self, change: Change) -> Result<Arc<Stored>, WriteError> {
        let key = change.key().clone();
        let mut written = self.write(vec![change]).await?;
        written.pop().ok_or(WriteError::Conflict { key, current: None })
    }

    /// Does all of the changes, each of another kind, or none. The answers stand in the order of the changes.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Vec<Arc<Stored>>, WriteError> {
        let compares = changes.iter().map(Change::compare).collect();
        let ops = changes.iter().map(Change::op).collect();
        self.commit(compares, ops, &changes).await
    }

    async fn renew(&self, change: Change) -> Result<Arc<Stored>, WriteError> {
        let compares = vec![change.compare()];
        let ops = match change.op() {
            Op::Put { key, value } => vec![Op::Renew { key, value }],
            other => vec![other],
        };
        let key = change.key().clone();
        let mut written = self.commit(compares, ops, &[change]).await?;
        written.pop().ok_or(WriteError::Conflict { key, current: None })
    }

    async fn commit(
        &self,
        compares: Vec<Compare>,
        ops: Vec<Op>,
        changes: &[Change],
    ) -> Result<Vec<Arc<Stored>>, WriteError> {
        // What a delete took away is answered even where later writes have pushed it out of the cache.
        let standing = |change: &Change| match change {
            Change::Delete { key, .. } => self.inner.kind(key.kind()).get(key),
            Change::Create { .. } | Change::Update { .. } => None,
        };
        let before: Vec<_> = changes.iter().map(standing).collect();
        let revision = match self.inner.store.write(compares, ops).await {
            Ok(revision) => revision,
            Err(StoreError::Conflict(conflict)) => {
                // Who reads again after this sees what it collided with, instead of colliding with it until its tries are over.
                let _ = self.fresh().await;
                return Err(refusal(changes, *conflict));
            }
            Err(error) => return Err(WriteError::Store(error)),
        };
        self.wait_for(revision).await;
        changes.iter().zip(before).map(|(change, before)| self.written(change, before, revision)).collect()
    }

    /// The version that a write made: the cache's own, or (when later ones have pushed it out) made once more.
    fn written(
        &self,
        change: &Change,
        before: Option<Arc<Stored>>,
        revision: Revision,
    ) -> Result<Arc<Stored>, WriteError> {
        let key = change.key();
        if let Some(stored) = self.inner.kind(key.kind()).version(key, revision) {
            return Ok(stored);
        }
        match change {
            Change::Create { encoded, .. } | Change::Update { encoded, .. } => {
                Ok(Arc::new(Stored::new(key.clone(), revision, encoded)))
            }
            Change::Delete { revision: read, .. } => match before.filter(|before| before.revision() == *read) {
                Some(before) => Ok(Arc::new(before.at(revision))),
                None => Err(WriteError::Conflict { key: key.clone(), current: None }),
            },
        }
    }
}

fn refusal(changes: &[Change], conflict: Conflict) -> WriteError {
    let Conflict { key, current } = conflict;
    let current = current.map(|found| Stored::from_store(key.clone(), found.revision, found.value).map(Arc::new));
    let current = match current.transpose() {
        Ok(current) => current,
        Err(error) => return WriteError::Store(error),
    };
    let creates = changes.iter().any(|change| matches!(change, Change::Create { key: created, .. } if *created == key));
    match current {
        Some(current) if creates => WriteError::Exists { key, current },
        current => WriteError::Conflict { key, current },
    }
}

/// True where nothing but `spec.renewTime` differs (and the times in managedFields, which follow it).
fn is_heartbeat(old: &Object, new: &Object) -> bool {
    let (old_spec, new_spec) = (old.get("/spec"), new.get("/spec"));
    let same_but = |a: &Map<String, Value>, b: &Map<String, Value>, but: &[&str]| {
        let rest = |map: &Map<String, Value>| map.keys().filter(|key| !but.contains(&key.as_str())).count();
        rest(a) == rest(b) && a.iter().all(|(key, value)| but.contains(&key.as_str()) || b.get(key) == Some(value))
    };
    let maps = |a: Option<&Value>, b: Option<&Value>, but: &[&str]| match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => same_but(a, b, but),
        _ => false,
    };
    same_but(&old.0, &new.0, &["metadata", "spec"])
        && maps(old.get("/metadata"), new.get("/metadata"), &["resourceVersion", "managedFields"])
        && maps(old_spec, new_spec, &["renewTime"])
        && managers(old).eq(managers(new))
}

fn managers(object: &Object) -> impl Iterator<Item = (&Value, &Value)> {
    object.array_at("/metadata/managedFields").iter().map(|entry| (&entry["manager"], &entry["fieldsV1"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(renew: &str, holder: &str, label: &str) -> Object {
        Object::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "n", "namespace": NODE_LEASE_NAMESPACE, "labels": {"a": label}, "resourceVersion": renew},
            "spec": {"holderIdentity": holder, "renewTime": renew},
        }))
        .unwrap()
    }

    #[test]
    fn a_heartbeat_changes_renew_time_alone() {
        let old = lease("1", "n", "x");
        assert!(is_heartbeat(&old, &lease("2", "n", "x")));
        assert!(!is_heartbeat(&old, &lease("2", "m", "x")));
        assert!(!is_heartbeat(&old, &lease("2", "n", "y")));
        let mut more = lease("2", "n", "x");
        more.map_mut("spec").insert("leaseTransitions".into(), json!(1));
        assert!(!is_heartbeat(&old, &more));
        assert!(!is_heartbeat(&more, &old));
    }
}
