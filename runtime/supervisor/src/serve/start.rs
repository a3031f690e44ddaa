//! From the order to start a container to a process that is becoming it: one that makes itself the container (`direct.rs`), or a
//! creator that has libcontainer make it (`creator.rs`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_base::frame::Unit;
use gantry_base::launch::{Direct, Launch};
use gantry_base::layout;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::{Creator, Supervisor, Work, open_cgroup};
use crate::creator::{self, Report, Stdio, Task};
use crate::fault::{Point, point};
use crate::sys::{self, Forked};
use crate::{direct, unit};

/// What a container is started with.
struct Birth {
    seq: u64,
    unit: Unit,
    stdio: Stdio,
    /// Our ends of its streams.
    input: Option<OwnedFd>,
    readers: Vec<OwnedFd>,
    cgroup: Option<OwnedFd>,
    /// The pid namespace of the container whose processes it shares, if it does.
    pids: Option<OwnedFd>,
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Supervisor {
    pub(super) fn start(&mut self, seq: u64, unit: Unit, pids: Option<OwnedFd>) -> io::Result<()> {
        let bundle = layout::bundle(&self.sandbox, &unit.id);
        let launch = creator::order(&bundle).map_err(io::Error::other)?;
        let (mut input, mut readers) = (None, Vec::new());
        let stdio = if unit.tty {
            Stdio::Terminal
        } else {
            let stdin = if unit.stdin {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                input = Some(write);
                read
            } else {
                unit::null()?
            };
            readers = unit::open_readers(&bundle)?;
            let stdout = unit::open_output(&bundle.join(layout::STDOUT))?;
            Stdio::Streams { stdin, stdout, stderr: unit::open_output(&bundle.join(layout::STDERR))? }
        };
        let cgroup = open_cgroup(&unit.cgroup)?;
        let birth = Birth { seq, unit, stdio, input, readers, cgroup, pids };
        match &launch.direct.0 {
            Some(direct) => self.fork_container(birth, &launch, direct),
            None => self.fork_creator(birth, &launch),
        }
    }

    fn fork_container(&mut self, birth: Birth, launch: &Launch, direct: &Direct) -> io::Result<()> {
        let Birth { seq, unit, stdio, input, readers, cgroup, pids } = birth;
        if pids.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a container that is made directly shares no pids",
            ));
        }
        let (failure, failure_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // The master of its terminal comes that way.
        let (report, theirs) = match stdio {
            Stdio::Terminal => pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            Stdio::Streams { .. } => (None, None),
        };
        point(Point::Fork);
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let forked = if direct.own_pids { sys::fork_first(cgroup)? } else { sys::fork_into(cgroup)? };
        match forked {
            Forked::Child => {
                let _guard = self.let_go();
                drop((report, failure));
                let (container, log_path, failure) = (&unit.id, unit.log_path.as_str(), failure_write.as_fd());
                let task = Task { sandbox: &self.sandbox, container, stdio, log_path, failure };
                direct::become_container(task, launch, direct, theirs.as_ref().map(AsFd::as_fd))
            }
            Forked::Parent(pid) => {
                let pidfd = unit::keep_child(pid)?;
                point(Point::Forked);
                for fd in [Some(&failure), report.as_ref()].into_iter().flatten() {
                    rustix::io::ioctl_fionbio(fd, true)?;
                }
                let work = Work::Start { unit, input, readers, direct: true };
                // Nobody but the process itself makes it, and it says no more than why it is not what it should be.
                let outcome = Some((Report { pid, error: String::new() }, None));
                let (words, closed, dead) = (Vec::new(), false, true);
                self.creators.push(Creator { seq, work, pidfd, report, failure, outcome, words, closed, dead });
                Ok(())
            }
        }
    }

    fn fork_creator(&mut self, birth: Birth, launch: &Launch) -> io::Result<()> {
        let Birth { seq, unit, stdio, input, readers, cgroup, pids } = birth;
        let (report, theirs) = pair()?;
        let (failure, failure_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        point(Point::Fork);
        match sys::fork_into(cgroup.as_ref().map(AsFd::as_fd))? {
            Forked::Child => {
                let _guard = self.let_go();
                drop((report, failure));
                let (container, log_path, failure) = (&unit.id, unit.log_path.as_str(), failure_write.as_fd());
                let task = Task { sandbox: &self.sandbox, container, stdio, log_path, failure };
                creator::create_and_exit(task, launch, pids.as_ref().map(AsFd::as_fd), theirs.as_fd())
            }
            Forked::Parent(pid) => {
                let pidfd = unit::keep_child(pid)?;
                point(Point::Forked);
                for fd in [&report, &failure] {
                    rustix::io::ioctl_fionbio(fd, true)?;
                }
                let work = Work::Start { unit, input, readers, direct: false };
                let (words, closed, dead) = (Vec::new(), false, false);
                let report = Some(report);
                self.creators.push(Creator { seq, work, pidfd, report, failure, outcome: None, words, closed, dead });
                Ok(())
            }
        }
    }
}
