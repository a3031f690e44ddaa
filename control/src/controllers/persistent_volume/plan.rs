use std::sync::Arc;

use gantry_kube::{Object, Ref, storage};
use serde_json::{Value, json};

use super::local_path;

/// What a turn sees beside its object: one thing by its name where it has a name for it.
pub trait World {
    fn volume(&self, name: &str) -> Option<Arc<Object>>;
    fn volumes(&self) -> Vec<Arc<Object>>;
    fn class(&self, name: &str) -> Option<Arc<Object>>;
    fn classes(&self) -> Vec<Arc<Object>>;
    fn node(&self, name: &str) -> Option<Arc<Object>>;
}

/// One write. What follows from it is the next turn's, which sees it done.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create(Object),
    /// The whole object, with the resourceVersion that it was read with.
    Update(Object),
    Status(Object),
    Delete {
        at: Ref,
        uid: String,
        resource_version: String,
    },
}

/// Kind, reason and message.
pub type Told = (&'static str, &'static str, String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub write: Option<Write>,
    /// What the user is told, once the write is done.
    pub told: Option<Told>,
}

impl Turn {
    fn write(write: Write) -> Turn {
        Turn { write: Some(write), told: None }
    }

    fn tell(self, kind: &'static str, reason: &'static str, message: impl Into<String>) -> Turn {
        Turn { told: Some((kind, reason, message.into())), ..self }
    }
}

/// The next step of a claim on its way to a volume.
pub fn claim(claim: &Object, world: &impl World) -> Turn {
    let name = claim.str_at("/spec/volumeName");
    match (name.is_empty(), claim.annotation(storage::BIND_COMPLETED).is_some()) {
        (true, true) => {
            lost(claim, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
        }
        (false, true) => match world.volume(name) {
            Some(volume) if storage::is_for(&volume, claim) => bind(claim, &volume),
            Some(volume) if !storage::is_claimed(&volume) && storage::mismatch(&volume, claim).is_none() => {
                bind(claim, &volume)
            }
            Some(_) => {
                let why = "Two claims are bound to the same volume, this one is bound incorrectly";
                lost(claim, "ClaimMisbound", why)
            }
            None => lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        },
        (false, false) => named(claim, world.volume(name).as_deref()),
        (true, false) => unbound(claim, world),
    }
}

fn lost(claim: &Object, reason: &'static str, message: &'static str) -> Turn {
    if claim.str_at("/status/phase") == "Lost" {
        return Turn::default();
    }
    let mut after = claim.clone();
    let status = after.map_mut("status");
    status.insert("phase".to_owned(), json!("Lost"));
    status.remove("accessModes");
    status.remove("capacity");
    Turn::write(Write::Status(after)).tell("Warning", reason, message)
}

/// A claim that asks for one volume by its name.
fn named(claim: &Object, volume: Option<&Object>) -> Turn {
    let Some(volume) = volume.filter(|_| claim.deletion_timestamp().is_none()) else { return Turn::default() };
    let name = volume.name();
    if storage::is_claimed(volume) && !storage::is_for(volume, claim) {
        let message = format!("volume {name:?} already bound to a different claim.");
        return Turn::default().tell("Warning", "FailedBinding", message);
    }
    match storage::mismatch(volume, claim) {
        Some(why) => {
            let message = format!("Cannot bind to requested volume {name:?}: {why}");
            Turn::default().tell("Warning", "VolumeMismatch", message)
        }
        None => bind(claim, volume),
    }
}

fn unbound(claim: &Object, world: &impl World) -> Turn {
    if claim.deletion_timestamp().is_some() {
        return Turn::default();
    }
    let Some(name) = storage::class_of(claim) else {
        // The default may have come after the claim.
        if let Some(default) = storage::default_class(world.classes().iter().map(AsRef::as_ref)) {
            let mut after = claim.clone();
            after.map_mut("spec").insert("storageClassName".to_owned(), json!(default.name()));
            return Turn::write(Write::Update(after));
        }
        return seek(claim, None, world);
    };
    seek(claim, world.class(name).as_deref(), world)
}

fn seek(claim: &Object, class: Option<&Object>, world: &impl World) -> Turn {
    let selected = claim.annotation(storage::SELECTED_NODE);
    let waits = class.is_some_and(storage::waits_for_consumer);
    if let Some(volume) = storage::best(world.volumes().iter().map(AsRef::as_ref), claim, waits, |_| true) {
        return bind(claim, volume);
    }
    let told = Turn::default();
    match (class, storage::class_of(claim).unwrap_or("")) {
        (Some(_), _) if waits && selected.is_none() => {
            told.tell("Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
        }
        (Some(class), _) => provision(claim, class, world),
        (None, "") => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            told.tell("Normal", "FailedBinding", why)
        }
        (None, name) => {
            told.tell("Warning", "ProvisioningFailed", format!("storageclass.storage.k8s.io {name:?} not found"))
        }
    }
}

/// Says who is to make the volume, and makes it where that is us.
fn provision(claim: &Object, class: &Object, world: &impl World) -> Turn {
    let provisioner = class.str_at("/provisioner");
    if storage::STORAGE_PROVISIONER.iter().any(|key| claim.annotation(key) != Some(provisioner)) {
        let mut after = claim.clone();
        storage::STORAGE_PROVISIONER.iter().for_each(|key| annotate(&mut after, key, provisioner));
        return Turn::write(Write::Update(after));
    }
    if provisioner != storage::LOCAL_PATH {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        return Turn::default().tell("Normal", "ExternalProvisioning", message);
    }
    let failed = |why: &str| format!("failed to provision volume with StorageClass {:?}: {why}", class.name());
    match local_path::volume(claim, class, |node| world.node(node)) {
        Ok(volume) => {
            let message = format!("Successfully provisioned volume {}", volume.name());
            Turn::write(Write::Create(volume)).tell("Normal", "ProvisioningSucceeded", message)
        }
        Err(local_path::Refusal::Claim(why)) => Turn::default().tell("Warning", "ProvisioningFailed", failed(&why)),
        // Another node may do: the scheduler chooses again.
        Err(local_path::Refusal::Node(why)) => {
            let mut after = claim.clone();
            if let Some(annotations) = after.metadata_mut().get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(storage::SELECTED_NODE);
            }
            Turn::write(Write::Update(after)).tell("Warning", "ProvisioningFailed", failed(&why))
        }
    }
}

/// The volume names the claim, then the claim the volume: of two claims that want one volume, the second's write fails.
fn bind(claim: &Object, volume: &Object) -> Turn {
    if volume.str_at("/spec/claimRef/uid") != claim.uid() {
        return Turn::write(Write::Update(set_aside(volume, claim)));
    }
    let mut after = claim.clone();
    if claim.str_at("/spec/volumeName").is_empty() {
        after.map_mut("spec").insert("volumeName".to_owned(), json!(volume.name()));
        annotate(&mut after, storage::BOUND_BY_CONTROLLER, "yes");
    }
    if claim.annotation(storage::BIND_COMPLETED).is_none() {
        annotate(&mut after, storage::BIND_COMPLETED, "yes");
    }
    if after != *claim {
        return Turn::write(Write::Update(after));
    }
    // A folder grows by saying so; what others have made, they make larger.
    let is_ours = volume.annotation(storage::PROVISIONED_BY) == Some(storage::LOCAL_PATH);
    if is_ours && storage::requested(claim) > storage::capacity(volume) {
        let mut larger = volume.clone();
        let asked = claim.get("/spec/resources/requests/storage").cloned().unwrap_or_default();
        larger.map_mut("spec").insert("capacity".to_owned(), json!({ "storage": asked }));
        return Turn::write(Write::Update(larger));
    }
    let status = after.map_mut("status");
    let first = status.insert("phase".to_owned(), json!("Bound")) != Some(json!("Bound"));
    for (key, pointer) in [("accessModes", "/spec/accessModes"), ("capacity", "/spec/capacity")] {
        if first || is_ours {
            status.insert(key.to_owned(), volume.get(pointer).cloned().unwrap_or_default());
        }
    }
    if after == *claim { Turn::default() } else { Turn::write(Write::Status(after)) }
}

/// The volume with the claim's name on it.
pub fn set_aside(volume: &Object, claim: &Object) -> Object {
    let mut after = volume.clone();
    // One that names the claim already was set aside by a person.
    let by_hand = storage::is_claimed(volume);
    after.map_mut("spec").insert("claimRef".to_owned(), claim_ref(claim));
    if !by_hand {
        annotate(&mut after, storage::BOUND_BY_CONTROLLER, "yes");
    }
    after
}

pub fn claim_ref(claim: &Object) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(),
        "uid": claim.uid(), "resourceVersion": claim.resource_version(),
    })
}

pub fn annotate(object: &mut Object, key: &str, value: &str) {
    let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(key.to_owned(), json!(value));
    }
}

/// The next step of a volume; `claim` is the one that it is set aside for, if that still is.
pub fn volume(volume: &Object, claim: Option<&Object>, now: &str) -> Turn {
    let uid = volume.str_at("/spec/claimRef/uid");
    if uid.is_empty() {
        return phase(volume, "Available", "", "", now);
    }
    let Some(claim) = claim.filter(|claim| claim.uid() == uid) else { return released(volume, now) };
    match claim.str_at("/spec/volumeName") {
        // The claim's own turn goes on with it.
        "" => Turn::default(),
        name if name == volume.name() => phase(volume, "Bound", "", "", now),
        _ if is_dynamic(volume) => released(volume, now),
        // The claim has another by now.
        _ => {
            let mut after = volume.clone();
            if volume.annotation(storage::BOUND_BY_CONTROLLER).is_some() {
                after.map_mut("spec").remove("claimRef");
                if let Some(annotations) = after.metadata_mut().get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(storage::BOUND_BY_CONTROLLER);
                }
            } else if let Some(claim) = after.map_mut("spec").get_mut("claimRef").and_then(Value::as_object_mut) {
                claim.remove("uid");
                claim.remove("resourceVersion");
            }
            Turn::write(Write::Update(after))
        }
    }
}

fn is_dynamic(volume: &Object) -> bool {
    volume.annotation(storage::PROVISIONED_BY).is_some()
        && volume.str_at("/spec/persistentVolumeReclaimPolicy") == "Delete"
}

/// Its claim is gone.
fn released(volume: &Object, now: &str) -> Turn {
    if !matches!(volume.str_at("/status/phase"), "Released" | "Failed") {
        return phase(volume, "Released", "", "", now);
    }
    if volume.deletion_timestamp().is_some() {
        return Turn::default();
    }
    match (volume.str_at("/spec/persistentVolumeReclaimPolicy"), volume.annotation(storage::PROVISIONED_BY)) {
        ("Delete", Some(storage::LOCAL_PATH)) => Turn::write(Write::Delete {
            at: volume.reference(),
            uid: volume.uid().to_owned(),
            resource_version: volume.resource_version().to_owned(),
        }),
        // Whoever made it takes it away.
        ("Delete", Some(_)) => Turn::default(),
        ("Delete", None) => {
            let why = format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                volume.name()
            );
            phase(volume, "Failed", "VolumeFailedDelete", &why, now)
        }
        ("Recycle", _) => {
            phase(volume, "Failed", "VolumeFailedRecycle", "No recycler plugin found for the volume!", now)
        }
        _ => Turn::default(),
    }
}

fn phase(volume: &Object, phase: &str, reason: &'static str, message: &str, now: &str) -> Turn {
    if volume.str_at("/status/phase") == phase {
        return Turn::default();
    }
    let mut after = volume.clone();
    let mut status = json!({"phase": phase, "lastPhaseTransitionTime": now});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    after.0.insert("status".to_owned(), status);
    let turn = Turn::write(Write::Status(after));
    if reason.is_empty() { turn } else { turn.tell("Warning", reason, message) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
