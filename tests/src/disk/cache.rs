//! A disk's volatile cache: what it holds back, and what it lets go when it pleases.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Past 16 MiB a disk writes everything out, asked or not.
const HELD_MAX_SECTORS: usize = 32 << 10;

/// Bytes that go to the medium, and where.
pub(super) type Extents = Vec<(u64, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Cache {
    dice: StdRng,
    held: BTreeMap<u64, [u8; SECTOR_BYTES]>,
}

impl Cache {
    pub fn new(dice: StdRng) -> Cache {
        Cache { dice, held: BTreeMap::new() }
    }

    /// Takes a write of whole sectors; what comes back goes to the medium now. Half of the writes wait whole, a quarter goes
    /// out whole, and of a quarter each sector does as it likes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Extents {
        let chance = [0.0, 0.0, 0.5, 1.0][self.dice.random_range(0..4)];
        let mut settled = BTreeMap::new();
        for (at, sector) in (offset / SECTOR_BYTES as u64..).zip(data.as_chunks().0) {
            if self.dice.random_bool(chance) {
                self.held.remove(&at);
                settled.insert(at, *sector);
            } else {
                self.held.insert(at, *sector);
            }
        }
        let mut extents = extents(settled);
        if self.held.len() > HELD_MAX_SECTORS {
            extents.extend(self.flush());
        }
        extents
    }

    /// What was written and is not on the medium yet, over what the medium says.
    pub fn overlay(&self, offset: u64, data: &mut [u8]) {
        let first = offset / SECTOR_BYTES as u64;
        let sectors = data.as_chunks_mut().0;
        for (at, held) in self.held.range(first..first + sectors.len() as u64) {
            sectors[(at - first) as usize] = *held;
        }
    }

    /// These sectors are written past the cache.
    pub fn forget(&mut self, offset: u64, bytes: usize) {
        let first = offset / SECTOR_BYTES as u64;
        for at in first..first + (bytes / SECTOR_BYTES) as u64 {
            self.held.remove(&at);
        }
    }

    /// Everything that was held back.
    pub fn flush(&mut self) -> Extents {
        extents(std::mem::take(&mut self.held))
    }
}

/// Neighbours go out together.
fn extents(sectors: BTreeMap<u64, [u8; SECTOR_BYTES]>) -> Extents {
    let mut extents: Extents = Vec::new();
    for (at, sector) in sectors {
        let offset = at * SECTOR_BYTES as u64;
        match extents.last_mut() {
            Some((start, data)) if *start + data.len() as u64 == offset => data.extend_from_slice(&sector),
            _ => extents.push((offset, sector.to_vec())),
        }
    }
    extents
}
