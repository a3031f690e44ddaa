//! One record of the log: a key and what a write made of it, under a checksum that also covers its place.
//!
//! ```text
//! crc32 (4, little endian) │ kind (1: 0 put, 1 delete) │ key length (2, little endian) │ key │ value
//! ```

use bytes::Bytes;

use crate::store::{Key, Revision, StoreError, WRITE_MAX_OPS};

/// Where a record stands: the revision of its write, and its number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub revision: Revision,
    pub number: u8,
}

const NUMBER_BITS: u32 = 7;
const HEADER_BYTES: usize = 7;
const PUT: u8 = 0;
const DELETE: u8 = 1;
const _: () = assert!(WRITE_MAX_OPS <= 1 << NUMBER_BITS);

impl Place {
    pub fn new(revision: Revision, number: usize) -> Place {
        Place { revision, number: number as u8 }
    }

    /// The place as the log's key: in the order of revisions.
    pub fn packed(self) -> u64 {
        self.revision << NUMBER_BITS | u64::from(self.number)
    }

    pub fn unpack(packed: u64) -> Place {
        Place { revision: packed >> NUMBER_BITS, number: (packed & ((1 << NUMBER_BITS) - 1)) as u8 }
    }
}

/// A record's content; without a value it is a deletion.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: &'a str,
    pub value: Option<&'a [u8]>,
}

fn checksum(place: Place, body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.packed().to_le_bytes());
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

/// Writes the record into `out`, which is cleared first. Keys are bounded by the API far below 64 KiB.
pub fn encode(out: &mut Vec<u8>, place: Place, key: &Key, value: Option<&Bytes>) {
    let key = key.as_str().as_bytes();
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.push(if value.is_some() { PUT } else { DELETE });
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.map_or(&[], |value| value));
    let crc = checksum(place, &out[4..]);
    out[..4].copy_from_slice(&crc);
}

/// Reads a record, and fails naming it where it is not what was written.
pub fn decode(place: Place, bytes: &[u8]) -> Result<Record<'_>, StoreError> {
    let key_text = |bytes: &[u8]| {
        let length = bytes.get(5..HEADER_BYTES).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
        let key = bytes.get(HEADER_BYTES..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
        String::from_utf8_lossy(key).into_owned()
    };
    let damaged = |why| StoreError::Damaged { revision: place.revision, key: key_text(bytes), why };
    if bytes.len() < HEADER_BYTES {
        return Err(damaged("the record is cut short"));
    }
    if checksum(place, &bytes[4..]) != bytes[..4] {
        return Err(damaged("its checksum does not match"));
    }
    let length = usize::from(u16::from_le_bytes([bytes[5], bytes[6]]));
    let (Some(key), Some(value)) = (bytes.get(HEADER_BYTES..HEADER_BYTES + length), bytes.get(HEADER_BYTES + length..))
    else {
        return Err(damaged("the record is cut short"));
    };
    let key = std::str::from_utf8(key).map_err(|_| damaged("its key is not text"))?;
    match bytes[4] {
        PUT => Ok(Record { key, value: Some(value) }),
        DELETE => Ok(Record { key, value: None }),
        _ => Err(damaged("it is of an unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_found() {
        let (place, key) = (Place::new(77, 3), Key::parse("pods/a/b").unwrap());
        assert_eq!(Place::unpack(place.packed()), place);
        let mut bytes = Vec::new();
        encode(&mut bytes, place, &key, Some(&Bytes::from("{}")));
        assert_eq!(decode(place, &bytes).unwrap(), Record { key: "pods/a/b", value: Some(b"{}") });
        assert!(decode(Place::new(78, 3), &bytes).is_err(), "a record in another's place");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(place, &bad).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(place, &bytes[..length]).is_err(), "length {length}");
        }
    }
}
