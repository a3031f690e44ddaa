use std::sync::Arc;

use bytes::Bytes;

use super::{Commits, Embedded, MemoryDisk};
use crate::store::{Compare, Expect, Key, Op, Store, StoreError};

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
    assert_eq!(batch.changes[1].previous.as_ref().unwrap().value, "1");
    store.compact(2).await.unwrap();
    assert!(matches!(store.get(&key("pods/a/b"), Some(1)).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.get(&key("pods/a/b"), Some(2)).await.unwrap().unwrap().value, "2");
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
