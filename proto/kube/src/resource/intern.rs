//! Custom kinds as [`Resource`]s that live as long as the program, so that they go wherever built-in ones go.
//!
//! What is kept is names alone, some hundred bytes a version of a kind; of the same names there is one, however often a
//! definition is changed, deleted and made again. Schemas are much larger, and live and end with their definition.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Resource;

/// The names of one version of a custom kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
}

static INTERNED: Mutex<BTreeMap<Names, &'static Resource>> = Mutex::new(BTreeMap::new());

/// The resource of these names: the same one each time.
pub fn intern(names: &Names) -> &'static Resource {
    let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(resource) = interned.get(names) {
        return resource;
    }
    let resource: &'static Resource = Box::leak(Box::new(Resource {
        group: text(&names.group),
        version: text(&names.version),
        kind: text(&names.kind),
        plural: text(&names.plural),
        singular: text(&names.singular),
        namespaced: names.namespaced,
        short_names: texts(&names.short_names),
        categories: texts(&names.categories),
        virtual_only: false,
        custom: true,
    }));
    interned.insert(names.clone(), resource);
    resource
}

fn text(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

fn texts(names: &[String]) -> &'static [&'static str] {
    Box::leak(names.iter().map(|name| text(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_are_the_same_resource() {
        let names = Names {
            group: "example.com".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            plural: "widgets".into(),
            singular: "widget".into(),
            namespaced: true,
            short_names: vec!["wd".into()],
            categories: vec![],
        };
        let first = intern(&names);
        assert!(std::ptr::eq(first, intern(&names)));
        assert_eq!((first.qualified().as_str(), first.short_names), ("widgets.example.com", &["wd"][..]));
        let other = intern(&Names { version: "v2".into(), ..names });
        assert_ne!(first, other);
    }
}
