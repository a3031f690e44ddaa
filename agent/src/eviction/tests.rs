use std::time::Duration;

use gantry_kube::Object;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::images::report::Fate;
use super::images::{Known, wanted};
use super::plan::{Memory, Observation, Observed, judge};
use super::rank::{Candidate, message, rank};
use super::thresholds::{Amount, ImageLimits, duration, thresholds};
use super::*;
use crate::pod::seen::Container;
use crate::stats::host::Room;

const MI: u64 = 1 << 20;

fn settings(hard: &str, soft: &str, graces: &str, reclaims: &str) -> Settings {
    let thresholds = thresholds(hard, soft, graces, reclaims).unwrap();
    Settings { thresholds, transition: Duration::from_secs(300), ..Settings::default() }
}

fn memory_of(available: u64) -> Observed {
    Observed::from([(Signal::MemoryAvailable, Observation { available, capacity: 1000 * MI })])
}

#[test]
fn thresholds_are_read_as_the_kubelet_reads_them() {
    let read = thresholds(
        "memory.available<100Mi,nodefs.available<10%",
        "memory.available<1Gi",
        "memory.available=1m30s",
        "memory.available=50Mi",
    )
    .unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(
        (read[0].signal, read[0].amount, read[0].grace),
        (Signal::MemoryAvailable, Amount::Absolute(100 * MI), None)
    );
    assert_eq!(read[0].reclaim, Amount::Absolute(50 * MI));
    assert_eq!(read[1].amount.of(1000), 100);
    assert_eq!(read[2].grace, Some(Duration::from_secs(90)));
    assert_eq!(Settings::default().thresholds.len(), 6, "the defaults are no thresholds");
    for (hard, soft, graces) in [
        ("memory.available", "", ""),
        ("memory.shiny<1", "", ""),
        ("memory.available<100%", "", ""),
        ("memory.available<-1", "", ""),
        ("memory.available<1,memory.available<2", "", ""),
        ("", "memory.available<1", ""),
        ("", "", "memory.available=1s"),
        ("", "memory.available<1", "memory.available=1x"),
    ] {
        assert!(thresholds(hard, soft, graces, "").is_err(), "{hard} {soft} {graces}");
    }
    assert_eq!(duration("1h2m3s"), Ok(Duration::from_secs(3723)));
    assert_eq!(duration("0"), Ok(Duration::ZERO));
    for bad in ["", "5", "m", "5m3", "-1s", "1.5s", "99999999999999999999h"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_soft_threshold_is_borne_for_its_grace_period_and_a_hard_one_is_not() {
    let settings = settings("memory.available<100Mi", "memory.available<200Mi", "memory.available=1m", "");
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let pressed = Pressures::from([Pressure::Memory]);
    let first = judge(&settings, &memory_of(150 * MI), &Memory::default(), start);
    assert_eq!((&first.pressures, first.act), (&pressed, None));
    let later = judge(&settings, &memory_of(150 * MI), &first.memory, at(59));
    assert_eq!(later.act, None);
    let due = judge(&settings, &memory_of(150 * MI), &later.memory, at(60));
    assert_eq!(due.act.and_then(|t| t.grace), Some(Duration::from_secs(60)));
    let hard = judge(&settings, &memory_of(50 * MI), &first.memory, at(1));
    assert_eq!(hard.act.map(|t| t.grace), Some(None), "the hard one first");
    // A moment of plenty begins the grace period anew, and the pressure is shown for the transition period.
    let plenty = judge(&settings, &memory_of(500 * MI), &later.memory, at(59));
    assert_eq!((&plenty.pressures, plenty.act), (&pressed, None));
    let again = judge(&settings, &memory_of(150 * MI), &plenty.memory, at(61));
    assert_eq!(again.act, None);
    let shown = judge(&settings, &memory_of(500 * MI), &plenty.memory, at(59 + 299));
    assert_eq!(shown.pressures, pressed);
    let long = judge(&settings, &memory_of(500 * MI), &shown.memory, at(59 + 300));
    assert_eq!(long.pressures, Pressures::new());
}

#[test]
fn what_is_to_be_reclaimed_is_reclaimed_before_it_is_enough() {
    let settings = settings("memory.available<100Mi", "", "", "memory.available=50Mi");
    let now = Instant::now();
    let verdict = |available: u64, before: &Memory| judge(&settings, &memory_of(available * MI), before, now);
    assert_eq!(verdict(120, &Memory::default()).act, None);
    let short = verdict(99, &Memory::default());
    assert!(short.act.is_some() && verdict(120, &short.memory).act.is_some());
    assert_eq!(verdict(150, &short.memory).act, None);
}

proptest! {
    #[test]
    fn a_pressure_is_shown_while_it_is_there_and_no_longer_than_it_may(looks in prop::collection::vec((0..400_u64, 0..300_u64), 1..20)) {
        let settings = settings("memory.available<100Mi", "memory.available<200Mi", "memory.available=1m", "");
        let (mut now, mut memory, mut last) = (Instant::now(), Memory::default(), None::<Instant>);
        for (available, pause) in looks {
            now += Duration::from_secs(pause);
            let verdict = judge(&settings, &memory_of(available * MI), &memory, now);
            if available < 200 {
                last = Some(now);
            }
            let shown = last.is_some_and(|at| now.duration_since(at) < settings.transition);
            prop_assert_eq!(verdict.pressures.contains(&Pressure::Memory), shown);
            prop_assert!(available >= 100 || verdict.act.is_some(), "a hard threshold is met and nothing is done");
            prop_assert!(available < 200 || verdict.act.is_none(), "there is enough and something is done");
            // The same look again changes nothing.
            let again = judge(&settings, &memory_of(available * MI), &verdict.memory, now);
            prop_assert_eq!((again.pressures, again.act, &again.memory), (verdict.pressures, verdict.act, &verdict.memory));
            memory = verdict.memory;
        }
    }

    #[test]
    fn who_keeps_to_what_it_asked_for_goes_last(pods in prop::collection::vec((0..4_i64, 0..50_u64, 0..100_u64), 0..12), which in 0..6_usize) {
        let signal = Signal::ALL[which];
        let one = |(i, (priority, asked, used)): (usize, &(i64, u64, u64))| Candidate {
            uid: i.to_string(), priority: *priority,
            memory_request: *asked, memory_bytes: *used, disk_request: *asked, disk_bytes: *used,
            inodes: *used, processes: *used, ..Candidate::default()
        };
        let before: Vec<Candidate> = pods.iter().enumerate().map(one).collect();
        let mut ranked = before.clone();
        rank(signal, &mut ranked);
        prop_assert_eq!(ranked.len(), before.len());
        prop_assert!(before.iter().all(|candidate| ranked.contains(candidate)));
        for pair in ranked.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            prop_assert!(first.exceeds(signal) || !second.exceeds(signal));
            if first.exceeds(signal) == second.exceeds(signal) {
                prop_assert!(first.priority <= second.priority);
                let beyond = |c: &Candidate| { let (used, asked) = c.takes(signal); used as i64 - asked as i64 };
                prop_assert!(first.priority < second.priority || beyond(first) >= beyond(second));
            }
        }
        let mut again = ranked.clone();
        rank(signal, &mut again);
        prop_assert_eq!(again, ranked);
    }

    #[test]
    fn images_go_by_their_last_use_and_no_more_than_needed(ages in prop::collection::vec((0..600_u64, 0..2_u8, any::<bool>(), any::<bool>(), 1..100_u64), 0..10), goal in 0..500_u64) {
        let (now, age_min) = (Instant::now() + Duration::from_secs(1000), Duration::from_secs(120));
        let before = |seconds: u64| now - Duration::from_secs(seconds);
        let one = |(i, (age, ever, used, pinned, bytes)): (usize, &(u64, u8, bool, bool, u64))| Known {
            id: i.to_string(), names: Vec::new(), bytes: *bytes, pinned: *pinned,
            used_by: if *used { ["a container".to_owned()].into() } else { Default::default() },
            first_seen: before(*age), last_used: (*ever == 1).then(|| before(*age / 2)),
        };
        let all: Vec<Known> = ages.iter().enumerate().map(one).collect();
        let chosen = images::plan(&all, goal, age_min, now);
        let of = |id: &String| all.iter().find(|image| image.id == *id).unwrap();
        let bytes: u64 = chosen.iter().map(|id| of(id).bytes).sum();
        let last = chosen.last().map_or(0, |id| of(id).bytes);
        prop_assert!(bytes - last < goal || chosen.is_empty(), "one more than needed");
        let may_go = |image: &&Known| image.used_by.is_empty() && !image.pinned && image.first_seen <= before(120);
        prop_assert!(chosen.iter().all(|id| may_go(&of(id))));
        prop_assert!(bytes >= goal || chosen.len() == all.iter().filter(may_go).count(), "there was more to be had");
        let use_of = |id: &String| of(id).last_used.unwrap_or(of(id).first_seen);
        prop_assert!(chosen.windows(2).all(|pair| use_of(&pair[0]) <= use_of(&pair[1])));
        // Each image is told of once, with a reason that is true of it.
        let judged = images::judge(&all, goal, age_min, now);
        let mut told: Vec<&str> = judged.iter().map(|(image, _)| image.id.as_str()).collect();
        told.sort_unstable();
        let mut every: Vec<&str> = all.iter().map(|image| image.id.as_str()).collect();
        every.sort_unstable();
        prop_assert_eq!(told, every);
        for (image, fate) in judged {
            let holds = match fate {
                Fate::Goes => chosen.contains(&image.id),
                Fate::Used { by } => !by.is_empty() && by.len() == image.used_by.len(),
                Fate::Pinned => image.pinned && image.used_by.is_empty(),
                Fate::Young { seconds } => seconds <= 120 && image.first_seen > before(120),
                Fate::Enough => may_go(&image) && bytes >= goal,
            };
            prop_assert!(holds, "{image:?} is told another reason");
        }
    }
}

#[test]
fn images_are_collected_between_two_marks() {
    let room = |available_bytes| Room { capacity_bytes: 1000, available_bytes, ..Room::default() };
    let limits = ImageLimits::default();
    assert_eq!(wanted(&room(151), &limits), None);
    assert_eq!(wanted(&room(150), &limits), Some(50));
    assert_eq!(wanted(&room(0), &limits), Some(200));
    assert_eq!(wanted(&room(0), &ImageLimits { high_percent: 100, ..limits }), None, "a full disk costs no image then");
}

#[test]
fn an_evicted_pod_is_told_in_the_kubelets_words() {
    let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [
        {"name": "a", "resources": {"requests": {"memory": "16Mi", "ephemeral-storage": "1Gi"}}},
        {"name": "b"},
        {"name": "c", "resources": {"requests": {"memory": "1Gi"}}},
    ]}});
    let mut pod = Candidate::of(&Object::from_value(pod).unwrap());
    assert_eq!((pod.memory_request, pod.priority), ((16 << 20) + (1 << 30), 0));
    for (part, memory) in pod.containers.iter_mut().zip([200 * MI, 1024, 5]) {
        (part.memory_bytes, part.disk_bytes) = (memory, 4096);
    }
    let all = settings("memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%", "", "", "").thresholds;
    let seen = Some(Observation { available: 50 * MI, capacity: 1000 * MI });
    assert_eq!(
        message(&all[0], seen, &pod),
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
         Container a was using 200Mi, request is 16Mi, has larger consumption of memory. \
         Container b was using 1Ki, request is 0, has larger consumption of memory. "
    );
    assert_eq!(
        message(&all[1], seen, &pod),
        "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 50Mi. \
         Container b was using 4Ki, request is 0, has larger consumption of ephemeral-storage. \
         Container c was using 4Ki, request is 0, has larger consumption of ephemeral-storage. "
    );
    let seen = Some(Observation { available: 7, capacity: 1000 });
    assert_eq!(
        message(&all[2], seen, &pod),
        "The node was low on resource: inodes. Threshold quantity: 50, available: 7. "
    );
}

#[test]
fn the_last_run_of_a_pod_that_goes_on_is_kept() {
    let run = |name: &str, attempt, state| Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        state,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_ref: String::new(),
        hash: String::new(),
        log_path: String::new(),
        termination_log: String::new(),
        termination_from_log: false,
        limits: None,
        user: None,
        mounted_images: BTreeMap::new(),
    };
    let containers = vec![
        run("a", 0, State::Exited),
        run("a", 1, State::Running),
        run("b", 0, State::Exited),
        run("b", 1, State::Exited),
    ];
    let seen = Seen { containers, ..Seen::default() };
    let ids = |over| spent(&seen, over).into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
    assert_eq!(ids(false), ["a0", "b0"]);
    assert_eq!(ids(true), ["a0", "b1", "b0"]);
}
