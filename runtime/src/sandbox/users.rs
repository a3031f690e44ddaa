//! The users of a pod that are not the host's (CRI's `UserNamespace`): which mappings are taken. Pure.
//!
//! What is refused is what containerd refuses, and a range with the host's root in it: the promise of
//! `runtime/supervisor/src/userns.rs` rests on there being none.

use gantry_base::launch::IdRange;
use gantry_cri::v1::{self, IdMapping, NamespaceMode, NamespaceOption, UserNamespace};

use crate::node::NodeError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub uids: IdRange,
    pub gids: IdRange,
}

/// What a sandbox or a container asks for; None where its users are the host's.
pub fn wanted(options: &NamespaceOption) -> Result<Option<Ranges>, NodeError> {
    let Some(users) = &options.userns_options else { return Ok(None) };
    let bad = |why| Err(NodeError::Invalid { what: "user namespace", value: in_words(users), why });
    match users.mode() {
        NamespaceMode::Node if users.uids.is_empty() && users.gids.is_empty() => Ok(None),
        NamespaceMode::Node => bad("in mode NODE it has no mappings"),
        NamespaceMode::Pod => {
            let ranges = Ranges { uids: range(users, &users.uids)?, gids: range(users, &users.gids)? };
            Ok(Some(ranges))
        }
        NamespaceMode::Container | NamespaceMode::Target => bad("its mode is POD or NODE"),
    }
}

/// One mapping, as the kubelet gives, from id 0 on.
fn range(users: &UserNamespace, mappings: &[IdMapping]) -> Result<IdRange, NodeError> {
    let bad = |why| Err(NodeError::Invalid { what: "user namespace", value: in_words(users), why });
    match mappings {
        [] => bad("in mode POD it has one mapping of users and one of groups"),
        [one] if one.length == 0 => bad("a mapping has a length"),
        [one] if one.container_id != 0 => bad("a mapping begins with id 0 inside, which is its root"),
        [one] if one.host_id == 0 => bad("a mapping does not hold the host's root"),
        // The last id is nobody's: it means "unchanged" to the kernel.
        [one] if one.host_id.checked_add(one.length).is_none() => bad("a mapping ends before id 4294967295"),
        [one] => Ok(IdRange { host: one.host_id, length: one.length }),
        _ => bad("only one mapping of users and one of groups is supported"),
    }
}

fn in_words(users: &UserNamespace) -> String {
    let list = |mappings: &[IdMapping]| {
        let each = mappings.iter().map(|m| format!("{}:{}:{}", m.container_id, m.host_id, m.length));
        each.collect::<Vec<_>>().join(",")
    };
    let mode = users.mode().as_str_name();
    format!("{mode} uids {} gids {} (container:host:length)", list(&users.uids), list(&users.gids))
}

/// Namespaces of the host that a user namespace has no power over, and no mount of the kernel's for.
pub fn check(options: &NamespaceOption, ranges: Option<Ranges>) -> Result<(), NodeError> {
    let Some(users) = options.userns_options.as_ref().filter(|_| ranges.is_some()) else { return Ok(()) };
    let on_host = [options.network(), options.pid(), options.ipc()].contains(&NamespaceMode::Node);
    if on_host {
        let why = "network, pid and ipc namespace are not the host's then";
        return Err(NodeError::Invalid { what: "user namespace", value: in_words(users), why });
    }
    Ok(())
}

/// The same for the sandbox and its containers.
pub fn same(sandbox: Option<Ranges>, container: &NamespaceOption) -> Result<(), NodeError> {
    if wanted(container)? == sandbox {
        return Ok(());
    }
    let value = container.userns_options.as_ref().map_or_else(|| "NODE".to_owned(), in_words);
    Err(NodeError::Invalid { what: "user namespace", value, why: "its sandbox has another" })
}

/// Whether the files of a mount are owned inside by the ids on their disk. Where CRI gives it mappings, they are the pod's.
pub fn is_mapped(mount: &v1::Mount, users: Option<Ranges>) -> Result<bool, NodeError> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(false);
    }
    let (uids, gids) = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    let own = UserNamespace { mode: NamespaceMode::Pod.into(), uids, gids };
    let options = NamespaceOption { userns_options: Some(own.clone()), ..NamespaceOption::default() };
    let ranges = wanted(&options)?;
    let bad = |why| Err(NodeError::Invalid { what: "mapping of a mount", value: in_words(&own), why });
    match users {
        _ if ranges == users => Ok(true),
        Some(_) => bad("it is not that of the pod's user namespace"),
        None => bad("the pod has no user namespace"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping { host_id, container_id, length }
    }

    fn options(mode: NamespaceMode, uids: Vec<IdMapping>, gids: Vec<IdMapping>) -> NamespaceOption {
        let users = UserNamespace { mode: mode.into(), uids, gids };
        NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() }
    }

    fn said(result: Result<impl std::fmt::Debug, NodeError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn what_is_refused_names_the_value() {
        use NamespaceMode::{Container, Node, Pod, Target};
        let good = mapping(0, 65_536, 65_536);
        let of = |m: IdMapping| said(wanted(&options(Pod, vec![m], vec![good])));
        assert!(of(mapping(1, 65_536, 10)).contains("uids 1:65536:10 gids 0:65536:65536"));
        assert!(of(mapping(0, 65_536, 0)).ends_with("a mapping has a length"));
        assert!(of(mapping(0, 0, 10)).ends_with("the host's root"));
        assert!(of(mapping(0, u32::MAX - 5, 6)).ends_with("ends before id 4294967295"));
        assert!(said(wanted(&options(Pod, vec![good, good], vec![good]))).contains("only one mapping"));
        assert!(said(wanted(&options(Pod, vec![good], vec![]))).contains("one mapping of users and one of groups"));
        assert!(said(wanted(&options(Node, vec![good], vec![]))).contains("in mode NODE"));
        for mode in [Container, Target] {
            assert!(said(wanted(&options(mode, vec![good], vec![good]))).contains("POD or NODE"));
        }
        assert_eq!(wanted(&options(Node, vec![], vec![])).unwrap(), None);
        assert_eq!(wanted(&NamespaceOption::default()).unwrap(), None);
    }

    #[test]
    fn a_pod_with_users_of_its_own_has_no_namespace_of_the_host() {
        let good = vec![mapping(0, 65_536, 65_536)];
        let own = options(NamespaceMode::Pod, good.clone(), good);
        let ranges = wanted(&own).unwrap();
        assert!(check(&own, ranges).is_ok());
        let on_host: [fn(&mut NamespaceOption); 3] = [
            |o| o.network = NamespaceMode::Node.into(),
            |o| o.pid = NamespaceMode::Node.into(),
            |o| o.ipc = NamespaceMode::Node.into(),
        ];
        for change in on_host {
            let mut options = own.clone();
            change(&mut options);
            assert!(said(check(&options, ranges)).contains("are not the host's then"));
        }
    }

    #[test]
    fn containers_and_mounts_have_what_the_sandbox_has() {
        let pod = |host| options(NamespaceMode::Pod, vec![mapping(0, host, 9)], vec![mapping(0, host, 9)]);
        let ranges = wanted(&pod(100)).unwrap();
        assert!(same(ranges, &pod(100)).is_ok() && same(None, &NamespaceOption::default()).is_ok());
        assert!(said(same(ranges, &NamespaceOption::default())).contains("\"NODE\""));
        assert!(said(same(ranges, &pod(200))).contains("0:200:9"));
        assert!(said(same(None, &pod(200))).ends_with("its sandbox has another"));
        assert!(said(same(ranges, &options(NamespaceMode::Node, vec![], vec![]))).ends_with("has another"));
        let mount = |host| {
            let one = vec![mapping(0, host, 9)];
            v1::Mount { uid_mappings: one.clone(), gid_mappings: one, ..v1::Mount::default() }
        };
        assert!(is_mapped(&mount(100), ranges).unwrap());
        assert!(!is_mapped(&v1::Mount::default(), ranges).unwrap());
        assert!(said(is_mapped(&mount(200), ranges)).ends_with("not that of the pod's user namespace"));
        assert!(said(is_mapped(&mount(100), None)).ends_with("has no user namespace"));
        let half = v1::Mount { gid_mappings: Vec::new(), ..mount(100) };
        assert!(said(is_mapped(&half, ranges)).contains("one of groups"));
    }

    proptest! {
        /// Whatever is asked for: what is taken leads no id inside to the host's root, and none twice.
        #[test]
        fn no_id_inside_is_the_hosts_root(host: u32, inside in 0u32..3, length: u32, id: u32) {
            let one = vec![mapping(inside, host, length)];
            if let Ok(Some(ranges)) = wanted(&options(NamespaceMode::Pod, one.clone(), one)) {
                prop_assert_ne!(ranges.uids.outside(id), Some(0));
                prop_assert_ne!(ranges.uids.outside(id), Some(u32::MAX));
                prop_assert_eq!(ranges.uids.outside(id).is_some(), id < length);
                prop_assert_eq!(ranges.uids.outside(0), Some(host));
            }
        }
    }
}
