//! What a forked creator does, for a container that needs libcontainer: everything around that, then libcontainer, then it ends. It
//! never returns to the supervisor's loop, and libcontainer's side effects (its directory, its dumpable flag, its panics) die with
//! it. Of its steps, those that are not libcontainer's are those of `direct.rs` too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gantry_base::codec::Wire;
use gantry_base::launch::{CgroupWrite, Ids, Launch, StartHooks};
use gantry_base::limits::{ERROR_TEXT_MAX_BYTES, LAUNCH_MAX_BYTES, USER_FILE_MAX_BYTES};
use gantry_base::{DecodeError, Id, frame, layout, wire_struct};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::pipe::PipeFlags;

use crate::enter::Entry;
use crate::executor::{LastStage, OpenVolume, Stage, plain};
use crate::sys::Forked;
use crate::userns::{self, Opened};
use crate::users::{self, UserError};
use crate::{enter, inroot, refine, root, socket, stage, unit};

wire_struct! {
    /// What a creator reports before it ends.
    #[derive(Debug)]
    pub struct Report {
        pub pid: i32,
        /// Empty on success.
        pub error: String,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("read {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("launch file: {0}")]
    Launch(#[from] DecodeError),
    #[error(transparent)]
    Root(#[from] root::RootError),
    #[error("read {file} of the image: {source}")]
    UserFile { file: &'static str, source: io::Error },
    #[error(transparent)]
    User(#[from] UserError),
    #[error("open the pod's user namespace: {0}")]
    UserNamespace(#[source] io::Error),
    #[error(transparent)]
    Stage(#[from] stage::StageError),
    #[error(transparent)]
    Inside(#[from] userns::InsideError),
    #[error(transparent)]
    Unmapped(#[from] userns::Unmapped),
    #[error("join cgroup {path:?}: {source}")]
    Cgroup { path: String, source: io::Error },
    #[error("write {path:?}: {source}")]
    Write { path: String, source: io::Error },
    #[error("terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error(transparent)]
    Enter(#[from] enter::EnterError),
    #[error("{0}")]
    Container(#[from] libcontainer::error::LibcontainerError),
    #[error("a hook failed, which is {hooks}")]
    Hook { hooks: String, source: libcontainer::error::LibcontainerError },
    #[error(transparent)]
    Direct(#[from] crate::direct::DirectError),
    #[error(transparent)]
    LastStage(#[from] crate::executor::StageError),
    #[error("libcontainer reports no pid")]
    NoPid,
}

impl CreateError {
    /// libcontainer says that a hook failed, and not which.
    fn of(source: libcontainer::error::LibcontainerError, launch: &Launch) -> CreateError {
        let hooks = launch.start_hooks.0.others.join(" or ");
        if !hooks.is_empty() && words(&source).contains("hook") {
            return CreateError::Hook { hooks, source };
        }
        CreateError::Container(source)
    }
}

/// The standard streams of a process, or a wish for a terminal.
pub enum Stdio {
    Terminal,
    Streams { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
}

pub struct Task<'a> {
    pub sandbox: &'a Path,
    pub container: &'a Id,
    pub stdio: Stdio,
    /// Made before the container is, so that whoever looks for it finds it; empty for none.
    pub log_path: &'a str,
    /// Held open by the process until it execs.
    pub failure: BorrowedFd<'a>,
}

struct Made {
    pid: i32,
    master: Option<OwnedFd>,
}

/// Runs in the forked child: makes the container, starts it, reports and ends. `pids` is another container's pid namespace.
pub fn create_and_exit(task: Task<'_>, launch: &Launch, pids: Option<BorrowedFd<'_>>, report: BorrowedFd<'_>) -> ! {
    finish(create(task, launch, pids), report)
}

/// What a container is to be, as the runtime left it in its bundle.
pub fn order(bundle: &Path) -> Result<Launch, CreateError> {
    let path = bundle.join(layout::LAUNCH);
    let file = std::fs::File::open(&path).map_err(|source| CreateError::Read { path: path.clone(), source })?;
    read_launch(file, &path)
}

/// What a further process in a running container needs, read while the host's files are seen.
pub fn entry(sandbox: &Path, container: &Id, launch: OwnedFd) -> Result<Entry, CreateError> {
    let launch = read_launch(std::fs::File::from(launch), Path::new("memfd"))?;
    let path = layout::bundle(sandbox, container).join(ids_file(&launch));
    let encoded = std::fs::read(&path).map_err(|source| CreateError::Read { path, source })?;
    Ok(Entry::new(launch, Ids::take(&mut encoded.as_slice())?)?)
}

fn ids_file(launch: &Launch) -> &'static str {
    if launch.users.0.is_some() { layout::MAPPED_IDS } else { layout::IDS }
}

/// Runs in the forked child, which has been born in the container's namespaces.
pub fn enter(task: Task<'_>, entry: &Entry, init: BorrowedFd<'_>, terminal_to: Option<BorrowedFd<'_>>) -> ! {
    let stage = last_stage(&entry.launch, entry.ids.clone(), Vec::new(), task.failure);
    enter::settle_and_become(entry, init, &stage, task.stdio, terminal_to)
}

/// Runs in a forked child of the host, where the container has users of its own: goes there, and leaves who is born there to
/// the supervisor. The master of its terminal comes by `report` too.
pub fn pass_through(task: Task<'_>, entry: &Entry, users: &Opened, init: BorrowedFd<'_>, report: BorrowedFd<'_>) -> ! {
    let stage = last_stage(&entry.launch, entry.ids.clone(), Vec::new(), task.failure);
    if let Some(uid) = users.users.uids.outside(entry.ids.uid) {
        give(&task.stdio, uid);
    }
    let (known, tell) = match rustix::pipe::pipe_with(PipeFlags::CLOEXEC) {
        Ok(pipe) => pipe,
        Err(error) => crate::executor::fail(stage.failure, &error),
    };
    match enter::pass_through(entry, users, init) {
        Ok(Forked::Child) => {
            drop(tell);
            // Of whom the supervisor does not know, it could say nothing.
            match rustix::io::read(&known, &mut [0; 1]) {
                Ok(1) => enter::become_program(&stage, task.stdio, Some(report)),
                _ => crate::sys::exit_now(1),
            }
        }
        Ok(Forked::Parent(pid)) => {
            let sent = socket::send(report, &frame::encode(&Report { pid, error: String::new() }), &[]);
            let told = sent.is_ok() && rustix::io::write(&tell, &[1]).is_ok();
            crate::sys::exit_now(i32::from(!told))
        }
        Err(error) => crate::executor::fail(stage.failure, &error),
    }
}

/// Only the host's root may give away what was made on the host.
fn give(stdio: &Stdio, uid: u32) {
    if let Stdio::Streams { stdin, stdout, stderr } = stdio {
        crate::executor::give_stdio([stdin, stdout, stderr].map(AsFd::as_fd), uid);
    }
}

fn finish(result: Result<Made, CreateError>, report: BorrowedFd<'_>) -> ! {
    let (frame, master) = match &result {
        Ok(made) => (Report { pid: made.pid, error: String::new() }, made.master.as_ref()),
        Err(error) => {
            let text = words(error);
            (Report { pid: 0, error: cut(&text).to_owned() }, None)
        }
    };
    let fds: Vec<BorrowedFd<'_>> = master.iter().map(|fd| fd.as_fd()).collect();
    let sent = socket::send(report, &frame::encode(&frame), &fds);
    crate::sys::exit_now(i32::from(sent.is_err() || result.is_err()))
}

/// As much of an error's text as a frame is to hold: it may quote what an image says.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_TEXT_MAX_BYTES)]
}

/// libcontainer's outer errors say only that something failed: the whole chain, without repetitions.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = plain(&error);
    let mut source = error.source();
    while let Some(inner) = source {
        let words = plain(&inner);
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

fn read_launch(file: std::fs::File, path: &Path) -> Result<Launch, CreateError> {
    let failed = |source| CreateError::Read { path: path.to_owned(), source };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(LAUNCH_MAX_BYTES) + 1);
    io::Read::read_to_end(&mut io::Read::take(file, LAUNCH_MAX_BYTES as u64 + 1), &mut bytes).map_err(failed)?;
    if bytes.len() > LAUNCH_MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(frame::decode(&bytes)?)
}

fn create(task: Task<'_>, launch: &Launch, pids: Option<BorrowedFd<'_>>) -> Result<Made, CreateError> {
    let bundle = layout::bundle(task.sandbox, task.container);
    make_log(task.log_path);
    if let Some(pids) = pids.filter(|_| launch.users.0.is_none()) {
        lead_to(pids, &bundle.join(layout::TARGET_PIDS))?;
    }
    join_cgroups(launch)?;
    let users = launch.users.0.as_ref().map(Opened::new).transpose().map_err(CreateError::UserNamespace)?;
    let mut trees = root::open_volumes(&launch.volumes, &launch.images.0, users.as_ref())?;
    refine::refine(&mut trees, launch, users.as_ref())?;
    let before_start = open_before_start(&launch.before_start)?;
    root::leave_host_mounts()?;
    root::hide_cgroups(launch)?;
    let at = bundle.join(layout::ROOTFS);
    let trees = root::open_images(trees, &launch.volumes, &launch.images.0, &at, users.as_ref())?;
    let rootfs = match &users {
        Some(users) => root::mount_mapped(&launch.root, &at, users)?,
        None => root::mount_root(&launch.root, &at)?,
    };
    let make_mount_points = || root::make_mount_points(&rootfs, &launch.volumes, &trees, &launch.process.cwd);
    match &users {
        Some(users) => userns::inside(users.user.as_fd(), make_mount_points)?,
        None => make_mount_points()?,
    }
    let ids = resolve(launch, rootfs.as_fd())?;
    let mut encoded = Vec::new();
    ids.put(&mut encoded);
    write(bundle.join(ids_file(launch)), &encoded)?;
    let _links = match &users {
        Some(users) => Some(prepare_for_users(task.sandbox, &at, &rootfs, users, pids, &task.stdio, &ids)?),
        None => None,
    };
    refine::place_early(&rootfs, &trees, launch)?;
    drop(rootfs);

    adjust_oom_score(launch.process.oom_score_adj);
    let volumes = root::numbers(&trees)
        .into_iter()
        .zip(&launch.volumes)
        .enumerate()
        .filter(|(n, _)| !refine::is_early(launch, *n))
        .map(|(_, (tree, volume))| OpenVolume { tree, destination: volume.destination.clone() })
        .collect();
    let stage = Stage { start_hooks: launch.start_hooks.0.clone(), ..last_stage(launch, ids, volumes, task.failure) };
    let terminal = Terminal::for_stdio(&task.stdio, &bundle)?;
    let mut builder = base(&task, stage)?;
    if let Stdio::Streams { stdin, stdout, stderr } = task.stdio {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    if let Some(terminal) = &terminal {
        builder = builder.with_console_socket(Some(&terminal.path));
    }
    let init = builder.as_init(&bundle).with_systemd(false).with_detach(terminal.is_some()).as_sibling(true);
    let mut container = init.build().map_err(|error| CreateError::of(error, launch))?;
    let pid = container.pid().ok_or(CreateError::NoPid)?.as_raw();
    let master = terminal.map(Terminal::receive).transpose()?;
    write_before_start(before_start)?;
    container.start().map_err(|error| CreateError::of(error, launch))?;
    // Nobody listens there any more, and whoever finds it may connect.
    let _ = std::fs::remove_file(layout::libcontainer(task.sandbox).join(task.container.as_str()).join("notify.sock"));
    Ok(Made { pid, master })
}

fn base(task: &Task<'_>, stage: Stage) -> Result<ContainerBuilder, CreateError> {
    let builder = ContainerBuilder::new(task.container.to_string(), SyscallType::default());
    Ok(builder.with_root_path(layout::libcontainer(task.sandbox))?.with_executor(LastStage(Rc::new(stage))))
}

/// What libcontainer, as a user of the pod, has to find: the container's streams its own, and everything else on its stage.
fn prepare_for_users(
    sandbox: &Path,
    at: &Path,
    rootfs: &OwnedFd,
    users: &Opened,
    pids: Option<BorrowedFd<'_>>,
    stdio: &Stdio,
    ids: &Ids,
) -> Result<stage::Links, CreateError> {
    userns::check_mapped(ids, &users.users)?;
    // libcontainer leaves the host's root its supplementary groups until the last stage.
    crate::sys::set_ids(0, 0, &[]).map_err(CreateError::UserNamespace)?;
    if let Some(uid) = users.users.uids.outside(ids.uid) {
        give(stdio, uid);
    }
    let pids = pids.map(|fd| fd.try_clone_to_owned()).transpose().map_err(CreateError::UserNamespace)?;
    Ok(stage::enter(sandbox, at, rootfs, users, pids)?)
}

pub fn last_stage(launch: &Launch, ids: Ids, volumes: Vec<OpenVolume>, failure: BorrowedFd<'_>) -> Stage {
    let mut process = launch.process.clone();
    if !process.env.iter().any(|e| e.starts_with("HOME=")) {
        process.env.push(format!("HOME={}", ids.home));
    }
    // A user other than root starts with what is ambient; the rest of its sets would be dropped by execve anyway, and
    // bits that only setuid programs may gain stay in the bounding set.
    if ids.uid != 0 {
        process.effective = process.ambient;
        process.permitted = process.ambient;
    }
    let (seccomp_flags, failure) = (launch.seccomp_flags.0, failure.as_raw_fd());
    Stage { process, seccomp_flags, ids, volumes, failure, start_hooks: StartHooks::default() }
}

pub fn resolve(launch: &Launch, rootfs: BorrowedFd<'_>) -> Result<Ids, CreateError> {
    let read = |file: &'static str| {
        inroot::read_bounded(rootfs, Path::new(file), USER_FILE_MAX_BYTES)
            .map_err(|source| CreateError::UserFile { file, source })
    };
    Ok(users::resolve(&launch.user, &read("/etc/passwd")?, &read("/etc/group")?)?)
}

/// A log that cannot be made loses lines, and its writer says so; a container does not fail for it.
pub fn make_log(path: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    if !path.is_empty() {
        let flags = libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK;
        let _ = std::fs::OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path);
    }
}

/// The files of what is written before the start, which are hidden by then.
pub fn open_before_start(writes: &[CgroupWrite]) -> Result<Vec<(std::fs::File, &CgroupWrite)>, CreateError> {
    let opened = writes.iter().map(|write| match open_to_write(&write.path) {
        Ok(file) => Ok((file, write)),
        Err(source) => Err(CreateError::Write { path: write.path.clone(), source }),
    });
    opened.collect()
}

pub fn write_before_start(opened: Vec<(std::fs::File, &CgroupWrite)>) -> Result<(), CreateError> {
    opened.into_iter().try_for_each(|(mut file, write)| {
        io::Write::write_all(&mut file, write.value.as_bytes())
            .map_err(|source| CreateError::Write { path: write.path.clone(), source })
    })
}

/// The kernel's files are there, and are not cut to length.
fn open_to_write(path: &str) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).open(path)
}

/// v2 creators are cloned into the cgroup. On v1 a process that writes its own thread id to `tasks` does not wait for
/// RCU, as a write to `cgroup.procs` would.
pub fn join_cgroups(launch: &Launch) -> Result<(), CreateError> {
    if launch.unified {
        return Ok(());
    }
    for cgroup in &launch.cgroups {
        open_to_write(&format!("{cgroup}/tasks"))
            .and_then(|mut tasks| io::Write::write_all(&mut tasks, b"0"))
            .map_err(|source| CreateError::Cgroup { path: cgroup.clone(), source })?;
    }
    Ok(())
}

/// Lowering the score needs CAP_SYS_RESOURCE; the runtime has clamped what it knows cannot be had, the rest is best effort.
pub fn adjust_oom_score(score: Option<i32>) {
    if let Some(score) = score {
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
}

/// libcontainer joins a namespace by a path, which it opens in a process of ours that has our descriptors.
fn lead_to(namespace: BorrowedFd<'_>, path: &Path) -> Result<(), CreateError> {
    std::os::unix::fs::symlink(format!("/proc/self/fd/{}", namespace.as_raw_fd()), path)
        .map_err(|source| CreateError::Write { path: path.to_string_lossy().into_owned(), source })
}

pub fn write(path: PathBuf, bytes: &[u8]) -> Result<(), CreateError> {
    unit::write_private(&path, bytes)
        .map_err(|source| CreateError::Write { path: path.to_string_lossy().into_owned(), source })
}

/// The socket at which libcontainer delivers the terminal's master.
struct Terminal {
    listener: UnixListener,
    path: PathBuf,
}

impl Terminal {
    fn for_stdio(stdio: &Stdio, bundle: &Path) -> Result<Option<Terminal>, CreateError> {
        match stdio {
            Stdio::Streams { .. } => Ok(None),
            Stdio::Terminal => {
                let path = bundle.join(format!("tty-{}", std::process::id()));
                // Bound by its short name: a socket's path may not be longer than 107 bytes.
                let back = std::env::current_dir().map_err(CreateError::Terminal)?;
                std::env::set_current_dir(bundle).map_err(CreateError::Terminal)?;
                let name = path.file_name().unwrap_or_default();
                let listener = UnixListener::bind(name).map_err(CreateError::Terminal)?;
                std::env::set_current_dir(back).map_err(CreateError::Terminal)?;
                Ok(Some(Terminal { listener, path }))
            }
        }
    }

    /// The container has sent it before it counted as created.
    fn receive(self) -> Result<OwnedFd, CreateError> {
        let (stream, _) = self.listener.accept().map_err(CreateError::Terminal)?;
        let _ = std::fs::remove_file(&self.path);
        match socket::receive(&stream).map_err(CreateError::Terminal)? {
            Some((_, fds)) if !fds.is_empty() => Ok(fds.into_iter().next().expect("just found not empty")),
            _ => Err(CreateError::Terminal(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
