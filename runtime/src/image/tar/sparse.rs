//! Sparse files: which runs of a file an archive holds; the rest of it is holes. GNU tar has four ways of saying so (its
//! manual, "Storing Sparse Files"): the old one in the header and in blocks after it, and three by PAX records.

use std::io::Read;

use super::header::BLOCK_BYTES;

/// A file that is written in this many runs is held by no image; a map of them takes two megabytes.
pub const SEGMENTS_MAX: usize = 100_000;

/// A number in a map of format 1.0, with its line's end.
const NUMBER_MAX_BYTES: usize = 21;

/// The place of a run in the old format's blocks: two numbers of twelve bytes.
const PLACE_BYTES: usize = 24;
pub const PLACES_IN_HEADER: usize = 4;
const PLACES_IN_BLOCK: usize = 21;

/// A run of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub bytes: u64,
}

/// What a map says of a file: how long it is, and what of it is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    pub size: u64,
    pub segments: Vec<Segment>,
}

impl Sparse {
    /// A map that is in order, without overlaps and within the file, and tells of as many bytes as the archive holds; two
    /// readers could take any other for two files. Empty runs, which only mark the end, are left out.
    pub fn checked(mut self, stored: u64) -> Result<Sparse, &'static str> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for segment in &self.segments {
            if segment.offset < end {
                return Err("its runs overlap or are out of order");
            }
            end = segment.offset.checked_add(segment.bytes).ok_or("a run ends beyond any file")?;
            sum = sum.checked_add(segment.bytes).ok_or("its runs are longer than any file")?;
        }
        if end > self.size {
            return Err("a run ends beyond the file");
        }
        if sum != stored {
            return Err("its runs are not as long as its data");
        }
        self.segments.retain(|segment| segment.bytes > 0);
        Ok(self)
    }
}

/// The old format's beginning, in the header.
#[derive(Debug, PartialEq, Eq)]
pub struct Old {
    pub sparse: Sparse,
    /// A block with more places follows.
    pub continued: bool,
}

/// The places in a header (from byte 386) or a block that continues it, up to the first that is empty.
pub fn places(
    block: &[u8; BLOCK_BYTES as usize],
    from: usize,
    number: impl Fn(&[u8]) -> Result<i64, &'static str>,
) -> Result<(Vec<Segment>, bool), &'static str> {
    let most = if from == 0 { PLACES_IN_BLOCK } else { PLACES_IN_HEADER };
    let size = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| "a place in its map is negative");
    let mut segments = Vec::new();
    for place in block[from..].chunks_exact(PLACE_BYTES).take(most).take_while(|place| place[0] != 0) {
        segments.push(Segment { offset: size(&place[..12])?, bytes: size(&place[12..])? });
    }
    let continued = block[from + most * PLACE_BYTES] != 0;
    Ok((segments, continued))
}

/// What PAX records say: `GNU.sparse.*`.
#[derive(Debug, Default)]
pub struct Records {
    pub any: bool,
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    blocks: Option<u64>,
    segments: Option<Vec<Segment>>,
    /// Of format 0.0, whose pairs are records of their own.
    offset: Option<u64>,
}

/// Where the map is.
pub enum Form {
    Known(Sparse),
    /// Format 1.0: before the data.
    Ahead {
        size: u64,
    },
}

impl Records {
    /// One record; `key` is without its prefix.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.any = true;
        match key {
            b"major" => self.major = Some(value.to_vec()),
            b"minor" => self.minor = Some(value.to_vec()),
            b"name" if value.is_empty() || value.contains(&0) => return Err("the name of a sparse file is malformed"),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => {
                let size = decimal(value)?;
                if self.size.replace(size).is_some_and(|before| before != size) {
                    return Err("a sparse file has two sizes");
                }
            }
            b"numblocks" => self.blocks = Some(decimal(value)?),
            b"offset" => {
                if self.offset.replace(decimal(value)?).is_some() {
                    return Err("a run of a sparse file has no length");
                }
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or("a run of a sparse file has no place")?;
                self.add(Segment { offset, bytes: decimal(value)? })?;
            }
            b"map" => {
                if self.segments.is_some() {
                    return Err("a sparse file has two maps");
                }
                self.segments = Some(Vec::new());
                let mut numbers = value.split(|b| *b == b',').map(decimal);
                while let (Some(offset), bytes) = (numbers.next(), numbers.next()) {
                    let bytes = bytes.ok_or("a run of a sparse file has no length")?;
                    self.add(Segment { offset: offset?, bytes: bytes? })?;
                }
            }
            _ => return Err("a record of sparse files that no format has"),
        }
        Ok(())
    }

    fn add(&mut self, segment: Segment) -> Result<(), &'static str> {
        let segments = self.segments.get_or_insert_default();
        if segments.len() >= SEGMENTS_MAX {
            return Err("a sparse file has too many runs");
        }
        segments.push(segment);
        Ok(())
    }

    pub fn form(self) -> Result<Form, &'static str> {
        let size = self.size.ok_or("its size is not said")?;
        match (self.major.as_deref(), self.minor.as_deref(), self.segments) {
            (Some(b"1"), Some(b"0"), None) if self.blocks.is_none() && self.offset.is_none() => {
                Ok(Form::Ahead { size })
            }
            (None, None, Some(segments)) | (Some(b"0"), Some(b"0" | b"1"), Some(segments)) => {
                let counted = self.blocks.is_none_or(|blocks| blocks == segments.len() as u64);
                if self.offset.is_some() || !counted {
                    return Err("its map is not whole");
                }
                Ok(Form::Known(Sparse { size, segments }))
            }
            _ => Err("its format is not one of GNU tar's"),
        }
    }
}

/// The map of format 1.0: lines of decimal numbers, filled up to a block. `data` is that of the entry, and is left at its
/// first run.
pub fn read_ahead(mut data: impl Read) -> Result<Vec<Segment>, AheadError> {
    let mut lines = Lines { block: [0; BLOCK_BYTES as usize], at: BLOCK_BYTES as usize, from: &mut data };
    let count = lines.number()?;
    if count > SEGMENTS_MAX as u64 {
        return Err(AheadError::Map("a sparse file has too many runs"));
    }
    // The count is a claim: memory is for what comes.
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment { offset: lines.number()?, bytes: lines.number()? });
    }
    Ok(segments)
}

#[derive(Debug)]
pub enum AheadError {
    Map(&'static str),
    Read(std::io::Error),
}

struct Lines<'r, R> {
    block: [u8; BLOCK_BYTES as usize],
    at: usize,
    from: &'r mut R,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, AheadError> {
        let mut digits = Vec::with_capacity(NUMBER_MAX_BYTES);
        loop {
            if self.at == self.block.len() {
                self.from.read_exact(&mut self.block).map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => AheadError::Map("its map is not whole"),
                    _ => AheadError::Read(error),
                })?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return decimal(&digits).map_err(AheadError::Map);
            }
            digits.push(byte);
            if digits.len() >= NUMBER_MAX_BYTES {
                return Err(AheadError::Map("a number of its map is too long"));
            }
        }
    }
}

fn decimal(text: &[u8]) -> Result<u64, &'static str> {
    let wrong = "a number of a sparse file is malformed";
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(wrong)
}
