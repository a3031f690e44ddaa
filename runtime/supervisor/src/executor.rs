//! The last stage of a container's process, in the container: volumes are put in place, then limits, filter, capabilities, ids and
//! execve. Run by the process that makes itself the container, by a further one, or by libcontainer, whose container counts as
//! created when the volumes are there. An error travels over a pipe that execve closes.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use gantry_base::launch::{Ids, Process, StartHooks};
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::fs::{FileType, Mode, OFlags};

use crate::{hooks, inroot, sys};

/// A volume whose tree the creator has opened.
#[derive(Debug)]
pub struct OpenVolume {
    pub tree: RawFd,
    pub destination: String,
}

#[derive(Debug)]
pub struct Stage {
    pub process: Process,
    pub seccomp_flags: u32,
    pub ids: Ids,
    pub volumes: Vec<OpenVolume>,
    /// None for a further process.
    pub start_hooks: StartHooks,
    /// Closed by execve; what is written to it is why execve was not reached.
    pub failure: RawFd,
}

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("mount volume at {path:?}: {source}")]
    Volume { path: String, source: io::Error },
    #[error("change to working directory {path:?}: {source}")]
    Cwd { path: String, source: io::Error },
    #[error("set resource limit {resource} to {soft}:{hard}: {source}")]
    Rlimit { resource: u32, soft: u64, hard: u64, source: io::Error },
    #[error("load the seccomp filter: {0}")]
    Seccomp(#[source] io::Error),
    #[error("set capabilities: {0}")]
    Capabilities(#[source] io::Error),
    #[error("become uid {uid}, gid {gid}: {source}")]
    Ids { uid: u32, gid: u32, source: io::Error },
    #[error("set no_new_privs: {0}")]
    NoNewPrivs(#[source] io::Error),
    #[error("set AppArmor profile {profile:?}: {source}")]
    AppArmor { profile: String, source: io::Error },
    #[error("argument or variable {0:?} holds a zero byte")]
    Zero(String),
    #[error(transparent)]
    Hook(#[from] hooks::HookError),
    #[error("no command is given")]
    NoCommand,
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath { name: String },
    #[error("exec: {name:?}: {source}")]
    Exec { name: String, source: io::Error },
}

#[derive(Clone)]
pub struct LastStage(pub Rc<Stage>);

impl Executor for LastStage {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        place_volumes(&self.0).map_err(|e| ExecutorValidationError::ArgValidationError(plain(&e)))
    }

    /// The environment goes to execve; changing that of this process would gain nothing.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        Err(ExecutorError::Other(tell(self.0.failure, &run(&self.0))))
    }
}

/// The same for a process that libcontainer has not made.
pub fn last_stage(stage: &Stage) -> ! {
    fail(stage.failure, &run(stage))
}

/// Ends a process that has not reached its program.
pub fn fail(failure: RawFd, error: &impl ToString) -> ! {
    tell(failure, error);
    sys::exit_now(1)
}

fn tell(failure: RawFd, error: &impl ToString) -> String {
    let text = plain(error);
    sys::write_raw(failure, text.as_bytes());
    text
}

/// What is written there when the rest may be filtered: who sees nothing of it, and the end closed, knows that the process was
/// killed before.
pub const AT_THE_DOOR: u8 = 0;

/// The text without Rust's "(os error 2)": users know the words, not the number.
pub fn plain(error: &impl ToString) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}

/// Mounts them where they belong in this process' root.
pub fn place_volumes(stage: &Stage) -> Result<(), StageError> {
    if stage.volumes.is_empty() {
        return Ok(());
    }
    let failed = |path: &str, source: io::Error| StageError::Volume { path: path.to_owned(), source };
    for volume in &stage.volumes {
        let path = volume.destination.as_str();
        // The root is opened for each: a volume at "/" is refused by the spec's builder, one at "/a" changes "/a/b".
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(path, e.into()))?;
        let tree = sys::borrow(volume.tree);
        let target = inroot::make_target(root.as_fd(), Path::new(path), &tree).map_err(|e| failed(path, e))?;
        refuse_proc(&target).map_err(|e| failed(path, e))?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", &target, "", flags).map_err(|e| failed(path, e.into()))?;
    }
    Ok(())
}

/// What is written to the kernel's files is not to go elsewhere, wherever the links of an image lead (CVE-2019-16884,
/// CVE-2025-52881). That a volume is not meant to be there is known by its name already.
fn refuse_proc(target: &OwnedFd) -> io::Result<()> {
    let place = std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    if place.starts_with("/proc") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("leads to {place:?}")));
    }
    Ok(())
}

/// Takes effect at execve. Older kernels have one file for all security modules.
fn set_apparmor(profile: &str) -> io::Result<()> {
    let open = |path: &str| std::fs::OpenOptions::new().write(true).open(path);
    let file = open("/proc/thread-self/attr/apparmor/exec").or_else(|_| open("/proc/thread-self/attr/exec"))?;
    if rustix::fs::fstatfs(&file)?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "/proc is something else"));
    }
    io::Write::write_all(&mut &file, format!("exec {profile}").as_bytes())
}

/// Comes back only with an error.
fn run(stage: &Stage) -> StageError {
    match prepare(stage) {
        Ok(()) => match hooks::run(&stage.start_hooks, &stage.process.env) {
            Ok(()) => execute(&stage.process),
            Err(error) => error.into(),
        },
        Err(error) => error,
    }
}

fn prepare(stage: &Stage) -> Result<(), StageError> {
    let process = &stage.process;
    for limit in &process.rlimits {
        set_rlimit(limit)?;
    }
    change_directory(&process.cwd)?;
    if !process.apparmor.is_empty() {
        set_apparmor(&process.apparmor)
            .map_err(|source| StageError::AppArmor { profile: process.apparmor.clone(), source })?;
    }
    if let Some(umask) = process.umask {
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    if !sys::write_raw(stage.failure, &[AT_THE_DOOR]) {
        // Nobody would know of it.
        sys::exit_now(1);
    }
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is loaded before that goes.
    if !process.no_new_privs && !process.seccomp.is_empty() {
        sys::load_seccomp(&process.seccomp, stage.seccomp_flags).map_err(StageError::Seccomp)?;
    }
    become_user(process, &stage.ids)?;
    if process.no_new_privs {
        sys::set_no_new_privs().map_err(StageError::NoNewPrivs)?;
        if !process.seccomp.is_empty() {
            sys::load_seccomp(&process.seccomp, stage.seccomp_flags).map_err(StageError::Seccomp)?;
        }
    }
    Ok(())
}

/// A hard limit above ours needs CAP_SYS_RESOURCE on the host; without it the container gets what there is.
fn set_rlimit(limit: &gantry_base::launch::Rlimit) -> Result<(), StageError> {
    let failed = |source| StageError::Rlimit { resource: limit.resource, soft: limit.soft, hard: limit.hard, source };
    match sys::set_rlimit(limit.resource, limit.soft, limit.hard) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let hard = sys::hard_rlimit(limit.resource).map_err(failed)?;
            sys::set_rlimit(limit.resource, limit.soft.min(hard), limit.hard.min(hard)).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// The directory is opened inside the root without magic links (CVE-2024-21626), then proved to have a path there.
fn change_directory(cwd: &str) -> Result<(), StageError> {
    let path = if cwd.is_empty() { "/" } else { cwd };
    let failed = |source| StageError::Cwd { path: path.to_owned(), source };
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(e.into()))?;
    let dir = inroot::open(root.as_fd(), Path::new(path), OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
    rustix::process::fchdir(&dir).map_err(|e| failed(e.into()))?;
    // The kernel says "(unreachable)" of a directory outside the root, which std does not take for a path.
    match std::env::current_dir() {
        Ok(real) if real.is_absolute() => Ok(()),
        Ok(_) => Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, "is outside the container"))),
        Err(e) => Err(failed(e)),
    }
}

/// An image's user may open /dev/stdout and /dev/stderr anew, as log files that link there do: the pipes are made its own.
/// What is not ours to give (/dev/null, a file of the host that is read-only) is left as it is.
pub fn give_stdio(streams: [BorrowedFd<'_>; 3], uid: u32) {
    for fd in streams {
        let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if fd.is_terminal() || matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

fn become_user(process: &Process, ids: &Ids) -> Result<(), StageError> {
    let capabilities = StageError::Capabilities;
    for capability in 0..64 {
        if process.bounding & (1 << capability) == 0 && !sys::drop_bounding(capability).map_err(capabilities)? {
            break;
        }
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    give_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], ids.uid);
    sys::set_keep_caps(true).map_err(capabilities)?;
    sys::set_ids(ids.uid, ids.gid, &ids.groups).map_err(|source| StageError::Ids {
        uid: ids.uid,
        gid: ids.gid,
        source,
    })?;
    sys::set_keep_caps(false).map_err(capabilities)?;
    sys::clear_ambient().map_err(capabilities)?;
    sys::capset(process.effective, process.permitted, process.inheritable).map_err(capabilities)?;
    for capability in (0..64).filter(|c| process.ambient & (1 << c) != 0) {
        sys::raise_ambient(capability).map_err(capabilities)?;
    }
    Ok(())
}

fn strings(texts: &[String]) -> Result<Vec<CString>, StageError> {
    texts.iter().map(|t| CString::new(t.as_str()).map_err(|_| StageError::Zero(t.clone()))).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect()
}

/// execve, never execvp: a file without a known format is an error, not a shell script.
fn execute(process: &Process) -> StageError {
    let (args, env) = match (strings(&process.args), strings(&process.env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(e), _) | (_, Err(e)) => return e,
    };
    let Some(name) = process.args.first().filter(|n| !n.is_empty()) else { return StageError::NoCommand };
    let (arg_pointers, env_pointers) = (pointers(&args), pointers(&env));
    if let Err(e) = sys::close_range_on_exec(3) {
        return StageError::Exec { name: name.clone(), source: e };
    }
    sys::reset_signals();
    if name.contains('/') {
        let source = sys::execve(&args[0], &arg_pointers, &env_pointers);
        return StageError::Exec { name: name.clone(), source };
    }
    let path = process.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
    let mut denied = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let Ok(candidate) = CString::new(format!("{folder}/{name}")) else { continue };
        let error = sys::execve(&candidate, &arg_pointers, &env_pointers);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => denied = Some(error),
            _ => return StageError::Exec { name: name.clone(), source: error },
        }
    }
    match denied {
        Some(source) => StageError::Exec { name: name.clone(), source },
        None => StageError::NotInPath { name: name.clone() },
    }
}
