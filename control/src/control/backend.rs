//! The store that a control service is told to use, and what of it is the backend's own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::chain;
use gantry_kube::Ref;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Config, ControlError, STORE_FILE, StoreConfig};
use crate::bootstrap::credentials::PKI_FOLDER;
use crate::bootstrap::{Cluster, Credentials};
use crate::http::metrics::Metrics;
use crate::store::{Cache, Compare, Embedded, Encrypted, Etcd, Expect, Key, Measured, Op, Store, StoreError};

const RELEASE_POLL: Duration = Duration::from_millis(5);
/// Where a cluster that several control hosts share keeps what its authority is.
const AUTHORITY_KIND: &str = "authorities.internal.gantry";
/// What every control host of a cluster has to have alike.
const SHARED_FILES: [&str; 3] = ["ca.crt", "ca.key", "service-account.key"];

pub struct Backend {
    /// As the control service uses it.
    store: Arc<dyn Store>,
    /// As it is, its values perhaps encrypted.
    raw: Arc<dyn Store>,
    encrypted: Option<Arc<Encrypted>>,
    /// The latter, where it is the embedded one.
    embedded: Option<Arc<Embedded>>,
    /// How messages name it.
    place: String,
}

impl Backend {
    pub async fn open(config: &Config) -> Result<Backend, ControlError> {
        match &config.store {
            StoreConfig::Embedded => {
                let path = config.data_dir.join(STORE_FILE);
                let place = path.display().to_string();
                // The credentials come later, and make this folder private, too.
                make_folder(&config.data_dir)?;
                let opened = Embedded::open_file(&path);
                let embedded = Arc::new(opened.map_err(|source| ControlError::Store { place: place.clone(), source })?);
                Ok(Backend::new(config, embedded.clone(), Some(embedded), place))
            }
            StoreConfig::Etcd(etcd) => {
                let store = Etcd::open(etcd).await.map_err(ControlError::Etcd)?;
                let place = format!("etcd at {} under {}", etcd.servers.join(", "), etcd.prefix);
                Ok(Backend::new(config, Arc::new(store), None, place))
            }
        }
    }

    fn new(config: &Config, raw: Arc<dyn Store>, embedded: Option<Arc<Embedded>>, place: String) -> Backend {
        // Without a configuration nothing is encrypted, and what is encrypted already is refused by name.
        let rules = config.encryption.clone().unwrap_or_default();
        let encrypted = Arc::new(Encrypted::new(raw.clone(), rules));
        let rewrites = config.encryption.is_some().then(|| encrypted.clone());
        Backend { store: encrypted, raw, encrypted: rewrites, embedded, place }
    }

    pub fn raw(&self) -> &Arc<dyn Store> {
        &self.raw
    }

    /// What rewrites values, where a configuration says how.
    pub fn encrypted(&self) -> Option<&Arc<Encrypted>> {
        self.encrypted.as_ref()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn embedded(&self) -> Option<&Arc<Embedded>> {
        self.embedded.as_ref()
    }

    fn failed(&self, source: StoreError) -> ControlError {
        ControlError::Store { place: self.place.clone(), source }
    }

    /// The cache over the store, whose work is counted.
    pub async fn cache(&self, metrics: &Metrics) -> Result<Cache, ControlError> {
        let measured = Arc::new(Measured::new(self.store.clone(), metrics.store.clone()));
        Cache::start(measured).await.map_err(|source| self.failed(source))
    }

    async fn known_authority(&self) -> Result<Option<Bytes>, ControlError> {
        let found = self.store.get(&authority_key(), None).await.map_err(|source| self.failed(source))?;
        Ok(found.map(|found| found.value))
    }

    /// Refuses a host that has not been given what the cluster's other control hosts have, before it makes its own.
    pub async fn expect_authority(&self, cluster: &Cluster) -> Result<(), ControlError> {
        if !cluster.shared || self.known_authority().await?.is_none() {
            return Ok(());
        }
        let folder = cluster.data.join(PKI_FOLDER);
        match SHARED_FILES.iter().map(|file| folder.join(file)).find(|path| !path.exists()) {
            Some(missing) => Err(ControlError::NotInvited { place: self.place.clone(), missing, folder }),
            None => Ok(()),
        }
    }

    /// Notes the authority of a cluster that several hosts share, or compares it with what is noted.
    pub async fn claim_authority(&self, cluster: &Cluster, credentials: &Credentials) -> Result<(), ControlError> {
        if !cluster.shared {
            return Ok(());
        }
        let own = authority(credentials)?;
        let (key, value) = (authority_key(), Bytes::from(own.to_string()));
        let compares = vec![Compare { key: key.clone(), expect: Expect::Absent }];
        let known = match self.store.write(compares, vec![Op::Put { key, value }]).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict(conflict)) => conflict.current.map(|found| found.value).unwrap_or_default(),
            Err(error) => return Err(self.failed(error)),
        };
        let known: Value = serde_json::from_slice(&known).unwrap_or_default();
        if known["spec"] == own["spec"] {
            return Ok(());
        }
        Err(ControlError::OtherAuthority { place: self.place.clone(), path: cluster.data.join(PKI_FOLDER) })
    }

    /// Persists what is in memory alone, and lets go of the file once nobody uses it any more.
    pub async fn close(self, within: Duration) {
        let Backend { store, raw, encrypted, embedded, .. } = self;
        drop((store, raw, encrypted));
        let Some(embedded) = embedded else { return };
        if let Err(error) = embedded.persist_heartbeats().await {
            tracing::warn!(error = chain(&error), "the last heartbeats were not persisted");
        }
        // In-process clients and the cache's feed let go of the store in tasks of their own.
        let released = async {
            while Arc::strong_count(&embedded) > 1 {
                tokio::time::sleep(RELEASE_POLL).await;
            }
        };
        if tokio::time::timeout(within, released).await.is_err() {
            tracing::warn!("the store is still in use, its file stays open");
        }
    }
}

/// Encrypts as the configuration says what was written before it said so.
pub async fn rewrite(encrypted: Arc<Encrypted>) {
    match encrypted.rewrite().await {
        Ok(0) => {}
        Ok(values) => tracing::info!(values, "values were encrypted anew, as the configuration says"),
        Err(error) => tracing::error!(error = chain(&error), "not all values are encrypted as the configuration says"),
    }
}

fn authority_key() -> Key {
    Key::new(AUTHORITY_KIND, &Ref::cluster("cluster"))
}

/// What two hosts have alike if they have the same authority and the same key of tokens.
fn authority(credentials: &Credentials) -> Result<Value, ControlError> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let certificate = hex(&Sha256::digest(credentials.ca_pem().trim().as_bytes()));
    let token_key = hex(&credentials.token_key()?.verifying().digest());
    Ok(json!({
        "apiVersion": "internal.gantry/v1", "kind": "Authority", "metadata": {"name": "cluster"},
        "spec": {"certificate": certificate, "tokenKey": token_key},
    }))
}

fn make_folder(path: &Path) -> Result<(), ControlError> {
    gantry_pki::files::private_folder(path)
        .map_err(|source| crate::bootstrap::BootstrapError::Pki { what: "data folder", source }.into())
}
