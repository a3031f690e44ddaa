//! The environment of a container, from its spec, its pod, and the objects that it names.
//!
//! Later entries win over earlier ones, `env` over `envFrom`, and both over the variables of services. `$(NAME)` is
//! replaced by what was defined before it; `$$` stands for one `$`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use gantry_kube::Object;
use gantry_kube::pod::resources::{Amounts, quantity};
use serde_json::Value;

/// Why a container's configuration cannot be made; shown as CreateContainerConfigError.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("container {container} of resourceFieldRef is not in the pod")]
    Container { container: String },
    #[error("env {name}: {source_kind} is not supported")]
    Source { name: String, source_kind: String },
}

/// What the environment may draw on.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps and Secrets of the pod's namespace, as far as they exist.
    pub config_maps: BTreeMap<String, Object>,
    pub secrets: BTreeMap<String, Object>,
    pub facts: PodFacts,
    /// `FOO_SERVICE_HOST` and the like.
    pub services: BTreeMap<String, String>,
}

/// What a pod may be told of itself once it has a place.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub host_ip: String,
    pub pod_ips: Vec<String>,
    /// What a container without limits may use.
    pub node_allocatable: Amounts,
}

/// The names of the ConfigMaps and Secrets that a container's environment reads.
pub fn references(container: &Value) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    let note = |list: &mut Vec<String>, holder: &Value| list.extend(holder["name"].as_str().map(str::to_owned));
    for from in container["envFrom"].as_array().into_iter().flatten() {
        note(&mut maps, &from["configMapRef"]);
        note(&mut secrets, &from["secretRef"]);
    }
    for env in container["env"].as_array().into_iter().flatten() {
        note(&mut maps, &env["valueFrom"]["configMapKeyRef"]);
        note(&mut secrets, &env["valueFrom"]["secretKeyRef"]);
    }
    (maps, secrets)
}

/// The container's variables in the order of their names' first definition.
pub fn variables(pod: &Object, container: &Value, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
    let mut out = Ordered::default();
    for (name, value) in &sources.services {
        out.set(name, value.clone());
    }
    for from in container["envFrom"].as_array().into_iter().flatten() {
        env_from(pod, from, sources, &mut out)?;
    }
    for env in container["env"].as_array().into_iter().flatten() {
        let name = env["name"].as_str().unwrap_or("");
        if let Some(value) = one(pod, container, env, sources, &out)? {
            out.set(name, value);
        }
    }
    Ok(out.0)
}

#[derive(Default)]
struct Ordered(Vec<(String, String)>);

impl Ordered {
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

fn env_from(_pod: &Object, from: &Value, sources: &Sources, out: &mut Ordered) -> Result<(), EnvError> {
    let prefix = from["prefix"].as_str().unwrap_or("");
    let choices =
        [("configmap", &from["configMapRef"], &sources.config_maps), ("secret", &from["secretRef"], &sources.secrets)];
    for (kind, reference, objects) in choices {
        let Some(name) = reference["name"].as_str() else { continue };
        let Some(object) = objects.get(name) else {
            if reference["optional"] == true {
                continue;
            }
            return Err(EnvError::Missing { kind, name: name.to_owned() });
        };
        for (key, value) in data_of(object) {
            if is_variable_name(&key) {
                out.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    Ok(())
}

/// Anything printable but `=`; what cannot be a name is left out, as upstream leaves it out.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != '=')
}

/// The values of a ConfigMap (`data`, `binaryData`) or a Secret (`data`, base64) as bytes.
pub fn data_of(object: &Object) -> BTreeMap<String, Vec<u8>> {
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let mut out = BTreeMap::new();
    let entries = |key: &str| object.get(key).and_then(Value::as_object).into_iter().flatten();
    let is_secret = object.kind() == "Secret";
    for (key, value) in entries("data") {
        let text = value.as_str().unwrap_or("");
        out.insert(key.clone(), if is_secret { decode(text) } else { text.as_bytes().to_vec() });
    }
    for (key, value) in entries("binaryData") {
        out.insert(key.clone(), decode(value.as_str().unwrap_or("")));
    }
    out
}

fn one(
    pod: &Object,
    container: &Value,
    env: &Value,
    sources: &Sources,
    sofar: &Ordered,
) -> Result<Option<String>, EnvError> {
    let from = &env["valueFrom"];
    if from.is_null() {
        return Ok(Some(expand(env["value"].as_str().unwrap_or(""), |name| sofar.get(name))));
    }
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        return field(pod, path, &sources.facts).map(Some);
    }
    if from["resourceFieldRef"].is_object() {
        return resource_field(pod, container, &from["resourceFieldRef"], &sources.facts.node_allocatable).map(Some);
    }
    let choices = [
        ("configmap", "ConfigMap", &from["configMapKeyRef"], &sources.config_maps),
        ("secret", "Secret", &from["secretKeyRef"], &sources.secrets),
    ];
    for (kind, title, reference, objects) in choices {
        let Some(name) = reference["name"].as_str() else { continue };
        let optional = reference["optional"] == true;
        let key = reference["key"].as_str().unwrap_or("");
        let Some(object) = objects.get(name) else {
            return if optional { Ok(None) } else { Err(EnvError::Missing { kind, name: name.to_owned() }) };
        };
        return match data_of(object).remove(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::Key {
                kind: title,
                namespace: pod.namespace().to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        };
    }
    let source_kind = from.as_object().and_then(|m| m.keys().next()).cloned().unwrap_or_default();
    Err(EnvError::Source { name: env["name"].as_str().unwrap_or("").to_owned(), source_kind })
}

/// One field of the pod, for the environment or a file.
pub fn field(pod: &Object, path: &str, facts: &PodFacts) -> Result<String, EnvError> {
    if let Some((map, key)) = subscript(path) {
        return match map {
            "metadata.labels" => Ok(pod.label(key).unwrap_or("").to_owned()),
            "metadata.annotations" => Ok(pod.annotation(key).unwrap_or("").to_owned()),
            _ => Err(EnvError::Field(path.to_owned())),
        };
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(pod.labels()),
        "metadata.annotations" => format_map(pod.get("/metadata/annotations").and_then(Value::as_object)),
        "spec.nodeName" => pod.str_at("/spec/nodeName").to_owned(),
        "spec.serviceAccountName" => pod.str_at("/spec/serviceAccountName").to_owned(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(EnvError::Field(path.to_owned())),
    })
}

/// `metadata.labels['a/b']` as the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key.trim_matches(|c| c == '\'' || c == '"');
    Some((map, key))
}

/// `key="value"`, a line each, in the order of the keys.
fn format_map(map: Option<&serde_json::Map<String, Value>>) -> String {
    let mut lines: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={:?}", v.as_str().unwrap_or(""))).collect();
    lines.sort();
    lines.join("\n")
}

/// A request or limit of a container, in units of the divisor, rounded up.
pub fn resource_field(
    pod: &Object,
    container: &Value,
    reference: &Value,
    allocatable: &Amounts,
) -> Result<String, EnvError> {
    let resource = reference["resource"].as_str().unwrap_or("");
    let target = match reference["containerName"].as_str() {
        None | Some("") => container,
        Some(name) => gantry_kube::pod::containers(pod)
            .iter()
            .chain(gantry_kube::pod::init_containers(pod))
            .find(|c| c["name"] == name)
            .ok_or_else(|| EnvError::Container { container: name.to_owned() })?,
    };
    let unknown = || EnvError::Resource(resource.to_owned());
    let (list, name) = resource.split_once('.').ok_or_else(unknown)?;
    if !matches!(list, "limits" | "requests") {
        return Err(unknown());
    }
    let amounts = Amounts::from_list(&target["resources"][list]);
    let set = target["resources"][list].get(name).is_some();
    let node = list == "limits" && !set;
    let divisor = quantity(&reference["divisor"]).filter(|q| !q.is_zero());
    let ceiling = |amount: i64, unit: i64| (amount + unit - 1) / unit.max(1);
    Ok(match name {
        "cpu" => {
            let milli = if node { allocatable.cpu_milli } else { amounts.cpu_milli };
            ceiling(milli, divisor.map_or(1000, |d| d.milli_value())).to_string()
        }
        "memory" | "ephemeral-storage" => {
            let pick = |a: &Amounts| if name == "memory" { a.memory_bytes } else { a.ephemeral_storage_bytes };
            let bytes = if node { pick(allocatable) } else { pick(&amounts) };
            ceiling(bytes, divisor.map_or(1, |d| d.value())).to_string()
        }
        _ => return Err(unknown()),
    })
}

/// Replaces `$(NAME)`; a name that is not defined stays as it is written.
pub fn expand<'a>(text: &str, get: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('(') {
            match inner.split_once(')') {
                Some((name, after)) => {
                    match get(name) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&format!("$({name})")),
                    }
                    rest = after;
                }
                None => out.push('$'),
            }
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables of services, as pods have known them since Docker links: of the pod's namespace where it wants them, and
/// of the API server always.
pub fn service_variables(services: &[Arc<Object>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let is_api = service.namespace() == "default" && service.name() == "kubernetes";
        let ip = service.str_at("/spec/clusterIP");
        if ip.is_empty() || ip == "None" || !(is_api || links && service.namespace() == namespace) {
            continue;
        }
        one_service(service, ip, &mut out);
    }
    out
}

fn one_service(service: &Object, ip: &str, out: &mut BTreeMap<String, String>) {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.name());
    let ports = service.array_at("/spec/ports");
    let Some(first) = ports.first() else { return };
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    out.insert(format!("{name}_SERVICE_PORT"), first["port"].to_string());
    let url = |port: &Value| {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        format!("{}://{host}:{}", port["protocol"].as_str().unwrap_or("TCP").to_lowercase(), port["port"])
    };
    out.insert(format!("{name}_PORT"), url(first));
    for port in ports {
        if let Some(port_name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port["port"].to_string());
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let stem = format!("{name}_PORT_{}_{protocol}", port["port"]);
        out.insert(format!("{stem}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{stem}_PORT"), port["port"].to_string());
        out.insert(format!("{stem}_ADDR"), ip.to_owned());
        out.insert(stem, url(port));
    }
}

#[cfg(test)]
mod tests;
