//! Both tables of a node at once: links and host ports as the runtime makes them, services as netproxy makes them. Needs
//! root; plays the host in a network namespace of its own. Without root it says so and passes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Ref;
use gantry_netlink::nft::Nft;
use gantry_netlink::route::{Address, Routes, Veth};
use gantry_netproxy::apply::Kernel;
use gantry_netproxy::image::Image;
use gantry_netproxy::model::{self, Service, ServicePort, Slice, SliceEndpoint, SlicePort};
use gantry_netproxy::plan::{self, Claims, Wanted};
use gantry_netproxy::ruleset::{self, Cluster};
use gantry_runtime::network::{Config, HostPort, Network, Protocol};
use nix::sched::{CloneFlags, setns, unshare};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const WAIT: Duration = Duration::from_millis(1500);
const PORT: u16 = 8080;

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// Says "own address, client's address" to whoever connects.
fn serve(own: Ipv4Addr) {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.write_all(format!("{own} {}", peer.ip()).as_bytes());
        }
    });
}

/// (Who answered, as whom it saw the client.)
fn ask(address: SocketAddrV4) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (own, client) = text.split_once(' ')?;
    Some((own.parse().ok()?, client.parse().ok()?))
}

struct Pod {
    netns: File,
    path: PathBuf,
    ip: Ipv4Addr,
}

fn pod(network: &Network, folder: &Path, name: &str, ports: &[HostPort]) -> Pod {
    let path = folder.join("netns").join(name);
    network.create_netns(&path).unwrap();
    let ip = network.attach(name, &path, ports).unwrap().ip;
    let netns = File::open(&path).unwrap();
    inside(&netns, || serve(ip));
    Pod { netns, path, ip }
}

/// A machine on the node's segment that knows no way to any pod.
fn outside() -> File {
    let netns = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Routes::open().unwrap().set_up(1).unwrap();
        File::open(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap()
    });
    let mut routes = Routes::open().unwrap();
    let veth = Veth {
        name: "up0",
        mac: [2, 0, 0, 0, 0, 1],
        peer_name: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 2],
        peer_netns: netns.as_fd(),
        mtu: 1500,
    };
    routes.add_veth(&veth).unwrap();
    let here = routes.link_index("up0").unwrap();
    routes.set_up(here).unwrap();
    routes.add_address(Address { interface: here, ip: HOST, prefix: 24, scope: 0 }).unwrap();
    inside(&netns, || {
        let mut routes = Routes::open().unwrap();
        let there = routes.link_index("eth0").unwrap();
        routes.set_up(there).unwrap();
        routes.add_address(Address { interface: there, ip: OUTSIDE, prefix: 24, scope: 0 }).unwrap();
        serve(OUTSIDE);
    });
    netns
}

/// One service in a table of its own making.
fn services(endpoints: &[Ipv4Addr]) -> Kernel {
    let cluster =
        Cluster { pods: "10.244.0.0/16".parse().unwrap(), services: "10.96.0.0/16".parse().unwrap(), dns: None };
    let mut kernel = Kernel::open(cluster).unwrap();
    kernel.ensure_routes().unwrap();
    let at = Ref::new("a", "web");
    let (name, protocol) = ("p".to_owned(), model::Protocol::Tcp);
    let service = Service {
        at: at.clone(),
        cluster_ip: Some(VIP),
        headless: false,
        external_name: None,
        ports: vec![ServicePort { name: name.clone(), protocol, port: 80, node_port: Some(30_080) }],
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        publish_not_ready: false,
    };
    let endpoints = endpoints.iter().map(|ip| SliceEndpoint {
        ip: *ip,
        ready: true,
        serving: true,
        terminating: false,
        node: "here".to_owned(),
        hostname: String::new(),
        pod_uid: String::new(),
    });
    let ports = vec![SlicePort { name, protocol, port: PORT }];
    let slice = Slice { at: at.clone(), service: "web".to_owned(), ports, endpoints: endpoints.collect() };
    let (mut claims, mut wanted) = (Claims::default(), Wanted::new());
    let compiled = plan::compile(&service, &[Arc::new(slice)], "here", &Image::default());
    claims.replace(&at, compiled, &mut wanted);
    kernel.rebuild(&plan::plan(&Image::default(), &wanted)).unwrap();
    kernel
}

#[test]
fn pods_host_ports_and_services_share_a_node() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Routes::open().unwrap().set_up(1).unwrap();
        let outside = outside();
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            run_dir: folder.path().join("network"),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            interface_prefix: "gty".to_owned(),
            mtu: 1500,
        };
        let network = Network::open(config).unwrap();
        network.set_pod_cidr("10.244.7.0/24".parse().unwrap()).unwrap();
        let host_port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 9090, container_port: PORT };
        let a = pod(&network, folder.path(), "aaaa", &[]);
        let b = pod(&network, folder.path(), "bbbb", &[host_port]);
        let mut kernel = services(&[b.ip]);
        let (web, node_port) = (SocketAddrV4::new(VIP, 80), SocketAddrV4::new(HOST, 30_080));

        assert_eq!(inside(&a.netns, || ask(web)), Some((b.ip, a.ip)), "a pod keeps its address");
        assert_eq!(ask(web), Some((b.ip, HOST)), "the host comes under its own address");
        let (who, client) = inside(&b.netns, || ask(web)).unwrap();
        assert_eq!(who, b.ip);
        assert_ne!(client, b.ip, "a pod that reaches itself is masqueraded");
        assert_eq!(inside(&a.netns, || ask(node_port)).map(|(who, _)| who), Some(b.ip));
        assert_eq!(inside(&outside, || ask(node_port)).map(|(who, _)| who), Some(b.ip));
        assert_eq!(inside(&outside, || ask(SocketAddrV4::new(HOST, 9090))), Some((b.ip, OUTSIDE)));
        assert_eq!(
            inside(&a.netns, || ask(SocketAddrV4::new(OUTSIDE, PORT))),
            Some((OUTSIDE, HOST)),
            "it left the cluster"
        );
        assert_eq!(inside(&a.netns, || ask(SocketAddrV4::new(b.ip, PORT))), Some((b.ip, a.ip)));

        kernel.cleanup().unwrap();
        for (name, pod) in [("aaaa", &a), ("bbbb", &b)] {
            network.detach(name).unwrap();
            network.delete_netns(&pod.path).unwrap();
        }
        network.cleanup().unwrap();
        let mut nft = Nft::open().unwrap();
        for table in [ruleset::TABLE, "gantry-pods"] {
            assert_eq!(nft.table_comment(table).unwrap(), None, "{table} is left");
        }
        let links: Vec<String> = Routes::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect();
        assert!(!links.iter().any(|name| name.starts_with("gty")), "{links:?}");
    });
}
