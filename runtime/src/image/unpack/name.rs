//! Names of entries, checked without touching a disk.

use std::fmt;

/// The kernel's PATH_MAX, with its closing NUL.
pub const PATH_MAX_BYTES: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    #[error("entry name {0:?} leads out of its folder")]
    Escapes(String),
    #[error("entry name {0:?} holds a NUL")]
    Nul(String),
    #[error("entry name {0:?} is too long")]
    TooLong(String),
    #[error("entry name {0:?} hides no file that could exist")]
    Whiteout(String),
}

/// A path below the root: components joined by single slashes, none of them empty, `.` or `..`. The root is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn root() -> Name {
        Name::default()
    }

    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The folder and the last component; none for the root.
    pub fn split_last(&self) -> Option<(Name, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (Name(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Name::root(), &self.0),
        })
    }

    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    pub(super) fn from_components<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Name {
        Name(parts.collect::<Vec<_>>().join(&b'/'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

/// An absolute name counts from the layer's root, as every unpacker of images has it.
pub fn parse_name(path: &[u8]) -> Result<Name, NameError> {
    let shown = || String::from_utf8_lossy(path).chars().take(300).collect::<String>();
    if path.len() >= PATH_MAX_BYTES {
        return Err(NameError::TooLong(shown()));
    }
    if path.contains(&0) {
        return Err(NameError::Nul(shown()));
    }
    let parts = || path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    if parts().any(|part| part == b"..") {
        return Err(NameError::Escapes(shown()));
    }
    Ok(Name::from_components(parts()))
}

/// What a last component means in a layer (OCI image spec, layer.md#whiteouts).
#[derive(Debug, PartialEq, Eq)]
pub enum Whiteout<'a> {
    None,
    /// Hides this name of the folder in the layers below.
    Of(&'a [u8]),
    /// Hides all that the layers below have in the folder.
    Opaque,
    /// Bookkeeping of AUFS, which means nothing here.
    Skip,
}

pub fn whiteout(last: &[u8]) -> Result<Whiteout<'_>, NameError> {
    if last == WHITEOUT_OPAQUE {
        return Ok(Whiteout::Opaque);
    }
    if last.starts_with(WHITEOUT_META) {
        return Ok(Whiteout::Skip);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Whiteout::None),
        Some(b"" | b"." | b"..") => Err(NameError::Whiteout(String::from_utf8_lossy(last).into_owned())),
        Some(hidden) => Ok(Whiteout::Of(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below() {
        assert_eq!(parse_name(b"./usr//bin/./x/").unwrap().bytes(), b"usr/bin/x");
        assert_eq!(parse_name(b"/etc/passwd").unwrap().bytes(), b"etc/passwd");
        assert!(parse_name(b"./").unwrap().is_root());
        for wrong in ["..", "a/..", "../../etc/shadow", "/..", "a/../b"] {
            assert!(matches!(parse_name(wrong.as_bytes()), Err(NameError::Escapes(_))), "{wrong}");
        }
        assert!(parse_name(b"..a/b..").is_ok());
        assert!(parse_name(&vec![b'a'; 5000]).is_err());
        assert!(parse_name(b"a\0b").is_err());
    }

    #[test]
    fn whiteouts_name_one_file() {
        assert_eq!(whiteout(b".wh.x"), Ok(Whiteout::Of(b"x")));
        assert_eq!(whiteout(b".wh..wh..opq"), Ok(Whiteout::Opaque));
        assert_eq!(whiteout(b".wh..wh.plnk"), Ok(Whiteout::Skip));
        assert_eq!(whiteout(b".whx"), Ok(Whiteout::None));
        for wrong in [b".wh.".as_slice(), b".wh..", b".wh..."] {
            assert!(whiteout(wrong).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_never_holds_a_step_up(path in proptest::collection::vec(proptest::sample::select(vec![b'a', b'.', b'/', 0]), 0..40)) {
            if let Ok(name) = parse_name(&path) {
                proptest::prop_assert!(name.components().all(|part| part != b".." && part != b"." && !part.contains(&0)));
                proptest::prop_assert_eq!(parse_name(name.bytes()).unwrap(), name);
            }
        }
    }
}
