use super::*;
use proptest::prelude::*;

fn deployment(replicas: i64, image: &str) -> Object {
    Object::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    }))
    .unwrap()
}

/// A world in which every ReplicaSet reaches its size at once, or never.
#[derive(Clone)]
struct World {
    deployment: Object,
    sets: Vec<Object>,
    healthy: bool,
    next: usize,
}

impl World {
    fn new(replicas: i64) -> World {
        World { deployment: deployment(replicas, "v1"), sets: Vec::new(), healthy: true, next: 0 }
    }

    fn observe(&mut self) {
        for set in &mut self.sets {
            let n = size(set);
            let old = set.i64_at("/status/availableReplicas").unwrap_or(0);
            let good = if self.healthy { n } else { old.min(n) };
            set.0.insert("status".into(), json!({"replicas": n, "readyReplicas": good, "availableReplicas": good}));
        }
    }

    fn plan(&self) -> Plan {
        let sets: Vec<Arc<Object>> = self.sets.iter().cloned().map(Arc::new).collect();
        plan(&self.deployment, &sets, &[], Timestamp::UNIX_EPOCH)
    }

    fn step(&mut self) -> bool {
        let plan = self.plan();
        for action in &plan.actions {
            match action {
                Action::Create(set) => {
                    let mut set = set.clone();
                    self.next += 1;
                    set.metadata_mut().insert("uid".into(), json!(format!("s{}", self.next)));
                    set.metadata_mut()
                        .insert("creationTimestamp".into(), json!(format!("2026-01-01T00:00:{:02}Z", self.next)));
                    self.sets.push(set);
                }
                Action::Scale { at, patch, .. } => self.merge(at, patch),
                Action::Patch { at, patch } => self.merge(at, patch),
                Action::Delete { uid, .. } => self.sets.retain(|s| s.uid() != uid),
                Action::Annotate(patch) => merge(&mut self.deployment, patch),
                Action::Status(status) => {
                    self.deployment.0.insert("status".into(), status.clone());
                }
            }
        }
        !plan.actions.is_empty()
    }

    fn merge(&mut self, at: &Ref, patch: &Value) {
        let set = self.sets.iter_mut().find(|s| &s.reference() == at).unwrap();
        merge(set, patch);
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.observe();
            self.bounds();
            if !self.step() {
                return;
            }
        }
        panic!("the rollout never ends: {:?}", self.plan());
    }

    fn bounds(&self) {
        let view = View::new(&self.deployment);
        let total: i64 = self.sets.iter().map(size).sum();
        assert!(total <= view.replicas + view.max_surge, "{total} pods for {}", view.replicas);
    }

    fn sizes(&self) -> Vec<i64> {
        self.sets.iter().map(size).collect()
    }
}

fn merge(object: &mut Object, patch: &Value) {
    let mut value = object.clone().into_value();
    json_patch::merge(&mut value, patch);
    let rv = value["metadata"].as_object_mut().unwrap();
    rv.remove("resourceVersion");
    *object = Object::from_value(value).unwrap();
}

#[test]
fn a_rollout_ends_with_one_set() {
    let mut world = World::new(3);
    world.settle();
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.deployment.annotation(REVISION), Some("1"));
    world.deployment.0.insert("spec".into(), deployment(3, "v2").0["spec"].clone());
    world.settle();
    assert_eq!(world.sizes(), [0, 3]);
    assert_eq!(world.deployment.annotation(REVISION), Some("2"));
    let progressing =
        world.deployment.array_at("/status/conditions").iter().find(|c| c["type"] == "Progressing").unwrap();
    assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
}

#[test]
fn a_rollback_lifts_the_old_set_to_a_new_revision() {
    let mut world = World::new(2);
    world.settle();
    world.deployment.0.insert("spec".into(), deployment(2, "v2").0["spec"].clone());
    world.settle();
    world.deployment.0.insert("spec".into(), deployment(2, "v1").0["spec"].clone());
    world.settle();
    assert_eq!(world.sizes(), [2, 0]);
    assert_eq!(world.sets[0].annotation(REVISION), Some("3"));
}

#[test]
fn a_broken_image_never_takes_the_last_good_pods() {
    let mut world = World::new(4);
    world.settle();
    world.healthy = false;
    world.deployment.0.insert("spec".into(), deployment(4, "broken").0["spec"].clone());
    world.settle();
    let good: i64 = world.sets.iter().map(available).sum();
    assert!(good >= 3, "{good} of 4 left");
}

#[test]
fn paused_means_no_new_set_but_scaling_works() {
    let mut world = World::new(2);
    world.settle();
    let mut spec = deployment(5, "v2").0["spec"].clone();
    spec["paused"] = json!(true);
    world.deployment.0.insert("spec".into(), spec);
    world.settle();
    assert_eq!(world.sizes(), [5]);
}

#[test]
fn the_history_limit_removes_the_oldest() {
    let mut world = World::new(1);
    for n in 0..4 {
        let mut spec = deployment(1, &format!("v{n}")).0["spec"].clone();
        spec["revisionHistoryLimit"] = json!(1);
        world.deployment.0.insert("spec".into(), spec);
        world.settle();
    }
    assert_eq!(world.sets.len(), 2);
    assert_eq!(world.deployment.annotation(REVISION), Some("4"));
}

#[test]
fn percentages_round_as_documented() {
    assert_eq!(resolve(Some(&json!("25%")), 3, true), 1);
    assert_eq!(resolve(Some(&json!("25%")), 3, false), 0);
    assert_eq!(resolve(Some(&json!(2)), 3, true), 2);
}

proptest! {
    #[test]
    fn any_sequence_of_sizes_and_images_settles(steps in proptest::collection::vec((0_i64..9, 0_u8..4, any::<bool>()), 1..6)) {
        let mut world = World::new(1);
        for (replicas, image, interrupted) in steps {
            world.deployment.0.insert("spec".into(), deployment(replicas, &format!("v{image}")).0["spec"].clone());
            if interrupted {
                world.observe();
                world.step();
            } else {
                for _ in 0..200 { world.observe(); if !world.step() { break; } }
                prop_assert_eq!(world.sets.iter().map(size).sum::<i64>(), replicas);
            }
        }
        for _ in 0..200 { world.observe(); if !world.step() { break; } }
        prop_assert!(world.plan().actions.is_empty());
    }
}

#[test]
fn a_new_rollout_has_a_deadline_of_its_own() {
    let mut world = World::new(2);
    world.healthy = false;
    world.deployment.map_mut("spec").insert("progressDeadlineSeconds".into(), json!(5));
    let condition = |world: &World, second| {
        let sets: Vec<Arc<Object>> = world.sets.iter().cloned().map(Arc::new).collect();
        let plan = plan(&world.deployment, &sets, &[], Timestamp::from_second(second).unwrap());
        let status =
            plan.actions.into_iter().find_map(|a| if let Action::Status(status) = a { Some(status) } else { None });
        let all = status.unwrap()["conditions"].as_array().cloned().unwrap();
        all.into_iter().find(|c| c["type"] == "Progressing").unwrap()
    };
    world.step();
    world.step();
    let late = condition(&world, 10);
    assert_eq!(late["reason"], "ProgressDeadlineExceeded");
    world.deployment.map_mut("status").insert("conditions".into(), json!([late]));
    world
        .deployment
        .map_mut("spec")
        .insert("template".into(), deployment(2, "v2").get("/spec/template").unwrap().clone());
    world.step();
    let fresh = condition(&world, 11);
    assert_eq!((&fresh["status"], &fresh["reason"]), (&json!("True"), &json!("ReplicaSetUpdated")));
    assert_eq!(fresh["lastUpdateTime"], "1970-01-01T00:00:11Z");
}

/// A name that another object has taken is not asked for again.
#[test]
fn a_collision_changes_the_name_and_only_the_own_set_is_none() {
    let (one, mut other) = (deployment(1, "v1"), deployment(1, "v1"));
    other.map_mut("status").insert("collisionCount".into(), json!(1));
    let set = |d: &Object| history::new_set(&View::new(d), &[], 1);
    assert_ne!(set(&one).name(), set(&other).name());
    assert!(history::is_set_of(&set(&one), &one));
    assert!(!history::is_set_of(&set(&one), &deployment(1, "v2")));
    let mut foreign = set(&one);
    foreign.metadata_mut().remove("ownerReferences");
    assert!(!history::is_set_of(&foreign, &one));
}
