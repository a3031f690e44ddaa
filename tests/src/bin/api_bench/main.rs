//! `api_bench`: how fast the API server is, beside what the same machine does in the same run without it: a bare hyper server over
//! the same TLS, etcd, and the disk. It starts control services of its own, in processes of their own, and leaves nothing behind.
//! See tests/bench/README.md for what each figure says and leaves out.

#![forbid(unsafe_code)]

mod bare;
mod child;
mod creates;
mod lists;
mod pods;
mod watchers;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use child::Server;
use clap::{Parser, Subcommand};
use gantry_control::Control;
use gantry_tests::api;
use gantry_tests::figures::median;
use http::Method;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::{USER, Version, Wire};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NAMESPACE: &str = "bench";
const SERVICE_ACCOUNTS: &str = "/api/v1/namespaces/bench/serviceaccounts";
const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
/// The longest answer that is asked of the bare server.
const BARE_MAX_BYTES: usize = 64 << 20;

#[derive(Parser)]
struct Cli {
    /// Where the stores' files are made, on the disk that is to be measured
    #[arg(long, global = true, default_value = ".")]
    folder: PathBuf,
    /// Speak HTTP/1.1 instead of HTTP/2
    #[arg(long, global = true)]
    http1: bool,
    /// Show a service account's token with each request instead of a certificate with the connection
    #[arg(long, global = true)]
    token: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Durable creates of 100-byte ConfigMaps by many clients
    Creates {
        #[arg(long, default_value_t = 32)]
        clients: usize,
        #[arg(long, default_value_t = 20_000)]
        count: usize,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The same by one client
    Alone {
        #[arg(long, default_value_t = 3000)]
        count: usize,
    },
    /// Lists, and pages of 500
    Lists {
        #[arg(long, default_value_t = 10_000)]
        count: usize,
        #[arg(long, default_value_t = 40)]
        rounds: usize,
    },
    /// One event to many watchers
    Watchers {
        #[arg(long, default_value_t = 1000)]
        count: usize,
        #[arg(long, default_value_t = 50)]
        events: usize,
    },
    /// A write while others list everything
    Storm {
        #[arg(long, default_value_t = 10_000)]
        count: usize,
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Memory with many pods, and a start with them
    Pods {
        #[arg(long, default_value_t = 150_000)]
        count: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// All of these
    All,
    /// Be a control service whose files are in the folder
    #[command(hide = true)]
    Control {
        #[arg(long)]
        loops: bool,
    },
    /// Be the bare server
    #[command(hide = true)]
    Bare,
}

fn main() -> Result<(), Failure> {
    let cli = Cli::parse();
    gantry_runtime::bound_heaps();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let listening = |address: SocketAddr| println!("{address}");
    match cli.what {
        What::Control { loops } => return control(&cli.folder, loops, listening).await,
        What::Bare => return bare::serve(&cli.folder, BARE_MAX_BYTES, listening).await,
        _ => {}
    }
    let version = if cli.http1 { Version::Http1 } else { Version::Http2 };
    let setting = Setting { folder: tempfile::tempdir_in(&cli.folder)?, version, token: cli.token };
    match cli.what {
        What::Creates { clients, count, rounds } => creates::rate(&setting, clients, count, rounds).await,
        What::Alone { count } => creates::alone(&setting, count).await,
        What::Lists { count, rounds } => lists::lists(&setting, count, rounds).await,
        What::Watchers { count, events } => watchers::watchers(&setting, count, events).await,
        What::Storm { count, seconds, rounds } => lists::storm(&setting, count, seconds, rounds).await,
        What::Pods { count, rounds } => pods::pods(&setting, count, rounds).await,
        What::All | What::Control { .. } | What::Bare => {
            creates::rate(&setting, 32, 20_000, 5).await?;
            creates::alone(&setting, 3000).await?;
            lists::lists(&setting, 10_000, 40).await?;
            watchers::watchers(&setting, 1000, 50).await?;
            lists::storm(&setting, 10_000, 5, 3).await?;
            pods::pods(&setting, 150_000, 3).await
        }
    }
}

/// Runs a control service as `gantry control` does.
async fn control(folder: &Path, loops: bool, listening: impl FnOnce(SocketAddr)) -> Result<(), Failure> {
    let control = Control::start(api::config(folder, loops)).await?;
    listening(control.address());
    child::until_told_to_stop().await;
    control.stop().await;
    Ok(())
}

/// Where and how is measured.
struct Setting {
    folder: TempDir,
    version: Version,
    token: bool,
}

impl Setting {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new control service with its loops, in which [`USER`] may do what is measured.
    async fn control(&self) -> Result<Server, Failure> {
        let folder = tempfile::tempdir_in(self.folder())?.keep();
        let mut server = Server::start(&["control", "--loops"], &folder)?;
        let mut admin = Wire::admin(&folder, server.address)?.connect().await?;
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["*"]}]);
        let named =
            |kind: &str, version: &str| json!({"kind": kind, "apiVersion": version, "metadata": {"name": USER}});
        let with = |mut object: Value, fields: &[(&str, Value)]| {
            fields.iter().for_each(|(name, value)| object[*name] = value.clone());
            object
        };
        const RBAC: &str = "rbac.authorization.k8s.io";
        let version = format!("{RBAC}/v1");
        let role = with(named("ClusterRole", &version), &[("rules", rules)]);
        let binding = with(
            named("ClusterRoleBinding", &version),
            &[
                ("roleRef", json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": USER})),
                (
                    "subjects",
                    json!([{"apiGroup": RBAC, "kind": "User", "name": USER},
                {"kind": "ServiceAccount", "namespace": NAMESPACE, "name": USER}]),
                ),
            ],
        );
        let mut namespace = named("Namespace", "v1");
        namespace["metadata"]["name"] = json!(NAMESPACE);
        for (path, object) in [
            ("/api/v1/namespaces".to_owned(), namespace),
            (SERVICE_ACCOUNTS.to_owned(), named("ServiceAccount", "v1")),
            (format!("/apis/{version}/clusterroles"), role),
            (format!("/apis/{version}/clusterrolebindings"), binding),
        ] {
            admin.create(&path, object.to_string().into()).await?;
        }
        if self.token {
            let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
            let path = format!("{SERVICE_ACCOUNTS}/{USER}/token");
            let answer = admin.ask(Method::POST, &path, request.to_string().into()).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            server.token = Some(answer["status"]["token"].as_str().ok_or("no token was given")?.to_owned());
        }
        Ok(server)
    }

    fn bare(&self) -> Result<Server, Failure> {
        Server::start(&["bare"], &tempfile::tempdir_in(self.folder())?.keep())
    }

    fn wire(&self, server: &Server) -> Result<Wire, Failure> {
        match &server.token {
            Some(token) => Wire::by_token(server.folder(), server.address, self.version, token),
            None => Wire::new(server.folder(), server.address, self.version),
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Prints the median of what the rounds gave, and between what they lay.
fn show(what: &str, unit: &str, values: &[f64]) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let middle = median(values.to_vec());
    println!("{what:<44} {middle:>12.2} {unit:<3} ({least:.2} to {most:.2} in {} rounds)", values.len());
}

fn ratio(what: &str, ratio: f64, of: &str) {
    println!("{what:<44} {ratio:>12.2} x   {of}");
}
