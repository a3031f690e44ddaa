//! `GET /containerLogs/{namespace}/{pod}/{container}`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::log::parse_part;
use gantry_env::Env;
use gantry_kube::Status;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::log_file::{Render, Wanted, tail_start};
use super::{Body, Config, ContainerRef, PodLookup};

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader; the file is the rest of the buffer.
const CHUNKS_WAITING: usize = 4;
/// Logs that are read at once: each reader has a thread, and the program's other work on files needs some too.
pub const READERS_MAX: usize = 128;
/// A follower looks this often whether its container still runs; new lines wake it at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub fn answer(
    config: &Config,
    readers: &Arc<Semaphore>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Result<Response<Body>, Status> {
    let (wanted, previous) = parse_query(query, &config.env)?;
    let found = config.pods.container(namespace, pod, container, previous)?;
    let root = config.log_dir.clone();
    let relative = found.log_path.strip_prefix(&root).unwrap_or(&found.log_path).to_owned();
    let file = open_beneath(&root, &relative).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Status::new(
            404,
            "NotFound",
            format!("the log of container {container:?} in pod {namespace}/{pod} is not there yet"),
        ),
        _ => Status::internal(format!(
            "the log of container {container:?} in pod {namespace}/{pod} cannot be opened: {error}"
        )),
    })?;
    let turn = readers.clone().try_acquire_owned().map_err(|_| {
        let words = format!("{READERS_MAX} logs of this node are being read, which is the most at a time; try again");
        Status::new(429, "TooManyRequests", words)
    })?;
    let (send, receive) = mpsc::channel::<Result<Bytes, std::io::Error>>(CHUNKS_WAITING);
    let follower = Follower { root, relative, container: found, pods: config.pods.clone(), wanted };
    // A reader of files blocks, so it has a thread of its own; it ends with its client, or with its container.
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if let Err(error) = follower.run(file, &send) {
            let _ = send.blocking_send(Err(error));
        }
    });
    let stream = ReceiverStream::new(receive).map(|chunk| chunk.map(Frame::data));
    let mut response = Response::new(StreamBody::new(stream).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn parse_query(query: &str, env: &Env) -> Result<(Wanted, bool), Status> {
    let (mut wanted, mut previous) = (Wanted::default(), false);
    for (key, value) in super::relay::query_pairs(query) {
        let bad = || Status::bad_request(format!("{key}={value}: not a value that this parameter takes"));
        let number = || value.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(bad);
        let flag =
            || value.parse::<bool>().or(if value == "1" { Ok(true) } else { Ok(value.is_empty()) }).map_err(|()| bad());
        match key.as_str() {
            "follow" => wanted.follow = flag()?,
            "timestamps" => wanted.timestamps = flag()?,
            "previous" => previous = flag()?,
            "tailLines" => wanted.tail_lines = Some(number()?.unsigned_abs()),
            "limitBytes" => wanted.limit_bytes = Some(number()?.unsigned_abs()),
            "sinceSeconds" => {
                let since = env.clock.now().checked_sub(SignedDuration::from_secs(number()?));
                wanted.since = Some(since.unwrap_or(Timestamp::MIN));
            }
            "sinceTime" => wanted.since = Some(value.parse::<Timestamp>().map_err(|_| bad())?),
            "stream" if value == "All" => {}
            "container" | "insecureSkipTLSVerifyBackend" | "pretty" => {}
            _ => return Err(Status::bad_request(format!("log parameter {key:?} is not supported"))),
        }
    }
    Ok((wanted, previous))
}

/// Opens a file under `root` without following any link on the way: a pod that can write there gains nothing by it.
fn open_beneath(root: &Path, relative: &Path) -> std::io::Result<File> {
    let folder = File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let fd: OwnedFd = openat2(&folder, relative, flags, Mode::empty(), resolve)?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// The file that comes after this one, if it was rotated: the next of the log's parts, or the log. One whose name is gone
/// is older than every part there is; those that are compressed are passed over.
fn next(root: &Path, log: &Path, file: &File) -> std::io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    let Some(name) = log.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let ours = file.metadata()?.ino();
    // Before the parts are listed: what becomes one of them meanwhile is not passed over.
    let last = match open_beneath(root, log) {
        Ok(last) if last.metadata()?.ino() == ours => return Ok(None),
        Ok(last) => Some(last),
        // Between rename and create there is no file for a moment; after removal there never will be.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let folder = log.parent().unwrap_or(Path::new(""));
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let mut parts: Vec<(String, u64)> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.ino())))
        .collect();
    parts.retain(|(part, _)| parse_part(name, part).is_some_and(|(_, form)| form.is_empty()));
    parts.sort();
    let after = parts.iter().position(|(_, inode)| *inode == ours).map_or(0, |at| at + 1);
    for (part, _) in &parts[after..] {
        match open_beneath(root, &folder.join(part)) {
            // Removed or compressed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            next => return next.map(Some),
        }
    }
    Ok(last)
}

struct Follower {
    root: PathBuf,
    relative: PathBuf,
    container: ContainerRef,
    pods: Arc<dyn PodLookup>,
    wanted: Wanted,
}

impl Follower {
    fn run(&self, mut file: File, send: &mpsc::Sender<Result<Bytes, std::io::Error>>) -> std::io::Result<()> {
        let watch = if self.wanted.follow { Some(self.watch()?) } else { None };
        if let Some(lines) = self.wanted.tail_lines {
            let start = tail_start(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let mut render = Render::new(&self.wanted);
        loop {
            // Asked before the file is read: what a container wrote before it ended is in the file by then.
            let running = self.pods.is_running(&self.container.id);
            if self.copy(&mut file, &mut render, send)? {
                return Ok(());
            }
            let Some(watch) = &watch else { return Ok(()) };
            if let Some(next) = next(&self.root, &self.relative, &file)? {
                self.copy(&mut file, &mut render, send)?;
                file = next;
                continue;
            }
            if !running || send.is_closed() {
                return Ok(());
            }
            wait(watch)?;
        }
    }

    /// Everything up to the end of the file; true when the reader has enough or is gone.
    fn copy(
        &self,
        file: &mut File,
        render: &mut Render,
        send: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    ) -> std::io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let n = file.read(&mut chunk)?;
            if n == 0 {
                return Ok(false);
            }
            let mut out = Vec::with_capacity(n);
            let enough = render.push(&chunk[..n], &mut out);
            if !out.is_empty() && send.blocking_send(Ok(out.into())).is_err() {
                return Ok(true);
            }
            if enough {
                return Ok(true);
            }
        }
    }

    /// Wakes on writes to the log and on a new file in its folder.
    fn watch(&self) -> std::io::Result<OwnedFd> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let folder = self.root.join(&self.relative);
        let folder = folder.parent().unwrap_or(&self.root);
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, folder, flags)?;
        Ok(fd)
    }
}

fn wait(watch: &OwnedFd) -> std::io::Result<()> {
    let mut fds = [rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    // The events only wake; what changed is read from the file.
    let mut drain = [0_u8; 4096];
    while matches!(rustix::io::read(watch, &mut drain), Ok(n) if n > 0) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_planted_in_the_log_folder_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("pod")).unwrap();
        std::fs::write(root.path().join("pod/0.log"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", root.path().join("pod/1.log")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).unwrap();
        assert!(open_beneath(root.path(), Path::new("pod/0.log")).is_ok());
        for bad in ["pod/1.log", "etc/passwd", "../etc/passwd", "pod"] {
            assert!(open_beneath(root.path(), Path::new(bad)).is_err(), "{bad} was opened");
        }
    }

    #[test]
    fn who_follows_a_log_reads_every_part_that_it_became() {
        let root = tempfile::tempdir().unwrap();
        let log = Path::new("pod/0.log");
        let path = |part: &str| root.path().join(format!("pod/0.log{part}"));
        let write = |part: &str| std::fs::write(path(part), part).unwrap();
        let text = |file: &File| std::io::read_to_string(file).unwrap();
        std::fs::create_dir(root.path().join("pod")).unwrap();
        write("");
        let file = open_beneath(root.path(), log).unwrap();
        assert!(next(root.path(), log, &file).unwrap().is_none(), "it is the log");
        // Rotated three times between two looks.
        std::fs::rename(path(""), path(".20260102-030405")).unwrap();
        assert!(next(root.path(), log, &file).unwrap().is_none(), "the next is yet to come");
        for part in ["", ".20260102-030407", ".20260102-030406", ".20260102-030404.gz", ".20260102-030408.tmp"] {
            write(part);
        }
        let mut seen = Vec::new();
        let mut at = file.try_clone().unwrap();
        while let Some(later) = next(root.path(), log, &at).unwrap() {
            seen.push(text(&later));
            at = later;
        }
        assert_eq!(seen, [".20260102-030406", ".20260102-030407", ""]);
        // Compressed or removed meanwhile, it was the oldest.
        std::fs::remove_file(path(".20260102-030405")).unwrap();
        assert_eq!(text(&next(root.path(), log, &file).unwrap().unwrap()), ".20260102-030406");
    }

    #[test]
    fn a_parameter_that_is_not_honoured_is_named() {
        let env = Env::system();
        let (wanted, previous) = parse_query("follow=true&tailLines=5&previous=true", &env).unwrap();
        assert!(wanted.follow && previous && wanted.tail_lines == Some(5));
        let long_ago = parse_query(&format!("sinceSeconds={}", i64::MAX), &env).unwrap().0;
        assert_eq!(long_ago.since, Some(Timestamp::MIN));
        assert!(parse_query("colour=red", &env).unwrap_err().message.contains("colour"));
        assert!(parse_query("tailLines=-1", &env).unwrap_err().message.contains("tailLines=-1"));
    }
}
