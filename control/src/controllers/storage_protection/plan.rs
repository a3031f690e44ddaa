use gantry_kube::Object;
use gantry_kube::storage::{CLAIM_PROTECTION, LOCAL_PATH, LOCAL_PATH_NODE, VOLUME_PROTECTION};
use serde_json::json;

use crate::controllers::informers::Pod;

/// What keeps a volume that is on its way out.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// It is not on its way out, or others keep it.
    Stays,
    /// Nothing of ours: this is it without our finalizer.
    Released(Object),
    /// A folder on this node; what becomes of it where the node is gone for good.
    Folder { node: String, after: Object },
}

/// The claim without the finalizer that protects it, where it is on its way out and none of the pods uses it.
pub fn claim<'a>(claim: &Object, mut pods: impl Iterator<Item = &'a Pod>) -> Option<Object> {
    let after = without(claim, CLAIM_PROTECTION)?;
    (!pods.any(|pod| uses(pod, claim.name()))).then_some(after)
}

pub fn volume(volume: &Object) -> Hold {
    if let Some(after) = without(volume, VOLUME_PROTECTION) {
        return if volume.str_at("/status/phase") == "Bound" { Hold::Stays } else { Hold::Released(after) };
    }
    match (volume.label(LOCAL_PATH_NODE), without(volume, LOCAL_PATH)) {
        (Some(node), Some(after)) => Hold::Folder { node: node.to_owned(), after },
        _ => Hold::Stays,
    }
}

/// The object without a finalizer that it has, where it is on its way out.
fn without(object: &Object, finalizer: &str) -> Option<Object> {
    let held = object.finalizers().any(|known| known == finalizer);
    if object.deletion_timestamp().is_none() || !held {
        return None;
    }
    let kept: Vec<&str> = object.finalizers().filter(|known| *known != finalizer).collect();
    let kept = json!(kept);
    let mut after = object.clone();
    after.metadata_mut().insert("finalizers".to_owned(), kept);
    Some(after)
}

/// Whether a pod has been given a node with this claim. One that has ended still counts: it is there.
fn uses(pod: &Pod, claim: &str) -> bool {
    !pod.node.is_empty() && pod.claims.iter().any(|used| used.claim == claim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn object(deleting: bool, finalizers: &[&str], more: &Value) -> Object {
        let mut value = json!({"metadata": {"name": "data", "finalizers": finalizers}});
        json_patch::merge(&mut value, more);
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("t");
        }
        Object::from_value(value).unwrap()
    }

    fn pod(node: &str) -> Pod {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        let spec = json!({"nodeName": node, "volumes": volumes});
        Pod::project(Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    fn finalizers(object: &Object) -> Vec<&str> {
        object.finalizers().collect()
    }

    #[test]
    fn a_claim_goes_that_no_pod_with_a_node_uses() {
        let all = ["x/y", CLAIM_PROTECTION];
        let leaves = object(true, &all, &json!({}));
        let released = |claim_: &Object, pods: &[Pod]| claim(claim_, pods.iter());
        assert_eq!(released(&object(false, &all, &json!({})), &[]), None);
        assert_eq!(released(&leaves, &[pod("n")]), None);
        assert_eq!(finalizers(&released(&leaves, &[pod("")]).unwrap()), ["x/y"], "it has no node yet");
        let other = object(true, &all, &json!({"metadata": {"name": "other"}}));
        assert_eq!(finalizers(&released(&other, &[pod("n")]).unwrap()), ["x/y"]);
    }

    #[test]
    fn a_volume_goes_that_is_bound_to_nobody_and_has_no_folder() {
        let all = [VOLUME_PROTECTION, LOCAL_PATH];
        let bound = json!({"status": {"phase": "Bound"}});
        assert_eq!(volume(&object(false, &all, &json!({}))), Hold::Stays);
        assert_eq!(volume(&object(true, &all, &bound)), Hold::Stays);
        let Hold::Released(after) = volume(&object(true, &all, &json!({}))) else { panic!() };
        assert_eq!(finalizers(&after), [LOCAL_PATH]);
        assert_eq!(volume(&after), Hold::Stays, "no node is named");
        let on_n = json!({"metadata": {"labels": {LOCAL_PATH_NODE: "n"}}});
        let Hold::Folder { node, after } = volume(&object(true, &[LOCAL_PATH, "x/y"], &on_n)) else { panic!() };
        assert_eq!((node.as_str(), finalizers(&after)), ("n", vec!["x/y"]));
        assert_eq!(volume(&object(false, &[LOCAL_PATH], &on_n)), Hold::Stays);
    }

    /// Whatever is held: after as many writes as there are finalizers of ours, nothing is left to do.
    #[test]
    fn fixpoint() {
        for mask in 0..8_u8 {
            let own = [VOLUME_PROTECTION, LOCAL_PATH, CLAIM_PROTECTION];
            let held: Vec<&str> = (0..3).filter(|n| mask & (1 << n) != 0).map(|n| own[n]).chain(["x/y"]).collect();
            let mut found = object(true, &held, &json!({"metadata": {"labels": {LOCAL_PATH_NODE: "n"}}}));
            for _ in 0..2 {
                found = match volume(&found) {
                    Hold::Released(after) | Hold::Folder { after, .. } => after,
                    Hold::Stays => found,
                };
            }
            assert_eq!(volume(&found), Hold::Stays, "{held:?}");
            let found = claim(&found, [].iter()).unwrap_or(found);
            assert_eq!((claim(&found, [].iter()), finalizers(&found)), (None, vec!["x/y"]), "{held:?}");
        }
    }
}
