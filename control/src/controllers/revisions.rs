//! ControllerRevisions: the templates that a DaemonSet or a StatefulSet has had, each kept as the patch that brings it
//! back (`kubectl rollout undo` sends it as it is).

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_client::{Client, ClientError, DeleteOptions, Patch};
use gantry_kube::{Object, Ref, resource};
use serde_json::{Map, Value, json};

use super::dependents::plan::{owner_reference, selector};

/// On every pod: of which revision it is.
pub const HASH_LABEL: &str = "controller-revision-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const REVISIONS_KEPT: usize = 10;

/// One effect on the revisions of an owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Create(Object),
    /// Strategic merge, with a uid precondition.
    Patch {
        at: Ref,
        patch: Value,
    },
    Delete {
        at: Ref,
        uid: String,
    },
}

/// What an owner's template is called now, and what was before it.
#[derive(Debug)]
pub struct History<'a> {
    pub name: String,
    /// The end of its name: it tells the templates of one owner apart.
    pub hash: String,
    /// Every revision but the current one, the oldest first.
    pub old: Vec<&'a Object>,
    pub changes: Vec<Change>,
}

/// The revision of the owner's template: an old one that says the same becomes the newest, else one is made.
pub fn plan<'a>(owner: &Object, all: &'a [Arc<Object>]) -> History<'a> {
    let (mut owned, mut changes) = claim(owner, all);
    owned.sort_by_key(|r| (number(r), r.str_at("/metadata/creationTimestamp"), r.name()));
    let (wanted, newest) = (data(owner), owned.last().map_or(0, |r| number(r)));
    let Some(at) = owned.iter().rposition(|r| r.0.get("data") == Some(&wanted)) else {
        let made = new(owner, wanted, newest + 1);
        let (name, hash) = (made.name().to_owned(), made.label(HASH_LABEL).unwrap_or("").to_owned());
        changes.push(Change::Create(made));
        return History { name, hash, old: owned, changes };
    };
    let current = owned.remove(at);
    if owned.iter().any(|r| number(r) >= number(current)) {
        let patch = json!({"metadata": {"uid": current.uid()}, "revision": newest + 1});
        changes.push(Change::Patch { at: current.reference(), patch });
    }
    let hash = current.label(HASH_LABEL).unwrap_or("").to_owned();
    History { name: current.name().to_owned(), hash, old: owned, changes }
}

fn claim<'a>(owner: &Object, all: &'a [Arc<Object>]) -> (Vec<&'a Object>, Vec<Change>) {
    let (selector, stays) = (selector(owner), owner.deletion_timestamp().is_none());
    let (mut owned, mut changes) = (Vec::new(), Vec::new());
    for revision in all {
        match revision.controller() {
            Some(controller) if controller["uid"] == owner.uid() => owned.push(revision.as_ref()),
            None if stays && selector.as_ref().is_some_and(|s| s.matches(revision.labels())) => {
                let patch = json!({"metadata": {"uid": revision.uid(), "ownerReferences": [owner_reference(owner)]}});
                changes.push(Change::Patch { at: revision.reference(), patch });
                owned.push(revision.as_ref());
            }
            _ => {}
        }
    }
    (owned, changes)
}

impl History<'_> {
    /// Old revisions beyond the owner's limit that no pod is of go, the oldest first.
    pub fn clean_up(&self, owner: &Object, in_use: impl Fn(&Object) -> bool) -> Vec<Change> {
        let limit = owner.i64_at("/spec/revisionHistoryLimit").and_then(|l| usize::try_from(l).ok());
        let spent: Vec<&&Object> = self.old.iter().filter(|r| !in_use(r)).collect();
        let surplus = spent.len().saturating_sub(limit.unwrap_or(REVISIONS_KEPT));
        spent[..surplus].iter().map(|r| Change::Delete { at: r.reference(), uid: r.uid().to_owned() }).collect()
    }
}

pub fn number(revision: &Object) -> i64 {
    revision.i64_at("/revision").unwrap_or(0)
}

/// The patch that gives an owner the template that it has now.
fn data(owner: &Object) -> Value {
    let mut template = owner.get("/spec/template").cloned().unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn new(owner: &Object, data: Value, number: i64) -> Object {
    let hash = short_hash(&data, owner.i64_at("/status/collisionCount").unwrap_or(0));
    let map = |pointer: &str| -> Map<String, Value> {
        owner.get(pointer).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut labels, mut annotations) = (map("/spec/template/metadata/labels"), map("/metadata/annotations"));
    labels.insert(HASH_LABEL.to_owned(), json!(hash));
    annotations.remove(LAST_APPLIED);
    Object::from_value(json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": format!("{}-{hash}", owner.name()), "namespace": owner.namespace(), "labels": labels,
            "annotations": annotations, "ownerReferences": [owner_reference(owner)],
        },
        "data": data, "revision": number,
    }))
    .unwrap_or_default()
}

/// A short name for a template: 32-bit FNV-1a of its canonical JSON, in the alphabet of generated names.
pub fn short_hash(template: &Value, collisions: i64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = format!("{template}{collisions}");
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// What became of the changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// The name of the new revision is taken by another object: another has to be found.
    Collision,
}

pub async fn apply(client: &Client, changes: &[Change]) -> Result<Applied, ClientError> {
    for change in changes {
        match change {
            Change::Create(revision) => match client.create(&resource::CONTROLLER_REVISION, revision).await {
                Err(error) if error.is_already_exists() => {
                    let taken = client.find(&resource::CONTROLLER_REVISION, &revision.reference()).await?;
                    // Ours, and the informer will show it; or somebody else's.
                    let ours = |taken: Object| {
                        taken.0.get("data") == revision.0.get("data")
                            && taken.controller().map(|o| &o["uid"]) == revision.controller().map(|o| &o["uid"])
                    };
                    if !taken.is_none_or(ours) {
                        return Ok(Applied::Collision);
                    }
                }
                made => drop(made?),
            },
            Change::Patch { at, patch } => {
                client.patch(&resource::CONTROLLER_REVISION, at, "", Patch::Strategic(patch.clone())).await?;
            }
            Change::Delete { at, uid } => {
                let options = DeleteOptions { uid: Some(uid.clone()), ..DeleteOptions::default() };
                match client.delete(&resource::CONTROLLER_REVISION, at, &options).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(Applied::Done)
}

/// Hashes that pods carry.
pub fn in_use<'a>(labels: impl Iterator<Item = &'a Map<String, Value>>) -> BTreeSet<&'a str> {
    labels.filter_map(|labels| labels.get(HASH_LABEL)?.as_str()).collect()
}

/// What tests do with changes: the same as the API would.
#[cfg(test)]
pub fn act_out(world: &mut Vec<Arc<Object>>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Create(revision) => {
                let (mut made, uid) = (revision.clone(), format!("r-{}", revision.name()));
                made.metadata_mut().insert("uid".into(), json!(uid));
                world.push(Arc::new(made));
            }
            Change::Patch { at, patch } => {
                let revision = world.iter_mut().find(|r| &r.reference() == at).unwrap();
                let mut value = revision.as_ref().clone().into_value();
                json_patch::merge(&mut value, patch);
                *revision = Arc::new(Object::from_value(value).unwrap());
            }
            Change::Delete { uid, .. } => world.retain(|r| r.uid() != uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str) -> Object {
        Object::from_value(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "n", "uid": "o", "annotations": {LAST_APPLIED: "x", "a": "b"}},
            "spec": {"revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "d"}}, "template": {
                "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .unwrap()
    }

    fn turn(world: &mut Vec<Arc<Object>>, image: &str) -> (String, i64) {
        let seen = world.clone();
        let history = plan(&owner(image), &seen);
        act_out(world, &history.changes);
        let again = world.clone();
        assert!(plan(&owner(image), &again).changes.is_empty(), "the plan is not empty after its apply");
        let of = world.iter().find(|r| r.label(HASH_LABEL) == Some(&history.hash)).unwrap();
        (history.hash, number(of))
    }

    #[test]
    fn a_template_that_comes_back_becomes_the_newest() {
        let mut world = Vec::new();
        let (first, one) = turn(&mut world, "v1");
        let (second, two) = turn(&mut world, "v2");
        let (third, three) = turn(&mut world, "v1");
        assert_eq!((one, two, three, first == second, first == third), (1, 2, 3, false, true));
        assert_eq!(world[0].str_at("/data/spec/template/$patch"), "replace");
        assert_eq!((world[0].annotation("a"), world[0].annotation(LAST_APPLIED)), (Some("b"), None));
    }

    #[test]
    fn what_no_pod_is_of_goes_beyond_the_limit_the_oldest_first() {
        let mut world = Vec::new();
        let hashes: Vec<String> = ["v1", "v2", "v3", "v4"].map(|v| turn(&mut world, v).0).to_vec();
        let seen = world.clone();
        let history = plan(&owner("v4"), &seen);
        let gone = history.clean_up(&owner("v4"), |r| r.label(HASH_LABEL) == Some(&hashes[0]));
        let [Change::Delete { at, .. }] = &gone[..] else { panic!("{gone:?}") };
        assert!(at.name.ends_with(&hashes[1]), "{at} is not of the second");
    }

    #[test]
    fn an_orphan_is_adopted_and_a_strangers_left_alone() {
        let mut world = Vec::new();
        turn(&mut world, "v1");
        let mut orphan = world[0].as_ref().clone();
        orphan.metadata_mut().remove("ownerReferences");
        let mut foreign = orphan.clone();
        foreign.metadata_mut().insert("name".into(), json!("x"));
        foreign.metadata_mut().insert("ownerReferences".into(), json!([{"uid": "z", "controller": true}]));
        let all = [Arc::new(orphan), Arc::new(foreign)];
        let history = plan(&owner("v1"), &all);
        assert!(history.old.is_empty());
        assert!(matches!(&history.changes[..], [Change::Patch { .. }]), "{:?}", history.changes);
    }
}
