//! A list in protobuf. Its length stands before its items, so all of them are encoded before the first byte goes out.

use bytes::Bytes;
use gantry_kube::Status;
use gantry_kube::protobuf::encode;
use serde_json::{Map, Value};

use super::{CHUNK_MIN_BYTES, Listed};
use crate::store::Stored;

/// Between so many items that may be encoded for the first time, others have their turn.
const ITEMS_AT_ONCE: usize = 64;

/// The messages of the items, which are those of their own bodies.
pub struct ProtobufList {
    head: Vec<u8>,
    items: Vec<Bytes>,
}

impl Listed {
    /// The list as a body of that kind, made of the bodies of its items.
    pub async fn in_protobuf(
        &self,
        api_version: &str,
        kind: &str,
        body: impl Fn(&Stored) -> Result<Bytes, Status>,
    ) -> Result<ProtobufList, Status> {
        let mut items = Vec::with_capacity(self.items.len());
        for some in self.items.chunks(ITEMS_AT_ONCE) {
            for stored in some {
                let body = body(stored)?;
                let raw = encode::raw(&body).ok_or_else(|| Status::internal(format!("{stored:?} has no message")))?;
                items.push(body.slice(raw));
            }
            tokio::task::yield_now().await;
        }
        let metadata = match self.metadata() {
            Value::Object(metadata) => metadata,
            _ => Map::new(),
        };
        let lengths = items.iter().map(Bytes::len);
        let head = encode::list_head(api_version, kind, &metadata, lengths).map_err(Status::internal)?;
        Ok(ProtobufList { head, items })
    }
}

impl ProtobufList {
    /// About how long the whole is.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.items.iter().map(|item| item.len() + 4).sum::<usize>()
    }

    /// The list in pieces that are put together when they are asked for.
    pub fn chunks(self) -> impl Iterator<Item = Bytes> + Send {
        let (mut next, mut items) = (Some(self.head), self.items.into_iter());
        std::iter::from_fn(move || {
            let mut out = next.take()?;
            while out.len() < CHUNK_MIN_BYTES {
                let Some(item) = items.next() else {
                    encode::put_list_end(&mut out);
                    return Some(out.into());
                };
                encode::put_item(&mut out, &item);
            }
            next = Some(Vec::with_capacity(out.len()));
            Some(out.into())
        })
    }

    /// The same as a whole.
    pub fn whole(self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes() + CHUNK_MIN_BYTES);
        self.chunks().for_each(|chunk| out.extend_from_slice(&chunk));
        out.into()
    }
}
