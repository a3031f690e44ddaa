//! Records as CRI shows them, and the events that carry them.

use gantry_base::Id;
use gantry_base::codec::Wire;
use gantry_base::launch::Ids;
use gantry_base::layout;
use gantry_cri::v1::{self, ContainerEventType};

use super::Node;
use crate::records::{ContainerRecord, ContainerState, SandboxRecord, SandboxState};

pub fn container_state(record: &ContainerRecord) -> v1::ContainerState {
    match record.state() {
        // Being started is not yet running, and what is not shown as created could be started twice.
        ContainerState::Created | ContainerState::Starting => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
    }
}

pub fn sandbox_state(record: &SandboxRecord) -> v1::PodSandboxState {
    match record.state() {
        SandboxState::Ready => v1::PodSandboxState::SandboxReady,
        SandboxState::Creating | SandboxState::NotReady => v1::PodSandboxState::SandboxNotready,
    }
}

impl Node {
    pub fn sandbox_status(&self, record: &SandboxRecord) -> v1::PodSandboxStatus {
        let none = v1::PodSandboxConfig::default();
        let config = record.config.as_ref().unwrap_or(&none);
        let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone());
        let namespaces = v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) };
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            state: sandbox_state(record) as i32,
            created_at: record.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: record.ip.clone(), additional_ips: Vec::new() }),
            linux: Some(namespaces),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    pub fn container_status(&self, record: &ContainerRecord) -> v1::ContainerStatus {
        let none = v1::ContainerConfig::default();
        let config = record.config.as_ref().unwrap_or(&none);
        let resources = record.resources.clone();
        v1::ContainerStatus {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            state: container_state(record) as i32,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            image: config.image.clone(),
            image_ref: record.image_ref.clone(),
            reason: record.reason.clone(),
            message: record.message.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: record.log_path.clone(),
            resources: resources.map(|linux| v1::ContainerResources { linux: Some(linux), windows: None }),
            image_id: record.image_id.clone(),
            user: self.user_of(record),
            stop_signal: config.stop_signal,
        }
    }

    fn user_of(&self, record: &ContainerRecord) -> Option<v1::ContainerUser> {
        let id = Id::parse(&record.id).ok()?;
        let bundle = self.records.bundle(&record.sandbox, &id);
        let read = |name| std::fs::read(bundle.join(name));
        let bytes = read(layout::IDS).or_else(|_| read(layout::MAPPED_IDS)).ok()?;
        let ids = Ids::take(&mut bytes.as_slice()).ok()?;
        Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: ids.uid.into(),
                gid: ids.gid.into(),
                supplemental_groups: ids.groups.into_iter().map(i64::from).collect(),
            }),
        })
    }

    pub fn list_container(&self, record: &ContainerRecord) -> v1::Container {
        let none = v1::ContainerConfig::default();
        let config = record.config.as_ref().unwrap_or(&none);
        v1::Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: record.image_ref.clone(),
            state: container_state(record) as i32,
            created_at: record.created_at,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            image_id: record.image_id.clone(),
        }
    }

    /// Tells listeners of an event of a container, or of a sandbox by its own id.
    pub fn emit(&self, id: &str, kind: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let sandbox = self.container(id).map_or_else(|_| id.to_owned(), |r| r.sandbox);
        let status = self.sandbox(&sandbox).ok().map(|r| self.sandbox_status(&r));
        let containers = self.containers_of(&sandbox);
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: self.now_ns(),
            pod_sandbox_status: status,
            containers_statuses: containers.iter().map(|r| self.container_status(r)).collect(),
        };
        // Nobody may be listening any more; that is no error.
        let _ = self.events.send(event);
    }
}
