//! Networking as CRI's published validation suite asks for it: names, DNS, ports of pods and of the host. And the pods'
//! rules, which come back by themselves.

mod ground;

use std::io;
use std::net::Ipv4Addr;

use gantry_cri::v1::{self, NamespaceMode};
use ground::{Client, Ground, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SLEEP: [&str; 2] = ["sleep", "1000"];
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

fn on_host(config: &mut v1::PodSandboxConfig) {
    let options = v1::NamespaceOption { network: NamespaceMode::Node as i32, ..v1::NamespaceOption::default() };
    let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux = Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
}

/// A runtime on a host that has an address: who speaks to a pod must come from somewhere.
async fn serve(ground: &Ground) -> (gantry_runtime::Runtime, Client) {
    // A second time it is there already.
    let _ = std::process::Command::new("busybox").args(["ip", "addr", "add", "192.0.2.9/32", "dev", "lo"]).output();
    ground.serve().await
}

/// What a server at that address says back.
async fn echoed(at: (Ipv4Addr, u16), words: &str) -> io::Result<String> {
    let answer = tokio::time::timeout(WAIT * ground::patience(), ask(at, words)).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(at: (Ipv4Addr, u16), words: &str) -> io::Result<String> {
    let (mut read, mut write) = TcpStream::connect(at).await?.into_split();
    let mut answer = String::new();
    // At once: who echoes takes no more than it can give.
    let say = async {
        write.write_all(words.as_bytes()).await?;
        write.shutdown().await
    };
    tokio::try_join!(say, read.read_to_string(&mut answer))?;
    Ok(answer)
}

/// Until it listens.
async fn echoes(at: (Ipv4Addr, u16), words: &str) {
    for _ in 0..2000 * ground::patience() {
        if echoed(at, words).await.is_ok_and(|answer| answer == words) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nobody says {words:?} at {at:?}: {:?}", echoed(at, words).await);
}

async fn ip(client: &Client, pod: &str) -> Ipv4Addr {
    client.pod_status(pod).await.network.expect("it has one").ip.parse().expect("an address")
}

/// A pod whose one container says back what it hears at port 80.
async fn echo_pod(ground: &Ground, client: &Client, name: &str, ports: Vec<v1::PortMapping>) -> String {
    let config = v1::PodSandboxConfig { port_mappings: ports, ..ground.plain_pod(name) };
    let pod = client.run_pod(&config).await;
    client.started(&pod, ground.plain_container(name, &["nc", "-ll", "-p", "80", "-e", "cat"]), &config).await;
    pod
}

fn port(host_port: i32, host_ip: &str) -> v1::PortMapping {
    v1::PortMapping { host_port, host_ip: host_ip.into(), container_port: 80, ..v1::PortMapping::default() }
}

#[test]
fn a_pod_has_the_names_and_the_dns_that_it_was_given() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let mut config = ground.plain_pod("named");
        config.hostname = "test-hostname".into();
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        config.dns_config = Some(v1::DnsConfig {
            servers: strings(&["10.10.10.10", "10.10.10.11"]),
            searches: strings(&["google.com", "example.org"]),
            options: strings(&["ndots:8"]),
        });
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.plain_container("c", &SLEEP), &config).await;
        assert_eq!(
            client.said(&id, "hostname; cat /etc/hostname; echo $HOSTNAME").await,
            ["test-hostname"; 3].join("\n")
        );
        let dns = "search google.com example.org\nnameserver 10.10.10.10\nnameserver 10.10.10.11\noptions ndots:8";
        assert_eq!(client.said(&id, "cat /etc/resolv.conf").await, dns);
        client.remove_pod(&pod).await;

        // Who says nothing has what the host has: its resolvers, and its name.
        let of_host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let config = ground.plain_pod("nameless");
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.plain_container("c", &SLEEP), &config).await;
        let names = client.said(&id, "hostname; cat /etc/hostname; echo $HOSTNAME").await;
        assert_eq!(names, [of_host.as_str(); 3].join("\n"));
        let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(client.said(&id, "cat /etc/resolv.conf").await, resolvers.trim_end());
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_names() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let mut config = ground.plain_pod("host");
        on_host(&mut config);
        let pod = client.run_pod(&config).await;
        assert_eq!(client.pod_status(&pod).await.network.unwrap_or_default().ip, "");
        let id = client.started(&pod, ground.plain_container("c", &SLEEP), &config).await;
        let of_host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(
            client.said(&id, "hostname; cat /etc/hostname; echo $HOSTNAME").await,
            [of_host.as_str(); 3].join("\n")
        );
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        if !hosts.is_empty() {
            assert_eq!(client.said(&id, "cat /etc/hosts").await, hosts.trim_end());
        }
        // The kubelet gives such a pod the node's name: that is what its files say.
        let mut named = ground.plain_pod("named");
        on_host(&mut named);
        named.hostname = "node-1".into();
        let other = client.run_pod(&named).await;
        let id = client.started(&other, ground.plain_container("n", &SLEEP), &named).await;
        assert_eq!(
            client.said(&id, "cat /etc/hostname; echo $HOSTNAME; hostname").await,
            format!("node-1\nnode-1\n{of_host}")
        );
        // A socket of the host's is one of the container's.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = format!("grep -ci ':{port:04X} 00000000:0000 0A' /proc/net/tcp");
        assert_eq!(client.said(&id, &shown).await, "1");
        for pod in [&pod, &other] {
            client.remove_pod(pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn a_port_without_a_port_of_the_host_is_at_the_pods_address_alone() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let pod = echo_pod(&ground, &client, "pod", vec![port(0, "")]).await;
        echoes((ip(&client, &pod).await, 80), "words").await;
        let error = echoed((Ipv4Addr::LOCALHOST, 80), "words").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// No route_localnet, and reachable all the same: SECURITY.md, row 11.
#[test]
fn a_port_of_the_host_is_at_its_loopback_too() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let local = Ipv4Addr::LOCALHOST;
        let pod = echo_pod(&ground, &client, "pod", vec![port(12_000, ""), port(12_001, "127.0.0.1")]).await;
        echoes((ip(&client, &pod).await, 80), "ready").await;
        let taken = TcpListener::bind((local, 12_002)).await.unwrap();
        let other = echo_pod(&ground, &client, "other", vec![port(12_002, ""), port(12_003, "192.0.2.1")]).await;
        for at in [12_000, 12_001] {
            assert_eq!(echoed((local, at), "words").await.unwrap(), "words");
        }
        assert_eq!(echoed((local, 12_003), "").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let much = "x".repeat(8 << 20);
        for (way, at) in [("directly", (ip(&client, &pod).await, 80)), ("relayed", (local, 12_000))] {
            let begun = tokio::time::Instant::now();
            for _ in 0..100 {
                assert_eq!(echoed(at, "words").await.unwrap(), "words");
            }
            let connections = begun.elapsed();
            assert!(echoed(at, &much).await.unwrap() == much, "{way}");
            println!(
                "{way}: 100 connections in {connections:?}, 8 MiB there and back in {:?}",
                begun.elapsed() - connections
            );
        }
        // What a process of the host has is its own; the pod runs all the same.
        let (told, heard) = tokio::join!(TcpStream::connect((local, 12_002)), taken.accept());
        assert_eq!(told.unwrap().local_addr().unwrap(), heard.unwrap().1);
        for scope in ["all", "default", "lo"] {
            let setting = format!("/proc/sys/net/ipv4/conf/{scope}/route_localnet");
            assert_eq!(std::fs::read_to_string(setting).unwrap().trim(), "0", "{scope}");
        }

        // A runtime that comes back serves them again, and a pod that goes gives them back.
        drop(taken);
        runtime.stop().await;
        assert_eq!(echoed((local, 12_000), "").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (runtime, client) = serve(&ground).await;
        assert_eq!(echoed((local, 12_000), "words").await.unwrap(), "words");
        client.remove_pod(&other).await;
        client.remove_pod(&pod).await;
        TcpListener::bind((local, 12_000)).await.expect("it is free");
        let next = echo_pod(&ground, &client, "next", vec![port(12_000, "")]).await;
        echoes((ip(&client, &next).await, 80), "ready").await;
        assert_eq!(echoed((local, 12_000), "words").await.unwrap(), "words");
        client.remove_pod(&next).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_port_is_free_after_a_stop_whoever_ends_then() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let pod = echo_pod(&ground, &client, "pod", vec![port(12_000, "")]).await;
        // Something has its namespace, so that its link is there for longer than after any other stop.
        let held = std::fs::File::open(ground.config.run_dir.join("ns").join(&pod).join("net")).unwrap();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
        client.runtime.clone().stop_pod_sandbox(request).await.unwrap();
        runtime.stop().await;
        let (runtime, client) = serve(&ground).await;
        let next = echo_pod(&ground, &client, "next", vec![port(12_000, "")]).await;
        echoes((ip(&client, &next).await, 80), "ready").await;
        assert_eq!(echoed((Ipv4Addr::LOCALHOST, 12_000), "words").await.unwrap(), "words");
        drop(held);
        client.remove_pod(&next).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_port_that_cannot_be_had_is_refused_and_nothing_is_left() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let run = async |name: &str, port: v1::PortMapping| {
            let config = Some(v1::PodSandboxConfig { port_mappings: vec![port], ..ground.plain_pod(name) });
            let request = v1::RunPodSandboxRequest { config, runtime_handler: String::new() };
            client.runtime.clone().run_pod_sandbox(request).await
        };
        for (refused, words) in
            [(port(12_000, "fd00::1"), "fd00::1"), (port(70_000, ""), "70000"), (port(80, "x"), "\"x\"")]
        {
            let error = run("refused", refused).await.expect_err(words);
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
            assert!(error.message().contains(words), "{error}");
        }
        let first = run("first", port(12_000, "")).await.unwrap().into_inner().pod_sandbox_id;
        let error = run("second", port(12_000, "")).await.expect_err("it is another pod's");
        assert!(error.message().contains("host port 12000") && error.message().contains(&first), "{error}");
        let listed = client.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().items.len(), 1);
        client.remove_pod(&first).await;
        ground::finish(runtime).await;
    });
}

/// Whoever changes the pods' rules finds them as they were, at once and without anyone's having looked for it.
#[test]
fn rules_that_someone_changed_come_back_by_themselves() {
    with(|ground| async move {
        let (runtime, client) = serve(&ground).await;
        let pod = echo_pod(&ground, &client, "pod", Vec::new()).await;
        let at = (ip(&client, &pod).await, 80);
        echoes(at, "words").await;
        let mut seen = gantry_netlink::nft::Nft::open().unwrap();
        let mut rules = || seen.rules("gantry-pods").unwrap().len();
        let whole = rules();
        assert!(whole > 5);
        for _ in 0..3 {
            gantry_netlink::nft::Nft::open().unwrap().delete_table("gantry-pods").unwrap();
            let mut tries = 0;
            while rules() != whole {
                tries += 1;
                assert!(tries < 10_000, "they do not come back");
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(echoed(at, "words").await.unwrap(), "words");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
