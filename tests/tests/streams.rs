//! exec, attach, cp and port-forward as the stock kubectl does them: the old one over SPDY, the new one over WebSocket.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use gantry_tests::cluster::{Cluster, IMAGE, with};
use gantry_tests::kubectl::Kubectl;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

const COPIED_BYTES: usize = 100 << 20;
const CONNECTIONS: usize = 10;

/// A pod that runs one shell line; `more` stands beside its command.
fn pod(name: &str, line: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, \
         restartPolicy: Never, containers: [{{name: main, image: \"{IMAGE}\", command: [sh, -c, {line:?}]{more}}}]}}}}"
    )
}

async fn run_pod(cluster: &Cluster<'_>, name: &str, line: &str, more: &str) {
    cluster.apply(&pod(name, line, more)).await;
    cluster.until("the pod runs", async || cluster.field("pod", name, ".status.phase").await == "Running").await;
}

/// How many descriptors the daemon has open: what a client leaves behind is seen there.
fn descriptors(cluster: &Cluster<'_>) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cluster.pid("up"))).expect("it runs").count()
}

/// Processes of this host that have a word in their command line.
fn processes_with(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let has = |path: std::path::PathBuf| {
        std::fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(word) && !line.contains("kubectl"))
    };
    all.filter(|entry| has(entry.path())).count()
}

/// kubectl on a terminal of its own.
struct Terminal {
    master: std::fs::File,
    child: Child,
    heard: String,
}

impl Terminal {
    fn open(kubectl: &Kubectl, arguments: &[&str], columns: u16, rows: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let mut command = kubectl.command(arguments);
        command.stdin(stdio(&slave)).stdout(stdio(&slave)).stderr(stdio(&slave));
        let child = command.spawn().expect("kubectl is installed");
        rustix::io::ioctl_fionbio(&master, true).expect("a descriptor");
        Terminal { master: master.into(), child, heard: String::new() }
    }

    fn say(&mut self, words: &str) {
        self.master.write_all(words.as_bytes()).expect("the terminal takes it");
    }

    /// Whether these words have been shown by now.
    fn shows(&mut self, words: &str) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.master.read(&mut buffer) {
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        self.heard.contains(words)
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = [("rows", rows), ("cols", columns)].map(|(name, count)| [name.to_owned(), count.to_string()]);
        let mut stty = std::process::Command::new("stty");
        let done = stty.args(size.as_flattened()).stdin(self.master.try_clone().expect("a descriptor")).status();
        assert!(done.is_ok_and(|status| status.success()), "stty");
        self.signal(Signal::SIGWINCH);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it is ours");
    }
}

/// A shell there knows its size, and hears of another.
async fn terminal_has_its_size(cluster: &Cluster<'_>, terminal: &mut Terminal) {
    terminal.say("\n");
    cluster.until("a prompt", async || terminal.shows("# ")).await;
    terminal.say("echo size=$(stty size)\n");
    cluster.until("its size", async || terminal.shows("size=30 100")).await;
    terminal.resize(120, 40);
    cluster
        .until("its other size", async || {
            terminal.say("echo size=$(stty size)\n");
            terminal.shows("size=40 120")
        })
        .await;
}

#[test]
fn commands_have_their_streams_and_their_exit_code() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        run_pod(&cluster, "box", "sleep 100000", "").await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            let exec = async |options: &[&str], line: &str, input: &[u8]| {
                kubectl.output(&[&["exec"], options, &["box", "--", "sh", "-c", line]].concat(), input).await
            };
            let both = exec(&[], "echo out; echo err >&2; exit 3", b"").await;
            assert_eq!(both.status.code(), Some(3), "{}: {both:?}", kubectl.name());
            assert_eq!(String::from_utf8_lossy(&both.stdout), "out\n");
            let words = String::from_utf8_lossy(&both.stderr);
            assert!(words.starts_with("err\n") && words.contains("exit code 3"), "{words}");

            // The end of the input is the end of `cat`; every byte comes back.
            let mut bytes = vec![0; 3 << 20];
            SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
            let echoed = exec(&["-i"], "cat", &bytes).await;
            assert!(echoed.status.success() && echoed.stdout == bytes, "{}: the echo differs", kubectl.name());
            let many = exec(&[], "head -c 20000000 /dev/zero", b"").await;
            assert_eq!((many.status.code(), many.stdout.len()), (Some(0), 20_000_000), "{}", kubectl.name());
            // Who reads nothing still has an exit code to tell.
            assert_eq!(exec(&["-i"], "exit 7", &bytes).await.status.code(), Some(7), "{}", kubectl.name());
            let unknown = kubectl.output(&["exec", "box", "--", "no-such-program"], b"").await;
            let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
            assert!(!unknown.status.success() && words.contains("no-such-program"), "{words}");

            let mut terminal = Terminal::open(&kubectl, &["exec", "-it", "box", "--", "sh"], 100, 30);
            terminal_has_its_size(&cluster, &mut terminal).await;
            terminal.say("exit 5\n");
            let ended = terminal.child.wait().await.expect("a status");
            assert_eq!(ended.code(), Some(5), "{}: {}", kubectl.name(), terminal.heard);
        }
        cluster.uninstall().await;
    });
}

#[test]
fn a_killed_client_leaves_nothing() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        run_pod(&cluster, "box", "nc -ll -p 9000 -e cat", "").await;
        let listens = async || cluster.kubectl().must(&["exec", "box", "--", "cat", "/proc/net/tcp6"]).await;
        cluster.until("it listens", async || listens().await.contains(":2328")).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            // What the daemon keeps open for whoever has asked before is there by now.
            kubectl.must(&["exec", "box", "--", "true"]).await;
            let before = descriptors(&cluster);
            for options in [&["exec", "-i"][..], &["exec", "-it"]] {
                let line = ["box", "--", "sh", "-c", "sleep 54321; echo over"];
                let mut terminal = Terminal::open(&kubectl, &[options, &line].concat(), 80, 24);
                cluster.until("the command runs", async || processes_with("54321") == 2).await;
                terminal.child.kill().await.expect("it is ours");
                cluster.until("the command has ended", async || processes_with("54321") == 0).await;
            }
            let mut forward = open_forward(&kubectl, "box", 9000).await;
            let mut held = TcpStream::connect(("127.0.0.1", forward.port)).await.unwrap();
            held.write_all(b"x").await.unwrap();
            held.read_exact(&mut [0]).await.unwrap();
            assert_eq!(connections(&kubectl).await, 2, "{}: both ends of one", kubectl.name());
            forward.child.kill().await.expect("it is ours");
            cluster.until("the pod has no connection", async || connections(&kubectl).await == 0).await;
            cluster.until("no descriptor is left", async || descriptors(&cluster) <= before).await;
        }
        cluster.uninstall().await;
    });
}

/// Ends of established connections at the pod's port 9000.
async fn connections(kubectl: &Kubectl) -> usize {
    let table = kubectl.must(&["exec", "box", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"]).await;
    table.lines().filter(|line| line.contains(":2328") && line.split_whitespace().nth(3) == Some("01")).count()
}

#[test]
fn attached_clients_share_the_containers_streams() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for (number, kubectl) in Kubectl::every(&machine.kubeconfig()).into_iter().enumerate() {
            let (once, shell) = (format!("once{number}"), format!("shell{number}"));
            let line = "while read line; do echo got $line; done; head -c 5000000 /dev/zero | tr '\\0' x; echo end >&2";
            run_pod(&cluster, &once, line, ", stdin: true, stdinOnce: true").await;
            let attached = kubectl.output(&["attach", "-i", &once], b"a\nb\n").await;
            assert!(attached.status.success(), "{}: {attached:?}", kubectl.name());
            let words = String::from_utf8_lossy(&attached.stdout).into_owned();
            assert!(words.starts_with("got a\ngot b\nxxx"), "{}: {:?}", kubectl.name(), words.get(..40));
            assert_eq!(words.len(), "got a\ngot b\n".len() + 5_000_000, "{}: no byte is lost", kubectl.name());
            assert!(String::from_utf8_lossy(&attached.stderr).ends_with("end\n"), "{:?}", attached.stderr);
            let logged = kubectl.output(&["logs", &once], b"").await.stdout;
            assert_eq!(String::from_utf8_lossy(&logged).replace("end\n", "").trim_end(), words, "the log has it all");

            run_pod(&cluster, &shell, "exec sh", ", stdin: true, tty: true").await;
            let mut first = Terminal::open(&kubectl, &["attach", "-it", &shell], 100, 30);
            terminal_has_its_size(&cluster, &mut first).await;
            first.child.kill().await.expect("it is ours");
            // Who leaves takes nothing along, and the next one finds the same shell.
            let mut second = Terminal::open(&kubectl, &["attach", "-it", &shell], 80, 24);
            second.say("echo again $((40 + 2))\n");
            cluster.until("the same shell", async || second.shows("again 42")).await;
            second.say("exit\n");
            assert!(second.child.wait().await.expect("a status").success(), "{}", second.heard);

            let run = ["run", "passing", &format!("--image={IMAGE}"), "--rm", "-i", "--restart=Never", "--command"];
            let ran = kubectl.output(&[&run[..], &["--", "cat"]].concat(), b"through and through\n").await;
            let words = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert!(ran.status.success() && words.contains("through and through\n"), "{}: {ran:?}", kubectl.name());
        }
        cluster.uninstall().await;
    });
}

fn sha256(path: &Path) -> String {
    let mut file = std::fs::File::open(path).expect("a file");
    let mut sum = Sha256::new();
    std::io::copy(&mut file, &mut sum).expect("its bytes");
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn files_are_copied_byte_for_byte() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        run_pod(&cluster, "box", "sleep 100000", "").await;
        let (there, back) = (machine.root().join("there"), machine.root().join("back"));
        let mut bytes = vec![0; COPIED_BYTES];
        SmallRng::seed_from_u64(2).fill_bytes(&mut bytes);
        std::fs::write(&there, bytes).expect("a file");
        let sum = sha256(&there);
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            kubectl.must(&["cp", &there.display().to_string(), "box:/copied"]).await;
            let inside = kubectl.must(&["exec", "box", "--", "sha256sum", "/copied"]).await;
            assert!(inside.starts_with(&sum), "{}: {inside}", kubectl.name());
            kubectl.must(&["cp", "box:/copied", &back.display().to_string()]).await;
            assert_eq!(sha256(&back), sum, "{}", kubectl.name());
            std::fs::remove_file(&back).expect("it was copied");
            kubectl.must(&["exec", "box", "--", "rm", "/copied"]).await;
        }
        cluster.uninstall().await;
    });
}

/// kubectl that forwards a port of this host to one of a pod.
struct Forward {
    child: Child,
    port: u16,
    /// It speaks of every connection, and ends where nobody listens.
    _words: Lines<BufReader<ChildStdout>>,
}

async fn open_forward(kubectl: &Kubectl, pod: &str, port: u16) -> Forward {
    let mut command = kubectl.command(&["port-forward", pod, &format!(":{port}"), "--address=127.0.0.1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl is installed");
    let mut words = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = words.next_line().await.expect("it speaks").unwrap_or_default();
    let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let port = local.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{}: {line}", kubectl.name()));
    Forward { child, port, _words: words }
}

/// Says what it is given, ends, and hears all of it back.
async fn echoed(mut stream: TcpStream, number: u8) {
    let said = vec![number; 1 << 20];
    let mut heard = Vec::new();
    let (mut read, mut write) = stream.split();
    let say = async {
        write.write_all(&said).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, listened) = tokio::join!(say, read.read_to_end(&mut heard));
    listened.unwrap();
    assert!(heard == said, "connection {number}: {} of {} bytes", heard.len(), said.len());
}

#[test]
fn ten_connections_are_forwarded_at_once() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        run_pod(&cluster, "box", "nc -ll -p 9000 -e cat", "").await;
        let listens = async || cluster.kubectl().must(&["exec", "box", "--", "cat", "/proc/net/tcp6"]).await;
        cluster.until("it listens", async || listens().await.contains(":2328")).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            let mut forward = open_forward(&kubectl, "box", 9000).await;
            let mut open = Vec::new();
            for number in 0..CONNECTIONS as u8 {
                let mut stream = TcpStream::connect(("127.0.0.1", forward.port)).await.unwrap();
                stream.write_all(&[number]).await.unwrap();
                let mut back = [0xff];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(back, [number], "{}", kubectl.name());
                open.push(stream);
            }
            let all = open.into_iter().zip(0..).map(|(stream, number)| echoed(stream, number));
            futures::future::join_all(all).await;
            forward.child.kill().await.expect("it is ours");

            // Nobody listens there: the client is told by whom, and why.
            let mut nowhere = open_forward(&kubectl, "box", 9001).await;
            let mut stream = TcpStream::connect(("127.0.0.1", nowhere.port)).await.unwrap();
            let _ = stream.read(&mut [0]).await;
            let mut errors = BufReader::new(nowhere.child.stderr.take().expect("a pipe")).lines();
            let line = errors.next_line().await.expect("it complains").unwrap_or_default();
            assert!(line.contains("9001") && line.contains("refused"), "{}: {line}", kubectl.name());
        }
        cluster.uninstall().await;
    });
}
