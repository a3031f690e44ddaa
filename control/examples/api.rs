//! The control service alone, in a folder of its own, for trying out: `cargo run -p gantry-control --example api DIR PORT`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gantry_control::{Config, Control};
use gantry_env::{Env, chain};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(arguments.next().unwrap_or_else(|| "/tmp/gantry-api".to_owned()));
    let port = arguments.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    let config = Config {
        admin_kubeconfig: folder.join("admin.kubeconfig"),
        data_dir: folder,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        addresses: Vec::new(),
        hostname: "localhost".to_owned(),
        service_cidr: "10.96.0.0/16".parse().unwrap_or_default(),
        pod_cidr: "10.244.0.0/16".parse().unwrap_or_default(),
        node_cidr_mask: 24,
        cluster_domain: "cluster.local".to_owned(),
        store: gantry_control::StoreConfig::Embedded,
        encryption: None,
        run_controllers: true,
        env: Env::system(),
    };
    match Control::start(config).await {
        Ok(control) => {
            println!("{}", control.address());
            let _ = tokio::signal::ctrl_c().await;
            control.stop().await;
        }
        Err(error) => eprintln!("{}", chain(&error)),
    }
}
