//! The CRI log format: a time, the stream, `F` for a full line or `P` for a part of one, and the text.
//!
//! `2026-01-02T03:04:05.000000006Z stdout F hello`

/// One record of a log file, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub time: &'a str,
    pub stderr: bool,
    /// The line goes on in the next record of this stream.
    pub partial: bool,
    pub text: &'a [u8],
}

/// `None` for what is no record; such lines are left out, as every reader of these files leaves them out.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tags = parts.next()?;
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Record { time, stderr, partial, text: parts.next().unwrap_or(b"") })
}

/// The text of as many records as there are, without times and streams.
pub fn plain_text(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in bytes.split(|b| *b == b'\n').filter_map(parse) {
        out.extend_from_slice(record.text);
        if !record.partial {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let record = parse(b"2026-01-02T03:04:05.1Z stderr P:x a b").unwrap();
        assert!(record.stderr && record.partial);
        assert_eq!(record.text, b"a b");
        assert_eq!(parse(b"2026 stdout F ").unwrap().text, b"");
        assert!(parse(b"garbage").is_none());
        assert_eq!(plain_text(b"t stdout P a\nt stdout F b\nbad\nt stdout F c\n"), b"ab\nc\n");
    }
}
