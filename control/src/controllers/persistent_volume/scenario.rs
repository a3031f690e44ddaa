//! The binder over the API, under paused time: nothing here looks again by itself.

use gantry_client::DeleteOptions;
use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use gantry_kube::{Ref, storage};
use serde_json::{Value, json};

use crate::controllers::house::House;
use crate::controllers::storage_protection;

async fn claim(house: &House, name: &str, class: &str, volume: &str) {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "1Gi"}}});
    if !volume.is_empty() {
        spec["volumeName"] = json!(volume);
    }
    let claim = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    house.make(&PERSISTENT_VOLUME_CLAIM, claim).await;
}

async fn volume(house: &House, name: &str, class: &str, claim: Option<&str>) {
    let claim = claim.map(|name| json!({"name": name, "namespace": "default"}));
    let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Retain"});
    if let Some(claim) = claim {
        spec["claimRef"] = claim;
    }
    house.make(&PERSISTENT_VOLUME, json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// What the field says once everything is settled.
async fn said(house: &House, claim: &str, field: &str) -> Value {
    house.settle().await;
    let found = house.admin().get(&PERSISTENT_VOLUME_CLAIM, &Ref::new("default", claim)).await.unwrap();
    found.get(field).cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn what_a_claim_waits_for_wakes_it() {
    const VOLUME: &str = "/spec/volumeName";
    let house = House::new().await;
    tokio::spawn(super::run(house.context()));
    tokio::spawn(storage_protection::run(house.context()));
    for (name, class, volume) in
        [("first", "manual", ""), ("second", "manual", ""), ("named", "manual", "own"), ("late", "late", "")]
    {
        claim(&house, name, class, volume).await;
    }
    assert_eq!(said(&house, "first", "/status/phase").await, "Pending");
    // A free volume of its class, one that it names, one that is set aside for it: each wakes the one that it is for.
    volume(&house, "v", "manual", None).await;
    assert_eq!(said(&house, "first", VOLUME).await, "v");
    volume(&house, "own", "manual", None).await;
    assert_eq!(said(&house, "named", "/status/phase").await, "Bound");
    assert_eq!(said(&house, "second", VOLUME).await, Value::Null, "the other's is not for it");
    volume(&house, "aside", "manual", Some("second")).await;
    assert_eq!(said(&house, "second", VOLUME).await, "aside");
    // So does its class.
    let class = json!({"metadata": {"name": "late"}, "provisioner": "example.com/disk"});
    house.make(&STORAGE_CLASS, class).await;
    let annotations = said(&house, "late", "/metadata/annotations").await;
    assert_eq!(annotations[storage::STORAGE_PROVISIONER[0]], "example.com/disk");
    // A volume hears that its claim is gone, and a claim that its volume is.
    let admin = house.admin();
    let gone = Ref::new("default", "first");
    admin.delete(&PERSISTENT_VOLUME_CLAIM, &gone, &DeleteOptions::default()).await.unwrap();
    house.settle().await;
    let volume = admin.get(&PERSISTENT_VOLUME, &Ref::cluster("v")).await.unwrap();
    assert_eq!(volume.str_at("/status/phase"), "Released");
    let mut aside = admin.get(&PERSISTENT_VOLUME, &Ref::cluster("aside")).await.unwrap();
    aside.metadata_mut().remove("finalizers");
    admin.update(&PERSISTENT_VOLUME, &aside).await.unwrap();
    admin.delete(&PERSISTENT_VOLUME, &aside.reference(), &DeleteOptions::default()).await.unwrap();
    assert_eq!(said(&house, "second", "/status/phase").await, "Lost");
}
