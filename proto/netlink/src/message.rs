//! Netlink messages as bytes: written in place, read as slices. What reads is public and pure: a seat for fuzzing.

/// struct nlmsghdr.
pub(crate) const HEADER_BYTES: usize = 16;
/// The type field of an attribute without its flags.
const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_DUMP: u16 = 0x300;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// Messages, one behind the other, as they go out in one datagram.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a message: netlink header, then the family's own header. Close it with [`Writer::end`].
    pub fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
        at
    }

    pub fn end(&mut self, at: usize) {
        let length = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Numbers the message that begins at `at`.
    pub fn set_sequence(&mut self, at: usize, sequence: u32) {
        self.bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// How long the message that begins at `at` is, to the next one.
    pub fn length_at(&self, at: usize) -> usize {
        u32_at(&self.bytes, at).unwrap_or(u32::MAX).max(HEADER_BYTES as u32) as usize
    }

    pub fn add_flags(&mut self, at: usize, flags: u16) {
        let flags = flags | u16::from_ne_bytes([self.bytes[at + 6], self.bytes[at + 7]]);
        self.bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// A fixed struct in the middle of attributes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub fn put_str(&mut self, kind: u16, value: &str) {
        self.bytes.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub fn put_u32_be(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn put_u64_be(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let at = self.bytes.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// One message of a datagram.
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// The messages of one datagram; stops at the first that does not parse, with `None` inside.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((length, message)) = message(bytes) else {
            bytes = &[];
            return Some(None);
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Some(message))
    })
}

fn message(bytes: &[u8]) -> Option<(usize, Message<'_>)> {
    let length = u32_at(bytes, 0)? as usize;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        payload: bytes.get(HEADER_BYTES..length)?,
    };
    Some((length, message))
}

/// The attributes of a message or of a nest: kind without flags, and value. Ends at the first that does not parse.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

pub(crate) fn be_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub(crate) fn be_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

pub(crate) fn be_u16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

pub(crate) fn ne_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        let at = writer.begin(7, 0, &[1, 2, 3, 4]);
        writer.put_str(1, "name");
        writer.nest(2, |w| w.put_u32_be(3, 9));
        writer.end(at);
        writer.set_sequence(at, 5);
        let all: Vec<_> = messages(writer.as_slice()).map(Option::unwrap).collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 7, 5));
        let body = &all[0].payload[4..];
        assert_eq!(text(attribute(body, 1).unwrap()), "name");
        assert_eq!(be_u32(attribute(attribute(body, 2).unwrap(), 3).unwrap()), Some(9));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            for message in messages(&bytes).flatten() {
                for (_, value) in attributes(message.payload) {
                    attributes(value).count();
                }
            }
        }
    }
}
