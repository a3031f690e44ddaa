//! What the API has answered, written down where no loss of power in the machine reaches it, and the judgement on what is
//! there afterwards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Entry {
    /// A create or an update was answered.
    Put {
        name: String,
        value: u64,
        revision: u64,
    },
    /// A delete is about to be asked for: from here on the object may be there or not.
    Deleting {
        name: String,
    },
    Deleted {
        name: String,
        revision: u64,
    },
    /// An image's import was answered.
    Image {
        name: String,
    },
}

/// Lines of JSON; the last may be torn by whoever killed the machine.
pub struct Ledger {
    file: Mutex<File>,
    before: Vec<Entry>,
}

impl Ledger {
    pub fn open(path: &Path) -> io::Result<Ledger> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let before: Vec<Entry> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut file = File::create(path)?;
        for entry in &before {
            write(&mut file, entry)?;
        }
        file.sync_data()?;
        Ok(Ledger { file: Mutex::new(file), before })
    }

    /// On the other side before it returns.
    pub fn note(&self, entry: &Entry) -> io::Result<()> {
        let mut file = self.file.lock();
        write(&mut file, entry)?;
        file.sync_data()
    }

    /// What was answered before this opening.
    pub fn before(&self) -> &[Entry] {
        &self.before
    }
}

fn write(file: &mut File, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// What must be said of an object.
#[derive(Debug, Default)]
struct Known {
    value: Option<u64>,
    deleting: bool,
    deleted: bool,
}

/// What is wrong with the objects that a list at `revision` has found, by name with their values. Whoever updates an object
/// waits for each answer: it may be one further than what was noted, and no more.
pub fn judge(entries: &[Entry], found: &BTreeMap<String, u64>, revision: u64) -> Vec<String> {
    let mut known: BTreeMap<&str, Known> = BTreeMap::new();
    let mut newest = 0;
    for entry in entries {
        match entry {
            Entry::Put { name, value, revision } => {
                known.entry(name).or_default().value = Some(*value);
                newest = newest.max(*revision);
            }
            Entry::Deleting { name } => known.entry(name).or_default().deleting = true,
            Entry::Deleted { name, revision } => {
                known.entry(name).or_default().deleted = true;
                newest = newest.max(*revision);
            }
            Entry::Image { .. } => {}
        }
    }
    let mut wrong = Vec::new();
    if revision < newest {
        wrong.push(format!("revision {revision} is before {newest}, which was answered"));
    }
    for (name, known) in known {
        match (known, found.get(name)) {
            (Known { deleted: true, .. }, Some(_)) => wrong.push(format!("{name} was deleted and is back")),
            (Known { deleting: false, value: Some(value), .. }, None) => wrong.push(format!("{name}={value} is lost")),
            (Known { value: Some(value), .. }, Some(now)) if !(value..=value + 1).contains(now) => {
                wrong.push(format!("{name} is {now}, and {value} was answered"));
            }
            _ => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, value: u64, revision: u64) -> Entry {
        Entry::Put { name: name.to_owned(), value, revision }
    }

    #[test]
    fn what_is_lost_is_told_and_what_was_not_answered_is_free() {
        let deleting = |name: &str| Entry::Deleting { name: name.to_owned() };
        let deleted = |name: &str, revision| Entry::Deleted { name: name.to_owned(), revision };
        let entries = [
            put("kept", 0, 5),
            put("updated", 0, 6),
            put("updated", 3, 7),
            put("going", 0, 8),
            deleting("going"),
            put("gone", 0, 9),
            deleting("gone"),
            deleted("gone", 10),
        ];
        let judged = |found: &[(&str, u64)], revision| {
            let found = found.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            judge(&entries, &found, revision)
        };
        assert!(judged(&[("kept", 0), ("updated", 3)], 10).is_empty());
        assert!(judged(&[("kept", 1), ("updated", 4), ("going", 0), ("never noted", 7)], 12).is_empty());
        for (found, revision) in [
            (vec![("updated", 3)], 10),
            (vec![("kept", 0), ("updated", 2)], 10),
            (vec![("kept", 0), ("updated", 5)], 10),
            (vec![("kept", 0), ("updated", 3), ("gone", 0)], 10),
            (vec![("kept", 0), ("updated", 3)], 9),
        ] {
            assert_eq!(judged(&found, revision).len(), 1, "{found:?} at {revision}");
        }
    }

    #[test]
    fn a_torn_line_is_left_out_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        Ledger::open(&path).unwrap().note(&put("a", 1, 2)).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"Put\":{\"na").unwrap();
        Ledger::open(&path).unwrap().note(&put("b", 1, 3)).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().before(), [put("a", 1, 2), put("b", 1, 3)]);
    }
}
