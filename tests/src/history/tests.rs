use proptest::prelude::*;

use super::*;

fn put(key: &str, value: u64, expect: Option<Expect>) -> Action {
    Action::Put { key: key.to_owned(), value, expect }
}

fn call(from: Moment, to: Moment, action: Action, answer: Answer) -> Call {
    Call { from, to, action, answer }
}

fn event(revision: Revision, key: &str, value: Option<u64>) -> Event {
    Event { revision, key: key.to_owned(), value }
}

fn get(key: &str) -> Action {
    Action::Get { key: key.to_owned() }
}

/// Two writes of one key, the second while a third, which conflicts, is on its way.
fn log() -> Vec<Event> {
    vec![event(1, "k/a", Some(10)), event(2, "k/b", Some(20)), event(3, "k/a", Some(11))]
}

fn writes() -> Vec<Call> {
    vec![
        call(0, 3, put("k/a", 10, Some(Expect::Absent)), Answer::Written(1)),
        call(1, 4, put("k/b", 20, None), Answer::Written(2)),
        call(5, 9, put("k/a", 11, Some(Expect::Revision(1))), Answer::Written(3)),
    ]
}

fn with(more: Call) -> Vec<Fault> {
    let mut calls = writes();
    calls.push(more);
    judge(&log(), &calls, &[])
}

#[test]
fn what_a_store_may_answer() {
    for good in [
        // A read beside a write may be before or behind it.
        call(6, 8, get("k/a"), Answer::Found(Some((10, 1)))),
        call(6, 8, get("k/a"), Answer::Found(Some((11, 3)))),
        call(2, 2, get("k/a"), Answer::Found(None)),
        call(10, 11, get("k/c"), Answer::Found(None)),
        call(6, 8, put("k/a", 12, Some(Expect::Revision(1))), Answer::Refused),
        call(6, Moment::MAX, put("k/a", 12, None), Answer::Unknown),
        call(10, 11, Action::Delete { key: "k/c".into(), expect: None }, Answer::Refused),
        call(
            4,
            4,
            Action::List,
            Answer::Listed { items: BTreeMap::from([("k/a".into(), (10, 1)), ("k/b".into(), (20, 2))]), revision: 2 },
        ),
    ] {
        assert_eq!(with(good.clone()), [], "{good:?}");
    }
}

#[test]
fn what_no_store_may_answer() {
    for bad in [
        // Older than what was answered before it was asked for; newer than anything that was asked for.
        call(10, 11, get("k/a"), Answer::Found(Some((10, 1)))),
        call(0, 4, get("k/a"), Answer::Found(Some((11, 3)))),
        call(6, 8, get("k/a"), Answer::Found(Some((12, 3)))),
        call(10, 11, get("k/b"), Answer::Found(None)),
        // What was answered and is not there, what is there though it was refused, what was refused without a reason.
        call(6, 8, put("k/c", 30, None), Answer::Written(4)),
        call(6, 8, put("k/a", 11, None), Answer::Refused),
        call(10, 11, put("k/a", 12, Some(Expect::Revision(3))), Answer::Refused),
        call(10, 11, put("k/c", 12, Some(Expect::Absent)), Answer::Refused),
        // A list that has one of two.
        call(10, 11, Action::List, Answer::Listed { items: BTreeMap::from([("k/a".into(), (11, 3))]), revision: 3 }),
        call(
            10,
            11,
            Action::List,
            Answer::Listed { items: BTreeMap::from([("k/a".into(), (10, 1)), ("k/b".into(), (20, 2))]), revision: 2 },
        ),
    ] {
        assert_ne!(with(bad.clone()), [], "{bad:?}");
    }
    // A write that stands before one that had been answered when it began.
    let late =
        vec![call(0, 1, put("k/a", 1, None), Answer::Written(2)), call(2, 3, put("k/b", 2, None), Answer::Written(1))];
    assert_ne!(judge(&[event(1, "k/b", Some(2)), event(2, "k/a", Some(1))], &late, &[]), []);
    // A condition that did not hold.
    let blind = vec![
        call(0, 1, put("k/a", 1, None), Answer::Written(1)),
        call(0, 3, put("k/a", 2, Some(Expect::Absent)), Answer::Written(2)),
    ];
    assert_ne!(judge(&[event(1, "k/a", Some(1)), event(2, "k/a", Some(2))], &blind, &[]), []);
    // What nobody wrote, or what is there twice.
    assert_ne!(judge(&[event(1, "k/a", Some(7))], &[], &[]), []);
    let twice = vec![call(0, Moment::MAX, put("k/a", 1, None), Answer::Unknown)];
    assert_ne!(judge(&[event(1, "k/a", Some(1)), event(2, "k/a", Some(1))], &twice, &[]), []);
}

#[test]
fn watchers_hear_everything_once_and_in_order() {
    let heard = |from, events: &[Event], until| Heard { from, events: events.to_vec(), until };
    let judged = |heard: Heard| judge(&log(), &writes(), &[heard]);
    let all = log();
    assert_eq!(judged(heard(0, &all, 3)), []);
    assert_eq!(judged(heard(1, &all[1..], 3)), []);
    assert_eq!(judged(heard(0, &all[..1], 1)), []);
    for bad in [
        heard(0, &all[1..], 3),
        heard(0, &[all[0].clone(), all[2].clone()], 3),
        heard(0, &[all[1].clone(), all[0].clone()], 2),
        heard(0, &[all[0].clone(), all[0].clone()], 1),
        heard(0, &all[..2], 3),
        heard(1, &all, 3),
    ] {
        assert_ne!(judged(bad.clone()), [], "{bad:?}");
    }
}

/// One call of a simulated client: how long it waits, and what it does.
#[derive(Clone, Debug)]
struct Step {
    before: u8,
    after: u8,
    key: u8,
    what: u8,
    known: bool,
    answered: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..4_u8, 0..4_u8, 0..3_u8, 0..6_u8, any::<bool>(), prop::bool::weighted(0.9))
        .prop_map(|(before, after, key, what, known, answered)| Step { before, after, key, what, known, answered })
}

/// A store that never lies: each step takes place at one moment between its beginning and its end, which overlap with others'.
fn honest(steps: &[Step]) -> (Vec<Event>, Vec<Call>) {
    let (mut log, mut calls): (Vec<Event>, Vec<Call>) = (Vec::new(), Vec::new());
    let mut state: BTreeMap<String, Version> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let (middle, value) = (10 * at as u64 + 40, at as u64);
        let (from, to) = (middle - 10 * u64::from(step.before) - 1, middle + 10 * u64::from(step.after) + 1);
        let key = format!("k/{}", step.key);
        let found = state.get(&key).copied();
        let revision = log.len() as u64 + 1;
        let right = found.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        let expect = Some(if step.known { right } else { Expect::Revision(revision + 7) });
        let (action, answer) = match step.what {
            0..3 if step.known => {
                state.insert(key.clone(), (value, revision));
                log.push(event(revision, &key, Some(value)));
                (put(&key, value, expect), Answer::Written(revision))
            }
            0..3 => (put(&key, value, expect), Answer::Refused),
            3 if found.is_some() && step.answered => {
                state.remove(&key);
                log.push(event(revision, &key, None));
                (Action::Delete { key: key.clone(), expect: None }, Answer::Written(revision))
            }
            3 => (Action::Get { key: key.clone() }, Answer::Found(found)),
            4 => (get(&key), Answer::Found(found)),
            _ => (Action::List, Answer::Listed { items: state.clone(), revision: revision - 1 }),
        };
        let (to, answer) = if step.answered { (to, answer) } else { (Moment::MAX, Answer::Unknown) };
        calls.push(call(from, to, action, answer));
    }
    (log, calls)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_honest_store_is_believed(steps in prop::collection::vec(step(), 0..60)) {
        let (log, calls) = honest(&steps);
        let until = log.len() as u64;
        let watchers = [Heard { from: until / 2, events: log[log.len() / 2..].to_vec(), until }];
        prop_assert_eq!(judge(&log, &calls, &watchers), []);
    }

    #[test]
    fn a_change_that_was_answered_and_is_lost_is_missed(steps in prop::collection::vec(step(), 1..60), at: prop::sample::Index) {
        let (mut log, calls) = honest(&steps);
        let answered: Vec<usize> = (0..log.len())
            .filter(|i| calls.iter().any(|call| call.answer == Answer::Written(log[*i].revision)))
            .collect();
        prop_assume!(!answered.is_empty());
        log.remove(*at.get(&answered));
        prop_assert_ne!(judge(&log, &calls, &[]), []);
    }

    #[test]
    fn a_read_of_the_past_is_noticed(steps in prop::collection::vec(step(), 1..60)) {
        let (log, mut calls) = honest(&steps);
        // A read after everything that gives what was overwritten.
        let stale = log.iter().find(|event| {
            event.value.is_some() && log.iter().any(|later| later.key == event.key && later.revision > event.revision
                && calls.iter().any(|call| call.answer == Answer::Written(later.revision)))
        });
        prop_assume!(stale.is_some());
        let stale = stale.unwrap();
        let end = 10 * steps.len() as u64 + 1000;
        let version = stale.value.map(|value| (value, stale.revision));
        calls.push(call(end, end + 1, get(&stale.key), Answer::Found(version)));
        prop_assert_ne!(judge(&log, &calls, &[]), []);
    }
}
