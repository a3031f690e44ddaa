//! What the kernel is asked for, told by strace: calls and the time in them, by what they are for. Being traced costs time of
//! its own, so that only the shares count.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::figures;

#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub calls: usize,
    pub millis: f64,
}

#[derive(Debug)]
pub struct Trace {
    strace: Child,
    output: tempfile::NamedTempFile,
    /// Open as long as it may say something.
    _said: BufReader<ChildStderr>,
}

impl Trace {
    /// Of every supervisor that runs, and of what they start. None where strace is not installed.
    pub fn of_supervisors() -> io::Result<Option<Trace>> {
        let output = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-T", "-y", "-o"]).arg(output.path());
        let supervisors = figures::supervisor_pids();
        for pid in &supervisors {
            command.args(["-p", pid]);
        }
        let mut strace = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            started => started?,
        };
        // It says of each that it has attached to it.
        let said = strace.stderr.take().ok_or_else(|| io::Error::other("strace has no stderr"))?;
        let mut said = BufReader::new(said);
        for _ in supervisors {
            said.read_line(&mut String::new())?;
        }
        Ok(Some(Trace { strace, output, _said: said }))
    }

    pub fn finish(mut self) -> io::Result<BTreeMap<&'static str, Sum>> {
        let pid = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.strace.wait()?;
        let mut sums: BTreeMap<&'static str, Sum> = BTreeMap::new();
        for line in BufReader::new(self.output.reopen()?).lines() {
            if let Some((class, seconds)) = classify(&line?) {
                let sum = sums.entry(class).or_default();
                sum.calls += 1;
                sum.millis += seconds * 1000.0;
            }
        }
        Ok(sums)
    }
}

/// What a line's call is for and the seconds in it. None of what only waits, and of a call's first half, where it has two.
fn classify(line: &str) -> Option<(&'static str, f64)> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start().trim_start_matches("<... ");
    let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
    let seconds = rest.rsplit_once('<')?.1.strip_suffix('>')?.parse().ok()?;
    let class = match name {
        "poll" | "ppoll" | "wait4" | "waitid" | "epoll_wait" | "futex" | "nanosleep" | "clock_nanosleep" => {
            return None;
        }
        _ if rest.contains("cgroup") => "cgroups",
        "mount" | "umount2" | "move_mount" | "open_tree" | "mount_setattr" | "fsopen" | "fsconfig" | "fsmount"
        | "pivot_root" => "mounts",
        "clone" | "clone3" | "fork" | "vfork" | "unshare" | "setns" | "execve" | "execveat" => "processes, namespaces",
        "seccomp" => "seccomp",
        "prctl" if rest.contains("SECCOMP") => "seccomp",
        "open" | "openat" | "openat2" | "close" | "stat" | "lstat" | "fstat" | "newfstatat" | "statx" | "readlink"
        | "readlinkat" | "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "unlink"
        | "unlinkat" | "rmdir" | "read" | "write" | "getdents64" | "access" | "faccessat2" | "chown" | "fchown"
        | "chmod" | "fchmodat" => "files",
        "mmap" | "munmap" | "mprotect" | "brk" | "madvise" | "mremap" => "memory",
        _ => "everything else",
    };
    Some((class, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_name_and_by_its_path() {
        let class = |line| classify(line).map(|(class, _)| class);
        assert_eq!(class("12 mount(\"a\", \"b\", NULL, MS_BIND, NULL) = 0 <0.000021>"), Some("mounts"));
        assert_eq!(class("12 write(5</sys/fs/cgroup/pids/x/pids.max>, \"9\", 1) = 1 <0.000021>"), Some("cgroups"));
        assert_eq!(class("12 <... clone resumed>) = 99 <0.000100>"), Some("processes, namespaces"));
        assert_eq!(class("12 clone(child_stack=NULL <unfinished ...>"), None);
        assert_eq!(class("12 poll([{fd=3}], 1, -1) = 1 <1.5>"), None);
        assert_eq!(class("12 +++ exited with 0 +++"), None);
    }
}
