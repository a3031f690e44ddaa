//! Server-side apply, by two who apply to one object. Whatever they say, the laws of it hold: the same again changes nothing,
//! who insists owns what was said, and what is left out goes unless the other wants it.

use gantry_control::registry::apply::applied;
use gantry_kube::apply::{Fields, Typed};
use gantry_kube::resource::{CONFIG_MAP, DEPLOYMENT, POD, SERVICE};
use gantry_kube::{Object, Ref, Resource, schema};
use serde_json::Value;

use super::input::{Input, chosen};

/// Whose fields are whose, by what the record says.
fn owned(object: &Object, manager: &str) -> Fields {
    let entries = object.array_at("/metadata/managedFields").iter().filter(|entry| entry["manager"] == manager);
    let mut all = Fields::default();
    for fields in entries.filter_map(|entry| entry["fieldsV1"].as_object()) {
        all.union(&Fields::read(fields));
    }
    all
}

fn is_within(part: &Fields, whole: &Fields) -> bool {
    let mut missing = part.clone();
    missing.subtract(whole);
    missing.is_empty()
}

/// A kind, and what each of the two says, ended by a NUL.
pub(super) fn apply(data: &[u8]) {
    let mut input = Input(data);
    let resource = input.resource();
    let (first, second) = (input.until(0), input.until(0));
    let at = Ref::new(if resource.namespaced { "n" } else { "" }, "a");
    let by = |old: Option<&Object>, said: &[u8], name: &str, force| applied(resource, &at, old, said, force, name);
    let Ok(made) = by(None, first, "one", false) else { return };
    let again = by(Some(&made), first, "one", false).expect("what was applied can be applied");
    assert_eq!(again, made, "the same again");
    let Ok(taken) = by(Some(&made), second, "two", true) else { return };
    let theirs = owned(&taken, "two");
    let still = owned(&taken, "one");
    assert!(is_within(&still, &owned(&made, "one")), "nobody is given what he did not ask for");
    let again = by(Some(&taken), second, "two", false).expect("who owns it meets nobody");
    assert_eq!(again, taken, "the same again, and without force");
    let nothing = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\"}}", resource.api_version(), resource.kind);
    let left = by(Some(&taken), nothing.as_bytes(), "two", false).expect("to want nothing is in nobody's way");
    assert!(owned(&left, "two").is_empty(), "who wants nothing owns nothing");
    assert_eq!(owned(&left, "one"), still, "the other has what he had");
    gone(resource, &left, &theirs, &still);
}

/// Of what only one owned, nothing is left that no default brings back.
fn gone(resource: &Resource, left: &Object, theirs: &Fields, still: &Fields) {
    let Some(ty) = schema::for_kind(resource.group, resource.version, resource.kind) else { return };
    let mut only = theirs.clone();
    only.subtract(still);
    // Labels and annotations have no defaults.
    let has = Typed::kind(ty).fields(&Value::Object(left.0.clone()));
    let metadata = |fields: &Fields| {
        let paths = fields.paths().into_iter();
        paths
            .filter(|path| path.starts_with(".metadata.labels.") || path.starts_with(".metadata.annotations."))
            .collect::<Vec<_>>()
    };
    let rest = metadata(&only.intersection(&has));
    assert!(rest.is_empty(), "left behind: {rest:?}");
}

pub(super) fn apply_seeds() -> Vec<Vec<u8>> {
    let seed = |resource: &Resource, first: &str, second: &str| {
        [&[chosen(resource)], first.as_bytes(), &[0], second.as_bytes(), &[0]].concat()
    };
    vec![
        seed(
            &CONFIG_MAP,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"x":"1","y":"1"}},"data":{"a":"1","b":"2"}}"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"x":"1","z":"1"},"finalizers":["a/b"]},"data":{"a":"2","c":""}}"#,
        ),
        seed(
            &DEPLOYMENT,
            r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"spec":{"containers":[{"name":"c","image":"x","ports":[{"containerPort":80}],"env":[{"name":"A","value":"1"}]}]}}}}"#,
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: 0\n  paused: false\n  template: {spec: {containers: [{name: c, image: y}, {name: d, args: []}], volumes: null}}\n",
        ),
        seed(
            &SERVICE,
            r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"port":80,"protocol":"TCP","targetPort":8080}],"selector":{}}}"#,
            r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"port":80,"name":"web"},{"port":53,"protocol":"UDP"}]}}"#,
        ),
        seed(
            &POD,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"a":"1"},"ownerReferences":[{"uid":"u","kind":"K","name":"n","apiVersion":"v1"}]},"spec":{"tolerations":[{"key":"a"}],"containers":[{"name":"c"}]}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"a":"2","b":"1"}},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"0.5"}}}]}}"#,
        ),
    ]
}
