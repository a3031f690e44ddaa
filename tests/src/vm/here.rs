//! What a test in a machine knows of it, and its power switch: the test asks for the cut by a file in the shared folder, and is
//! begun again in a machine that has nothing left but what is in that folder. The same where the machine powers itself off.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::guest::SHARED;

/// The file that asks for a cut.
const CUT: &str = "cut";
/// The file that asks for another boot once the machine is off.
const AGAIN: &str = "again";
/// What the host tells the test by its environment.
const BOOT: &str = "GANTRY_VM_BOOT";
const NODE: &str = "GANTRY_VM_NODE";
const NODES: &str = "GANTRY_VM_NODES";
const MEETING: &str = "GANTRY_VM_MEETING";
const PATIENCE: &str = "GANTRY_VM_PATIENCE";
/// Where the folder is mounted that every machine of a segment sees: again a place that no test looks at.
const MEETING_AT: &str = "/srv";

/// The machine of ours that a test runs in.
#[derive(Clone, Debug)]
pub struct Here {
    /// What the host shares: it outlives the machine.
    pub shared: PathBuf,
    /// How often the machine was off before.
    pub boot: u32,
}

/// None on an ordinary host.
pub fn here() -> Option<Here> {
    Some(Here { shared: PathBuf::from(SHARED), boot: number(BOOT)? })
}

/// How many times longer than on a host who waits here has to wait before it is a failure: more than once where the
/// processors are emulated. What must hold is the same.
pub fn patience() -> u32 {
    number(PATIENCE).unwrap_or(1)
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Which of several machines on one segment this is.
#[derive(Clone, Debug)]
pub struct Seat {
    /// From one.
    pub node: u32,
    pub nodes: u32,
    /// A folder that all of them see.
    pub meeting: PathBuf,
}

impl Here {
    /// None where the machine is alone.
    pub fn seat(&self) -> Option<Seat> {
        let host_path = std::env::var(MEETING).ok()?;
        mount(Some("none"), MEETING_AT, Some("hostfs"), MsFlags::empty(), Some(host_path.as_str())).ok()?;
        Some(Seat { node: number(NODE)?, nodes: number(NODES)?, meeting: PathBuf::from(MEETING_AT) })
    }

    /// When the machine is off, whoever turns it off, it is to be booted again.
    pub fn boots_again(&self) {
        std::fs::File::create(self.shared.join(AGAIN)).expect("the shared folder can be written to");
    }

    /// Everything ends here, in whatever it was doing.
    pub fn cut_power(&self) -> ! {
        std::fs::File::create(self.shared.join(CUT)).expect("the shared folder can be written to");
        loop {
            std::thread::park();
        }
    }
}

/// On the host: what [`here`], [`patience`] and [`Here::seat`] read.
pub(super) fn told(boot: u32, patience: u32, seat: Option<&Seat>) -> Vec<(String, String)> {
    let mut told = vec![(BOOT.to_owned(), boot.to_string()), (PATIENCE.to_owned(), patience.to_string())];
    if let Some(seat) = seat {
        told.push((NODE.to_owned(), seat.node.to_string()));
        told.push((NODES.to_owned(), seat.nodes.to_string()));
        told.push((MEETING.to_owned(), seat.meeting.display().to_string()));
    }
    told
}

/// On the host: true once for each boot that was asked for.
pub(super) fn boots_again(out: &Path) -> bool {
    std::fs::remove_file(out.join(AGAIN)).is_ok()
}

/// On the host: true once for each cut that was asked for.
pub(super) fn asks_for_cut(out: &Path) -> bool {
    std::fs::remove_file(out.join(CUT)).is_ok()
}
