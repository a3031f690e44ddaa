use bytes::Bytes;

use crate::store::Key;

/// What Gantry's keys in etcd are called: everything is below one prefix, objects in a folder of their own.
///
/// ```text
/// PREFIX/registry/KIND/NAMESPACE/NAME   an object
/// PREFIX/store/origin                   what turns etcd's revisions into the store's
/// PREFIX/store/progress                 written where nothing else tells a watch how far it has come
/// ```
#[derive(Clone, Debug)]
pub struct Names {
    /// Without a slash at its end.
    prefix: String,
}

/// A range of keys: from the first to before the second.
pub type Range = (Bytes, Bytes);

impl Names {
    pub fn below(prefix: &str) -> Names {
        Names { prefix: format!("/{}", prefix.trim_matches('/')) }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Everything of Gantry's.
    pub fn whole(&self) -> Range {
        let start = format!("{}/", self.prefix);
        (start.clone().into(), after_prefix(start.as_bytes()))
    }

    pub fn object(&self, key: &Key) -> Bytes {
        format!("{}/registry/{key}", self.prefix).into()
    }

    /// The objects whose keys begin with `prefix` and come after `after`.
    pub fn objects(&self, prefix: &str, after: &str) -> Range {
        let first = format!("{}/registry/{prefix}", self.prefix);
        let end = after_prefix(first.as_bytes());
        // The smallest key after a key is that key and a zero.
        let start = if after < prefix { first } else { format!("{}/registry/{after}\0", self.prefix) };
        (start.into(), end)
    }

    pub fn origin(&self) -> Bytes {
        format!("{}/store/origin", self.prefix).into()
    }

    pub fn progress(&self) -> Bytes {
        format!("{}/store/progress", self.prefix).into()
    }

    /// The text of an object's key; absent for what is no object of ours.
    pub fn text<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        raw.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"/registry/")
    }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end.into();
        }
    }
    // etcd's word for no end.
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_so_and_nothing_else() {
        let names = Names::below("gantry/");
        assert_eq!(names.prefix(), "/gantry");
        let key = Key::parse("pods/a/b").unwrap();
        assert_eq!(names.object(&key), "/gantry/registry/pods/a/b");
        assert_eq!(names.text(&names.object(&key)), Some(&b"pods/a/b"[..]));
        assert_eq!(names.text(&names.origin()), None);
        assert_eq!(names.text(b"/gantryregistry/pods/a"), None);
        let (start, end) = names.objects("pods/a/", "");
        assert_eq!((&*start, &*end), (&b"/gantry/registry/pods/a/"[..], &b"/gantry/registry/pods/a0"[..]));
        let (start, _) = names.objects("pods/a/", "pods/a/b");
        assert_eq!(start, "/gantry/registry/pods/a/b\0");
        let (start, end) = names.whole();
        for own in [names.object(&key), names.origin(), names.progress()] {
            assert!(start <= own && own < end, "{own:?}");
        }
        assert_eq!(after_prefix(b"a\xff"), "b");
        assert_eq!(after_prefix(b"\xff"), "\0");
    }
}
