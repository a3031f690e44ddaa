//! Persistent storage in plain facts: what a claim asks for, which volume it may have, and whose a volume is.

use serde_json::Value;

use crate::Object;
use crate::pod::resources::quantity;
use crate::quantity::Quantity;

/// On a claim: it has its volume.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: a controller chose the other one, and may undo that.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it, and takes it away.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim that waits for its first consumer: where that will run.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume, under the name of today and that of before.
pub const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IS_DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Keep what is in use from going.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The provisioner of classes whose volumes people make by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The built-in provisioner of folders on nodes, which is also the finalizer that keeps a volume until its folder is gone.
pub const LOCAL_PATH: &str = "gantry.dev/local-path";
/// On a Node: below which folder it keeps such volumes.
pub const LOCAL_PATH_ROOT: &str = "gantry.dev/local-path-root";
/// On such a volume, as a label: the node that has the folder.
pub const LOCAL_PATH_NODE: &str = "gantry.dev/node";

/// Modes in the order in which they are printed, with their short forms.
pub const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// The class of a claim or a volume; a claim without one may yet get the default.
pub fn class_of(object: &Object) -> Option<&str> {
    object.annotation(CLASS_ANNOTATION).or_else(|| object.get("/spec/storageClassName").and_then(Value::as_str))
}

pub fn is_default_class(class: &Object) -> bool {
    IS_DEFAULT_CLASS.iter().any(|key| class.annotation(key) == Some("true"))
}

/// The default class: of several the newest, of equally new ones the first by name.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a Object>) -> Option<&'a Object> {
    let created = |class: &Object| class.str_at("/metadata/creationTimestamp").to_owned();
    let order = |a: &&Object, b: &&Object| created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name()));
    classes.filter(|class| is_default_class(class)).max_by(order)
}

pub fn waits_for_consumer(class: &Object) -> bool {
    class.str_at("/volumeBindingMode") == "WaitForFirstConsumer"
}

pub fn requested(claim: &Object) -> Quantity {
    claim.get("/spec/resources/requests/storage").and_then(quantity).unwrap_or(Quantity::ZERO)
}

pub fn capacity(volume: &Object) -> Quantity {
    volume.get("/spec/capacity/storage").and_then(quantity).unwrap_or(Quantity::ZERO)
}

/// Filesystem, where nothing else is said.
pub fn volume_mode(object: &Object) -> &str {
    object.get("/spec/volumeMode").and_then(Value::as_str).unwrap_or("Filesystem")
}

pub fn has_access_mode(object: &Object, mode: &str) -> bool {
    object.array_at("/spec/accessModes").iter().any(|known| known == mode)
}

/// Whether a claim has its volume, and nothing is left to be done about that.
pub fn is_bound(claim: &Object) -> bool {
    !claim.str_at("/spec/volumeName").is_empty() && claim.annotation(BIND_COMPLETED).is_some()
}

/// Whether a volume is set aside for this claim: by its uid, or by its name alone.
pub fn is_for(volume: &Object, claim: &Object) -> bool {
    let uid = volume.str_at("/spec/claimRef/uid");
    volume.str_at("/spec/claimRef/name") == claim.name()
        && volume.str_at("/spec/claimRef/namespace") == claim.namespace()
        && (uid.is_empty() || uid == claim.uid())
}

pub fn is_claimed(volume: &Object) -> bool {
    volume.get("/spec/claimRef").is_some_and(|claim| !claim.is_null())
}

/// Why a claim cannot have a volume that it names.
pub fn mismatch(volume: &Object, claim: &Object) -> Option<&'static str> {
    let words = if requested(claim) > capacity(volume) {
        "requested PV is too small"
    } else if class_of(claim).unwrap_or("") != class_of(volume).unwrap_or("") {
        "storageClassName does not match"
    } else if volume_mode(claim) != volume_mode(volume) {
        "incompatible volumeMode"
    } else if !offers_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(words)
}

fn offers_modes(volume: &Object, claim: &Object) -> bool {
    let mut wanted = claim.array_at("/spec/accessModes").iter().filter_map(Value::as_str);
    wanted.all(|mode| has_access_mode(volume, mode))
}

/// The volume that a claim is to have: one that is set aside for it, else the smallest free one that fits. A claim that
/// waits takes none that is not set aside for it. `reaches` says whether the volume is where it is needed.
pub fn best<'a>(
    volumes: impl Iterator<Item = &'a Object>,
    claim: &Object,
    waits: bool,
    reaches: impl Fn(&Object) -> bool,
) -> Option<&'a Object> {
    let selector = claim.get("/spec/selector").filter(|selector| !selector.is_null());
    let selector = selector.map(crate::selector::LabelSelector::from_value);
    let selected = |volume: &Object| match &selector {
        None => true,
        Some(selector) => selector.as_ref().is_ok_and(|selector| selector.matches_object(volume)),
    };
    let mut found: Option<&Object> = None;
    for volume in volumes {
        let (size, wide) = (requested(claim) <= capacity(volume), volume_mode(volume) == volume_mode(claim));
        if volume.deletion_timestamp().is_some() || !size || !wide {
            continue;
        }
        if is_claimed(volume) {
            if is_for(volume, claim) {
                return reaches(volume).then_some(volume);
            }
            continue;
        }
        let free = volume.str_at("/status/phase") == "Available" && mismatch(volume, claim).is_none();
        if waits || !free || !selected(volume) || !reaches(volume) {
            continue;
        }
        let order =
            |volume: &Object| (capacity(volume), volume.array_at("/spec/accessModes").len(), volume.name().to_owned());
        if found.is_none_or(|before| order(volume) < order(before)) {
            found = Some(volume);
        }
    }
    found
}

/// One volume of a pod that is a claim's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub volume: String,
    pub claim: String,
    /// The claim is made of the pod's own template, and goes with the pod.
    pub ephemeral: bool,
    pub read_only: bool,
}

/// The claim that a volume of a pod is, if it is one.
pub fn claim_use(pod: &str, volume: &Value) -> Option<ClaimUse> {
    let name = volume["name"].as_str().unwrap_or("").to_owned();
    if volume["ephemeral"].is_object() {
        return Some(ClaimUse { claim: format!("{pod}-{name}"), volume: name, ephemeral: true, read_only: false });
    }
    let source = volume.get("persistentVolumeClaim").filter(|source| source.is_object())?;
    Some(ClaimUse {
        volume: name,
        claim: source["claimName"].as_str().unwrap_or("").to_owned(),
        ephemeral: false,
        read_only: source["readOnly"] == true,
    })
}

/// The claims that a pod uses.
pub fn claims_of(pod: &Object) -> impl Iterator<Item = ClaimUse> {
    pod.array_at("/spec/volumes").iter().filter_map(|volume| claim_use(pod.name(), volume))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(name: &str, size: &str, more: Value) -> Object {
        let mut value = json!({
            "metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"},
        });
        json_patch::merge(&mut value, &more);
        Object::from_value(value).unwrap()
    }

    fn claim(spec: Value) -> Object {
        let mut value = json!({
            "metadata": {"name": "data", "namespace": "a", "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "resources": {"requests": {"storage": "2Gi"}}},
        });
        json_patch::merge(&mut value, &json!({ "spec": spec }));
        Object::from_value(value).unwrap()
    }

    #[test]
    fn the_smallest_that_fits_is_chosen() {
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "9Gi", json!({})),
            volume("right", "3Gi", json!({"metadata": {"labels": {"disk": "ssd"}}})),
            volume("busy", "2Gi", json!({"spec": {"claimRef": {"name": "x", "namespace": "a", "uid": "y"}}})),
            volume("released", "2Gi", json!({"status": {"phase": "Released"}})),
            volume("block", "2Gi", json!({"spec": {"volumeMode": "Block"}})),
            volume("other", "2Gi", json!({"spec": {"storageClassName": "d"}})),
            volume("leaving", "2Gi", json!({"metadata": {"deletionTimestamp": "t"}})),
        ];
        let chosen = |claim: &Object, waits: bool| best(volumes.iter(), claim, waits, |_| true).map(Object::name);
        assert_eq!(chosen(&claim(json!({})), false), Some("right"));
        assert_eq!(chosen(&claim(json!({})), true), None, "it waits");
        assert_eq!(chosen(&claim(json!({"selector": {"matchLabels": {"disk": "ssd"}}})), false), Some("right"));
        assert_eq!(chosen(&claim(json!({"selector": {"matchLabels": {"disk": "hdd"}}})), false), None);
        assert_eq!(chosen(&claim(json!({"accessModes": ["ReadWriteMany"]})), false), None);
        assert_eq!(chosen(&claim(json!({"resources": {"requests": {"storage": "4Gi"}}})), false), Some("large"));
        assert_eq!(chosen(&claim(json!({"volumeMode": "Block"})), false), Some("block"));
    }

    #[test]
    fn what_is_set_aside_comes_first() {
        let own = json!({"spec": {"claimRef": {"name": "data", "namespace": "a"}}, "status": {"phase": "Pending"}});
        let volumes = [volume("free", "2Gi", json!({})), volume("own", "5Gi", own)];
        let chosen = |waits| best(volumes.iter(), &claim(json!({})), waits, |_| true).map(Object::name);
        assert_eq!((chosen(false), chosen(true)), (Some("own"), Some("own")));
    }

    #[test]
    fn of_several_defaults_the_newest_is_it() {
        let class = |name: &str, created: &str, default: &str| {
            let annotations = json!({IS_DEFAULT_CLASS[0]: default});
            let metadata = json!({"name": name, "creationTimestamp": created, "annotations": annotations});
            Object::from_value(json!({ "metadata": metadata })).unwrap()
        };
        let all = [class("a", "1", "true"), class("c", "2", "true"), class("b", "2", "true"), class("d", "3", "false")];
        assert_eq!(default_class(all.iter()).map(Object::name), Some("b"));
        assert!(default_class(all[3..].iter()).is_none());
    }
}
