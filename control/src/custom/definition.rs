use std::sync::Arc;

use gantry_kube::custom::columns::Column;
use gantry_kube::custom::scale::ScalePaths;
use gantry_kube::custom::{Rules, Structural};
use gantry_kube::openapi::CustomVersion;
use gantry_kube::resource::{Names, intern};
use gantry_kube::{Object, Resource};
use serde_json::Value;

use super::conversion::Conversion;
use crate::store::{Revision, Stored};

const ESTABLISHED: &str = "Established";
pub const TERMINATING: &str = "Terminating";

/// A CustomResourceDefinition whose names are accepted, compiled.
#[derive(Debug)]
pub struct Definition {
    /// `widgets.example.com`.
    pub name: String,
    pub uid: String,
    /// Which version of the definition this is.
    pub revision: Revision,
    /// As the definition lists them.
    pub versions: Vec<Version>,
    /// Which of them is stored.
    pub stored: usize,
    pub conversion: Conversion,
    /// It is being deleted: nothing new is made of it.
    pub terminating: bool,
}

/// One version of a custom kind.
#[derive(Debug)]
pub struct Version {
    pub resource: &'static Resource,
    pub served: bool,
    /// What whoever asks for this version is warned of.
    pub warning: Option<String>,
    pub schema: Structural,
    pub rules: Rules,
    pub columns: Vec<Column>,
    /// `spec.color`: what a field selector may name.
    pub selectable: Vec<String>,
    /// `status` is written through its subresource only.
    pub status: bool,
    pub scale: Option<ScalePaths>,
}

impl Definition {
    /// What the stored definition brings; nothing while it is not established.
    pub fn read(stored: &Stored) -> Option<Definition> {
        let object = stored.object();
        if !is_true(&object, ESTABLISHED) {
            return None;
        }
        let versions: Vec<Version> =
            object.array_at("/spec/versions").iter().filter_map(|version| Version::read(&object, version)).collect();
        let stored_version = object.array_at("/spec/versions").iter().find(|version| version["storage"] == true)?;
        Some(Definition {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            revision: stored.revision(),
            stored: versions.iter().position(|version| stored_version["name"] == version.resource.version)?,
            conversion: Conversion::read(&object),
            terminating: is_true(&object, TERMINATING),
            versions,
        })
    }

    /// What the OpenAPI documents say of its served versions.
    pub fn described(&self, definition: &Object) -> Vec<CustomVersion> {
        let schema = |name: &str| {
            let versions = definition.array_at("/spec/versions");
            let version = versions.iter().find(|version| version["name"] == name);
            version.map(|version| version["schema"]["openAPIV3Schema"].clone()).unwrap_or_default()
        };
        let served = self.versions.iter().filter(|version| version.served);
        let described = served.map(|version| CustomVersion {
            group: version.resource.group.to_owned(),
            version: version.resource.version.to_owned(),
            kind: version.resource.kind.to_owned(),
            list_kind: format!("{}List", version.resource.kind),
            plural: version.resource.plural.to_owned(),
            namespaced: version.resource.namespaced,
            schema: Arc::new(schema(version.resource.version)),
            status: version.status,
            scale: version.scale.is_some(),
            selectable: version.selectable.iter().map(|path| format!(".{path}")).collect(),
        });
        described.collect()
    }

    pub fn stored_version(&self) -> &Version {
        &self.versions[self.stored]
    }
}

/// The names of the versions that an established definition serves.
pub fn names_of(definition: &Object) -> impl Iterator<Item = Names> {
    let versions = definition.array_at("/spec/versions").iter().filter(|version| version["served"] == true);
    versions.filter(|_| is_true(definition, ESTABLISHED)).filter_map(|version| names(definition, version))
}

/// Whether a condition of the definition holds.
fn is_true(definition: &Object, condition: &str) -> bool {
    let conditions = definition.array_at("/status/conditions");
    conditions.iter().any(|found| found["type"] == condition && found["status"] == "True")
}

/// The names under which a version is served: those that were accepted.
fn names(definition: &Object, version: &Value) -> Option<Names> {
    let accepted = definition.get("/status/acceptedNames")?;
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    Some(Names {
        group: definition.str_at("/spec/group").to_owned(),
        version: text(&version["name"]),
        kind: text(&accepted["kind"]),
        plural: text(&accepted["plural"]),
        singular: text(&accepted["singular"]),
        namespaced: definition.str_at("/spec/scope") == "Namespaced",
        short_names: texts(&accepted["shortNames"]),
        categories: texts(&accepted["categories"]),
    })
}

impl Version {
    fn read(definition: &Object, version: &Value) -> Option<Version> {
        let resource = intern(&names(definition, version)?);
        let whole = version["schema"]["openAPIV3Schema"].as_object().cloned().unwrap_or_default();
        // It was checked when the definition was written; of one that an older server let in, nothing is served.
        let schema = Structural::compile(&Value::Object(whole)).ok()?;
        let own_warning = version["deprecationWarning"].as_str().map(str::to_owned);
        let warning = || format!("{} {} is deprecated", resource.api_version(), resource.kind);
        let subresources = &version["subresources"];
        let paths = version["selectableFields"].as_array().into_iter().flatten();
        Some(Version {
            resource,
            served: version["served"] == true,
            warning: (version["deprecated"] == true).then(|| own_warning.unwrap_or_else(warning)),
            rules: Rules::compile(&schema),
            schema,
            columns: Column::all(version["additionalPrinterColumns"].as_array().map_or(&[], Vec::as_slice)),
            selectable: paths
                .filter_map(|field| field["jsonPath"].as_str())
                .map(|path| path.trim_start_matches('.').to_owned())
                .collect(),
            status: subresources.get("status").is_some_and(|status| !status.is_null()),
            scale: ScalePaths::of(subresources),
        })
    }
}
