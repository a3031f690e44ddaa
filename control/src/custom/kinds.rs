use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use gantry_kube::openapi::Documents;
use gantry_kube::resource::{CUSTOM_RESOURCE_DEFINITION, version_order};
use gantry_kube::{Ref, Resource, Status};

use super::{Definition, Version};
use crate::store::{Cache, Revision};

/// All custom kinds that are served. Clones share it.
#[derive(Clone)]
pub struct Kinds {
    cache: Cache,
    table: Arc<ArcSwap<Table>>,
    documents: Arc<ArcSwapOption<Described>>,
}

/// The OpenAPI documents as of one revision of the definitions.
struct Described {
    revision: Revision,
    documents: Arc<Documents>,
}

/// What is served as of one revision of the definitions.
#[derive(Debug, Default)]
pub struct Table {
    revision: Revision,
    /// By `PLURAL.GROUP`, the name of the definition.
    kinds: BTreeMap<String, Arc<Definition>>,
}

/// One version of a custom kind with the kind that it is of.
#[derive(Clone, Debug)]
pub struct Custom {
    pub definition: Arc<Definition>,
    version: usize,
}

impl Deref for Custom {
    type Target = Version;

    fn deref(&self) -> &Version {
        &self.definition.versions[self.version]
    }
}

impl Kinds {
    pub fn new(cache: Cache) -> Kinds {
        Kinds { cache, table: Arc::default(), documents: Arc::default() }
    }

    /// What is served now.
    pub fn table(&self) -> Arc<Table> {
        let newest = self.cache.last_change(&CUSTOM_RESOURCE_DEFINITION);
        let table = self.table.load_full();
        if table.revision == newest {
            return table;
        }
        let made = Arc::new(self.made(newest, &table));
        self.table.store(made.clone());
        made
    }

    /// The OpenAPI documents of all kinds that are served now. Schemas are read again for them, as they are wanted seldom.
    pub fn documents(&self) -> Arc<Documents> {
        let table = self.table();
        if let Some(made) = self.documents.load_full().filter(|made| made.revision == table.revision) {
            return made.documents.clone();
        }
        let mut custom = Vec::new();
        for definition in table.definitions() {
            let stored = self.cache.get(&CUSTOM_RESOURCE_DEFINITION, &Ref::cluster(definition.name.as_str()));
            if let Some(stored) = stored {
                custom.extend(definition.described(&stored.object()));
            }
        }
        let documents = Arc::new(Documents::with(custom));
        self.documents.store(Some(Arc::new(Described { revision: table.revision, documents: documents.clone() })));
        documents
    }

    /// The table anew; definitions that have not changed are not compiled again.
    fn made(&self, revision: Revision, old: &Table) -> Table {
        let mut kinds = BTreeMap::new();
        for stored in self.cache.list(&CUSTOM_RESOURCE_DEFINITION, None).items {
            let name = stored.key().reference().name;
            let known = old.kinds.get(&name).filter(|known| known.revision == stored.revision());
            let definition = known.cloned().or_else(|| Definition::read(&stored).map(Arc::new));
            kinds.extend(definition.map(|definition| (name, definition)));
        }
        Table { revision, kinds }
    }

    /// The version of a custom kind that a resource stands for; none for a built-in kind, 404 where the kind has gone.
    pub fn of(&self, resource: &Resource) -> Result<Option<Custom>, Status> {
        if !resource.custom {
            return Ok(None);
        }
        let found = self.table().find(resource);
        found.map(Some).ok_or_else(|| Status::new(404, "NotFound", "the server could not find the requested resource"))
    }
}

impl Table {
    pub fn find(&self, resource: &Resource) -> Option<Custom> {
        self.by_plural(resource.group, resource.version, resource.plural)
    }

    /// A served version of a kind.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Custom> {
        let definition = self.kinds.get(&format!("{plural}.{group}"))?;
        let at = definition.versions.iter().position(|found| found.resource.version == version && found.served)?;
        Some(Custom { definition: definition.clone(), version: at })
    }

    /// Every served version of every kind, by group; of a group the preferred version first.
    pub fn served(&self) -> impl Iterator<Item = &Version> {
        let mut all: Vec<&Version> =
            self.kinds.values().flat_map(|kind| kind.versions.iter().filter(|version| version.served)).collect();
        all.sort_by(|a, b| order(a.resource, b.resource));
        all.into_iter()
    }

    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.kinds.values()
    }
}

fn order(a: &Resource, b: &Resource) -> Ordering {
    let versions = || version_order(a.version, b.version);
    a.group.cmp(b.group).then_with(versions).then_with(|| a.plural.cmp(b.plural))
}

impl Custom {
    /// Whether objects are stored as this version has them.
    pub fn is_stored(&self) -> bool {
        self.version == self.definition.stored
    }

    /// The version of the kind that an object says it is of.
    pub fn version_of(&self, api_version: &str) -> Option<Custom> {
        let versions = &self.definition.versions;
        let at = versions.iter().position(|version| version.resource.api_version() == api_version)?;
        Some(Custom { definition: self.definition.clone(), version: at })
    }
}
