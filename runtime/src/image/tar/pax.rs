//! PAX extended headers: records of `length key=value\n`, the length counting itself.

use std::collections::BTreeMap;

use super::super::tar::EXTENSION_MAX_BYTES;
use super::sparse;

const _: () = assert!(EXTENSION_MAX_BYTES <= 1 << 20, "records are held in memory");

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

#[derive(Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    /// The last of each name counts.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: sparse::Records,
}

impl Pax {
    pub fn parse(mut bytes: &[u8]) -> Result<Pax, &'static str> {
        let mut pax = Pax::default();
        while !bytes.is_empty() {
            let (record, rest) = split_record(bytes)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or("a record has no equals sign")?;
            pax.set(&record[..equals], &record[equals + 1..])?;
            bytes = rest;
        }
        Ok(pax)
    }

    /// Whether it says what a global header must not say for all entries to come.
    pub fn shapes_entries(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.sparse.any
            || !self.xattrs.is_empty()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = id(value)?,
            b"gid" => self.gid = id(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            _ => {
                if let Some(key) = key.strip_prefix(SPARSE) {
                    self.sparse.set(key, value)?;
                } else if let Some(attribute) = key.strip_prefix(XATTR) {
                    self.set_xattr(attribute, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, attribute: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if attribute.is_empty() || attribute.contains(&0) {
            return Err("an extended attribute's name is empty or holds a NUL");
        }
        self.xattrs.insert(attribute.to_vec(), value.to_vec());
        Ok(())
    }
}

fn split_record(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or("a record has no length")?;
    let length = number(&bytes[..space])?.and_then(|n| usize::try_from(n).ok()).ok_or("a record has no length")?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err("a record's length is wrong");
    }
    Ok((&bytes[space + 1..length - 1], &bytes[length..]))
}

/// An empty value takes back what a header said.
fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("a name holds a NUL");
    }
    Ok(if value.is_empty() { None } else { Some(value.to_vec()) })
}

fn number(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    value
        .iter()
        .try_fold(0_u64, |n, digit| match digit {
            b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .map(Some)
        .ok_or("a number is malformed")
}

fn id(value: &[u8]) -> Result<Option<u32>, &'static str> {
    number(value)?.map(u32::try_from).transpose().map_err(|_| "an id is out of range")
}

/// Decimal seconds with an optional fraction; a negative time's fraction counts downwards.
fn time(value: &[u8]) -> Result<(i64, u32), &'static str> {
    let wrong = "a time is malformed";
    let text = std::str::from_utf8(value).map_err(|_| wrong)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong);
    }
    let nanos =
        fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or(wrong)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_records() {
        let pax = Pax::parse(b"12 path=a/b\n11 size=42\n19 mtime=-1.25\n".as_slice());
        assert!(pax.is_err(), "the last length is wrong");
        let pax = Pax::parse(b"12 path=a/b\n11 size=42\n15 mtime=-1.25\n28 SCHILY.xattr.user.x=a\nb=\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"a/b".as_slice()));
        assert_eq!((pax.size, pax.mtime), (Some(42), Some((-2, 750_000_000))));
        assert_eq!(pax.xattrs, BTreeMap::from([(b"user.x".to_vec(), b"a\nb=".to_vec())]));
    }

    #[test]
    fn refuses_what_is_not_a_record() {
        for wrong in
            ["", " ", "x", "5 a=b", "6 a=b\nx", "99 a=b\n", "3 \n", "18446744073709551616 a=b\n", "13 size=1x2\n"]
        {
            assert!(wrong.is_empty() || Pax::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
