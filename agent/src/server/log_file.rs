//! Container logs in the CRI format: `TIME STREAM TAG CONTENT`, where tag P says that the line goes on in the next record.

use std::io::{Read, Seek, SeekFrom};

use jiff::Timestamp;

/// The runtime splits lines long before this; a longer record is cut here.
pub const RECORD_MAX_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// Which part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub follow: bool,
}

/// Turns records into what a reader sees. Pure: bytes in, bytes out.
#[derive(Debug)]
pub struct Render {
    timestamps: bool,
    since: Option<Timestamp>,
    left: Option<u64>,
    /// The record before was partial: this one goes on on the same line.
    midline: bool,
    pending: Vec<u8>,
}

/// One record's parts.
#[derive(Debug, PartialEq)]
struct Record<'a> {
    time: &'a [u8],
    partial: bool,
    content: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
    if !matches!(stream, b"stdout" | b"stderr") {
        return None;
    }
    Some(Record { time, partial: tag.starts_with(b"P"), content: fields.next().unwrap_or(b"") })
}

impl Render {
    pub fn new(wanted: &Wanted) -> Render {
        Render {
            timestamps: wanted.timestamps,
            since: wanted.since,
            left: wanted.limit_bytes,
            midline: false,
            pending: Vec::new(),
        }
    }

    /// Takes bytes of the file and appends what a reader sees of the whole records in them. True when the limit is reached.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            if self.pending.is_empty() {
                self.record(&bytes[..end], out);
            } else {
                let mut line = std::mem::take(&mut self.pending);
                line.extend_from_slice(&bytes[..end]);
                self.record(&line, out);
            }
            bytes = &bytes[end + 1..];
            if self.left == Some(0) {
                return true;
            }
        }
        let room = RECORD_MAX_BYTES.saturating_sub(self.pending.len());
        self.pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
        false
    }

    fn record(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = parse(line) else { return };
        if let Some(since) = self.since {
            let time = std::str::from_utf8(record.time).ok().and_then(|t| t.parse::<Timestamp>().ok());
            if time.is_none_or(|t| t < since) {
                return;
            }
        }
        let start = out.len();
        if self.timestamps && !self.midline {
            out.extend_from_slice(record.time);
            out.push(b' ');
        }
        out.extend_from_slice(record.content);
        if !record.partial {
            out.push(b'\n');
        }
        self.midline = record.partial;
        if let Some(left) = &mut self.left {
            let written = (out.len() - start) as u64;
            if written > *left {
                out.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left = left.saturating_sub(written);
        }
    }
}

/// Where the last `lines` lines of a file begin: read backwards, a chunk at a time.
pub fn tail_start(file: &mut (impl Read + Seek), lines: u64) -> std::io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let (mut end, mut seen) = (length, 0_u64);
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (i, byte) in part.iter().enumerate().rev() {
            let at = start + i as u64;
            // The newline that ends the file ends its last line; it begins none.
            if *byte == b'\n' && at + 1 < length {
                seen += 1;
                if seen == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const LOG: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n\
                       2026-01-01T00:00:01.000000001Z stderr P two \n\
                       2026-01-01T00:00:02.000000001Z stderr F and a half\n\
                       2026-01-01T00:00:03.000000001Z stdout F \n";

    fn render(wanted: &Wanted, step: usize) -> String {
        let (mut render, mut out) = (Render::new(wanted), Vec::new());
        for part in LOG.as_bytes().chunks(step) {
            if render.push(part, &mut out) {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn partial_records_are_one_line_however_the_bytes_arrive() {
        for step in [1, 3, 50, 1000] {
            assert_eq!(render(&Wanted::default(), step), "one\ntwo and a half\n\n");
        }
    }

    #[test]
    fn times_limits_and_since() {
        let stamped = render(&Wanted { timestamps: true, ..Wanted::default() }, 7);
        assert!(
            stamped.starts_with("2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:01.000000001Z two and a half\n")
        );
        assert_eq!(render(&Wanted { limit_bytes: Some(6), ..Wanted::default() }, 9), "one\ntw");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(render(&Wanted { since, ..Wanted::default() }, 9), "and a half\n\n");
    }

    #[test]
    fn the_tail_begins_at_a_line() {
        let mut file = Cursor::new(LOG.as_bytes());
        let from = |file: &mut Cursor<&[u8]>, n| usize::try_from(tail_start(file, n).unwrap()).unwrap();
        assert_eq!(from(&mut file, 0), LOG.len());
        assert!(LOG[from(&mut file, 1)..].contains(":03.") && !LOG[from(&mut file, 1)..].contains(":02."));
        assert_eq!(from(&mut file, 4), 0);
        assert_eq!(from(&mut file, 400), 0);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        let (mut render, mut out) = (Render::new(&Wanted::default()), Vec::new());
        render.push(b"garbage\n\n2026 stdout\n2026 stdout F ok\n", &mut out);
        assert_eq!(out, b"ok\n");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, tail in 0_u64..9) {
            let (mut render, mut out) = (Render::new(&Wanted { limit_bytes: Some(10), ..Wanted::default() }), Vec::new());
            render.push(&bytes, &mut out);
            proptest::prop_assert!(out.len() <= 10);
            let start = tail_start(&mut Cursor::new(&bytes), tail).unwrap();
            proptest::prop_assert!(start <= bytes.len() as u64);
        }
    }
}
