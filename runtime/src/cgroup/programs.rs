//! Device programs in the kernel. Most containers share one, so those that were loaded are kept.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use parking_lot::Mutex;

use super::devices::{self, Rule};
use super::{CgroupError, failed};
use crate::sys;

/// Sets of rules whose program is kept at hand. Where a program is attached, it lives on without us.
const PROGRAMS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Programs(Mutex<BTreeMap<Vec<Rule>, OwnedFd>>);

impl Programs {
    /// Holds the processes of a v2 cgroup, and of those below it, to `rules`.
    pub fn attach(&self, rules: &[Rule], cgroup: &Path) -> Result<(), CgroupError> {
        let failed_to = |what| move |source| CgroupError::DeviceProgram { what, path: cgroup.to_owned(), source };
        let folder = fs::File::open(cgroup).map_err(failed("open", cgroup))?;
        let mut loaded = self.0.lock();
        if !loaded.contains_key(rules) {
            if loaded.len() >= PROGRAMS_MAX {
                loaded.clear();
            }
            let program = sys::load_device_program(&devices::program(rules)).map_err(failed_to("load"))?;
            loaded.insert(rules.to_vec(), program);
        }
        sys::attach_device_program(loaded[rules].as_fd(), folder.as_fd()).map_err(failed_to("attach"))
    }
}
