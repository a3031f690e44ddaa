//! Capabilities by name and number, and what a container gets of them.

/// In the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless told otherwise; the same fourteen everywhere.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("capability {0:?} does not exist")]
pub struct UnknownCapability(pub String);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub ambient: u64,
}

pub fn bit(name: &str) -> Result<u64, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match NAMES.iter().position(|n| *n == short) {
        Some(number) => Ok(1 << number),
        None => Err(UnknownCapability(name.to_owned())),
    }
}

fn is_all(names: &[String]) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case("ALL"))
}

fn bits(names: &[String]) -> Result<u64, UnknownCapability> {
    names.iter().filter(|n| !n.eq_ignore_ascii_case("ALL")).try_fold(0, |set, name| Ok(set | bit(name)?))
}

/// `host` is what this runtime itself may hand out.
pub fn sets(
    privileged: bool,
    add: &[String],
    drop: &[String],
    ambient: &[String],
    host: u64,
) -> Result<Sets, UnknownCapability> {
    if privileged {
        return Ok(Sets { bounding: host, ambient: 0 });
    }
    let start = if is_all(add) {
        host
    } else if is_all(drop) {
        0
    } else {
        DEFAULT.iter().map(|n| bit(n).unwrap_or(0)).fold(0, |a, b| a | b)
    };
    // Named ones win over ALL: `drop: ALL, add: X` leaves X, `add: ALL, drop: X` leaves all but X.
    let dropped = bits(drop)?;
    let ambient = bits(ambient)?;
    let added = bits(add)? | ambient;
    let bounding = ((start & !dropped) | added) & host;
    Ok(Sets { bounding, ambient: ambient & bounding })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u64 = (1 << 41) - 1;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn default_add_and_drop() {
        let default = sets(false, &[], &[], &[], HOST).unwrap().bounding;
        assert_eq!(default, 0xa804_25fb);
        let some = sets(false, &names(&["NET_ADMIN"]), &names(&["CAP_KILL"]), &[], HOST).unwrap().bounding;
        assert_eq!(some, (default | 1 << 12) & !(1 << 5));
        assert_eq!(sets(false, &names(&["net_bind_service"]), &names(&["ALL"]), &[], HOST).unwrap().bounding, 1 << 10);
        assert_eq!(sets(false, &names(&["ALL"]), &names(&["KILL"]), &[], HOST).unwrap().bounding, HOST & !(1 << 5));
    }

    #[test]
    fn what_the_host_lacks_is_not_handed_out() {
        let host = HOST & !(1 << 24);
        assert_eq!(sets(true, &[], &[], &[], host).unwrap().bounding, host);
        assert_eq!(sets(false, &names(&["SYS_RESOURCE"]), &names(&["ALL"]), &[], host).unwrap().bounding, 0);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let error = sets(false, &names(&["NOT_ONE"]), &[], &[], HOST).unwrap_err();
        assert_eq!(error, UnknownCapability("NOT_ONE".into()));
    }
}
