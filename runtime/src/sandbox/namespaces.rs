//! The namespaces of a pod that outlive its processes: ipc and uts, made by a thread that ends, kept by binds of their
//! nsfs files; the pod's /dev/shm, and the file system of its files for /etc. The network namespace is the pod network's to make.
//! Where the pod has users of its own, all of them are made inside of its user namespace, by the supervisor's program: what this
//! thread does in them then, it does as the host's root, who may.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use gantry_base::layout;
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, UnmountFlags};

use super::users::Ranges;
use crate::fault::{Point, point};
use crate::records::private_dir;
use crate::supervisor::{Program, SupervisorError};

#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("{what} {path:?}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} for the pod's namespaces")]
    Kernel { what: &'static str, source: io::Error },
    #[error("set sysctl {name}={value}")]
    Sysctl { name: String, value: String, source: io::Error },
    #[error("sysctl {0:?} is not one that a pod may set")]
    SysctlRefused(String),
    #[error("make the namespaces of a pod with users of its own")]
    Users(#[source] SupervisorError),
    #[error("the thread that makes namespaces died")]
    Interrupted,
}

/// What a pod's namespaces are made with.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub ipc: bool,
    pub uts: bool,
    pub hostname: String,
    pub netns: Option<PathBuf>,
    /// Of a pod with users of its own, whose namespaces are there.
    pub users: Option<Ranges>,
    pub sysctls: Vec<(String, String)>,
}

/// `<run>/ns/<sandbox>`: files `ipc`, `uts`, `net`, `pid`, `user` and the folders `shm` and `etc`.
#[derive(Clone, Debug)]
pub struct Pins(pub PathBuf);

/// What containerd and Docker give.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";
/// A container may write to its files in /etc: they have a small file system of their own, lest it fills the host's /run.
const ETC_OPTIONS: &str = "mode=755,size=1048576,nr_inodes=16";

/// What a pod's own network is given where the pod says nothing else, as containerd 2 does: there, any port is as good as
/// another, and whoever may send at all may send an echo request. Neither needs a capability that would open more.
const NETWORK_DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The defaults that a pod's settings leave in force.
fn defaults(wanted: &Wanted) -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = wanted.netns.is_some();
    let said = |name: &str| wanted.sysctls.iter().any(|(said, _)| said == name);
    NETWORK_DEFAULTS.into_iter().filter(move |(name, _)| own && !said(name))
}

fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value)
}

fn set_sysctls(sysctls: &[&(String, String)]) -> Result<(), NamespaceError> {
    sysctls.iter().try_for_each(|(name, value)| {
        let (named, wanted) = (name.clone(), value.clone());
        set_sysctl(name, value).map_err(|source| NamespaceError::Sysctl { name: named, value: wanted, source })
    })
}

/// Gives a file of the pod's to the root of its users.
pub fn give(path: &Path, users: Option<Ranges>) -> io::Result<()> {
    users.map_or(Ok(()), |of| chown(path, Some(of.uids.host), Some(of.gids.host)))
}

impl Pins {
    pub fn net(&self) -> PathBuf {
        self.0.join("net")
    }
    pub fn ipc(&self) -> PathBuf {
        self.0.join("ipc")
    }
    pub fn uts(&self) -> PathBuf {
        self.0.join("uts")
    }
    pub fn user(&self) -> PathBuf {
        layout::pin(&self.0, "user")
    }
    pub fn pid(&self) -> PathBuf {
        layout::pid_pin(&self.0)
    }
    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }
    /// Where resolv.conf, hosts and hostname are.
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// Makes the user namespace and those that it owns: network, ipc and uts. Blocks.
    pub fn create_users(&self, program: &Program, users: Ranges) -> Result<(), NamespaceError> {
        private_dir(&self.0).map_err(|source| self.failed("make", &self.0, source))?;
        self.unmount_all()?;
        program.make_namespaces(&self.0, users.uids, users.gids).map_err(NamespaceError::Users)
    }

    /// Makes what is wanted. What is there from an earlier try is taken away first. Blocks.
    pub fn create(&self, wanted: Wanted) -> Result<(), NamespaceError> {
        for (name, _) in &wanted.sysctls {
            check_sysctl(name, &wanted)?;
        }
        private_dir(&self.0).map_err(|source| self.failed("make", &self.0, source))?;
        if wanted.users.is_none() {
            self.unmount_all()?;
        }
        self.mount_tmpfs(&self.etc(), ETC_OPTIONS, wanted.users)?;
        if wanted.ipc {
            self.mount_tmpfs(&self.shm(), SHM_OPTIONS, wanted.users)?;
        }
        let pins = self.clone();
        // A thread of its own: namespaces are a thread's, and this one ends with what it has become.
        std::thread::spawn(move || pins.make(&wanted)).join().unwrap_or(Err(NamespaceError::Interrupted))
    }

    /// It belongs to the pod's root.
    fn mount_tmpfs(&self, at: &Path, options: &str, users: Option<Ranges>) -> Result<(), NamespaceError> {
        private_dir(at).map_err(|source| self.failed("make", at, source))?;
        point(Point::PinMake);
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let owner = users.map_or_else(String::new, |of| format!(",uid={},gid={}", of.uids.host, of.gids.host));
        let options = CString::new(format!("{options}{owner}")).map_err(|e| self.failed("mount", at, e.into()))?;
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(options.as_c_str()))
            .map_err(|e| self.failed("mount", at, e.into()))
    }

    fn unmount_all(&self) -> Result<(), NamespaceError> {
        [self.ipc(), self.uts(), self.pid(), self.user(), self.shm(), self.etc()]
            .iter()
            .try_for_each(|path| unmount(path))
    }

    fn make(&self, wanted: &Wanted) -> Result<(), NamespaceError> {
        let kernel = |what| move |e: nix::Error| NamespaceError::Kernel { what, source: e.into() };
        let mut flags = CloneFlags::empty();
        flags.set(CloneFlags::CLONE_NEWIPC, wanted.ipc);
        flags.set(CloneFlags::CLONE_NEWUTS, wanted.uts);
        if wanted.users.is_some() {
            for (path, kind) in [(self.ipc(), CloneFlags::CLONE_NEWIPC), (self.uts(), CloneFlags::CLONE_NEWUTS)] {
                let file = fs::File::open(&path).map_err(|source| self.failed("open", &path, source))?;
                nix::sched::setns(file.as_fd(), kind).map_err(kernel("enter a namespace of its users"))?;
            }
        } else if !flags.is_empty() {
            nix::sched::unshare(flags).map_err(kernel("unshare"))?;
        }
        if wanted.uts {
            nix::unistd::sethostname(&wanted.hostname).map_err(kernel("set the host name"))?;
        }
        if let Some(netns) = &wanted.netns {
            let file = fs::File::open(netns).map_err(|source| self.failed("open", netns, source))?;
            nix::sched::setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(kernel("enter the network namespace"))?;
        }
        for (name, value) in defaults(wanted) {
            // A kernel without it, or a host that is a container itself, denies the pod a comfort, and nothing that it asked for.
            if let Err(error) = set_sysctl(name, value) {
                tracing::warn!(name, value, %error, "a default of pods' networks was not set");
            }
        }
        let (of_network, of_ipc): (Vec<_>, Vec<_>) =
            wanted.sysctls.iter().partition(|(name, _)| name.starts_with("net."));
        set_sysctls(&of_network)?;
        if let Some(users) = wanted.users.filter(|_| !of_ipc.is_empty()) {
            // These are written by the namespace's owner alone, which the thread is to its end; it stays the host's root.
            let (owner, root) = (rustix::thread::Uid::from_raw(users.uids.host), rustix::thread::Uid::ROOT);
            rustix::thread::set_thread_res_uid(root, owner, root)
                .map_err(|e| NamespaceError::Kernel { what: "become the owner", source: e.into() })?;
        }
        set_sysctls(&of_ipc)?;
        for (made, kind, path) in [(wanted.ipc, "ipc", self.ipc()), (wanted.uts, "uts", self.uts())] {
            if made && wanted.users.is_none() {
                point(Point::PinMake);
                fs::write(&path, "").map_err(|source| self.failed("make", &path, source))?;
                point(Point::PinMake);
                rustix::mount::mount_bind(format!("/proc/thread-self/ns/{kind}"), &path)
                    .map_err(|e| self.failed("bind a namespace to", &path, e.into()))?;
            }
        }
        Ok(())
    }

    /// Lets go of everything but the network namespace. Safe when nothing was made. Blocks.
    pub fn remove(&self) -> Result<(), NamespaceError> {
        self.unmount_all()?;
        for path in [self.ipc(), self.uts(), self.pid(), self.user()] {
            point(Point::PinRemove);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.failed("remove", &path, e)),
                _ => {}
            }
        }
        for path in [self.shm(), self.etc(), self.0.clone()] {
            point(Point::PinRemove);
            match fs::remove_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.failed("remove", &path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str, path: &Path, source: io::Error) -> NamespaceError {
        NamespaceError::Io { what, path: path.to_owned(), source }
    }
}

fn unmount(path: &Path) -> Result<(), NamespaceError> {
    point(Point::PinUnmount);
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(NamespaceError::Io { what: "unmount", path: path.to_owned(), source: e.into() }),
    }
}

/// Only what lives in the pod's own namespaces (the kernel's documentation of ipc and network namespaces).
pub fn check_sysctl(name: &str, wanted: &Wanted) -> Result<(), NamespaceError> {
    const IPC: [&str; 8] = [
        "kernel.sem",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let plain = name
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
    let ipc = wanted.ipc && (IPC.contains(&name) || name.starts_with("fs.mqueue."));
    let net = wanted.netns.is_some() && name.starts_with("net.");
    if plain && (ipc || net) { Ok(()) } else { Err(NamespaceError::SysctlRefused(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_pod_says_of_its_network_goes_before_the_defaults() {
        let names = |wanted: &Wanted| defaults(wanted).map(|(name, _)| name).collect::<Vec<_>>();
        let own = Wanted { netns: Some("/x".into()), ..Wanted::default() };
        assert_eq!(names(&own).len(), 2);
        assert_eq!(names(&Wanted::default()), [""; 0], "the host's network is the host's");
        let sysctls = vec![("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned())];
        assert_eq!(names(&Wanted { sysctls, ..own }), ["net.ipv4.ping_group_range"]);
    }

    proptest! {
        /// SECURITY.md, row 14: whatever is accepted is a file of the pod's own namespaces, by whatever way it was spelt.
        #[test]
        fn row_14_no_name_leads_elsewhere(name in "(net|kernel|fs\\.mqueue|vm|fs)?([./]{0,2}[a-z0-9_-]{0,6}|[./]?\\.\\.[./]?){0,5}") {
            let own = Wanted { ipc: true, netns: Some("/x".into()), ..Wanted::default() };
            if check_sysctl(&name, &own).is_ok() {
                let path = name.replace('.', "/");
                prop_assert!(path.split('/').all(|part| !part.is_empty() && part != ".."), "{name:?}");
                let first = path.split('/').next();
                prop_assert!(matches!(first, Some("net" | "kernel")) || path.starts_with("fs/mqueue/"), "{name:?}");
                prop_assert!(check_sysctl(&name, &Wanted::default()).is_err(), "{name:?} is not the host's to give");
            }
        }
    }

    #[test]
    fn only_what_is_the_pods_own_may_be_set() {
        let own = Wanted { ipc: true, netns: Some("/x".into()), ..Wanted::default() };
        for good in ["net.ipv4.ip_local_port_range", "kernel.shmmax", "fs.mqueue.msg_max"] {
            assert!(check_sysctl(good, &own).is_ok(), "{good}");
            assert!(check_sysctl(good, &Wanted::default()).is_err(), "{good} of the host");
        }
        for bad in ["kernel.core_pattern", "vm.swappiness", "net/../kernel", "net..x", "kernel.shmmax/../x", ""] {
            assert!(check_sysctl(bad, &own).is_err(), "{bad}");
        }
    }
}
