//! Everything that a store holds at one revision, as a file.
//!
//! ```text
//! "GANTRYSS" │ format (4) │ record … │ end
//! record: length of the rest (4) │ crc32 of the rest (4) │ revision (8) │ length of the key (2) │ key │ value
//! end:    0xffffffff      (4) │ crc32 of the rest (4) │ revision of the snapshot (8) │ records (8) │ crc32 of all before (4)
//! ```
//! Numbers are little endian. A file without its end is not whole; a record whose checksum does not match is named. Values
//! are what the backend has: what is encrypted there is encrypted here.

mod saving;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;

use super::{Item, Key, Revision, Store, StoreError, VALUE_MAX_BYTES};

pub use saving::{SaveError, Saving};

const MAGIC: &[u8; 8] = b"GANTRYSS";
const FORMAT: u32 = 1;
const END: u32 = u32::MAX;
const END_BYTES: usize = 20;
const RECORD_HEADER_BYTES: usize = 10;
/// A value, its key, and what a backend adds to it.
const RECORD_MAX_BYTES: usize = VALUE_MAX_BYTES + (128 << 10);
const PAGE_ITEMS: usize = 200;

/// Why a file is no snapshot that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot cannot be read")]
    Read(#[source] io::Error),
    #[error("this is no snapshot of a store")]
    Magic,
    #[error("the snapshot has the format {found}, this program knows {FORMAT}")]
    Format { found: u32 },
    #[error("the snapshot ends in the middle of record {number}, after {last:?}: it is not whole")]
    Cut { number: u64, last: String },
    #[error("record {number} of the snapshot, {key:?}, is damaged: {why}")]
    Record { number: u64, key: String, why: &'static str },
    #[error("the end of the snapshot, after record {number}, is damaged: {why}")]
    End { number: u64, why: &'static str },
}

/// What a whole snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub records: u64,
}

/// The file's bytes, piece by piece, as the store stands when the first is asked for. Where history is compacted before all
/// of it was read, the stream fails.
pub fn stream(store: Arc<dyn Store>) -> impl Stream<Item = Result<Bytes, StoreError>> {
    let writer = Writer { store, at: None, after: String::new(), all: crc32fast::Hasher::new(), records: 0 };
    futures::stream::try_unfold(Some(writer), |writer| async move {
        let Some(mut writer) = writer else { return Ok(None) };
        let (piece, more) = writer.next().await?;
        Ok(Some((piece, more.then_some(writer))))
    })
}

struct Writer {
    store: Arc<dyn Store>,
    at: Option<Revision>,
    after: String,
    all: crc32fast::Hasher,
    records: u64,
}

impl Writer {
    /// The next piece, and whether there are more.
    async fn next(&mut self) -> Result<(Bytes, bool), StoreError> {
        let mut out = BytesMut::new();
        if self.at.is_none() {
            out.put_slice(MAGIC);
            out.put_u32_le(FORMAT);
        }
        let page = self.store.list("", &self.after, PAGE_ITEMS, self.at).await?;
        self.at = Some(page.revision);
        for item in &page.items {
            put_record(&mut out, item);
            self.after = item.key.as_str().to_owned();
        }
        self.records += page.items.len() as u64;
        self.all.update(&out);
        if !page.more {
            put_end(&mut out, page.revision, self.records, self.all.clone().finalize());
        }
        Ok((out.freeze(), page.more))
    }
}

fn put_record(out: &mut BytesMut, item: &Item) {
    let key = item.key.as_str().as_bytes();
    let mut body = BytesMut::with_capacity(RECORD_HEADER_BYTES + key.len() + item.value.len());
    body.put_u64_le(item.revision);
    // Keys are bounded by the API far below 64 KiB.
    body.put_u16_le(key.len() as u16);
    body.put_slice(key);
    body.put_slice(&item.value);
    out.put_u32_le(body.len() as u32);
    out.put_u32_le(crc32fast::hash(&body));
    out.put_slice(&body);
}

fn put_end(out: &mut BytesMut, revision: Revision, records: u64, all: u32) {
    let mut body = BytesMut::with_capacity(END_BYTES);
    body.put_u64_le(revision);
    body.put_u64_le(records);
    body.put_u32_le(all);
    out.put_u32_le(END);
    out.put_u32_le(crc32fast::hash(&body));
    out.put_slice(&body);
}

/// Reads a snapshot's records in their order. What was read is to be used only once [`Reader::summary`] is there.
pub struct Reader<R> {
    from: R,
    all: crc32fast::Hasher,
    number: u64,
    last: String,
    summary: Option<Summary>,
}

impl<R: Read> Reader<R> {
    pub fn new(mut from: R) -> Result<Reader<R>, SnapshotError> {
        let mut head = [0; 12];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(SnapshotError::Magic),
            done => done.map_err(SnapshotError::Read)?,
        }
        if head[..8] != MAGIC[..] {
            return Err(SnapshotError::Magic);
        }
        let found = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if found != FORMAT {
            return Err(SnapshotError::Format { found });
        }
        let mut all = crc32fast::Hasher::new();
        all.update(&head);
        Ok(Reader { from, all, number: 0, last: String::new(), summary: None })
    }

    /// What the snapshot says of itself, once all of it was read.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    /// Reads to the end, keeping nothing.
    pub fn verify(mut self) -> Result<Summary, SnapshotError> {
        while self.next_item()?.is_some() {}
        self.summary.ok_or(SnapshotError::Cut { number: self.number, last: self.last })
    }

    /// Up to `limit` items; none at the end.
    pub fn page(&mut self, limit: usize) -> Result<Vec<Item>, SnapshotError> {
        let mut items = Vec::new();
        while items.len() < limit {
            match self.next_item()? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        Ok(items)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        self.from.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Cut { number: self.number + 1, last: self.last.clone() },
            _ => SnapshotError::Read(error),
        })
    }

    fn next_item(&mut self) -> Result<Option<Item>, SnapshotError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if length == END {
            self.end(crc)?;
            return Ok(None);
        }
        let number = self.number + 1;
        let named =
            |key: &[u8], why| SnapshotError::Record { number, key: String::from_utf8_lossy(key).into_owned(), why };
        let length = length as usize;
        if !(RECORD_HEADER_BYTES..=RECORD_MAX_BYTES).contains(&length) {
            return Err(named(format!("after {}", self.last).as_bytes(), "its length cannot be"));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        let revision = u64::from_le_bytes([body[0], body[1], body[2], body[3], body[4], body[5], body[6], body[7]]);
        let split = RECORD_HEADER_BYTES + usize::from(u16::from_le_bytes([body[8], body[9]]));
        let key = body.get(RECORD_HEADER_BYTES..split.min(length)).unwrap_or_default().to_vec();
        if crc32fast::hash(&body) != crc {
            return Err(named(&key, "its checksum does not match"));
        }
        let text = std::str::from_utf8(&key).ok().filter(|_| split <= length).and_then(Key::parse);
        let Some(text) = text else { return Err(named(&key, "its key does not name a kind and an object")) };
        self.all.update(&head);
        self.all.update(&body);
        self.number = number;
        self.last = text.as_str().to_owned();
        Ok(Some(Item { key: text, value: Bytes::from(body).slice(split..), revision }))
    }

    fn end(&mut self, crc: u32) -> Result<(), SnapshotError> {
        let mut body = [0; END_BYTES];
        self.fill(&mut body)?;
        let damaged = |why| SnapshotError::End { number: self.number, why };
        if crc32fast::hash(&body) != crc {
            return Err(damaged("its checksum does not match"));
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| body[at + i]));
        if number(8) != self.number {
            return Err(damaged("records are missing"));
        }
        if u32::from_le_bytes([body[16], body[17], body[18], body[19]]) != self.all.clone().finalize() {
            return Err(damaged("the records are not those that were written"));
        }
        self.summary = Some(Summary { revision: number(0), records: self.number });
        let mut more = [0; 1];
        match self.from.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(SnapshotError::End { number: self.number, why: "something follows it" }),
            Err(error) => Err(SnapshotError::Read(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::store::{Embedded, Op};

    async fn snapshot(count: usize) -> (Arc<dyn Store>, Vec<u8>) {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
        for n in 0..count {
            let (key, value) = (Key::parse(&format!("pods/a/p{n:04}")).unwrap(), Bytes::from(format!("value {n}")));
            store.write(vec![], vec![Op::Put { key, value }]).await.unwrap();
        }
        let pieces: Vec<Bytes> = stream(store.clone()).try_collect().await.unwrap();
        (store, pieces.concat())
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_checked() {
        for count in [0, 1, PAGE_ITEMS, PAGE_ITEMS * 2 + 7] {
            let (store, bytes) = snapshot(count).await;
            let mut reader = Reader::new(&*bytes).unwrap();
            let items = reader.page(usize::MAX).unwrap();
            let page = store.list("", "", usize::MAX, None).await.unwrap();
            assert_eq!(items, page.items);
            let summary = Summary { revision: page.revision, records: count as u64 };
            assert_eq!(reader.summary(), Some(summary));
            assert_eq!(Reader::new(&*bytes).unwrap().verify().unwrap(), summary);
        }
    }

    #[tokio::test]
    async fn any_damage_is_found_and_a_record_is_named() {
        let (_, bytes) = snapshot(5).await;
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Reader::new(&*bad).and_then(Reader::verify).is_err(), "byte {at}");
            assert!(Reader::new(&bytes[..at]).and_then(Reader::verify).is_err(), "cut at {at}");
        }
        let value = bytes.windows(7).position(|window| window == b"value 3").unwrap();
        let mut bad = bytes.clone();
        bad[value] = b'V';
        let error = Reader::new(&*bad).and_then(Reader::verify).unwrap_err().to_string();
        assert!(error.contains("record 4") && error.contains("pods/a/p0003"), "{error}");
        let error = Reader::new(&bytes[..value]).and_then(Reader::verify).unwrap_err().to_string();
        assert!(error.contains("record 4") && error.contains("pods/a/p0002"), "{error}");
        let error = Reader::new(&*[&bytes[..], b"x"].concat()).and_then(Reader::verify).unwrap_err().to_string();
        assert!(error.contains("something follows"), "{error}");
    }
}
