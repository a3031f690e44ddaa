//! The RuntimeDefault profile, and profiles of the host's administrator, compiled to what the kernel loads. A compilation
//! takes milliseconds, so each result is kept: by the capabilities that open further calls, or by the file's text.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use parking_lot::Mutex;

use super::capabilities::bit;
use super::seccomp_file;
use crate::image::Digest;

/// Allowed to every container: what ordinary programs use and what cannot change the host.
const ALLOWED: &str = include_str!("seccomp_allowed.txt");

/// Calls that come with a capability, because without them the capability would be worth nothing.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// CLONE_NEW* flags: a container makes namespaces only with CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, with and without UNAME26, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// x32 has hardly a kernel and no image, and would make the filter, which each start loads and compiles, half as long again.
const WITHOUT_X32: [ScmpArch; 2] = [ScmpArch::X86, ScmpArch::Arm];
const AF_VSOCK: u64 = 40;
const ENOSYS: i32 = 38;
const EPERM: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("compile the seccomp filter")]
    Compile(#[from] SeccompError),
    #[error("read seccomp profile {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("seccomp profile {0:?} is no absolute path and no name of a file below the folder of profiles")]
    Name(String),
    #[error("seccomp profile {0:?} is not a regular file")]
    Kind(PathBuf),
    #[error("seccomp profile {path:?}: {source}")]
    Parse { path: PathBuf, source: seccomp_file::FileError },
    #[error("take the compiled filter out of a memfd")]
    Export(#[source] std::io::Error),
}

/// A program for the kernel, and the flags that seccomp(2) loads it with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub program: Vec<u8>,
    pub flags: u32,
}

/// The compiled filters of this runtime.
#[derive(Debug, Default)]
pub struct Filters {
    default: Mutex<BTreeMap<u64, Arc<Filter>>>,
    /// By the digest of the file's text.
    files: Mutex<BTreeMap<Digest, Arc<Filter>>>,
}

impl Filters {
    /// RuntimeDefault, for a container with these capabilities.
    pub fn runtime_default(&self, capabilities: u64) -> Result<Arc<Filter>, ProfileError> {
        let key = capabilities & opening();
        if let Some(filter) = self.default.lock().get(&key) {
            return Ok(Arc::clone(filter));
        }
        let filter = Arc::new(Filter { program: compile_default(key)?, flags: 0 });
        self.default.lock().insert(key, Arc::clone(&filter));
        Ok(filter)
    }

    /// A profile of the host: by an absolute path, as CRI names one, or by a name below `root`. Who speaks to the runtime is
    /// root and may read any file; that no pod's author gets to name one is the kubelet's affair.
    pub fn localhost(&self, root: &Path, name: &str) -> Result<Arc<Filter>, ProfileError> {
        if name.is_empty() || Path::new(name).components().any(|c| c == std::path::Component::ParentDir) {
            return Err(ProfileError::Name(name.to_owned()));
        }
        let path = root.join(name);
        let text = read_bounded(&path)?;
        let key = Digest::of(text.as_bytes());
        if let Some(filter) = self.files.lock().get(&key) {
            return Ok(Arc::clone(filter));
        }
        let filter = Arc::new(compile(&text, path)?);
        let mut files = self.files.lock();
        if files.len() >= FILES_MAX {
            // Profiles are few; a host that wears them out compiles anew.
            files.clear();
        }
        files.insert(key, Arc::clone(&filter));
        Ok(filter)
    }
}

/// A profile's text, as Docker and containerd read them; `path` is for messages.
pub fn compile(text: &str, path: PathBuf) -> Result<Filter, ProfileError> {
    let profile = seccomp_file::parse(text).map_err(|source| ProfileError::Parse { path, source })?;
    Ok(Filter { program: export(&seccomp_file::build(&profile)?)?, flags: profile.flags })
}

const PROFILE_MAX_BYTES: u64 = 1 << 20;
/// Compiled profiles of files that are kept, the old texts of files that have changed among them.
const FILES_MAX: usize = 64;

fn read_bounded(path: &Path) -> Result<String, ProfileError> {
    let failed = |source| ProfileError::Read { path: path.to_owned(), source };
    // A FIFO must not be waited for.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ProfileError::Kind(path.to_owned()));
    }
    let mut text = String::new();
    file.take(PROFILE_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The capabilities that the profile asks about.
fn opening() -> u64 {
    BY_CAPABILITY.iter().filter_map(|(name, _)| bit(name).ok()).fold(0, |a, b| a | b)
}

/// Adds the architectures whose calls a process of this machine can make, unless only some of them are meant. The machine's own is
/// always there; a process that makes calls of another that is not is killed.
pub(super) fn architectures(filter: &mut ScmpFilterContext, only: Option<&[ScmpArch]>) -> Result<(), SeccompError> {
    let extra: &[ScmpArch] = match ScmpArch::native() {
        ScmpArch::X8664 => &[ScmpArch::X86, ScmpArch::X32],
        ScmpArch::Aarch64 => &[ScmpArch::Arm],
        _ => &[],
    };
    for arch in extra.iter().filter(|arch| only.is_none_or(|only| only.contains(arch))) {
        filter.add_arch(*arch)?;
    }
    // A balanced tree instead of a list: some hundred comparisons become nine for each call the container makes.
    filter.set_ctl_optimize(2)?;
    filter.set_ctl_nnp(false)?;
    Ok(())
}

fn compile_default(capabilities: u64) -> Result<Vec<u8>, ProfileError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(EPERM))?;
    architectures(&mut filter, Some(&WITHOUT_X32))?;
    filter.set_act_badarch(ScmpAction::Errno(ENOSYS))?;
    let has = |name: &str| bit(name).is_ok_and(|bit| capabilities & bit != 0);
    let mut open: std::collections::BTreeSet<&str> = ALLOWED.split_whitespace().collect();
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            open.extend(calls.split_whitespace());
        }
    }
    for name in &open {
        allow(&mut filter, name, &[])?;
    }
    let argument = |index, op, value| ScmpArgCompare::new(index, op, value);
    for persona in PERSONALITIES {
        allow(&mut filter, "personality", &[argument(0, ScmpCompareOp::Equal, persona)])?;
    }
    allow(&mut filter, "socket", &[argument(0, ScmpCompareOp::NotEqual, AF_VSOCK)])?;
    if !has("SYS_ADMIN") {
        allow(&mut filter, "clone", &[argument(0, ScmpCompareOp::MaskedEqual(CLONE_NAMESPACES), 0)])?;
        // Its flags are behind a pointer: libc falls back to clone, whose flags can be seen.
        let clone3 = ScmpSyscall::from_name("clone3")?;
        filter.add_rule(ScmpAction::Errno(ENOSYS), clone3)?;
    }
    export(&filter)
}

/// A name that this machine does not know needs no rule.
fn allow(filter: &mut ScmpFilterContext, name: &str, conditions: &[ScmpArgCompare]) -> Result<(), SeccompError> {
    let Ok(call) = ScmpSyscall::from_name(name) else { return Ok(()) };
    if conditions.is_empty() {
        filter.add_rule(ScmpAction::Allow, call)?;
    } else {
        filter.add_rule_conditional(ScmpAction::Allow, call, conditions)?;
    }
    Ok(())
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, ProfileError> {
    let failed = |e: rustix::io::Errno| ProfileError::Export(e.into());
    let fd = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).map_err(failed)?;
    let mut file = std::fs::File::from(fd);
    filter.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(ProfileError::Export)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_compiles_once_a_set() {
        let filters = Filters::default();
        let plain = filters.runtime_default(0xa804_25fb).unwrap();
        let bytes = plain.program.len();
        assert!(bytes % 8 == 0 && bytes / 8 < 4096, "{} instructions", bytes / 8);
        let same = filters.runtime_default(0xa804_25fb & !1).unwrap();
        assert!(Arc::ptr_eq(&plain, &same));
        let admin = filters.runtime_default(bit("SYS_ADMIN").unwrap()).unwrap();
        assert_ne!(plain, admin);
    }

    #[test]
    fn every_listed_call_is_known_to_some_machine() {
        let odd = |name: &&str| name.bytes().any(|b| !b.is_ascii_lowercase() && !b.is_ascii_digit() && b != b'_');
        assert_eq!(ALLOWED.split_whitespace().find(odd), None);
        for forbidden in ["mount", "ptrace_all", "bpf", "kexec_load", "keyctl", "add_key", "userfaultfd", "reboot"] {
            assert!(!ALLOWED.split_whitespace().any(|n| n == forbidden), "{forbidden}");
        }
    }

    #[test]
    fn bad_profiles_fail() {
        let dir = tempfile::tempdir().unwrap();
        let filters = Filters::default();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::fs::write(dir.path().join("bad.json"), "{").unwrap();
        let good = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(dir.path().join("good.json"), good).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["missing.json", "", "folder", "fifo", "bad.json", "../good.json", "/etc/passwd", "/dev/zero"] {
            assert!(filters.localhost(dir.path(), name).is_err(), "{name:?}");
        }
        assert!(filters.localhost(&dir.path().join("folder"), "../good.json").is_err());
        // By its name, and by its path wherever the folder of profiles is.
        let named = filters.localhost(dir.path(), "good.json").unwrap();
        let path = dir.path().join("good.json");
        let by_path = filters.localhost(Path::new("/nowhere"), path.to_str().unwrap()).unwrap();
        assert!(Arc::ptr_eq(&named, &by_path), "compiled once");
        std::fs::write(&path, good.replace("chmod", "chown")).unwrap();
        assert_ne!(filters.localhost(dir.path(), "good.json").unwrap(), named, "the file has changed");
    }
}
