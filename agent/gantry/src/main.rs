//! The program `gantry`: the only place that composes. Each role of [`cli`] is put together from the crates here; nothing
//! of what the roles do is decided here.

#![forbid(unsafe_code)]

mod agent;
mod boot;
mod cli;
mod control;
mod delegated;
mod down;
mod host;
mod image;
mod lock;
mod logging;
mod node;
mod notify;
mod paths;
mod preflight;
mod runtime;
mod shutdown;
mod trace;
mod up;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, ControlWhat, ImageWhat, TraceWhat};
use gantry_env::{Env, chain};
use paths::Paths;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn run(cli: Cli) -> Result<(), Failure> {
    logging::start(&cli.log)?;
    let paths = Paths::under(&cli.root);
    let env = Env::system();
    if cli.command.is_role() {
        gantry_runtime::bound_heaps();
        host::spare_from_oom();
    }
    match cli.command {
        Command::Up(args) if args.detach => up::detach(&paths),
        Command::Up(args) => block_on(up::run(paths, args, env)),
        Command::Down(args) => block_on(async move { down::down(&paths, &args, &env).await }),
        Command::Uninstall(args) => block_on(async move { down::uninstall(&paths, &args, &env).await }),
        Command::Control(role) => match role.what {
            Some(ControlWhat::NodeCredentials { name, ip, server, out }) => {
                agent::write_credentials(&paths, &name, &ip, &server, &out, &env)
            }
            Some(ControlWhat::Snapshot(what)) => block_on(control::store::snapshot(paths, what)),
            Some(ControlWhat::Store(what)) => block_on(control::store::copy(paths, what, env)),
            None => block_on(control::run(paths, role.args, env)),
        },
        Command::Agent(args) => block_on(agent::run(paths, args, env)),
        Command::Shutdown(args) => block_on(async move { shutdown::run(&paths.agent_socket(), args.cancel).await }),
        Command::HoldCgroup { stay: true } => delegated::stay(),
        Command::HoldCgroup { stay: false } => delegated::hold(),
        Command::Runtime(args) => block_on(runtime::run(paths, args, env)),
        Command::Trace(args) => {
            let TraceWhat::Pod { name, namespace, kubeconfig } = args.what;
            let kubeconfig = kubeconfig.unwrap_or_else(|| paths.kubeconfig());
            block_on(async move { trace::pod(&kubeconfig, &namespace, &name).await })
        }
        Command::Image(args) => {
            let socket = args.socket.unwrap_or_else(|| paths.cri_socket());
            block_on(async move {
                match args.what {
                    ImageWhat::List => image::list(&socket).await,
                    ImageWhat::Pull { references, platform } => {
                        image::pull::run(&socket, &references, platform.as_ref()).await
                    }
                    ImageWhat::Import { files, platform } => {
                        image::archive::import(&socket, &files, platform.as_ref()).await
                    }
                    ImageWhat::Export { references, platform, output } => {
                        image::archive::export(&socket, references, platform.as_ref(), &output).await
                    }
                    ImageWhat::Rm { references } => image::remove(&socket, &references).await,
                    ImageWhat::Prune { dry_run } => image::prune::run(&paths.agent_socket(), dry_run).await,
                }
            })
        }
    }
}

fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
