//! One header block of 512 bytes.

use super::sparse::{self, Sparse};

pub const BLOCK_BYTES: u64 = 512;
/// Where GNU's header has the first places of a sparse file, and its size.
const SPARSE_AT: usize = 386;
const REAL_SIZE_AT: usize = 483;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Entry(Kind),
    Pax,
    PaxGlobal,
    LongPath,
    LongLink,
    VolumeLabel,
    Unsupported(u8),
}

pub struct Header {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Type,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub device: (u32, u32),
    /// Of the old format of sparse files.
    pub sparse: Option<sparse::Old>,
}

impl Header {
    pub fn parse(block: &[u8; BLOCK_BYTES as usize]) -> Result<Header, &'static str> {
        check_sum(block)?;
        let gnu = &block[257..265] == b"ustar  \0";
        let kind = match block[156] {
            0 | b'0' | b'7' => Type::Entry(Kind::File),
            b'1' => Type::Entry(Kind::HardLink),
            b'2' => Type::Entry(Kind::Symlink),
            b'3' => Type::Entry(Kind::Character),
            b'4' => Type::Entry(Kind::Block),
            b'5' => Type::Entry(Kind::Directory),
            b'6' => Type::Entry(Kind::Fifo),
            b'x' => Type::Pax,
            b'g' => Type::PaxGlobal,
            b'L' => Type::LongPath,
            b'K' => Type::LongLink,
            b'V' => Type::VolumeLabel,
            // star's sparse files have the same letter and another map.
            b'S' if gnu => Type::Entry(Kind::File),
            other => Type::Unsupported(other),
        };
        let posix = &block[257..263] == b"ustar\0";
        let mut path = until_nul(&block[0..100]).to_vec();
        // GNU keeps times where POSIX keeps the first part of a long name.
        let prefix = until_nul(&block[345..500]);
        if posix && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let device = match kind {
            Type::Entry(Kind::Character | Kind::Block) if posix || gnu => {
                (small(&block[329..337])?, small(&block[337..345])?)
            }
            _ => (0, 0),
        };
        Ok(Header {
            path,
            link: until_nul(&block[157..257]).to_vec(),
            kind,
            mode: small(&block[100..108])?,
            uid: small(&block[108..116])?,
            gid: small(&block[116..124])?,
            size: u64::try_from(number(&block[124..136])?).map_err(|_| "the size is negative")?,
            mtime: number(&block[136..148])?,
            device,
            sparse: if block[156] == b'S' && gnu { Some(old_sparse(block)?) } else { None },
        })
    }
}

fn old_sparse(block: &[u8; BLOCK_BYTES as usize]) -> Result<sparse::Old, &'static str> {
    let (segments, continued) = sparse::places(block, SPARSE_AT, number)?;
    let size = u64::try_from(number(&block[REAL_SIZE_AT..REAL_SIZE_AT + 12])?).map_err(|_| "the size is negative")?;
    Ok(sparse::Old { sparse: Sparse { size, segments }, continued })
}

fn check_sum(block: &[u8; BLOCK_BYTES as usize]) -> Result<(), &'static str> {
    let said = number(&block[148..156])?;
    let of = |value: fn(u8) -> i64| -> i64 {
        block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { value(*b) }).sum()
    };
    // Some old writers summed signed characters.
    if said == of(i64::from) || said == of(|b| i64::from(b as i8)) { Ok(()) } else { Err("the checksum is wrong") }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn small(field: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(number(field)?).map_err(|_| "a number is out of range")
}

/// Octal digits among spaces and NULs, or (first bit set) a big-endian two's complement number.
pub fn number(field: &[u8]) -> Result<i64, &'static str> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            // The first bit only marks the encoding.
            let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
            value = value << 8 | i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return Err("a number is out of range");
            }
        }
        return i64::try_from(value).map_err(|_| "a number is out of range");
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => Err("a number holds something other than octal digits"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_kinds_of_numbers() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert!(number(b"12x4567\0").is_err());
        assert!(number(&[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
