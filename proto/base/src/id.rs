use std::fmt;

/// The name of a sandbox, a container or an exec: 1 to 64 of `[a-z0-9]`, so that it is a file name and a cgroup name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    #[error("id is empty")]
    Empty,
    #[error("id has {0} characters, at most 64 are allowed")]
    TooLong(usize),
    #[error("id {0:?} has a character outside a-z and 0-9")]
    Character(String),
}

pub const ID_MAX_CHARS: usize = 64;

impl Id {
    pub fn parse(text: &str) -> Result<Id, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > ID_MAX_CHARS {
            return Err(IdError::TooLong(text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(IdError::Character(text.to_owned()));
        }
        Ok(Id(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_file_name() {
        assert!(Id::parse("0af3").is_ok());
        assert_eq!(Id::parse(""), Err(IdError::Empty));
        assert!(matches!(Id::parse("../x"), Err(IdError::Character(_))));
        assert_eq!(Id::parse(&"a".repeat(65)), Err(IdError::TooLong(65)));
    }
}
