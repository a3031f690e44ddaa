use super::*;
use proptest::prelude::*;

fn set(replicas: i64, image: &str, more: Value) -> Object {
    let mut value = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "a", "uid": "o", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "db"}}, "serviceName": "dbs",
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
                 "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    json_patch::merge(&mut value, &json!({"spec": more}));
    Object::from_value(value).unwrap()
}

/// A cluster in which whatever is planned happens at once, and pods become ready when a test says so.
struct Cluster {
    set: Object,
    world: World,
    images: BTreeMap<String, String>,
    made: usize,
}

impl Cluster {
    fn new(replicas: i64, more: Value) -> Cluster {
        let world = World {
            pods: Vec::new(),
            revisions: Vec::new(),
            claims: Vec::new(),
            outstanding: Outstanding::default(),
            now: Timestamp::from_second(1000).unwrap(),
        };
        Cluster { set: set(replicas, "v1", more), world, images: BTreeMap::new(), made: 0 }
    }

    fn plan(&self) -> Turn {
        plan(&self.set, &self.world)
    }

    /// True where something was done.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        revisions::act_out(&mut self.world.revisions, &plan.revisions);
        for claim in &plan.claim_owners {
            self.world.claims.retain(|known| known.name() != claim.name());
            self.world.claims.push(Arc::new(claim.clone()));
        }
        for (claim, pod) in &plan.claims {
            assert!(!self.world.claims.iter().any(|known| known.name() == claim.name()), "made twice");
            assert!(claim.name().ends_with(pod));
            self.world.claims.push(Arc::new(claim.clone()));
        }
        self.world.pods.retain(|pod| !plan.delete.iter().any(|(_, uid)| uid == &pod.uid));
        for made in &plan.create {
            assert!(!self.names().contains(&made.name().to_owned()), "{} is made twice", made.name());
            self.made += 1;
            let mut object = made.clone();
            object.metadata_mut().insert("uid".into(), json!(format!("u{}", self.made)));
            object.0.insert("status".into(), json!({"phase": "Pending"}));
            self.images.insert(format!("u{}", self.made), made.str_at("/spec/containers/0/image").to_owned());
            self.world.pods.push(Arc::new(Pod::project(object)));
        }
        if let Some(status) = &plan.status {
            self.set.0.insert("status".into(), status.clone());
        }
        plan != Turn::default()
    }

    fn ready(&mut self, which: impl Fn(&Pod) -> bool) {
        for pod in self.world.pods.iter_mut().filter(|pod| which(pod)) {
            let pod = Arc::make_mut(pod);
            (pod.ready, pod.phase) = (true, "Running".to_owned());
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.step() && self.world.pods.iter().all(|pod| pod.ready) {
                return;
            }
            self.ready(|_| true);
        }
        panic!("it never settles: {:?}", self.plan());
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.world.pods.iter().map(|pod| pod.reference().name).collect();
        names.sort();
        names
    }

    fn images(&self) -> Vec<&str> {
        let mut pods: Vec<&Arc<Pod>> = self.world.pods.iter().collect();
        pods.sort_by_key(|pod| pod.reference().name);
        pods.iter().map(|pod| self.images[&pod.uid].as_str()).collect()
    }

    fn change(&mut self, spec: Value) {
        let mut value = self.set.clone().into_value();
        json_patch::merge(&mut value, &json!({"spec": spec}));
        self.set = Object::from_value(value).unwrap();
    }

    fn image(&mut self, image: &str) {
        self.change(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
    }
}

#[test]
fn one_after_another_and_back() {
    let mut cluster = Cluster::new(3, json!({}));
    cluster.step();
    cluster.step();
    assert_eq!(cluster.names(), ["db-0"], "the second waits for the first");
    cluster.ready(|_| true);
    cluster.step();
    assert_eq!(cluster.names(), ["db-0", "db-1"]);
    cluster.settle();
    assert_eq!(cluster.names(), ["db-0", "db-1", "db-2"]);
    let status = cluster.set.get("/status").unwrap();
    assert_eq!((&status["readyReplicas"], &status["currentRevision"]), (&json!(3), &status["updateRevision"]));
    cluster.change(json!({"replicas": 1}));
    cluster.step();
    assert_eq!(cluster.names(), ["db-0", "db-1"]);
    cluster.settle();
    assert_eq!(cluster.names(), ["db-0"]);
}

#[test]
fn members_have_names_that_last() {
    let mut cluster = Cluster::new(2, json!({"ordinals": {"start": 5}}));
    let pod = cluster.plan().create.remove(0);
    assert_eq!((pod.name(), pod.str_at("/spec/hostname"), pod.str_at("/spec/subdomain")), ("db-5", "db-5", "dbs"));
    assert_eq!((pod.label(NAME_LABEL), pod.label(INDEX_LABEL)), (Some("db-5"), Some("5")));
    assert_eq!(pod.get("/metadata/generateName"), None);
    cluster.settle();
    assert_eq!(cluster.names(), ["db-5", "db-6"]);
    assert_eq!(
        (ordinal(&cluster.set, "db-07"), ordinal(&cluster.set, "db-x"), ordinal(&cluster.set, "db-")),
        (None, None, None)
    );
}

fn with_claims(replicas: i64, deleted: &str, scaled: &str) -> Cluster {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let template = json!({"metadata": {"name": "data", "labels": {"kind": "db"}}, "spec": claim});
    let volumes = json!([{"name": "data", "emptyDir": {}}, {"name": "other", "emptyDir": {}}]);
    Cluster::new(
        replicas,
        json!({
            "volumeClaimTemplates": [template], "template": {"spec": {"volumes": volumes}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
        }),
    )
}

impl Cluster {
    /// Of each claim, the kind and name of its owner.
    fn owners(&self) -> Vec<String> {
        let owner = |claim: &Arc<Object>| {
            let owner = claim.controller().map(|owner| format!("{}/{}", owner["kind"], owner["name"]));
            format!("{} {}", claim.name(), owner.unwrap_or_default().replace('"', ""))
        };
        let mut all: Vec<String> = self.world.claims.iter().map(owner).collect();
        all.sort();
        all
    }
}

#[test]
fn each_member_has_claims_of_its_own() {
    let mut cluster = with_claims(2, "Retain", "Retain");
    let plan = cluster.plan();
    let (claim, pod) = (&plan.claims[0].0, &plan.create[0]);
    assert_eq!((claim.name(), claim.label("app"), claim.label("kind")), ("data-db-0", Some("db"), Some("db")));
    assert_eq!(claim.str_at("/spec/resources/requests/storage"), "1Gi");
    assert_eq!(pod.str_at("/spec/volumes/0/persistentVolumeClaim/claimName"), "data-db-0");
    assert_eq!((pod.array_at("/spec/volumes").len(), pod.str_at("/spec/volumes/1/name")), (2, "other"));
    cluster.settle();
    cluster.change(json!({"replicas": 0}));
    cluster.settle();
    assert_eq!(cluster.owners(), ["data-db-0 ", "data-db-1 "]);
    // One that is going is waited for.
    let mut going = (*cluster.world.claims[0]).clone();
    going.metadata_mut().insert("deletionTimestamp".into(), json!("t"));
    cluster.world.claims[0] = Arc::new(going);
    cluster.change(json!({"replicas": 1}));
    assert!(cluster.plan().create.is_empty() && cluster.plan().claims.is_empty());
    cluster.world.claims.remove(0);
    cluster.settle();
    assert_eq!(cluster.names(), ["db-0"]);
    assert_eq!(cluster.owners(), ["data-db-0 ", "data-db-1 "]);
}

#[test]
fn claims_go_with_whom_the_policy_names() {
    for (deleted, scaled, before, after) in [
        ("Retain", "Retain", ["", ""], ["", ""]),
        ("Delete", "Retain", ["StatefulSet/db", "StatefulSet/db"], ["StatefulSet/db", "StatefulSet/db"]),
        ("Retain", "Delete", ["", ""], ["", "Pod/db-1"]),
        ("Delete", "Delete", ["StatefulSet/db", "StatefulSet/db"], ["StatefulSet/db", "Pod/db-1"]),
    ] {
        let mut cluster = with_claims(2, deleted, scaled);
        cluster.settle();
        let named = |owners: [&str; 2]| [format!("data-db-0 {}", owners[0]), format!("data-db-1 {}", owners[1])];
        assert_eq!(cluster.owners(), named(before), "{deleted} {scaled}");
        cluster.change(json!({"replicas": 1}));
        let plan = cluster.plan();
        assert_eq!(plan.delete.len(), 1, "the claim changes hands before its pod goes");
        cluster.settle();
        assert_eq!(cluster.owners(), named(after), "{deleted} {scaled}");
    }
    // A policy that changes reaches the claims that are there, and one that is another's stays that.
    let mut cluster = with_claims(2, "Delete", "Retain");
    cluster.settle();
    let mut foreign = (*cluster.world.claims[0]).clone();
    let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]);
    foreign.metadata_mut().insert("ownerReferences".into(), owner);
    cluster.world.claims[0] = Arc::new(foreign);
    cluster.change(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}));
    cluster.settle();
    assert_eq!(cluster.owners(), ["data-db-0 X/x", "data-db-1 "]);
}

#[test]
fn in_parallel_all_at_once() {
    let mut cluster = Cluster::new(3, json!({"podManagementPolicy": "Parallel"}));
    cluster.step();
    assert_eq!(cluster.names().len(), 3);
}

#[test]
fn an_update_goes_from_the_last_to_the_first_and_stops_at_the_partition() {
    let mut cluster = Cluster::new(3, json!({}));
    cluster.settle();
    cluster.change(json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}));
    cluster.image("v2");
    cluster.step();
    assert_eq!(cluster.names(), ["db-0", "db-1"]);
    cluster.settle();
    assert_eq!(cluster.images(), ["v1", "v2", "v2"]);
    assert_ne!(cluster.set.str_at("/status/currentRevision"), cluster.set.str_at("/status/updateRevision"));
    // One below the partition comes back as it was.
    cluster.world.pods.retain(|pod| pod.reference().name != "db-0");
    cluster.settle();
    assert_eq!(cluster.images(), ["v1", "v2", "v2"]);
    cluster.change(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    cluster.settle();
    assert_eq!(cluster.images(), ["v2", "v2", "v2"]);
    assert_eq!(cluster.set.str_at("/status/currentRevision"), cluster.set.str_at("/status/updateRevision"));
}

#[test]
fn on_delete_waits_for_the_delete() {
    let mut cluster = Cluster::new(2, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    cluster.settle();
    cluster.image("v2");
    cluster.settle();
    assert_eq!(cluster.images(), ["v1", "v1"]);
    cluster.world.pods.retain(|pod| pod.reference().name != "db-0");
    cluster.settle();
    assert_eq!(cluster.images(), ["v2", "v1"]);
}

#[test]
fn a_member_that_ended_comes_back_and_a_broken_one_holds_up_the_rest() {
    let mut cluster = Cluster::new(2, json!({}));
    cluster.settle();
    Arc::make_mut(&mut cluster.world.pods[0]).ready = false;
    cluster.image("v2");
    assert!(cluster.plan().delete.is_empty(), "an update waits for every member to serve");
    Arc::make_mut(&mut cluster.world.pods[0]).phase = "Failed".to_owned();
    let plan = cluster.plan();
    assert_eq!((plan.delete.len(), plan.warnings[0].0), (1, "RecreatingFailedPod"));
    cluster.settle();
    assert_eq!(cluster.images(), ["v2", "v2"]);
}

#[test]
fn a_member_counts_once_it_has_been_ready_for_long_enough() {
    let mut cluster = Cluster::new(2, json!({"minReadySeconds": 60}));
    cluster.step();
    cluster.ready(|_| true);
    let since = Timestamp::from_second(990).unwrap().to_string();
    Arc::make_mut(&mut cluster.world.pods[0]).ready_since = since;
    let plan = cluster.plan();
    assert_eq!((plan.create.len(), plan.check_again), (0, Some(Duration::from_secs(50))));
    assert_eq!(plan.status.unwrap()["availableReplicas"], 0);
}

proptest! {
    /// Whatever comes in whichever order, no more members are taken than may be, and it ends where it should.
    #[test]
    fn an_update_keeps_its_bounds_and_ends(
        replicas in 1_i64..6, parallel in any::<bool>(), bound in 1_i64..4, to in 0_i64..7,
        order in proptest::collection::vec(any::<u8>(), 60),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let more = json!({"podManagementPolicy": policy, "updateStrategy": {"rollingUpdate": {"maxUnavailable": bound}}});
        let mut cluster = Cluster::new(replicas, more);
        cluster.settle();
        cluster.image("v2");
        let least = replicas - bound.min(replicas);
        for pick in &order {
            cluster.step();
            let serving = cluster.world.pods.iter().filter(|pod| pod.ready).count() as i64;
            prop_assert!(serving >= least, "{} of {} serve", serving, replicas);
            prop_assert!(cluster.world.pods.len() as i64 <= replicas);
            let waiting: Vec<String> =
                cluster.world.pods.iter().filter(|pod| !pod.ready).map(|pod| pod.uid.clone()).collect();
            if let Some(uid) = waiting.get(usize::from(*pick) % waiting.len().max(1)) {
                cluster.ready(|pod| &pod.uid == uid);
            }
        }
        cluster.change(json!({"replicas": to}));
        cluster.settle();
        prop_assert_eq!(cluster.names(), (0..to).map(|n| format!("db-{n}")).collect::<Vec<_>>());
        prop_assert!(cluster.images().iter().all(|image| *image == "v2"));
        prop_assert!(cluster.plan() == Turn::default(), "not empty after a full apply");
    }
}
