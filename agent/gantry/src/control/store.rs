//! Which store a control service is told to use, and what is done to stores beside it: snapshots and copies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_client::Client;
use gantry_control::StoreConfig;
use gantry_control::control::STORE_FILE;
use gantry_control::http::paths::SNAPSHOT;
use gantry_control::store::encrypted::{self, Rules};
use gantry_control::store::snapshot::{Saving, Summary};
use gantry_control::store::{Etcd, etcd, fill};
use gantry_env::Env;
use gantry_pki::{Credential, PkiError, Reloading, files, tls};

use crate::Failure;
use crate::cli::{EtcdArgs, SnapshotWhat, StoreArgs, StoreKind, StoreWhat};
use crate::paths::Paths;

#[derive(Debug, thiserror::Error)]
pub enum StoreArgsError {
    #[error("{flag} {path}: there is no such file", path = path.display())]
    Missing { flag: &'static str, path: PathBuf },
    #[error("{flag} {path} cannot be used", path = path.display())]
    File {
        flag: &'static str,
        path: PathBuf,
        #[source]
        source: PkiError,
    },
    #[error(
        "--etcd-certfile needs --etcd-cafile: a certificate is shown to none but a server that somebody vouches for"
    )]
    NoAuthority,
    #[error("--encryption-provider-config {path} cannot be used", path = path.display())]
    Encryption {
        path: PathBuf,
        #[source]
        source: encrypted::config::ConfigError,
    },
    #[error("--etcd-servers is not given, and the objects are to be in etcd")]
    NoServers,
    #[error("objects are copied from one kind of store to the other: --from and --to are the same")]
    SameKind,
}

/// `gantry control snapshot`.
pub async fn snapshot(paths: Paths, what: SnapshotWhat) -> Result<(), Failure> {
    match what {
        SnapshotWhat::Save { file, kubeconfig } => {
            let kubeconfig = kubeconfig.unwrap_or_else(|| paths.kubeconfig());
            let client = Client::connect(&kubeconfig, "gantry-snapshot").await?;
            let Summary { revision, records } = save(&client, &file).await?;
            println!("{records} objects as of revision {revision} are in {}", file.display());
        }
        SnapshotWhat::Restore { file, replace } => {
            let path = paths.control().join(STORE_FILE);
            files::private_folder(&paths.control())?;
            let Summary { revision, records } = fill::restore(&file, &path, replace).await?;
            println!("{records} objects as of revision {revision} are restored to {}", path.display());
        }
    }
    Ok(())
}

/// `gantry control store copy`.
pub async fn copy(paths: Paths, what: StoreWhat, env: Env) -> Result<(), Failure> {
    let StoreWhat::Copy { from, to, replace, etcd } = what;
    let config = etcd_config(&etcd, &env)?;
    let path = paths.control().join(STORE_FILE);
    let Summary { revision, records } = match (from, to) {
        (StoreKind::Embedded, StoreKind::Etcd) => {
            fill::copy_to_etcd(&*fill::open_file(&path)?, &config, replace).await?
        }
        (StoreKind::Etcd, StoreKind::Embedded) => {
            files::private_folder(&paths.control())?;
            fill::copy_to_file(&Etcd::open(&config).await?, &path, replace).await?
        }
        (StoreKind::Embedded, StoreKind::Embedded) | (StoreKind::Etcd, StoreKind::Etcd) => {
            return Err(StoreArgsError::SameKind.into());
        }
    };
    println!("{records} objects as of revision {revision} are copied");
    Ok(())
}

async fn save(client: &Client, file: &Path) -> Result<Summary, Failure> {
    let mut pieces = client.pieces(SNAPSHOT).await?;
    let mut saving = Saving::begin(file)?;
    while let Some(piece) = pieces.next().await? {
        saving.write(&piece)?;
    }
    Ok(saving.finish()?)
}

pub fn config(args: &StoreArgs, env: &Env) -> Result<StoreConfig, StoreArgsError> {
    match args.store {
        StoreKind::Embedded => Ok(StoreConfig::Embedded),
        StoreKind::Etcd => Ok(StoreConfig::Etcd(etcd_config(&args.etcd, env)?)),
    }
}

/// How values are encrypted, as the file says.
pub fn encryption(args: &StoreArgs) -> Result<Option<Arc<Rules>>, StoreArgsError> {
    let Some(path) = &args.encryption_provider_config else { return Ok(None) };
    match encrypted::config::read(path) {
        Ok(rules) => Ok(Some(Arc::new(rules))),
        Err(source) => Err(StoreArgsError::Encryption { path: path.clone(), source }),
    }
}

fn etcd_config(args: &EtcdArgs, env: &Env) -> Result<etcd::Config, StoreArgsError> {
    if args.etcd_servers.is_empty() {
        return Err(StoreArgsError::NoServers);
    }
    let credential = match (&args.etcd_certfile, &args.etcd_keyfile) {
        (Some(certificate), Some(key)) => {
            let credential = Credential {
                certificate_pem: read("--etcd-certfile", certificate)?,
                key_pem: read("--etcd-keyfile", key)?,
            };
            Some(Reloading::new(&credential).map_err(unusable("--etcd-certfile", certificate))?)
        }
        _ => None,
    };
    let tls = match &args.etcd_cafile {
        Some(path) => {
            let ca_pem = read("--etcd-cafile", path)?;
            let config = tls::client_config(&ca_pem, credential.as_ref(), &env.clock);
            Some(Arc::new(config.map_err(unusable("--etcd-cafile", path))?))
        }
        None if credential.is_some() => return Err(StoreArgsError::NoAuthority),
        None => None,
    };
    Ok(etcd::Config { servers: args.etcd_servers.clone(), prefix: args.etcd_prefix.clone(), tls })
}

fn unusable(flag: &'static str, path: &Path) -> impl FnOnce(PkiError) -> StoreArgsError {
    let path = path.to_owned();
    move |source| StoreArgsError::File { flag, path, source }
}

fn read(flag: &'static str, path: &Path) -> Result<String, StoreArgsError> {
    let found = files::read(path).map_err(unusable(flag, path))?;
    found.ok_or_else(|| StoreArgsError::Missing { flag, path: path.to_owned() })
}
