//! The store's contract, on the embedded backend: against the model, with failing disks, and through kill -9.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use gantry_control::store::embedded::{Commits, MemoryDisk};
use gantry_control::store::{Compare, Embedded, Expect, Key, Op, Revision, Store, StoreError};
use gantry_kube::Ref;
use gantry_tests::faulty_disk::{Fault, FaultyDisk};
use gantry_tests::store_conformance::{Conformance, Step, faulty_step, step};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(disk: &Arc<FaultyDisk>) -> Embedded {
    Embedded::open(disk.clone(), Commits::Inline).unwrap()
}

fn put(name: &str, value: impl Into<Bytes>) -> Op {
    Op::Put { key: Key::new("pods", &Ref::new("a", name)), value: value.into() }
}

/// A store on a disk that fails, beside the model.
struct Rig {
    disk: Arc<FaultyDisk>,
    store: Option<Embedded>,
    both: Conformance,
    seed: u64,
}

impl Rig {
    fn store(&self) -> &Embedded {
        self.store.as_ref().unwrap()
    }

    async fn take(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Reopen => {
                self.disk.disarm();
                self.restart().await;
                self.both.compare_whole(self.store()).await?;
            }
            Step::Fail(operations) => self.disk.arm(*operations, Fault::Once),
            Step::PowerCut(operations, seed) => {
                self.seed = *seed;
                self.disk.arm(*operations, Fault::PowerCut);
            }
            Step::Write { compares, ops } => {
                let compares = self.both.compares(compares);
                let mut after = self.both.model.clone();
                let expected = after.write(&compares, ops);
                let found = self.store().write(compares, ops.clone()).await;
                match found {
                    Err(StoreError::Io { .. } | StoreError::Broken) => self.failed(after).await?,
                    found => {
                        prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
                        self.both.model = after;
                    }
                }
            }
            step => {
                self.disk.disarm();
                self.both.take(self.store.as_ref().unwrap(), step).await?;
            }
        }
        Ok(())
    }

    /// A write failed: with the power on, it never was; with the power off, it was or it was not, but not by half.
    async fn failed(&mut self, after: gantry_tests::store_model::Model) -> TestCaseResult {
        if self.disk.is_dead() {
            self.store = None;
            self.disk.reboot(self.seed);
            self.store = Some(open(&self.disk));
            if self.store().current().await.unwrap() == after.current {
                self.both.model = after;
            }
            self.both.restarted(self.store.as_ref().unwrap()).await;
        }
        self.both.compare_whole(self.store()).await
    }

    async fn restart(&mut self) {
        self.store = None;
        self.store = Some(open(&self.disk));
        self.both.restarted(self.store.as_ref().unwrap()).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_agrees_with_the_model(steps in prop::collection::vec(step(), 1..150)) {
        runtime().block_on(async {
            let store = Embedded::open(Arc::new(MemoryDisk::default()), Commits::Grouped).unwrap();
            let mut both = Conformance::default();
            for step in &steps {
                both.take(&store, step).await?;
            }
            both.compare_whole(&store).await
        })?;
    }

    #[test]
    fn no_failure_of_the_disk_is_visible(steps in prop::collection::vec(faulty_step(), 1..120)) {
        runtime().block_on(async {
            let disk = Arc::new(FaultyDisk::default());
            let mut rig = Rig { store: Some(open(&disk)), disk, both: Conformance::default(), seed: 0 };
            for step in &steps {
                rig.take(step).await?;
            }
            rig.disk.disarm();
            rig.restart().await;
            rig.both.compare_whole(rig.store()).await
        })?;
    }

    /// Heartbeats may be lost to a crash, but no revision is used twice and the last durable value is there.
    #[test]
    fn a_revision_is_never_used_twice(steps in prop::collection::vec(0_u8..20, 1..120), seed: u64) {
        runtime().block_on(async {
            let disk = Arc::new(FaultyDisk::default());
            let mut store = open(&disk);
            let lease = Key::new("leases.coordination.k8s.io", &Ref::new("kube-node-lease", "n"));
            let (mut newest, mut durable, mut latest) = (0, None, None);
            for (i, step) in steps.iter().enumerate() {
                let value = Bytes::from(i.to_string());
                let op = match step {
                    0..10 => Some(Op::Renew { key: lease.clone(), value: value.clone() }),
                    10..13 => Some(Op::Put { key: lease.clone(), value: value.clone() }),
                    13..15 => Some(put("other", value.clone())),
                    _ => None,
                };
                if let Some(op) = op {
                    let revision = store.write(vec![], vec![op.clone()]).await.unwrap();
                    prop_assert!(revision > newest, "{} after {}", revision, newest);
                    newest = revision;
                    if *op.key() == lease {
                        latest = Some(value.clone());
                    }
                    if matches!(op, Op::Put { key, .. } if key == lease) {
                        durable = Some(value);
                    }
                }
                match step {
                    15 => store.persist_heartbeats().await.unwrap(),
                    16 => store.compact(store.current().await.unwrap()).await.unwrap(),
                    17 => {
                        drop(store);
                        store = open(&disk);
                    }
                    18 | 19 => {
                        disk.arm(0, Fault::PowerCut);
                        drop(store);
                        disk.reboot(seed);
                        store = open(&disk);
                        latest = durable.clone();
                    }
                    _ => {}
                }
                if matches!(step, 15 | 17) {
                    durable = latest.clone();
                }
                let found = store.get(&lease, None).await.unwrap().map(|found| found.value);
                prop_assert_eq!(&found, &latest);
            }
            Ok(())
        })?;
    }
}

#[test]
fn writes_of_a_group_are_whole_and_in_order_after_a_power_cut() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in 0..40 {
        let disk = Arc::new(FaultyDisk::default());
        let store = Arc::new(Embedded::open(disk.clone(), Commits::Grouped).unwrap());
        disk.arm(20 + seed * 3, Fault::PowerCut);
        let writer = |writer: u64| {
            let store = store.clone();
            async move {
                let mut acknowledged = Vec::new();
                for i in 0..200_u64 {
                    match store.write(vec![], vec![put(&format!("{writer}-{i}"), i.to_string())]).await {
                        Ok(revision) => acknowledged.push((format!("pods/a/{writer}-{i}"), revision)),
                        Err(_) => break,
                    }
                }
                acknowledged
            }
        };
        let tasks: Vec<_> = (0..8).map(|n| runtime.spawn(writer(n))).collect();
        let acknowledged: Vec<_> = tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
        drop(store);
        disk.reboot(seed);
        let found = contents(&runtime, &open(&disk));
        for (key, revision) in &acknowledged {
            assert_eq!(found.get(key), Some(revision), "seed {seed}: an answered write is gone");
        }
        let mut revisions: Vec<_> = found.values().copied().collect();
        revisions.sort_unstable();
        assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "seed {seed}: a hole in {revisions:?}");
    }
}

fn contents(runtime: &Runtime, store: &Embedded) -> BTreeMap<String, Revision> {
    let page = runtime.block_on(store.list("", "", usize::MAX, None)).unwrap();
    page.items.into_iter().map(|item| (item.key.to_string(), item.revision)).collect()
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    runtime().block_on(async {
        let disk = Arc::new(FaultyDisk::default());
        let store = open(&disk);
        disk.set_capacity(Some(3 << 20));
        let mut written = 0;
        let error = loop {
            match store.write(vec![], vec![put(&format!("p{written}"), vec![b'x'; 50_000])]).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::NoSpace), "{error:?}");
        assert!(written > 5);
        let again = store.write(vec![], vec![put("more", vec![b'x'; 50_000])]).await;
        assert!(matches!(again, Err(StoreError::NoSpace)), "{again:?}");
        assert_eq!(store.list("", "", usize::MAX, None).await.unwrap().items.len(), written);
        disk.set_capacity(None);
        let revision = store.write(vec![], vec![put("more", "y")]).await.unwrap();
        assert_eq!(revision, written as u64 + 1);
        drop(store);
        assert_eq!(open(&disk).list("", "", usize::MAX, None).await.unwrap().items.len(), written + 1);
    });
}

/// A flipped bit is either where nothing is, or the start is refused; it is never served.
#[test]
fn damage_is_refused_and_named() {
    runtime().block_on(async {
        let disk = Arc::new(FaultyDisk::default());
        let store = open(&disk);
        for i in 0..60 {
            store.write(vec![], vec![put(&format!("p{i}"), format!("value {i} ").repeat(40))]).await.unwrap();
        }
        let before = store.list("", "", usize::MAX, None).await.unwrap();
        drop(store);
        let whole = disk.contents();
        let (mut refused, mut named) = (0, 0);
        // The panics of redb's own debug checks on damaged files are caught, and not of interest here.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let used: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] != 0).collect();
        for at in used.iter().step_by(used.len() / 150) {
            let mut bytes = whole.clone();
            bytes[*at] ^= 4;
            match Embedded::open(Arc::new(FaultyDisk::from_bytes(bytes)), Commits::Inline) {
                Ok(store) => assert_eq!(store.list("", "", usize::MAX, None).await.unwrap(), before, "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Damaged { .. } | StoreError::FileDamaged { .. }), "{error:?}");
                    refused += 1;
                    named += usize::from(matches!(error, StoreError::Damaged { .. }));
                }
            }
        }
        std::panic::set_hook(hook);
        assert!(refused > 30, "{refused} refused");
        assert!(named * 10 > refused * 8, "only {named} of {refused} named a record");
    });
}

/// A file as this version's first format has it: made once, and never again. Another format gets another file beside it.
const OF_FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/store-format-1.gz");

/// What is in that file: history, a deletion, a compaction, and a heartbeat that an orderly end has kept.
async fn fill(store: &Embedded) {
    let lease = Key::new("leases.coordination.k8s.io", &Ref::new("kube-node-lease", "n"));
    for turn in 1..=4 {
        store.write(vec![], vec![put("p", format!("turn {turn}"))]).await.unwrap();
    }
    store.write(vec![], vec![put("gone", "x")]).await.unwrap();
    store.write(vec![], vec![Op::Delete { key: Key::new("pods", &Ref::new("a", "gone")) }]).await.unwrap();
    store.compact(2).await.unwrap();
    store.write(vec![], vec![Op::Put { key: lease.clone(), value: Bytes::from("0") }]).await.unwrap();
    store.write(vec![], vec![Op::Renew { key: lease, value: Bytes::from("1") }]).await.unwrap();
}

#[test]
fn a_store_of_an_older_version_opens() {
    runtime().block_on(async {
        if std::env::var_os("GANTRY_REGENERATE").is_some() && !std::path::Path::new(OF_FORMAT_1).exists() {
            let disk = Arc::new(MemoryDisk::default());
            let store = Embedded::open(disk.clone(), Commits::Inline).unwrap();
            fill(&store).await;
            drop(store);
            let file = std::fs::File::create(OF_FORMAT_1).unwrap();
            let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::best());
            std::io::Write::write_all(&mut out, &disk.contents()).unwrap();
            out.finish().unwrap();
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(OF_FORMAT_1).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut bytes).unwrap();
        let old = Embedded::open(Arc::new(FaultyDisk::from_bytes(bytes)), Commits::Inline).unwrap();
        let new = Embedded::in_memory().unwrap();
        fill(&new).await;
        let current = new.current().await.unwrap();
        assert_eq!(old.current().await.unwrap(), current);
        for at in 0..=current {
            let (found, wanted) = (old.list("", "", 99, Some(at)).await, new.list("", "", 99, Some(at)).await);
            // Of a heartbeat, the one that an orderly end keeps is all of its history.
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"), "as of {at}");
        }
        let mut watches = (old.watch("pods/", 2).await.unwrap(), new.watch("pods/", 2).await.unwrap());
        assert_eq!(watches.0.next().await.unwrap(), watches.1.next().await.unwrap());
        assert_eq!(old.write(vec![], vec![put("next", "x")]).await.unwrap(), current + 1);
    });
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = Embedded::open_file(&path).unwrap();
    assert!(matches!(Embedded::open_file(&path), Err(StoreError::InUse { .. })));
    drop(first);
    Embedded::open_file(&path).unwrap();
}

const CHILD: &str = "GANTRY_STORE_TEST_FILE";

/// Not a test by itself: the process that [`answered_writes_survive_kill_9`] kills.
#[test]
fn child_that_writes_until_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    runtime().block_on(async {
        let store = Arc::new(Embedded::open_file(path).unwrap());
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            async move {
                for i in 0.. {
                    let op = put(&format!("{writer}-{i}"), vec![b'x'; 700]);
                    let key = op.key().clone();
                    let compare = Compare { key: key.clone(), expect: Expect::Absent };
                    let revision = store.write(vec![compare], vec![op]).await.unwrap();
                    println!("wrote {key} {revision}");
                }
            }
        });
        futures::future::join_all(writers).await;
    });
}

#[test]
fn answered_writes_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = folder.path().join(format!("store-{round}"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_writes_until_killed", "--exact", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said: Vec<String> =
            lines.by_ref().filter(|line| line.contains("wrote ")).take(300 + round * 77).collect();
        child.kill().unwrap();
        said.extend(lines.filter(|line| line.contains("wrote ")));
        child.wait().unwrap();
        let found = contents(&runtime(), &Embedded::open_file(&path).unwrap());
        for line in said {
            let words: Vec<&str> = line.split("wrote ").nth(1).unwrap().split_whitespace().collect();
            // The last line may be cut.
            if let [key, revision] = words[..]
                && let Some(found) = found.get(key)
            {
                assert!(found.to_string().starts_with(revision), "{line}");
            } else {
                assert!(words.len() < 2 || !line.ends_with(char::is_numeric), "{line} is gone");
            }
        }
    }
}
