//! User-mode Linux: the kernel is a program of the host, its root a folder of it by hostfs.

use std::path::Path;
use std::process::Command;

use super::{Ground, MEMORY_MIB, Vm, segment};

/// `scratch` is gone when the machine has ended; it is in memory, as the machine's own memory is a file.
pub fn command(vm: &Vm, kernel: &Path, scratch: &Path) -> Command {
    let (root, mode) = match &vm.ground {
        Ground::Host | Ground::Systemd => ("/".to_owned(), "ro"),
        Ground::Own(root) => (root.display().to_string(), "rw"),
    };
    let mut command = Command::new(kernel);
    command
        .arg(format!("mem={MEMORY_MIB}M"))
        .arg(format!("uml_dir={}", scratch.display()))
        .args(["root=/dev/root", "rootfstype=hostfs", &format!("rootflags={root}"), mode, "quiet", "panic=-1"])
        .args(["con=null", if vm.interactive { "con0=fd:0,fd:1" } else { "con0=null,fd:1" }]);
    if let Some(seat) = &vm.seat {
        // Without gro=1 TCP collapses.
        command.arg(format!("vec0:transport=tap,ifname={},depth=128,gro=1", segment::tap(seat.node)));
    }
    // What follows the dashes is process 1's.
    command.arg(format!("init={}", vm.init.display())).args(["--", "init", "hostfs"]).arg(&vm.out);
    command.env("TMPDIR", scratch);
    command
}
