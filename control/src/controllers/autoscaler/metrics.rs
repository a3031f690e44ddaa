//! From what pods use to how many there should be: the rules of Kubernetes' documentation ("Algorithm details"). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_kube::Object;
use gantry_kube::pod::resources::quantity;
use gantry_kube::pod::{containers, init_containers, is_sidecar};
use gantry_kube::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::time::parse;

/// What a pod does in its first minutes says little of what it will.
const INITIALIZATION: Duration = Duration::from_secs(5 * 60);
/// One that was not ready by then, and is not, never was.
const INITIAL_READINESS_DELAY: Duration = Duration::from_secs(30);

/// How far what is may be from what is wanted before anything is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn holds(&self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What all metrics of one autoscaler are judged by.
#[derive(Debug)]
pub struct Scene<'a> {
    pub namespace: &'a str,
    pub current: i64,
    pub pods: &'a [Object],
    /// PodMetrics, or why there are none.
    pub metrics: Result<&'a [Object], &'a str>,
    pub tolerance: Tolerance,
    pub now: Timestamp,
}

/// What one metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub replicas: i64,
    pub name: String,
    pub status: Value,
}

/// Why a metric asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub why: String,
    /// The same in the words of a whole autoscaler.
    pub error: String,
}

pub fn evaluate(spec: &Value, scene: &Scene<'_>) -> Result<Proposal, Refusal> {
    let metric_name = |source: &str| spec[source]["metric"]["name"].as_str().unwrap_or("").to_owned();
    match spec["type"].as_str().unwrap_or("") {
        "Resource" => of_resource(spec, "resource", scene),
        "ContainerResource" => of_resource(spec, "containerResource", scene),
        "Pods" => {
            let why = format!("unable to get metric {}: {NO_CUSTOM}", metric_name("pods"));
            let error = format!("failed to get pods metric value: {why}");
            Err(Refusal { reason: "FailedGetPodsMetric", why, error })
        }
        "Object" => {
            let of = &spec["object"]["describedObject"];
            let (kind, name) = (of["kind"].as_str().unwrap_or(""), of["name"].as_str().unwrap_or(""));
            let metric = metric_name("object");
            let why = format!("unable to get metric {metric}: {kind} on {} {name}/{NO_CUSTOM}", scene.namespace);
            let error = format!("failed to get object metric value: {why}");
            Err(Refusal { reason: "FailedGetObjectMetric", why, error })
        }
        "External" => {
            let metric = metric_name("external");
            let why = format!("unable to get external metric {}/{metric}: {NO_EXTERNAL}", scene.namespace);
            let error = format!("failed to get {metric} external metric value: {why}");
            Err(Refusal { reason: "FailedGetExternalMetric", why, error })
        }
        other => {
            let why = format!("unknown metric source type {other:?}");
            Err(Refusal { reason: "InvalidMetricSourceType", error: why.clone(), why })
        }
    }
}

const NO_CUSTOM: &str = "no custom metrics API (custom.metrics.k8s.io) registered";
const NO_EXTERNAL: &str = "no external metrics API (external.metrics.k8s.io) registered";

/// What is wanted of each pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// Percent of what pods ask for.
    Utilization(i64),
    /// In thousandths.
    Average(i64),
}

fn of_resource(spec: &Value, source: &str, scene: &Scene<'_>) -> Result<Proposal, Refusal> {
    let metric = &spec[source];
    let (name, container) = (metric["name"].as_str().unwrap_or(""), metric["container"].as_str());
    let (reason, what) = match container {
        None => ("FailedGetResourceMetric", "resource"),
        Some(_) => ("FailedGetContainerResourceMetric", "container"),
    };
    let target = match (quantity(&metric["target"]["averageValue"]), metric["target"]["averageUtilization"].as_i64()) {
        (Some(average), _) => Some(Target::Average(average.milli_value())),
        (None, share) => share.map(Target::Utilization),
    };
    let found = match target.filter(|target| !matches!(target, Target::Average(..=0) | Target::Utilization(..=0))) {
        Some(target) => wanted(scene, name, container, target).map_err(|why| match target {
            Target::Utilization(_) => format!("failed to get {name} utilization: {why}"),
            Target::Average(_) => format!("failed to get {name} usage: {why}"),
        }),
        None => {
            Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned())
        }
    };
    let found = found.map_err(|why| {
        let error = format!("failed to get {name} {what} metric value: {why}");
        Refusal { reason, why, error }
    })?;
    let mut current = json!({"averageValue": Quantity::from_milli(found.average_milli).to_string()});
    if let Some(percent) = found.percent {
        current["averageUtilization"] = json!(percent);
    }
    let mut told = json!({"name": name, "current": current});
    if let Some(container) = container {
        told["container"] = json!(container);
    }
    let kind = if container.is_some() { "container resource" } else { "resource" };
    let share = if found.percent.is_some() { " utilization (percentage of request)" } else { "" };
    Ok(Proposal {
        replicas: found.replicas,
        name: format!("{name} {kind}{share}"),
        status: json!({"type": spec["type"], source: told}),
    })
}

struct Wanted {
    replicas: i64,
    percent: Option<i64>,
    average_milli: i64,
}

/// What one pod used.
#[derive(Clone, Copy, Debug)]
struct Sample {
    milli: i64,
    at: Timestamp,
    window: Duration,
}

type Milli = BTreeMap<String, i64>;

fn wanted(scene: &Scene<'_>, name: &str, container: Option<&str>, target: Target) -> Result<Wanted, String> {
    let unable = |why: &str| format!("unable to get metrics for resource {name}: {why}");
    let samples = samples(scene.metrics.map_err(unable)?, name, container);
    if samples.is_empty() {
        return Err(unable("no metrics returned from resource metrics API"));
    }
    if scene.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = Groups::of(scene, &samples, name == "cpu");
    let counts = |pod: &String| !groups.ignored.contains(pod.as_str()) && !groups.unready.contains(pod.as_str());
    let mut used: Milli =
        samples.iter().filter(|(pod, _)| counts(pod)).map(|(pod, sample)| (pod.clone(), sample.milli)).collect();
    let requests = match target {
        Target::Utilization(_) => requests(scene.pods, name, container)?,
        Target::Average(_) => Milli::new(),
    };
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, percent, average_milli) = ratio(&used, &requests, target)?;
    let answer = |replicas| Ok(Wanted { replicas, percent, average_milli });
    let rebalance = !groups.unready.is_empty() && ratio > 1.0;
    if !rebalance && groups.missing.is_empty() {
        let asked = if scene.tolerance.holds(ratio) { scene.current } else { scaled(ratio, groups.ready) };
        return answer(asked);
    }
    // Of pods that nothing is known of, the worst is taken for true: that they idle where pods are to be added, and that
    // they use all they may where pods are to go.
    for pod in &groups.missing {
        let whole = |share: i64| requests.get(*pod).copied().unwrap_or(0).saturating_mul(share.max(100)) / 100;
        let taken = match target {
            _ if ratio > 1.0 => 0,
            Target::Utilization(share) if ratio < 1.0 => whole(share),
            Target::Average(milli) if ratio < 1.0 => milli,
            _ => continue,
        };
        used.insert((*pod).to_owned(), taken);
    }
    if rebalance {
        used.extend(groups.unready.iter().map(|pod| ((*pod).to_owned(), 0)));
    }
    let (anew, ..) = self::ratio(&used, &requests, target)?;
    let turned = (ratio < 1.0 && anew > 1.0) || (ratio > 1.0 && anew < 1.0);
    let asked = scaled(anew, used.len() as i64);
    let backwards = (anew < 1.0 && asked > scene.current) || (anew > 1.0 && asked < scene.current);
    answer(if turned || backwards || scene.tolerance.holds(anew) { scene.current } else { asked })
}

fn scaled(ratio: f64, count: i64) -> i64 {
    (ratio * count as f64).ceil() as i64
}

/// What is over what is wanted; the share of what pods ask for, where that is the measure; what a pod uses on average.
fn ratio(used: &Milli, requests: &Milli, target: Target) -> Result<(f64, Option<i64>, i64), String> {
    let sum = |values: &mut dyn Iterator<Item = i64>| values.fold(0_i64, i64::saturating_add);
    match target {
        Target::Average(wanted) => {
            let average = sum(&mut used.values().copied()) / (used.len() as i64).max(1);
            Ok((average as f64 / wanted as f64, None, average))
        }
        Target::Utilization(wanted) => {
            let known: Vec<(i64, i64)> =
                used.iter().filter_map(|(pod, milli)| Some((*milli, *requests.get(pod)?))).collect();
            let (all, asked) = (sum(&mut known.iter().map(|k| k.0)), sum(&mut known.iter().map(|k| k.1)));
            if asked == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let percent = all.saturating_mul(100) / asked;
            Ok((percent as f64 / wanted as f64, Some(percent), all / known.len() as i64))
        }
    }
}

/// By pod. One that does not tell of all its containers is left out.
fn samples(metrics: &[Object], resource: &str, container: Option<&str>) -> BTreeMap<String, Sample> {
    let sample = |metric: &Object| {
        let all = metric.array_at("/containers").iter();
        let meant: Vec<&Value> = all.filter(|c| container.is_none_or(|name| c["name"] == name)).collect();
        let amounts: Option<Vec<i64>> =
            meant.iter().map(|c| quantity(&c["usage"][resource]).map(|amount| amount.milli_value())).collect();
        let amounts = amounts.filter(|amounts| !amounts.is_empty())?;
        let milli = amounts.into_iter().fold(0, i64::saturating_add);
        let (at, window) = (parse(metric.str_at("/timestamp"))?, duration(metric.str_at("/window"))?);
        Some((metric.name().to_owned(), Sample { milli, at, window }))
    };
    metrics.iter().filter_map(sample).collect()
}

/// A duration as Go prints it (`1m4.5s`).
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// What each pod asks for.
fn requests(pods: &[Object], resource: &str, container: Option<&str>) -> Result<Milli, String> {
    let of_pod = |pod: &Object| {
        let side_by_side = containers(pod).iter().chain(init_containers(pod).iter().filter(|init| is_sidecar(init)));
        let meant: Vec<&Value> = side_by_side.filter(|c| container.is_none_or(|name| c["name"] == name)).collect();
        if let Some(name) = container.filter(|_| meant.is_empty()) {
            return Err(format!("container {name} not found in Pod {}", pod.name()));
        }
        let sum = meant.into_iter().try_fold(0_i64, |sum, c| {
            let asked = quantity(&c["resources"]["requests"][resource]);
            let missing = || {
                let name = c["name"].as_str().unwrap_or("");
                format!("missing request for {resource} in container {name} of Pod {}", pod.name())
            };
            asked.map(|asked| sum.saturating_add(asked.milli_value())).ok_or_else(missing)
        })?;
        Ok((pod.name().to_owned(), sum))
    };
    pods.iter().map(of_pod).collect()
}

#[derive(Default)]
struct Groups<'a> {
    /// What tells of use, and may be believed.
    ready: i64,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    /// What is over or about to be.
    ignored: BTreeSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(scene: &Scene<'a>, samples: &BTreeMap<String, Sample>, of_cpu: bool) -> Groups<'a> {
        let mut groups = Groups::default();
        for pod in scene.pods {
            let phase = pod.str_at("/status/phase");
            if pod.deletion_timestamp().is_some() || phase == "Failed" {
                groups.ignored.insert(pod.name());
            } else if phase == "Pending" {
                groups.unready.insert(pod.name());
            } else if let Some(sample) = samples.get(pod.name()) {
                if of_cpu && !is_settled(pod, sample, scene.now) {
                    groups.unready.insert(pod.name());
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(pod.name());
            }
        }
        groups
    }
}

/// Whether what a pod uses of the processors is what it does when it serves, and not what its start takes.
fn is_settled(pod: &Object, sample: &Sample, now: Timestamp) -> bool {
    let condition = pod.array_at("/status/conditions").iter().find(|c| c["type"] == "Ready");
    let (Some(condition), Some(started)) = (condition, parse(pod.str_at("/status/startTime"))) else { return false };
    let since = parse(condition["lastTransitionTime"].as_str().unwrap_or("")).unwrap_or(started);
    let refused = condition["status"] == "False";
    if started + INITIALIZATION > now {
        !refused && sample.at >= since + sample.window
    } else {
        !(refused && started + INITIAL_READINESS_DELAY > since)
    }
}
