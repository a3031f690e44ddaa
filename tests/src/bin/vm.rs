//! `vm`: runs the tests in machines of our own. `vm list`, `vm run cluster --on uml-6.12`, `vm shell`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use gantry_tests::vm::{self, Ground, KERNELS, Seat, Vm, bare};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

/// The test files that look at cgroups, mounts, namespaces and packets of their host, and how many machines share the tests of
/// each; the longest come first, so that none of them is waited for alone at the end.
const OF_THE_HOST: &[(&str, usize)] = &[
    ("cluster", 4),
    ("power", 1),
    ("policies", 1),
    ("workloads", 1),
    ("kubectl", 1),
    ("streams", 1),
    ("agent", 1),
    ("shutdown", 1),
    ("systemd", 1),
    ("eviction", 1),
    ("pods", 1),
    ("pod_users", 1),
    ("storage", 1),
    ("api_proxy", 1),
    ("limits", 1),
    ("bare", 1),
    ("stream_urls", 1),
    ("stream_kinds", 1),
    ("cri_suite", 1),
    ("cri_network", 1),
    ("cri_security", 1),
    ("cri_cdi", 1),
    ("cri_images", 1),
    ("security", 1),
    ("idle", 1),
    ("metrics", 1),
    ("faults", 1),
    ("cgroups", 1),
    ("log_rotation", 1),
    ("lifecycle", 1),
    ("confinement", 1),
    ("survival", 1),
    ("soak", 1),
    ("processes", 1),
    ("logs", 1),
    ("lists", 1),
    ("images", 1),
    ("volumes", 1),
    ("users", 1),
    ("network", 1),
];
/// The one that has systemd as process 1, and the one that has nothing on its root.
const SYSTEMD: &str = "systemd";
const BARE: &str = "bare";
/// What only `--full` runs in one machine, and by itself in three.
const LONG: &[(&str, usize)] = &[("chaos", 1), ("crash", 2)];
const NODES: (&str, u32) = ("nodes", 3);
/// What says something on Debian's own kernels, one machine at a time as each has two processors: controllers, modules and
/// the second processor that user-mode Linux lacks, and a first pod.
const ON_DEBIANS: &[(&str, &[&str])] = &[
    ("cgroups", &["--test-threads=1"]),
    ("faults", &["--test-threads=1"]),
    ("limits", &[]),
    ("network", &[]),
    ("cluster", &["--exact", "the_ten_steps_of_a_pod_are_told"]),
];
type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Args)]
struct Machine {
    #[arg(long, default_value = KERNELS[0], value_parser = clap::builder::PossibleValuesParser::new(KERNELS))]
    on: String,
    /// Where console, answer and core files are left
    #[arg(long, default_value = "target/vm")]
    out: PathBuf,
    /// After so long a machine hangs; no scenario takes half of it
    #[arg(long, default_value_t = 2400)]
    timeout_seconds: u64,
}

impl Machine {
    fn of(&self, init: &Path, scenario: &str, interactive: bool) -> std::io::Result<Vm> {
        Ok(Vm {
            kernel: self.on.clone(),
            init: init.to_owned(),
            out: std::path::absolute(&self.out)?.join(format!("{scenario}-{}", self.on)),
            timeout: Duration::from_secs(self.timeout_seconds),
            interactive,
            ground: if scenario == SYSTEMD { Ground::Systemd } else { Ground::Host },
            seat: None,
        })
    }
}

#[derive(Subcommand)]
enum What {
    /// The kernels and the scenarios: each test file is one
    List,
    /// Run a scenario in a machine; what follows is the test program's (a test's name, --nocapture)
    Run {
        scenario: String,
        #[command(flatten)]
        machine: Machine,
        /// So many machines on one segment, each with the same test
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
        nodes: u32,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run every scenario that needs a host of its own, each in a fresh machine
    All {
        #[command(flatten)]
        machine: Machine,
        /// Also chaos, three machines as one cluster, and Debian's kernels in QEMU: an hour on two processors
        #[arg(long)]
        full: bool,
    },
    /// Lays every scenario that needs a host of its own in a folder, with the programs that it starts: for hosts without cargo
    Pack { folder: PathBuf },
    /// A shell in a machine, or any other command
    Shell {
        #[command(flatten)]
        machine: Machine,
        #[arg(last = true, default_values = ["bash", "-i"])]
        command: Vec<String>,
    },
    /// The scenario of an empty root
    #[command(hide = true)]
    Bare,
    /// What process 1 leaves to systemd's unit
    #[command(hide = true)]
    Serve,
    /// What process 1 of a machine is
    #[command(hide = true)]
    Init {
        kind: String,
        shared: String,
        /// What the kernel adds to its command line
        rest: Vec<String>,
    },
}

fn main() -> Result<ExitCode, Failure> {
    // Asked for before anything is built: a build may put another program in the place of this one. Process 1 of an empty tree
    // has no /proc yet to find itself by, and needs it not.
    let init = std::env::current_exe().unwrap_or_default();
    match Cli::parse().what {
        What::Init { kind, shared, .. } => vm::init(&kind, &shared),
        What::Serve => vm::serve(),
        What::Bare => bare::run().map(|()| ExitCode::SUCCESS),
        What::List => {
            println!("kernels: {}", KERNELS.join(" "));
            for scenario in scenarios()? {
                println!("{:<20} {}", scenario.name, scenario.program.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        What::Run { scenario, machine, nodes, arguments } => {
            let found = scenarios()?.into_iter().find(|s| s.name == scenario);
            let found = found.ok_or_else(|| format!("no test file is named {scenario}"))?;
            let vm = machine.of(&init, &scenario, false)?;
            if nodes > 1 {
                let (passed, consoles) = on_segment(vm, nodes, &found, &arguments)?;
                print!("{consoles}");
                return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            let code = found.boot(vm.clone(), &arguments)?;
            print!("{}", std::fs::read_to_string(vm.console())?);
            Ok(code)
        }
        What::All { machine, full } => all(&init, &machine, full),
        What::Pack { folder } => pack(&init, &folder),
        What::Shell { machine, command } => {
            let vm = machine.of(&init, "shell", true)?;
            boot(&vm, &std::env::current_dir()?, Path::new(&command[0]), &command[1..])
        }
    }
}

fn all(init: &Path, machine: &Machine, full: bool) -> Result<ExitCode, Failure> {
    // Without this one nothing is proved.
    vm::kernel(&machine.on)?;
    let found = scenarios()?;
    let named = |name: &str| {
        found.iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("no test file is named {name}"))
    };
    let mut wanted = Vec::new();
    for (name, machines) in if full { LONG } else { &[] }.iter().chain(OF_THE_HOST) {
        wanted.extend(named(name)?.parts(*machines)?);
    }
    let tally = Tally::default();
    let waiting = Mutex::new(wanted.iter());
    let work = || {
        while let Some(part) = { waiting.lock().next() } {
            tally.count(
                &part.name,
                machine.of(init, &part.name, false).map_err(Failure::from).and_then(|vm| part.run(vm)),
            );
        }
    };
    // As many machines at once as there are processors, where each has one.
    let at_once =
        if machine.on.starts_with("uml") { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    std::thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    if full {
        let (name, nodes) = NODES;
        let (scenario, vm) = (named(name)?, machine.of(init, name, false)?);
        // The thread that makes a segment is on it from then on.
        let thread = || on_segment(vm, nodes, scenario, &[]).map_err(|error| error.to_string());
        let ended = std::thread::scope(|scope| scope.spawn(thread).join().expect("no panic"));
        tally.count(name, ended.map_err(Failure::from));
        for kernel in KERNELS.iter().filter(|kernel| kernel.starts_with("qemu")) {
            if let Err(error) = vm::kernel(kernel) {
                println!("SKIPPED: all {} scenarios on {kernel}: {error}", ON_DEBIANS.len());
                tally.skipped.fetch_add(ON_DEBIANS.len(), Ordering::Relaxed);
                continue;
            }
            let machine = Machine { on: (*kernel).to_owned(), out: machine.out.clone(), ..*machine };
            for (name, arguments) in ON_DEBIANS {
                let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
                let part = Part { name: (*name).to_owned(), scenario: named(name)?, arguments };
                tally.count(name, part.run(machine.of(init, name, false)?));
            }
        }
    }
    Ok(tally.close())
}

/// How machines ended.
#[derive(Default)]
struct Tally {
    passed: AtomicUsize,
    failed: AtomicUsize,
    skipped: AtomicUsize,
}

impl Tally {
    /// With it, what the machines printed.
    fn count(&self, name: &str, ended: Result<(bool, String), Failure>) {
        match &ended {
            Ok((true, _)) => {}
            Ok((false, consoles)) => println!("{consoles}"),
            Err(error) => println!("{name}: {error}"),
        }
        let kind = if ended.is_ok_and(|(passed, _)| passed) { &self.passed } else { &self.failed };
        kind.fetch_add(1, Ordering::Relaxed);
    }

    fn close(self) -> ExitCode {
        let [passed, failed, skipped] = [self.passed, self.failed, self.skipped].map(AtomicUsize::into_inner);
        println!("machines: {passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A test finds the programs that it starts in the folder above its own.
fn pack(own: &Path, folder: &Path) -> Result<ExitCode, Failure> {
    let deps = folder.join("deps");
    std::fs::create_dir_all(&deps)?;
    let found = scenarios()?;
    for scenario in found.iter().filter(|s| s.name != BARE && OF_THE_HOST.iter().any(|(name, _)| s.name == *name)) {
        std::fs::copy(&scenario.program, deps.join(&scenario.name))?;
    }
    for entry in std::fs::read_dir(own.parent().ok_or("no folder")?)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_none() {
            std::fs::copy(&path, folder.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Several machines at once, on a network that nobody else is on: whether all passed, and what they printed.
fn on_segment(vm: Vm, nodes: u32, scenario: &Scenario, arguments: &[String]) -> Result<(bool, String), Failure> {
    let meeting = vm.out.join("meeting");
    let _ = std::fs::remove_dir_all(&meeting);
    std::fs::create_dir_all(&meeting)?;
    vm::segment::enclose(nodes)?;
    let ended = std::thread::scope(|scope| {
        let run = |node: u32| {
            let mut vm = vm.clone();
            vm.out = vm.out.join(node.to_string());
            vm.seat = Some(Seat { node, nodes, meeting: meeting.clone() });
            let passed = boot(&vm, &scenario.folder, &scenario.program, arguments).map_err(|error| error.to_string());
            (vm.console(), passed)
        };
        let machines: Vec<_> = (1..=nodes).map(|node| scope.spawn(move || run(node))).collect();
        machines.into_iter().map(|machine| machine.join().expect("no panic")).collect::<Vec<_>>()
    });
    let (mut passed, mut consoles) = (true, String::new());
    for (console, result) in ended {
        consoles += &std::fs::read_to_string(console)?;
        if let Err(error) = &result {
            consoles += &format!("{error}\n");
        }
        passed &= result.is_ok_and(|code| code == ExitCode::SUCCESS);
    }
    std::fs::remove_dir_all(&meeting)?;
    Ok((passed, consoles))
}

fn boot(vm: &Vm, folder: &Path, program: &Path, arguments: &[String]) -> Result<ExitCode, Failure> {
    let start = Instant::now();
    let answer = vm.run(folder, program, arguments)?;
    // Of several machines, the scenario's folder has one for each.
    let of_several = vm.seat.as_ref().and_then(|_| vm.out.parent());
    let name = vm.out.strip_prefix(of_several.unwrap_or(&vm.out).parent().unwrap_or(Path::new("/")))?;
    println!(
        "{:<28} Linux {}; {}: code {} after {:.0} s, {:.1} s of them to boot",
        name.display(),
        answer.kernel,
        answer.controllers,
        answer.code,
        start.elapsed().as_secs_f64(),
        answer.boot_seconds,
    );
    Ok(ExitCode::from(u8::try_from(answer.code).unwrap_or(1)))
}

/// One test program, and the folder in which cargo runs it.
struct Scenario {
    name: String,
    program: PathBuf,
    folder: PathBuf,
}

/// What one machine runs of a scenario.
struct Part<'a> {
    name: String,
    scenario: &'a Scenario,
    arguments: Vec<String>,
}

impl Part<'_> {
    /// Whether it passed, and what the machine printed where it did not.
    fn run(&self, vm: Vm) -> Result<(bool, String), Failure> {
        let passed = self.scenario.boot(vm.clone(), &self.arguments)? == ExitCode::SUCCESS;
        Ok((passed, if passed { String::new() } else { std::fs::read_to_string(vm.console())? }))
    }
}

impl Scenario {
    fn boot(&self, mut vm: Vm, arguments: &[String]) -> Result<ExitCode, Failure> {
        if self.name != BARE {
            return boot(&vm, &self.folder, &self.program, arguments);
        }
        let built = Command::new(&self.program).arg("vm").stderr(Stdio::inherit()).output()?;
        if !built.status.success() {
            return Err("the release does not build".into());
        }
        let bin = self.folder.join("..").join(String::from_utf8(built.stdout)?.trim());
        let root = vm.out.join("root");
        std::fs::create_dir_all(&vm.out)?;
        // The older of the two is static, as its makers ship it.
        bare::lay(&root, &vm.out, &bin, &gantry_tests::kubectl::installed().join("kubectl-1.20"))?;
        vm.ground = Ground::Own(root);
        vm.init = bare::INIT.into();
        boot(&vm, Path::new("/"), Path::new(bare::INIT), &["bare".to_owned()])
    }

    /// Deals the tests out to so many machines.
    fn parts(&self, machines: usize) -> Result<Vec<Part<'_>>, Failure> {
        if machines == 1 {
            return Ok(vec![Part { name: self.name.clone(), scenario: self, arguments: Vec::new() }]);
        }
        let listed = Command::new(&self.program).args(["--list", "--format", "terse"]).output()?;
        let mut parts: Vec<Part<'_>> = (1..=machines)
            .map(|n| Part { name: format!("{}-{n}", self.name), scenario: self, arguments: vec!["--exact".to_owned()] })
            .collect();
        let tests = String::from_utf8(listed.stdout)?;
        for (at, test) in tests.lines().filter_map(|line| line.strip_suffix(": test")).enumerate() {
            parts[at % machines].arguments.push(test.to_owned());
        }
        parts.retain(|part| part.arguments.len() > 1);
        if parts.is_empty() { Err(format!("{} lists no tests", self.program.display()).into()) } else { Ok(parts) }
    }
}

/// Every test program of the workspace, built where it is not.
fn scenarios() -> Result<Vec<Scenario>, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--quiet", "--workspace", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err("the tests do not build".into());
    }
    let mut found = Vec::new();
    for line in built.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line)?;
        let (Some(program), Some(true)) = (message["executable"].as_str(), message["profile"]["test"].as_bool()) else {
            continue;
        };
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        found.push(Scenario {
            name: message["target"]["name"].as_str().unwrap_or_default().to_owned(),
            program: program.into(),
            folder: manifest.parent().unwrap_or(Path::new(".")).to_owned(),
        });
    }
    // Not a test file: what it runs has to be static.
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    found.push(Scenario { name: BARE.to_owned(), program: folder.join("build-release.sh"), folder });
    Ok(found)
}
