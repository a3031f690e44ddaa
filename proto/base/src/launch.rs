//! What the supervisor is told of a container: the root, what is mounted in it, and the last stage before execve.

use crate::codec::Appended;
use crate::wire_struct;

wire_struct! {
    /// The mounts that make the root.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Root {
        /// Overlay layers, topmost first. With one entry and no upper folder it is bound as it is.
        pub lower: Vec<String>,
        pub upper: String,
        pub work: String,
        pub read_only: bool,
    }
}

wire_struct! {
    /// A volume, bound from the host after the root has been pivoted to.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Volume {
        pub source: String,
        pub destination: String,
        pub read_only: bool,
        /// The submounts too are made read-only; refused when the kernel cannot.
        pub recursive_read_only: bool,
        /// 0 private, 1 from the host (slave), 2 both ways (shared).
        pub propagation: u8,
        pub no_exec: bool,
    }
}

wire_struct! {
    /// An image that stands in the place of a volume's source, and is read-only.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ImageVolume {
        /// Which of the volumes; its source is empty.
        pub volume: u32,
        /// The image's layers, topmost first.
        pub layers: Vec<String>,
        /// What of the image is mounted; empty for all of it.
        pub sub_path: String,
    }
}

wire_struct! {
    /// A resource limit by its number.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Rlimit {
        pub resource: u32,
        pub soft: u64,
        pub hard: u64,
    }
}

wire_struct! {
    /// Who the process runs as, before names are looked up in the root.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct User {
        /// `name`, `uid`, `name:group` or `uid:gid`; empty for root.
        pub name: String,
        /// Overrides the group when given.
        pub gid: Option<u32>,
        pub extra_gids: Vec<u32>,
        /// Groups of the user in /etc/group are added.
        pub merge_groups: bool,
    }
}

wire_struct! {
    /// Who the process runs as, resolved.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Ids {
        pub uid: u32,
        pub gid: u32,
        pub groups: Vec<u32>,
        pub home: String,
    }
}

wire_struct! {
    /// Ids of a user namespace: those inside, from 0 on, are those of the host from `host` on.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IdRange {
        pub host: u32,
        pub length: u32,
    }
}

impl IdRange {
    /// Who that is on the host; None where the namespace has no such id.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        if inside < self.length { self.host.checked_add(inside) } else { None }
    }
}

wire_struct! {
    /// The users of a pod that are not those of the host.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Users {
        /// The folder in which the pod's namespaces are pinned.
        pub pins: String,
        pub uids: IdRange,
        pub gids: IdRange,
        /// Which of the volumes have their files owned by the same ids inside as on their disk; image volumes always do.
        pub mapped: Vec<u32>,
    }
}

wire_struct! {
    /// The process itself: what our executor applies, in the order of the fields' use.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Process {
        pub args: Vec<String>,
        pub env: Vec<String>,
        pub cwd: String,
        /// Bits by capability number.
        pub bounding: u64,
        pub effective: u64,
        pub permitted: u64,
        pub inheritable: u64,
        pub ambient: u64,
        pub no_new_privs: bool,
        pub rlimits: Vec<Rlimit>,
        pub oom_score_adj: Option<i32>,
        /// A compiled seccomp program (struct sock_filter), empty for none.
        pub seccomp: Vec<u8>,
        pub apparmor: String,
        pub umask: Option<u32>,
    }
}

wire_struct! {
    /// A sized write into a cgroup file, made between create and start.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct CgroupWrite {
        pub path: String,
        pub value: String,
    }
}

wire_struct! {
    /// What a volume has beyond what CRI can say, as CDI devices' mounts have it.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Refined {
        /// Which of the volumes.
        pub volume: u32,
        /// MOUNT_ATTR_* that are set.
        pub attributes: u64,
        /// Nothing of what is mounted below it is seen.
        pub shallow: bool,
        /// Put in place before libcontainer runs hooks, which is before the container is in its root.
        pub early: bool,
    }
}

wire_struct! {
    /// A program that runs in the container before its own.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Hook {
        pub path: String,
        /// The first is its name; empty for the path alone.
        pub args: Vec<String>,
        /// None for the container's own.
        pub env: Option<Vec<String>>,
        pub timeout_seconds: u32,
    }
}

wire_struct! {
    /// OCI's startContainer hooks, and what they are told of the container.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct StartHooks {
        pub hooks: Vec<Hook>,
        /// What those are called that libcontainer runs, whose errors name none.
        pub others: Vec<String>,
        pub container: String,
        pub bundle: String,
    }
}

wire_struct! {
    /// A device node.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Node {
        pub path: String,
        /// Where it is on the host: bound from there where the host lets nobody make nodes.
        pub source: String,
        /// `c`, `b` or `p`, as mknod(1) has it.
        pub kind: u8,
        pub major: u32,
        pub minor: u32,
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
    }
}

wire_struct! {
    /// Of a container that the supervisor makes by itself: what libcontainer finds of others in `config.json`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Direct {
        /// Paths of the pod's namespaces that it is in; of other kinds but those below, the host's.
        pub namespaces: Vec<String>,
        /// Its pids are its own; else they are the host's.
        pub own_pids: bool,
        pub own_cgroups: bool,
        /// The kernel's settings and cgroups can be written to.
        pub writable_kernel: bool,
        pub nodes: Vec<Node>,
        pub read_only: Vec<String>,
        pub masked: Vec<String>,
    }
}

wire_struct! {
    /// Everything that a container is made of; where libcontainer makes it, beside `config.json`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Launch {
        pub root: Root,
        pub volumes: Vec<Volume>,
        pub user: User,
        pub process: Process,
        /// The container's folder in each mounted hierarchy (one on v2). The creator makes and joins them itself.
        pub cgroups: Vec<String>,
        /// The hierarchy is v2: joined by clone3, and no `tasks` files.
        pub unified: bool,
        /// The CPU quota and the like, which would slow the creation itself.
        pub before_start: Vec<CgroupWrite>,
        /// Containers from before images were mounted have none.
        pub images: Appended<Vec<ImageVolume>>,
        /// What seccomp(2) is to load the filter with.
        pub seccomp_flags: Appended<u32>,
        /// None where the pod's users are the host's.
        pub users: Appended<Option<Users>>,
        pub refined: Appended<Vec<Refined>>,
        pub start_hooks: Appended<StartHooks>,
        /// None where libcontainer makes the container.
        pub direct: Appended<Option<Direct>>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Wire;

    #[test]
    fn a_launch_file_from_before_its_last_fields_is_read() {
        let image = ImageVolume { volume: 0, layers: vec!["/l".to_owned()], sub_path: String::new() };
        let ids = IdRange { host: 65536, length: 65536 };
        let users = Users { pins: "/p".to_owned(), uids: ids, gids: ids, mapped: vec![0] };
        let latest = Launch {
            unified: true,
            images: Appended(vec![image]),
            seccomp_flags: Appended(6),
            users: Appended(Some(users)),
            ..Launch::default()
        };
        let now = Launch { users: Appended(None), ..latest.clone() };
        let length = |launch: &Launch| {
            let mut bytes = Vec::new();
            launch.put(&mut bytes);
            bytes.len()
        };
        let mut bytes = Vec::new();
        latest.put(&mut bytes);
        assert_eq!(Launch::take(&mut bytes.as_slice()), Ok(latest));
        // The refined volumes, two lists of hooks, two texts, and that nothing is made directly.
        const WITHOUT_CDI_BYTES: usize = 5 * size_of::<u32>() + 1;
        bytes.clear();
        now.put(&mut bytes);
        bytes.truncate(bytes.len() - WITHOUT_CDI_BYTES);
        assert_eq!(Launch::take(&mut bytes.as_slice()), Ok(now.clone()));
        bytes.pop();
        assert_eq!(Launch::take(&mut bytes.as_slice()), Ok(now.clone()));
        let without_flags = Launch { seccomp_flags: Appended(0), ..now };
        let end = bytes.len() - size_of::<u32>();
        assert_eq!(Launch::take(&mut &bytes[..end]), Ok(without_flags.clone()));
        let oldest = Launch { images: Appended(Vec::new()), ..without_flags };
        let end = length(&oldest) - WITHOUT_CDI_BYTES - 2 * size_of::<u32>() - 1;
        assert_eq!(Launch::take(&mut &bytes[..end]), Ok(oldest));
        // A torn one is none.
        assert!(Launch::take(&mut &bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn an_id_that_a_namespace_has_not_is_nobodys() {
        let ids = IdRange { host: 131_072, length: 65_536 };
        assert_eq!((ids.outside(0), ids.outside(65_535), ids.outside(65_536)), (Some(131_072), Some(196_607), None));
        assert_eq!(IdRange { host: u32::MAX, length: 2 }.outside(1), None);
    }
}
