use std::collections::BTreeMap;

use gantry_kube::storage::{BIND_COMPLETED, LOCAL_PATH, LOCAL_PATH_ROOT, PROVISIONED_BY, SELECTED_NODE};
use proptest::prelude::*;

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn merged(mut value: Value, more: &Value) -> Object {
    json_patch::merge(&mut value, more);
    object(value)
}

fn pv(name: &str, gigabytes: i64, more: Value) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"capacity": {"storage": format!("{gigabytes}Gi")}, "accessModes": ["ReadWriteOnce"],
                 "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}},
        "status": {"phase": "Pending"},
    });
    merged(value, &more)
}

fn pvc(name: &str, gigabytes: i64, more: Value) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                 "resources": {"requests": {"storage": format!("{gigabytes}Gi")}}},
        "status": {"phase": "Pending"},
    });
    merged(value, &more)
}

fn class(name: &str, provisioner: &str, mode: &str) -> Arc<Object> {
    Arc::new(object(json!({"metadata": {"name": name}, "provisioner": provisioner, "reclaimPolicy": "Delete",
        "volumeBindingMode": mode})))
}

/// A cluster in which whatever is planned happens at once.
#[derive(Default)]
struct Cluster {
    volumes: BTreeMap<String, Object>,
    claims: BTreeMap<String, Object>,
    classes: Vec<Arc<Object>>,
    nodes: Vec<Arc<Object>>,
    told: Vec<(&'static str, String)>,
}

impl World for Cluster {
    fn volume(&self, name: &str) -> Option<Arc<Object>> {
        self.volumes.get(name).cloned().map(Arc::new)
    }

    fn volumes(&self) -> Vec<Arc<Object>> {
        self.volumes.values().cloned().map(Arc::new).collect()
    }

    fn class(&self, name: &str) -> Option<Arc<Object>> {
        self.classes.iter().find(|class| class.name() == name).cloned()
    }

    fn classes(&self) -> Vec<Arc<Object>> {
        self.classes.clone()
    }

    fn node(&self, name: &str) -> Option<Arc<Object>> {
        self.nodes.iter().find(|node| node.name() == name).cloned()
    }
}

impl Cluster {
    fn of(objects: impl IntoIterator<Item = Object>) -> Cluster {
        let mut cluster = Cluster::default();
        objects.into_iter().for_each(|object| cluster.put(object));
        cluster
    }

    fn put(&mut self, object: Object) {
        let kind = if object.kind() == "PersistentVolume" { &mut self.volumes } else { &mut self.claims };
        kind.insert(object.name().to_owned(), object);
    }

    fn turn_of_claim(&self, name: &str) -> Turn {
        claim(&self.claims[name], self)
    }

    fn turn_of_volume(&self, name: &str) -> Turn {
        let found = &self.volumes[name];
        let claim = self.claims.get(found.str_at("/spec/claimRef/name"));
        volume(found, claim, "now")
    }

    fn apply(&mut self, turn: Turn) -> bool {
        if let Some((_, reason, message)) = turn.told {
            self.told.push((reason, message));
        }
        match turn.write {
            None => return false,
            Some(Write::Create(mut made)) => {
                let uid = format!("uid-{}", made.name());
                made.metadata_mut().insert("uid".into(), json!(uid));
                made.0.insert("status".into(), json!({"phase": "Pending"}));
                self.put(made);
            }
            Some(Write::Update(after) | Write::Status(after)) => self.put(after),
            Some(Write::Delete { at, .. }) => drop(self.volumes.remove(&at.name)),
        }
        true
    }

    fn step(&mut self) -> bool {
        let mut done = false;
        for name in self.claims.keys().cloned().collect::<Vec<_>>() {
            done |= self.apply(self.turn_of_claim(&name));
        }
        for name in self.volumes.keys().cloned().collect::<Vec<_>>() {
            done |= self.apply(self.turn_of_volume(&name));
        }
        done
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.step() {
                return;
            }
        }
        panic!("it never settles");
    }

    fn bound(&self, claim: &str) -> &str {
        let claim = &self.claims[claim];
        if claim.str_at("/status/phase") == "Bound" { claim.str_at("/spec/volumeName") } else { "" }
    }

    fn phase(&self, volume: &str) -> &str {
        self.volumes[volume].str_at("/status/phase")
    }

    fn was_told(&self, reason: &str) -> &str {
        let last = self.told.iter().rev().find(|(known, _)| *known == reason);
        last.map_or("", |(_, message)| message)
    }
}

#[test]
fn a_claim_gets_the_smallest_volume_and_both_say_so() {
    let mut cluster = Cluster::of([pv("large", 9, json!({})), pv("right", 2, json!({})), pvc("data", 2, json!({}))]);
    cluster.settle();
    assert_eq!(
        (cluster.bound("data"), cluster.phase("right"), cluster.phase("large")),
        ("right", "Bound", "Available")
    );
    let claim = &cluster.claims["data"];
    assert_eq!(claim.str_at("/status/capacity/storage"), "2Gi");
    assert_eq!(claim.annotation(BIND_COMPLETED), Some("yes"));
    assert_eq!(cluster.volumes["right"].str_at("/spec/claimRef/uid"), "uid-data");
}

#[test]
fn one_that_fits_nowhere_waits_and_is_told() {
    let mut cluster =
        Cluster::of([pv("small", 1, json!({})), pvc("data", 2, json!({"spec": {"storageClassName": ""}}))]);
    cluster.settle();
    assert_eq!(cluster.bound("data"), "");
    assert!(cluster.was_told("FailedBinding").starts_with("no persistent volumes available for this claim"));
    let mut cluster = Cluster::of([pvc("data", 2, json!({}))]);
    cluster.settle();
    assert_eq!(cluster.was_told("ProvisioningFailed"), "storageclass.storage.k8s.io \"manual\" not found");
    cluster.classes.push(class("manual", "example.com/disk", "Immediate"));
    cluster.settle();
    assert!(cluster.was_told("ExternalProvisioning").contains("'example.com/disk'"));
    cluster.put(pv("late", 5, json!({})));
    cluster.settle();
    assert_eq!(cluster.bound("data"), "late");
}

#[test]
fn a_claim_that_names_its_volume_gets_that_or_none() {
    let names = |volume: &str| json!({"spec": {"volumeName": volume}});
    let mut cluster = Cluster::of([
        pv("a", 2, json!({})),
        pv("b", 1, json!({})),
        pvc("x", 2, names("a")),
        pvc("y", 2, names("a")),
        pvc("z", 2, names("b")),
    ]);
    cluster.settle();
    assert_eq!((cluster.bound("x"), cluster.bound("y"), cluster.bound("z")), ("a", "", ""));
    assert_eq!(cluster.was_told("FailedBinding"), "volume \"a\" already bound to a different claim.");
    assert_eq!(cluster.was_told("VolumeMismatch"), "Cannot bind to requested volume \"b\": requested PV is too small");
}

#[test]
fn a_volume_outlives_its_claim_as_its_policy_says() {
    let policy = |name: &str| json!({"spec": {"persistentVolumeReclaimPolicy": name}});
    let mut made = policy("Delete");
    made["metadata"] = json!({"annotations": {PROVISIONED_BY: LOCAL_PATH}});
    let mut theirs = policy("Delete");
    theirs["metadata"] = json!({"annotations": {PROVISIONED_BY: "example.com/disk"}});
    for (more, phase) in [
        (policy("Retain"), "Released"),
        (policy("Delete"), "Failed"),
        (policy("Recycle"), "Failed"),
        (theirs, "Released"),
        (made, ""),
    ] {
        let mut cluster = Cluster::of([pv("v", 2, more.clone()), pvc("data", 2, json!({}))]);
        cluster.settle();
        assert_eq!(cluster.bound("data"), "v");
        cluster.claims.clear();
        cluster.settle();
        let found = cluster.volumes.get("v").map_or("", |volume| volume.str_at("/status/phase"));
        assert_eq!(found, phase, "{more}");
        // One of the same name is another.
        cluster.put(pvc("data", 2, json!({"metadata": {"uid": "other"}})));
        cluster.settle();
        assert_eq!(cluster.bound("data"), "");
    }
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost() {
    let mut cluster = Cluster::of([pv("v", 2, json!({})), pvc("data", 2, json!({}))]);
    cluster.settle();
    cluster.volumes.clear();
    cluster.settle();
    assert_eq!(cluster.claims["data"].str_at("/status/phase"), "Lost");
    assert!(cluster.was_told("ClaimLost").contains("Data on the volume is lost!"));
}

#[test]
fn a_folder_is_made_where_the_first_consumer_will_run() {
    let mut cluster = Cluster::of([pvc("data", 2, json!({"spec": {"storageClassName": null}}))]);
    let mut default = (*class("local-path", LOCAL_PATH, "WaitForFirstConsumer")).clone();
    default.metadata_mut().insert("annotations".into(), json!({"storageclass.kubernetes.io/is-default-class": "true"}));
    cluster.classes.push(Arc::new(default));
    cluster.settle();
    assert_eq!(cluster.claims["data"].str_at("/spec/storageClassName"), "local-path");
    assert_eq!(cluster.was_told("WaitForFirstConsumer"), "waiting for first consumer to be created before binding");
    let choose = |cluster: &mut Cluster, node: &str| {
        let mut claim = cluster.claims["data"].clone();
        annotate(&mut claim, SELECTED_NODE, node);
        cluster.put(claim);
        cluster.settle();
    };
    choose(&mut cluster, "n");
    assert!(cluster.was_told("ProvisioningFailed").ends_with("node \"n\" keeps no local volumes"));
    assert_eq!(cluster.claims["data"].annotation(SELECTED_NODE), None, "the scheduler may choose another");
    let node = json!({"metadata": {"name": "n", "annotations": {LOCAL_PATH_ROOT: "/var/volumes"}}});
    cluster.nodes.push(Arc::new(object(node)));
    choose(&mut cluster, "n");
    assert_eq!(cluster.bound("data"), "pvc-uid-data");
    let made = &cluster.volumes["pvc-uid-data"];
    assert_eq!(made.str_at("/spec/local/path"), "/var/volumes/pvc-uid-data_a_data");
    assert_eq!((made.str_at("/status/phase"), made.str_at("/spec/persistentVolumeReclaimPolicy")), ("Bound", "Delete"));
    let terms = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchFields/0";
    assert_eq!(made.get(terms), Some(&json!({"key": "metadata.name", "operator": "In", "values": ["n"]})));
    let mut greedy = cluster.claims["data"].clone();
    greedy.map_mut("spec")["resources"]["requests"]["storage"] = json!("3Gi");
    let mut grown = Cluster::of([greedy, made.clone()]);
    grown.settle();
    assert_eq!(grown.claims["data"].str_at("/status/capacity/storage"), "3Gi");
    assert_eq!(grown.volumes["pvc-uid-data"].str_at("/spec/capacity/storage"), "3Gi");
    assert_eq!(cluster.was_told("ProvisioningSucceeded"), "Successfully provisioned volume pvc-uid-data");
    let mut defaulted = made.clone();
    gantry_kube::defaults::apply(&gantry_kube::resource::PERSISTENT_VOLUME, &mut defaulted);
    assert_eq!(gantry_kube::validation::create(&gantry_kube::resource::PERSISTENT_VOLUME, &defaulted), []);
}

#[test]
fn what_a_folder_cannot_be_is_refused() {
    for (spec, why) in [
        (
            json!({"accessModes": ["ReadWriteMany"]}),
            "only the access modes ReadWriteOnce and ReadWriteOncePod are supported",
        ),
        (json!({"volumeMode": "Block"}), "volumeMode Block is not supported"),
        (json!({"selector": {"matchLabels": {"a": "b"}}}), "claim Selector is not supported"),
    ] {
        let metadata = json!({"annotations": {SELECTED_NODE: "n"}});
        let mut cluster = Cluster::of([pvc("data", 2, json!({"metadata": metadata, "spec": spec}))]);
        cluster.classes.push(class("manual", LOCAL_PATH, "WaitForFirstConsumer"));
        cluster.settle();
        let message = format!("failed to provision volume with StorageClass \"manual\": {why}");
        assert_eq!(cluster.was_told("ProvisioningFailed"), message);
    }
}

proptest! {
    /// Whatever comes and goes in whichever order: no volume is bound to two claims, none is too small, and it settles.
    #[test]
    fn no_volume_is_two_claims(steps in prop::collection::vec((0_u8..6, 0_usize..4, 1_i64..5), 1..40)) {
        let mut cluster = Cluster::default();
        for (n, (what, which, size)) in steps.into_iter().enumerate() {
            let fresh = json!({"metadata": {"uid": format!("u{n}")}});
            match what {
                0 if !cluster.volumes.contains_key(&format!("v{which}")) => cluster.put(pv(&format!("v{which}"), size, json!({}))),
                1 if !cluster.claims.contains_key(&format!("c{which}")) => {
                    cluster.put(pvc(&format!("c{which}"), size, fresh));
                }
                2 if !cluster.claims.contains_key(&format!("c{which}")) => {
                    let named = merged(fresh, &json!({"spec": {"volumeName": format!("v{}", size % 4)}})).into_value();
                    cluster.put(pvc(&format!("c{which}"), size, named));
                }
                3 => drop(cluster.claims.remove(&format!("c{which}"))),
                4 => drop(cluster.volumes.remove(&format!("v{which}"))),
                _ => drop(cluster.step()),
            }
        }
        cluster.settle();
        let mut taken = BTreeMap::new();
        for (name, claim) in &cluster.claims {
            let volume = cluster.bound(name);
            if volume.is_empty() {
                continue;
            }
            prop_assert!(taken.insert(volume.to_owned(), name.clone()).is_none(), "{volume} is bound twice");
            let found = &cluster.volumes[volume];
            prop_assert_eq!(found.str_at("/spec/claimRef/uid"), claim.uid());
            prop_assert_eq!(found.str_at("/status/phase"), "Bound");
            prop_assert!(storage::capacity(found) >= storage::requested(claim));
        }
        for (name, found) in &cluster.volumes {
            prop_assert!(found.str_at("/status/phase") != "Bound" || taken.contains_key(name), "{} is nobody's", name);
        }
        for name in cluster.claims.keys() {
            prop_assert_eq!(cluster.turn_of_claim(name).write, None);
        }
    }
}
