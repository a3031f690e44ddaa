//! The transmission phase of the NBD protocol, as far as the kernel speaks it (the NBD project's doc/proto.md).

pub(super) const REQUEST_BYTES: usize = 28;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// NBD_CMD_FLAG_FUA.
const FORCE_UNIT_ACCESS: u16 = 1;
/// NBD_EIO: the kernel tells no error from another.
const IO_ERROR: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write { durable: bool },
    Disconnect,
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub what: What,
    /// Comes back with the answer.
    pub cookie: [u8; 8],
    pub offset: u64,
    pub length: u32,
}

/// None for what the kernel was not told that this disk can do.
pub(super) fn request(bytes: &[u8; REQUEST_BYTES]) -> Option<Request> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (flags, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (cookie, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let length = rest.first_chunk()?;
    let durable = u16::from_be_bytes(*flags) & FORCE_UNIT_ACCESS != 0;
    let what = match u16::from_be_bytes(*kind) {
        0 => What::Read,
        1 => What::Write { durable },
        2 => What::Disconnect,
        3 => What::Flush,
        _ => return None,
    };
    let (offset, length) = (u64::from_be_bytes(*offset), u32::from_be_bytes(*length));
    (u32::from_be_bytes(*magic) == REQUEST_MAGIC).then_some(Request { what, cookie: *cookie, offset, length })
}

/// The answer's head; what was read follows it.
pub(super) fn reply(cookie: [u8; 8], well: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&if well { 0 } else { IO_ERROR }.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie);
    bytes
}
