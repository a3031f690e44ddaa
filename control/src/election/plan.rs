//! Who leads, decided from the lease as it was read. Pure.

use std::time::Duration;

use gantry_env::format_micros;
use gantry_kube::resource::LEASE;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::json;

use super::LEASE_SECONDS;

/// What one look at the lease comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is no lease: whoever makes it leads.
    Create(Object),
    /// The lease is ours, or nobody's: whoever replaces what was read leads.
    Update(Object),
    /// Another leads.
    Wait,
}

/// `silent` is how long the lease has not changed before our eyes: the clocks of two hosts are never quite one.
pub fn plan(at: &Ref, found: Option<&Object>, me: &str, silent: Duration, now: Timestamp) -> Step {
    let time = format_micros(now);
    let Some(found) = found else {
        return Step::Create(object(
            at,
            json!({
                "holderIdentity": me, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": time, "renewTime": time,
                "leaseTransitions": 0,
            }),
        ));
    };
    let holder = found.str_at("/spec/holderIdentity");
    let mut lease = found.clone();
    if holder == me {
        lease.map_mut("spec").insert("renewTime".to_owned(), json!(time));
        return Step::Update(lease);
    }
    let lasts = found.get("/spec/leaseDurationSeconds").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if !holder.is_empty() && silent < Duration::from_secs(lasts) {
        return Step::Wait;
    }
    let transitions = found.get("/spec/leaseTransitions").and_then(serde_json::Value::as_i64).unwrap_or(0);
    lease.0.insert(
        "spec".to_owned(),
        json!({
            "holderIdentity": me, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": time, "renewTime": time,
            "leaseTransitions": transitions.saturating_add(1),
        }),
    );
    Step::Update(lease)
}

/// The lease without a holder, so that nobody has to wait for its end; absent where it is another's.
pub fn release(found: &Object, me: &str, now: Timestamp) -> Option<Object> {
    if found.str_at("/spec/holderIdentity") != me {
        return None;
    }
    let mut lease = found.clone();
    let spec = lease.map_mut("spec");
    spec.insert("holderIdentity".to_owned(), json!(""));
    spec.insert("leaseDurationSeconds".to_owned(), json!(1));
    spec.insert("renewTime".to_owned(), json!(format_micros(now)));
    Some(lease)
}

fn object(at: &Ref, spec: serde_json::Value) -> Object {
    let value = json!({
        "apiVersion": LEASE.api_version(), "kind": LEASE.kind,
        "metadata": {"name": at.name, "namespace": at.namespace}, "spec": spec,
    });
    match value {
        serde_json::Value::Object(map) => Object(map),
        _ => Object::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(14);
    const LATE: Duration = Duration::from_secs(15);

    fn at() -> Ref {
        Ref::new("kube-system", "kube-scheduler")
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made(step: Step) -> Object {
        match step {
            Step::Create(object) | Step::Update(object) => object,
            Step::Wait => panic!("it waits"),
        }
    }

    #[test]
    fn a_lease_is_its_holders_until_it_is_silent() {
        let lease = made(plan(&at(), None, "a", Duration::ZERO, now(0)));
        assert_eq!(lease.str_at("/spec/holderIdentity"), "a");
        assert_eq!(plan(&at(), Some(&lease), "b", SOON, now(14)), Step::Wait);
        // A clock that is far off changes nothing.
        assert_eq!(plan(&at(), Some(&lease), "b", SOON, now(1_000_000)), Step::Wait);
        let renewed = made(plan(&at(), Some(&lease), "a", LATE, now(2)));
        assert_eq!(renewed.str_at("/spec/acquireTime"), lease.str_at("/spec/acquireTime"));
        assert_eq!(renewed.str_at("/spec/renewTime"), "1970-01-01T00:00:02.000000Z");
        let taken = made(plan(&at(), Some(&renewed), "b", LATE, now(20)));
        assert_eq!((taken.str_at("/spec/holderIdentity"), taken.get("/spec/leaseTransitions")), ("b", Some(&json!(1))));
        assert_eq!(plan(&at(), Some(&taken), "a", Duration::ZERO, now(20)), Step::Wait);
    }

    #[test]
    fn what_is_released_is_anybodys_at_once() {
        let lease = made(plan(&at(), None, "a", Duration::ZERO, now(0)));
        assert_eq!(release(&lease, "b", now(1)), None);
        let free = release(&lease, "a", now(1)).unwrap();
        let taken = made(plan(&at(), Some(&free), "b", Duration::ZERO, now(1)));
        assert_eq!(taken.str_at("/spec/holderIdentity"), "b");
        assert_eq!(taken.get("/spec/leaseDurationSeconds"), Some(&json!(LEASE_SECONDS)));
    }
}
