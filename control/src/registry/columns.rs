//! What `kubectl get` prints of each kind: the columns of its Table and the cells of one object. Pure: `now` comes in.

mod autoscaler;
mod cluster;
mod network;
mod pod;
mod storage;
mod workload;

use gantry_kube::{Object, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};

/// One column of a Table (meta.k8s.io). Priority 0 is always shown, 1 with `-o wide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub priority: u8,
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

/// The columns of a kind and how one object fills them.
pub struct Columns {
    pub columns: &'static [Column],
    pub cells: fn(&Object, Timestamp) -> Vec<Value>,
}

macro_rules! columns {
    ([$($column:expr),* $(,)?], $cells:expr) => {{
        static COLUMNS: Columns = Columns { columns: &[$($column),*], cells: $cells };
        &COLUMNS
    }};
}
use columns;

/// The table of a kind; kinds without one of their own show name and age.
pub fn of(resource: &Resource) -> &'static Columns {
    match (resource.group, resource.kind) {
        ("", "Pod") => columns!(
            [
                text("Name"),
                text("Ready"),
                text("Status"),
                text("Restarts"),
                text("Age"),
                wide("IP"),
                wide("Node"),
                wide("Nominated Node"),
                wide("Readiness Gates")
            ],
            pod::cells
        ),
        ("apps", "Deployment") => columns!(
            [
                text("Name"),
                text("Ready"),
                text("Up-to-date"),
                text("Available"),
                text("Age"),
                wide("Containers"),
                wide("Images"),
                wide("Selector")
            ],
            workload::deployment
        ),
        ("autoscaling", _) => columns!(
            [
                text("Name"),
                text("Reference"),
                text("Targets"),
                text("MinPods"),
                text("MaxPods"),
                text("Replicas"),
                text("Age")
            ],
            autoscaler::cells
        ),
        ("batch", "Job") => columns!(
            [
                text("Name"),
                text("Status"),
                text("Completions"),
                text("Duration"),
                text("Age"),
                wide("Containers"),
                wide("Images"),
                wide("Selector")
            ],
            workload::job
        ),
        ("batch", "CronJob") => columns!(
            [
                text("Name"),
                text("Schedule"),
                text("Timezone"),
                text("Suspend"),
                integer("Active"),
                text("Last Schedule"),
                text("Age"),
                wide("Containers"),
                wide("Images"),
                wide("Selector")
            ],
            workload::cron_job
        ),
        ("apps", "StatefulSet") => columns!(
            [text("Name"), text("Ready"), text("Age"), wide("Containers"), wide("Images")],
            workload::stateful_set
        ),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => columns!(
            [
                text("Name"),
                integer("Desired"),
                integer("Current"),
                integer("Ready"),
                text("Age"),
                wide("Containers"),
                wide("Images"),
                wide("Selector")
            ],
            workload::replica_set
        ),
        ("apps", "DaemonSet") => columns!(
            [
                text("Name"),
                integer("Desired"),
                integer("Current"),
                integer("Ready"),
                integer("Up-to-date"),
                integer("Available"),
                text("Node Selector"),
                text("Age"),
                wide("Containers"),
                wide("Images"),
                wide("Selector")
            ],
            workload::daemon_set
        ),
        ("apps", "ControllerRevision") => {
            columns!([text("Name"), text("Controller"), integer("Revision"), text("Age")], workload::revision)
        }
        ("", "Service") => columns!(
            [
                text("Name"),
                text("Type"),
                text("Cluster-IP"),
                text("External-IP"),
                text("Port(s)"),
                text("Age"),
                wide("Selector")
            ],
            workload::service
        ),
        ("", "Endpoints") => columns!([text("Name"), text("Endpoints"), text("Age")], workload::endpoints),
        ("discovery.k8s.io", _) => columns!(
            [text("Name"), text("AddressType"), text("Ports"), text("Endpoints"), text("Age")],
            workload::endpoint_slice
        ),
        ("", "Node") => columns!(
            [
                text("Name"),
                text("Status"),
                text("Roles"),
                text("Age"),
                text("Version"),
                wide("Internal-IP"),
                wide("External-IP"),
                wide("OS-Image"),
                wide("Kernel-Version"),
                wide("Container-Runtime")
            ],
            workload::node
        ),
        ("", "Event") => columns!(
            [
                text("Last Seen"),
                text("Type"),
                text("Reason"),
                text("Object"),
                wide("Subobject"),
                wide("Source"),
                text("Message"),
                wide("First Seen"),
                wide("Count"),
                wide("Name")
            ],
            workload::event
        ),
        _ => cluster::of(resource).unwrap_or_else(|| small(resource)),
    }
}

fn small(resource: &Resource) -> &'static Columns {
    match resource.kind {
        "Namespace" => columns!([text("Name"), text("Status"), text("Age")], |o, now| vec![
            name(o),
            json!(o.str_at("/status/phase")),
            age(o, now)
        ]),
        "ConfigMap" => columns!([text("Name"), integer("Data"), text("Age")], |o, now| vec![
            name(o),
            json!(count(o, "/data") + count(o, "/binaryData")),
            age(o, now)
        ]),
        "Secret" => columns!([text("Name"), text("Type"), integer("Data"), text("Age")], |o, now| vec![
            name(o),
            json!(o.str_at("/type")),
            json!(count(o, "/data")),
            age(o, now)
        ]),
        "ServiceAccount" => columns!([text("Name"), integer("Secrets"), text("Age")], |o, now| vec![
            name(o),
            json!(o.array_at("/secrets").len()),
            age(o, now)
        ]),
        "Lease" => columns!([text("Name"), text("Holder"), text("Age")], |o, now| vec![
            name(o),
            json!(o.str_at("/spec/holderIdentity")),
            age(o, now)
        ]),
        "PodDisruptionBudget" => columns!(
            [text("Name"), text("Min Available"), text("Max Unavailable"), integer("Allowed Disruptions"), text("Age")],
            |o, now| vec![
                name(o),
                share(o, "/spec/minAvailable"),
                share(o, "/spec/maxUnavailable"),
                json!(o.i64_at("/status/disruptionsAllowed").unwrap_or(0)),
                age(o, now)
            ]
        ),
        "PodTemplate" => {
            columns!([text("Name"), text("Containers"), text("Images"), text("Pod Labels")], workload::pod_template)
        }
        "Ingress" => columns!(
            [text("Name"), text("Class"), text("Hosts"), text("Address"), text("Ports"), text("Age")],
            network::ingress
        ),
        "IngressClass" => {
            columns!([text("Name"), text("Controller"), text("Parameters"), text("Age")], network::ingress_class)
        }
        "NetworkPolicy" => columns!([text("Name"), text("Pod-Selector"), text("Age")], |o, now| vec![
            name(o),
            workload::selector(o.get("/spec/podSelector")),
            age(o, now)
        ]),
        "IPAddress" => columns!([text("Name"), text("ParentRef")], |o, _| vec![name(o), json!(parent_ref(o))]),
        "PriorityClass" => columns!(
            [text("Name"), integer("Value"), text("Global-Default"), text("Age"), text("PreemptionPolicy")],
            |o, now| vec![
                name(o),
                json!(o.i64_at("/value").unwrap_or(0)),
                json!(o.bool_at("/globalDefault").unwrap_or(false)),
                age(o, now),
                json!(o.str_at("/preemptionPolicy"))
            ]
        ),
        "PersistentVolume" => columns!(
            [
                text("Name"),
                text("Capacity"),
                text("Access Modes"),
                text("Reclaim Policy"),
                text("Status"),
                text("Claim"),
                text("StorageClass"),
                text("VolumeAttributesClass"),
                text("Reason"),
                text("Age"),
                wide("VolumeMode")
            ],
            storage::volume
        ),
        "PersistentVolumeClaim" => columns!(
            [
                text("Name"),
                text("Status"),
                text("Volume"),
                text("Capacity"),
                text("Access Modes"),
                text("StorageClass"),
                text("VolumeAttributesClass"),
                text("Age"),
                wide("VolumeMode")
            ],
            storage::claim
        ),
        "StorageClass" => columns!(
            [
                text("Name"),
                text("Provisioner"),
                text("ReclaimPolicy"),
                text("VolumeBindingMode"),
                text("AllowVolumeExpansion"),
                text("Age")
            ],
            storage::class
        ),
        "ResourceQuota" => columns!([text("Name"), text("Request"), text("Limit"), text("Age")], quota),
        "LimitRange" => columns!([text("Name"), text("Created At")], |o, _| vec![
            name(o),
            json!(o.str_at("/metadata/creationTimestamp"))
        ]),
        "Role" | "ClusterRole" => {
            columns!([text("Name"), text("Created At")], |o, _| vec![
                name(o),
                json!(o.str_at("/metadata/creationTimestamp"))
            ])
        }
        "RoleBinding" | "ClusterRoleBinding" => columns!(
            [text("Name"), text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")],
            binding
        ),
        _ => columns!([text("Name"), text("Age")], |o, now| vec![name(o), age(o, now)]),
    }
}

fn parent_ref(object: &Object) -> String {
    let part = |field: &str| object.str_at(&format!("/spec/parentRef/{field}")).to_owned();
    let resource = match part("group").as_str() {
        "" => part("resource"),
        group => format!("{}.{group}", part("resource")),
    };
    [resource, part("namespace"), part("name")].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/")
}

fn binding(object: &Object, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", object.str_at("/roleRef/kind"), object.str_at("/roleRef/name"));
    let subjects = |kind: &str| -> Value {
        let named: Vec<String> = object
            .array_at("/subjects")
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(|s| match (kind, s["namespace"].as_str()) {
                ("ServiceAccount", Some(ns)) => format!("{ns}/{}", s["name"].as_str().unwrap_or("")),
                _ => s["name"].as_str().unwrap_or("").to_owned(),
            })
            .collect();
        json!(named.join(", "))
    };
    vec![name(object), json!(role), age(object, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

fn name(object: &Object) -> Value {
    json!(object.name())
}

fn age(object: &Object, now: Timestamp) -> Value {
    json!(since(object.str_at("/metadata/creationTimestamp"), now))
}

fn count(object: &Object, pointer: &str) -> usize {
    object.get(pointer).and_then(Value::as_object).map_or(0, |map| map.len())
}

/// What is used of what there is, the limits of containers apart from the rest.
fn quota(object: &Object, now: Timestamp) -> Vec<Value> {
    let hard = object.get("/status/hard").and_then(Value::as_object);
    let cell = |limits: bool| {
        let of = hard.into_iter().flatten().filter(|(name, _)| name.starts_with("limits") == limits);
        let words = of.map(|(name, most)| {
            let used = object.get("/status/used").and_then(|used| used[name].as_str()).unwrap_or("0");
            format!("{name}: {used}/{}", most.as_str().unwrap_or("0"))
        });
        json!(words.collect::<Vec<_>>().join(", "))
    };
    vec![name(object), cell(false), cell(true), age(object, now)]
}

/// A number or a percentage.
fn share(object: &Object, pointer: &str) -> Value {
    match object.get(pointer) {
        Some(Value::String(percent)) => json!(percent),
        Some(Value::Number(number)) => json!(number.to_string()),
        _ => json!("N/A"),
    }
}

fn or_none(text: String) -> Value {
    if text.is_empty() { json!("<none>") } else { json!(text) }
}

/// How long ago an RFC 3339 time is, as kubectl words it.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then).as_secs()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Two units at most, and only where the larger one is small: `95s`, `3m5s`, `42m`, `5h7m`, `3d4h`, `400d`, `3y2d`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |large: i64, mark: char, small: i64, unit: char| {
        if small == 0 { format!("{large}{mark}") } else { format!("{large}{mark}{small}{unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::resource;

    #[test]
    fn durations_are_worded_as_kubectl_does() {
        for (seconds, words) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (10 * 86_400, "10d"),
            (800 * 86_400, "2y70d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human_duration(seconds), words);
        }
    }

    #[test]
    fn every_kind_fills_its_columns() {
        for resource in resource::ALL {
            let columns = of(resource);
            let cells = (columns.cells)(&Object::default(), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), columns.columns.len(), "{}", resource.kind);
        }
    }
}
