use super::rpc::request_op::Request;
use super::rpc::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use super::{Config, Etcd, OpenError, Repeat};
use crate::store::etcd::origin::Origin;
use crate::store::{Revision, Store, StoreError};

/// A store in etcd that is being filled: no control service takes it before that is finished.
pub struct Filling {
    etcd: Etcd,
}

impl Filling {
    /// Takes the prefix for a copy whose source is at `above`; refuses where objects are already, unless told to replace
    /// them (or they are those of a copy that was not finished). API servers that still run there list everything again.
    pub async fn begin(config: &Config, above: Revision, replace: bool) -> Result<Filling, OpenError> {
        let etcd = Etcd::reach(config).await?;
        let shared = &etcd.shared;
        let is_empty = shared.list("", "", 1, None).await?.items.is_empty();
        if !is_empty && !replace && !shared.origin().filling {
            let why = "there are objects already, and they would be replaced".to_owned();
            return Err(StoreError::Foreign { place: shared.place(), why }.into());
        }
        let now = shared.newest().await?;
        let above = above.max(shared.origin().ours(now));
        let (key, range_end) = shared.names.objects("", "");
        let remove = Request::RequestDeleteRange(DeleteRangeRequest { key, range_end });
        let value = Origin::record(above, now, true).into();
        let mark = Request::RequestPut(PutRequest { key: shared.names.origin(), value });
        let success = [remove, mark].map(|request| RequestOp { request: Some(request) }).to_vec();
        // Done twice, it is done as well.
        let done = shared.txn(Repeat::Yes, TxnRequest { success, ..TxnRequest::default() }).await;
        done.map_err(|failure| shared.told(failure))?;
        shared.load_origin().await?;
        Ok(Filling { etcd })
    }

    pub fn store(&self) -> &Etcd {
        &self.etcd
    }

    /// Lets control services take it. What was before, the copy's own steps included, is another time: revisions only grow,
    /// and whoever watched lists again.
    pub async fn finish(self) -> Result<(), StoreError> {
        let shared = &self.etcd.shared;
        let mark = PutRequest { key: shared.names.origin(), value: shared.origin().filled().into() };
        let success = vec![RequestOp { request: Some(Request::RequestPut(mark)) }];
        let done = shared.txn(Repeat::Yes, TxnRequest { success, ..TxnRequest::default() }).await;
        done.map_err(|failure| shared.told(failure))?;
        shared.load_origin().await?;
        self.etcd.compact(shared.origin().oldest()).await
    }
}
