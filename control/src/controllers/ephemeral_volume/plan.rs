use std::sync::Arc;

use gantry_kube::Object;
use serde_json::{Value, json};

use crate::controllers::informers::Pod;

/// The claims that a pod still needs; or the name of one that is there and is not the pod's.
pub fn missing(pod: &Pod, claim: impl Fn(&str) -> Option<Arc<Object>>) -> Result<Vec<Object>, String> {
    if !pod.active() {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for (name, template) in &pod.claim_templates {
        match claim(name) {
            None => made.push(make(pod, name, template)),
            Some(found) if found.controller().is_some_and(|owner| owner["uid"] == pod.uid) => {}
            Some(_) => return Err(name.clone()),
        }
    }
    Ok(made)
}

fn make(pod: &Pod, name: &str, template: &Value) -> Object {
    let at = pod.reference();
    let owner = json!({
        "apiVersion": "v1", "kind": "Pod", "name": at.name, "uid": pod.uid, "controller": true,
        "blockOwnerDeletion": true,
    });
    let mut metadata = json!({"name": name, "namespace": at.namespace, "ownerReferences": [owner]});
    for key in ["labels", "annotations"] {
        if let Some(map) = template["metadata"].get(key).filter(|map| map.is_object()) {
            metadata[key] = map.clone();
        }
    }
    let spec = template["spec"].clone();
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
    Object::from_value(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pod() -> Pod {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let own = |name: &str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": template}});
        let volumes = json!([own("scratch"), {"name": "v"}, own("cache")]);
        let metadata = json!({"name": "p", "namespace": "a", "uid": "u"});
        Pod::project(Object::from_value(json!({"metadata": metadata, "spec": {"volumes": volumes}})).unwrap())
    }

    #[test]
    fn a_claim_is_of_the_pods_template_and_goes_with_it() {
        let made = missing(&pod(), |_| None).unwrap().remove(0);
        assert_eq!((made.name(), made.label("a")), ("p-scratch", Some("b")));
        assert_eq!(made.controller().unwrap()["uid"], "u");
        assert_eq!(made.str_at("/spec/accessModes/0"), "ReadWriteOnce");
        let over = Pod { phase: "Succeeded".to_owned(), ..pod() };
        assert_eq!(missing(&over, |_| None), Ok(Vec::new()));
    }

    #[test]
    fn only_the_pods_own_will_do() {
        let mut foreign = missing(&pod(), |_| None).unwrap().remove(1);
        foreign.metadata_mut().remove("ownerReferences");
        let foreign = Arc::new(foreign);
        let there = |name: &str| (name == "p-cache").then(|| foreign.clone());
        assert_eq!(missing(&pod(), there), Err("p-cache".to_owned()));
    }

    /// Whichever are there already: once those that are missing are made, none is.
    #[test]
    fn fixpoint() {
        let all = missing(&pod(), |_| None).unwrap();
        assert_eq!(all.len(), 2);
        for there in 0..4 {
            let some = all.iter().enumerate().filter(|(n, _)| there & (1 << n) != 0).map(|(_, claim)| claim.clone());
            let mut world: BTreeMap<String, Arc<Object>> =
                some.map(|claim| (claim.name().to_owned(), Arc::new(claim))).collect();
            let made = missing(&pod(), |name| world.get(name).cloned()).unwrap();
            assert_eq!(world.len() + made.len(), 2);
            world.extend(made.into_iter().map(|claim| (claim.name().to_owned(), Arc::new(claim))));
            assert_eq!(missing(&pod(), |name| world.get(name).cloned()), Ok(Vec::new()));
        }
    }
}
