//! A disk in memory that loses power, fails an operation, or runs full, when a test says so.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_control::store::embedded::Disk;

/// A write is torn into pieces of this size.
const SECTOR_BYTES: usize = 512;

/// What happens when the countdown ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This operation and all after it fail, until [`FaultyDisk::reboot`].
    PowerCut,
    /// This operation fails, those after it do not.
    Once,
}

#[derive(Debug, Default)]
pub struct FaultyDisk(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What a loss of power leaves for certain.
    durable: Vec<u8>,
    /// What is read: with everything that was written.
    view: Vec<u8>,
    /// What was written since the last sync.
    pending: Vec<Pending>,
    armed: Option<(u64, Fault)>,
    dead: bool,
    capacity: Option<u64>,
    dice: u64,
}

#[derive(Debug)]
enum Pending {
    SetLen(usize),
    Write(usize, Vec<u8>),
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Pending::SetLen(len) => to.resize(*len, 0),
            Pending::Write(offset, data) => {
                let end = (offset + data.len()).min(to.len());
                if *offset < end {
                    to[*offset..end].copy_from_slice(&data[..end - offset]);
                }
            }
        }
    }
}

impl State {
    fn roll(&mut self) -> u64 {
        // Knuth's constants for a linear congruence; the high bits are the good ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    /// Counts an operation that changes something; fails it when its time has come.
    fn count(&mut self) -> io::Result<()> {
        self.alive()?;
        match &mut self.armed {
            Some((0, fault)) => {
                self.dead = *fault == Fault::PowerCut;
                self.armed = None;
                Err(io::Error::other("the disk failed"))
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Of what was not synced, all is there, or nothing, or any part.
    fn settle(&mut self) {
        let chance = [0, 4, 2, 2][self.roll() as usize % 4];
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::SetLen(_) if self.roll() % 4 < chance => pending.apply(&mut self.durable),
                Pending::SetLen(_) => {}
                Pending::Write(offset, data) => {
                    for (i, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if self.roll() % 4 < chance {
                            Pending::Write(offset + i * SECTOR_BYTES, sector.to_vec()).apply(&mut self.durable);
                        }
                    }
                }
            }
        }
        self.view = self.durable.clone();
    }
}

impl FaultyDisk {
    pub fn from_bytes(bytes: Vec<u8>) -> FaultyDisk {
        FaultyDisk(Mutex::new(State { durable: bytes.clone(), view: bytes, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After `operations` more that change something, `fault` happens.
    pub fn arm(&self, operations: u64, fault: Fault) {
        self.state().armed = Some((operations, fault));
    }

    pub fn disarm(&self) {
        self.state().armed = None;
    }

    /// True while the power is off.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The power comes back: what was synced is there, and by the dice a part of what was not.
    pub fn reboot(&self, seed: u64) {
        let mut state = self.state();
        state.dead = false;
        state.armed = None;
        state.dice = seed;
        state.settle();
    }

    /// The disk holds this much and no more.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    pub fn contents(&self) -> Vec<u8> {
        self.state().view.clone()
    }
}

impl Disk for FaultyDisk {
    fn size(&self) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        Ok(state.view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        state.alive()?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = state.view.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        if state.capacity.is_some_and(|capacity| len > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let pending = Pending::SetLen(usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?);
        pending.apply(&mut state.view);
        state.pending.push(pending);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let counted = state.count();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let pending = Pending::Write(start, data.to_vec());
        // A write that fails may still have reached the disk, or a part of it.
        if counted.is_ok() {
            pending.apply(&mut state.view);
        }
        state.pending.push(pending);
        counted
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        state.pending.clear();
        state.durable = state.view.clone();
        Ok(())
    }

    fn distrust(&self) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.settle();
        Ok(())
    }

    fn name(&self) -> String {
        "a faulty disk".to_owned()
    }
}
