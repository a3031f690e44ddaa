//! The configuration of encryption: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`, as kube-apiserver reads it.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::rules::{AesKey, Kinds, Provider, Rule, Rules};

const FILE_MAX_BYTES: u64 = 1 << 20;
const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} cannot be read", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} has more than {FILE_MAX_BYTES} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    #[error("this is not YAML: {0}")]
    Yaml(String),
    #[error("{field}: {why}")]
    Field { field: String, why: String },
}

fn bad(field: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), why: why.into() }
}

pub fn read(path: &Path) -> Result<Rules, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    parse(&text)
}

pub fn parse(text: &str) -> Result<Rules, ConfigError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| ConfigError::Yaml(error.to_string()))?;
    let top = fields(&value, "", &["apiVersion", "kind", "resources"])?;
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if top.get(field).and_then(Value::as_str) != Some(wanted) {
            return Err(bad(field, format!("it is to be {wanted}")));
        }
    }
    let rules = list(top.get("resources"), "resources")?;
    let rules = rules.iter().enumerate().map(|(n, value)| rule(value, &format!("resources[{n}]")));
    Ok(Rules(rules.collect::<Result<_, _>>()?))
}

fn rule(value: &Value, at: &str) -> Result<Rule, ConfigError> {
    let value = fields(value, at, &["resources", "providers"])?;
    let field = format!("{at}.resources");
    let mut kinds = Vec::new();
    for (n, name) in list(value.get("resources"), &field)?.iter().enumerate() {
        let named = kinds_of(name, &format!("{field}[{n}]"))?;
        if kinds.contains(&named) {
            return Err(bad(format!("{field}[{n}]"), "it is named twice"));
        }
        kinds.push(named);
    }
    let field = format!("{at}.providers");
    let providers = list(value.get("providers"), &field)?;
    let providers = providers.iter().enumerate().map(|(n, value)| provider(value, &format!("{field}[{n}]")));
    Ok(Rule { kinds, providers: providers.collect::<Result<_, _>>()? })
}

fn kinds_of(name: &Value, at: &str) -> Result<Kinds, ConfigError> {
    let name = name.as_str().unwrap_or("");
    match name.strip_prefix("*.") {
        Some("*") => Ok(Kinds::All),
        Some(group) if !group.contains('*') => Ok(Kinds::Group(group.to_owned())),
        None if !name.is_empty() && !name.contains(['*', '/']) && name == name.to_lowercase() => {
            Ok(Kinds::One(name.to_owned()))
        }
        _ => {
            Err(bad(at, format!("{name:?} is no resource: secrets, deployments.apps, *.apps, *. and *.* are possible")))
        }
    }
}

fn provider(value: &Value, at: &str) -> Result<Provider, ConfigError> {
    let value = value.as_object().filter(|value| value.len() == 1);
    let Some((name, value)) = value.and_then(|value| value.iter().next()) else {
        return Err(bad(at, "it is to name one provider"));
    };
    let at = format!("{at}.{name}");
    match name.as_str() {
        "identity" => {
            fields(value, &at, &[])?;
            Ok(Provider::Identity)
        }
        "aesgcm" => {
            let field = format!("{at}.keys");
            let keys = list(fields(value, &at, &["keys"])?.get("keys"), &field)?;
            let mut names = BTreeSet::new();
            let keys = keys.iter().enumerate().map(|(n, value)| key(value, &format!("{field}[{n}]"), &mut names));
            Ok(Provider::AesGcm(keys.collect::<Result<_, _>>()?))
        }
        "aescbc" | "secretbox" | "kms" => {
            Err(bad(at, "this provider is not offered: aesgcm encrypts, identity does not"))
        }
        _ => Err(bad(at, "there is no such provider: aesgcm encrypts, identity does not")),
    }
}

fn key(value: &Value, at: &str, names: &mut BTreeSet<String>) -> Result<AesKey, ConfigError> {
    let value = fields(value, at, &["name", "secret"])?;
    let name = value.get("name").and_then(Value::as_str).unwrap_or("");
    if name.is_empty() || name.contains(':') {
        return Err(bad(format!("{at}.name"), format!("{name:?} is no name: it has a letter at least, and no colon")));
    }
    if !names.insert(name.to_owned()) {
        return Err(bad(format!("{at}.name"), format!("two keys are called {name:?}")));
    }
    let secret = value.get("secret").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    // The secret itself is in no message.
    let secret = secret.ok_or_else(|| bad(format!("{at}.secret"), "it is not base64"))?;
    AesKey::new(name, &secret).ok_or_else(|| {
        bad(format!("{at}.secret"), format!("a key has 16, 24 or 32 bytes, this one has {}", secret.len()))
    })
}

fn fields<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>, ConfigError> {
    let value = value.as_object().ok_or_else(|| bad(at, "it is to be a map"))?;
    match value.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) if at.is_empty() => Err(bad(name, "there is no such field")),
        Some(name) => Err(bad(format!("{at}.{name}"), "there is no such field")),
        None => Ok(value),
    }
}

fn list<'a>(value: Option<&'a Value>, at: &str) -> Result<&'a [Value], ConfigError> {
    let found = value.and_then(Value::as_array).filter(|found| !found.is_empty());
    found.map(Vec::as_slice).ok_or_else(|| bad(at, "at least one is needed"))
}
