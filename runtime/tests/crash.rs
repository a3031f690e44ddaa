//! kill -9 at every step that outlives its process, of the runtime and of supervisors, over the whole life of a pod and of an
//! image: what was answered is there afterwards, nothing is that nobody knows, and whoever asks again gets what he asked for.
//!
//! The steps are not chosen here. The code names the points that it passes (`gantry_base::fault`); for each of them a life is
//! lived with a kill at its first pass, its second, and so on, until one ends without having been hit.

mod ground;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_base::fault::Point;
use gantry_cri::archives::import_request::Part;
use gantry_cri::{ArchivesClient, archives, v1};
use gantry_runtime::LogLimits;
use ground::served::{Served, client, lives, order};
use ground::{Client, Ground, patience, with};

/// Far more than any of this takes: what is not there by then does not come.
const HANG: Duration = Duration::from_secs(30);
const IMAGE: &str = "test.invalid/small:1";
/// Says two lines, and a last one when it is asked to end.
const SAYS: &str = "trap 'echo last; exit 42' TERM; echo one; echo two; while :; do sleep 0.05; done";
const TRIES_MAX: u32 = 8;

/// Not a test: what [`Served`] runs.
#[test]
#[ignore = "run by the other tests"]
fn serve() {
    ground::served::serve();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Import,
    Pod,
    Create,
    Start,
    Exec,
    Stop,
    RemoveContainer,
    StopPod,
    RemovePod,
    RemoveImage,
}

const STEPS: [Step; 10] = [
    Step::Import,
    Step::Pod,
    Step::Create,
    Step::Start,
    Step::Exec,
    Step::Stop,
    Step::RemoveContainer,
    Step::StopPod,
    Step::RemovePod,
    Step::RemoveImage,
];

/// What a pod's owner has been told, in whose place this asks.
struct Life<'a> {
    ground: &'a Ground,
    client: Client,
    name: String,
    sandbox: v1::PodSandboxConfig,
    attempt: u32,
    pod: String,
    container: String,
    pid: i32,
    /// Lines that a supervisor has read die with it if it dies there and then.
    may_lose_lines: bool,
    /// The supervisor is killed, and this kernel forgets how a process ended once it is reaped.
    may_lose_code: bool,
}

impl<'a> Life<'a> {
    fn new(ground: &'a Ground, serial: u32, point: Point) -> Life<'a> {
        let name = format!("life{serial}");
        let mut sandbox = ground.pod(&name);
        // All that a pod can have: an address, processes and ipc of its own, a port of the host.
        let options = v1::NamespaceOption::default();
        let security = sandbox.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.namespace_options = Some(options);
        sandbox.port_mappings =
            vec![v1::PortMapping { container_port: 80, host_port: 8080, ..v1::PortMapping::default() }];
        let of_supervisor = Point::SUPERVISOR.contains(&point);
        Life {
            client: client(ground),
            ground,
            name,
            sandbox,
            attempt: 0,
            pod: String::new(),
            container: String::new(),
            pid: 0,
            may_lose_lines: matches!(point, Point::Output | Point::LogFork),
            may_lose_code: of_supervisor && !anyone_may_ask(),
        }
    }

    fn log(&self) -> String {
        format!("{}-{}.log", self.name, self.attempt)
    }

    /// Of the log and of its older parts: there is one for each line.
    fn lines(&self) -> Vec<String> {
        let mut names = names(&self.ground.dir.path().join("logs"));
        names.retain(|name| name.starts_with(&self.log()));
        names.sort();
        // The log itself sorts first.
        let parts = names.split_off(names.len().min(1));
        parts.iter().chain(&names).flat_map(|name| self.ground.lines(name)).collect()
    }

    async fn take(&mut self, step: Step) -> Result<(), tonic::Status> {
        let mut runtime = self.client.runtime.clone();
        match step {
            Step::Import => import(self.ground, small_image()).await?,
            Step::Pod => {
                let request =
                    v1::RunPodSandboxRequest { config: Some(self.sandbox.clone()), runtime_handler: String::new() };
                self.pod = runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
                assert_eq!(sandboxes(&self.client).await?, BTreeSet::from([self.pod.clone()]), "one, and the same");
            }
            Step::Create => self.create().await?,
            Step::Start => self.start().await?,
            Step::Exec => {
                let cmd = ["echo", "here"].map(str::to_owned).to_vec();
                let request = v1::ExecSyncRequest { container_id: self.container.clone(), cmd, timeout: 20 };
                assert_eq!(runtime.exec_sync(request).await?.into_inner().stdout, b"here\n");
            }
            Step::Stop => {
                let timeout = HANG.as_secs().cast_signed();
                let request = v1::StopContainerRequest { container_id: self.container.clone(), timeout };
                runtime.stop_container(request).await?;
                let status = self.status().await?;
                self.assert_end(&status).await;
            }
            Step::RemoveContainer => {
                let request = v1::RemoveContainerRequest { container_id: self.container.clone() };
                runtime.remove_container(request).await?;
            }
            Step::StopPod => {
                runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: self.pod.clone() }).await?;
            }
            Step::RemovePod => {
                runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: self.pod.clone() }).await?;
            }
            Step::RemoveImage => {
                let image = Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() });
                self.client.images.clone().remove_image(v1::RemoveImageRequest { image }).await?;
            }
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), tonic::Status> {
        let mut config = self.ground.container(&self.name, &["sh", "-c", SAYS]);
        config.metadata.as_mut().expect("it has some").attempt = self.attempt;
        config.log_path = self.log();
        let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.namespace_options = Some(v1::NamespaceOption::default());
        self.container = self.client.create(&self.pod, config, &self.sandbox).await?;
        let known = containers(&self.client).await?;
        assert_eq!(known, BTreeSet::from([self.container.clone()]), "one, and the same");
        Ok(())
    }

    /// A start that was cut short leaves a container that has ended; whoever wants one makes the next.
    async fn start(&mut self) -> Result<(), tonic::Status> {
        let status = self.status().await?;
        if status.state() == v1::ContainerState::ContainerExited {
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            let request = v1::RemoveContainerRequest { container_id: self.container.clone() };
            self.client.runtime.clone().remove_container(request).await?;
            self.attempt += 1;
            self.create().await?;
        }
        if status.state() != v1::ContainerState::ContainerRunning {
            self.client.start(&self.container).await?;
        }
        self.pid = self.client.pid(&self.container).await;
        let said = || self.lines() == ["one", "two"];
        until("two lines", || said() || self.may_lose_lines).await;
        Ok(())
    }

    async fn status(&self) -> Result<v1::ContainerStatus, tonic::Status> {
        let request = v1::ContainerStatusRequest { container_id: self.container.clone(), verbose: false };
        Ok(self.client.runtime.clone().container_status(request).await?.into_inner().status.expect("one"))
    }

    async fn assert_end(&self, status: &v1::ContainerStatus) {
        let end = (status.exit_code, status.reason.as_str());
        let lost = self.may_lose_code && end == (255, "ContainerStatusUnknown");
        assert!(end == (42, "Error") || lost, "{end:?}");
        if !self.may_lose_lines {
            until("every line", || self.lines() == ["one", "two", "last"]).await;
        }
    }

    /// After a start: whatever was answered before `step` began is so.
    async fn assert_told(&self, step: Step) {
        if step > Step::Pod && step <= Step::StopPod {
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: self.pod.clone(), verbose: false };
            let answer = self.client.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner();
            let status = answer.status.unwrap();
            let ready = status.state() == v1::PodSandboxState::SandboxReady;
            assert!(ready || step == Step::StopPod);
            // What is ready has its address: without a record, it would be another's.
            let address = self.ground.config.run_dir.join(format!("network/pods/{}.json", self.pod));
            assert!(address.exists() || !ready);
            assert!(status.network.unwrap().ip.starts_with("10.250.0."));
        }
        if step == Step::Exec {
            assert_eq!(self.status().await.unwrap().state(), v1::ContainerState::ContainerRunning);
            assert_eq!(self.client.pid(&self.container).await, self.pid);
            assert!(lives(self.pid));
        }
        if step == Step::RemoveContainer
            && let Ok(status) = self.status().await
        {
            self.assert_end(&status).await;
        }
    }
}

/// From Linux 6.15 on a pidfd tells the exit code also to who is not the parent, and after someone else has reaped.
fn anyone_may_ask() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(HANG * patience(), wait).await.is_ok(), "{what} does not come about");
}

async fn sandboxes(client: &Client) -> Result<BTreeSet<String>, tonic::Status> {
    let listed = client.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?;
    Ok(listed.into_inner().items.into_iter().map(|s| s.id).collect())
}

async fn containers(client: &Client) -> Result<BTreeSet<String>, tonic::Status> {
    let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await?;
    Ok(listed.into_inner().containers.into_iter().map(|c| c.id).collect())
}

fn small_image() -> Vec<u8> {
    let mut layer = ground::Tar::default();
    ground::file(&mut layer, "small", b"small", 0o644);
    let run = serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
    ground::archive(IMAGE, &[layer.finish()], run)
}

async fn import(ground: &Ground, archive: Vec<u8>) -> Result<(), tonic::Status> {
    let socket = ground.config.socket.as_ref().expect("a socket");
    let mut client = ArchivesClient::new(gantry_cri::connect::unix(socket));
    let parts = [Part::Options(archives::ImportOptions::default()), Part::Data(archive)];
    let requests = parts.map(|part| archives::ImportRequest { part: Some(part) });
    client.import(tokio_stream::iter(requests)).await.map(drop)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The cgroups of this test in every hierarchy.
fn hierarchies(cgroup: &str) -> Vec<PathBuf> {
    let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let all = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
    all.map(|root| root.join(cgroup.trim_start_matches('/'))).filter(|path| path.is_dir()).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn said_by(command: &[&str]) -> String {
    let output = std::process::Command::new(command[0]).args(&command[1..]).output().expect("it is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything on this machine that belongs to no sandbox and no container that is known.
fn strays(ground: &Ground, sandboxes: &BTreeSet<String>, containers: &BTreeSet<String>) -> Vec<String> {
    let (run, state) = (&ground.config.run_dir, &ground.config.state_dir);
    let mut strays = Vec::new();
    let mut look = |what: &str, found: Vec<String>, known: &BTreeSet<String>| {
        strays.extend(found.into_iter().filter(|name| !known.contains(name)).map(|name| format!("{what} {name}")));
    };
    let none = BTreeSet::new();
    look("record of sandbox", names(&run.join("sandboxes")), sandboxes);
    for sandbox in sandboxes {
        look("record of container", names(&run.join("sandboxes").join(sandbox).join("containers")), containers);
        look("state of container", names(&run.join("sandboxes").join(sandbox).join("libcontainer")), containers);
    }
    look("namespaces of", names(&run.join("ns")), sandboxes);
    let addresses = names(&run.join("network/pods"));
    look("address of", addresses.iter().map(|name| name.replace(".json", "")).collect(), sandboxes);
    look("snapshot of", names(&state.join("snapshots/c")), containers);
    look("layer in the making", names(&state.join("snapshots/ingest")), &none);
    look("trash", names(&state.join("snapshots/trash")), &none);
    look("archive in the making", names(&state.join("images/ingest")), &none);

    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let below = ground.dir.path().to_string_lossy().into_owned();
    let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(4)?.strip_prefix(below.as_str()));
    for path in mounted {
        let owner = |before: &str| Some(path.split_once(before)?.1.split('/').next()?.to_owned());
        let known = owner("/run/ns/").is_some_and(|id| sandboxes.contains(&id))
            || owner("/snapshots/c/").is_some_and(|id| containers.contains(&id));
        look("mount", if known { Vec::new() } else { vec![path.to_owned()] }, &none);
    }

    let links: BTreeSet<String> = sandboxes.iter().map(|id| format!("gt{}", &id[..12])).collect();
    let of_ours = |text: String| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|word| word.len() == 14 && word.starts_with("gt")).map(str::to_owned).collect()
    };
    look("link", of_ours(said_by(&["busybox", "ip", "link"])), &links);
    look("rule for", of_ours(said_by(&["nft", "list", "ruleset"])), &links);

    let in_pod: BTreeSet<String> = sandboxes.union(containers).cloned().collect();
    for folder in hierarchies(&ground.config.cgroup_parent) {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        look("cgroup of sandbox", folders(&folder).iter().map(name).collect(), sandboxes);
        let inner = folders(&folder).into_iter().flat_map(|pod| folders(&pod));
        look("cgroup of container", inner.map(|path| name(&path)).collect(), &in_pod);
    }
    for folder in hierarchies(&ground.config.supervisor_cgroup) {
        let pids = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let of = line.split('\0').nth(1).and_then(|dir| dir.rsplit('/').next()).unwrap_or_default().to_owned();
            look("supervisor of", if line.is_empty() { Vec::new() } else { vec![of] }, sandboxes);
        }
    }
    strays
}

async fn assert_no_strays(ground: &Ground, client: &Client) {
    let (sandboxes, containers) = (sandboxes(client).await.unwrap(), containers(client).await.unwrap());
    let mut left = Vec::new();
    for _ in 0..500 * patience() {
        left = strays(ground, &sandboxes, &containers);
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("left behind: {left:#?}");
}

/// What is done after the last answer of a life (an address goes when the kernel says that its link has) is a step, too: it is
/// waited for while its kill still stands.
async fn hit_or_gone(ground: &Ground) {
    let none = BTreeSet::new();
    for _ in 0..500 * patience() {
        if hit(ground) || strays(ground, &none, &none).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The images' own: what is on disk is what the images that are listed are made of.
async fn assert_images(ground: &Ground, client: &Client) {
    let listed = client.images.clone().list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner();
    let state = &ground.config.state_dir;
    let layers = names(&state.join("snapshots")).into_iter().filter(|name| name.len() == 64).count();
    assert_eq!((listed.images.len(), layers), (1, 1), "the image that stays, and its layer");
    assert_eq!(names(&state.join("snapshots/l")).len(), 1);
    assert_eq!(names(&state.join("images/blobs/sha256")).len(), 2);
}

fn hit(ground: &Ground) -> bool {
    order(ground).with_extension("hit").exists()
}

fn give_order(ground: &Ground, point: Point, count: u32, serial: u32) {
    let _ = std::fs::remove_file(order(ground).with_extension("hit"));
    let new = order(ground).with_extension("new");
    std::fs::write(&new, format!("{} {count} {serial}", point.name())).unwrap();
    std::fs::rename(new, order(ground)).unwrap();
}

struct Lives {
    ground: Ground,
    served: Option<Served>,
    serial: u32,
}

impl Lives {
    async fn begin(mut ground: Ground) -> Lives {
        // One line, and not two.
        ground.config.log_limits = LogLimits { max_bytes: 60, max_files: 100 };
        let (served, _) = Served::start(&ground).await;
        Lives { ground, served: Some(served), serial: 0 }
    }

    /// One life, with a kill at a pass of a point; whether that was reached. `again`: the start after that is killed too.
    async fn live(&mut self, point: Point, count: u32, again: Option<(Point, u32)>) -> bool {
        self.serial += 1;
        let whom = if Point::RUNTIME.contains(&point) { "runtime" } else { "supervisor" };
        println!("{whom} at {point:?} {count}{}", again.map(|again| format!(", then {again:?}")).unwrap_or_default());
        give_order(&self.ground, point, count, self.serial);
        let ground = &self.ground;
        let mut life = Life::new(ground, self.serial, point);
        let (mut reached, mut seen) = (again.is_none(), again.is_some());
        for step in STEPS {
            let mut tries = 0;
            while let Err(status) = life.take(step).await {
                tries += 1;
                assert!(hit(ground) && tries < TRIES_MAX, "{step:?}: {status:?}");
                if whom == "supervisor" {
                    continue;
                }
                assert!(self.served.take().unwrap().was_killed(), "{step:?}: {status:?}");
                seen = true;
                if let Some((point, count)) = again.filter(|_| !reached) {
                    give_order(ground, point, count, self.serial + 1_000_000);
                    let (served, ready) = Served::try_start(ground).await;
                    let _ = std::fs::remove_file(order(ground));
                    reached = hit(ground);
                    // What the kernel tells it of may have it killed a little later.
                    assert!(ready || reached, "it serves unless it was killed");
                    if reached { assert!(served.was_killed()) } else { self.served = Some(served) }
                }
                if self.served.is_none() {
                    self.served = Some(Served::start(ground).await.0);
                }
                life.client = client(ground);
                life.assert_told(step).await;
                assert_no_strays(ground, &life.client).await;
            }
        }
        hit_or_gone(ground).await;
        // From here on nobody is killed, or who is was after its last answer.
        let _ = std::fs::remove_file(order(ground));
        if whom == "runtime" && hit(ground) && !seen {
            assert!(self.served.take().unwrap().was_killed());
            self.served = Some(Served::start(ground).await.0);
            life.client = client(ground);
        }
        assert_no_strays(ground, &life.client).await;
        assert_images(ground, &life.client).await;
        if again.is_some() { reached } else { hit(ground) }
    }

    /// Every pass of every one of these points.
    async fn live_with_each(&mut self, points: &[Point]) {
        for point in points {
            let mut count = 1;
            while self.live(*point, count, None).await {
                count += 1;
            }
            assert!(count > 1, "{point:?} is never passed");
        }
    }

    async fn end(mut self) {
        self.served.take().unwrap().kill();
        let (runtime, _) = self.ground.start().await;
        ground::finish(runtime).await;
    }
}

#[test]
fn the_runtime_is_killed_at_every_step_of_a_life() {
    with(|ground| async move {
        let mut lives = Lives::begin(ground).await;
        lives.live_with_each(Point::RUNTIME).await;
        lives.end().await;
    });
}

#[test]
fn a_supervisor_is_killed_at_every_step_of_a_life() {
    with(|ground| async move {
        let mut lives = Lives::begin(ground).await;
        lives.live_with_each(Point::SUPERVISOR).await;
        lives.end().await;
    });
}

/// A start that puts right what a kill has left is killed itself, at every step of that.
#[test]
fn a_start_is_killed_at_every_step() {
    with(|ground| async move {
        let mut lives = Lives::begin(ground).await;
        // Half made, and half stopped.
        for first in [Point::RulesAdd, Point::LinkRemove] {
            let mut passed = 0;
            for point in Point::RUNTIME {
                let mut count = 1;
                while lives.live(first, 1, Some((*point, count))).await {
                    count += 1;
                    passed += 1;
                }
            }
            assert!(passed > 10, "it takes down what {first:?} left");
        }
        lives.end().await;
    });
}

/// The address of a pod is that pod's, although its record is cut; of one that nobody knows, link and address go.
#[test]
fn a_cut_address_is_known_from_the_journal() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut config = Life::new(&ground, 1, Point::Answer).sandbox;
        let kept = client.run_pod(&config).await;
        config.metadata.as_mut().unwrap().uid = "another".to_owned();
        config.port_mappings.clear();
        let lost = client.run_pod(&config).await;
        let ip = runtime.network().address(&kept).unwrap().ip;
        runtime.stop().await;
        let folder = ground.config.run_dir.join("network/pods");
        for id in [&kept, &lost] {
            let path = folder.join(format!("{id}.json"));
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        }
        std::fs::remove_dir_all(ground.config.run_dir.join("sandboxes").join(&lost)).unwrap();
        let (runtime, client) = ground.start().await;
        assert_eq!(runtime.network().address(&kept).unwrap().ip, ip);
        assert_no_strays(&ground, &client).await;
        client.remove_pod(&kept).await;
        assert_no_strays(&ground, &client).await;
        ground::finish(runtime).await;
    });
}
