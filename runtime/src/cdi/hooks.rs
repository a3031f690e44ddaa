//! Hooks of CDI devices on their way: into a container's configuration, to the program that runs those inside, and back out of
//! the configuration when the container has ended. Pure.

use std::path::Path;

use gantry_base::launch::StartHooks;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{Hook, HookName};

/// Those that libcontainer runs. It runs none after the end: the runtime does when the container is removed, and finds them here.
pub fn configured(hooks: &[Hook]) -> Option<Value> {
    let mut kinds = serde_json::Map::new();
    for hook in hooks.iter().filter(|hook| hook.hook_name != HookName::StartContainer) {
        let list = kinds.entry(hook.hook_name.as_str()).or_insert_with(|| json!([]));
        let mut entry = json!({"path": hook.path});
        for (key, value) in [("args", json!(hook.args)), ("env", json!(hook.env)), ("timeout", json!(hook.seconds()))] {
            if !value.is_null() {
                entry[key] = value;
            }
        }
        if let Some(list) = list.as_array_mut() {
            list.push(entry);
        }
    }
    // Without hooks libcontainer saves a turn.
    (!kinds.is_empty()).then_some(Value::Object(kinds))
}

/// Those that run in the container are ours: libcontainer would give them everything that the host's root may do.
pub fn inside(hooks: &[Hook]) -> StartHooks {
    let mut all = StartHooks::default();
    for hook in hooks {
        match hook.hook_name {
            HookName::StartContainer => all.hooks.push(gantry_base::launch::Hook {
                path: hook.path.clone(),
                args: hook.args.clone().unwrap_or_default(),
                env: hook.env.clone(),
                timeout_seconds: hook.seconds(),
            }),
            HookName::Poststop => {}
            other => all.others.push(format!("{} {:?}", other.as_str(), hook.path)),
        }
    }
    all
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bundle {
    hooks: Option<Hooks>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hooks {
    poststop: Vec<Poststop>,
}

/// A program that runs when a container has ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Poststop {
    pub path: String,
    /// The first is what it finds as its own name.
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: u32,
}

/// What is to run of a container's configuration when it has ended; nothing of one that is none.
pub fn poststop(configuration: &[u8]) -> Vec<Poststop> {
    let bundle: Bundle = serde_json::from_slice(configuration).unwrap_or_default();
    bundle.hooks.unwrap_or_default().poststop
}

/// What a hook reads of a container that has ended (OCI runtime-spec, runtime.md, State).
pub fn state_of_stopped(container: &str, bundle: &Path) -> String {
    let bundle = bundle.to_string_lossy();
    json!({"ociVersion": "1.0.2", "id": container, "status": "stopped", "bundle": bundle}).to_string()
}
