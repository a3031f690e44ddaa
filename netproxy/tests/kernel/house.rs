//! A host in a network namespace, with three pods (routed links, as the pod network makes them) and a machine outside.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_kube::Ref;
use gantry_netlink::nft::Nft;
use gantry_netlink::route::{Address, Route, Routes, Scope, Veth};
use gantry_netproxy::apply::Kernel;
use gantry_netproxy::image::Image;
use gantry_netproxy::model::{Protocol, Service, ServicePort, Slice, SliceEndpoint, SlicePort};
use gantry_netproxy::plan::{self, Claims, Wanted};
use gantry_netproxy::ruleset::{Cluster, TABLE};
use nix::sched::{CloneFlags, setns, unshare};

pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const POD_A: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
pub const POD_B: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);
pub const POD_C: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 4);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub const WAIT: Duration = Duration::from_millis(1200);
const NODE: &str = "here";
/// Says who answers.
pub const PORT: u16 = 8080;
/// Says who asked.
const MIRROR_PORT: u16 = 8081;

pub type Netns = Arc<File>;

/// A service with its endpoints.
#[derive(Clone, Debug)]
pub struct Spec {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub udp: bool,
    pub node_port: Option<u16>,
    pub endpoints: Vec<Ipv4Addr>,
    pub remote: Vec<Ipv4Addr>,
    pub sticky: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
}

impl Spec {
    pub fn new(ip: Ipv4Addr, port: u16, endpoints: &[Ipv4Addr]) -> Spec {
        Spec {
            ip,
            port,
            udp: false,
            node_port: None,
            endpoints: endpoints.to_vec(),
            remote: Vec::new(),
            sticky: None,
            internal_local: false,
            external_local: false,
        }
    }

    fn objects(&self, name: &str) -> (Service, Vec<Arc<Slice>>) {
        let at = Ref::new("ns", name);
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let port = ServicePort { name: "p".to_owned(), protocol, port: self.port, node_port: self.node_port };
        let service = Service {
            at: at.clone(),
            cluster_ip: Some(self.ip),
            headless: false,
            external_name: None,
            ports: vec![port],
            affinity_seconds: self.sticky,
            internal_local: self.internal_local,
            external_local: self.external_local,
            publish_not_ready: false,
        };
        let endpoints = self.endpoints.iter().map(|ip| SliceEndpoint {
            ip: *ip,
            ready: true,
            serving: true,
            terminating: false,
            node: if self.remote.contains(ip) { "there".to_owned() } else { NODE.to_owned() },
            hostname: String::new(),
            pod_uid: String::new(),
        });
        let ports = vec![SlicePort { name: "p".to_owned(), protocol, port: PORT }];
        let slice = Slice { at, service: name.to_owned(), ports, endpoints: endpoints.collect() };
        (service, vec![Arc::new(slice)])
    }
}

pub struct House {
    pub folder: tempfile::TempDir,
    pub host: Netns,
    pub outside: Netns,
    pods: Vec<(Ipv4Addr, Netns)>,
    state: Mutex<State>,
}

struct State {
    kernel: Kernel,
    claims: Claims,
    image: Image,
}

fn cluster() -> Cluster {
    Cluster {
        pods: "10.244.0.0/16".parse().unwrap(),
        services: "10.96.0.0/16".parse().unwrap(),
        dns: Some((Ipv4Addr::new(10, 96, 0, 10), "169.254.1.53:10053".parse().unwrap())),
    }
}

/// Runs the test in a new host; everything ends with its namespaces.
pub fn as_host(test: impl FnOnce(&House) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test(&House::build());
    });
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn own_netns() -> Netns {
    Arc::new(File::open(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap())
}

fn new_netns() -> Netns {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Routes::open().unwrap().set_up(1).unwrap();
        own_netns()
    })
}

pub fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn route(destination: Ipv4Addr, prefix: u8, interface: u32, gateway: Option<Ipv4Addr>) -> Route {
    let scope = if gateway.is_some() { Scope::Universe } else { Scope::Link };
    Route { destination, prefix, gateway, interface, scope, source: None, protocol: 4 }
}

/// A link from here to another namespace: (index here, index there).
fn link(name: &str, there: &Netns) -> (u32, u32) {
    let mac = |side: u8| [2, side, 0, 0, 0, name.bytes().last().unwrap()];
    let mut routes = Routes::open().unwrap();
    let veth = Veth { name, mac: mac(1), peer_name: "eth0", peer_mac: mac(2), peer_netns: there.as_fd(), mtu: 1500 };
    routes.add_veth(&veth).unwrap();
    let here = routes.link_index(name).unwrap();
    routes.set_up(here).unwrap();
    let there = inside(there, || {
        let mut routes = Routes::open().unwrap();
        let index = routes.link_index("eth0").unwrap();
        routes.set_up(index).unwrap();
        index
    });
    (here, there)
}

fn add_pod(name: &str, ip: Ipv4Addr) -> Netns {
    let netns = new_netns();
    let (here, there) = link(name, &netns);
    let mac = |side: u8| [2, side, 0, 0, 0, name.bytes().last().unwrap()];
    inside(&netns, || {
        let mut routes = Routes::open().unwrap();
        routes.add_address(Address { interface: there, ip, prefix: 32, scope: 0 }).unwrap();
        routes.add_permanent_neighbour(there, GATEWAY, mac(1)).unwrap();
        routes.add_route(&route(GATEWAY, 32, there, None)).unwrap();
        routes.add_route(&route(Ipv4Addr::UNSPECIFIED, 0, there, Some(GATEWAY))).unwrap();
        serve(ip);
    });
    let mut routes = Routes::open().unwrap();
    routes.add_permanent_neighbour(here, ip, mac(2)).unwrap();
    routes.add_route(&route(ip, 32, here, None)).unwrap();
    netns
}

/// Answers on both ports, over TCP and UDP, for as long as the process lives.
fn serve(own: Ipv4Addr) {
    for port in [PORT, MIRROR_PORT] {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let says = if port == PORT { own.to_string() } else { format!("{own} {}", peer.ip()) };
                let _ = stream.write_all(says.as_bytes());
            }
        });
    }
    let udp = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(own.to_string().as_bytes(), peer);
        }
    });
}

pub fn try_ask(address: SocketAddrV4) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub fn ask(address: SocketAddrV4) -> Option<String> {
    try_ask(address).ok()
}

pub fn exchange(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn ask_udp(address: SocketAddrV4) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(address)?;
    exchange(&socket)
}

/// As whom the endpoint sees a client that comes through this address: it is asked through a service of its own.
pub fn seen_as(through: SocketAddrV4, endpoint: Ipv4Addr) -> String {
    for _ in 0..200 {
        let mirror = SocketAddrV4::new(*through.ip(), through.port() + 1);
        let said = try_ask(mirror).unwrap();
        let (who, whom) = said.split_once(' ').unwrap();
        if who == endpoint.to_string() {
            return whom.to_owned();
        }
    }
    panic!("{endpoint} was never reached through {through}");
}

impl House {
    fn build() -> House {
        let mut routes = Routes::open().unwrap();
        routes.set_up(1).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let outside = new_netns();
        let (here, there) = link("up0", &outside);
        routes.add_address(Address { interface: here, ip: HOST, prefix: 24, scope: 0 }).unwrap();
        inside(&outside, || {
            Routes::open()
                .unwrap()
                .add_address(Address { interface: there, ip: OUTSIDE, prefix: 24, scope: 0 })
                .unwrap();
        });
        let pods = [("pod-a", POD_A), ("pod-b", POD_B), ("pod-c", POD_C)];
        let pods = pods.map(|(name, ip)| (ip, add_pod(name, ip)));
        let state = Mutex::new(State::begin());
        House { folder: tempfile::tempdir().unwrap(), host: own_netns(), outside, pods: pods.to_vec(), state }
    }

    pub fn pod(&self, ip: Ipv4Addr) -> Netns {
        self.pods.iter().find(|(known, _)| *known == ip).unwrap().1.clone()
    }

    pub fn inside_pod<T: Send>(&self, ip: Ipv4Addr, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.pod(ip), work)
    }

    /// What a process of the host's own network would serve.
    pub fn serve_on_host(&self) {
        serve(HOST);
    }

    /// Brings a service in, or takes it out. A TCP service brings the mirror along, on the next port.
    pub fn set(&self, name: &str, spec: Option<&Spec>) {
        let mut state = self.state.lock().unwrap();
        state.set(name, spec.map(|spec| spec.objects(name)));
        let mirror = spec.filter(|spec| !spec.udp).map(|spec| {
            let next = Spec { port: spec.port + 1, node_port: spec.node_port.map(|p| p + 1), ..spec.clone() };
            let (service, slices) = next.objects(name);
            let mut slice = (*slices[0]).clone();
            slice.ports[0].port = MIRROR_PORT;
            (service, vec![Arc::new(slice)])
        });
        // Only where the test looks at it: a refused port next door must stay refused.
        if spec.is_none_or(|spec| !spec.endpoints.is_empty()) {
            state.set(&format!("{name}-mirror"), mirror);
        }
    }

    /// One of each kind of thing that the table can hold.
    pub fn everything(&self) {
        let vip = |last| Ipv4Addr::new(10, 96, 0, last);
        let all = [POD_A, POD_B, POD_C];
        self.set("web", Some(&Spec { node_port: Some(30_080), ..Spec::new(vip(20), 80, &all) }));
        self.set("none", Some(&Spec { node_port: Some(30_090), ..Spec::new(vip(21), 80, &[]) }));
        self.set("udp", Some(&Spec { udp: true, node_port: Some(30_053), ..Spec::new(vip(22), 53, &all[..2]) }));
        let sticky = Spec { sticky: Some(600), node_port: Some(30_100), ..Spec::new(vip(23), 80, &all) };
        self.set("sticky", Some(&sticky));
        let local = Spec { external_local: true, node_port: Some(30_110), ..Spec::new(vip(24), 80, &all[..1]) };
        self.set("local", Some(&local));
        let remote = Spec { internal_local: true, remote: vec![POD_C], ..Spec::new(vip(25), 80, &all[2..]) };
        self.set("dropped", Some(&remote));
        assert!(ask(SocketAddrV4::new(vip(23), 80)).is_some());
    }

    pub fn image(&self) -> Image {
        self.state.lock().unwrap().kernel.read().unwrap().expect("the table has our rules")
    }

    pub fn generation(&self) -> u32 {
        Nft::open().unwrap().generation().unwrap()
    }

    /// As a new process would: everything from the kernel, and from the claims.
    pub fn restart(&self) {
        let mut state = self.state.lock().unwrap();
        let claims = std::mem::take(&mut state.claims);
        *state = State::begin_with(claims);
    }

    pub fn cleanup(&self) {
        self.state.lock().unwrap().kernel.cleanup().unwrap();
    }
}

impl State {
    fn begin() -> State {
        State::begin_with(Claims::default())
    }

    fn begin_with(claims: Claims) -> State {
        let mut kernel = Kernel::open(cluster()).unwrap();
        let read = kernel.read().unwrap();
        let mut image = read.clone().unwrap_or_default();
        let plan = plan::plan(&image, &claims.wanted(&image));
        if read.is_some() {
            kernel.apply(&plan, &mut image).unwrap();
        } else if !claims.is_empty() {
            image = kernel.rebuild(&plan).unwrap();
        }
        State { kernel, claims, image }
    }

    fn set(&mut self, name: &str, objects: Option<(Service, Vec<Arc<Slice>>)>) {
        if self.kernel.read().unwrap().is_none() {
            self.kernel.ensure_routes().unwrap();
            self.image = self.kernel.rebuild(&plan::Plan::default()).unwrap();
        }
        let compiled = objects.map(|(service, slices)| plan::compile(&service, &slices, NODE, &self.image));
        let mut wanted = Wanted::new();
        self.claims.replace(&Ref::new("ns", name), compiled.unwrap_or_default(), &mut wanted);
        let plan = plan::plan(&self.image, &wanted);
        self.kernel.apply(&plan, &mut self.image).unwrap();
        if plan.touches_affinity() {
            self.kernel.forget_affinity(&self.image).unwrap();
        }
        if plan.touches_udp() {
            self.kernel.forget_flows(&self.image).unwrap();
        }
    }
}

/// Tables, routes and addresses.
pub fn state_of_the_host() -> (BTreeSet<String>, Option<String>) {
    let mut routes = Routes::open().unwrap();
    let addresses = routes.addresses().unwrap();
    let mut state: BTreeSet<String> = addresses.iter().map(|address| format!("{address:?}")).collect();
    for protocol in 0..=u8::MAX {
        state.extend(routes.routes(protocol).unwrap().iter().map(|route| format!("{route:?}")));
    }
    (state, Nft::open().unwrap().table_comment(TABLE).unwrap())
}

pub mod nft {
    use std::process::Command;

    pub fn is_there() -> bool {
        Command::new("nft").arg("--version").output().is_ok()
    }

    pub fn run(arguments: &[&str]) -> String {
        let output = Command::new("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
