//! What a change of one service costs, with none, 1,000 and 5,000 others present: through the plans and netlink batches of
//! `gantry-netproxy`, and through the `nft` program for comparison. Works in a network namespace of its own; needs root.

#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Ref;
use gantry_netproxy::apply::Kernel;
use gantry_netproxy::image::Image;
use gantry_netproxy::model::{Protocol, Service, ServicePort, Slice, SliceEndpoint, SlicePort};
use gantry_netproxy::plan::{self, Claims, Wanted};
use gantry_netproxy::ruleset::Cluster;
use tokio::time::Instant;

const PRESENT: [u32; 3] = [0, 1_000, 5_000];
const ENDPOINTS: u32 = 3;
const TRIES: u32 = 200;
const NFT_TRIES: u32 = 20;
/// Beyond every service that is present.
const PROBE: u32 = 60_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Proxy {
    kernel: Kernel,
    claims: Claims,
    image: Image,
}

fn endpoint(number: u32) -> SliceEndpoint {
    SliceEndpoint {
        ip: Ipv4Addr::from(0x0af4_0000 + number),
        ready: true,
        serving: true,
        terminating: false,
        node: "elsewhere".to_owned(),
        hostname: String::new(),
        pod_uid: String::new(),
    }
}

fn objects(number: u32, endpoints: impl Iterator<Item = u32>) -> (Service, Vec<Arc<Slice>>) {
    let at = Ref::new("bench", format!("svc-{number}"));
    let port = ServicePort { name: "p".to_owned(), protocol: Protocol::Tcp, port: 80, node_port: None };
    let service = Service {
        at: at.clone(),
        cluster_ip: Some(Ipv4Addr::from(0x0a60_0000 + number)),
        headless: false,
        external_name: None,
        ports: vec![port],
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        publish_not_ready: false,
    };
    let ports = vec![SlicePort { name: "p".to_owned(), protocol: Protocol::Tcp, port: 8080 }];
    let slice = Slice { at: at.clone(), service: at.name, ports, endpoints: endpoints.map(endpoint).collect() };
    (service, vec![Arc::new(slice)])
}

impl Proxy {
    /// A table with so many services in it; how long that took.
    fn load(services: u32) -> Result<(Proxy, Duration), Failure> {
        let cluster = Cluster { pods: "10.244.0.0/16".parse()?, services: "10.96.0.0/16".parse()?, dns: None };
        let mut proxy = Proxy { kernel: Kernel::open(cluster)?, claims: Claims::default(), image: Image::default() };
        let start = Instant::now();
        let mut wanted = Wanted::new();
        for number in 1..=services {
            let (service, slices) = objects(number, number..number + ENDPOINTS);
            let compiled = plan::compile(&service, &slices, "here", &proxy.image);
            proxy.claims.replace(&service.at, compiled, &mut wanted);
        }
        proxy.image = proxy.kernel.rebuild(&plan::plan(&proxy.image, &wanted))?;
        Ok((proxy, start.elapsed()))
    }

    /// Everything that one change takes: compile, plan, commits.
    fn change(&mut self, number: u32, endpoints: Option<&[u32]>) -> Result<Duration, Failure> {
        let start = Instant::now();
        let mut wanted = Wanted::new();
        let at = Ref::new("bench", format!("svc-{number}"));
        let compiled = match endpoints {
            Some(endpoints) => {
                let (service, slices) = objects(number, endpoints.iter().copied());
                plan::compile(&service, &slices, "here", &self.image)
            }
            None => Default::default(),
        };
        self.claims.replace(&at, compiled, &mut wanted);
        let plan = plan::plan(&self.image, &wanted);
        self.kernel.apply(&plan, &mut self.image)?;
        Ok(start.elapsed())
    }
}

/// p50 / p99 in microseconds.
fn line(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_micros();
    println!("  {name:<28} {:>7} / {:>7}", at(50), at(99));
}

fn through_netlink(proxy: &mut Proxy) -> Result<(), Failure> {
    let (three, other, two) = ([1, 2, 3], [1, 9, 3], [1, 3]);
    let (mut add, mut replace, mut shrink, mut grow, mut delete) = (vec![], vec![], vec![], vec![], vec![]);
    // The sets and chains of both numbers are there before anything is measured.
    for endpoints in [&three[..], &two[..]] {
        proxy.change(PROBE, Some(endpoints))?;
    }
    proxy.change(PROBE, None)?;
    for _ in 0..TRIES {
        add.push(proxy.change(PROBE, Some(&three))?);
        replace.push(proxy.change(PROBE, Some(&other))?);
        shrink.push(proxy.change(PROBE, Some(&two))?);
        grow.push(proxy.change(PROBE, Some(&three))?);
        delete.push(proxy.change(PROBE, None)?);
    }
    line("add a service", add);
    line("replace an endpoint", replace);
    line("one endpoint less", shrink);
    line("one endpoint more", grow);
    line("delete a service", delete);
    let mut first = Vec::new();
    for number in 10..30 {
        let many: Vec<u32> = (1..=number).collect();
        first.push(proxy.change(PROBE, Some(&many))?);
        proxy.change(PROBE, None)?;
    }
    line("a number never seen before", first);
    Ok(())
}

fn nft(command: &str) -> Result<Duration, Failure> {
    let start = Instant::now();
    let output = Command::new("nft").arg(command).output()?;
    if !output.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(start.elapsed())
}

fn through_nft() -> Result<(), Failure> {
    let (mut add, mut replace, mut delete) = (vec![], vec![], vec![]);
    let key = "10.96.234.97 . tcp . 80";
    let elements = |verb: &str, data: bool| {
        let data = |i: u32| if data { format!(" : 10.244.0.{i} . 8080") } else { String::new() };
        let endpoints: Vec<String> = (0..3).map(|i| format!("{key} . {i}{}", data(i + 1))).collect();
        format!(
            "{verb} element inet gantry services-3 {{ {key} }}; {verb} element inet gantry services-endpoints {{ {} }}",
            endpoints.join(", ")
        )
    };
    for _ in 0..NFT_TRIES {
        add.push(nft(&elements("add", true))?);
        replace.push(nft(&format!(
            "delete element inet gantry services-endpoints {{ {key} . 1 }}; \
             add element inet gantry services-endpoints {{ {key} . 1 : 10.244.0.9 . 8080 }}"
        ))?);
        delete.push(nft(&elements("delete", false))?);
    }
    line("nft: add a service", add);
    line("nft: replace an endpoint", replace);
    line("nft: delete a service", delete);
    Ok(())
}

fn run() -> Result<(), Failure> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let has_nft = Command::new("nft").arg("--version").output().is_ok();
    println!("microseconds, p50 / p99");
    for present in PRESENT {
        let (mut proxy, took) = Proxy::load(present)?;
        println!("{present} services of {ENDPOINTS} endpoints present (loaded in {} ms)", took.as_millis());
        through_netlink(&mut proxy)?;
        if has_nft {
            proxy.change(PROBE - 1, Some(&[1, 2, 3]))?;
            through_nft()?;
        }
        proxy.kernel.cleanup()?;
    }
    Ok(())
}

/// On a thread of its own: the namespace ends with it.
fn main() -> Result<(), Failure> {
    std::thread::spawn(run).join().unwrap_or_else(|_| Err("the benchmark panicked".into()))
}
