//! A control service of its own for each test, with no controllers in it.

use gantry_client::Client;
use gantry_control::auth::Identity;
use gantry_control::control::{Config, Control};
use gantry_env::Env;

pub struct House {
    _root: tempfile::TempDir,
    pub env: Env,
    pub control: Control,
}

impl House {
    pub async fn start() -> House {
        let root = tempfile::tempdir().unwrap();
        let env = Env::system();
        let config = Config {
            data_dir: root.path().join("control"),
            admin_kubeconfig: root.path().join("admin.kubeconfig"),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: "127.0.0.1".parse().unwrap(),
            addresses: Vec::new(),
            hostname: "localhost".to_owned(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            node_cidr_mask: 24,
            cluster_domain: "cluster.local".to_owned(),
            store: gantry_control::StoreConfig::Embedded,
            encryption: None,
            run_controllers: false,
            env: env.clone(),
        };
        let control = Control::start(config).await.unwrap();
        House { _root: root, env, control }
    }

    pub fn client(&self, identity: Identity) -> Client {
        Client::new(self.control.client(identity), "test")
    }
}
