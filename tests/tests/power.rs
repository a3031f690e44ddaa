//! The power is cut while a cluster is at work, again and again; after each cut everything that was answered is there. It needs
//! a machine of our own: `vm run power`. `GANTRY_FAULT_SEED` replays a run, `GANTRY_FAULT_ROUNDS` says how many cuts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_tests::cluster::{Cluster, Machine, with_root};
use gantry_tests::disk::{Ailments, Disk};
use gantry_tests::faults::{REPLICAS, agree, populate};
use gantry_tests::image::Build;
use gantry_tests::kubectl::Kubectl;
use gantry_tests::ledger::{Entry, Ledger, judge};
use gantry_tests::vm::{self, Here};
use gantry_tests::workload::{counters, setting};
use http::{Method, Request};
use nix::mount::{MsFlags, mount, umount};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

const ROUNDS: u64 = 3;
const DISK_BYTES: u64 = 512 << 20;
const INODES: u32 = 20_000;
const WRITERS: usize = 4;
/// How long a writer leaves those alone who refuse.
const REFUSED_FOR: Duration = Duration::from_millis(100);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What lasts from boot to boot, in the folder that the host shares.
struct Lasting {
    seed: u64,
    ledger: PathBuf,
    medium: PathBuf,
}

impl Lasting {
    fn of(here: &Here) -> Lasting {
        let path = here.shared.join("seed");
        let lasting = |seed| Lasting { seed, ledger: here.shared.join("ledger"), medium: here.shared.join("disk") };
        if here.boot > 0 {
            return lasting(std::fs::read_to_string(path).unwrap().parse().unwrap());
        }
        let seed = setting("GANTRY_FAULT_SEED", rand::random());
        println!("GANTRY_FAULT_SEED={seed}");
        std::fs::write(path, seed.to_string()).unwrap();
        let new = lasting(seed);
        for left in [&new.ledger, &new.medium] {
            let _ = std::fs::remove_file(left);
        }
        new
    }
}

#[test]
fn what_was_answered_outlives_the_loss_of_power() {
    let Some(here) = vm::here() else {
        println!("SKIPPED: no machine whose power may be cut; vm run power");
        return;
    };
    let begun = Instant::now();
    let (rounds, round) = (setting("GANTRY_FAULT_ROUNDS", ROUNDS), u64::from(here.boot));
    let lasting = Lasting::of(&here);
    let mut dice = StdRng::seed_from_u64(lasting.seed.wrapping_add(round));
    let disk = Disk::attach(&lasting.medium, DISK_BYTES, StdRng::from_rng(&mut dice)).unwrap();
    if round == 0 {
        disk.format(INODES);
    }
    let root = Path::new("/tmp/disk");
    std::fs::create_dir(root).unwrap();
    disk.mount(root).unwrap();
    // Daemons tell of a disk that is gone, elsewhere.
    let _ = std::os::unix::fs::symlink(here.shared.join("daemons.log"), root.join("daemons.log"));
    let run = root.join("run");
    std::fs::create_dir_all(&run).unwrap();
    mount(Some("run"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
    let ledger = Arc::new(Ledger::open(&lasting.ledger).unwrap());
    with_root(root, async |machine| {
        let cluster = if round == 0 { begin(machine).await } else { go_on(machine, &ledger, begun).await };
        if round == rounds {
            cluster.uninstall().await;
            return;
        }
        for writer in 0..WRITERS {
            let (client, ledger) = (client(machine).await, ledger.clone());
            tokio::spawn(async move { write(&client, &ledger, &format!("round-{round}-{writer}")).await });
        }
        cluster.apply(&counters(REPLICAS + 2)).await;
        tokio::join!(
            import(machine, &ledger, round),
            tokio::time::sleep(Duration::from_millis(dice.random_range(50..2000)))
        );
        if round + 1 == rounds {
            read_only(&cluster, &disk).await;
        }
        println!("round {round}: the power is cut after {:.1} s", begun.elapsed().as_secs_f64());
        here.cut_power();
    });
    umount(&run).unwrap();
    umount(root).unwrap();
}

async fn begin(machine: &Machine) -> Cluster<'_> {
    let cluster = Cluster::apart(machine).await;
    populate(&cluster).await;
    agree(&cluster).await;
    cluster
}

/// What is there after a loss of power is what was answered before it, and the cluster goes on with it.
async fn go_on<'a>(machine: &'a Machine, ledger: &Ledger, begun: Instant) -> Cluster<'a> {
    let before = ledger.before();
    let cluster = Cluster::again(machine).await;
    let list = ask(&client(machine).await, Method::GET, CONFIG_MAPS, Value::Null).await.expect("a list");
    let found = list["items"].as_array().unwrap().iter().filter_map(|item| {
        let value = item["data"]["n"].as_str()?.parse().ok()?;
        Some((item["metadata"]["name"].as_str()?.to_owned(), value))
    });
    let found: BTreeMap<String, u64> = found.collect();
    println!("{} answers are noted, {} objects are there", before.len(), found.len());
    let wrong = judge(before, &found, revision(&list));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        before.iter().any(|entry| matches!(entry, Entry::Deleted { .. })),
        "too little was answered to lose anything"
    );

    cluster.apply(&counters(REPLICAS)).await;
    let mut images = before.iter().filter_map(|entry| match entry {
        Entry::Image { name } => Some(name),
        _ => None,
    });
    println!("it serves after {:.1} s", begun.elapsed().as_secs_f64());
    if let Some(image) = images.next_back() {
        runs(&cluster, image).await;
    }
    agree(&cluster).await;
    cluster
}

/// Objects that come, change and go; each answer is noted before the next question.
async fn write(client: &kube::Client, ledger: &Ledger, prefix: &str) {
    for n in 0_u64.. {
        let name = format!("{prefix}-{n}");
        let path = format!("{CONFIG_MAPS}/{name}");
        let object = |value: u64| json!({"metadata": {"name": name}, "data": {"n": value.to_string()}});
        let put = |value, answer: Value| {
            ledger.note(&Entry::Put { name: name.clone(), value, revision: revision(&answer) }).unwrap();
        };
        let Some(answer) = ask(client, Method::POST, CONFIG_MAPS, object(0)).await else {
            tokio::time::sleep(REFUSED_FOR).await;
            continue;
        };
        put(0, answer);
        for value in 1..=n % 3 {
            // What was refused may be done by the next: no more than one is on its way.
            let Some(answer) = ask(client, Method::PUT, &path, object(value)).await else { break };
            put(value, answer);
        }
        if n % 3 == 0 {
            ledger.note(&Entry::Deleting { name: name.clone() }).unwrap();
            let Some(answer) = ask(client, Method::DELETE, &path, Value::Null).await else { continue };
            // The answer to a delete is of the object as it was: what was written after it is not before it.
            ledger.note(&Entry::Deleted { name, revision: revision(&answer) }).unwrap();
        }
    }
}

/// An import that was answered.
async fn import(machine: &Machine, ledger: &Ledger, round: u64) {
    let name = format!("gantry.local/round-{round}:1");
    let mut build = Build::busybox(Path::new("/bin/busybox")).unwrap();
    build.file("round", 0o644, round.to_string());
    build.cmd = ["sh", "-c", "cat /round; exec sleep 3600"].map(str::to_owned).to_vec();
    let archive = Path::new("/tmp/round.tar");
    std::fs::write(archive, build.build().archive(&name)).unwrap();
    machine.run(&["image", "import", &archive.display().to_string()]).await.expect("it is imported");
    ledger.note(&Entry::Image { name }).unwrap();
}

/// The node has the image, whole, with no registry to ask.
async fn runs(cluster: &Cluster<'_>, image: &str) {
    let pod = format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: imported}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: \"{image}\", imagePullPolicy: Never}}]}}}}"
    );
    cluster.apply(&pod).await;
    let phase = async || cluster.field("pod", "imported", ".status.phase").await;
    cluster.until(&format!("{image} runs"), async || phase().await == "Running").await;
    cluster.kubectl().must(&["delete", "pod", "imported", "--timeout=60s"]).await;
}

/// The disk takes no more writes: they are refused, reads are answered, and what runs goes on.
async fn read_only(cluster: &Cluster<'_>, disk: &Disk) {
    let before = cluster.running().await;
    // What asks needs no disk.
    let kubeconfig = Path::new("/tmp/admin.kubeconfig");
    std::fs::copy(cluster.machine().kubeconfig(), kubeconfig).unwrap();
    let kubectl = Kubectl::new(kubeconfig);
    disk.suffer(Ailments { refuses_writes: true, ..Ailments::default() });
    cluster
        .until("writes are refused", async || {
            kubectl.run(&["annotate", "deployment", "web", "--overwrite", "disk=ro"]).await.is_err()
        })
        .await;
    let nodes = kubectl.must(&["get", "nodes", "--no-headers"]).await;
    assert!(nodes.split_whitespace().nth(1) == Some("Ready"), "{nodes}");
    let after = cluster.running().await;
    assert!(before.iter().all(|one| after.contains(one)), "{after:?} were {before:?}");
}

async fn client(machine: &Machine) -> kube::Client {
    let config = kube::config::Kubeconfig::read_from(machine.kubeconfig()).expect("the admin's kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("it is whole");
    kube::Client::try_from(config).expect("a client")
}

/// What a request was answered with, where it was one of success.
async fn ask(client: &kube::Client, method: Method, path: &str, body: Value) -> Option<Value> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body);
    client.request(request.expect("a request")).await.ok()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
