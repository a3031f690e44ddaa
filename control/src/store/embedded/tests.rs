use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::plan::Write;
use super::shared::Shared;
use super::{Commits, Disk, Embedded, MemoryDisk};
use crate::http::health::{Endpoint, Health};
use crate::store::{Cache, Compare, Expect, Key, Op, Store, StoreError};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn put(text: &str, value: &'static str) -> Vec<Op> {
    vec![Op::Put { key: key(text), value: Bytes::from_static(value.as_bytes()) }]
}

#[tokio::test]
async fn a_write_is_there_after_reopening() {
    let disk = Arc::new(MemoryDisk::default());
    let store = Embedded::open(disk.clone(), Commits::Grouped).unwrap();
    assert_eq!(store.write(vec![], put("pods/a/b", "1")).await.unwrap(), 1);
    assert_eq!(store.write(vec![], put("pods/a/b", "2")).await.unwrap(), 2);
    let absent = vec![Compare { key: key("pods/a/b"), expect: Expect::Absent }];
    let refused = store.write(absent, put("pods/a/b", "3")).await;
    assert!(matches!(refused, Err(StoreError::Conflict(conflict)) if conflict.current.as_ref().unwrap().revision == 2));
    drop(store);
    let store = Embedded::open(disk, Commits::Inline).unwrap();
    assert_eq!(store.current().await.unwrap(), 2);
    assert_eq!(store.get(&key("pods/a/b"), Some(1)).await.unwrap().unwrap().value, "1");
    assert_eq!(store.get(&key("pods/a/b"), None).await.unwrap().unwrap().value, "2");
    let mut watch = store.watch("pods/", 0).await.unwrap();
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.revision, 2);
    assert_eq!(batch.changes.iter().map(|change| change.previous).collect::<Vec<_>>(), [None, Some(1)]);
    store.compact(2).await.unwrap();
    assert!(matches!(store.get(&key("pods/a/b"), Some(1)).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.get(&key("pods/a/b"), Some(2)).await.unwrap().unwrap().value, "2");
}

/// A disk that does what it is told until it is told to do otherwise.
#[derive(Debug, Default)]
struct Treacherous {
    memory: MemoryDisk,
    panics: AtomicBool,
}

impl Disk for Treacherous {
    fn name(&self) -> String {
        self.memory.name()
    }
    fn size(&self) -> std::io::Result<u64> {
        self.memory.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync(&self) -> std::io::Result<()> {
        assert!(!self.panics.load(Ordering::Relaxed), "the disk panics, as it was told to");
        self.memory.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.memory.write(offset, data)
    }
    fn distrust(&self) -> std::io::Result<()> {
        self.memory.distrust()
    }
}

#[tokio::test]
async fn a_writer_that_panics_is_told_by_name() {
    let disk = Arc::new(Treacherous::default());
    let store = Arc::new(Embedded::open(disk.clone(), Commits::Grouped).unwrap());
    let cache = Cache::start(store.clone()).await.unwrap();
    let health = Health::new(cache, CancellationToken::new());
    let ready = async || health.serve_one(Endpoint::Readyz, "etcd").await.unwrap().status().as_u16();
    store.write(vec![], put("pods/a/b", r#"{"metadata":{"name":"b"}}"#)).await.unwrap();
    assert_eq!(ready().await, 200);
    let mut watch = store.watch("", 1).await.unwrap();
    disk.panics.store(true, Ordering::Relaxed);
    let refused = store.write(vec![], put("pods/a/b", "2")).await;
    assert!(matches!(refused, Err(StoreError::WriterPanicked)), "{refused:?}");
    assert!(matches!(watch.next().await, Err(StoreError::WriterPanicked)));
    assert!(matches!(store.current().await, Err(StoreError::WriterPanicked)), "nobody takes it for well");
    assert!(matches!(store.write(vec![], put("pods/a/b", "2")).await, Err(StoreError::WriterPanicked)));
    assert_eq!(store.get(&key("pods/a/b"), None).await.unwrap().unwrap().revision, 1);
    assert_eq!(ready().await, 500);
    disk.panics.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn a_compaction_that_removes_nothing_costs_no_commit() {
    let disk = Arc::new(MemoryDisk::default());
    let store = Embedded::open(disk.clone(), Commits::Inline).unwrap();
    store.write(vec![], put("pods/a/b", "1")).await.unwrap();
    store.write(vec![], put("pods/a/c", "1")).await.unwrap();
    let before = disk.contents();
    store.compact(2).await.unwrap();
    assert!(before == disk.contents(), "it was written");
    assert!(matches!(store.list("", "", 9, Some(1)).await, Err(StoreError::Compacted { asked: 1, oldest: 2 })));
    // The next commit says it.
    store.write(vec![], put("pods/a/d", "1")).await.unwrap();
    drop(store);
    let store = Embedded::open(disk, Commits::Inline).unwrap();
    assert!(matches!(store.list("", "", 9, Some(1)).await, Err(StoreError::Compacted { asked: 1, oldest: 2 })));
}

/// Spoils the record of `value` under the running store, as a failing disk does.
fn spoil(disk: &MemoryDisk, value: &[u8]) {
    let bytes = disk.contents();
    for at in memchr::memmem::find_iter(&bytes, value) {
        disk.write(at as u64, &vec![b'!'; value.len()]).unwrap();
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_fails_nobody_elses_write_and_can_be_replaced() {
    let disk = Arc::new(MemoryDisk::default());
    let mut engine = Engine::start(Shared::new(disk.clone())).unwrap().0;
    let write = |text: &str, value: &str, expect: Option<Expect>| Write {
        compares: expect.map(|expect| Compare { key: key(text), expect }).into_iter().collect(),
        ops: vec![Op::Put { key: key(text), value: Bytes::from(value.to_owned()) }],
    };
    // Larger than what redb keeps of pages, so that it is read from the disk.
    let large = "precious ".repeat(1000);
    engine.write(&[write("pods/a/b", &large, None)]);
    for filler in 0..600 {
        engine.write(&[write(&format!("pods/a/{filler}"), &"x".repeat(10_000), None)]);
    }
    spoil(&disk, large.as_bytes());
    let group = [
        write("pods/a/b", "collides", Some(Expect::Absent)),
        write("pods/a/c", "another", Some(Expect::Absent)),
        write("pods/a/b", "new", None),
    ];
    let answers = engine.write(&group);
    assert!(matches!(&answers[0], Err(StoreError::Damaged { revision: 1, .. })), "{answers:?}");
    assert!(matches!(answers[1..], [Ok(602), Ok(603)]), "{answers:?}");
}

#[tokio::test]
async fn a_heartbeat_costs_no_commit_and_its_revision_is_never_used_again() {
    let disk = Arc::new(MemoryDisk::default());
    let store = Embedded::open(disk.clone(), Commits::Inline).unwrap();
    let renew = |value: &'static str| vec![Op::Renew { key: key("leases/a/n"), value: Bytes::from(value) }];
    store.write(vec![], put("leases/a/n", "0")).await.unwrap();
    assert_eq!(store.write(vec![], renew("1")).await.unwrap(), 2);
    assert_eq!(store.write(vec![], renew("2")).await.unwrap(), 3);
    assert_eq!(store.get(&key("leases/a/n"), None).await.unwrap().unwrap().value, "2");
    store.compact(3).await.unwrap();
    // The machine dies: the file as it is now is all there is.
    let copy = Arc::new(MemoryDisk::default());
    let bytes = disk.contents();
    super::Disk::set_len(&*copy, bytes.len() as u64).unwrap();
    super::Disk::write(&*copy, 0, &bytes).unwrap();
    let after = Embedded::open(copy, Commits::Inline).unwrap();
    assert_eq!(after.get(&key("leases/a/n"), None).await.unwrap().unwrap().value, "0");
    assert!(after.current().await.unwrap() >= 3);
    drop(after);
    // An orderly end keeps the newest one.
    drop(store);
    let after = Embedded::open(disk, Commits::Inline).unwrap();
    assert_eq!(after.get(&key("leases/a/n"), None).await.unwrap().unwrap().value, "2");
}

#[tokio::test]
async fn a_raised_store_goes_on_above_and_ends_its_watches() {
    let disk = Arc::new(MemoryDisk::default());
    let store = Embedded::open(disk.clone(), Commits::Grouped).unwrap();
    store.write(vec![], put("pods/a/b", "1")).await.unwrap();
    let mut watch = store.watch("", 0).await.unwrap();
    store.raise(1000).await.unwrap();
    assert!(matches!(watch.next().await, Err(StoreError::Compacted { asked: 0, oldest: 1000 })));
    store.raise(500).await.unwrap();
    drop(store);
    let store = Embedded::open(disk, Commits::Grouped).unwrap();
    assert_eq!(store.current().await.unwrap(), 1000);
    assert_eq!(store.get(&key("pods/a/b"), None).await.unwrap().unwrap().revision, 1);
    assert_eq!(store.write(vec![], put("pods/a/b", "2")).await.unwrap(), 1001);
}
