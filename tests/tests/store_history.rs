//! Histories of the store under faults, judged: clients at once, a disk that loses power or fails in the middle, a clock that nobody
//! asks. What was answered is never lost, and what was heard is what there was to hear.

use std::sync::Arc;

use futures::future::{join, join_all};
use gantry_control::store::embedded::Commits;
use gantry_control::store::{Embedded, Store};
use gantry_tests::faulty_disk::{Fault, FaultyDisk};
use gantry_tests::history::{Heard, Recorder, Script, judge, log_of, watch};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

const KIND: &str = "configmaps";
const CLIENTS: usize = 6;
const KEYS: usize = 4;
const STEPS: usize = 40;

/// What becomes of the disk in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    operations: u64,
    fault: Option<Fault>,
    seed: u64,
}

fn round() -> impl Strategy<Value = Round> {
    let fault = prop_oneof![Just(None), Just(Some(Fault::Once)), Just(Some(Fault::PowerCut))];
    (1..150_u64, fault, any::<u64>()).prop_map(|(operations, fault, seed)| Round { operations, fault, seed })
}

struct Rig {
    disk: Arc<FaultyDisk>,
    store: Arc<Embedded>,
    recorder: Recorder,
    scripts: Vec<Script>,
    watchers: Vec<Heard>,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let disk = Arc::new(FaultyDisk::default());
        let scripts = (0..CLIENTS as u64).map(|client| Script::new(seed ^ client, KIND, KEYS)).collect();
        let store = open(&disk);
        Rig { disk, store, recorder: Recorder::default(), scripts, watchers: Vec::new() }
    }

    /// All clients at once until each has done its steps or was left without an answer, and a watcher beside them.
    async fn play(&mut self, round: Round) {
        let begin = self.store.current().await.unwrap();
        if let Some(fault) = round.fault {
            self.disk.arm(round.operations, fault);
        }
        let (recorder, store) = (&self.recorder, &self.store);
        let clients = join_all(self.scripts.iter_mut().map(|script| async move {
            for _ in 0..STEPS {
                if !recorder.step(script, &**store).await {
                    break;
                }
            }
        }));
        clients.await;
        self.disk.disarm();
        if self.disk.is_dead() {
            self.store = Arc::new(Embedded::in_memory().unwrap());
            self.disk.reboot(round.seed);
            self.store = open(&self.disk);
        }
        let until = self.store.current().await.unwrap();
        let heard = watch(&*self.store, KIND, begin.min(until), until).await.unwrap();
        self.watchers.push(heard);
    }
}

fn open(disk: &Arc<FaultyDisk>) -> Arc<Embedded> {
    Arc::new(Embedded::open(disk.clone(), Commits::Grouped).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_never_lies(rounds in prop::collection::vec(round(), 1..6), seed: u64) {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut rig = Rig::new(seed);
            for round in rounds {
                rig.play(round).await;
            }
            let log = log_of(&*rig.store, KIND).await.unwrap();
            prop_assert_eq!(judge(&log, &rig.recorder.calls(), &rig.watchers), []);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_beside_many_writers_hears_all_in_order() {
    let mut rig = Rig::new(7);
    let (recorder, store) = (&rig.recorder, &rig.store);
    let mut follow = store.watch(&format!("{KIND}/"), 0).await.unwrap();
    let (tell, mut told) = oneshot::channel();
    let clients = async {
        join_all(rig.scripts.iter_mut().map(|script| async move {
            for _ in 0..200 {
                assert!(recorder.step(script, &**store).await);
            }
        }))
        .await;
        tell.send(store.current().await.unwrap()).unwrap();
    };
    let listener = async {
        let (mut heard, mut last) = (Heard::default(), None);
        while last.is_none_or(|last| heard.until < last) {
            tokio::select! {
                biased;
                // Both keep what they have when they are dropped in waiting.
                until = &mut told, if last.is_none() => last = until.ok(),
                batch = follow.next() => heard.hear(batch.unwrap()),
            }
        }
        heard
    };
    let (_, heard) = join(clients, listener).await;
    let log = log_of(&**store, KIND).await.unwrap();
    assert_eq!(judge(&log, &recorder.calls(), &[heard]), []);
}
