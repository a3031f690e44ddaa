//! The users of pods that are not the host's (`hostUsers: false`): the ids of the host that each such pod has for itself.
//!
//! A pod has one block of 65536 of them, for users and groups alike. Which one stands in the file `userns` of its folder, in the
//! kubelet's form, from before its sandbox is made until its volumes are released, when nothing of it runs any more. Nothing
//! else is remembered: what is taken is what the files say.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Ids of one pod: as many as Kubernetes gives unless it is told otherwise, and begin at a multiple of that.
pub const BLOCK_IDS: u32 = 1 << 16;
const NAME: &str = "userns";
const FILE_MAX_BYTES: u64 = 64 << 10;
/// The user whose subordinate ids are meant for pods, where there is one.
const OWNER: &str = "kubelet";

/// A pod's block, by its number: ids from `number * 65536` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block(u32);

impl Block {
    pub fn first_id(self) -> u32 {
        self.0 * BLOCK_IDS
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("subordinate ids of user {OWNER:?}: {0}")]
    Range(String),
    #[error("all {blocks} blocks of ids, from {first} on, are taken by pods")]
    Exhausted { blocks: u32, first: u32 },
    #[error("cannot {doing} {path}", path = .path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} does not say which ids a pod has", path = .0.display())]
    Content(PathBuf),
}

/// The blocks that pods are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    blocks: u32,
}

impl Pool {
    /// All ids but those of the host's own users, as many blocks as the node takes pods.
    pub fn of_pods(max_pods: i64) -> Pool {
        Pool { first: 1, blocks: u32::try_from(max_pods).unwrap_or(0).min(u32::MAX / BLOCK_IDS - 1) }
    }

    /// Of what `getsubids` says of users and of groups. The rules are the kubelet's.
    pub fn parse(users: &str, groups: &str) -> Result<Pool, UsersError> {
        let bad = |why: &str| UsersError::Range(why.to_owned());
        if users.trim() != groups.trim() {
            return Err(bad("those of users and of groups are not the same"));
        }
        let mut lines = users.lines().filter(|line| !line.trim().is_empty());
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(bad("there is not one range")) };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, first, length] = words[..] else { return Err(bad(&format!("{line:?} is no range"))) };
        let (Ok(first), Ok(length)) = (first.parse::<u32>(), length.parse::<u32>()) else {
            return Err(bad(&format!("{line:?} is no range")));
        };
        if first < BLOCK_IDS || !first.is_multiple_of(BLOCK_IDS) {
            return Err(bad(&format!("first id {first} is no multiple of {BLOCK_IDS}, or 0")));
        }
        if length == 0 || !length.is_multiple_of(BLOCK_IDS) || first.checked_add(length).is_none() {
            return Err(bad(&format!("count {length} is no multiple of {BLOCK_IDS}, or ends beyond all ids")));
        }
        Ok(Pool { first: first / BLOCK_IDS, blocks: length / BLOCK_IDS })
    }

    /// The first block that nobody has.
    fn free(&self, taken: &BTreeSet<Block>) -> Result<Block, UsersError> {
        let mut all = (self.first..self.first + self.blocks).map(Block);
        let exhausted = UsersError::Exhausted { blocks: self.blocks, first: self.first * BLOCK_IDS };
        all.find(|block| !taken.contains(block)).ok_or(exhausted)
    }
}

/// What this host has for pods. A range that cannot be used is an error of each pod that needs it, and of no other.
fn find_pool(max_pods: i64) -> Result<Pool, String> {
    let known = read_bounded(Path::new("/etc/passwd")).is_ok_and(|text| {
        let owner = format!("{OWNER}:");
        text.lines().any(|line| line.starts_with(&owner))
    });
    let ask = |arguments: &[&str]| {
        let output = std::process::Command::new("getsubids").args(arguments).output()?;
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        if output.status.success() { Ok(said.into_owned()) } else { Err(io::Error::other(said.trim().to_owned())) }
    };
    if !known {
        return Ok(Pool::of_pods(max_pods));
    }
    match (ask(&[OWNER]), ask(&["-g", OWNER])) {
        (Ok(users), Ok(groups)) => Pool::parse(&users, &groups).map_err(|error| error.to_string()),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!("there is a user kubelet and no getsubids: pods have ids from {BLOCK_IDS} on");
            Ok(Pool::of_pods(max_pods))
        }
        (Err(error), _) | (_, Err(error)) => Err(UsersError::Range(error.to_string()).to_string()),
    }
}

pub struct Users {
    data_dir: PathBuf,
    pool: Result<Pool, String>,
    /// Two pods that looked at once would find the same block free.
    one_at_a_time: Mutex<()>,
}

impl Users {
    pub fn new(data_dir: PathBuf, max_pods: i64) -> Users {
        Users { data_dir, pool: find_pool(max_pods), one_at_a_time: Mutex::new(()) }
    }

    #[cfg(test)]
    fn with(data_dir: PathBuf, pool: Pool) -> Users {
        Users { data_dir, pool: Ok(pool), one_at_a_time: Mutex::new(()) }
    }

    /// The block of a pod: the one that it has, else a new one, written down before it is told.
    pub fn of(&self, uid: &str) -> Result<Block, UsersError> {
        let _alone = self.one_at_a_time.lock();
        let path = self.data_dir.join(uid).join(NAME);
        if let Some(block) = read(&path)? {
            return Ok(block);
        }
        let pool = self.pool.as_ref().map_err(|why| UsersError::Range(why.clone()))?;
        let block = pool.free(&self.taken()?)?;
        write(&path, block).map_err(|source| UsersError::File { doing: "write", path, source })?;
        Ok(block)
    }

    /// Gives the pod's block back. Safe where it has none.
    pub fn release(&self, uid: &str) -> io::Result<()> {
        match fs::remove_file(self.data_dir.join(uid).join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A file that says nothing may be of any block: with it, none is free.
    fn taken(&self) -> Result<BTreeSet<Block>, UsersError> {
        let failed = |source| UsersError::File { doing: "read", path: self.data_dir.clone(), source };
        let mut taken = BTreeSet::new();
        for entry in fs::read_dir(&self.data_dir).map_err(failed)? {
            taken.extend(read(&entry.map_err(failed)?.path().join(NAME))?);
        }
        Ok(taken)
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

fn read(path: &Path) -> Result<Option<Block>, UsersError> {
    let failed = |source| UsersError::File { doing: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let parsed = serde_json::from_slice(&bytes).ok().and_then(|value| parse(&value));
    parsed.map(Some).ok_or_else(|| UsersError::Content(path.to_owned()))
}

fn parse(value: &Value) -> Option<Block> {
    let first = |list: &Value| {
        let [one] = list.as_array()?.as_slice() else { return None };
        let number = |key: &str| one[key].as_u64().and_then(|n| u32::try_from(n).ok());
        let (host, inside, length) = (number("hostId")?, number("containerId")?, number("length")?);
        (inside == 0 && length == BLOCK_IDS && host >= BLOCK_IDS && host.is_multiple_of(BLOCK_IDS)).then_some(host)
    };
    let (users, groups) = (first(&value["uidMappings"])?, first(&value["gidMappings"])?);
    (users == groups).then_some(Block(users / BLOCK_IDS))
}

fn write(path: &Path, block: Block) -> io::Result<()> {
    let mappings = json!([{"hostId": block.first_id(), "containerId": 0, "length": BLOCK_IDS}]);
    let text = json!({"uidMappings": mappings, "gidMappings": mappings}).to_string();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // A file that is cut short would stand in the way of every other pod.
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(first: u32, blocks: u32) -> Pool {
        Pool { first, blocks }
    }

    #[test]
    fn a_block_is_kept_over_a_restart_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let start = || Users::with(dir.path().to_owned(), pool(1, 2));
        let users = start();
        let (a, b) = (users.of("a").unwrap(), users.of("b").unwrap());
        assert_eq!((a.first_id(), b.first_id()), (65_536, 131_072));
        drop(users);
        let users = start();
        assert_eq!((users.of("a").unwrap(), users.of("b").unwrap()), (a, b));
        let full = users.of("c").unwrap_err().to_string();
        assert_eq!(full, "all 2 blocks of ids, from 65536 on, are taken by pods");
        users.release("a").unwrap();
        users.release("a").unwrap();
        assert_eq!(users.of("c").unwrap(), a);
        let text = fs::read_to_string(dir.path().join("c/userns")).unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        let mapping = json!([{"hostId": 65_536, "containerId": 0, "length": 65_536}]);
        assert_eq!(said, json!({"uidMappings": mapping, "gidMappings": mapping}), "the kubelet's form");
    }

    #[test]
    fn where_a_file_says_nothing_no_block_is_known_to_be_free() {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::with(dir.path().to_owned(), pool(1, 9));
        users.of("a").unwrap();
        let torn = dir.path().join("torn");
        fs::create_dir(&torn).unwrap();
        let zero = r#"[{"hostId": 0, "containerId": 0, "length": 65536}]"#;
        for text in ["", "{", "{}", &format!(r#"{{"uidMappings": {zero}, "gidMappings": {zero}}}"#)] {
            fs::write(torn.join("userns"), text).unwrap();
            let error = users.of("b").unwrap_err().to_string();
            assert!(error.ends_with("torn/userns does not say which ids a pod has"), "{error}");
        }
        users.of("a").unwrap();
        users.release("torn").unwrap();
        assert_eq!(users.of("b").unwrap(), Block(2));
    }

    #[test]
    fn subordinate_ids_are_one_range_of_whole_blocks() {
        let one = "0: kubelet 65536 7208960\n";
        assert_eq!(Pool::parse(one, one).unwrap(), pool(1, 110));
        let bad = |users: &str, groups: &str| Pool::parse(users, groups).unwrap_err().to_string();
        assert!(bad(one, "0: kubelet 131072 7208960\n").contains("not the same"));
        assert!(bad("", "").contains("not one range"));
        let two = format!("{one}1: kubelet 99 1\n");
        assert!(bad(&two, &two).contains("not one range"));
        for (line, why) in [
            ("0: kubelet 1 65536", "first id 1 "),
            ("0: kubelet 0 65536", "first id 0 "),
            ("0: kubelet 65536 65535", "count 65535 "),
            ("0: kubelet 4294901760 65536", "beyond all ids"),
            ("0: kubelet x 65536", "is no range"),
            ("0: kubelet 65536", "is no range"),
        ] {
            assert!(bad(line, line).contains(why), "{line}");
        }
    }

    proptest! {
        /// Whatever comes and goes, and however often the agent starts again: no two pods share an id, none has one of the
        /// host's own, and who has a block keeps it.
        #[test]
        fn no_two_pods_have_the_same_ids(steps in proptest::collection::vec((0u8..3, 0usize..6), 0..40)) {
            let dir = tempfile::tempdir().unwrap();
            let start = || Users::with(dir.path().to_owned(), pool(2, 4));
            let mut users = start();
            let mut model: std::collections::BTreeMap<usize, Block> = std::collections::BTreeMap::new();
            for (step, pod) in steps {
                let uid = format!("pod-{pod}");
                match step {
                    0 => match users.of(&uid) {
                        Ok(block) => {
                            prop_assert!(model.get(&pod).is_none_or(|before| *before == block));
                            model.insert(pod, block);
                        }
                        Err(UsersError::Exhausted { .. }) => prop_assert!(model.len() == 4 && !model.contains_key(&pod)),
                        Err(other) => prop_assert!(false, "{}", other),
                    },
                    1 => {
                        users.release(&uid).unwrap();
                        model.remove(&pod);
                    }
                    _ => users = start(),
                }
                let blocks: BTreeSet<Block> = model.values().copied().collect();
                prop_assert_eq!(blocks.len(), model.len());
                prop_assert!(blocks.iter().all(|b| b.first_id() >= 2 * BLOCK_IDS && b.first_id() < 6 * BLOCK_IDS));
            }
        }
    }
}
