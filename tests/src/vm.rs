//! Machines of our own, for what the host's kernel does not have: a kernel that `tests/vm/kernel.sh` made, the host's own
//! tree as a root that cannot be written to, and one command that runs in it as root with cgroup v2 alone.
//!
//! Two halves meet here over one folder, which both sides see: [`Vm::run`] on the host writes what is to be run and reads
//! what came of it; [`init`] is process 1 of the machine.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

mod guest;

pub use guest::init;

/// The kernels that a machine can boot. Names say how it runs and which series the kernel is of.
pub const KERNELS: &[&str] = &["uml-6.12", "uml-6.1"];
const POLL: Duration = Duration::from_millis(10);
const MEMORY_MIB: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum VmError {
    #[error("no kernel is named {0:?}; there are {KERNELS:?}")]
    NoKernel(String),
    #[error("tests/vm/kernel.sh {kernel} made no kernel ({status})")]
    Kernel { kernel: String, status: ExitStatus },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the machine did not end within {after:?}; its console is in {console}", console = console.display())]
    Slow { after: Duration, console: PathBuf },
    #[error("the machine ended without an answer; its console is in {}", .0.display())]
    Died(PathBuf),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> VmError {
    let what = what.into();
    move |source| VmError::Io { what, source }
}

/// What process 1 is to do.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

/// How the command ended, and what the machine was.
#[derive(Debug, Deserialize, Serialize)]
pub struct Answer {
    /// As a shell tells it: 128 and the signal's number for what a signal ended.
    pub code: i32,
    pub kernel: String,
    pub controllers: String,
    /// Seconds that the kernel had run when the command began.
    pub boot_seconds: f64,
}

/// A machine to be booted.
#[derive(Debug)]
pub struct Vm {
    pub kernel: String,
    /// The program that is process 1, told so by `init` as its first argument.
    pub init: PathBuf,
    /// Where the answer, the console and core files are left.
    pub out: PathBuf,
    pub timeout: Duration,
    /// Whether the console is the terminal of who runs it.
    pub interactive: bool,
}

/// The kernel's file, made first where it is not in the cache.
pub fn kernel(name: &str) -> Result<PathBuf, VmError> {
    if !KERNELS.contains(&name) {
        return Err(VmError::NoKernel(name.to_owned()));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/kernel.sh");
    let made = Command::new(&script).arg(name).stderr(Stdio::inherit()).output();
    let made = made.map_err(failed(script.display().to_string()))?;
    if !made.status.success() {
        return Err(VmError::Kernel { kernel: name.to_owned(), status: made.status });
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()))
}

impl Vm {
    /// Boots, runs one command as root, and powers off.
    pub fn run(&self, folder: &Path, program: &Path, arguments: &[String]) -> Result<Answer, VmError> {
        let kernel = kernel(&self.kernel)?;
        std::fs::create_dir_all(&self.out).map_err(failed(self.out.display().to_string()))?;
        let environment = ["HOME", "PATH", "RUST_BACKTRACE", "CARGO_TARGET_DIR"];
        let environment = environment.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let order = Order {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            environment: environment.collect(),
        };
        let text = serde_json::to_vec(&order).expect("plain data");
        std::fs::write(self.out.join(guest::ORDER), text).map_err(failed("the order"))?;
        let _ = std::fs::remove_file(self.out.join(guest::ANSWER));
        let console = self.console();
        self.boot(&kernel, &console)?;
        let answer = std::fs::read(self.out.join(guest::ANSWER)).ok();
        answer.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(VmError::Died(console))
    }

    /// What the machine printed, its kernel and the command alike.
    pub fn console(&self) -> PathBuf {
        self.out.join("console")
    }

    fn boot(&self, kernel: &Path, console: &Path) -> Result<(), VmError> {
        // The machine's memory is a file; a temporary folder on disk would make a disk of it.
        let folder =
            tempfile::Builder::new().prefix("gantry-vm-").tempdir_in("/dev/shm").map_err(failed("/dev/shm"))?;
        let file = File::create(console).map_err(failed(console.display().to_string()))?;
        let mut command = Command::new(kernel);
        command
            .arg(format!("mem={MEMORY_MIB}M"))
            .arg(format!("uml_dir={}", folder.path().display()))
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=-1"])
            .args(["con=null", if self.interactive { "con0=fd:0,fd:1" } else { "con0=null,fd:1" }])
            .arg(format!("init={}", self.init.display()))
            .args(["--", "init"])
            .arg(&self.out)
            .env("TMPDIR", folder.path())
            .stderr(file.try_clone().map_err(failed("the console"))?);
        if self.interactive {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
        } else {
            // A machine is several processes: all of them are one group, and end with it.
            command.stdin(Stdio::null()).stdout(file).process_group(0);
        }
        let mut child = command.spawn().map_err(failed(kernel.display().to_string()))?;
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let deadline = Instant::now() + self.timeout;
        let ended = loop {
            match child.try_wait().map_err(failed("the machine"))? {
                Some(_) => break true,
                None if Instant::now() > deadline => break false,
                None => std::thread::sleep(POLL),
            }
        };
        if !self.interactive {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = child.wait();
        if ended { Ok(()) } else { Err(VmError::Slow { after: self.timeout, console: console.to_owned() }) }
    }
}

/// As a shell tells it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
