//! The stock kubectl, in the versions that this machine has: `tests/install.sh` brings Debian 12's and Debian 13's.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Whose credentials it uses, and which program it is.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Discovery is cached beside the data, not in the home of who runs the test.
    cache: PathBuf,
}

impl Kubectl {
    /// The one on the search path.
    pub fn new(kubeconfig: &Path) -> Kubectl {
        Kubectl::at("kubectl".into(), kubeconfig)
    }

    pub fn at(program: PathBuf, kubeconfig: &Path) -> Kubectl {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cache = kubeconfig.with_file_name(format!("cache-{name}"));
        Kubectl { program, kubeconfig: kubeconfig.to_owned(), cache }
    }

    /// Every version that was installed for the tests. Never empty: a machine without them is a mistake of its set-up.
    pub fn every(kubeconfig: &Path) -> Vec<Kubectl> {
        let found: Vec<Kubectl> = ["kubectl-1.20", "kubectl-1.32"]
            .iter()
            .map(|name| installed().join(name))
            .filter(|program| {
                let there = program.exists();
                if !there {
                    eprintln!("SKIPPED: {} is not installed; run tests/install.sh tests", program.display());
                }
                there
            })
            .map(|program| Kubectl::at(program, kubeconfig))
            .collect();
        assert!(!found.is_empty(), "no kubectl in {}", installed().display());
        found
    }

    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What it prints, or what it complains of.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.with_input(arguments, "").await
    }

    /// The program with its arguments, to be run in another way than those below.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // What follows a `--` belongs to the container: options of ours come first.
        command.arg("--cache-dir").arg(&self.cache).args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command.kill_on_drop(true);
        command
    }

    /// What became of it, with these bytes on its standard input.
    pub async fn output(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        let run = async {
            // It may end without reading all of it.
            let _ = stdin.write_all(input).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(TIMEOUT * crate::vm::patience(), run).await;
        output.unwrap_or_else(|_| panic!("{} {arguments:?} does not end", self.name())).expect("its output")
    }

    /// What it prints, with something on its standard input, or what it complains of.
    pub async fn with_input(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let output = self.output(arguments, input.as_bytes()).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr) + &text(&output.stdout))
        }
    }

    /// The same, where anything but success is the test's failure.
    pub async fn must(&self, arguments: &[&str]) -> String {
        match self.run(arguments).await {
            Ok(text) => text,
            Err(text) => panic!("{} {arguments:?}: {text}", self.name()),
        }
    }
}

/// Where `tests/install.sh` puts what no package installs beside another version of itself.
pub fn installed() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("gantry-tests")
}
