use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource, Status, resource};

use super::create::write_status;
use super::deletion::{self, Deletion};
use super::update::SWAP_TRIES;
use super::{Answer, DeleteOptions, ListOptions, Listed, Registry, Writer};
use crate::store::cache::{Change, Stored, WriteError};

/// What a delete came to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this is what it was.
    Gone(Arc<Object>),
    /// It stays until its finalizers or its grace period are over.
    Pending(Answer),
}

impl Registry {
    pub async fn delete(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let mut current = self.get(resource, at)?;
        for _ in 0..SWAP_TRIES {
            let old = current.object();
            options.check_preconditions(resource, &old)?;
            self.admit_delete(writer, resource, &old)?;
            let dry = options.dry_run || writer.options.dry_run;
            let result = match deletion::plan(resource, &old, options, self.env.clock.now()) {
                Deletion::Pending => return self.pending(resource, current).await,
                Deletion::Remove if dry => return Ok(Deleted::Gone(old)),
                Deletion::Mark(new) if dry => return Ok(Deleted::Pending(self.made(resource, *new).await?)),
                Deletion::Remove => self.remove(resource, at, &current).await.map(|_| Deleted::Gone(old)),
                Deletion::Mark(new) => match self.cache.update(resource, at, current.revision(), &new).await {
                    Ok(stored) => return self.pending(resource, stored).await,
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(deleted) => return Ok(deleted),
                Err(WriteError::Conflict { current: Some(newer), key }) if key == *current.key() => current = newer,
                // An allocation beside the object changed: the same object is read again.
                Err(WriteError::Conflict { key, .. }) if key != *current.key() => current = self.get(resource, at)?,
                Err(error) => return Err(write_status(&error, resource, &at.name)),
            }
        }
        Err(Status::stale(resource, &at.name))
    }

    async fn pending(&self, resource: &'static Resource, stored: Arc<Stored>) -> Result<Deleted, Status> {
        Ok(Deleted::Pending(self.answered(resource, Answer::Stored(stored)).await?))
    }

    /// Takes an object out of the store, and with a Service what was allocated to it.
    pub(super) async fn remove(
        &self,
        resource: &'static Resource,
        at: &Ref,
        current: &Arc<Stored>,
    ) -> Result<Arc<Stored>, WriteError> {
        let removed = self.take_out(resource, at, current).await?;
        self.count_after(resource, Some(&current.object()), None);
        Ok(removed)
    }

    async fn take_out(
        &self,
        resource: &'static Resource,
        at: &Ref,
        current: &Arc<Stored>,
    ) -> Result<Arc<Stored>, WriteError> {
        if *resource != resource::SERVICE {
            return self.cache.delete(resource, at, current.revision()).await;
        }
        let _turn = self.services.turn().await;
        let mut changes = vec![Change::delete(resource, at, current.revision())];
        changes.extend(self.services.release(self, &current.object())?);
        let mut written = self.cache.write(changes).await?;
        Ok(written.swap_remove(0))
    }

    /// Deletes what a list would answer, each object by itself; answers that list, with what became of its items.
    pub async fn delete_collection(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        namespace: Option<&str>,
        selected: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(Listed, Vec<Answer>), Status> {
        let listed = self.list(resource, namespace, selected).await?;
        let mut all = Vec::new();
        for stored in &listed.items {
            // A dry run waits for nothing.
            tokio::task::consume_budget().await;
            match self.delete(writer, resource, &stored.key().reference(), options).await {
                Ok(Deleted::Gone(_)) => all.push(Answer::Stored(stored.clone())),
                Ok(Deleted::Pending(answer)) => all.push(answer),
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok((listed, all))
    }
}
