//! Where Gantry's files are on a host. Every role is handed these; nothing else spells a path.

use std::path::{Path, PathBuf};

/// The folders of one host. `--root DIR` moves them all, so that tests leave the host alone.
#[derive(Clone, Debug)]
pub struct Paths {
    pub state: PathBuf,
    pub run: PathBuf,
    pub etc: PathBuf,
    pub pod_logs: PathBuf,
    pub container_logs: PathBuf,
}

impl Paths {
    pub fn under(root: &Path) -> Paths {
        Paths {
            state: root.join("var/lib/gantry"),
            run: root.join("run/gantry"),
            etc: root.join("etc/gantry"),
            pod_logs: root.join("var/log/pods"),
            container_logs: root.join("var/log/containers"),
        }
    }

    pub fn control(&self) -> PathBuf {
        self.state.join("control")
    }

    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.etc.join("admin.kubeconfig")
    }

    pub fn node_credentials(&self) -> PathBuf {
        self.etc.join("node")
    }

    pub fn manifests(&self) -> PathBuf {
        self.etc.join("manifests")
    }

    pub fn cri_socket(&self) -> PathBuf {
        self.run.join("cri.sock")
    }

    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    pub fn lock(&self, role: &str) -> PathBuf {
        self.run.join(format!("{role}.lock"))
    }

    pub fn log(&self) -> PathBuf {
        self.state.join("gantry.log")
    }
}
