//! What the supervisor is told of a container that it makes without libcontainer. The same container as `config.json` describes.

use gantry_base::launch::{Direct, Node};
use gantry_cri::v1;

use super::{Device, Host, clean};

/// OCI runtime specification, config-linux.md, "Default Devices"; by path, major and minor number.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/urandom", 1, 9),
    ("/dev/random", 1, 8),
];

/// None for what libcontainer is to do: hooks of the host, file systems of devices, users that are not the host's. And where pids
/// are shared: whoever shares them would see of a process that is being made what that sees of the host (/proc/PID/mountinfo and
/// /proc/PID/net ask for no right to trace it), so what is born there is to have as little as can be before its eyes.
pub fn of(
    security: &v1::LinuxContainerSecurityContext,
    namespaces: &v1::NamespaceOption,
    host: &Host,
) -> Option<Direct> {
    let shares_pids = !host.pid.is_empty() || namespaces.pid() == v1::NamespaceMode::Target;
    if shares_pids || host.users.is_some() || !host.cdi.hooks.is_empty() || !host.cdi.tmpfs.is_empty() {
        return None;
    }
    let named = |path: &&String| !path.is_empty();
    let hidden = |given: &[String]| if security.privileged { Vec::new() } else { given.to_vec() };
    Some(Direct {
        namespaces: [&host.net, &host.ipc, &host.uts].into_iter().filter(named).cloned().collect(),
        own_pids: namespaces.pid() != v1::NamespaceMode::Node,
        own_cgroups: !security.privileged,
        writable_kernel: security.privileged,
        nodes: nodes(&host.devices),
        read_only: hidden(&security.readonly_paths),
        masked: hidden(&security.masked_paths),
    })
}

/// Terminals are the container's own: there it has a link.
const PTMX: &str = "/dev/ptmx";

fn nodes(given: &[Device]) -> Vec<Node> {
    let default = DEFAULT_NODES.iter().filter(|(path, ..)| given.iter().all(|device| clean(&device.path) != *path));
    let default = default.map(|(path, major, minor)| Node {
        path: (*path).to_owned(),
        source: (*path).to_owned(),
        kind: b'c',
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let given = given.iter().filter(|device| clean(&device.path) != PTMX).map(|device| Node {
        path: clean(&device.path),
        source: device.source.clone(),
        kind: u8::try_from(device.kind).unwrap_or(b'c'),
        major: device.major,
        minor: device.minor,
        mode: device.mode,
        uid: device.uid,
        gid: device.gid,
    });
    given.chain(default).collect()
}
