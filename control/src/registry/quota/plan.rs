//! What objects use of a quota, and whether they may.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube::pod::{containers, init_containers, is_terminal, qos, resources};
use gantry_kube::quantity::{Format, Quantity};
use gantry_kube::resource::{PERSISTENT_VOLUME_CLAIM, POD, SERVICE};
use gantry_kube::{Object, Resource, resource, storage};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

pub type Amounts = BTreeMap<String, Quantity>;

/// Resources that each container must name where a quota bounds their sum.
const NAMED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Between the name of a storage class and what is counted of its claims.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

fn amounts(list: Option<&Value>) -> Amounts {
    let all = list.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), resources::quantity(value)?))).collect()
}

pub fn hard(quota: &Object) -> Amounts {
    amounts(quota.get("/spec/hard"))
}

fn used(quota: &Object) -> Amounts {
    amounts(quota.get("/status/used"))
}

fn written(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect::<Map<_, _>>())
}

/// `cpu=1,pods=3`.
fn printed<'a>(names: &BTreeSet<&'a str>, amount: impl Fn(&'a str) -> Quantity) -> String {
    names.iter().map(|name| format!("{name}={}", amount(name))).collect::<Vec<_>>().join(",")
}

fn count(number: usize) -> Quantity {
    Quantity::from_i64(number as i64, Format::DecimalSi)
}

/// The kinds whose objects a quota counts.
pub fn kinds(quota: &Object) -> Vec<&'static Resource> {
    let hard = hard(quota);
    let counted = |kind: &Resource| {
        let by_name = format!("count/{}", kind.qualified());
        let plain = kind.group.is_empty() && hard.contains_key(kind.plural);
        let more = match kind {
            kind if *kind == POD => hard.keys().any(|name| !name.contains('/') || name.starts_with("requests.")),
            kind if *kind == PERSISTENT_VOLUME_CLAIM => {
                hard.keys().any(|name| name == "requests.storage" || name.contains(OF_CLASS))
            }
            kind if *kind == SERVICE => hard.keys().any(|name| name.starts_with("services.")),
            _ => false,
        };
        plain || more || hard.contains_key(&by_name)
    };
    resource::ALL.iter().copied().filter(|kind| is_counted(kind) && counted(kind)).collect()
}

/// Whether objects of a kind can use up a quota at all.
pub fn is_counted(kind: &Resource) -> bool {
    kind.namespaced && !kind.virtual_only && kind.kind != "Event"
}

/// What an object uses, by the names that quotas have for it.
pub fn usage(kind: &Resource, object: &Object, now: Timestamp) -> Amounts {
    let mut all = Amounts::from([(format!("count/{}", kind.qualified()), count(1))]);
    if *kind == POD {
        if !is_over(object, now) {
            pod(object, &mut all);
        }
    } else if *kind == SERVICE {
        service(object, &mut all);
    } else if *kind == PERSISTENT_VOLUME_CLAIM {
        claim(object, &mut all);
    } else if kind.group.is_empty() {
        all.insert(kind.plural.to_owned(), count(1));
    }
    all
}

/// A pod that has ended, or should long have, holds nothing.
fn is_over(pod: &Object, now: Timestamp) -> bool {
    let grace = SignedDuration::from_secs(pod.i64_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0));
    let end =
        pod.deletion_timestamp().and_then(|at| at.parse::<Timestamp>().ok()).and_then(|at| at.checked_add(grace).ok());
    is_terminal(pod) || end.is_some_and(|end| now > end)
}

fn pod(pod: &Object, all: &mut Amounts) {
    all.insert("pods".to_owned(), count(1));
    let overhead = amounts(pod.get("/spec/overhead"));
    for (list, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        let mut sum = resources::total(pod, list);
        for (name, more) in &overhead {
            // What has no limit has none with its overhead, either.
            if list == "requests" || sum.get(name).is_some_and(|limit| !limit.is_zero()) {
                let slot = sum.entry(name.clone()).or_insert(Quantity::ZERO);
                *slot = slot.add(*more);
            }
        }
        for (name, amount) in sum {
            let native =
                matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            if native && list == "requests" {
                all.insert(name.clone(), amount);
            }
            if list == "requests" || (native && !name.starts_with("hugepages-")) {
                all.insert(format!("{prefix}{name}"), amount);
            }
        }
    }
}

fn service(service: &Object, all: &mut Amounts) {
    let ports = service.array_at("/spec/ports");
    all.insert("services".to_owned(), count(1));
    match service.str_at("/spec/type") {
        "NodePort" => drop(all.insert("services.nodeports".to_owned(), count(ports.len()))),
        "LoadBalancer" => {
            let asked = ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
            let given = service.bool_at("/spec/allocateLoadBalancerNodePorts") != Some(false);
            all.insert("services.nodeports".to_owned(), count(if given { ports.len() } else { asked }));
            all.insert("services.loadbalancers".to_owned(), count(1));
        }
        _ => {}
    }
}

fn claim(claim: &Object, all: &mut Amounts) {
    let (number, room) = ("persistentvolumeclaims", "requests.storage");
    let asked = storage::requested(claim);
    all.extend([(number.to_owned(), count(1)), (room.to_owned(), asked)]);
    if let Some(class) = storage::class_of(claim).filter(|class| !class.is_empty()) {
        all.extend([(format!("{class}{OF_CLASS}{number}"), count(1)), (format!("{class}{OF_CLASS}{room}"), asked)]);
    }
}

/// Whether the quota is about this object: scopes are about pods.
pub fn is_about(quota: &Object, kind: &Resource, object: &Object) -> bool {
    let plain =
        quota.array_at("/spec/scopes").iter().map(|scope| (scope.as_str().unwrap_or(""), "Exists", &Value::Null));
    let terms = quota.array_at("/spec/scopeSelector/matchExpressions").iter();
    let terms =
        terms.map(|t| (t["scopeName"].as_str().unwrap_or(""), t["operator"].as_str().unwrap_or(""), &t["values"]));
    plain.chain(terms).all(|(scope, operator, values)| *kind == POD && is_in_scope(object, scope, operator, values))
}

fn is_in_scope(pod: &Object, scope: &str, operator: &str, values: &Value) -> bool {
    let ends = pod.i64_at("/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    let careless = qos::class(pod) == qos::QosClass::BestEffort;
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => careless,
        "NotBestEffort" => !careless,
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        "PriorityClass" => {
            let class = pod.str_at("/spec/priorityClassName");
            let listed = values.as_array().is_some_and(|values| values.iter().any(|value| value == class));
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        }
        _ => false,
    }
}

/// An affinity to pods of other namespaces.
fn looks_elsewhere(pod: &Object) -> bool {
    let elsewhere = |term: &Value| {
        !term["namespaceSelector"].is_null() || term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |list: &str| pod.array_at(&format!("/spec/affinity/{kind}/{list}"));
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(elsewhere)
            || terms("preferredDuringSchedulingIgnoredDuringExecution").iter().any(|t| elsewhere(&t["podAffinityTerm"]))
    })
}

/// The quota after an object is made, or changed from `old`; `None` where it uses no more of it than before. Or why it may
/// not.
pub fn charge(
    quota: &Object,
    kind: &Resource,
    new: &Object,
    old: Option<&Object>,
    now: Timestamp,
) -> Result<Option<Object>, String> {
    if !is_about(quota, kind, new) {
        return Ok(None);
    }
    let (name, hard, mut used) = (quota.name(), hard(quota), used(quota));
    if *kind == POD && old.is_none() {
        must_say(new, &hard).map_err(|why| format!("failed quota: {name}: {why}"))?;
    }
    let before = old.map(|old| usage(kind, old, now)).unwrap_or_default();
    let mut asked = usage(kind, new, now);
    asked.retain(|name, amount| {
        *amount = amount.sub(before.get(name).copied().unwrap_or(Quantity::ZERO));
        hard.contains_key(name) && *amount > Quantity::ZERO
    });
    if asked.is_empty() {
        return Ok(None);
    }
    let of = |all: &Amounts, name: &str| all.get(name).copied().unwrap_or(Quantity::ZERO);
    let over = |name: &&str| of(&used, name).add(of(&asked, name)) > of(&hard, name);
    let exceeded: BTreeSet<&str> = asked.keys().map(String::as_str).filter(over).collect();
    if !exceeded.is_empty() {
        let [asked, used, hard] = [&asked, &used, &hard].map(|all| printed(&exceeded, |name| of(all, name)));
        return Err(format!("exceeded quota: {name}, requested: {asked}, used: {used}, limited: {hard}"));
    }
    for (name, amount) in asked {
        let slot = used.entry(name).or_insert(Quantity::ZERO);
        *slot = slot.add(amount);
    }
    let mut charged = quota.clone();
    charged.map_mut("status").insert("used".to_owned(), written(&used));
    Ok(Some(charged))
}

/// Where a sum is bounded, each part of it must be known.
fn must_say(pod: &Object, hard: &Amounts) -> Result<(), String> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for required in NAMED.iter().filter(|name| hard.contains_key(**name)) {
        let (list, name) = required.split_once('.').unwrap_or(("requests", required));
        // What is said for the pod as a whole is known.
        if pod.get("/spec/resources").is_some_and(|whole| whole[list].get(name).is_some()) {
            continue;
        }
        for container in init_containers(pod).iter().chain(containers(pod)) {
            if container["resources"][list].get(name).is_none() {
                missing.entry(required).or_default().insert(container["name"].as_str().unwrap_or(""));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let words = missing
        .iter()
        .map(|(resource, names)| format!("{resource} for: {}", names.iter().copied().collect::<Vec<_>>().join(",")));
    Err(format!("must specify {}", words.collect::<Vec<_>>().join("; ")))
}

/// Whether the status has a number for all that the quota bounds now.
pub fn is_counted_out(quota: &Object) -> bool {
    let (hard, used) = (hard(quota), used(quota));
    amounts(quota.get("/status/hard")) == hard && hard.keys().all(|name| used.contains_key(name))
}

/// The status, counted from all objects of the namespace.
pub fn recount<'a>(quota: &Object, objects: impl Iterator<Item = (&'a Resource, &'a Object)>, now: Timestamp) -> Value {
    let hard = hard(quota);
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for (kind, object) in objects.filter(|(kind, object)| is_about(quota, kind, object)) {
        for (name, amount) in usage(kind, object, now) {
            if let Some(slot) = used.get_mut(&name) {
                *slot = slot.add(amount);
            }
        }
    }
    json!({"hard": written(&hard), "used": written(&used)})
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
