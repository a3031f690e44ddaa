//! Machines of our own, for what the host's kernel does not have: a kernel that `tests/vm/kernel.sh` made, the host's own
//! tree as a root that cannot be written to, and one command that runs in it as root with cgroup v2 alone.
//!
//! Two halves meet here over one folder, which both sides see: [`Vm::run`] on the host writes what is to be run and reads
//! what came of it; [`init`] is process 1 of the machine.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub mod bare;
mod guest;
mod here;
mod qemu;
pub mod segment;
mod uml;

pub use guest::{UNITS, init, serve};
pub use here::{Here, Seat, here, patience};

/// The kernels that a machine can boot. Names say how it runs and which series the kernel is of.
pub const KERNELS: &[&str] = &["uml-6.12", "uml-6.1", "qemu-6.12", "qemu-6.12-cloud", "qemu-6.1"];
const POLL: Duration = Duration::from_millis(10);
const MEMORY_MIB: u64 = 4096;
/// What of the environment a test in a machine sees.
const PASSED_ON: &[&str] = &[
    "HOME",
    "PATH",
    "RUST_BACKTRACE",
    "CARGO_TARGET_DIR",
    "GANTRY_FAULTS",
    "GANTRY_FAULT_SEED",
    "GANTRY_FAULT_ROUNDS",
];

#[derive(Debug, thiserror::Error)]
pub enum VmError {
    #[error("no kernel is named {0:?}; there are {KERNELS:?}")]
    NoKernel(String),
    #[error("tests/vm/kernel.sh {kernel} made no kernel ({status})")]
    Kernel { kernel: String, status: ExitStatus },
    #[error("{0} has the host's tree as its root; only user-mode Linux takes another")]
    Ground(String),
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
    #[error("interrupted")]
    Interrupted,
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
    systemd: bool,
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

/// What a command finds itself on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ground {
    /// The host's tree, which it cannot write to; nobody else is there.
    #[default]
    Host,
    /// The same, with the host's systemd as process 1.
    Systemd,
    /// A tree of its own, in which everything is that it needs.
    Own(PathBuf),
}

/// A machine to be booted.
#[derive(Clone, Debug)]
pub struct Vm {
    pub kernel: String,
    /// The program that is process 1, told so by `init` as its first argument.
    pub init: PathBuf,
    /// Where the answer, the console and core files are left.
    pub out: PathBuf,
    pub timeout: Duration,
    /// Whether the console is the terminal of who runs it.
    pub interactive: bool,
    pub ground: Ground,
    /// Which of several machines on one segment it is; the meeting's folder is the host's.
    pub seat: Option<Seat>,
}

/// How a boot came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Off,
    /// The test in it asked for a cut of the power.
    Cut,
    Late,
    Interrupted,
}

/// Whether this process was told to end: machines end first.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

static HEEDED: Once = Once::new();

/// From here on SIGINT and SIGTERM end the machines, and with them whoever waits for one.
fn heed_interrupts() {
    std::thread::spawn(|| {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        tokio.block_on(async {
            let heard = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).expect("a handler"));
            let [mut interrupt, mut terminate] = heard;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
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
    /// Boots, runs one command as root, and powers off. Whenever the command has the power cut, or has asked for it before the
    /// machine powered itself off, it is begun again.
    pub fn run(&self, folder: &Path, program: &Path, arguments: &[String]) -> Result<Answer, VmError> {
        if matches!(self.ground, Ground::Own(_)) && !self.kernel.starts_with("uml") {
            return Err(VmError::Ground(self.kernel.clone()));
        }
        let kernel = kernel(&self.kernel)?;
        if !self.interactive {
            HEEDED.call_once(heed_interrupts);
        }
        std::fs::create_dir_all(&self.out).map_err(failed(self.out.display().to_string()))?;
        let console = self.console();
        File::create(&console).map_err(failed(console.display().to_string()))?;
        let deadline = Instant::now() + self.timeout;
        let _ = std::fs::remove_file(self.out.join(guest::ANSWER));
        for boot in 0_u32.. {
            let order = self.order(folder, program, arguments, boot);
            let text = serde_json::to_vec(&order).expect("plain data");
            std::fs::write(self.out.join(guest::ORDER), text).map_err(failed("the order"))?;
            match self.boot(&kernel, &console, deadline)? {
                End::Off if here::boots_again(&self.out) => {}
                End::Off => break,
                End::Cut => {}
                End::Late => return Err(VmError::Slow { after: self.timeout, console }),
                End::Interrupted => return Err(VmError::Interrupted),
            }
        }
        let answer = std::fs::read(self.out.join(guest::ANSWER)).ok();
        answer.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(VmError::Died(console))
    }

    fn order(&self, folder: &Path, program: &Path, arguments: &[String], boot: u32) -> Order {
        let inherited = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let mut environment: Vec<(String, String)> = inherited.collect();
        let patience = if self.kernel.starts_with("uml") { 1 } else { qemu::PATIENCE };
        environment.extend(here::told(boot, patience, self.seat.as_ref()));
        Order {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            environment,
            systemd: self.ground == Ground::Systemd,
        }
    }

    /// What the machine printed, its kernel and the command alike.
    pub fn console(&self) -> PathBuf {
        self.out.join("console")
    }

    fn boot(&self, kernel: &Path, console: &Path, deadline: Instant) -> Result<End, VmError> {
        // The machine's memory is a file; a temporary folder on disk would make a disk of it.
        let scratch =
            tempfile::Builder::new().prefix("gantry-vm-").tempdir_in("/dev/shm").map_err(failed("/dev/shm"))?;
        let command = if self.kernel.starts_with("uml") { uml::command } else { qemu::command };
        let mut command = command(self, kernel, scratch.path());
        let file = File::options().append(true).open(console).map_err(failed(console.display().to_string()))?;
        command.stderr(file.try_clone().map_err(failed("the console"))?);
        if self.interactive {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
        } else {
            // A machine is several processes: all of them are one group, and end with it.
            command.stdin(Stdio::null()).stdout(file).process_group(0);
        }
        let mut child = command.spawn().map_err(failed(kernel.display().to_string()))?;
        let end = self.wait(&mut child, deadline);
        if !self.interactive {
            let _ = killpg(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGKILL);
        }
        let _ = child.wait();
        end
    }

    fn wait(&self, child: &mut Child, deadline: Instant) -> Result<End, VmError> {
        loop {
            if child.try_wait().map_err(failed("the machine"))?.is_some() {
                return Ok(End::Off);
            }
            if here::asks_for_cut(&self.out) {
                return Ok(End::Cut);
            }
            if INTERRUPTED.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            }
            if Instant::now() > deadline {
                return Ok(End::Late);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// As a shell tells it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
