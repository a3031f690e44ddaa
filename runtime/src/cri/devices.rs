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
        let found = if path.is_dir() {
            below(path, &asked.container_path, access)
        } else {
            vec![node(path, &asked.container_path, access).ok_or_else(|| bad("it is no device node"))?]
        };
        if found.is_empty() {
            return Err(bad("it is a folder without a device node"));
        }
        devices.retain(|d: &Device| found.iter().all(|new| new.path != d.path));
        devices.extend(found);
    }
    Ok(devices)
}

/// What its cgroup is told of a device that a container is given.
pub fn rule(device: &Device) -> Rule {
    may_open(device.kind == 'b', device.major, device.minor, &device.access)
}

pub fn may_open(block: bool, major: u32, minor: u32, access: &str) -> Rule {
    let bit = |letter| match letter {
        'r' => READ,
        'w' => WRITE,
        _ => MKNOD,
    };
    Rule {
        allow: true,
        kind: Some(if block { Kind::Block } else { Kind::Char }),
        major: Some(major),
        minor: Some(minor),
        access: access.chars().map(bit).fold(0, |all, bit| all | bit),
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

/// Every device in a folder and below, at the same places below another: what containerd makes of a folder that is asked for.
fn below(folder: &Path, at: &str, access: &str) -> Vec<Device> {
    let mut found = Vec::new();
    walk(folder, &mut found);
    for device in &mut found {
        if let Ok(rest) = Path::new(&device.path).strip_prefix(folder) {
            device.path = Path::new(at).join(rest).to_string_lossy().into_owned();
        }
        access.clone_into(&mut device.access);
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_devices_is_given_as_a_whole() {
        let device = |host: &str, container: &str, permissions: &str| v1::Device {
            host_path: host.into(),
            container_path: container.into(),
            permissions: permissions.into(),
        };
        let config = |devices| v1::ContainerConfig { devices, ..v1::ContainerConfig::default() };
        let all = gather(&config(vec![device("/dev", "/dev/host", "r")]), false).unwrap();
        let null = all.iter().find(|d| d.path == "/dev/host/null").expect("every host has it");
        assert_eq!((null.kind, null.major, null.minor, null.access.as_str()), ('c', 1, 3, "r"));
        assert!(all.iter().all(|d| d.path.starts_with("/dev/host/") && !d.path.starts_with("/dev/host/pts")));
        // Who is named by itself has what is said there.
        let asked = vec![device("/dev", "/dev/host", "r"), device("/dev/null", "/dev/host/null", "rw")];
        let all = gather(&config(asked), false).unwrap();
        let null: Vec<_> = all.iter().filter(|d| d.path == "/dev/host/null").collect();
        assert_eq!(null.iter().map(|d| d.access.as_str()).collect::<Vec<_>>(), ["rw"]);
        let empty = tempfile::tempdir().unwrap();
        let path = empty.path().to_str().unwrap();
        assert!(gather(&config(vec![device(path, "/dev/x", "r")]), false).unwrap_err().to_string().contains(path));
        assert!(gather(&config(vec![device("/etc/passwd", "/dev/x", "r")]), false).is_err());
    }
}
