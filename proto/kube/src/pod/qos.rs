//! Quality of service: the class of a pod, and the kernel's numbers that follow from it.

use serde_json::Value;

use super::resources::{Amounts, quantity};
use super::{containers, init_containers};
use crate::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

const SYSTEM_CRITICAL_PRIORITY: i64 = 2_000_000_000;
/// The kernel's period for CPU quotas.
pub const CPU_PERIOD_MICROS: i64 = 100_000;
const CPU_QUOTA_MIN_MICROS: i64 = 1_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

/// Guaranteed when every container limits cpu and memory and asks for just that; BestEffort when none says anything.
pub fn class(pod: &Object) -> QosClass {
    let all = || containers(pod).iter().chain(init_containers(pod));
    let pod_level = pod.get("/spec/resources");
    let lists = |holder: &Value| {
        ["cpu", "memory"].map(|name| {
            let amount = |list: &str| holder["resources"][list].get(name).and_then(quantity).filter(|q| !q.is_zero());
            (amount("requests"), amount("limits"))
        })
    };
    let of_pod = pod_level.map(|resources| lists(&serde_json::json!({"resources": resources})));
    let each: Vec<_> = match of_pod {
        Some(pairs) if pairs.iter().any(|(r, l)| r.is_some() || l.is_some()) => vec![pairs],
        _ => all().map(lists).collect(),
    };
    if each.iter().flatten().all(|(request, limit)| request.is_none() && limit.is_none()) {
        return QosClass::BestEffort;
    }
    let exact =
        each.iter().flatten().all(|(request, limit)| limit.is_some() && (request.is_none() || request == limit));
    if exact { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// How readily the kernel's OOM killer takes a container: the more memory it asked for, the later.
pub fn oom_score_adj(pod: &Object, container: &Value, node_memory_bytes: i64) -> i64 {
    if pod.i64_at("/spec/priority").is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY) {
        return -997;
    }
    match class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let asked = Amounts::from_list(&container["resources"]["requests"]).memory_bytes;
            let score = 1000 - 1000_i128 * i128::from(asked) / i128::from(node_memory_bytes.max(1));
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// cgroup v1's cpu.shares for a request (the runtime turns them into a weight on v2).
pub fn cpu_shares(request_milli: i64) -> i64 {
    (request_milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// The quota of each period for a limit; 0 is: no limit.
pub fn cpu_quota_micros(limit_milli: i64) -> i64 {
    if limit_milli <= 0 {
        return 0;
    }
    (limit_milli.saturating_mul(CPU_PERIOD_MICROS) / 1000).max(CPU_QUOTA_MIN_MICROS)
}
