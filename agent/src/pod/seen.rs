//! What the runtime says of a pod, in the terms in which planning asks.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::resize::Limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: State,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// The image as the spec named it.
    pub image: String,
    /// What the runtime resolved it to (`repository@sha256:…`).
    pub image_ref: String,
    pub hash: String,
    pub log_path: String,
    /// The file in which the container may leave its last words.
    pub termination_log: String,
    pub termination_from_log: bool,
    /// What it may take, where the runtime tells.
    pub limits: Option<Limits>,
    /// Who its first process was started as, where the runtime tells.
    pub user: Option<User>,
    /// The images that are mounted in it, as the runtime resolved them, by where.
    pub mounted_images: BTreeMap<String, String>,
}

/// Ids as the kernel has them: the image's names and groups are looked up by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

impl Container {
    /// It has, or may have, a process.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Running | State::Unknown)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    /// Empty on the host's network.
    pub ips: Vec<String>,
}

/// A pod as the runtime has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl Seen {
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The sandbox of the highest attempt.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|s| (s.attempt, s.ready, s.created_at, &s.id))
    }

    /// The containers of that name, the newest first.
    pub fn runs(&self, name: &str) -> Vec<&Container> {
        let mut runs: Vec<&Container> = self.containers.iter().filter(|c| c.name == name).collect();
        runs.sort_by(|a, b| (b.attempt, b.created_at, &b.id).cmp(&(a.attempt, a.created_at, &a.id)));
        runs
    }

    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.runs(name).into_iter().next()
    }

    pub fn container(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.id == id)
    }
}
