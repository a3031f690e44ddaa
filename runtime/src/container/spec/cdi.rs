//! What CDI devices add to a container's configuration beside variables, nodes and hooks: mounts and groups.

use gantry_base::launch::{Refined, User, Volume};

use super::{Host, SpecError};

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
