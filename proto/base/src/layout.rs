//! Names of the files under a sandbox's folder, `<run>/sandboxes/<sandbox>`, which is 0700; and the host's, where both the
//! runtime and its supervisors go.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use crate::id::Id;

/// Where the host has its cgroups.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// There: the v2 hierarchy of a hybrid host, whose controllers are v1's.
pub const UNIFIED_BESIDE: &str = "/sys/fs/cgroup/unified";

/// The supervisor's socket.
pub fn socket(sandbox: &Path) -> PathBuf {
    sandbox.join("supervisor.sock")
}

/// The folder of one container.
pub fn bundle(sandbox: &Path, container: &Id) -> PathBuf {
    sandbox.join("containers").join(container.as_str())
}

/// In the folder of a sandbox's pins: where the pid namespace is that its containers share.
pub fn pid_pin(pins: &Path) -> PathBuf {
    pins.join("pid")
}

/// In the folder of a sandbox's pins: the namespace of that kind, as /proc/PID/ns names it.
pub fn pin(pins: &Path, kind: &str) -> PathBuf {
    pins.join(kind)
}

/// As what the supervisor's program is started to make the namespaces of a pod that has users of its own.
pub const MAKER: &CStr = c"gantry-maker";

/// Where a container of such a pod is made: a root of its own, in which the pod's users may go where they have to.
pub const STAGE_ROOTFS: &str = "/gantry-rootfs";
/// There: links to the pod's namespaces, by kind.
pub const STAGE_NAMESPACES: &str = "/gantry-namespaces";

/// As what the supervisor's program is started to be the first process of such a namespace; its name in it, too.
pub const FIRST_PROCESS: &CStr = c"gantry-init";

/// Where libcontainer keeps its state, a folder a container.
pub fn libcontainer(sandbox: &Path) -> PathBuf {
    sandbox.join("libcontainer")
}

/// In a bundle: the OCI configuration, as libcontainer reads it.
pub const CONFIG: &str = "config.json";
/// In a bundle: [`crate::Launch`].
pub const LAUNCH: &str = "launch";
/// In a bundle: the resolved [`crate::launch::Ids`], written by the creator.
pub const IDS: &str = "ids";
/// In a bundle: the same where the pod has users of its own. A supervisor that knows nothing of them finds no ids, and so
/// runs no command in such a container as the host's root.
pub const MAPPED_IDS: &str = "mapped-ids";
/// In a bundle: [`crate::ExitRecord`].
pub const EXIT: &str = "exit";
/// In a bundle: [`crate::log::LogLimits`]; containers from before supervisors rotated have none.
pub const LOG_LIMITS: &str = "log-limits";
/// In a sandbox's folder: locked by the one process that writes the logs of its containers.
pub const LOG_LOCK: &str = "log-lock";
/// In a bundle: the mount point of the root.
pub const ROOTFS: &str = "rootfs";
/// In a bundle: a link of the creator's to the pid namespace that came along with the order to start.
pub const TARGET_PIDS: &str = "target-pids";
/// In a bundle: FIFOs. The container holds them open for reading too, so they outlive whoever reads the log.
pub const STDOUT: &str = "stdout";
pub const STDERR: &str = "stderr";
