//! Three API servers over a three-member etcd, under load: a member of etcd, then its leader, then an API server is killed.
//! No answered write is lost, no watch has a gap, and every client goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_client::{Client, ClientError, Query, WatchEvent};
use gantry_control::store::{Etcd, Revision, Store, etcd};
use gantry_control::{Control, ControlError, StoreConfig};
use gantry_kube::resource::{CONFIG_MAP, LEASE, NAMESPACE, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref, Resource};
use gantry_tests::api;
use gantry_tests::etcd_cluster::{EtcdCluster, newest_program};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

const CHILD: &str = "GANTRY_ETCD_TEST_FOLDER";
const SERVERS: &str = "GANTRY_ETCD_TEST_SERVERS";
const READY: &str = "the API answers: ";
/// How long anything may take that is to happen at all.
const PATIENCE: Duration = Duration::from_secs(90);
const LOAD: &str = "load";
/// The control hosts.
const NAMES: [&str; 3] = ["a", "b", "c"];

fn config(folder: &Path, servers: Vec<String>) -> gantry_control::Config {
    let etcd = etcd::Config { servers, prefix: etcd::PREFIX.to_owned(), tls: None };
    let hostname = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    gantry_control::Config { store: StoreConfig::Etcd(etcd), hostname, ..api::config(folder, true) }
}

/// Not a test by itself: an API server with controllers and scheduler, which others kill.
#[test]
fn child_that_serves_until_killed() {
    let (Ok(folder), Ok(servers)) = (std::env::var(CHILD), std::env::var(SERVERS)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let servers = servers.split(',').map(str::to_owned).collect();
        let control = Control::start(config(Path::new(&folder), servers)).await.unwrap();
        println!("{READY}{}", control.address());
        std::future::pending::<()>().await;
    });
}

/// An API server in a process of its own.
struct Server {
    child: Child,
    kubeconfig: PathBuf,
}

impl Server {
    fn start(folder: &Path, servers: &[String]) -> Server {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_serves_until_killed", "--exact", "--nocapture"])
            .env(CHILD, folder)
            .env(SERVERS, servers.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.into_iter().any(|line| line.contains(READY));
        assert!(ready, "the API server has ended before it answered");
        Server { child, kubeconfig: folder.join("admin.kubeconfig") }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.kubeconfig, "test").await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a second control host is given.
fn invite(from: &Path, to: &Path) {
    let (from, to) = (from.join("control/pki"), to.join("control/pki"));
    std::fs::create_dir_all(&to).unwrap();
    for file in ["ca.crt", "ca.key", "service-account.key"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// What the load has been told, and how far it is.
#[derive(Default)]
struct Ledger {
    /// Of each object whose last write was answered: its resourceVersion, or nothing where it was deleted.
    answered: Mutex<BTreeMap<String, Option<Revision>>>,
    writes: AtomicU64,
    stop: AtomicBool,
}

fn revision(object: &Object) -> Revision {
    object.resource_version().parse().unwrap()
}

fn config_map(name: &str, turn: u64) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": LOAD},
        "data": {"turn": turn.to_string()},
    }))
    .unwrap()
}

/// A client as anybody writes one: what fails is asked of the next server, and who does not know looks.
struct Writer {
    clients: Vec<Client>,
    number: usize,
    ledger: Arc<Ledger>,
}

impl Writer {
    fn next(&mut self, error: &ClientError) {
        assert!(error.retryable() || error.is_not_found() || error.is_already_exists(), "{error:?}");
        self.clients.rotate_left(1);
    }

    async fn run(mut self) {
        let mut turn = 0;
        while !self.ledger.stop.load(Ordering::Relaxed) {
            let name = format!("w{}-{}", self.number, turn % 40);
            self.write(&name, turn).await;
            turn += 1;
        }
    }

    /// Makes the object be of this turn, or be gone, whatever it takes.
    async fn write(&mut self, name: &str, turn: u64) {
        let at = Ref::new(LOAD, name);
        let removes = turn % 7 == 3;
        loop {
            let done = match self.clients[0].find(&CONFIG_MAP, &at).await {
                Err(error) => Err(error),
                Ok(Some(found)) if !removes && found.str_at("/data/turn") == turn.to_string() => {
                    Ok(Some(revision(&found)))
                }
                Ok(None) if removes => Ok(None),
                Ok(Some(_)) if removes => {
                    self.clients[0].delete(&CONFIG_MAP, &at, &Default::default()).await.map(|()| None)
                }
                Ok(Some(mut found)) => {
                    found.map_mut("data").insert("turn".to_owned(), json!(turn.to_string()));
                    self.clients[0].update(&CONFIG_MAP, &found).await.map(|made| Some(revision(&made)))
                }
                Ok(None) => {
                    self.clients[0].create(&CONFIG_MAP, &config_map(name, turn)).await.map(|made| Some(revision(&made)))
                }
            };
            match done {
                Ok(done) => {
                    self.ledger.answered.lock().insert(name.to_owned(), done);
                    self.ledger.writes.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    self.next(&error);
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// One event: of which object, at which revision, and whether it is gone.
type Seen = (String, Revision, bool);

/// Follows everything of a kind from `from` until it has seen `until`, over whatever server answers.
async fn follow(mut clients: Vec<Client>, from: Revision, until: tokio::sync::watch::Receiver<Revision>) -> Vec<Seen> {
    let (mut seen, mut reached): (Vec<Seen>, Revision) = (Vec::new(), from);
    loop {
        let query = Query { resource_version: reached.to_string(), ..Query::default() };
        let mut stream = match clients[0].watch(&CONFIG_MAP, Some(LOAD), &query, 300).await {
            Ok(stream) => stream,
            Err(error) => {
                assert!(error.retryable(), "a gap: {error:?}");
                clients.rotate_left(1);
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        loop {
            if reached >= *until.borrow() {
                return seen;
            }
            let event = match timeout(Duration::from_millis(200), stream.next()).await {
                Err(_) => continue,
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    assert!(error.retryable(), "a gap: {error:?}");
                    break;
                }
            };
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(at) => {
                    reached = reached.max(at.parse().unwrap());
                    continue;
                }
            };
            reached = revision(&object);
            seen.push((object.name().to_owned(), reached, gone));
        }
        clients.rotate_left(1);
    }
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < PATIENCE, "{what} does not come to be");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The load goes on: so many more writes are answered.
async fn goes_on(ledger: &Ledger, what: &str) {
    let before = ledger.writes.load(Ordering::Relaxed);
    eventually(what, async || ledger.writes.load(Ordering::Relaxed) > before + 150).await;
}

async fn any<T>(clients: &[Client], ask: impl AsyncFn(&Client) -> Result<T, ClientError>) -> T {
    let start = Instant::now();
    loop {
        for client in clients {
            match ask(client).await {
                Ok(found) => return found,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn holder(clients: &[Client], name: &str) -> String {
    let at = Ref::new("kube-system", name);
    let lease = any(clients, async |client| client.find(&LEASE, &at).await).await;
    lease.map(|lease| lease.str_at("/spec/holderIdentity").to_owned()).unwrap_or_default()
}

async fn make(clients: &[Client], kind: &Resource, object: &Object) {
    any(clients, async |client| match client.create(kind, object).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    })
    .await;
}

fn namespace(name: &str) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).unwrap()
}

/// The controllers do their work: a namespace gets its service account.
async fn controllers_work(clients: &[Client], name: &str) {
    make(clients, &NAMESPACE, &namespace(name)).await;
    let at = Ref::new(name, "default");
    eventually("a service account", async || {
        any(clients, async |client| client.find(&SERVICE_ACCOUNT, &at).await).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_leader_or_api_server_is_missed_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    };
    let mut etcd = EtcdCluster::start(&place("etcd"), &newest_program(), 3, false).unwrap();
    let urls = etcd.urls();
    // Each asks another member first, so that each member is somebody's.
    let rotated = |n: usize| [&urls[n..], &urls[..n]].concat();
    let first = Server::start(&place(NAMES[0]), &rotated(0));
    // A host that was not given the cluster's authority makes none of its own.
    let refused = Control::start(config(&place("stranger"), urls.clone())).await.err();
    assert!(matches!(refused, Some(ControlError::NotInvited { .. })), "{refused:?}");
    assert!(!place("stranger").join("control/pki").exists());
    let mut servers = vec![first];
    for (n, name) in NAMES.iter().enumerate().skip(1) {
        invite(&place(NAMES[0]), &place(name));
        servers.push(Server::start(&place(name), &rotated(n)));
    }
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(server.client().await);
    }
    let all = clients.clone();
    let of = |n: usize| [&all[n % 3..], &all[..n % 3]].concat();
    controllers_work(&clients, LOAD).await;

    let start = clients[0].list(&CONFIG_MAP, Some(LOAD), &Query::default()).await.unwrap();
    let start: Revision = start.resource_version.parse().unwrap();
    let ledger = Arc::new(Ledger::default());
    let (done, until) = tokio::sync::watch::channel(Revision::MAX);
    let watchers: Vec<_> = (0..6).map(|n| tokio::spawn(follow(of(n), start, until.clone()))).collect();
    let writers: Vec<_> = (0..6)
        .map(|number| tokio::spawn(Writer { clients: of(number), number, ledger: ledger.clone() }.run()))
        .collect();
    goes_on(&ledger, "the load").await;

    eventually("a leader", async || etcd.leader().is_some()).await;
    let follower = (etcd.leader().unwrap() + 1) % 3;
    etcd.kill(follower).unwrap();
    goes_on(&ledger, "the load without a member").await;
    etcd.revive(follower).unwrap();
    eventually("the member that came back", async || etcd.is_well(follower)).await;

    let leader = etcd.leader().unwrap();
    etcd.kill(leader).unwrap();
    goes_on(&ledger, "the load without the leader").await;
    etcd.revive(leader).unwrap();
    eventually("the leader that came back", async || etcd.is_well(leader)).await;

    // The API server that leads the controllers goes, and those go on elsewhere.
    let before = holder(&clients, "kube-controller-manager").await;
    let leads = NAMES.iter().position(|name| before.starts_with(&format!("{name}_"))).expect("somebody leads");
    drop(servers.remove(leads));
    clients.remove(leads);
    goes_on(&ledger, "the load without an API server").await;
    controllers_work(&clients, "after").await;
    let after = holder(&clients, "kube-controller-manager").await;
    assert!(after != before && !after.is_empty(), "{after} leads, as {before} did");

    ledger.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        timeout(PATIENCE, writer).await.expect("a writer hangs").unwrap();
    }
    let truth = Etcd::open(&etcd.config("").unwrap()).await.unwrap();
    let end = truth.current().await.unwrap();
    let changes = history(&truth, start, end).await;
    no_answered_write_is_lost(&ledger, &changes);
    let last = changes.last().unwrap().1;
    done.send_replace(last);
    for watcher in watchers {
        let seen = timeout(PATIENCE, watcher).await.expect("a watcher hangs").unwrap();
        assert_eq!(seen.len(), changes.len());
        assert!(seen == changes, "a watcher saw something else");
    }
    println!("{} writes answered, {} changes", ledger.writes.load(Ordering::Relaxed), changes.len());
}

/// Every change of the load, as the store has it.
async fn history(store: &Etcd, start: Revision, end: Revision) -> Vec<Seen> {
    let prefix = format!("configmaps/{LOAD}/");
    let mut watch = store.watch(&prefix, start).await.unwrap();
    let (mut changes, mut reached) = (Vec::new(), start);
    while reached < end {
        let batch = timeout(PATIENCE, watch.next()).await.expect("the store's own watch hangs").unwrap();
        reached = batch.revision;
        let seen = batch.changes.into_iter().filter(|change| change.revision <= end);
        changes.extend(seen.map(|change| (change.key.reference().name, change.revision, change.value.is_none())));
    }
    changes
}

fn no_answered_write_is_lost(ledger: &Ledger, changes: &[Seen]) {
    let mut standing: BTreeMap<&str, Option<Revision>> = BTreeMap::new();
    for (name, revision, gone) in changes {
        standing.insert(name, (!gone).then_some(*revision));
    }
    let answered = ledger.answered.lock();
    assert!(answered.len() > 100, "there was no load");
    for (name, told) in answered.iter() {
        assert_eq!(standing.get(name.as_str()).copied().flatten(), *told, "{name}");
    }
}
