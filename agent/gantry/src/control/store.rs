//! Which store a control service is told to use.

use std::path::{Path, PathBuf};

use gantry_control::StoreConfig;
use gantry_control::store::etcd;
use gantry_env::Env;
use gantry_pki::{Credential, PkiError, Reloading, files, tls};

use crate::cli::{StoreArgs, StoreKind};

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
}

pub fn config(args: &StoreArgs, env: &Env) -> Result<StoreConfig, StoreArgsError> {
    match args.store {
        StoreKind::Embedded => Ok(StoreConfig::Embedded),
        StoreKind::Etcd => Ok(StoreConfig::Etcd(etcd_config(args, env)?)),
    }
}

pub fn etcd_config(args: &StoreArgs, env: &Env) -> Result<etcd::Config, StoreArgsError> {
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
            Some(config.map_err(unusable("--etcd-cafile", path))?)
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
