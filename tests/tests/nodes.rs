//! Three machines on one segment are one cluster: `vm run nodes --nodes 3`. Each runs this file and learns which of them it is;
//! they meet in a folder that all of them see. The first carries the control service and asks the questions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gantry_tests::cluster::{Cluster, Machine};
use gantry_tests::vm::{self, Here, Seat};

const ROOT: &str = "/tmp/node";
const POLL: Duration = Duration::from_millis(50);

/// Three web servers that say where they are, spread over the nodes, and given up two seconds after their node.
const WEB: &str = r#"---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, selector: {matchLabels: {app: web}},
 template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0,
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
   labelSelector: {matchLabels: {app: web}}}],
  tolerations: [
   {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2},
   {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}],
  containers: [{name: main, image: "gantry.local/demo:1", env: [
    {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}],
   command: [sh, -c, "mkdir /tmp/w; echo I am on $NODE | tee /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web},
 spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}
"#;

fn name(node: u32) -> String {
    format!("node-{node}")
}

/// Addresses for documentation (RFC 5737): of the segment, and of what is laid over it.
fn address(node: u32) -> String {
    format!("198.51.100.{node}")
}

fn overlay(node: u32) -> String {
    format!("203.0.113.{node}")
}

fn run(program: &str, words: &str) -> bool {
    Command::new(program).args(words.split(' ')).status().is_ok_and(|status| status.success())
}

fn ip(words: &str) {
    assert!(run("ip", words), "ip {words}");
}

#[test]
fn three_machines_are_one_cluster() {
    let Some((here, seat)) = vm::here().and_then(|here| Some((here.clone(), here.seat()?))) else {
        println!("SKIPPED: no machines on a segment; vm run nodes --nodes 3");
        return;
    };
    std::fs::create_dir(ROOT).unwrap();
    let machine = Machine::whole(Path::new(ROOT));
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let node = Node { here, seat };
    tokio.block_on(async {
        if node.seat.node == 1 {
            // Whatever happens to the first, the others go home.
            let _end = At(node.seat.meeting.join("end"));
            node.lead(&machine).await;
        } else {
            node.follow(&machine).await;
        }
    });
}

struct Node {
    here: Here,
    seat: Seat,
}

/// Says its word when it is dropped.
struct At(PathBuf);

impl Drop for At {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.0, "");
    }
}

impl Node {
    /// The segment, and over it a second one.
    fn connect(&self) {
        let n = self.seat.node;
        // A young machine's dice may be another's too.
        ip(&format!("link set vec0 address 02:00:00:00:00:{n:02x}"));
        ip("link set vec0 up");
        ip(&format!("addr add {}/24 dev vec0", address(n)));
        ip("link add vx0 type vxlan id 7 dev vec0 group 239.1.1.1 dstport 4789");
        ip(&format!("addr add {}/24 dev vx0", overlay(n)));
        ip("link set vx0 up");
    }

    fn say(&self, word: &str, text: &str) {
        // Whole or not at all: the others look at any moment.
        let new = self.seat.meeting.join(format!("{word}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.seat.meeting.join(word)).unwrap();
    }

    fn said(&self, word: &str) -> bool {
        self.seat.meeting.join(word).exists()
    }

    async fn hear(&self, word: &str) {
        while !self.said(word) {
            assert!(!self.said("end"), "the first node has ended before {word}");
            tokio::time::sleep(POLL).await;
        }
    }

    fn others(&self) -> impl Iterator<Item = u32> {
        let own = self.seat.node;
        (1..=self.seat.nodes).filter(move |n| *n != own)
    }

    async fn reaches(&self, address: impl Fn(u32) -> String) {
        for n in self.others() {
            let ping = format!("ping -c 1 -W 1 -q {}", address(n));
            while !run("busybox", &ping) {
                assert!(!self.said("end"), "the first node has ended before {ping}");
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// What an administrator does where nothing else keeps the routes: each node's pods are behind its address.
    fn route(&self) {
        for line in std::fs::read_to_string(self.seat.meeting.join("routes")).unwrap().lines() {
            if !line.ends_with(&format!("via {}", address(self.seat.node))) {
                ip(&format!("route replace {line}"));
            }
        }
    }

    async fn follow(&self, machine: &Machine) {
        let n = self.seat.node;
        if self.here.boot > 0 {
            self.hear("back").await;
        }
        self.connect();
        let mut cluster = Cluster::idle(machine, &name(n), &address(n));
        let folder = machine.root().join("etc/gantry");
        std::fs::create_dir_all(&folder).unwrap();
        self.hear("credentials").await;
        assert!(run("cp", &format!("-r {}/{} {}/node", self.seat.meeting.display(), name(n), folder.display())));
        cluster.start("agent").await;
        cluster.import().await;
        self.hear("routes").await;
        self.route();
        self.say(&format!("joined-{n}-{}", self.here.boot), "");
        while !self.said("end") {
            if self.here.boot == 0 && self.said(&format!("off-{n}")) {
                self.here.cut_power();
            }
            tokio::time::sleep(POLL).await;
        }
        cluster.uninstall().await;
    }

    async fn lead(&self, machine: &Machine) {
        self.connect();
        let mut cluster = Cluster::idle(machine, &name(1), &address(1));
        cluster.start("control").await;
        for n in 1..=self.seat.nodes {
            let own = machine.root().join("etc/gantry/node");
            let out = if n == 1 { own } else { self.seat.meeting.join(name(n)) };
            cluster.credentials(&name(n), &address(n), &out).await;
        }
        self.say("credentials", "");
        cluster.start("agent").await;
        cluster.import().await;
        self.reaches(address).await;
        self.reaches(overlay).await;
        println!("every node is reached by the segment and by VXLAN");
        let all = self.seat.nodes as usize;
        cluster.until("every node is ready", async || ready(&cluster).await.len() == all).await;
        self.say("routes", &routes(&cluster).await);
        self.route();
        for n in self.others() {
            self.hear(&format!("joined-{n}-0")).await;
        }

        cluster.apply(WEB).await;
        let on_each = async || servers(&cluster).await.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        let names: Vec<String> = (1..=self.seat.nodes).map(name).collect();
        cluster.until("a server runs on each node", async || on_each().await == names).await;
        serve_from_everywhere(&cluster).await;
        println!("logs, exec, pods and services are had from node to node");
        self.survive_one(&cluster, &names).await;
        cluster.uninstall().await;
    }

    /// The last node loses power: it is told, its pods are made anew elsewhere, and when it comes back it is one of the nodes again.
    async fn survive_one(&self, cluster: &Cluster<'_>, names: &[String]) {
        let (last, left) = names.split_last().expect("nodes");
        self.say(&format!("off-{}", self.seat.nodes), "");
        cluster.until(&format!("{last} is not ready"), async || ready(cluster).await == left).await;
        let elsewhere = async || {
            let servers = servers(cluster).await;
            servers.len() == names.len() && servers.iter().all(|(node, _)| node != last)
        };
        cluster.until("its pod is made anew elsewhere", elsewhere).await;
        println!("{last} is off, and its pod elsewhere");
        self.say("back", "");
        self.hear(&format!("joined-{}-1", self.seat.nodes)).await;
        cluster.until(&format!("{last} is ready again"), async || ready(cluster).await == names).await;
        cluster.kubectl().must(&["scale", "deployment", "web", "--replicas=6"]).await;
        let has_some = async || {
            let servers = servers(cluster).await;
            servers.len() == 6 && servers.iter().any(|(node, _)| node == last)
        };
        cluster.until(&format!("{last} has pods again"), has_some).await;
        serve_from_everywhere(cluster).await;
    }
}

/// The nodes that are ready, by name.
async fn ready(cluster: &Cluster<'_>) -> Vec<String> {
    let path =
        r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let nodes = cluster.kubectl().run(&["get", "nodes", "-o", path]).await.unwrap_or_default();
    nodes.lines().filter_map(|line| line.strip_suffix(" True")).map(str::to_owned).collect()
}

async fn routes(cluster: &Cluster<'_>) -> String {
    let address = r#"{.status.addresses[?(@.type=="InternalIP")].address}"#;
    let path = format!("jsonpath={{range .items[*]}}{{.spec.podCIDR}} via {address}{{\"\\n\"}}{{end}}");
    cluster.kubectl().must(&["get", "nodes", "-o", &path]).await
}

/// Servers that are ready and not about to go: their nodes in order, and their names.
async fn servers(cluster: &Cluster<'_>) -> Vec<(String, String)> {
    let pods = cluster.kubectl().run(&["get", "pods", "-l", "app=web", "-o", "wide", "--no-headers"]).await;
    let pods = pods.unwrap_or_default();
    let columns = pods.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let running = columns.filter(|columns| columns[1] == "1/1" && columns[2] == "Running");
    let mut servers: Vec<_> = running.map(|columns| (columns[6].to_owned(), columns[0].to_owned())).collect();
    servers.sort();
    servers
}

/// From the first node: each server's log and a command in it; from each server, every other one by its address, and all of
/// them by their service.
async fn serve_from_everywhere(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let servers = servers(cluster).await;
    for (node, pod) in &servers {
        assert_eq!(kubectl.must(&["logs", pod]).await, format!("I am on {node}\n"));
        for (its_node, other) in &servers {
            let url = format!("http://{}:8080/", cluster.field("pod", other, ".status.podIP").await);
            let page = kubectl.must(&["exec", pod, "--", "wget", "-qO-", &url]).await;
            assert_eq!(page, format!("I am on {its_node}\n"), "from {node}");
        }
        let service = async || kubectl.run(&["exec", pod, "--", "wget", "-qO-", "http://web/"]).await;
        cluster.until(&format!("the service answers on {node}"), async || service().await.is_ok()).await;
    }
}
