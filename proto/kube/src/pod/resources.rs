//! What a pod asks for and may use: init containers run one after the other, sidecars and containers side by side.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{containers, init_containers, is_sidecar};
use crate::Object;
use crate::quantity::Quantity;

/// Amounts of resources: cores in thousandths, the rest in whole units (bytes for memory).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
    /// Every other resource by its name (`hugepages-2Mi`, `example.com/gpu`).
    pub other: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a resource list (`{"cpu": "500m", "memory": "1Gi"}`); what is no quantity counts as nothing.
    pub fn from_list(list: &Value) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, value) in list.as_object().into_iter().flatten() {
            let Some(quantity) = quantity(value) else { continue };
            match name.as_str() {
                "cpu" => amounts.cpu_milli = quantity.milli_value(),
                "memory" => amounts.memory_bytes = quantity.value(),
                "ephemeral-storage" => amounts.ephemeral_storage_bytes = quantity.value(),
                other => {
                    amounts.other.insert(other.to_owned(), quantity.value());
                }
            }
        }
        amounts
    }

    pub fn add(&mut self, more: &Amounts) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
        self.ephemeral_storage_bytes = self.ephemeral_storage_bytes.saturating_add(more.ephemeral_storage_bytes);
        for (name, amount) in &more.other {
            let slot = self.other.entry(name.clone()).or_insert(0);
            *slot = slot.saturating_add(*amount);
        }
    }

    /// Adds to what is there, and makes nothing that is not: what has no limit gets none by what is added to it.
    fn add_to_set(&mut self, more: &Amounts) {
        let add = |to: i64, more: i64| if to == 0 { 0 } else { to.saturating_add(more) };
        self.cpu_milli = add(self.cpu_milli, more.cpu_milli);
        self.memory_bytes = add(self.memory_bytes, more.memory_bytes);
        self.ephemeral_storage_bytes = add(self.ephemeral_storage_bytes, more.ephemeral_storage_bytes);
        for (name, amount) in &mut self.other {
            *amount = add(*amount, more.other.get(name).copied().unwrap_or(0));
        }
    }

    fn raise_to(&mut self, other: &Amounts) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_storage_bytes = self.ephemeral_storage_bytes.max(other.ephemeral_storage_bytes);
        for (name, amount) in &other.other {
            let slot = self.other.entry(name.clone()).or_insert(0);
            *slot = (*slot).max(*amount);
        }
    }
}

/// A quantity as JSON carries it: a string, or a bare number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// What the scheduler sets aside for a pod.
pub fn requests(pod: &Object) -> Amounts {
    effective(pod, "requests")
}

/// The most that a pod may use, where every container has a limit; containers without one add nothing.
pub fn limits(pod: &Object) -> Amounts {
    effective(pod, "limits")
}

/// What all containers of a pod ask for (`requests`) or may use (`limits`), as it was written: those that run side by side
/// add up, of those that run at the start the most counts. The pod's overhead is not among it.
pub fn total(pod: &Object, list: &str) -> BTreeMap<String, Quantity> {
    type All = BTreeMap<String, Quantity>;
    let of = |container: &Value| -> All {
        let amounts = container["resources"][list].as_object().into_iter().flatten();
        amounts.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
    };
    let add = |into: &mut All, more: &All| {
        for (name, amount) in more {
            let slot = into.entry(name.clone()).or_insert(Quantity::ZERO);
            *slot = slot.add(*amount);
        }
    };
    let raise = |into: &mut All, to: All| {
        for (name, amount) in to {
            let slot = into.entry(name).or_insert(amount);
            *slot = (*slot).max(amount);
        }
    };
    let (mut together, mut beside, mut at_start) = (All::new(), All::new(), All::new());
    for container in containers(pod) {
        add(&mut together, &of(container));
    }
    for init in init_containers(pod) {
        let mut now = beside.clone();
        add(&mut now, &of(init));
        if is_sidecar(init) {
            add(&mut together, &of(init));
            beside.clone_from(&now);
        }
        raise(&mut at_start, now);
    }
    raise(&mut together, at_start);
    together.extend(of_whole(pod, list).filter_map(|(name, value)| Some((name.clone(), quantity(value)?))));
    together
}

/// What is said for the pod as a whole, which stands in the place of the sum.
fn of_whole<'a>(pod: &'a Object, list: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let whole = pod.get("/spec/resources").and_then(|resources| resources[list].as_object());
    let counts = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    whole.into_iter().flatten().filter(move |(name, _)| counts(name))
}

fn effective(pod: &Object, list: &str) -> Amounts {
    let of = |container: &Value| Amounts::from_list(&container["resources"][list]);
    let mut together = Amounts::default();
    for container in containers(pod) {
        together.add(&of(container));
    }
    let (mut beside, mut at_start) = (Amounts::default(), Amounts::default());
    for init in init_containers(pod) {
        let amounts = of(init);
        if is_sidecar(init) {
            together.add(&amounts);
            beside.add(&amounts);
            at_start.raise_to(&beside);
        } else {
            let mut now = beside.clone();
            now.add(&amounts);
            at_start.raise_to(&now);
        }
    }
    together.raise_to(&at_start);
    for (name, value) in of_whole(pod, list) {
        let amount = Amounts::from_list(&Value::Object([(name.clone(), value.clone())].into_iter().collect()));
        match name.as_str() {
            "cpu" => together.cpu_milli = amount.cpu_milli,
            "memory" => together.memory_bytes = amount.memory_bytes,
            _ => together.other.extend(amount.other),
        }
    }
    let Some(overhead) = pod.get("/spec/overhead") else { return together };
    let overhead = Amounts::from_list(overhead);
    if list == "requests" {
        together.add(&overhead);
    } else {
        together.add_to_set(&overhead);
    }
    together
}
