//! Every fuzz target over its seeds, and over mutations of them that are the same in every run.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_env::Env;
use gantry_tests::fuzz::mutate::{Dice, mutated};
use gantry_tests::fuzz::{OF_RUNTIME, TARGETS, Target};
use jiff::SignedDuration;

/// Another number makes another run; this one stands, so that a failure comes again.
const SEED: u64 = 0x6761_6e74_7279_0001;
/// Long seeds are there to be long; what is made of them need not be.
const MUTATED_MAX_BYTES: usize = 4096;
/// As the threads have that do this work in production (tokio's default).
const STACK_BYTES: usize = 2 << 20;
const SHOWN_MAX_BYTES: usize = 4096;
/// How long each target of the runtime's is fuzzed.
const SECONDS: &str = "GANTRY_FUZZ_SECONDS";
/// Names the only target to run.
const ONLY: &str = "GANTRY_FUZZ_TARGET";

/// The target's panic has said what is wrong; this says with which input.
fn stands(target: &Target, input: &[u8], what: &str) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| {
        let hex: String = input.iter().take(SHOWN_MAX_BYTES).map(|byte| format!("{byte:02x}")).collect();
        format!("{}, {what} of run {SEED:#x}, {} bytes: {hex}", target.name, input.len())
    })
}

/// Ends with the first input that the target does not stand.
fn exercise(target: &Target) -> Result<(), String> {
    let mut seeds = (target.seeds)();
    seeds.extend(target.kept());
    for (at, seed) in seeds.iter().enumerate() {
        stands(target, seed, &format!("seed {at}"))?;
    }
    let short: Vec<Vec<u8>> = seeds.into_iter().filter(|seed| seed.len() <= MUTATED_MAX_BYTES).collect();
    // Each target has dice of its own: a new target leaves the runs of the others as they were.
    let own = target.name.bytes().fold(SEED, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    let mut dice = Dice::new(own);
    let mut try_one = |round| stands(target, &mutated(&mut dice, &short, MUTATED_MAX_BYTES), &format!("round {round}"));
    (0..target.rounds).try_for_each(&mut try_one)?;
    let clock = Env::system().clock;
    let until = seconds(target).map(|seconds| clock.now() + SignedDuration::from_secs(seconds));
    let in_time = |_: &u32| until.is_some_and(|until| clock.now() < until);
    (target.rounds..).take_while(in_time).try_for_each(try_one)
}

/// How long a target is fuzzed beyond its rounds.
fn seconds(target: &Target) -> Option<i64> {
    let text = std::env::var(SECONDS).ok().filter(|_| OF_RUNTIME.contains(&target.name))?;
    Some(text.parse().expect("a number of seconds"))
}

#[test]
fn every_target_stands_its_seeds_and_their_mutations() {
    let only = std::env::var(ONLY).ok();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            if only.as_ref().is_none_or(|name| name == target.name)
                && let Err(failure) = exercise(target)
            {
                failures.lock().expect("a list of failures").push(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..threads {
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let failures = failures.into_inner().expect("a list of failures");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_target_has_a_name_of_its_own_and_a_seed() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert!(TARGETS.iter().all(|target| !(target.seeds)().is_empty()));
    assert!(OF_RUNTIME.iter().all(|name| names.contains(name)));
    assert!(
        TARGETS.iter().all(|target| !target.kept().is_empty()),
        "a target has no kept corpus: tests/fuzz.sh TARGET keep"
    );
}
