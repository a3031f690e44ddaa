//! What the subresources do: scale, binding, eviction, finalize and status are changes of the object they belong to.

use gantry_kube::custom::scale::ScalePaths;
use gantry_kube::selector::LabelSelector;
use gantry_kube::{FieldError, Object, Ref, Resource, Status, resource, validation};
use serde_json::{Value, json};

use super::update::Part;
use super::{Answer, Registry, Writer};
use crate::admission::Operation;
use crate::registry::admit::Target;
use crate::trace::Step;

/// Where most objects have their replicas, and each Scale does.
pub(super) const REPLICAS: &str = ".spec.replicas";

/// The Scale of whatever has replicas; of a custom object, where its definition says that they are.
pub fn scale_of(object: &Object, custom: Option<&ScalePaths>) -> Result<Object, Status> {
    match custom {
        Some(paths) => custom_scale(object, paths),
        None => Ok(built_in_scale(object)),
    }
}

fn custom_scale(object: &Object, paths: &ScalePaths) -> Result<Object, Status> {
    let found = paths.read(object);
    let Some(replicas) = found.spec_replicas else {
        return Err(Status::internal(format!("the spec replicas field {:?} does not exist", paths.spec_replicas)));
    };
    let mut status = json!({"replicas": found.status_replicas});
    if !found.selector.is_empty() {
        status["selector"] = json!(found.selector);
    }
    Ok(scale(object, Some(replicas), status))
}

fn built_in_scale(object: &Object) -> Object {
    let mut status = json!({"replicas": object.i64_at("/status/replicas").unwrap_or(0)});
    if let Some(selector) = crate::controllers::dependents::plan::selector(object) {
        status["selector"] = json!(selector_text(&selector));
    }
    scale(object, object.i64_at("/spec/replicas"), status)
}

fn scale(object: &Object, replicas: Option<i64>, status: Value) -> Object {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = replicas.filter(|r| *r != 0) {
        spec["replicas"] = json!(replicas);
    }
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, "status": status});
    Object::from_value(scale).unwrap_or_default()
}

fn selector_text(selector: &LabelSelector) -> String {
    use gantry_kube::selector::Requirement;
    let terms: Vec<String> = selector
        .0
        .iter()
        .map(|requirement| match requirement {
            Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", values[0]),
            Requirement::In(key, values) => format!("{key} in ({})", values.join(",")),
            Requirement::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Requirement::Exists(key) => key.clone(),
            Requirement::DoesNotExist(key) => format!("!{key}"),
            Requirement::GreaterThan(key, bound) => format!("{key}>{bound}"),
            Requirement::LessThan(key, bound) => format!("{key}<{bound}"),
        })
        .collect();
    terms.join(",")
}

impl Registry {
    /// Sets the replicas of a workload to what `change` makes of its Scale.
    pub async fn scale(
        &self,
        writer: &Writer<'_>,
        resource: &'static Resource,
        at: &Ref,
        mut change: impl FnMut(&Object) -> Result<Object, Status>,
    ) -> Result<Answer, Status> {
        let custom = self.custom(resource)?;
        let paths = custom.as_ref().and_then(|custom| custom.scale.as_ref());
        let answer = self
            .modify(writer, resource, at, Part::Scale, |old| {
                let scale = change(&scale_of(old, paths)?)?;
                let version = scale.resource_version();
                if !version.is_empty() && version != old.resource_version() {
                    return Err(Status::stale(resource, old.name()));
                }
                scaled(resource, old, &scale, paths)
            })
            .await?;
        let scaled = self.answer_object(resource, &answer).await?;
        Ok(Answer::Made(scale_of(&scaled, paths)?))
    }

    /// Binds a pod to a node: once, and never again.
    pub async fn bind(&self, writer: &Writer<'_>, at: &Ref, mut binding: Object) -> Result<(), Status> {
        let target = Target {
            resource: &resource::POD,
            subresource: "binding",
            operation: Operation::Create,
            namespace: &at.namespace,
            name: &at.name,
        };
        self.admit(writer, &target, &mut binding, None)?;
        let node = binding.str_at("/target/name").to_owned();
        let errors = validation::pod::binding(&binding);
        if !errors.is_empty() {
            return Err(Status::invalid(&resource::POD, &at.name, &errors));
        }
        let now = self.env.clock.now_rfc3339();
        let bound =
            self.modify(writer, &resource::POD, at, Part::Whole, |old| bound_to(old, &binding, &node, &now)).await?;
        if !writer.options.dry_run {
            self.trace.record(bound.object().uid(), Step::Bound, self.trace.now());
        }
        Ok(())
    }
}

/// The object with the replicas that a Scale asks for.
pub(super) fn scaled(
    resource: &Resource,
    old: &Object,
    scale: &Object,
    custom: Option<&ScalePaths>,
) -> Result<Object, Status> {
    let replicas = scale.i64_at("/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        let error = FieldError::invalid("spec.replicas", replicas, why);
        return Err(Status::invalid(resource, old.name(), &[error]));
    }
    let mut new = old.clone();
    match custom {
        Some(paths) => paths.write(&mut new, replicas).map_err(Status::internal)?,
        None => drop(new.map_mut("spec").insert("replicas".to_owned(), json!(replicas))),
    }
    if new != *old {
        let generation = old.generation() + 1;
        new.metadata_mut().insert("generation".to_owned(), json!(generation));
    }
    Ok(new)
}

/// The pod as bound to `node`, or why it cannot be.
fn bound_to(old: &Object, binding: &Object, node: &str, now: &str) -> Result<Object, Status> {
    let name = old.name();
    let conflict = |why: String| Err(Status::conflict(&resource::POD, name, &why));
    if !binding.uid().is_empty() && binding.uid() != old.uid() {
        let (wanted, found) = (binding.uid(), old.uid());
        return conflict(format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"));
    }
    if old.deletion_timestamp().is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = old.str_at("/spec/nodeName");
    if !assigned.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if !old.array_at("/spec/schedulingGates").is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = old.clone();
    new.map_mut("spec").insert("nodeName".to_owned(), json!(node));
    for field in ["labels", "annotations"] {
        let Some(added) = binding.get(&format!("/metadata/{field}")).and_then(Value::as_object) else { continue };
        let into = new.metadata_mut().entry(field).or_insert_with(|| json!({}));
        if let Some(into) = into.as_object_mut() {
            into.extend(added.clone());
        }
    }
    let mut conditions: Vec<Value> =
        old.array_at("/status/conditions").iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
    conditions
        .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    if let Some(last) = conditions.last_mut().and_then(Value::as_object_mut) {
        // Null means absent in the canonical form.
        last.remove("lastProbeTime");
    }
    new.map_mut("status").insert("conditions".to_owned(), Value::Array(conditions));
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(extra: Value) -> Object {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {}, "status": {}});
        json_patch::merge(&mut pod, &extra);
        Object::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = Object::from_value(json!({"target": {"kind": "Node", "name": "a"}})).unwrap();
        let bound = bound_to(&pod(json!({})), &binding, "a", "now").unwrap();
        assert_eq!(bound.str_at("/spec/nodeName"), "a");
        assert_eq!(bound.str_at("/status/conditions/0/status"), "True");
        let again = bound_to(&bound, &binding, "b", "now").unwrap_err();
        assert_eq!(again.code, 409);
        assert!(again.message.contains("already assigned to node \"a\""), "{}", again.message);
        let leaving = pod(json!({"metadata": {"deletionTimestamp": "t"}}));
        assert_eq!(bound_to(&leaving, &binding, "a", "now").unwrap_err().code, 409);
        let other = Object::from_value(json!({"metadata": {"uid": "x"}, "target": {"name": "a"}})).unwrap();
        assert_eq!(bound_to(&pod(json!({})), &other, "a", "now").unwrap_err().code, 409);
    }

    #[test]
    fn a_scale_is_a_view() {
        let deployment = Object::from_value(json!({"metadata": {"name": "d", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 2}}))
        .unwrap();
        let scale = scale_of(&deployment, None).unwrap();
        assert_eq!((scale.kind(), scale.i64_at("/spec/replicas")), ("Scale", Some(3)));
        assert_eq!(scale.str_at("/status/selector"), "a=b");
        assert_eq!(scale.resource_version(), "5");
    }
}
