//! Kernel settings. Those below /proc/sys/net are of the network namespace of the thread that opens them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{NetworkError, records};

const FORWARDING: &str = "net/ipv4/ip_forward";
/// Stands in the run folder while forwarding is on because of us.
const FORWARDING_NOTE: &str = "ip-forward-was-off";

fn read(name: &str) -> Result<String, NetworkError> {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .map(|text| text.trim().to_owned())
        .map_err(|source| NetworkError::Sysctl { name: name.to_owned(), source })
}

fn write(name: &str, value: &str) -> Result<(), NetworkError> {
    fs::write(Path::new("/proc/sys").join(name), value)
        .map_err(|source| NetworkError::Sysctl { name: name.to_owned(), source })
}

/// As `write`, for settings that a kernel without IPv6 does not have.
fn write_if_there(name: &str, value: &str) -> Result<(), NetworkError> {
    match write(name, value) {
        Err(NetworkError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

fn note(run_dir: &Path) -> PathBuf {
    run_dir.join(FORWARDING_NOTE)
}

/// Pods reach each other and the world only where the node forwards.
pub(super) fn enable_forwarding(run_dir: &Path) -> Result<(), NetworkError> {
    if read(FORWARDING)? != "0" {
        return Ok(());
    }
    let note = note(run_dir);
    records::write_atomically(&note, b"").map_err(|source| NetworkError::State { path: note, source })?;
    tracing::info!("IPv4 forwarding was off: turned on");
    write(FORWARDING, "1")
}

/// Turns forwarding off where it was us who turned it on.
pub(super) fn restore_forwarding(run_dir: &Path) -> Result<(), NetworkError> {
    if !note(run_dir).exists() {
        return Ok(());
    }
    tracing::info!("IPv4 forwarding turned off again");
    write(FORWARDING, "0")
}

/// Inside a pod: nobody there configures interfaces by router advertisements.
pub(super) fn refuse_router_advertisements(interface: &str) -> Result<(), NetworkError> {
    write_if_there(&format!("net/ipv6/conf/{interface}/accept_ra"), "0")
}

/// The host's end of a link: no IPv6 of its own, nothing learnt from the pod, loopback addresses never routed.
pub(super) fn harden_link(interface: &str) -> Result<(), NetworkError> {
    refuse_router_advertisements(interface)?;
    write_if_there(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
    for (setting, value) in [("route_localnet", "0"), ("accept_redirects", "0"), ("send_redirects", "0")] {
        write(&format!("net/ipv4/conf/{interface}/{setting}"), value)?;
    }
    Ok(())
}
