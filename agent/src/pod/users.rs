//! How the runtime is told of the users of a pod that are not the host's. Pure.

use gantry_cri::v1::{
    ContainerConfig, IdMapping, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, UserNamespace,
};
use gantry_kube::Object;

use crate::users::{BLOCK_IDS, Block};

/// Whether the pod has users of its own. Everywhere else, unset is the host's.
pub fn are_own(pod: &Object) -> bool {
    pod.bool_at("/spec/hostUsers") == Some(false)
}

fn mapping(block: Block) -> Vec<IdMapping> {
    vec![IdMapping { host_id: block.first_id(), container_id: 0, length: BLOCK_IDS }]
}

fn set(options: Option<&mut NamespaceOption>, block: Block) {
    if let Some(options) = options {
        let (uids, gids) = (mapping(block), mapping(block));
        options.userns_options = Some(UserNamespace { mode: NamespaceMode::Pod.into(), uids, gids });
    }
}

pub fn tell_sandbox(config: &mut PodSandboxConfig, block: Block) {
    let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    set(security.and_then(|security| security.namespace_options.as_mut()), block);
}

/// Volumes are written with the ids that they have inside, and mapped where they are mounted. An image's files are the
/// runtime's to map.
pub fn tell_container(config: &mut ContainerConfig, block: Block) {
    let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    set(security.and_then(|security| security.namespace_options.as_mut()), block);
    let of_host = |mount: &&mut Mount| mount.image.is_none();
    for mount in config.mounts.iter_mut().filter(of_host) {
        mount.uid_mappings = mapping(block);
        mount.gid_mappings = mapping(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_cri::v1::{
        ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext,
    };
    use serde_json::json;

    #[test]
    fn sandbox_container_and_volumes_are_told_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let users = crate::users::Users::new(dir.path().to_owned(), 110);
        let block = users.of("pod").unwrap();
        let mut sandbox = PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption::default()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let mut container = ContainerConfig {
            mounts: vec![
                Mount { host_path: "/h".to_owned(), ..Mount::default() },
                Mount { image: Some(ImageSpec::default()), ..Mount::default() },
            ],
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption::default()),
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        };
        tell_sandbox(&mut sandbox, block);
        tell_container(&mut container, block);
        let of_sandbox = sandbox.linux.unwrap().security_context.unwrap().namespace_options.unwrap().userns_options;
        let of_container = container.linux.unwrap().security_context.unwrap().namespace_options.unwrap().userns_options;
        let mapping = vec![IdMapping { host_id: block.first_id(), container_id: 0, length: 65_536 }];
        let told = UserNamespace { mode: NamespaceMode::Pod.into(), uids: mapping.clone(), gids: mapping.clone() };
        assert_eq!((of_sandbox, of_container), (Some(told.clone()), Some(told)));
        assert_eq!((&container.mounts[0].uid_mappings, &container.mounts[0].gid_mappings), (&mapping, &mapping));
        assert!(container.mounts[1].uid_mappings.is_empty(), "the runtime knows how to map an image");
    }

    #[test]
    fn unset_is_the_hosts() {
        let pod = |spec| Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        assert!(are_own(&pod(json!({"hostUsers": false}))));
        assert!(!are_own(&pod(json!({"hostUsers": true}))) && !are_own(&pod(json!({}))));
    }
}
