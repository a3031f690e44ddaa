//! A network segment for machines: a bridge and a tap for each, in a network namespace that nobody else is in.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::{VmError, failed};

/// Makes the segment around the calling thread: what this thread spawns is on it, and when the last has ended it is gone.
pub fn enclose(machines: u32) -> Result<(), VmError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from).map_err(failed("a network namespace"))?;
    ip("link add segment type bridge")?;
    ip("link set segment up")?;
    for n in 1..=machines {
        let tap = tap(n);
        ip(&format!("tuntap add {tap} mode tap"))?;
        ip(&format!("link set {tap} master segment up"))?;
    }
    Ok(())
}

/// The host's end of a machine's network card.
pub fn tap(machine: u32) -> String {
    format!("tap{machine}")
}

fn ip(words: &str) -> Result<(), VmError> {
    let done = Command::new("ip").args(words.split(' ')).status().map_err(failed("ip"))?;
    let refused = || failed(format!("ip {words}"))(std::io::Error::other(done.to_string()));
    if done.success() { Ok(()) } else { Err(refused()) }
}
