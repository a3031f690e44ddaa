//! What a pod's spec asks of the agent, as far as planning needs to know.

use gantry_kube::Object;
use gantry_kube::defaults::pull_policy;
use gantry_kube::pod::restart::Restart;
use gantry_kube::pod::{containers, ephemeral_containers, init_containers, is_sidecar};
use serde_json::Value;

use super::cri::container_resources;
use super::resize::{self, Limits};

/// What is to become of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Run,
    /// It was rejected or told to go, or its deadline passed: nothing of it runs, its records stay.
    Fail {
        grace_seconds: i64,
    },
    /// It is being deleted: its containers get `grace_seconds` to end; its records stay until the API forgets it.
    Stop {
        grace_seconds: i64,
    },
    /// No source knows it any more: nothing of it stays.
    Forget {
        grace_seconds: i64,
    },
}

/// Why a pod is failed as a whole, whatever its containers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    pub reason: String,
    pub message: String,
    /// For the sake of others, and through no fault of its own.
    pub disrupted: bool,
    /// What its containers get to end at most, where that is less than the pod's own time.
    pub grace_max_seconds: Option<i64>,
}

impl Goal {
    /// What it becomes where `pod` is failed: nothing of it runs, and no end takes longer than it may.
    pub fn under(self, failed: Option<&Failed>, pod: &Object) -> Goal {
        let Some(failed) = failed else { return self };
        let within = |own: i64| failed.grace_max_seconds.map_or(own, |most| own.min(most));
        match self {
            Goal::Run => Goal::Fail { grace_seconds: within(grace_seconds(pod)) },
            Goal::Fail { grace_seconds } => Goal::Fail { grace_seconds: within(grace_seconds) },
            Goal::Stop { grace_seconds } => Goal::Stop { grace_seconds: within(grace_seconds) },
            Goal::Forget { grace_seconds } => Goal::Forget { grace_seconds: within(grace_seconds) },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// An image that has to be on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// As the spec names it.
    pub reference: String,
    pub pull: PullPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedContainer {
    pub name: String,
    pub image: WantedImage,
    /// Those that it mounts as volumes.
    pub volume_images: Vec<WantedImage>,
    /// An init container that goes on beside the others.
    pub sidecar: bool,
    pub restart: Restart,
    /// Changes when the container must be made anew: its name and image.
    pub hash: String,
    pub startup_probe: bool,
    /// A hook runs once it has started; until that ends, those after it wait.
    pub post_start: bool,
    pub limits: Limits,
    /// Whether a change of its processor's or its memory's limits makes it start anew.
    pub restarts_for: (bool, bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub goal: Goal,
    pub grace_seconds: i64,
    pub init: Vec<WantedContainer>,
    pub containers: Vec<WantedContainer>,
    /// Added while the pod runs, to look at it: each has one run.
    pub ephemeral: Vec<WantedContainer>,
}

impl WantedContainer {
    /// Every image that must be here before it is made, each once, its own first.
    pub fn images(&self) -> Vec<&WantedImage> {
        let mut images: Vec<&WantedImage> = vec![&self.image];
        for image in &self.volume_images {
            if images.iter().all(|known| known.reference != image.reference) {
                images.push(image);
            }
        }
        images
    }

    /// Whether it has to be started anew to have other limits.
    pub fn restarts(&self, now: Limits) -> bool {
        let cpu = (now.cpu_shares, now.cpu_quota) != (self.limits.cpu_shares, self.limits.cpu_quota);
        cpu && self.restarts_for.0 || now.memory_bytes != self.limits.memory_bytes && self.restarts_for.1
    }
}

impl Wanted {
    pub fn from_object(pod: &Object, goal: Goal) -> Wanted {
        let container = |value: &Value| container(pod, value);
        Wanted {
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            goal,
            grace_seconds: grace_seconds(pod),
            init: init_containers(pod).iter().map(container).collect(),
            containers: containers(pod).iter().map(container).collect(),
            ephemeral: ephemeral_containers(pod).iter().map(container).collect(),
        }
    }

    /// Every container, init containers first.
    pub fn all(&self) -> impl Iterator<Item = &WantedContainer> {
        self.init.iter().chain(&self.containers).chain(&self.ephemeral)
    }

    pub fn container(&self, name: &str) -> Option<&WantedContainer> {
        self.all().find(|c| c.name == name)
    }

    pub fn is_sidecar(&self, name: &str) -> bool {
        self.init.iter().any(|c| c.name == name && c.sidecar)
    }

    /// `name_namespace(uid)`, as messages name a pod.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// The default of the Pod API.
const GRACE_DEFAULT_SECONDS: i64 = 30;

/// How long the pod's containers may take to end: what the deletion said, else what the spec says.
pub fn grace_seconds(pod: &Object) -> i64 {
    let asked = pod.i64_at("/metadata/deletionGracePeriodSeconds").filter(|_| pod.deletion_timestamp().is_some());
    asked.or_else(|| pod.i64_at("/spec/terminationGracePeriodSeconds")).unwrap_or(GRACE_DEFAULT_SECONDS).max(0)
}

fn container(pod: &Object, value: &Value) -> WantedContainer {
    let image = wanted_image(&value["image"], &value["imagePullPolicy"]);
    let mounts = value["volumeMounts"].as_array().map_or(&[][..], Vec::as_slice);
    let volumes = pod.array_at("/spec/volumes").iter();
    let mounted = volumes.filter(|volume| mounts.iter().any(|mount| mount["name"] == volume["name"]));
    let of_volume = |volume: &Value| {
        let source = volume.get("image").filter(|source| source.is_object())?;
        Some(wanted_image(&source["reference"], &source["pullPolicy"]))
    };
    WantedContainer {
        name: value["name"].as_str().unwrap_or("").to_owned(),
        volume_images: mounted.filter_map(of_volume).collect(),
        sidecar: is_sidecar(value),
        restart: Restart::of(pod, value),
        hash: format!("{:016x}", fnv1a(image.reference.as_bytes())),
        startup_probe: value["startupProbe"].is_object(),
        post_start: value["lifecycle"]["postStart"].is_object(),
        limits: Limits::of(&container_resources(value)),
        restarts_for: (resize::restarts_for(value, "cpu"), resize::restarts_for(value, "memory")),
        image,
    }
}

fn wanted_image(reference: &Value, policy: &Value) -> WantedImage {
    let reference = reference.as_str().unwrap_or("").to_owned();
    let pull = match policy.as_str().unwrap_or_else(|| pull_policy(&reference)) {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    };
    WantedImage { reference, pull }
}

/// FNV-1a: a hash that stays the same over versions and hosts; nothing rests on its strength.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
