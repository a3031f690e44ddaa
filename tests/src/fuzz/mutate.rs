//! Mutations of seeds: small, made of a number and nothing else, so that a run repeats itself.

/// SplitMix64: dice that a seed replays, without a crate whose next version rolls others.
pub struct Dice(u64);

/// What parsers stumble over, besides what chance makes.
const WORDS: &[&[u8]] = &[
    b"",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"-0",
    b"1e9999",
    b"1e-9999",
    b"0.1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"2147483648",
    b"0001-01-01T00:00:00Z",
    b"9999-12-31T23:59:59.999999999Z",
    b"0000-01-01T00:00:00+23:59",
    b"..",
    b"../",
    b"/",
    b"//",
    b"%2f",
    b"%00",
    b"%",
    b"=",
    b"==",
    b"!=",
    b"(",
    b")",
    b"@",
    b"*",
    b"&a",
    b"*a",
    b"<<",
    b"!!",
    b"|",
    b"---",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3\xa9",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b".wh.",
    b".wh..wh..opq",
    b"metadata",
    b"name",
    b"$patch",
    b"$retainKeys",
    b"$setElementOrder/",
    b"$deleteFromPrimitiveList/",
    b"SCHILY.xattr.",
    b"GNU.sparse.",
    b"k8s\0",
];
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    4,
    7,
    8,
    16,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    1023,
    1024,
    4095,
    4096,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
const STEPS_MAX: usize = 6;
const REPEATS_MAX: usize = 64;

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// In `0..bound`, nearly uniform; 0 where the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.roll() % bound as u64) as usize }
    }
}

/// One of the seeds, changed a little, and never longer than `max_bytes`.
pub fn mutated(dice: &mut Dice, seeds: &[Vec<u8>], max_bytes: usize) -> Vec<u8> {
    let mut bytes = seeds.get(dice.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..1 + dice.below(STEPS_MAX) {
        step(dice, &mut bytes, seeds);
    }
    bytes.truncate(max_bytes);
    bytes
}

fn step(dice: &mut Dice, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = dice.below(bytes.len() + 1);
    let length = dice.below((bytes.len() - at).min(32) + 1);
    match dice.below(11) {
        0 | 1 => {
            let mask = 1 << dice.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        2 => {
            let value = dice.roll() as u8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..at + length)),
        5 => insert(bytes, at, WORDS[dice.below(WORDS.len())]),
        6 => {
            bytes.drain(at..at + length);
            insert(bytes, at, WORDS[dice.below(WORDS.len())]);
        }
        7 => {
            let piece = bytes[at..at + length].repeat(1 + dice.below(REPEATS_MAX));
            insert(bytes, at, &piece);
        }
        8 => overwrite(dice, bytes, at),
        9 => number_as_text(dice, bytes, at),
        _ => splice(dice, bytes, at, seeds),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

/// A number of two, four or eight bytes, in either order.
fn overwrite(dice: &mut Dice, bytes: &mut [u8], at: usize) {
    let number = NUMBERS[dice.below(NUMBERS.len())];
    let width = [1, 2, 4, 8][dice.below(4)];
    let mut image = number.to_le_bytes()[..width].to_vec();
    if dice.below(2) == 0 {
        image.reverse();
    }
    for (byte, new) in bytes.iter_mut().skip(at).zip(image) {
        *byte = new;
    }
}

/// The run of digits that comes next, replaced by another number.
fn number_as_text(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |found| start + found);
    let number = NUMBERS[dice.below(NUMBERS.len())].to_string();
    bytes.splice(start..end, number.into_bytes());
}

/// The tail of another seed in the place of one's own.
fn splice(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize, seeds: &[Vec<u8>]) {
    let Some(other) = seeds.get(dice.below(seeds.len())) else { return };
    let from = dice.below(other.len() + 1);
    bytes.truncate(at);
    bytes.extend_from_slice(&other[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let seeds = [b"{\"a\": 1}".to_vec(), b"name=x".to_vec()];
        let run = |seed| {
            let mut dice = Dice::new(seed);
            (0..200).map(|_| mutated(&mut dice, &seeds, 100)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().all(|bytes| bytes.len() <= 100));
        assert!(mutated(&mut Dice::new(1), &[], 10).len() <= 10, "no seed is no reason to fail");
    }
}
