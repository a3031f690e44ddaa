//! The protobuf wire: fields of a message, read where they lie. Nothing is allocated, lengths are checked before use.

use super::ProtobufError;

/// What a field carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of one message, in the order of the wire. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Payload<'a>), ProtobufError> {
        let key = varint(&mut self.rest)?;
        let payload = match (key & 7) as u8 {
            0 => Payload::Varint(varint(&mut self.rest)?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Payload::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| ProtobufError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Payload::Bytes(bytes)
            }
            5 => {
                let (_, rest) = self.rest.split_at_checked(4).ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Payload::Fixed32
            }
            other => return Err(ProtobufError::WireType(other)),
        };
        // Numbers past 2^29 do not exist; they would only fail to be found.
        Ok(((key >> 3).min(u64::from(u32::MAX)) as u32, payload))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Payload<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Numbers that stand one after the other.
pub(super) fn varints(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, ProtobufError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first().ok_or(ProtobufError::Truncated)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Varint)
}
