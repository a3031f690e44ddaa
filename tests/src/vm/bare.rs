//! The scenario of an empty root: a machine whose tree holds Gantry's two programs and process 1, which is this program, static
//! all three, and nothing else. What a user brings (kubectl, an image) is in the folder that the host shares.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_netlink::route::{Address, Route, Routes, Scope, Veth};
use tokio::process::Command;

use super::guest::{MOUNTS, SHARED};
use crate::cluster::{IMAGE, NODE_IP, demo_image};
use crate::kubectl::Kubectl;

type Failure = Box<dyn Error>;

const GANTRY: &str = "/bin/gantry";
/// What the tree holds, beside folders to mount things on.
const PROGRAMS: [&str; 3] = [GANTRY, "/bin/gantry-supervisor", INIT];
pub const INIT: &str = "/init";
const KUBECTL: &str = "kubectl";
const ARCHIVE: &str = "demo.tar";
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const FETCH_POLL: Duration = Duration::from_millis(100);
const FETCHES: u32 = 100;
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: IMAGE
        command: [sh, -c, 'echo the page is served; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// On the host: the tree in `root`, and what a user brings in `shared`. The programs in `bin` are static, `kubectl` too.
pub fn lay(root: &Path, shared: &Path, bin: &Path, kubectl: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (_, at, ..) in MOUNTS {
        std::fs::create_dir_all(root.join(&at[1..]))?;
    }
    for folder in ["bin", "etc", &SHARED[1..]] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for (path, name) in PROGRAMS.iter().zip(["gantry", "gantry-supervisor", "vm"]) {
        std::fs::copy(bin.join(name), root.join(&path[1..]))?;
    }
    std::fs::copy(kubectl, shared.join(KUBECTL))?;
    std::fs::write(shared.join(ARCHIVE), demo_image())
}

/// In the machine. Panics where something is not as it should be.
pub fn run() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(scenario())
}

async fn scenario() -> Result<(), Failure> {
    let before = tree();
    let programs: BTreeSet<PathBuf> = before.iter().filter(|path| is_program(path)).cloned().collect();
    println!("every program that there is: {programs:?}; every file: {}", before.len());
    assert_eq!(programs, PROGRAMS.map(PathBuf::from).into_iter().collect(), "the root is not empty");
    uplink()?;

    print!("{}", gantry(&["up", "--detach"]).await?);
    let archive = Path::new(SHARED).join(ARCHIVE).display().to_string();
    print!("{}", gantry(&["image", "import", &archive]).await?);
    let kubectl = Kubectl::at(Path::new(SHARED).join(KUBECTL), Path::new("/etc/gantry/admin.kubeconfig"));
    kubectl.with_input(&["apply", "-f", "-"], &WEB.replace("IMAGE", IMAGE)).await?;
    kubectl.must(&["rollout", "status", "deployment/web", "--timeout=90s"]).await;
    print!("{}", kubectl.must(&["get", "nodes,pods,services", "-o", "wide"]).await);

    let pod = kubectl.must(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).await;
    let address = kubectl.must(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).await;
    let page = fetch(&address).await?;
    assert!(page.contains("Hello from the image."), "{page}");
    let name = "http://web.default.svc.cluster.local/index.html";
    let page = kubectl.must(&["exec", &pod, "--", "/bin/busybox", "wget", "-q", "-O", "-", name]).await;
    assert!(page.contains("Hello from the image."), "{page}");
    let log = kubectl.must(&["logs", &pod]).await;
    assert!(log.contains("the page is served"), "{log}");

    print!("{}", gantry(&["trace", "pod", &pod]).await?);
    print!("{}", gantry(&["down", "--grace", "1"]).await?);
    print!("{}", gantry(&["uninstall"]).await?);
    let after = tree();
    let differ: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(differ.is_empty(), "uninstall leaves another tree than it found: {differ:?}");
    Ok(())
}

/// What a kernel is given by `ip=` on its command line: an address, and a route that leads out.
fn uplink() -> Result<(), Failure> {
    let own = std::fs::File::open("/proc/self/ns/net")?;
    let mut routes = Routes::open()?;
    let (mac, peer_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let peer_netns = std::os::fd::AsFd::as_fd(&own);
    routes.add_veth(&Veth { name: "node0", mac, peer_name: "segment", peer_mac, peer_netns, mtu: 1500 })?;
    let ip: Ipv4Addr = NODE_IP.parse()?;
    let interface = routes.link_index("node0")?;
    for index in [interface, routes.link_index("segment")?] {
        routes.set_up(index)?;
    }
    routes.add_address(Address { interface, ip, prefix: 24, scope: 0 })?;
    let [a, b, c, _] = ip.octets();
    let route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
        gateway: Some(Ipv4Addr::new(a, b, c, 1)),
        interface,
        scope: Scope::Universe,
        source: None,
        protocol: 3,
    };
    Ok(routes.add_route(&route)?)
}

async fn gantry(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(GANTRY).args(arguments).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("gantry {arguments:?}: {}{}", text(&output.stderr), text(&output.stdout)).into())
    }
}

/// The page behind a service's address; its rules may come a moment after its pods are ready.
async fn fetch(address: &str) -> Result<String, Failure> {
    let once = || {
        let mut stream = TcpStream::connect_timeout(&format!("{address}:80").parse()?, FETCH_TIMEOUT)?;
        stream.set_read_timeout(Some(FETCH_TIMEOUT))?;
        write!(stream, "GET /index.html HTTP/1.0\r\nHost: web\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok::<_, Failure>(page)
    };
    for _ in 1..FETCHES {
        if let Ok(page) = once() {
            return Ok(page);
        }
        tokio::time::sleep(FETCH_POLL).await;
    }
    once()
}

/// Every file of the tree, but for what the kernel shows as files and what the host shares.
fn tree() -> BTreeSet<PathBuf> {
    let (mut files, mut folders) = (BTreeSet::new(), vec![PathBuf::from("/")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            if ["/proc", "/sys", "/dev", SHARED].iter().any(|other| path.starts_with(other)) {
                continue;
            }
            if kind.is_ok_and(|kind| kind.is_dir()) {
                folders.push(path.clone());
            }
            files.insert(path);
        }
    }
    files
}

fn is_program(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir() && meta.permissions().mode() & 0o111 != 0)
}
