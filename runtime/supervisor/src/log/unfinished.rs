//! The beginnings of lines whose ends have not come: a writer notes them in memory that outlives it, for the one that takes its
//! place. Noted before the packet is taken out of the socket, with its number, so that it is known whether that is still due.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use gantry_base::codec::Wire;
use gantry_base::wire_struct;
use rustix::fs::MemfdFlags;

/// Two places, of which the head names the one that counts: it is changed at once, a place is not.
const PLACES: [u64; 2] = [4 << 10, 1 << 30];
const HEAD_BYTES: usize = 2 * size_of::<u64>();

wire_struct! {
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Note {
        /// The packet after which this was so.
        pub serial: u64,
        pub logs: Vec<Beginnings>,
    }
}

wire_struct! {
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Beginnings {
        pub log: u64,
        pub stdout: Vec<u8>,
        pub stderr: Vec<u8>,
    }
}

#[derive(Debug)]
pub struct Notes(File);

impl Notes {
    pub fn new() -> io::Result<Notes> {
        let memory: OwnedFd = rustix::fs::memfd_create("unfinished", MemfdFlags::CLOEXEC)?;
        Ok(Notes(memory.into()))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Where it cannot be noted it is lost with its writer, and with nothing else.
    pub fn save(&self, note: &Note) {
        let mut bytes = Vec::new();
        note.put(&mut bytes);
        let place = if self.head().is_some_and(|(place, _)| place == PLACES[0]) { PLACES[1] } else { PLACES[0] };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        place.put(&mut head);
        (bytes.len() as u64).put(&mut head);
        let _ = self.0.write_all_at(&bytes, place).and_then(|()| self.0.write_all_at(&head, 0));
    }

    pub fn load(&self) -> Note {
        let read = || {
            let (place, length) = self.head()?;
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            self.0.read_exact_at(&mut bytes, place).ok()?;
            Note::take(&mut bytes.as_slice()).ok()
        };
        read().unwrap_or_default()
    }

    fn head(&self) -> Option<(u64, u64)> {
        let mut head = [0; HEAD_BYTES];
        self.0.read_exact_at(&mut head, 0).ok()?;
        <(u64, u64)>::take(&mut head.as_slice()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_is_read_though_the_next_was_cut_short() {
        let notes = Notes::new().unwrap();
        assert_eq!(notes.load(), Note::default());
        let note = |serial: u64| {
            let log = Beginnings { log: 1, stdout: vec![b'x'; 9000 + serial as usize], stderr: b"y".to_vec() };
            Note { serial, logs: vec![log] }
        };
        for serial in 1..5 {
            notes.save(&note(serial));
            assert_eq!(notes.load(), note(serial));
            // Killed in the middle of the next.
            let other = if notes.head().unwrap().0 == PLACES[0] { PLACES[1] } else { PLACES[0] };
            notes.0.write_all_at(&[0xff; 5000], other).unwrap();
            assert_eq!(notes.load(), note(serial));
        }
    }
}
