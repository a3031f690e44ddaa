//! The devices of a container: those that CRI names, and all of the host's for a privileged one.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use gantry_cri::v1;

use crate::cgroup::devices::{Kind, MKNOD, READ, Rule, WRITE};
use crate::container::spec::Device;
use crate::node::NodeError;

/// Folders of /dev that a container has of its own.
const OWN: [&str; 5] = ["pts", "shm", "fd", "mqueue", "console"];
const HOST_DEVICES_MAX: usize = 4096;

pub fn gather(config: &v1::ContainerConfig, privileged: bool) -> Result<Vec<Device>, NodeError> {
    let mut devices = Vec::new();
    if privileged {
        walk(Path::new("/dev"), &mut devices);
    }
    for asked in &config.devices {
        let path = Path::new(&asked.host_path);
        let bad = |why| NodeError::Invalid { what: "device", value: asked.host_path.clone(), why };
        let access = &asked.permissions;
        if access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
            return Err(bad("its permissions are not of rwm"));
        }
        let device = node(path, &asked.container_path, access).ok_or_else(|| bad("it is no device node"))?;
        devices.retain(|d: &Device| d.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

/// What its cgroup is told of a device that a container is given.
pub fn rule(device: &Device) -> Rule {
    let bit = |letter| match letter {
        'r' => READ,
        'w' => WRITE,
        _ => MKNOD,
    };
    Rule {
        allow: true,
        kind: Some(if device.kind == 'b' { Kind::Block } else { Kind::Char }),
        major: Some(device.major),
        minor: Some(device.minor),
        access: device.access.chars().map(bit).fold(0, |all, bit| all | bit),
    }
}

fn node(path: &Path, at: &str, access: &str) -> Option<Device> {
    let metadata = std::fs::metadata(path).ok()?;
    let kind = match metadata.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return None,
    };
    Some(Device {
        path: at.to_owned(),
        source: path.to_string_lossy().into_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

fn walk(dir: &Path, devices: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if devices.len() >= HOST_DEVICES_MAX || OWN.iter().any(|own| path == Path::new("/dev").join(own)) {
            continue;
        }
        match entry.file_type() {
            Ok(t) if t.is_dir() => walk(&path, devices),
            Ok(t) if t.is_symlink() => {}
            _ => devices.extend(node(&path, &path.to_string_lossy(), "rwm")),
        }
    }
}
