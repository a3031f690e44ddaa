//! The kubelet's thresholds: by which signals a node runs short, from when, and for how long that is borne. Read from the
//! words that the kubelet's flags take.

use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    // Memory comes first: a node that runs out of it does nothing else.
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

/// What a node's conditions tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    Memory,
    Disk,
    Pids,
}

impl Pressure {
    /// The condition's type.
    pub fn condition(self) -> &'static str {
        match self {
            Pressure::Memory => "MemoryPressure",
            Pressure::Disk => "DiskPressure",
            Pressure::Pids => "PIDPressure",
        }
    }
}

impl Signal {
    pub const ALL: [Signal; 6] = [
        Signal::MemoryAvailable,
        Signal::NodeFsAvailable,
        Signal::NodeFsInodesFree,
        Signal::ImageFsAvailable,
        Signal::ImageFsInodesFree,
        Signal::PidAvailable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodeFsAvailable => "nodefs.available",
            Signal::NodeFsInodesFree => "nodefs.inodesFree",
            Signal::ImageFsAvailable => "imagefs.available",
            Signal::ImageFsInodesFree => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    pub fn pressure(self) -> Pressure {
        match self {
            Signal::MemoryAvailable => Pressure::Memory,
            Signal::PidAvailable => Pressure::Pids,
            _ => Pressure::Disk,
        }
    }

    /// What runs short, as an evicted pod's message names it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }
}

/// So much, or such a share of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Absolute(u64),
    Percent(f64),
}

impl Amount {
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Absolute(amount) => amount,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }

    fn parse(text: &str) -> Result<Amount, String> {
        let bad = || format!("{text:?} is neither a quantity nor a percentage below 100%");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| bad())?;
            return if (0.0..100.0).contains(&percent) { Ok(Amount::Percent(percent)) } else { Err(bad()) };
        }
        let quantity = gantry_kube::quantity::Quantity::parse(text).map_err(|_| bad())?;
        u64::try_from(quantity.value()).map(Amount::Absolute).map_err(|_| bad())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    /// Below this the node runs short.
    pub amount: Amount,
    /// For how long that is borne before pods are evicted; none at all where the threshold is hard.
    pub grace: Option<Duration>,
    /// What has to be there beyond the threshold before it counts as left behind.
    pub reclaim: Amount,
}

/// When images are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Used shares of the file system, in percent: from the one on images are removed, until the other is reached.
    pub high_percent: u8,
    pub low_percent: u8,
    /// Younger images are left alone.
    pub age_min: Duration,
}

impl Default for ImageLimits {
    fn default() -> ImageLimits {
        ImageLimits { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub thresholds: Vec<Threshold>,
    /// How long a pressure is shown after it was last there.
    pub transition: Duration,
    /// What a pod gets to end at a soft threshold, at most.
    pub max_pod_grace_seconds: i64,
    pub images: ImageLimits,
}

/// What is evicted by where nothing is said: the kubelet's defaults, and a bound on process numbers.
pub const HARD_DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,\
    imagefs.inodesFree<5%,pid.available<256";
pub const TRANSITION_DEFAULT: Duration = Duration::from_secs(300);

impl Default for Settings {
    fn default() -> Settings {
        let thresholds = thresholds(HARD_DEFAULT, "", "", "").unwrap_or_default();
        let images = ImageLimits::default();
        Settings { thresholds, transition: TRANSITION_DEFAULT, max_pod_grace_seconds: 0, images }
    }
}

/// The thresholds of the four flags; soft ones need a grace period each.
pub fn thresholds(hard: &str, soft: &str, graces: &str, reclaims: &str) -> Result<Vec<Threshold>, String> {
    let reclaims = pairs(reclaims, '=', Amount::parse)?;
    let mut graces = pairs(graces, '=', duration)?;
    let made = |signal, amount, grace| Threshold {
        signal,
        amount,
        grace,
        reclaim: reclaims.get(&signal).copied().unwrap_or(Amount::Absolute(0)),
    };
    let mut all: Vec<Threshold> =
        pairs(hard, '<', Amount::parse)?.into_iter().map(|(signal, amount)| made(signal, amount, None)).collect();
    for (signal, amount) in pairs(soft, '<', Amount::parse)? {
        let grace = graces.remove(&signal);
        let grace = grace.ok_or_else(|| format!("the soft threshold of {} has no grace period", signal.name()))?;
        all.push(made(signal, amount, Some(grace)));
    }
    match graces.keys().next() {
        Some(signal) => Err(format!("{} has a grace period and no soft threshold", signal.name())),
        None => Ok(all),
    }
}

/// `signal<value,signal<value`: each signal once.
fn pairs<T>(text: &str, sign: char, parse: impl Fn(&str) -> Result<T, String>) -> Result<BTreeMap<Signal, T>, String> {
    let mut all = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once(sign).ok_or_else(|| format!("{pair:?} lacks a {sign:?}"))?;
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name.trim());
        let signal = signal.ok_or_else(|| format!("{name:?} is no signal"))?;
        if all.insert(signal, parse(value.trim())?).is_some() {
            return Err(format!("{} is there twice", signal.name()));
        }
    }
    Ok(all)
}

/// As Go writes durations: `90s`, `1m30s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 1m30s");
    let (mut all, mut number) = (Duration::ZERO, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(bad()),
        };
        let count: u64 = number.parse().map_err(|_| bad())?;
        let seconds = count.checked_mul(unit).ok_or_else(bad)?;
        all = all.checked_add(Duration::from_secs(seconds)).ok_or_else(bad)?;
        number.clear();
    }
    // What is left has no unit; 0 needs none.
    if (text == "0" || number.is_empty()) && !text.is_empty() { Ok(all) } else { Err(bad()) }
}
