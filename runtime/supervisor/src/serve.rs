//! The loop: one poll over the socket, its connections, every container's pidfd and output, and the creators in flight.
//! Known processes are reaped through their pidfds; everything else (intermediates, orphans of the pod) only while no
//! creator is in flight, because until a creator has reported nobody knows which pid is a container's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use gantry_base::frame::{self, Event, Request, Unit};
use gantry_base::{Id, layout};
use nix::sys::wait::{Id as WaitTarget, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::creator::{self, Report, Stdio, Task};
use crate::enter::{self, Home};
use crate::fault::{Point, point};
use crate::log::Answer;
use crate::log::outbox::Outbox;
use crate::sys::{self, Forked};
use crate::unit::{self, Container, News};
use crate::userns::Opened;
use crate::{executor, socket};

mod start;

/// Who asked, to whom the answer goes. Connections are few: a runtime, for a moment two of them.
const CONNECTIONS_MAX: usize = 4;
/// How long the news of an end waits for the container's last lines to be in its log, so that who hears of it finds them there.
/// The record of the end waits for nothing.
const NEWS_WAIT_SECONDS: i64 = 2;
/// Commands of one container that are being started at once. One that is frozen, or throttled to a standstill, starts none.
const EXECS_STARTING_MAX: usize = 32;

enum Work {
    /// `direct`: its first process is the one that was forked.
    Start { unit: Unit, input: Option<OwnedFd>, readers: Vec<OwnedFd>, direct: bool },
    /// `passed`: by a process in between, which reports it.
    Exec { container: Id, exec: Id, passed: bool },
}

/// A forked creator that has not finished yet; or a further process that has not become its program yet, which counts as a
/// creator that has ended well.
struct Creator {
    seq: u64,
    work: Work,
    pidfd: OwnedFd,
    /// Read once the creator has ended. Its end of file says nothing: what a killed creator has forked holds it open too.
    /// Of a further process: where the master of its terminal comes from, if it has one.
    report: Option<OwnedFd>,
    failure: OwnedFd,
    outcome: Option<(Report, Option<OwnedFd>)>,
    /// What the last stage said, and whether its end was closed (by execve or by death).
    words: Vec<u8>,
    closed: bool,
    dead: bool,
}

impl Creator {
    /// It has ended, and its last stage has been reached by execve or has died too. Without good news from the creator
    /// nothing is to come from a last stage: it may wait for ever for one that was killed.
    fn is_done(&self) -> bool {
        let made = self.outcome.as_ref().is_some_and(|(report, _)| report.error.is_empty());
        self.dead && (self.closed || !made)
    }
}

struct Exec {
    id: Id,
    pidfd: OwnedFd,
    pid: i32,
}

pub struct Supervisor {
    sandbox: PathBuf,
    listener: OwnedFd,
    signals: nix::sys::signalfd::SignalFd,
    connections: Vec<OwnedFd>,
    containers: Vec<Container>,
    creators: Vec<Creator>,
    execs: Vec<Exec>,
    outbox: Outbox,
    /// Whose requests to open a log anew the writer has not answered yet: its token, and the request.
    reopening: Vec<(u64, u64)>,
    leaving: bool,
    /// The host ends everything: there is no runtime to tell us to leave.
    told_to_end: bool,
    home: Home,
}

/// Held by forked children, which end otherwise than by its being dropped.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        sys::exit_now(1);
    }
}

#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Connection(usize),
    Ended(usize),
    Output(usize, usize),
    Attacher(usize, usize),
    /// Of a container's attachers one that has all of its output.
    Watched(usize),
    Created(usize),
    Failure(usize),
    ExecEnded(usize),
    Writer,
    WriterEnded,
}

impl Supervisor {
    pub fn new(sandbox: PathBuf, listener: OwnedFd, signals: nix::sys::signalfd::SignalFd, home: Home) -> Supervisor {
        Supervisor {
            outbox: Outbox::new(&sandbox),
            reopening: Vec::new(),
            sandbox,
            listener,
            signals,
            connections: Vec::new(),
            containers: Vec::new(),
            creators: Vec::new(),
            execs: Vec::new(),
            leaving: false,
            told_to_end: false,
            home,
        }
    }

    /// In a forked child: what belongs to the loop is of no use there, and a descriptor that is held open hides an end from
    /// whoever waits for it. A child that panics must not come back here, and undo what is its parent's.
    fn let_go(&mut self) -> Guard {
        let guard = Guard;
        self.connections.clear();
        self.containers.clear();
        self.creators.clear();
        self.execs.clear();
        guard
    }

    pub fn run(&mut self) -> io::Result<()> {
        while !self.leaving {
            let ready = self.wait()?;
            // From the back: handling one may remove it, which must not move those still to come.
            for (token, flags) in ready.into_iter().rev() {
                self.handle(token, flags);
            }
            for container in &mut self.containers {
                container.attachers.lose_patience(sys::uptime());
            }
            self.outbox.hand_over();
            self.tell_news();
            let outbox = &mut self.outbox;
            self.containers.retain(|c| {
                let kept = !c.forgotten || c.attachers.are_behind();
                if !kept {
                    outbox.close(c.log);
                }
                kept
            });
            self.finish_creators();
            self.reap_orphans();
            self.leaving |= self.told_to_end && self.keeps_nothing();
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let mut waited_for = false;
        let mut add = |token: Token, fd: BorrowedFd<'_>| {
            tokens.push(token);
            let flags = match token {
                Token::Attacher(..) => PollFlags::OUT,
                Token::Watched(_) => PollFlags::empty(),
                Token::Writer if self.outbox.has_waiting() => PollFlags::IN | PollFlags::OUT,
                _ => PollFlags::IN,
            };
            waited_for |= flags.contains(PollFlags::OUT);
            // The descriptors live in self, which is borrowed for the whole call.
            fds.push(PollFd::from_borrowed_fd(sys::borrow(std::os::fd::AsRawFd::as_raw_fd(&fd)), flags));
        };
        for (i, connection) in self.connections.iter().enumerate() {
            add(Token::Connection(i), connection.as_fd());
        }
        for (i, container) in self.containers.iter().enumerate() {
            if !container.ended {
                add(Token::Ended(i), container.pidfd.as_fd());
            }
            // Before those with a place, which are handled first so.
            for pipe in container.attachers.watched() {
                add(Token::Watched(i), pipe);
            }
            for (k, pipe) in container.attachers.behind() {
                add(Token::Attacher(i, k), pipe);
            }
            if container.attachers.are_behind() || self.outbox.is_behind() {
                continue;
            }
            for (j, stream) in container.streams.iter().enumerate() {
                add(Token::Output(i, j), stream.fd.as_fd());
            }
        }
        for (i, creator) in self.creators.iter().enumerate() {
            if !creator.dead {
                add(Token::Created(i), creator.pidfd.as_fd());
            }
            if !creator.closed {
                add(Token::Failure(i), creator.failure.as_fd());
            }
        }
        for (i, exec) in self.execs.iter().enumerate() {
            add(Token::ExecEnded(i), exec.pidfd.as_fd());
        }
        if let Some((socket, pidfd)) = self.outbox.descriptors() {
            add(Token::Writer, socket);
            add(Token::WriterEnded, pidfd);
        }
        waited_for |= self.containers.iter().any(|c| c.news.is_some());
        // Whom a container waits for, it does not wait for for ever.
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, waited_for.then_some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = tokens.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(token, fd)| (token, fd.revents())).collect())
    }

    fn handle(&mut self, token: Token, _: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => {
                while let Ok(Some(signal)) = self.signals.read_signal() {
                    self.told_to_end |= signal.ssi_signo == libc::SIGTERM as u32;
                }
            }
            Token::Connection(i) => self.receive(i),
            Token::Ended(i) => self.container_ended(i, None),
            Token::Output(i, j) => self.containers[i].pump(j, &mut self.outbox),
            Token::Attacher(i, k) => self.containers[i].attachers.catch_up(k, sys::uptime()),
            Token::Watched(i) => self.containers[i].attachers.forget_gone(),
            Token::Created(i) => self.creator_ended(i),
            Token::Failure(i) => self.read_failure(i),
            Token::ExecEnded(i) => self.exec_ended(i),
            // What waits is handed over in every turn.
            Token::Writer => self.outbox.answers().into_iter().for_each(|answer| self.answered(answer)),
            Token::WriterEnded => self.outbox.replace(),
        }
    }

    /// Everything that the token was given for is written.
    fn answered(&mut self, answer: Answer) {
        for container in &mut self.containers {
            if let Some(news) = container.news.as_mut().filter(|news| news.token == answer.token) {
                news.until = 0;
            }
        }
        if let Some(at) = self.reopening.iter().position(|(token, _)| *token == answer.token) {
            let (_, seq) = self.reopening.remove(at);
            match answer.error.as_str() {
                "" => self.tell(&Event::Done { seq }, &[]),
                error => self.fail(seq, error),
            }
        }
    }

    /// Ends whose last lines are written, or have had their time; and lines that are lost.
    fn tell_news(&mut self) {
        let now = sys::uptime();
        for i in 0..self.containers.len() {
            if self.containers[i].news.is_some_and(|news| now >= news.until) {
                self.containers[i].news = None;
                let container = self.containers[i].unit.id.clone();
                self.tell(&Event::Exited { container }, &[]);
            }
        }
        for (log, bytes) in self.outbox.losses() {
            if let Some(container) = self.containers.iter().find(|c| c.log == log).map(|c| c.unit.id.clone()) {
                self.tell(&Event::LogLost { container, bytes }, &[]);
            }
        }
    }

    fn reopen_log(&mut self, seq: u64, id: &Id) {
        let Some(log) = self.containers.iter().find(|c| c.unit.id == *id).map(|c| c.log) else {
            return self.fail(seq, &format!("container {id} is not here"));
        };
        match self.outbox.reopen(log) {
            Ok(Some(token)) => self.reopening.push((token, seq)),
            Ok(None) => self.tell(&Event::Done { seq }, &[]),
            Err(error) => self.fail(seq, &executor::plain(&error)),
        }
    }

    fn accept(&mut self) {
        let Ok(connection) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        let ours = rustix::process::geteuid();
        let peer = rustix::net::sockopt::socket_peercred(&connection);
        if self.connections.len() < CONNECTIONS_MAX && peer.is_ok_and(|peer| peer.uid == ours) {
            self.connections.push(connection);
        }
    }

    fn receive(&mut self, i: usize) {
        let (bytes, fds) = match socket::receive(&self.connections[i]) {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(_) => {
                self.connections.remove(i);
                return;
            }
        };
        match frame::decode::<Request>(&bytes) {
            Ok(request) => {
                point(Point::Request);
                self.request(request, fds);
            }
            // Whoever speaks another language is better off with a closed connection than with silence.
            Err(_) => {
                self.connections.remove(i);
            }
        }
    }

    fn request(&mut self, request: Request, mut fds: Vec<OwnedFd>) {
        match request {
            Request::Describe { seq } => self.describe(seq),
            Request::Start { seq, unit } => {
                if let Err(e) = self.start(seq, unit, fds.pop()) {
                    self.fail(seq, &e.to_string());
                }
            }
            Request::Exec { seq, container, exec, tty } => {
                if let Err(e) = self.exec(seq, container, exec, tty, fds) {
                    self.fail(seq, &e.to_string());
                }
            }
            Request::Signal { seq, container, signal } => {
                self.on_container(seq, &container, |c| c.signal(signal));
            }
            Request::ReopenLog { seq, container } => self.reopen_log(seq, &container),
            Request::Attach { seq, container } => self.on_container(seq, &container, |c| c.attach(fds)),
            Request::CloseStdin { seq, container } => self.on_container(seq, &container, |c| {
                if !c.unit.tty {
                    c.input = None;
                }
                Ok(())
            }),
            Request::Forget { seq, container } => {
                // It goes at the end of the turn.
                for known in self.containers.iter_mut().filter(|c| c.unit.id == container && c.ended) {
                    known.forgotten = true;
                }
                self.tell(&Event::Done { seq }, &[]);
            }
            Request::Adopt { seq, unit, pid } => {
                if fds.is_empty() {
                    return self.fail(seq, "adopt without a pidfd");
                }
                let pidfd = fds.remove(0);
                let bundle = layout::bundle(&self.sandbox, &unit.id);
                let readers = if unit.tty { Ok(Vec::new()) } else { unit::open_readers(&bundle) };
                let adopted = readers.and_then(|readers| {
                    Container::new(&self.sandbox, unit, pid, pidfd, fds.pop(), readers, true, &mut self.outbox)
                });
                match adopted {
                    Ok(container) => {
                        self.containers.push(container);
                        self.tell(&Event::Done { seq }, &[]);
                    }
                    Err(e) => self.fail(seq, &e.to_string()),
                }
            }
            Request::Leave { seq } => {
                if self.keeps_nothing() {
                    self.leaving = true;
                    self.tell(&Event::Done { seq }, &[]);
                } else {
                    self.fail(seq, "containers are still running");
                }
            }
        }
    }

    fn keeps_nothing(&self) -> bool {
        self.containers.iter().all(|c| c.ended) && self.creators.is_empty()
    }

    fn on_container(&mut self, seq: u64, id: &Id, act: impl FnOnce(&mut Container) -> io::Result<()>) {
        let result = match self.containers.iter_mut().find(|c| c.unit.id == *id) {
            Some(container) => act(container).map_err(|e| executor::plain(&e)),
            None => Err(format!("container {id} is not here")),
        };
        match result {
            Ok(()) => self.tell(&Event::Done { seq }, &[]),
            Err(message) => self.fail(seq, &message),
        }
    }

    fn describe(&mut self, seq: u64) {
        let mut events = Vec::new();
        for container in self.containers.iter().filter(|c| !c.forgotten) {
            if container.ended {
                events.push((Event::Exited { container: container.unit.id.clone() }, Vec::new()));
            } else {
                let (unit, pid, start_ticks) = (container.unit.clone(), container.pid, container.start_ticks);
                events.push((Event::Running { unit, pid, start_ticks }, container.kept_fds()));
            }
        }
        for (event, fds) in &events {
            broadcast(&self.connections, event, fds);
        }
        self.tell(&Event::Done { seq }, &[]);
    }

    fn exec(&mut self, seq: u64, container: Id, exec: Id, tty: bool, mut fds: Vec<OwnedFd>) -> io::Result<()> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        if fds.len() != if tty { 1 } else { 4 } {
            return Err(invalid("exec needs its launch file and its streams"));
        }
        let Some(target) = self.containers.iter().find(|c| c.unit.id == container && !c.ended) else {
            return Err(invalid(&format!("container {container} is not running")));
        };
        let starting =
            |creator: &&Creator| matches!(&creator.work, Work::Exec { container: of, .. } if *of == container);
        if self.creators.iter().filter(starting).count() >= EXECS_STARTING_MAX {
            let words = format!("{EXECS_STARTING_MAX} commands are being started in container {container} already");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
        }
        let cgroup = open_cgroup(&target.unit.cgroup)?;
        let launch = fds.remove(0);
        let stdio = if tty {
            Stdio::Terminal
        } else {
            let mut streams = fds.into_iter();
            match (streams.next(), streams.next(), streams.next()) {
                (Some(stdin), Some(stdout), Some(stderr)) => Stdio::Streams { stdin, stdout, stderr },
                _ => return Err(invalid("exec needs three streams")),
            }
        };
        let init = target.pidfd.try_clone()?;
        let entry = creator::entry(&self.sandbox, &container, launch).map_err(io::Error::other)?;
        let users = entry.launch.users.0.as_ref().map(Opened::new).transpose()?;
        let (failure, failure_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (report, theirs) = match tty || users.is_some() {
            true => rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            false => (None, None),
        };
        point(Point::Fork);
        let cgroup = cgroup.as_ref().map(|c| c.as_fd());
        let forked = match &users {
            Some(_) => sys::fork_into(cgroup)?,
            None => enter::fork(init.as_fd(), &self.home, cgroup).map_err(io::Error::other)?,
        };
        match forked {
            Forked::Child => {
                let _guard = self.let_go();
                drop((report, failure));
                let (theirs, failure) = (theirs.as_ref().map(|fd| fd.as_fd()), failure_write.as_fd());
                let task = Task { sandbox: &self.sandbox, container: &container, stdio, log_path: "", failure };
                match (&users, theirs) {
                    (Some(users), Some(theirs)) => creator::pass_through(task, &entry, users, init.as_fd(), theirs),
                    _ => creator::enter(task, &entry, init.as_fd(), theirs),
                }
            }
            Forked::Parent(pid) => {
                let pidfd = unit::keep_child(pid)?;
                point(Point::Forked);
                for fd in [Some(&failure), report.as_ref()].into_iter().flatten() {
                    rustix::io::ioctl_fionbio(fd, true)?;
                }
                let (work, words, dead) =
                    (Work::Exec { container, exec, passed: users.is_some() }, Vec::new(), users.is_none());
                // Nobody but the process itself makes it, and it says no more than why it is not what it should be.
                let outcome = dead.then(|| (Report { pid, error: String::new() }, None));
                let closed = false;
                self.creators.push(Creator { seq, work, pidfd, report, failure, outcome, words, closed, dead });
                Ok(())
            }
        }
    }

    fn creator_ended(&mut self, i: usize) {
        let creator = &mut self.creators[i];
        creator.dead = true;
        if let Some(report) = &creator.report
            && let Ok(Some((bytes, mut fds))) = socket::receive(report)
            && let Ok(report) = frame::decode::<Report>(&bytes)
        {
            creator.outcome = Some((report, fds.pop()));
        }
        self.read_failure(i);
    }

    fn read_failure(&mut self, i: usize) {
        let creator = &mut self.creators[i];
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&creator.failure, &mut buffer) {
                Ok(0) => creator.closed = true,
                Ok(n) => {
                    creator.words.extend_from_slice(&buffer[..n]);
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => {}
            }
            break;
        }
    }

    fn finish_creators(&mut self) {
        for i in (0..self.creators.len()).rev() {
            if self.creators[i].is_done() {
                let creator = self.creators.remove(i);
                self.finish(creator);
            }
        }
    }

    fn finish(&mut self, creator: Creator) {
        point(Point::Keep);
        let Creator { seq, work, pidfd: of_creator, report: socket, outcome, words, .. } = creator;
        let at_the_door = words.first() == Some(&executor::AT_THE_DOOR);
        let words = words.strip_prefix(&[executor::AT_THE_DOOR]).unwrap_or(&words);
        let killed = "it was killed before it was its program (out of memory in the container?)";
        let (report, master) = match outcome {
            _ if !words.is_empty() => return self.fail(seq, &String::from_utf8_lossy(words)),
            Some((report, _)) if !report.error.is_empty() => return self.fail(seq, &report.error),
            Some(_) if !at_the_door && matches!(work, Work::Start { .. }) => return self.fail(seq, killed),
            Some(made) => made,
            None => return self.fail(seq, killed),
        };
        // The master of a terminal that the process itself has opened.
        let packet = socket.and_then(|socket| socket::receive(&socket).ok().flatten());
        let master = master.or_else(|| packet.and_then(|(_, mut fds)| fds.pop()));
        if matches!(&work, Work::Start { unit, .. } if unit.tty && master.is_none()) {
            return self.fail(seq, "its terminal was lost on the way");
        }
        match work {
            Work::Start { unit, input, readers, direct } => {
                let pidfd = match if direct { Ok(of_creator) } else { unit::open_pidfd(report.pid) } {
                    Ok(pidfd) => pidfd,
                    Err(e) => return self.fail(seq, &executor::plain(&e)),
                };
                let (unit_too, input, outbox) = (unit.clone(), master.or(input), &mut self.outbox);
                match Container::new(&self.sandbox, unit_too, report.pid, pidfd, input, readers, false, outbox) {
                    Ok(container) => {
                        let event = Event::Started { seq, unit, pid: report.pid, start_ticks: container.start_ticks };
                        broadcast(&self.connections, &event, &container.kept_fds());
                        self.containers.push(container);
                    }
                    Err(e) => self.fail(seq, &executor::plain(&e)),
                }
            }
            Work::Exec { exec, passed, .. } => {
                // It is not reaped before it is known here: its number is its own.
                let pidfd = match if passed { unit::open_pidfd(report.pid) } else { Ok(of_creator) } {
                    Ok(pidfd) => pidfd,
                    Err(e) => return self.fail(seq, &executor::plain(&e)),
                };
                let fds: Vec<BorrowedFd<'_>> =
                    std::iter::once(pidfd.as_fd()).chain(master.iter().map(|m| m.as_fd())).collect();
                broadcast(&self.connections, &Event::ExecStarted { seq, exec: exec.clone() }, &fds);
                self.execs.push(Exec { id: exec, pidfd, pid: report.pid });
            }
        }
    }

    /// It is told at the end of the turn, if its log is written by then.
    fn container_ended(&mut self, i: usize, status: Option<i32>) {
        point(Point::End);
        let container = &mut self.containers[i];
        let written = match status {
            None => container.end(&mut self.outbox),
            Some(code) => container.conclude(Some(code), &mut self.outbox),
        };
        // Without a record (a full /run) the runtime still hears of the end and says that the code is unknown.
        drop(written);
        let (token, wait) = self.outbox.flush(container.log).map_or((0, 0), |token| (token, NEWS_WAIT_SECONDS));
        container.news = Some(News { token, until: if wait == 0 { 0 } else { sys::uptime() + wait } });
    }

    fn exec_ended(&mut self, i: usize) {
        let exec = self.execs.remove(i);
        let code = unit::exit_status(exec.pidfd.as_fd()).unwrap_or(gantry_base::exit::UNKNOWN_EXIT_CODE);
        self.tell(&Event::ExecExited { exec: exec.id, code }, &[]);
    }

    fn reap_orphans(&mut self) {
        if self.creators.iter().any(|creator| !creator.dead) {
            return;
        }
        // Children that have pidfds here are left to them, or their status would be lost between two places.
        loop {
            let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let Some(pid) = waitid(WaitTarget::All, peek).ok().and_then(|status| status.pid()) else { return };
            let pid = pid.as_raw();
            let made = |creator: &Creator| creator.outcome.as_ref().is_some_and(|(report, _)| report.pid == pid);
            let known = self.containers.iter().any(|c| !c.ended && c.pid == pid)
                || self.execs.iter().any(|e| e.pid == pid)
                || self.creators.iter().any(made);
            if known {
                // It is ready by its pidfd too; the next turn of the loop takes it from there.
                return;
            }
            let gone = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
            let _ = waitid(WaitTarget::Pid(nix::unistd::Pid::from_raw(pid)), gone);
        }
    }

    fn tell(&mut self, event: &Event, fds: &[BorrowedFd<'_>]) {
        broadcast(&self.connections, event, fds);
    }

    fn fail(&mut self, seq: u64, message: &str) {
        self.tell(&Event::Failed { seq, message: creator::cut(message).to_owned() }, &[]);
    }
}

/// Every connection hears everything; one that does not read is cut off by its own side's timeout, never waited for.
fn broadcast(connections: &[OwnedFd], event: &Event, fds: &[BorrowedFd<'_>]) {
    point(Point::Tell);
    let bytes = frame::encode(event);
    for connection in connections {
        let _ = socket::send(connection, &bytes, fds);
    }
}

fn open_cgroup(path: &str) -> io::Result<Option<OwnedFd>> {
    if path.is_empty() {
        return Ok(None);
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?))
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(layout::socket(&self.sandbox));
    }
}
