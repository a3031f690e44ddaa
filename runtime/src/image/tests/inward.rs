//! Nobody leads this machine to itself: redirects and token servers on addresses that only it can reach.

use std::net::Ipv4Addr;

use gantry_netlink::route::{Address, Routes};

use super::server::blob_path;
use super::*;

const HOST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// This thread, and those that it starts, are on a machine of their own with one address.
fn own_network() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut routes = Routes::open().unwrap();
    routes.set_up(1).unwrap();
    routes.add_address(Address { interface: 1, ip: HOST_IP, prefix: 32, scope: 0 }).unwrap();
    true
}

async fn images(state: &Path, insecure: &Server) -> Images {
    let insecure_registries = vec![insecure.address.to_string()];
    Images::open(Config { insecure_registries, ..config(state) }, Env::system()).await.unwrap()
}

#[tokio::test]
async fn a_registry_elsewhere_leads_to_nothing_on_this_machine() {
    if !own_network() {
        return;
    }
    let registry = Server::start_at(HOST_IP.into(), None).await;
    let (cdn, inside) = (Server::start_at(HOST_IP.into(), None).await, Server::start().await);
    let state = tempfile::tempdir().unwrap();
    let images = images(state.path(), &registry).await;
    let made = image(&two_layers(), gzip);
    let port = inside.address.port();
    inside.put("/secret", Reply::new(200, &made.layers[0]));
    inside.put("/token", Reply::new(200, br#"{"token":"t"}"#));
    for scheme in ["http", "https"] {
        for host in [
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "localhost",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "[fe80::1]",
        ] {
            registry.add("a", "1", &made);
            let to = format!("{scheme}://{host}:{port}/secret");
            registry.put(&blob_path("a", &made.layers[0]), Reply::new(307, b"").header("location", to.clone()));
            let error = images.pull(&registry.reference("a:1"), &Auth::Anonymous, None).await.unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{to}: {}", gantry_env::chain(&error));
            let realm = format!("Bearer realm=\"{scheme}://{host}:{port}/token\"");
            registry.put("/v2/a/manifests/1", Reply::new(401, b"").header("www-authenticate", realm.clone()));
            let error = images.pull(&registry.reference("a:1"), &Auth::Anonymous, None).await.unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{realm}: {}", gantry_env::chain(&error));
        }
    }
    assert_eq!(inside.asked_for_anything(), 0);
    // Where others can reach it too, it leads.
    registry.add("a", "1", &made);
    cdn.put("/layer", Reply::new(200, &made.layers[0]));
    let to = format!("http://{}/layer", cdn.address);
    registry.put(&blob_path("a", &made.layers[0]), Reply::new(307, b"").header("location", to));
    images.pull(&registry.reference("a:1"), &Auth::Anonymous, None).await.unwrap();
}

#[tokio::test]
async fn a_registry_on_this_machine_leads_no_further_inward() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    for to in ["http://169.254.169.254/latest/meta-data", "https://169.254.1.1/x", "https://[fe80::1]/x"] {
        server.put("/v2/a/manifests/1", Reply::new(302, b"").header("location", to));
        let error = images.pull(&server.reference("a:1"), &Auth::Anonymous, None).await.unwrap_err();
        assert!(matches!(error, ImageError::Registry { source: RegistryError::Inward(_), .. }), "{to}");
    }
}

#[tokio::test]
async fn an_operator_may_name_what_a_registry_leads_to() {
    if !own_network() {
        return;
    }
    let registry = Server::start_at(HOST_IP.into(), None).await;
    let inside = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let insecure_registries = vec![registry.address.to_string(), inside.address.to_string()];
    let config = Config { insecure_registries, ..config(state.path()) };
    let images = Images::open(config, Env::system()).await.unwrap();
    let made = image(&two_layers(), gzip);
    registry.add("a", "1", &made);
    inside.put("/layer", Reply::new(200, &made.layers[0]));
    let to = format!("http://{}/layer", inside.address);
    registry.put(&blob_path("a", &made.layers[0]), Reply::new(307, b"").header("location", to));
    images.pull(&registry.reference("a:1"), &Auth::Anonymous, None).await.unwrap();
}
