//! The journal: one file a sandbox and one a container, on /run, keyed by the boot id. A file is renamed into place, so
//! it is there whole or not at all; nothing is synced, because no sandbox outlives a boot. It begins with its length, so that
//! a cut one is none: to protobuf, the beginning of a message is a message.
//!
//! What a crash may leave, and what recovery makes of it: a sandbox in `Creating` (torn down), one that was being stopped
//! (stopped), a container in `Starting` (asked of its supervisor, or ended), a temporary file (ignored), a folder without a
//! record (removed; what is removed loses its record first). `tests/crash.rs` kills at every step of it. A record that
//! cannot be read, or makes no sense, is moved aside with its folder, for whoever wants to know: nothing is deleted for it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_base::{Id, layout};
use gantry_cri::v1;
use prost::Message;

use crate::fault::{Point, point};

const RECORD: &str = "record";
/// Of which boot the journal beside it is.
const BOOT_ID: &str = "boot-id";
/// A record holds the CRI configuration, which a gRPC message bounds.
const RECORD_MAX_BYTES: usize = gantry_cri::MESSAGE_MAX_BYTES + (1 << 20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SandboxState {
    Creating = 0,
    Ready = 1,
    NotReady = 2,
}

#[derive(Clone, PartialEq, Message)]
pub struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(enumeration = "SandboxState", tag = "2")]
    pub state: i32,
    #[prost(int64, tag = "3")]
    pub created_at: i64,
    #[prost(message, optional, tag = "4")]
    pub config: Option<v1::PodSandboxConfig>,
    #[prost(string, tag = "5")]
    pub ip: String,
    #[prost(string, tag = "6")]
    pub runtime_handler: String,
    /// Nothing begins in it any more, and its network may be gone.
    #[prost(bool, tag = "7")]
    pub stopping: bool,
}

/// ```text
/// Created ─► Starting ─► Running ─► Exited
///               └───────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    Created = 0,
    Starting = 1,
    Running = 2,
    Exited = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub sandbox: String,
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    #[prost(message, optional, tag = "4")]
    pub config: Option<v1::ContainerConfig>,
    #[prost(string, tag = "5")]
    pub image_id: String,
    #[prost(string, tag = "6")]
    pub image_ref: String,
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    #[prost(int64, tag = "8")]
    pub started_at: i64,
    #[prost(int64, tag = "9")]
    pub finished_at: i64,
    #[prost(int32, tag = "10")]
    pub exit_code: i32,
    #[prost(string, tag = "11")]
    pub reason: String,
    #[prost(string, tag = "12")]
    pub message: String,
    #[prost(int32, tag = "13")]
    pub pid: i32,
    #[prost(uint64, tag = "14")]
    pub start_ticks: u64,
    /// Relative to the root of each hierarchy.
    #[prost(string, tag = "15")]
    pub cgroup: String,
    #[prost(string, tag = "16")]
    pub log_path: String,
    #[prost(int32, tag = "17")]
    pub stop_signal: i32,
    #[prost(message, optional, tag = "18")]
    pub resources: Option<v1::LinuxContainerResources>,
    /// Those that CDI gave it: what their specifications say by the time that it starts is not asked.
    #[prost(message, repeated, tag = "19")]
    pub cdi_devices: Vec<DeviceRecord>,
}

/// A device that a container may open.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceRecord {
    #[prost(bool, tag = "1")]
    pub block: bool,
    #[prost(uint32, tag = "2")]
    pub major: u32,
    #[prost(uint32, tag = "3")]
    pub minor: u32,
    /// Of `rwm`.
    #[prost(string, tag = "4")]
    pub access: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{what} {path:?}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// The folder `<run>/sandboxes`, and beside it `<run>/set-aside` for what could not be read.
#[derive(Clone, Debug)]
pub struct Records {
    root: PathBuf,
    aside: PathBuf,
}

/// A sandbox with its containers, as read at start.
pub struct Loaded {
    pub sandbox: SandboxRecord,
    pub containers: Vec<ContainerRecord>,
    /// Containers whose records are bad.
    pub bad: Vec<Bad>,
}

/// A record that says nothing.
#[derive(Debug)]
pub struct Bad {
    pub id: String,
    pub why: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Of a sandbox: those of its containers whose own records say what they are.
    pub containers: Vec<ContainerRecord>,
}

#[derive(Default)]
pub struct Journal {
    pub sandboxes: Vec<Loaded>,
    pub bad: Vec<Bad>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is longer than {RECORD_MAX_BYTES} bytes")]
    TooLong,
    #[error("it is no record")]
    Decode(#[from] prost::DecodeError),
    #[error("it has {have} bytes of {want}")]
    Cut { have: usize, want: usize },
    #[error("it is that of {0:?}")]
    OtherId(String),
}

/// Whether there is a journal of this boot, of pods that may be running. The beginning of this boot's name is this boot's,
/// which somebody has cut.
pub fn is_of_boot(run_dir: &Path, boot_id: &str) -> bool {
    fs::read_to_string(run_dir.join(BOOT_ID)).is_ok_and(|known| boot_id.starts_with(known.as_str()))
}

impl Records {
    /// Opens the journal of this boot; that of an earlier one is removed, with what its sandboxes left on /run.
    pub fn open(run_dir: &Path, boot_id: &str) -> Result<Records, RecordError> {
        let (root, aside) = (run_dir.join("sandboxes"), run_dir.join("set-aside"));
        let marker = run_dir.join(BOOT_ID);
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| RecordError::Io { what, path, source }
        };
        let known = fs::read_to_string(&marker).ok();
        if !is_of_boot(run_dir, boot_id) {
            remove(&root)?;
            remove(&aside)?;
        }
        private_dir(&root).map_err(failed("make", &root))?;
        if known.as_deref() != Some(boot_id) {
            write_atomically(&marker, boot_id.as_bytes()).map_err(failed("write", &marker))?;
        }
        Ok(Records { root, aside })
    }

    pub fn sandbox_dir(&self, sandbox: &str) -> PathBuf {
        self.root.join(sandbox)
    }

    pub fn bundle(&self, sandbox: &str, container: &Id) -> PathBuf {
        layout::bundle(&self.sandbox_dir(sandbox), container)
    }

    pub fn save_sandbox(&self, record: &SandboxRecord) -> Result<(), RecordError> {
        save(&self.sandbox_dir(&record.id), &encode(record))
    }

    pub fn save_container(&self, record: &ContainerRecord) -> Result<(), RecordError> {
        let dir = self.sandbox_dir(&record.sandbox).join("containers").join(&record.id);
        save(&dir, &encode(record))
    }

    pub fn remove_sandbox(&self, sandbox: &str) -> Result<(), RecordError> {
        remove(&self.sandbox_dir(sandbox))
    }

    /// Removes a container's folder, and libcontainer's for it.
    pub fn remove_container(&self, sandbox: &str, container: &Id) -> Result<(), RecordError> {
        remove(&layout::libcontainer(&self.sandbox_dir(sandbox)).join(container.as_str()))?;
        remove(&self.bundle(sandbox, container))
    }

    /// Everything that can be read, and what was moved aside.
    pub fn load(&self) -> Result<Journal, RecordError> {
        let mut journal = Journal::default();
        for dir in folders(&self.root)? {
            let read = read::<SandboxRecord>(&dir).and_then(|found| named(found, &dir, |record| &record.id));
            let (containers, bad) = self.containers(&dir)?;
            match read {
                Ok(Some(sandbox)) => journal.sandboxes.push(Loaded { sandbox, containers, bad }),
                // It never was whole.
                Ok(None) => remove(&dir)?,
                Err(error) => journal.bad.push(Bad { containers, ..self.set_aside(&dir, &error)? }),
            }
        }
        Ok(journal)
    }

    fn containers(&self, sandbox: &Path) -> Result<(Vec<ContainerRecord>, Vec<Bad>), RecordError> {
        let (mut containers, mut bad) = (Vec::new(), Vec::new());
        for dir in folders(&sandbox.join("containers"))? {
            match read::<ContainerRecord>(&dir).and_then(|found| named(found, &dir, |record| &record.id)) {
                Ok(Some(container)) => containers.push(container),
                Ok(None) => remove(&dir)?,
                Err(error) => bad.push(self.set_aside(&dir, &error)?),
            }
        }
        Ok((containers, bad))
    }

    /// Moves a folder out of the journal. One of the same name that lies there already is older, and gives way.
    fn set_aside(&self, dir: &Path, error: &ReadError) -> Result<Bad, RecordError> {
        let name = dir.file_name().unwrap_or_default();
        let path = self.aside.join(name);
        let failed = |source| RecordError::Io { what: "set aside", path: dir.to_owned(), source };
        remove(&path)?;
        private_dir(&self.aside).and_then(|()| fs::rename(dir, &path)).map_err(failed)?;
        let why = gantry_env::chain(error).to_string();
        Ok(Bad { id: name.to_string_lossy().into_owned(), why, path, containers: Vec::new() })
    }
}

/// A record stands in the folder of its name, or it is not ours.
fn named<T>(found: Option<T>, dir: &Path, id: impl Fn(&T) -> &String) -> Result<Option<T>, ReadError> {
    match found {
        Some(record) if dir.file_name().is_none_or(|name| name != id(&record).as_str()) => {
            Err(ReadError::OtherId(id(&record).clone()))
        }
        found => Ok(found),
    }
}

/// A folder of root's alone, with those above it.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    point(Point::RecordWrite);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    point(Point::RecordRename);
    fs::rename(new, path)
}

/// A field of a number that no message has: readers that know nothing of it pass over it. Its value is the length of what
/// follows.
const LENGTH_KEY: [u8; 2] = [0xf9, 0x7f];
const LENGTH_BYTES: usize = LENGTH_KEY.len() + size_of::<u64>();

/// A record's file.
pub fn encode(record: &impl Message) -> Vec<u8> {
    let message = record.encode_to_vec();
    [&LENGTH_KEY, (message.len() as u64).to_le_bytes().as_slice(), &message].concat()
}

pub fn decode<T: Message + Default>(record: &[u8]) -> Result<T, ReadError> {
    Ok(T::decode(whole(record)?)?)
}

/// The message of a record. One from before records began with their length is one as it is.
fn whole(record: &[u8]) -> Result<&[u8], ReadError> {
    if record.first() != LENGTH_KEY.first() {
        return Ok(record);
    }
    let cut = |want| ReadError::Cut { have: record.len(), want };
    let (head, message) = record.split_at_checked(LENGTH_BYTES).ok_or_else(|| cut(LENGTH_BYTES))?;
    let length = head[LENGTH_KEY.len()..].try_into().map_or(0, u64::from_le_bytes);
    if message.len() as u64 == length { Ok(message) } else { Err(cut(LENGTH_BYTES.saturating_add(length as usize))) }
}

fn save(dir: &Path, record: &[u8]) -> Result<(), RecordError> {
    private_dir(dir).and_then(|()| write_atomically(&dir.join(RECORD), record)).map_err(|source| RecordError::Io {
        what: "write record in",
        path: dir.to_owned(),
        source,
    })
}

/// None where there is no record.
fn read<T: Message + Default>(dir: &Path) -> Result<Option<T>, ReadError> {
    let file = match fs::File::open(dir.join(RECORD)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(RECORD_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > RECORD_MAX_BYTES {
        return Err(ReadError::TooLong);
    }
    decode(&bytes).map(Some)
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |source| RecordError::Io { what: "list", path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path()).map_err(failed)).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// The record first: what is left without one never was whole, and goes at the next start.
fn remove(dir: &Path) -> Result<(), RecordError> {
    let failed = |source| RecordError::Io { what: "remove", path: dir.to_owned(), source };
    point(Point::RecordRemove);
    match fs::remove_file(dir.join(RECORD)) {
        // One that is a folder is none, and goes with the rest.
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => return Err(failed(e)),
        _ => {}
    }
    point(Point::FolderRemove);
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> SandboxRecord {
        SandboxRecord { id: id.into(), state: SandboxState::Ready as i32, ..SandboxRecord::default() }
    }

    #[test]
    fn what_was_saved_is_loaded_and_half_made_things_go() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), "boot1").unwrap();
        records.save_sandbox(&sandbox("a1")).unwrap();
        let container = ContainerRecord { id: "c1".into(), sandbox: "a1".into(), pid: 7, ..ContainerRecord::default() };
        records.save_container(&container).unwrap();
        private_dir(&records.sandbox_dir("half")).unwrap();

        let again = Records::open(dir.path(), "boot1").unwrap();
        let loaded = again.load().unwrap().sandboxes;
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].sandbox, sandbox("a1"));
        assert_eq!(loaded[0].containers, vec![container]);
        assert!(!again.sandbox_dir("half").exists());
    }

    #[test]
    fn another_boot_forgets() {
        let dir = tempfile::tempdir().unwrap();
        Records::open(dir.path(), "boot1").unwrap().save_sandbox(&sandbox("a1")).unwrap();
        for cut in 0..="boot1".len() {
            fs::write(dir.path().join("boot-id"), &"boot1"[..cut]).unwrap();
            let journal = Records::open(dir.path(), "boot1").unwrap().load().unwrap();
            assert_eq!(journal.sandboxes.len(), 1, "a cut mark of this boot is no other boot's");
        }
        assert!(Records::open(dir.path(), "boot2").unwrap().load().unwrap().sandboxes.is_empty());
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_set_aside_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), "boot1").unwrap();
        let pod = SandboxRecord { ip: "10.0.0.1".into(), ..sandbox("a1") };
        let container = ContainerRecord {
            state: ContainerState::Running as i32,
            pid: 7,
            ..ContainerRecord { id: "c1".into(), sandbox: "a1".into(), ..ContainerRecord::default() }
        };
        records.save_sandbox(&pod).unwrap();
        records.save_container(&container).unwrap();
        let inner = records.sandbox_dir("a1").join("containers/c1");
        let bytes = fs::read(inner.join(RECORD)).unwrap();
        for cut in 0..bytes.len() {
            private_dir(&inner).unwrap();
            fs::write(inner.join(RECORD), &bytes[..cut]).unwrap();
            let loaded = records.load().unwrap().sandboxes.remove(0);
            assert_eq!((loaded.containers.len(), loaded.bad.len()), (0, 1), "cut at {cut}");
            assert!(records.load().unwrap().sandboxes[0].bad.is_empty(), "told once");
        }
        records.save_container(&container).unwrap();
        let outer = records.sandbox_dir("a1").join(RECORD);
        let bytes = fs::read(&outer).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&outer, &bytes[..cut]).unwrap();
            let mut journal = records.load().unwrap();
            assert!(journal.sandboxes.is_empty(), "cut at {cut}");
            let bad = journal.bad.remove(0);
            assert_eq!((bad.id.as_str(), &bad.containers), ("a1", &vec![container.clone()]), "cut at {cut}");
            assert!(records.load().unwrap().bad.is_empty(), "told once");
            fs::rename(&bad.path, records.sandbox_dir("a1")).unwrap();
        }
    }

    #[test]
    fn records_are_read_from_before_they_had_a_length_and_by_who_knows_of_none() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), "boot1").unwrap();
        records.save_sandbox(&sandbox("a1")).unwrap();
        let path = records.sandbox_dir("a1").join(RECORD);
        assert_eq!(SandboxRecord::decode(fs::read(&path).unwrap().as_slice()).unwrap(), sandbox("a1"));
        fs::write(&path, sandbox("a1").encode_to_vec()).unwrap();
        assert_eq!(records.load().unwrap().sandboxes[0].sandbox, sandbox("a1"));
    }

    #[test]
    fn what_makes_no_sense_is_set_aside_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), "boot1").unwrap();
        let container =
            |id: &str, of: &str| ContainerRecord { id: id.into(), sandbox: of.into(), ..ContainerRecord::default() };
        for id in ["good", "torn", "other"] {
            records.save_sandbox(&sandbox(id)).unwrap();
            records.save_container(&container(&format!("{id}-c"), id)).unwrap();
        }
        records.save_container(&container("bad-c", "good")).unwrap();
        fs::write(records.sandbox_dir("torn").join(RECORD), b"\xff\xff\xff").unwrap();
        fs::write(records.sandbox_dir("other").join(RECORD), sandbox("another").encode_to_vec()).unwrap();
        // Unreadable, as on a bad disk: reading a folder is an error too.
        let bad = records.sandbox_dir("good").join("containers/bad-c").join(RECORD);
        fs::remove_file(&bad).unwrap();
        fs::create_dir(&bad).unwrap();

        let mut journal = records.load().unwrap();
        assert_eq!(journal.sandboxes.len(), 1);
        let good = &journal.sandboxes[0];
        assert_eq!((good.sandbox.id.as_str(), good.containers[0].id.as_str()), ("good", "good-c"));
        assert_eq!((good.bad[0].id.as_str(), good.containers.len()), ("bad-c", 1));
        journal.bad.sort_by(|a, b| a.id.cmp(&b.id));
        for (bad, id) in journal.bad.iter().zip(["other", "torn"]) {
            assert_eq!(bad.id, id);
            assert_eq!(bad.containers[0].id, format!("{id}-c"));
            assert!(bad.path.join(RECORD).exists(), "{} is kept", bad.path.display());
        }
        assert!(journal.bad[0].why.contains("another"), "{}", journal.bad[0].why);

        let again = records.load().unwrap();
        assert!(again.bad.is_empty() && again.sandboxes[0].bad.is_empty(), "told once");
    }
}
