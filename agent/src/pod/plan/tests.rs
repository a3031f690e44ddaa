use std::collections::BTreeMap;

use gantry_kube::pod::restart::RestartPolicy;
use jiff::Timestamp;
use proptest::prelude::*;

use super::super::memory::{Failure, Memory, Volumes, after, image_key};
use super::super::past::Past;
use super::super::resize::Limits;
use super::super::seen::{Container, Sandbox, Seen, State};
use super::super::want::{Goal, PullPolicy, Wanted, WantedContainer, WantedImage};
use super::{Action, KillReason, Plan, plan, seconds_text};
use crate::probe::state::Unhealthy;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn image(reference: &str) -> WantedImage {
    WantedImage { reference: reference.to_owned(), pull: PullPolicy::IfNotPresent }
}

/// What fetches an image for the container `a`.
fn pull(reference: &str) -> Action {
    Action::Pull { name: "a".into(), image: image(reference) }
}

fn wanted(restart: RestartPolicy, init: &[&str], main: &[&str]) -> Wanted {
    let container = |name: &&str| WantedContainer {
        name: (*name).to_owned(),
        image: image("i"),
        volume_images: Vec::new(),
        sidecar: name.starts_with("side"),
        restart: restart.into(),
        hash: "h".to_owned(),
        startup_probe: false,
        post_start: name.starts_with("hook"),
        limits: Limits::default(),
        restarts_for: (false, name.starts_with("whole")),
    };
    Wanted {
        uid: "u".into(),
        namespace: "n".into(),
        name: "p".into(),
        goal: Goal::Run,
        grace_seconds: 30,
        init: init.iter().map(container).collect(),
        containers: main.iter().map(container).collect(),
        ephemeral: Vec::new(),
    }
}

/// A runtime that does at once what it is told, so that a plan can be followed to its end.
#[derive(Clone)]
struct Model {
    want: Wanted,
    seen: Seen,
    memory: Memory,
    now: Timestamp,
    next_id: u32,
}

impl Model {
    fn new(want: Wanted) -> Model {
        Model { want, seen: Seen::default(), memory: Memory::default(), now: at(1000), next_id: 0 }
    }

    fn plan(&self) -> Plan {
        plan(&self.want, &self.seen, &self.memory, self.now)
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("id{}", self.next_id)
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::PrepareVolumes => self.memory.volumes = Volumes::Ready,
            Action::ReleaseVolumes => self.memory.volumes = Volumes::Gone,
            Action::RunSandbox { attempt } => {
                let id = self.id();
                let sandbox = Sandbox { id, attempt: *attempt, ready: true, created_at: self.now, ips: Vec::new() };
                self.seen.sandboxes.push(sandbox);
            }
            Action::StopSandbox { id } => {
                let now = self.now;
                let inside = self.seen.containers.iter_mut().filter(|c| c.sandbox_id == *id && c.is_alive());
                inside.for_each(|c| end(c, 137, now));
                self.seen.sandboxes.iter_mut().filter(|s| s.id == *id).for_each(|s| s.ready = false);
            }
            Action::RemoveSandbox { id } => {
                self.seen.sandboxes.retain(|s| s.id != *id);
                self.seen.containers.retain(|c| c.sandbox_id != *id);
            }
            Action::RemoveContainer { id } => self.seen.containers.retain(|c| c.id != *id),
            Action::Pull { name, image } => {
                self.memory.note_pulled(image_key(name, image), format!("{}@sha256:1", image.reference));
            }
            Action::Run { name, attempt, sandbox_id, ended_at, .. } => {
                if let Some(ended) = ended_at {
                    self.memory.note_rerun(name, *ended, self.now);
                }
                self.memory.note_created(name);
                let id = self.id();
                let made = container(&id, sandbox_id, name, *attempt, State::Running, self.now);
                self.seen.containers.push(made);
            }
            Action::Start { id, .. } => self.with(id, |c| c.state = State::Running),
            Action::Resize { containers, .. } => {
                for (id, name) in containers {
                    let limits = self.want.container(name).map(|wanted| wanted.limits);
                    self.with(id, |c| c.limits = limits);
                }
            }
            Action::Kill { id, grace_seconds, reason, .. } => {
                let now = self.now;
                if *reason == KillReason::PodEnds {
                    self.memory.note_stopping(after(now, *grace_seconds));
                }
                self.with(id, |c| end(c, 143, now));
            }
        }
        let seen = self.seen.clone();
        self.memory.retain(|id| seen.container(id).is_some());
    }

    fn with(&mut self, id: &str, change: impl FnOnce(&mut Container)) {
        if let Some(found) = self.seen.containers.iter_mut().find(|c| c.id == id) {
            change(found);
        }
    }

    fn check(&self, actions: &[Action]) {
        assert!(self.seen.sandboxes.iter().filter(|s| s.ready).count() <= 1, "two ready sandboxes");
        for action in actions {
            if let Action::Run { sandbox_id, name, .. } = action {
                assert!(self.seen.sandboxes.iter().any(|s| s.id == *sandbox_id && s.ready), "no sandbox for {name}");
                assert!(!self.seen.runs(name).iter().any(|c| c.is_alive()), "{name} would run twice");
            }
        }
    }

    /// Plans and applies until nothing is left to do; the last plan.
    fn settle(&mut self) -> Plan {
        for _ in 0..40 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                return plan;
            }
            for action in &plan.actions {
                self.check(std::slice::from_ref(action));
                self.apply(action);
            }
        }
        panic!("no fixpoint: {:?}", self.plan());
    }

    fn exit(&mut self, name: &str, code: i32) {
        let (now, id) = (self.now, self.seen.latest(name).unwrap().id.clone());
        self.with(&id, |c| end(c, code, now));
    }

    fn state(&self, name: &str) -> Option<(State, u32)> {
        self.seen.latest(name).map(|c| (c.state, c.attempt))
    }
}

fn end(container: &mut Container, code: i32, now: Timestamp) {
    container.state = State::Exited;
    container.exit_code = code;
    container.finished_at = Some(now);
}

fn container(id: &str, sandbox: &str, name: &str, attempt: u32, state: State, now: Timestamp) -> Container {
    let mut made = Container {
        id: id.to_owned(),
        sandbox_id: sandbox.to_owned(),
        name: name.to_owned(),
        attempt,
        state,
        created_at: now,
        started_at: Some(now),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: String::new(),
        hash: "h".into(),
        log_path: String::new(),
        termination_log: String::new(),
        termination_from_log: false,
        limits: None,
        user: None,
        mounted_images: BTreeMap::new(),
    };
    if state == State::Exited {
        made.finished_at = Some(now);
    }
    made
}

#[test]
fn a_pod_comes_up_and_stays() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a", "b"]));
    let first = model.plan();
    assert_eq!(first.actions[0], Action::PrepareVolumes);
    assert_eq!(first.waiting["a"].reason, "ContainerCreating");
    model.settle();
    assert_eq!((model.state("a"), model.state("b")), (Some((State::Running, 0)), Some((State::Running, 0))));
    assert_eq!(model.plan(), Plan::default());
}

#[test]
fn a_crash_waits_longer_each_time_and_a_long_run_is_forgiven() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a"]));
    model.settle();
    let mut waits = Vec::new();
    for _ in 0..8 {
        model.exit("a", 1);
        let since = model.now;
        let plan = model.settle();
        if let Some(wake) = plan.wake_at {
            assert_eq!(plan.waiting["a"].reason, "CrashLoopBackOff");
            waits.push(wake.duration_since(since).as_secs());
            model.now = wake;
            model.settle();
        } else {
            waits.push(0);
        }
        assert_eq!(model.state("a").unwrap().0, State::Running);
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    model.now = after(model.now, 601);
    model.exit("a", 1);
    assert_eq!(model.settle().wake_at, None);
    assert_eq!(model.state("a"), Some((State::Running, 9)));
    assert_eq!(model.seen.runs("a").len(), 2, "only the last and the one before are kept");
}

#[test]
fn restart_policies() {
    for (policy, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::Never, 1, false),
    ] {
        let mut model = Model::new(wanted(policy, &[], &["a"]));
        model.settle();
        model.exit("a", code);
        let plan = model.settle();
        assert_eq!(model.state("a").unwrap().0 == State::Running, again, "{policy:?} {code}");
        assert_eq!(plan.settled, !again);
        assert_eq!(model.seen.sandboxes.iter().any(|s| s.ready), again, "an ended pod keeps no sandbox");
    }
}

#[test]
fn init_containers_go_first_one_by_one_and_sidecars_stay() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["i", "side", "j"], &["a"]));
    model.settle();
    assert_eq!((model.state("i").is_some(), model.state("side"), model.state("a")), (true, None, None));
    model.exit("i", 0);
    model.settle();
    assert_eq!(model.state("side"), Some((State::Running, 0)));
    assert_eq!((model.state("j").is_some(), model.state("a")), (true, None));
    model.exit("j", 1);
    model.settle();
    assert_eq!((model.state("j"), model.state("a")), (Some((State::Running, 1)), None));
    model.exit("j", 0);
    model.settle();
    assert_eq!(model.state("a"), Some((State::Running, 0)));
    model.exit("side", 1);
    model.settle();
    assert_eq!(model.state("side"), Some((State::Running, 1)));
}

#[test]
fn those_after_it_wait_for_a_container_whose_start_has_a_hook() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["side-hook"], &["hook", "b"]));
    model.want.init[0].post_start = true;
    for (name, next) in [("side-hook", "hook"), ("hook", "b")] {
        while model.state(name).is_none() {
            let action = model.plan().actions.swap_remove(0);
            model.apply(&action);
        }
        let id = model.seen.latest(name).unwrap().id.clone();
        model.memory.starting.insert(id.clone());
        model.settle();
        assert_eq!(model.state(next), None, "{next} does not wait for {name}");
        model.memory.starting.remove(&id);
    }
    model.settle();
    assert_eq!(model.state("b"), Some((State::Running, 0)));
    model.exit("hook", 1);
    model.exit("hook", 1);
    model.exit("b", 0);
    let plan = model.plan();
    assert!(
        !plan.actions.iter().any(|a| matches!(a, Action::Run { name, .. } if name == "b")),
        "b waits again: {plan:?}"
    );
}

#[test]
fn who_comes_to_look_runs_once_and_waits_for_nobody() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["i"], &["a"]));
    model.want.ephemeral = wanted(RestartPolicy::Always, &[], &["look"]).containers;
    model.settle();
    assert_eq!((model.state("look"), model.state("a")), (Some((State::Running, 0)), None), "init is under way");
    model.exit("look", 1);
    model.exit("i", 0);
    model.settle();
    assert_eq!((model.state("look"), model.state("a")), (Some((State::Exited, 0)), Some((State::Running, 0))));
    let first = model.seen.sandboxes[0].id.clone();
    model.apply(&Action::StopSandbox { id: first });
    model.settle();
    assert_eq!(model.state("look"), Some((State::Exited, 0)), "nor does it run again in a new sandbox");
    let mut over = Model::new(wanted(RestartPolicy::Never, &[], &["a"]));
    over.want.ephemeral = model.want.ephemeral.clone();
    over.settle();
    over.exit("a", 0);
    assert!(over.settle().settled, "a pod that is over does not wait for who looks at it");
    assert_eq!(over.state("look").unwrap().0, State::Exited);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut model = Model::new(wanted(RestartPolicy::Never, &["i"], &["a"]));
    model.settle();
    model.exit("i", 1);
    assert!(model.settle().settled);
    assert_eq!(model.state("a"), None);
}

#[test]
fn a_lost_sandbox_is_replaced_and_its_containers_run_again() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["i"], &["a"]));
    model.settle();
    model.exit("i", 0);
    model.settle();
    let first = model.seen.sandboxes[0].id.clone();
    model.apply(&Action::StopSandbox { id: first.clone() });
    model.settle();
    assert_eq!(model.seen.sandbox().unwrap().attempt, 1);
    assert_eq!(model.state("i"), Some((State::Running, 1)), "init containers start over in a new sandbox");
    model.exit("i", 0);
    let plan = model.settle();
    model.now = plan.wake_at.unwrap_or(model.now);
    model.settle();
    assert_eq!(model.state("a"), Some((State::Running, 1)));
}

#[test]
fn deletion_gives_grace_once_and_a_shorter_one_is_passed_on() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["side"], &["a"]));
    model.settle();
    model.want.goal = Goal::Stop { grace_seconds: 30 };
    let plan = model.plan();
    let a = model.seen.latest("a").unwrap().id.clone();
    let kill =
        |grace_seconds| Action::Kill { id: a.clone(), name: "a".into(), grace_seconds, reason: KillReason::PodEnds };
    assert_eq!(plan.actions, [kill(30)], "the sidecar outlives the others");
    model.memory.killing.insert(a.clone(), after(model.now, 30));
    model.now = after(model.now, 5);
    assert_eq!(model.plan().actions, []);
    model.want.goal = Goal::Stop { grace_seconds: 1 };
    assert_eq!(model.plan().actions, [kill(1)]);
    let plan = model.settle();
    assert!(plan.settled);
    assert_eq!(model.memory.volumes, Volumes::Gone);
    assert!(!model.seen.is_empty(), "records stay until the API forgets the pod");
    model.want.goal = Goal::Forget { grace_seconds: 1 };
    assert!(model.settle().settled);
    assert!(model.seen.is_empty());
}

#[test]
fn an_image_that_is_not_there_backs_off() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a"]));
    model.memory.volumes = Volumes::Ready;
    model.apply(&Action::RunSandbox { attempt: 0 });
    assert_eq!(model.plan().actions, [pull("i")]);
    let key = || ("a".to_owned(), "i".to_owned());
    model.memory.note_pulling(key());
    assert_eq!(model.plan().actions, []);
    model.memory.note_pull_failed(key(), "ErrImagePull", "not found".into(), model.now);
    let plan = model.plan();
    assert_eq!((plan.actions.len(), plan.waiting["a"].reason.as_str()), (0, "ErrImagePull"));
    model.now = plan.wake_at.unwrap();
    let plan = model.plan();
    assert_eq!(plan.waiting["a"].reason, "ImagePullBackOff");
    assert_eq!(plan.waiting["a"].message, "Back-off pulling image \"i\": ErrImagePull: not found");
    model.now = plan.wake_at.unwrap();
    assert_eq!(model.plan().actions, [pull("i")]);
    assert_eq!(model.now, at(1010));
    model.memory.note_pulling(key());
    assert_eq!(model.plan().waiting["a"].reason, "ImagePullBackOff", "while it is tried again, that is what is shown");
    model.memory.note_pull_failed(key(), "ErrImagePull", "not found".into(), model.now);
    assert_eq!(model.plan().actions, []);
    model.want.containers[0].image = image("other");
    let plan = model.plan();
    assert_eq!(plan.actions, [pull("other")], "another image waits for nothing");
    assert_eq!(plan.waiting["a"].reason, "ContainerCreating");
    model.memory.note_pulling(("a".into(), "other".into()));
    model.memory.note_pulled(key(), "i@sha256:1".into());
    assert_eq!(model.plan().actions, [], "the old image came late, and is not what runs");
}

#[test]
fn a_changed_image_or_a_failed_probe_restarts_one_container() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a", "b"]));
    model.settle();
    model.want.containers[0].hash = "other".into();
    let plan = model.plan();
    assert!(
        matches!(&plan.actions[..], [Action::Kill { name, reason: KillReason::DefinitionChanged, .. }] if name == "a")
    );
    model.want.containers[0].hash = "h".into();
    let b = model.seen.latest("b").unwrap().id.clone();
    let why = |grace_seconds| Unhealthy { message: "why".into(), grace_seconds };
    for (own, grace) in [(None, 30), (Some(3), 3)] {
        model.memory.unhealthy.insert(b.clone(), why(own));
        let plan = model.plan();
        let [Action::Kill { name, reason: KillReason::Unhealthy, grace_seconds, .. }] = &plan.actions[..] else {
            panic!("{plan:?}");
        };
        assert_eq!((name.as_str(), *grace_seconds), ("b", grace), "a probe may have a grace period of its own");
    }
}

#[test]
fn what_a_probe_had_ended_runs_again_though_it_ended_well() {
    for (policy, again) in [(RestartPolicy::OnFailure, true), (RestartPolicy::Never, false)] {
        let mut model = Model::new(wanted(policy, &[], &["a"]));
        model.settle();
        let id = model.seen.latest("a").unwrap().id.clone();
        model.memory.unhealthy.insert(id, Unhealthy { message: "why".into(), grace_seconds: None });
        model.exit("a", 0);
        model.settle();
        assert_eq!(model.state("a").unwrap().0 == State::Running, again, "{policy:?}");
    }
}

/// A reboot takes the runtime's records; what was told of the containers stays.
fn after_reboot(policy: RestartPolicy, init: &[&str], main: &[&str], past: &[(&str, i32)]) -> (Model, Plan) {
    let mut model = Model::new(wanted(policy, init, main));
    model.memory.past =
        past.iter().map(|(n, exit_code)| ((*n).to_owned(), Past { runs: 3, exit_code: *exit_code })).collect();
    let plan = model.settle();
    (model, plan)
}

#[test]
fn after_a_reboot_only_what_may_run_again_does() {
    for (policy, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::OnFailure, 137, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::Never, 137, false),
        (RestartPolicy::Never, 0, false),
    ] {
        let (model, plan) = after_reboot(policy, &[], &["a"], &[("a", code)]);
        let ran = if again { Some((State::Running, 3)) } else { None };
        assert_eq!((model.state("a"), plan.settled), (ran, !again), "{policy:?} {code}");
    }
    let (model, plan) = after_reboot(RestartPolicy::Never, &[], &["a", "b"], &[("a", 137)]);
    assert_eq!((model.state("a"), model.state("b")), (None, Some((State::Running, 0))), "b has not had its run");
    assert!(!plan.waiting.contains_key("a"));
    let (model, plan) = after_reboot(RestartPolicy::Never, &["i"], &["a"], &[("i", 1)]);
    assert_eq!((model.state("i"), plan.settled), (None, true), "its init container failed for good");
    let (model, _) = after_reboot(RestartPolicy::OnFailure, &["i"], &["a"], &[("i", 0), ("a", 137)]);
    assert_eq!(model.state("i"), Some((State::Running, 3)), "in a new sandbox init containers start over");
}

#[test]
fn sidecars_end_one_by_one_in_what_is_left_of_the_time() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["side1", "side2"], &["a"]));
    model.settle();
    model.want.goal = Goal::Stop { grace_seconds: 30 };
    let mut kills = Vec::new();
    for seconds in [20, 9, 100, 0] {
        let plan = model.plan();
        let [kill @ Action::Kill { name, grace_seconds, .. }] = &plan.actions[..] else { break };
        kills.push((name.clone(), *grace_seconds));
        model.apply(kill);
        model.now = after(model.now, seconds);
    }
    // 20 of the 30 s went to the first, 9 to the second.
    assert_eq!(kills, [("a".to_owned(), 30), ("side2".to_owned(), 10), ("side1".to_owned(), 2)]);
}

#[test]
fn the_last_sidecar_has_a_little_time_in_any_case() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &["side"], &["a"]));
    model.settle();
    model.exit("a", 0);
    model.want.goal = Goal::Stop { grace_seconds: 30 };
    model.memory.note_stopping(model.now);
    model.now = after(model.now, 7);
    let left = |model: &Model| match &model.plan().actions[..] {
        [Action::Kill { grace_seconds, .. }] => *grace_seconds,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(&model), 2);
    model.want.goal = Goal::Stop { grace_seconds: 0 };
    assert_eq!(left(&model), 0, "unless it was to end at once");
}

#[test]
fn a_container_waits_for_the_images_that_it_mounts() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a"]));
    model.want.containers[0].volume_images = vec![image("data"), image("i"), image("data")];
    model.memory.volumes = Volumes::Ready;
    assert_eq!(model.plan().actions, [pull("i"), pull("data"), Action::RunSandbox { attempt: 0 }], "each once");
    model.apply(&Action::RunSandbox { attempt: 0 });
    model.apply(&pull("i"));
    model.memory.note_pull_failed(image_key("a", &image("data")), "ErrImagePull", "no".into(), model.now);
    let plan = model.plan();
    assert_eq!((plan.actions.len(), plan.waiting["a"].reason.as_str()), (0, "ErrImagePull"));
    model.now = at(1100);
    let plan = model.plan();
    assert_eq!(plan.actions, [pull("data")]);
    assert_eq!(plan.waiting["a"].message, "Back-off pulling image \"data\": ErrImagePull: no");
    model.apply(&pull("data"));
    let [Action::Run { images, .. }] = &model.plan().actions[..] else { panic!("{:?}", model.plan()) };
    assert_eq!(
        images.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>(),
        ["data data@sha256:1", "i i@sha256:1"]
    );
}

#[test]
fn a_crash_that_is_over_is_shown_until_the_next_run() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a"]));
    model.settle();
    model.exit("a", 1);
    model.settle();
    model.exit("a", 1);
    model.now = model.settle().wake_at.unwrap();
    let plan = model.plan();
    assert_eq!(plan.actions, [pull("i")]);
    assert_eq!(plan.waiting["a"].reason, "CrashLoopBackOff");
}

#[test]
fn what_failed_is_not_tried_again_at_once() {
    let mut model = Model::new(wanted(RestartPolicy::Always, &[], &["a"]));
    model.memory.volumes = Volumes::Ready;
    let failure =
        |reason: &str, now| Failure { reason: reason.into(), message: "m".into(), at: now, until: after(now, 5) };
    model.memory.sandbox_failure = Some(failure("FailedCreatePodSandBox", model.now));
    assert!(!model.plan().actions.iter().any(|a| matches!(a, Action::RunSandbox { .. })));
    model.now = after(model.now, 5);
    model.apply(&Action::RunSandbox { attempt: 0 });
    model.memory.create_failures.insert("a".into(), failure("CreateContainerConfigError", model.now));
    let plan = model.plan();
    assert_eq!(plan.waiting["a"].reason, "CreateContainerConfigError");
    assert_eq!(plan.wake_at, Some(after(model.now, 5)));
}

#[test]
fn durations_as_go_prints_them() {
    assert_eq!([10, 80, 300, 3600].map(seconds_text), ["10s", "1m20s", "5m0s", "1h0m0s"]);
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Created), Just(State::Running), Just(State::Exited), Just(State::Unknown)]
}

prop_compose! {
    /// A pod as a crash may leave it: sandboxes and containers in any state.
    fn any_seen()(
        sandboxes in proptest::collection::vec(any::<bool>(), 0..3),
        containers in proptest::collection::vec((0_usize..4, 0_usize..3, 0_u32..4, any_state(), 0_i32..2), 0..8),
    ) -> Seen {
        let mut seen = Seen::default();
        for (n, ready) in sandboxes.iter().enumerate() {
            let id = format!("s{n}");
            // The runtime never has two ready sandboxes of a pod.
            let ready = *ready && n + 1 == sandboxes.len();
            seen.sandboxes.push(Sandbox { id, attempt: n as u32, ready, created_at: at(1), ips: Vec::new() });
        }
        for (n, (name, sandbox, attempt, state, code)) in containers.into_iter().enumerate() {
            let name = ["i", "side", "a", "b"][name];
            if sandboxes.is_empty() || seen.containers.iter().any(|c| c.name == name && c.attempt == attempt) {
                continue;
            }
            let sandbox = sandbox % sandboxes.len();
            let mut made = container(&format!("c{n}"), &format!("s{sandbox}"), name, attempt, state, at(500));
            made.exit_code = code;
            seen.containers.push(made);
        }
        seen
    }
}

fn any_goal() -> impl Strategy<Value = Goal> {
    prop_oneof![
        Just(Goal::Run),
        Just(Goal::Fail { grace_seconds: 1 }),
        Just(Goal::Stop { grace_seconds: 5 }),
        Just(Goal::Forget { grace_seconds: 0 }),
    ]
}

fn any_policy() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)]
}

proptest! {
    #[test]
    fn every_state_has_a_fixpoint(seen in any_seen(), goal in any_goal(), policy in any_policy()) {
        let mut want = wanted(policy, &["i", "side"], &["a", "b"]);
        want.goal = goal;
        let mut model = Model { seen, ..Model::new(want) };
        // Containers that two runs at a time would be a fault of the runtime; a single live run may be any of them.
        let names = ["i", "side", "a", "b"];
        for name in names {
            let ids: Vec<String> = model.seen.runs(name).iter().skip(1).map(|c| c.id.clone()).collect();
            for id in ids {
                model.with(&id, |c| if c.state != State::Exited { end(c, 137, at(500)) });
            }
        }
        let last = model.settle();
        prop_assert!(last.actions.is_empty());
        match goal {
            Goal::Run => {}
            Goal::Fail { .. } | Goal::Stop { .. } => prop_assert!(last.settled && !model.seen.containers.iter().any(Container::is_alive)),
            Goal::Forget { .. } => prop_assert!(last.settled && model.seen.is_empty()),
        }
    }
}

#[test]
fn other_limits_are_told_to_a_running_container_or_start_it_anew() {
    let limits = |memory_bytes| Limits { memory_bytes, ..Limits::default() };
    let mut want = wanted(RestartPolicy::Always, &[], &["a", "whole"]);
    let run = |name: &str, memory| Container {
        limits: Some(limits(memory)),
        ..container(name, "s", name, 0, State::Running, at(0))
    };
    let sandbox = Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: at(0), ips: vec!["1.1.1.1".into()] };
    let seen =
        |memory| Seen { sandboxes: vec![sandbox.clone()], containers: vec![run("a", memory), run("whole", memory)] };
    let mut memory = Memory { volumes: Volumes::Ready, ..Memory::default() };
    assert_eq!(plan(&want, &seen(0), &memory, at(1)).actions, []);
    want.containers.iter_mut().for_each(|c| c.limits = limits(7));
    let actions = plan(&want, &seen(0), &memory, at(1)).actions;
    let kill =
        Action::Kill { id: "whole".into(), name: "whole".into(), grace_seconds: 30, reason: KillReason::Resized };
    let resize = Action::Resize { sandbox_id: "s".into(), containers: vec![("a".into(), "a".into())] };
    assert_eq!(actions, [kill, resize]);
    assert_eq!(plan(&want, &seen(7), &memory, at(1)).actions, [], "nothing is left to do");
    // What the kernel refused is tried again later.
    memory.resize_failure = Some(Failure { reason: "Error".into(), message: "busy".into(), at: at(1), until: at(11) });
    memory.killing.insert("whole".into(), at(20));
    let waits = plan(&want, &seen(0), &memory, at(5));
    assert_eq!((waits.actions, waits.wake_at), (vec![], Some(at(11))));
    assert_eq!(plan(&want, &seen(0), &memory, at(11)).actions.len(), 1);
}
