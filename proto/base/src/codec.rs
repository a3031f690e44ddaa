//! Length-prefixed little-endian values, and how a struct of them is written and read.

use crate::id::{Id, IdError};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("ends after {have} bytes where {want} more were promised")]
    Short { have: usize, want: usize },
    #[error("holds text that is not utf-8")]
    Text,
    #[error("has unknown tag {0}")]
    Tag(u32),
    #[error("speaks version {0}")]
    Version(u32),
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Something with one encoding.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError>;
}

pub fn bytes(from: &mut &[u8], want: usize) -> Result<Vec<u8>, DecodeError> {
    if from.len() < want {
        return Err(DecodeError::Short { have: from.len(), want });
    }
    let (head, rest) = from.split_at(want);
    *from = rest;
    Ok(head.to_vec())
}

macro_rules! number {
    ($($ty:ty),*) => {$(
        impl Wire for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
                const SIZE: usize = std::mem::size_of::<$ty>();
                match from.split_first_chunk::<SIZE>() {
                    Some((head, rest)) => {
                        *from = rest;
                        Ok(<$ty>::from_le_bytes(*head))
                    }
                    None => Err(DecodeError::Short { have: from.len(), want: SIZE }),
                }
            }
        }
    )*};
}
number!(u8, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(u8::take(from)? != 0)
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let size = u32::take(from)? as usize;
        String::from_utf8(bytes(from, size)?).map_err(|_| DecodeError::Text)
    }
}

impl Wire for Id {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_str().to_owned().put(out);
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Id::parse(&String::take(from)?)?)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for item in self {
            item.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let count = u32::take(from)? as usize;
        // Every item takes at least a byte, so a lying count cannot make us reserve more than was received.
        let mut items = Vec::with_capacity(count.min(from.len()));
        for _ in 0..count {
            items.push(T::take(from)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(item) = self {
            item.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// A field that was appended to a struct whose values lie in files: one that was written before ends early, and has the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended<T>(pub T);

impl<T: Wire + Default> Wire for Appended<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        if from.is_empty() { Ok(Appended::default()) } else { T::take(from).map(Appended) }
    }
}

/// Writes [`Wire`] for a struct: its fields in the order given.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::codec::Wire::put(&self.$field, out);)*
            }
            fn take(from: &mut &[u8]) -> Result<Self, $crate::DecodeError> {
                Ok($name { $($field: <$ty as $crate::codec::Wire>::take(from)?,)* })
            }
        }
    };
}

/// Writes [`Wire`] for an enum: a tag, then the fields of that variant.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $tag:literal => $variant:ident { $($field:ident: $ty:ty),* },)* }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$vmeta])* $variant { $($field: $ty),* },)* }
        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant { $($field),* } => {
                        $crate::codec::Wire::put(&($tag as u32), out);
                        $($crate::codec::Wire::put($field, out);)*
                    })*
                }
            }
            fn take(from: &mut &[u8]) -> Result<Self, $crate::DecodeError> {
                match <u32 as $crate::codec::Wire>::take(from)? {
                    $($tag => Ok($name::$variant { $($field: <$ty as $crate::codec::Wire>::take(from)?),* }),)*
                    other => Err($crate::DecodeError::Tag(other)),
                }
            }
        }
    };
}
