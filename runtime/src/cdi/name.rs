//! Names of CDI devices, `VENDOR/CLASS=NAME`, and how a container asks for them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use gantry_cri::v1;

use super::CdiError;

/// Annotations that start so ask for devices, separated by commas.
pub const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";
/// What one container may ask for.
pub const DEVICES_MAX: usize = 512;
/// What a vendor's, a class's or a device's own name may take: a vendor's is a name of DNS.
const PART_MAX_BYTES: usize = 253;
const NAME_MAX_BYTES: usize = 1024;

const _: () = assert!(3 * PART_MAX_BYTES + "/=".len() <= NAME_MAX_BYTES);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `VENDOR/CLASS`
    pub kind: String,
    pub device: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl Name {
    pub fn parse(text: &str) -> Result<Name, CdiError> {
        let bad = |why| CdiError::Name { name: text.chars().take(NAME_MAX_BYTES).collect(), why };
        if text.len() > NAME_MAX_BYTES {
            return Err(bad("it is too long"));
        }
        let (kind, device) = text.split_once('=').ok_or_else(|| bad("it has no ="))?;
        check_kind(kind).map_err(bad)?;
        check_device(device).map_err(bad)?;
        Ok(Name { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// The parts before the `=`.
pub fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("it has no / before the =")?;
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    if vendor.len() > PART_MAX_BYTES || class.len() > PART_MAX_BYTES {
        return Err("its vendor or its class is too long");
    }
    if !plain(vendor) {
        return Err("its vendor is not letters, digits, _, - and ., from a letter to a letter or digit");
    }
    if !plain(class) {
        return Err("its class is not letters, digits, _, - and ., from a letter to a letter or digit");
    }
    Ok(())
}

pub fn check_device(device: &str) -> Result<(), &'static str> {
    if device.len() > PART_MAX_BYTES {
        return Err("its name is too long");
    }
    let at_end = |c: char| c.is_ascii_alphanumeric();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    if device.starts_with(at_end) && device.ends_with(at_end) && device.chars().all(plain) {
        return Ok(());
    }
    Err("its name is not letters, digits, _, -, . and :, from a letter or digit to another")
}

/// What a container asks for, by CRI's own field and then by annotations in the order of their keys, each device once.
pub fn wanted(config: &v1::ContainerConfig) -> Result<Vec<Name>, CdiError> {
    let fields = config.cdi_devices.iter().map(|device| device.name.as_str());
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for text in fields.chain(annotated(&config.annotations)) {
        let name = Name::parse(text)?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
        if names.len() > DEVICES_MAX {
            return Err(CdiError::TooMany { what: "devices", count: names.len(), most: DEVICES_MAX });
        }
    }
    Ok(names)
}

fn annotated(annotations: &HashMap<String, String>) -> impl Iterator<Item = &str> {
    let mut asking: Vec<_> = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect();
    asking.sort();
    asking.into_iter().flat_map(|(_, value)| value.split(','))
}
