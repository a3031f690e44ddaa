use super::*;
use proptest::prelude::*;

fn set(image: &str, strategy: Value) -> Object {
    Object::from_value(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "a", "uid": "o", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
                 "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    }))
    .unwrap()
}

fn rolling(unavailable: i64, surge: i64) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn node(name: &str, taint: Option<&str>) -> Arc<Object> {
    let taints: Vec<Value> = taint.iter().map(|effect| json!({"key": "k", "effect": effect})).collect();
    Arc::new(Object::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap())
}

/// A cluster in which whatever is planned happens at once, and pods become ready when a test says so.
struct Cluster {
    set: Object,
    world: World,
    made: usize,
}

impl Cluster {
    fn new(nodes: usize, strategy: Value) -> Cluster {
        let world = World {
            pods: Vec::new(),
            nodes: (0..nodes).map(|n| node(&format!("n{n}"), None)).collect(),
            revisions: Vec::new(),
            outstanding: Outstanding::default(),
            now: Timestamp::from_second(1000).unwrap(),
        };
        Cluster { set: set("v1", strategy), world, made: 0 }
    }

    fn plan(&self) -> Turn {
        plan(&self.set, &self.world, |_| format!("x{:04}", self.made))
    }

    /// True where something was done.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        revisions::act_out(&mut self.world.revisions, &plan.revisions);
        for (_, uid) in &plan.delete {
            self.world.pods.retain(|pod| &pod.uid != uid);
        }
        for made in &plan.create {
            self.made += 1;
            let mut object = made.clone();
            object.metadata_mut().insert("uid".into(), json!(format!("u{}", self.made)));
            object.metadata_mut().insert("name".into(), json!(format!("d-{}", self.made)));
            object.0.insert("status".into(), json!({"phase": "Pending"}));
            let mut pod = Pod::project(object);
            pod.node = pod.pinned_to.clone();
            self.world.pods.push(Arc::new(pod));
        }
        if let Some(status) = &plan.status {
            self.set.0.insert("status".into(), status.clone());
        }
        !(plan.create.is_empty() && plan.delete.is_empty() && plan.revisions.is_empty() && plan.status.is_none())
    }

    fn ready(&mut self, which: impl Fn(&Pod) -> bool) {
        for pod in self.world.pods.iter_mut().filter(|pod| which(pod)) {
            let pod = Arc::make_mut(pod);
            (pod.ready, pod.phase) = (true, "Running".to_owned());
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.step() && self.world.pods.iter().all(|pod| pod.ready) {
                return;
            }
            self.ready(|_| true);
        }
        panic!("it never settles: {:?}", self.plan());
    }

    fn template(&mut self, image: &str) {
        let template = set(image, json!({})).get("/spec/template").cloned().unwrap();
        self.set.map_mut("spec").insert("template".into(), template);
    }

    /// How many pods a node has, and how many nodes have one that serves.
    fn counts(&self) -> (usize, usize) {
        let on = |node: &Arc<Object>| self.world.pods.iter().filter(|pod| pod.node == node.name()).count();
        let serves = |node: &&Arc<Object>| self.world.pods.iter().any(|pod| pod.node == node.name() && pod.ready);
        let nodes = &self.world.nodes;
        (nodes.iter().map(on).max().unwrap_or(0), nodes.iter().filter(serves).count())
    }

    fn count(&self, field: &str) -> i64 {
        self.set.i64_at(&format!("/status/{field}")).unwrap_or(0)
    }
}

#[test]
fn every_node_gets_one_that_is_tied_to_it() {
    let mut cluster = Cluster::new(3, rolling(1, 0));
    cluster.settle();
    assert_eq!(cluster.world.pods.len(), 3);
    assert_eq!((cluster.count("desiredNumberScheduled"), cluster.count("numberAvailable")), (3, 3));
    cluster.world.nodes.push(node("late", None));
    cluster.settle();
    assert!(cluster.world.pods.iter().any(|pod| pod.node == "late"));
}

#[test]
fn a_taint_keeps_new_ones_away_and_drives_the_rest_off() {
    let mut cluster = Cluster::new(1, rolling(1, 0));
    cluster.settle();
    cluster.world.nodes[0] = node("n0", Some("NoSchedule"));
    cluster.world.nodes.push(node("n1", Some("NoSchedule")));
    cluster.settle();
    assert_eq!((cluster.world.pods.len(), cluster.count("numberMisscheduled")), (1, 1));
    cluster.world.nodes[0] = node("n0", Some("NoExecute"));
    cluster.settle();
    assert!(cluster.world.pods.is_empty());
}

#[test]
fn on_delete_waits_for_the_delete() {
    let mut cluster = Cluster::new(2, json!({"type": "OnDelete"}));
    cluster.settle();
    cluster.template("v2");
    cluster.settle();
    assert_eq!(cluster.count("updatedNumberScheduled"), 0);
    cluster.world.pods.remove(0);
    cluster.settle();
    assert_eq!(cluster.count("updatedNumberScheduled"), 1);
}

#[test]
fn what_fails_at_once_is_not_made_anew_at_once() {
    let mut cluster = Cluster::new(1, rolling(1, 0));
    cluster.step();
    let created = |cluster: &mut Cluster, second: i64| {
        let pod = Arc::make_mut(&mut cluster.world.pods[0]);
        (pod.phase, pod.created) = ("Failed".to_owned(), Timestamp::from_second(second).unwrap().to_string());
    };
    created(&mut cluster, 998);
    let waiting = cluster.plan();
    assert_eq!((waiting.delete.len(), waiting.create.len()), (0, 0));
    assert_eq!(waiting.check_again, Some(Duration::from_secs(13)));
    created(&mut cluster, 900);
    let plan = cluster.plan();
    assert_eq!((plan.delete.len(), plan.create.len(), plan.warnings[0].0), (1, 0, "FailedDaemonPod"));
}

#[test]
fn nothing_is_made_while_the_last_ones_are_not_seen() {
    let mut cluster = Cluster::new(2, rolling(1, 0));
    cluster.world.outstanding.created.insert("d-x".to_owned());
    assert!(cluster.plan().create.is_empty());
}

#[test]
fn a_broken_template_stops_at_the_bound() {
    for strategy in [rolling(1, 0), rolling(0, 1)] {
        let mut cluster = Cluster::new(4, strategy.clone());
        cluster.settle();
        cluster.template("broken");
        while cluster.step() {}
        let (_, serving) = cluster.counts();
        assert!(serving >= 3, "{serving} of 4 with {strategy}");
        assert_eq!(cluster.count("updatedNumberScheduled"), 1, "{strategy}");
    }
}

proptest! {
    /// Whatever the bounds, and in whichever order pods become ready, a rollout keeps to them and ends.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        nodes in 1_usize..6, bound in 1_i64..4, surges in any::<bool>(), order in proptest::collection::vec(any::<u8>(), 60),
    ) {
        let strategy = if surges { rolling(0, bound) } else { rolling(bound, 0) };
        let mut cluster = Cluster::new(nodes, strategy);
        cluster.settle();
        cluster.template("v2");
        let least = if surges { nodes } else { nodes.saturating_sub(bound as usize) };
        for pick in order {
            cluster.step();
            let (most, serving) = cluster.counts();
            let (most_on_one, most_beside) = if surges { (2, bound as usize) } else { (1, 0) };
            prop_assert!(most <= most_on_one);
            prop_assert!(serving >= least, "{} of {} serve", serving, nodes);
            let extra = cluster.world.pods.len().saturating_sub(nodes);
            prop_assert!(extra <= most_beside);
            let waiting: Vec<String> =
                cluster.world.pods.iter().filter(|pod| !pod.ready).map(|pod| pod.uid.clone()).collect();
            if let Some(uid) = waiting.get(usize::from(pick) % waiting.len().max(1)) {
                cluster.ready(|pod| &pod.uid == uid);
            }
        }
        cluster.settle();
        prop_assert_eq!(cluster.count("updatedNumberScheduled"), nodes as i64);
        prop_assert!(cluster.plan() == Turn::default(), "not empty after a full apply");
    }
}
