//! DefaultIngressClass: an Ingress that names no class is of the default one.

use std::cmp::Reverse;

use gantry_kube::Object;
use gantry_kube::resource::{INGRESS, INGRESS_CLASS};
use serde_json::json;

use super::{AdmissionContext, Operation};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How an Ingress named its class before there was a field.
const CLASS: &str = "kubernetes.io/ingress.class";

pub fn choose(context: &AdmissionContext<'_>, ingress: &mut Object) {
    let named = ingress.get("/spec/ingressClassName").is_some() || ingress.annotation(CLASS).is_some();
    if named || !context.is(&INGRESS, "") || context.operation != Operation::Create {
        return;
    }
    let defaults = context.lookup.list(&INGRESS_CLASS, None).into_iter();
    let defaults = defaults.filter(|class| class.annotation(DEFAULT) == Some("true"));
    // Of several the newest.
    let order = |class: &std::sync::Arc<Object>| {
        (Reverse(class.str_at("/metadata/creationTimestamp").to_owned()), class.name().to_owned())
    };
    if let Some(class) = defaults.min_by_key(order) {
        ingress.map_mut("spec").insert("ingressClassName".to_owned(), json!(class.name()));
    }
}
