//! QEMU: a whole machine with two processors and Debian's own kernel, its root the host's tree by virtiofs.

use std::path::Path;
use std::process::Command;

use super::{MEMORY_MIB, Vm};

/// The name by which the machine finds the folder that it shares.
const SHARED_TAG: &str = "shared";
/// An instruction takes 25 to 45 times as long as on the host; what is waited for is done in a tenth of its limit there.
pub const PATIENCE: u32 = 8;

/// `scratch` is gone when the machine has ended.
pub fn command(vm: &Vm, kernel: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/qemu.sh"));
    command
        .args([kernel, scratch, &vm.out])
        .arg(MEMORY_MIB.to_string())
        .arg(&vm.init)
        .args(["init", "virtiofs", SHARED_TAG]);
    command
}
