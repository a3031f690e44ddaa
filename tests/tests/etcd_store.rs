//! The store's contract, on a real etcd: the same suite as the embedded backend's, with client certificates, and what only
//! a store behind a network can meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_control::store::etcd::OpenError;
use gantry_control::store::{Cache, Change, Compare, Etcd, Expect, Key, Op, Revision, Store, StoreError, Watch};
use gantry_kube::Ref;
use gantry_tests::etcd_cluster::{EtcdCluster, newest_program, programs};
use gantry_tests::store_conformance::{Conformance, step};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn key(name: &str) -> Key {
    Key::new("pods", &Ref::new("a", name))
}

fn put(name: &str, value: impl Into<Bytes>) -> Op {
    Op::Put { key: key(name), value: value.into() }
}

#[test]
fn the_store_in_etcd_agrees_with_the_model() {
    for program in programs() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = EtcdCluster::start(folder.path(), &program, 1, true).unwrap();
        let runtime = runtime();
        let cases = AtomicU32::new(0);
        let config = Config { cases: 20, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
        let ran = TestRunner::new(config).run(&prop::collection::vec(step(), 1..100), |steps| {
            let prefix = format!("/{}", cases.fetch_add(1, Ordering::Relaxed));
            runtime.block_on(async {
                let store = Etcd::open(&cluster.config(&prefix).unwrap()).await.unwrap();
                let mut both = Conformance::starting_at(store.current().await.unwrap());
                for step in &steps {
                    both.take(&store, step).await?;
                }
                both.compare_whole(&store).await
            })
        });
        ran.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    }
}

/// Takes batches until the watch is at `revision`.
async fn changes(watch: &mut Box<dyn Watch>, revision: Revision) -> Vec<Change> {
    let (mut found, mut reached) = (Vec::new(), 0);
    while reached < revision {
        let batch = timeout(Duration::from_secs(60), watch.next()).await.expect("the watch goes on").unwrap();
        reached = batch.revision;
        found.extend(batch.changes);
    }
    found
}

#[test]
fn what_cannot_be_reached_is_named() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, true).unwrap();
        let config = cluster.config("").unwrap();
        Etcd::open(&config).await.unwrap();
        // Who shows no certificate is not let in.
        let ca = std::fs::read_to_string(&cluster.files().unwrap().ca).unwrap();
        let clock = gantry_env::Env::system().clock;
        let nobody = gantry_pki::tls::client_config(&ca, None, &clock).unwrap();
        let refused =
            Etcd::open(&gantry_control::store::etcd::Config { tls: Some(Arc::new(nobody)), ..config.clone() }).await;
        let Err(OpenError::Store(StoreError::Unreachable { servers, .. })) = refused else { panic!("let in") };
        assert_eq!(servers, cluster.urls().join(", "));
        cluster.kill(0).unwrap();
        let gone = Etcd::open(&config).await.err().unwrap();
        assert!(matches!(gone, OpenError::Store(StoreError::Unreachable { .. })), "{gone:?}");
    });
}

#[test]
fn writes_of_every_size_arrive() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, false).unwrap();
        let store = Etcd::open(&cluster.config("").unwrap()).await.unwrap();
        let start = store.current().await.unwrap();
        // As many operations and conditions as there may be.
        let keys: Vec<Key> = (0..128).map(|n| Key::new(&format!("kind{n}"), &Ref::new("a", "b"))).collect();
        let absent = keys.iter().map(|key| Compare { key: key.clone(), expect: Expect::Absent }).collect::<Vec<_>>();
        let puts = keys.iter().map(|key| Op::Put { key: key.clone(), value: Bytes::from("x") }).collect::<Vec<_>>();
        let made = store.write(absent.clone(), puts.clone()).await.unwrap();
        let Err(StoreError::Conflict(conflict)) = store.write(absent, puts).await else { panic!("made twice") };
        assert_eq!((&conflict.key, conflict.current.unwrap().revision), (&keys[0], made));
        let deletes = keys.iter().map(|key| Op::Delete { key: key.clone() }).collect();
        store.write(vec![], deletes).await.unwrap();
        // More than one answer or event can carry.
        let large = vec![b'x'; 1_500_000];
        for n in 0..30 {
            store.write(vec![], vec![put(&format!("large-{n:02}"), large.clone())]).await.unwrap();
        }
        let page = store.list("pods/", "", usize::MAX, None).await.unwrap();
        assert_eq!((page.items.len(), page.more), (30, false));
        assert!(page.items.iter().all(|item| item.value.len() == large.len()));
        let mut watch = store.watch("", start).await.unwrap();
        let found = changes(&mut watch, page.revision).await;
        assert_eq!(found.len(), 2 * 128 + 30);
        let two = vec![put("one", large.clone()), Op::Put { key: keys[0].clone(), value: large.into() }];
        let refused = store.write(vec![], two).await;
        assert!(matches!(refused, Err(StoreError::WriteTooLarge { bytes }) if bytes > 3_000_000), "{refused:?}");
    });
}

#[test]
fn a_watch_outlives_its_member_without_a_gap() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, true).unwrap();
        let store = Etcd::open(&cluster.config("").unwrap()).await.unwrap();
        let start = store.current().await.unwrap();
        let mut watch = store.watch("pods/", start).await.unwrap();
        let mut written = vec![store.write(vec![], vec![put("0", "x")]).await.unwrap()];
        assert_eq!(changes(&mut watch, written[0]).await.len(), 1);
        for round in 1..4 {
            written.push(store.write(vec![], vec![put(&format!("{round}"), "x")]).await.unwrap());
            cluster.kill(0).unwrap();
            cluster.revive(0).unwrap();
            // A read may be sent again; a write on a connection that is found dead may not.
            store.current().await.unwrap();
            written.push(store.write(vec![], vec![put(&format!("{round}"), "y")]).await.unwrap());
        }
        let found = changes(&mut watch, *written.last().unwrap()).await;
        assert_eq!(found.iter().map(|change| change.revision).collect::<Vec<_>>(), written[1..]);
        let previous = found.iter().map(|change| change.previous).collect::<Vec<_>>();
        assert_eq!(previous, [None, Some(written[1]), None, Some(written[3]), None, Some(written[5])]);
    });
}

/// Somebody else's writes move etcd's revision, and no event of ours tells.
#[test]
fn a_read_waits_for_no_event_that_never_comes() {
    runtime().block_on(async {
        for program in programs() {
            let folder = tempfile::tempdir().unwrap();
            let cluster = EtcdCluster::start(folder.path(), &program, 1, false).unwrap();
            let store: Arc<dyn Store> = Arc::new(Etcd::open(&cluster.config("/ours").unwrap()).await.unwrap());
            let cache = Cache::start(store.clone()).await.unwrap();
            let others = Etcd::open(&cluster.config("/theirs").unwrap()).await.unwrap();
            for n in 0..20 {
                let revision = others.write(vec![], vec![put(&n.to_string(), "x")]).await.unwrap();
                let fresh = timeout(Duration::from_secs(10), cache.fresh()).await.expect("it waits for ever").unwrap();
                assert!(fresh >= revision && cache.revision() >= fresh);
            }
            assert_eq!(store.list("", "", 9, None).await.unwrap().items, []);
        }
    });
}

/// A write whose answer does not come is neither done nor not done, and is not sent twice.
#[test]
fn an_unknown_outcome_is_told_as_one() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, false).unwrap();
        let store = Etcd::open(&cluster.config("").unwrap()).await.unwrap();
        let before = store.write(vec![], vec![put("b", "1")]).await.unwrap();
        cluster.freeze(0, true).unwrap();
        let told = store.write(vec![], vec![put("b", "2")]).await;
        assert!(matches!(told, Err(StoreError::Unknown { .. })), "{told:?}");
        let status = gantry_control::store::cache::store_status(&told.unwrap_err());
        assert_eq!((status.code, &*status.reason), (504, "Timeout"));
        cluster.freeze(0, false).unwrap();
        let after = store.get(&key("b"), None).await.unwrap().unwrap();
        assert!(after.revision == before && after.value == "1" || after.revision == before + 1 && after.value == "2");
        let next = store.write(vec![], vec![put("b", "3")]).await.unwrap();
        assert!(next <= before + 2, "it was written more than once");
    });
}
