//! Encryption at rest: a store whose values are encrypted in the backend, and in the clear for whoever uses it here.
//!
//! Which kinds, by which keys, a configuration says ([`config`]): the first provider of a kind writes, all of them read, so
//! that keys are exchanged by putting a new one first. What was written otherwise before is written anew after a start
//! ([`Encrypted::rewrite`]). A value that nobody can open is an error that names its object, and never an object that is
//! not there.

pub mod config;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use rules::Rules;

use super::{
    Batch, BoxFuture, Compare, Conflict, Expect, Key, Op, Page, Revision, Store, StoreError, Versioned, Watch,
};

/// How many values a rewrite looks at between two breaths.
const PAGE_ITEMS: usize = 200;

/// A backend behind encryption.
pub struct Encrypted {
    inner: Arc<dyn Store>,
    rules: Arc<Rules>,
}

impl Encrypted {
    pub fn new(inner: Arc<dyn Store>, rules: Arc<Rules>) -> Encrypted {
        Encrypted { inner, rules }
    }

    /// Writes what is not encrypted as it would be today once more; answers how many values those were. One that is changed
    /// meanwhile is written so by whoever changes it.
    pub async fn rewrite(&self) -> Result<usize, StoreError> {
        let (mut after, mut rewritten, mut more) = (String::new(), 0, true);
        while more {
            let page = self.inner.list("", &after, PAGE_ITEMS, None).await?;
            if let Some(last) = page.items.last() {
                after = last.key.as_str().to_owned();
            }
            more = page.more;
            for item in page.items.into_iter().filter(|item| self.rules.is_stale(&item.key, &item.value)) {
                let value = self.rules.open(&item.key, item.value)?;
                let compares = vec![Compare { key: item.key.clone(), expect: Expect::Revision(item.revision) }];
                match self.write(compares, vec![Op::Put { key: item.key, value }]).await {
                    Ok(_) => rewritten += 1,
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(rewritten)
    }

    fn open_one(&self, key: &Key, found: Option<Versioned>) -> Result<Option<Versioned>, StoreError> {
        let Some(Versioned { value, revision }) = found else { return Ok(None) };
        Ok(Some(Versioned { value: self.rules.open(key, value)?, revision }))
    }
}

impl Store for Encrypted {
    fn get<'a>(&'a self, key: &'a Key, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move { self.open_one(key, self.inner.get(key, at).await?) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let mut page = self.inner.list(prefix, after, limit, at).await?;
            for item in &mut page.items {
                item.value = self.rules.open(&item.key, std::mem::take(&mut item.value))?;
            }
            Ok(page)
        })
    }

    fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            let seal = |op| match op {
                Op::Put { key, value } => self.rules.seal(&key, value).map(|value| Op::Put { key, value }),
                Op::Renew { key, value } => self.rules.seal(&key, value).map(|value| Op::Renew { key, value }),
                Op::Delete { key } => Ok(Op::Delete { key }),
            };
            let ops = ops.into_iter().map(seal).collect::<Result<Vec<_>, _>>()?;
            match self.inner.write(compares, ops).await {
                Err(StoreError::Conflict(conflict)) => {
                    let Conflict { key, current } = *conflict;
                    let current = self.open_one(&key, current)?;
                    Err(StoreError::Conflict(Box::new(Conflict { key, current })))
                }
                done => done,
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        Box::pin(async move {
            let inner = self.inner.watch(prefix, from).await?;
            Ok(Box::new(Opening { inner, rules: self.rules.clone() }) as Box<dyn Watch>)
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.compact(revision)
    }

    fn current(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.inner.current()
    }
}

/// A watch whose values are opened on their way.
struct Opening {
    inner: Box<dyn Watch>,
    rules: Arc<Rules>,
}

impl Watch for Opening {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        Box::pin(async move {
            let mut batch = self.inner.next().await?;
            for change in &mut batch.changes {
                if let Some(value) = change.value.take() {
                    change.value = Some(self.rules.open(&change.key, value)?);
                }
            }
            Ok(batch)
        })
    }
}
