//! A write as one transaction of etcd's, and what a transaction that did not hold has found. Pure.

use super::names::Names;
use super::origin::Origin;
use super::rpc::compare::{CompareResult, CompareTarget, TargetUnion};
use super::rpc::request_op::Request;
use super::rpc::response_op::Response;
use super::rpc::{self, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use crate::store::{Compare, Conflict, Expect, Key, Op, Versioned};

/// What must hold of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Absent,
    Present,
    /// Put by etcd's write of this revision.
    At(i64),
}

impl Wanted {
    fn compare(self, key: bytes::Bytes) -> rpc::Compare {
        let (result, revision) = match self {
            Wanted::Absent => (CompareResult::Equal, 0),
            Wanted::Present => (CompareResult::Greater, 0),
            Wanted::At(revision) => (CompareResult::Equal, revision),
        };
        rpc::Compare {
            result: result.into(),
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(revision)),
        }
    }

    fn holds(self, found: Option<i64>) -> bool {
        match self {
            Wanted::Absent => found.is_none(),
            Wanted::Present => found.is_some(),
            Wanted::At(revision) => found == Some(revision),
        }
    }
}

/// A transaction, and the conditions that it asks for, in the order in which they are told.
pub struct Txn {
    pub request: TxnRequest,
    wanted: Vec<(Key, Wanted)>,
}

impl Txn {
    pub fn new(names: &Names, origin: &Origin, compares: Vec<Compare>, ops: Vec<Op>) -> Txn {
        let mut wanted: Vec<(Key, Wanted)> = compares
            .into_iter()
            .map(|Compare { key, expect }| match expect {
                Expect::Absent => (key, Wanted::Absent),
                Expect::Revision(revision) => (key, Wanted::At(origin.theirs(revision))),
            })
            .collect();
        for op in &ops {
            // A condition on the very revision says already that there is one.
            let told = |(key, wanted): &(Key, Wanted)| key == op.key() && matches!(wanted, Wanted::At(_));
            if matches!(op, Op::Delete { .. }) && !wanted.iter().any(told) {
                wanted.push((op.key().clone(), Wanted::Present));
            }
        }
        let compare = wanted.iter().map(|(key, wanted)| wanted.compare(names.object(key))).collect();
        let mut keys: Vec<&Key> = wanted.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        let failure = keys
            .into_iter()
            .map(|key| Request::RequestRange(RangeRequest { key: names.object(key), ..RangeRequest::default() }));
        let failure = failure.map(|request| RequestOp { request: Some(request) }).collect();
        let success = ops.into_iter().map(|op| match op {
            Op::Put { key, value } | Op::Renew { key, value } => {
                Request::RequestPut(PutRequest { key: names.object(&key), value })
            }
            Op::Delete { key } => Request::RequestDeleteRange(DeleteRangeRequest {
                key: names.object(&key),
                ..DeleteRangeRequest::default()
            }),
        });
        let success = success.map(|request| RequestOp { request: Some(request) }).collect();
        Txn { request: TxnRequest { compare, success, failure }, wanted }
    }

    /// The first condition that did not hold, and what stands there. Absent where the answer shows none, which no etcd
    /// gives.
    pub fn conflict(&self, names: &Names, origin: &Origin, answer: TxnResponse) -> Option<Conflict> {
        let found: Vec<rpc::KeyValue> = answer
            .responses
            .into_iter()
            .filter_map(|response| match response.response? {
                Response::ResponseRange(range) => range.kvs.into_iter().next(),
                Response::ResponsePut(_) | Response::ResponseDeleteRange(_) => None,
            })
            .collect();
        self.wanted.iter().find_map(|(key, wanted)| {
            let raw = names.object(key);
            let standing = found.iter().find(|kv| kv.key == raw);
            if wanted.holds(standing.map(|kv| kv.mod_revision)) {
                return None;
            }
            let current =
                standing.map(|kv| Versioned { value: kv.value.clone(), revision: origin.ours(kv.mod_revision) });
            Some(Conflict { key: key.clone(), current })
        })
    }

    /// How many bytes of keys and values it carries.
    pub fn bytes(&self) -> usize {
        let size = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put.key.len() + put.value.len(),
            Some(Request::RequestDeleteRange(delete)) => delete.key.len(),
            Some(Request::RequestRange(_)) | None => 0,
        };
        self.request.success.iter().map(size).sum()
    }
}
