use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use gantry_kube::Ref;

/// Where an object is stored: `KIND/NAMESPACE/NAME`, or `KIND/NAME` for cluster-scoped kinds. KIND is the plural with its
/// group (`deployments.apps`). Names hold no slash (the API refuses them), so the parts are unambiguous.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(kind: &str, reference: &Ref) -> Key {
        let Ref { namespace, name } = reference;
        Key(if namespace.is_empty() { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") }.into())
    }

    /// A key from its text, where that has a kind and a name.
    pub fn parse(text: &str) -> Option<Key> {
        let mut parts = text.split('/');
        let whole = parts.next().is_some_and(|kind| !kind.is_empty())
            && parts.next().is_some_and(|part| !part.is_empty())
            && parts.next().is_none_or(|part| !part.is_empty())
            && parts.next().is_none();
        whole.then(|| Key(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first slash.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or("")
    }

    /// Namespace (empty for cluster-scoped kinds) and name.
    pub fn place(&self) -> (&str, &str) {
        let mut parts = self.0.splitn(3, '/').skip(1);
        match (parts.next(), parts.next()) {
            (Some(namespace), Some(name)) => (namespace, name),
            (Some(name), None) => ("", name),
            _ => ("", ""),
        }
    }

    pub fn reference(&self) -> Ref {
        let (namespace, name) = self.place();
        Ref::new(namespace, name)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_kind_and_place() {
        let pod = Key::new("pods", &Ref::new("a", "b"));
        assert_eq!((pod.as_str(), pod.kind(), pod.reference()), ("pods/a/b", "pods", Ref::new("a", "b")));
        let node = Key::new("nodes", &Ref::cluster("n"));
        assert_eq!((node.as_str(), node.kind(), node.reference()), ("nodes/n", "nodes", Ref::cluster("n")));
        assert_eq!(Key::parse("pods/a/b"), Some(pod));
        for bad in ["", "pods", "pods/", "/a", "pods//b", "pods/a/b/c"] {
            assert_eq!(Key::parse(bad), None, "{bad:?}");
        }
    }
}
