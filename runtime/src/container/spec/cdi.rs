//! What CDI devices add to a container's configuration beside variables and nodes: hooks, mounts and groups.

use gantry_base::launch::{Refined, StartHooks, User, Volume};
use serde_json::{Value, json};

use super::{Host, SpecError};
use crate::cdi::document::HookName;
use crate::cdi::inject::Injection;

/// Those that libcontainer runs. It runs none after the end: the runtime does when the container is removed, and finds them here.
pub fn hooks(cdi: &Injection) -> Option<Value> {
    let mut kinds = serde_json::Map::new();
    for hook in cdi.hooks.iter().filter(|hook| hook.hook_name != HookName::StartContainer) {
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
pub fn start_hooks(cdi: &Injection) -> StartHooks {
    let mut all = StartHooks::default();
    for hook in &cdi.hooks {
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

pub fn in_groups(mut user: User, more: &[u32]) -> User {
    let missing: Vec<u32> = more.iter().filter(|gid| !user.extra_gids.contains(gid)).copied().collect();
    user.extra_gids.extend(missing);
    user
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Volumes come after what libcontainer mounts, and would hide it.
pub fn check_seen(host: &Host, volumes: &[Volume]) -> Result<(), SpecError> {
    let mut hidden = host.cdi.tmpfs.iter().filter_map(|tmpfs| {
        let below = volumes.iter().find(|volume| is_below(&tmpfs.destination, &volume.destination))?;
        Some(SpecError::Hidden { at: tmpfs.destination.clone(), by: below.destination.clone() })
    });
    hidden.next().map_or(Ok(()), Err)
}

/// In the order of their places: what lies in another comes after it.
pub fn refined(host: &Host, volumes: &[Volume]) -> Vec<Refined> {
    let mut late: Vec<&str> = ["/dev", "/proc", "/sys"].into_iter().collect();
    late.extend(host.cdi.tmpfs.iter().map(|tmpfs| tmpfs.destination.as_str()));
    let mut all = Vec::new();
    for (n, volume) in volumes.iter().enumerate() {
        let at = volume.destination.as_str();
        let own = host.cdi.binds.iter().find(|bind| bind.volume.destination == at);
        // What is put in place before libcontainer's mounts, or before a volume above it, would be hidden; and libcontainer
        // makes what is shared with the host a slave of it.
        let covered = late.iter().any(|above| at == *above || is_below(at, above));
        let early = host.cdi.early() && own.is_some() && !covered && volume.propagation != 2;
        if !early {
            late.push(at);
        }
        if let (Some(bind), Ok(volume)) = (own, u32::try_from(n)) {
            all.push(Refined { volume, attributes: bind.attributes, shallow: bind.shallow, early });
        }
    }
    all
}
