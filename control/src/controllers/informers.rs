use gantry_client::{Client, Informer, Scope};
use gantry_env::Env;
use gantry_kube::storage::{self, ClaimUse};
use gantry_kube::{Object, Ref, Resource, resource};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::job;
use super::time::{parse, seconds_since};
use crate::custom;

/// One informer a kind, shared by every controller.
#[derive(Clone)]
pub struct Informers {
    pub pods: Informer<Pod>,
    pub replica_sets: Informer<Object>,
    pub deployments: Informer<Object>,
    pub replication_controllers: Informer<Object>,
    pub daemon_sets: Informer<Object>,
    pub stateful_sets: Informer<Object>,
    pub jobs: Informer<Object>,
    pub cron_jobs: Informer<Object>,
    pub disruption_budgets: Informer<Object>,
    pub autoscalers: Informer<Object>,
    pub controller_revisions: Informer<Object>,
    pub persistent_volumes: Informer<Object>,
    pub claims: Informer<Object>,
    pub storage_classes: Informer<Object>,
    pub services: Informer<Object>,
    pub endpoint_slices: Informer<Object>,
    pub endpoints: Informer<Object>,
    pub namespaces: Informer<Object>,
    pub nodes: Informer<Object>,
    pub service_accounts: Informer<Ref>,
    pub root_cas: Informer<Object>,
    pub custom_kinds: Informer<CustomKind>,
    pub node_leases: Informer<Object>,
}

/// What the controllers read of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub at: Option<Ref>,
    pub uid: String,
    pub resource_version: String,
    pub labels: Map<String, Value>,
    pub controller_uid: String,
    pub controller_kind: String,
    pub controller_name: String,
    pub created: String,
    pub deleting: bool,
    pub finalizers: bool,
    pub node: String,
    /// The one node that its affinity names by its name: a DaemonSet's pod is made for one.
    pub pinned_to: String,
    pub phase: String,
    pub ready: bool,
    pub ready_since: String,
    pub restarts: i64,
    pub deletion_cost: i64,
    pub ips: Vec<String>,
    pub hostname: String,
    pub subdomain: String,
    /// `(container port name, protocol, number)`: what a named target port resolves to.
    pub ports: Vec<(String, String, i64)>,
    pub tolerations: Vec<Value>,
    /// The claims that it uses, and the templates of those that are its own.
    pub claims: Vec<ClaimUse>,
    pub claim_templates: Vec<(String, Value)>,
    pub grace_seconds: i64,
    /// Of a Job's pod alone.
    pub job: Option<Box<JobPod>>,
}

/// What a Job reads of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobPod {
    /// The Job's name.
    pub owner: String,
    /// The finalizer is there: it is not yet counted.
    pub tracked: bool,
    pub index: Option<i64>,
    /// How often its index had failed before.
    pub index_failures: i64,
    /// When its last container ended.
    pub finished: String,
    /// Names and exit codes of containers that ended.
    pub exits: Vec<(String, i64)>,
    /// Types and statuses.
    pub conditions: Vec<(String, String)>,
}

impl JobPod {
    fn project(object: &Object) -> Option<Box<JobPod>> {
        let owner = object.controller().filter(|owner| owner["kind"] == "Job")?;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let number = |key: &str| object.annotation(key).and_then(|value| value.parse().ok());
        let statuses = || {
            let lists = ["initContainerStatuses", "containerStatuses"];
            lists.into_iter().flat_map(|list| object.array_at(&format!("/status/{list}")))
        };
        let ended = || statuses().filter_map(|status| Some((status, status["state"].get("terminated")?)));
        let conditions = object.array_at("/status/conditions");
        let transition = || conditions.iter().map(|c| text(&c["lastTransitionTime"])).max();
        Some(Box::new(JobPod {
            owner: text(&owner["name"]),
            tracked: object.finalizers().any(|finalizer| finalizer == job::TRACKING),
            index: number(job::INDEX),
            index_failures: number(job::INDEX_FAILURES).unwrap_or(0),
            finished: ended().map(|(_, end)| text(&end["finishedAt"])).max().or_else(transition).unwrap_or_default(),
            exits: ended().filter_map(|(of, end)| Some((text(&of["name"]), end["exitCode"].as_i64()?))).collect(),
            conditions: conditions.iter().map(|c| (text(&c["type"]), text(&c["status"]))).collect(),
        }))
    }
}

impl Pod {
    pub fn project(object: Object) -> Pod {
        let ready = object.array_at("/status/conditions").iter().find(|c| c["type"] == "Ready");
        let owner = object.controller();
        let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or("").to_owned();
        let containers = object.array_at("/spec/containers");
        Pod {
            at: Some(object.reference()),
            uid: object.uid().to_owned(),
            resource_version: object.resource_version().to_owned(),
            labels: object.labels().cloned().unwrap_or_default(),
            controller_uid: text(owner.map(|o| &o["uid"])),
            controller_kind: text(owner.map(|o| &o["kind"])),
            controller_name: text(owner.map(|o| &o["name"])),
            created: object.str_at("/metadata/creationTimestamp").to_owned(),
            deleting: object.deletion_timestamp().is_some(),
            finalizers: object.finalizers().next().is_some(),
            node: object.str_at("/spec/nodeName").to_owned(),
            pinned_to: pinned_to(&object),
            phase: object.str_at("/status/phase").to_owned(),
            ready: ready.is_some_and(|c| c["status"] == "True"),
            ready_since: text(ready.map(|c| &c["lastTransitionTime"])),
            restarts: object
                .array_at("/status/containerStatuses")
                .iter()
                .filter_map(|s| s["restartCount"].as_i64())
                .sum(),
            deletion_cost: object
                .annotation("controller.kubernetes.io/pod-deletion-cost")
                .and_then(|c| c.parse().ok())
                .unwrap_or(0),
            ips: ips(&object),
            hostname: object.str_at("/spec/hostname").to_owned(),
            subdomain: object.str_at("/spec/subdomain").to_owned(),
            ports: containers.iter().flat_map(container_ports).collect(),
            tolerations: object.array_at("/spec/tolerations").to_vec(),
            claims: storage::claims_of(&object).collect(),
            claim_templates: claim_templates(&object),
            job: JobPod::project(&object),
            grace_seconds: object.i64_at("/spec/terminationGracePeriodSeconds").unwrap_or(30),
        }
    }

    pub fn reference(&self) -> Ref {
        self.at.clone().unwrap_or_else(|| Ref::cluster(""))
    }

    /// The seconds until it counts as available, which is that long after it became ready; `None` while it is not.
    pub fn available_in(&self, min_ready_seconds: i64, now: Timestamp) -> Option<i64> {
        let since = || parse(&self.ready_since).map_or(0, |since| min_ready_seconds - seconds_since(since, now));
        self.ready.then(|| if min_ready_seconds == 0 { 0 } else { since().max(0) })
    }

    /// The node that it is on, or that it may go to alone.
    pub fn seat(&self) -> &str {
        if self.node.is_empty() { &self.pinned_to } else { &self.node }
    }

    pub fn finished(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }

    /// Counts towards its owner's replicas.
    pub fn active(&self) -> bool {
        !self.finished() && !self.deleting
    }
}

/// What the controllers read of a CustomResourceDefinition.
#[derive(Clone, Debug, Default)]
pub struct CustomKind {
    /// One of the versions that are served; none while none is.
    pub resource: Option<&'static Resource>,
    pub deleting: bool,
    /// The definition without its schemas, which are most of it.
    pub definition: Object,
}

impl CustomKind {
    pub fn project(mut definition: Object) -> CustomKind {
        for version in
            definition.map_mut("spec").get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten()
        {
            version.as_object_mut().and_then(|version| version.remove("schema"));
        }
        let definition = slim(definition);
        let resource = custom::names_of(&definition).next().map(|names| resource::intern(&names));
        CustomKind { resource, deleting: definition.deletion_timestamp().is_some(), definition }
    }
}

fn claim_templates(object: &Object) -> Vec<(String, Value)> {
    let volumes = object.array_at("/spec/volumes").iter();
    let own = volumes.filter_map(|v| Some((storage::claim_use(object.name(), v)?, &v["ephemeral"])));
    let own = own.filter(|(used, _)| used.ephemeral);
    own.map(|(used, source)| (used.claim, source["volumeClaimTemplate"].clone())).collect()
}

fn pinned_to(object: &Object) -> String {
    const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fields = object.array_at(TERMS).iter().filter_map(|term| term["matchFields"].as_array()).flatten();
    let mut names = fields.filter(|f| f["key"] == "metadata.name" && f["operator"] == "In");
    names.find_map(|f| f["values"][0].as_str()).unwrap_or("").to_owned()
}

fn ips(object: &Object) -> Vec<String> {
    let mut all: Vec<String> =
        object.array_at("/status/podIPs").iter().filter_map(|ip| ip["ip"].as_str()).map(str::to_owned).collect();
    if all.is_empty() && !object.str_at("/status/podIP").is_empty() {
        all.push(object.str_at("/status/podIP").to_owned());
    }
    all
}

fn container_ports(container: &Value) -> Vec<(String, String, i64)> {
    let port = |p: &Value| {
        Some((
            p["name"].as_str().unwrap_or("").to_owned(),
            p["protocol"].as_str().unwrap_or("TCP").to_owned(),
            p["containerPort"].as_i64()?,
        ))
    };
    container["ports"].as_array().into_iter().flatten().filter_map(port).collect()
}

/// Objects are kept without what no controller reads.
fn slim(mut object: Object) -> Object {
    object.metadata_mut().remove("managedFields");
    object
}

impl Informers {
    pub fn spawn(client: &Client, env: &Env, stop: &CancellationToken) -> Informers {
        let whole = |resource: &'static Resource, scope: Scope| {
            Informer::spawn(client.clone(), resource, scope, env.clone(), stop.clone(), slim)
        };
        let all = Scope::default;
        let named = |name: &str| Scope { field_selector: format!("metadata.name={name}"), ..Scope::default() };
        let one_namespace = |name: &str| Scope { namespace: Some(name.to_owned()), ..Scope::default() };
        Informers {
            pods: Informer::spawn(client.clone(), &resource::POD, all(), env.clone(), stop.clone(), Pod::project),
            replica_sets: whole(&resource::REPLICA_SET, all()),
            deployments: whole(&resource::DEPLOYMENT, all()),
            replication_controllers: whole(&resource::REPLICATION_CONTROLLER, all()),
            jobs: whole(&resource::JOB, all()),
            cron_jobs: whole(&resource::CRON_JOB, all()),
            disruption_budgets: whole(&resource::POD_DISRUPTION_BUDGET, all()),
            autoscalers: whole(&resource::HORIZONTAL_POD_AUTOSCALER, all()),
            stateful_sets: whole(&resource::STATEFUL_SET, all()),
            daemon_sets: whole(&resource::DAEMON_SET, all()),
            controller_revisions: whole(&resource::CONTROLLER_REVISION, all()),
            persistent_volumes: whole(&resource::PERSISTENT_VOLUME, all()),
            claims: whole(&resource::PERSISTENT_VOLUME_CLAIM, all()),
            storage_classes: whole(&resource::STORAGE_CLASS, all()),
            services: whole(&resource::SERVICE, all()),
            endpoint_slices: whole(&resource::ENDPOINT_SLICE, all()),
            endpoints: whole(&resource::ENDPOINTS, all()),
            namespaces: whole(&resource::NAMESPACE, all()),
            nodes: whole(&resource::NODE, all()),
            service_accounts: Informer::spawn(
                client.clone(),
                &resource::SERVICE_ACCOUNT,
                named("default"),
                env.clone(),
                stop.clone(),
                |o| o.reference(),
            ),
            custom_kinds: Informer::spawn(
                client.clone(),
                &resource::CUSTOM_RESOURCE_DEFINITION,
                all(),
                env.clone(),
                stop.clone(),
                CustomKind::project,
            ),
            root_cas: whole(&resource::CONFIG_MAP, named("kube-root-ca.crt")),
            node_leases: whole(&resource::LEASE, one_namespace("kube-node-lease")),
        }
    }
}
