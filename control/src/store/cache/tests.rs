use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_kube::resource::{CONFIG_MAP, IP_ADDRESS, LEASE, NODE, SERVICE};
use gantry_kube::{Object, Ref, Resource};
use serde_json::json;

use super::events::Ring;
use super::{Cache, Change, Encoding, Event, Gone, Stored, WriteError};
use crate::store::embedded::{Commits, Disk, Embedded, MemoryDisk};
use crate::store::{Key, Revision, Store, StoreError};

fn object(resource: &Resource, at: &Ref, value: &str) -> Object {
    Object::from_value(json!({
        "apiVersion": resource.api_version(), "kind": resource.kind, "data": {"value": value},
        "metadata": {"name": at.name, "namespace": at.namespace, "labels": {"value": value}},
    }))
    .unwrap()
}

async fn cache() -> Cache {
    Cache::start(Arc::new(Embedded::in_memory().unwrap())).await.unwrap()
}

async fn create(cache: &Cache, namespace: &str, name: &str) -> Arc<Stored> {
    let at = Ref::new(namespace, name);
    cache.create(&CONFIG_MAP, &at, &object(&CONFIG_MAP, &at, "0")).await.unwrap()
}

fn names(items: &[Arc<Stored>]) -> Vec<String> {
    items.iter().map(|item| item.key().reference().to_string()).collect()
}

#[tokio::test]
async fn a_write_is_in_the_cache_when_it_is_answered() {
    let cache = cache().await;
    let at = Ref::new("a", "b");
    let made = create(&cache, "a", "b").await;
    assert_eq!(made.object().resource_version(), "1");
    assert!(Arc::ptr_eq(&made, &cache.get(&CONFIG_MAP, &at).unwrap()));
    assert!(matches!(
        cache.create(&CONFIG_MAP, &at, &object(&CONFIG_MAP, &at, "1")).await,
        Err(WriteError::Exists { current, .. }) if current.revision() == 1
    ));
    let updated = cache.update(&CONFIG_MAP, &at, 1, &object(&CONFIG_MAP, &at, "2")).await.unwrap();
    assert_eq!((updated.revision(), updated.object().str_at("/data/value")), (2, "2"));
    let stale = cache.update(&CONFIG_MAP, &at, 1, &object(&CONFIG_MAP, &at, "3")).await.unwrap_err();
    assert_eq!(stale.status(&CONFIG_MAP, "b").code, 409);
    let deleted = cache.delete(&CONFIG_MAP, &at, 2).await.unwrap();
    assert_eq!((deleted.revision(), deleted.object().str_at("/data/value")), (3, "2"));
    assert_eq!(deleted.object().resource_version(), "3");
    assert!(cache.get(&CONFIG_MAP, &at).is_none());
    let gone = cache.delete(&CONFIG_MAP, &at, 2).await.unwrap_err();
    assert_eq!(gone.status(&CONFIG_MAP, "b").code, 404);
}

/// Whoever reads again after a conflict must not read what it collided with the last time.
#[tokio::test]
async fn what_a_write_collided_with_is_in_the_cache_when_it_is_answered() {
    let cache = cache().await;
    let at = Ref::new("a", "b");
    let mut revision = create(&cache, "a", "b").await.revision();
    for round in 0..200 {
        let write = async |value: String| {
            let done = cache.update(&CONFIG_MAP, &at, revision, &object(&CONFIG_MAP, &at, &value)).await;
            let seen = cache.get(&CONFIG_MAP, &at).unwrap().revision();
            if let Err(WriteError::Conflict { current, .. }) = &done {
                assert!(seen >= current.as_ref().unwrap().revision(), "round {round}");
            }
            done.is_ok()
        };
        let (first, second) = tokio::join!(write(format!("{round} a")), write(format!("{round} b")));
        assert!(first != second, "one of two is written");
        revision = cache.get(&CONFIG_MAP, &at).unwrap().revision();
    }
}

#[tokio::test]
async fn a_watch_continues_a_list_without_a_gap() {
    let cache = cache().await;
    create(&cache, "a", "x").await;
    create(&cache, "b", "x").await;
    let listed = cache.list(&CONFIG_MAP, Some("a"));
    assert_eq!((names(&listed.items), listed.revision), (vec!["a/x".to_owned()], 2));
    let mut watcher = cache.watch(&CONFIG_MAP, Some("a"), listed.revision).unwrap();
    let mut whole = cache.watch(&CONFIG_MAP, None, 1).unwrap();
    create(&cache, "b", "y").await;
    assert!(watcher.try_next().unwrap().is_none());
    assert_eq!(watcher.revision(), 3, "a bookmark moves on past what is not for this watcher");
    create(&cache, "a", "y").await;
    assert_eq!(watcher.next().await.unwrap().key.as_str(), "configmaps/a/y");
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(whole.next().await.unwrap().revision);
    }
    assert_eq!(seen, [2, 3, 4]);
    // A watch from a revision that is not yet delivers what comes after it, and no sooner.
    let mut early = cache.watch(&CONFIG_MAP, None, 5).unwrap();
    create(&cache, "a", "z").await;
    create(&cache, "a", "zz").await;
    assert_eq!(early.next().await.unwrap().revision, 6);
}

#[tokio::test]
async fn an_event_carries_what_a_selector_needs() {
    let cache = cache().await;
    let (at, mut watcher) = (Ref::new("a", "b"), cache.watch(&CONFIG_MAP, None, 0).unwrap());
    create(&cache, "a", "b").await;
    cache.update(&CONFIG_MAP, &at, 1, &object(&CONFIG_MAP, &at, "2")).await.unwrap();
    let created = watcher.next().await.unwrap();
    assert!(created.previous.is_none() && created.gone().is_none());
    let updated = watcher.next().await.unwrap();
    let left = updated.gone().unwrap();
    assert_eq!((left.object().str_at("/data/value"), left.object().resource_version()), ("0", "2"));
    assert_eq!(updated.previous.as_ref().unwrap().object().resource_version(), "1");
    assert_eq!(left.outline(&[]).label("value"), Some("0"));
}

#[tokio::test]
async fn several_kinds_are_written_together_or_not_at_all() {
    let cache = cache().await;
    let (service, address) = (Ref::new("a", "s"), Ref::cluster("10.96.0.7"));
    let both = || {
        vec![
            Change::create(&SERVICE, &service, &object(&SERVICE, &service, "")).unwrap(),
            Change::create(&IP_ADDRESS, &address, &object(&IP_ADDRESS, &address, "")).unwrap(),
        ]
    };
    let written = cache.write(both()).await.unwrap();
    assert_eq!(written.iter().map(|stored| stored.revision()).collect::<Vec<_>>(), [1, 1]);
    cache.delete(&SERVICE, &service, 1).await.unwrap();
    let refused = cache.write(both()).await.unwrap_err();
    assert!(
        matches!(refused, WriteError::Exists { key, .. } if key.as_str() == "ipaddresses.networking.k8s.io/10.96.0.7")
    );
    assert!(cache.get(&SERVICE, &service).is_none());
}

#[tokio::test]
async fn pages_stand_at_the_revision_of_the_first() {
    let cache = cache().await;
    for name in ["a", "b", "c", "d", "e"] {
        create(&cache, "n", name).await;
    }
    let first = cache.page(&CONFIG_MAP, None, 2, None).await.unwrap();
    assert_eq!((names(&first.items), first.remaining), (vec!["n/a".to_owned(), "n/b".to_owned()], Some(3)));
    let next = first.next.unwrap();
    // Nothing has changed: the cache answers. Then something has: history does.
    let same = cache.page(&CONFIG_MAP, None, 2, Some((first.revision, &next))).await.unwrap();
    assert_eq!(same.remaining, Some(1));
    cache.delete(&CONFIG_MAP, &Ref::new("n", "c"), 3).await.unwrap();
    create(&cache, "n", "cc").await;
    let second = cache.page(&CONFIG_MAP, None, 2, Some((first.revision, &next))).await.unwrap();
    assert_eq!((names(&second.items), second.revision), (names(&same.items), 5));
    assert_eq!(second.items[0].json(), same.items[0].json());
    let last = cache.page(&CONFIG_MAP, None, 2, Some((5, &second.next.unwrap()))).await.unwrap();
    assert_eq!((names(&last.items), last.next), (vec!["n/e".to_owned()], None));
    cache.store().compact(6).await.unwrap();
    let gone = cache.page(&CONFIG_MAP, None, 2, Some((5, &next))).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { asked: 5, oldest: 6 }));
}

#[test]
fn a_position_that_fell_out_of_the_ring_is_gone() {
    let mut ring = Ring::new(5);
    assert_eq!(ring.position(4), Err(Gone { asked: 4, oldest: 5 }));
    let (start, big) = (ring.position(5).unwrap(), "x".repeat(1 << 20));
    for revision in 6..20_u64 {
        let (at, key) = (Ref::new("a", "b"), Key::new("configmaps", &Ref::new("a", "b")));
        let encoded = crate::store::encode(&object(&CONFIG_MAP, &at, &big)).unwrap();
        let new = Arc::new(Stored::new(key.clone(), revision, &encoded));
        ring.push(Arc::new(Event::new(revision, key, Some(new), None)));
    }
    assert!(ring.get(start).is_err());
    let oldest = ring.floor;
    assert!((12..19).contains(&oldest), "{oldest}");
    let position = ring.position(oldest).unwrap();
    assert_eq!(ring.get(position).unwrap().unwrap().revision, oldest + 1);
    assert_eq!(ring.get(ring.end()).unwrap().map(|event| event.revision), None);
    let end = ring.end();
    ring.clear(19);
    assert!(ring.get(end).is_err(), "whoever watched before has to list again");
    assert!(ring.get(ring.position(19).unwrap()).unwrap().is_none());
}

#[tokio::test]
async fn a_heartbeat_is_answered_and_watched_without_touching_the_disk() {
    let disk = Arc::new(MemoryDisk::default());
    let store: Arc<dyn Store> = Arc::new(Embedded::open(disk.clone(), Commits::Inline).unwrap());
    let cache = Cache::start(store).await.unwrap();
    let at = Ref::new("kube-node-lease", "n");
    let lease = |renew: &str| {
        let mut lease = object(&LEASE, &at, "");
        lease.map_mut("spec").insert("renewTime".to_owned(), json!(renew));
        lease
    };
    let mut revision = cache.create(&LEASE, &at, &lease("0")).await.unwrap().revision();
    let mut watcher = cache.watch(&LEASE, None, revision).unwrap();
    revision = cache.update(&LEASE, &at, revision, &lease("1")).await.unwrap().revision();
    let before = disk.contents();
    for renew in ["2", "3", "4"] {
        revision = cache.update(&LEASE, &at, revision, &lease(renew)).await.unwrap().revision();
    }
    assert!(before == disk.contents(), "a heartbeat was written");
    assert_eq!(cache.get(&LEASE, &at).unwrap().object().str_at("/spec/renewTime"), "4");
    for renew in ["1", "2", "3", "4"] {
        let event = watcher.next().await.unwrap();
        assert_eq!(event.new.as_ref().unwrap().object().str_at("/spec/renewTime"), renew);
    }
    let mut other = lease("5");
    other.map_mut("spec").insert("holderIdentity".to_owned(), json!("m"));
    cache.update(&LEASE, &at, revision, &other).await.unwrap();
    assert!(before != disk.contents(), "a change of the holder was not written");
}

#[tokio::test]
async fn a_start_reads_what_is_stored() {
    let disk = Arc::new(MemoryDisk::default());
    let open = || -> Arc<dyn Store> { Arc::new(Embedded::open(disk.clone(), Commits::Grouped).unwrap()) };
    let cache = Cache::start(open()).await.unwrap();
    create(&cache, "a", "b").await;
    let node = Ref::cluster("n");
    cache.create(&NODE, &node, &object(&NODE, &node, "")).await.unwrap();
    let before = cache.get(&NODE, &node).unwrap().json().clone();
    drop(cache);
    // The feed's task ends at its next turn, and the store with it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let cache = Cache::start(open()).await.unwrap();
    assert_eq!((cache.revision(), cache.count(&CONFIG_MAP)), (2, 1));
    assert_eq!(cache.get(&NODE, &node).unwrap().json(), &before);
    let mut resumed = cache.watch(&NODE, None, 1).unwrap();
    assert_eq!(resumed.next().await.unwrap().revision, 2, "a watch goes on through a restart");
    assert!(cache.watch(&NODE, None, 2).is_ok());
    assert!(cache.watch(&SERVICE, None, 1).is_ok(), "nor does it matter that a kind holds nothing");
    assert_eq!(cache.watch(&LEASE, None, 1).err(), Some(Gone { asked: 1, oldest: 2 }));
    cache.store().compact(2).await.unwrap();
    let later = Cache::start(cache.store().clone()).await.unwrap();
    assert_eq!(later.watch(&NODE, None, 1).err(), Some(Gone { asked: 1, oldest: 2 }));
    assert_eq!(later.count(&CONFIG_MAP), 1);
    assert!(disk.size().unwrap() > 0);
}

#[tokio::test]
async fn another_encoding_is_made_once() {
    let stored = create(&cache().await, "a", "b").await;
    let encoding = Encoding { group: "", version: "v1", media: "test" };
    let make = |text: &'static str| stored.encoded::<()>(encoding, |_| Ok(Bytes::from(text))).unwrap();
    assert_eq!((make("first"), make("second")), (Bytes::from("first"), Bytes::from("first")));
    assert_eq!(stored.encoded(Encoding { media: "other", ..encoding }, |_| Err(7)), Err(7));
}

/// Readers that list and then watch, at any time, end with the same objects as the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_ends_with_the_same_objects() {
    let cache = Cache::start(Arc::new(Embedded::open(Arc::new(MemoryDisk::default()), Commits::Grouped).unwrap()))
        .await
        .unwrap();
    let writers = (0..4_u64).map(|writer| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for i in 0..100_u64 {
                let at = Ref::new("a", format!("{}", (i * 7 + writer) % 10));
                let value = format!("{writer}-{i}");
                // Writers collide on purpose; a conflict is simply not a change.
                let _ = match cache.get(&CONFIG_MAP, &at) {
                    Some(found) if i % 3 == 0 => cache.delete(&CONFIG_MAP, &at, found.revision()).await,
                    Some(found) => {
                        let object = object(&CONFIG_MAP, &at, &value);
                        cache.update(&CONFIG_MAP, &at, found.revision(), &object).await
                    }
                    None => cache.create(&CONFIG_MAP, &at, &object(&CONFIG_MAP, &at, &value)).await,
                };
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let readers: Vec<_> = (0..20).map(|_| tokio::spawn(follow(cache.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let last = Ref::new("end", "end");
    cache.create(&CONFIG_MAP, &last, &object(&CONFIG_MAP, &last, "")).await.unwrap();
    let expected: Vec<_> = cache.list(&CONFIG_MAP, None).items.iter().map(|item| item.json().clone()).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
}

async fn follow(cache: Cache) -> Vec<Bytes> {
    let listed = cache.list(&CONFIG_MAP, None);
    let mut objects: std::collections::BTreeMap<Key, Arc<Stored>> =
        listed.items.into_iter().map(|item| (item.key().clone(), item)).collect();
    let mut watcher = cache.watch(&CONFIG_MAP, None, listed.revision).unwrap();
    let mut last: Revision = listed.revision;
    while !objects.contains_key("configmaps/end/end") {
        let event = watcher.next().await.unwrap();
        assert!(event.revision > last);
        last = event.revision;
        let before = match &event.new {
            Some(new) => objects.insert(event.key.clone(), new.clone()),
            None => objects.remove(&event.key),
        };
        assert_eq!(before.map(|b| b.revision()), event.previous.as_ref().map(|p| p.revision()));
    }
    objects.values().map(|stored| stored.json().clone()).collect()
}
