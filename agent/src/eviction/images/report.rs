//! What becomes of each image, and why, as `gantry image prune` tells it: by the plan that the node itself goes by.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    Goes,
    /// By these containers, or pods that mount it.
    Used {
        by: Vec<String>,
    },
    Pinned,
    /// For so long it is left alone still.
    Young {
        seconds: u64,
    },
    /// There is room enough without it.
    Enough,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub id: String,
    pub names: Vec<String>,
    /// As its runtime tells: what it takes on the disk may be more, and layers that others have too stay.
    pub bytes: u64,
    pub fate: Fate,
    /// The node would remove it by itself now, for its disk is too full.
    pub by_itself: bool,
}

/// The images' disk between its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    pub used_percent: u8,
    pub high_percent: u8,
    pub low_percent: u8,
    /// What the node itself wants to become free.
    pub wanted_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Those that go, in their order, and then those that stay.
    pub images: Vec<Verdict>,
    pub disk: Option<Disk>,
    /// By id: those that were to go, and are here still.
    pub failed: Vec<String>,
}
