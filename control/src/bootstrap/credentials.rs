//! Keys and certificates of the control service, made at the first start and kept fresh after it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_env::{Env, chain};
use gantry_pki::es256::SigningKey;
use gantry_pki::{Authority, ClientAuth, Credential, PkiError, Profile, Reloading, files, tls};
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::kubeconfig::kubeconfig;
use crate::auth::identity::{MASTERS_GROUP, NODE_USER_PREFIX, NODES_GROUP};

/// How often certificates are looked at: far more often than they run out.
const RENEWAL_PERIOD: Duration = Duration::from_secs(60 * 60);
const CA_NAME: &str = "gantry-ca";
/// The folder of keys and certificates in the data folder.
pub const PKI_FOLDER: &str = "pki";
pub const ADMIN_USER: &str = "kubernetes-admin";
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("cannot make the {what} ready")]
    Pki {
        what: &'static str,
        #[source]
        source: PkiError,
    },
}

fn while_making(what: &'static str) -> impl FnOnce(PkiError) -> BootstrapError {
    move |source| BootstrapError::Pki { what, source }
}

/// Everything secret that the control service needs to run.
#[derive(Debug)]
pub struct Credentials {
    pub authority: Authority,
    /// What the listener shows.
    pub api_server: Reloading,
    /// What the API server shows to a node's kubelet API.
    pub kubelet_client: Reloading,
    pub admin: Credential,
    /// Where tokens get their signature; the caller hands it to `auth::Tokens`.
    pub token_key_path: PathBuf,
}

impl Credentials {
    /// Finds or makes the CA, the certificates and the admin's kubeconfig.
    pub fn prepare(cluster: &Cluster, env: &Env) -> Result<Credentials, BootstrapError> {
        let folder = pki_folder(cluster);
        files::private_folder(&cluster.data).map_err(while_making("data folder"))?;
        let authority = Authority::load_or_create(&folder, CA_NAME, env).map_err(while_making("cluster CA"))?;
        let issued = Issued::load(&authority, cluster, env)?;
        let reloading = |credential: &Credential, what| Reloading::new(credential).map_err(while_making(what));
        let token_key_path = folder.join("service-account.key");
        SigningKey::load_or_create(&token_key_path).map_err(while_making("key of service-account tokens"))?;
        issued.write_kubeconfig(&authority, cluster)?;
        Ok(Credentials {
            api_server: reloading(&issued.api_server, "API server's certificate")?,
            kubelet_client: reloading(&issued.kubelet_client, "kubelet client's certificate")?,
            admin: issued.admin,
            authority,
            token_key_path,
        })
    }

    pub fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    pub fn token_key(&self) -> Result<SigningKey, BootstrapError> {
        SigningKey::load_or_create(&self.token_key_path).map_err(while_making("key of service-account tokens"))
    }

    /// What the API listens with: clients may show a certificate of the cluster's CA.
    pub fn server_config(&self, env: &Env) -> Result<rustls::ServerConfig, BootstrapError> {
        tls::server_config(&self.api_server, ClientAuth::Optional { ca_pem: self.ca_pem() }, &env.clock)
            .map_err(while_making("API's TLS configuration"))
    }

    /// What the API server dials nodes with.
    pub fn kubelet_client_config(&self, env: &Env) -> Result<rustls::ClientConfig, BootstrapError> {
        tls::client_config(self.ca_pem(), Some(&self.kubelet_client), &env.clock)
            .map_err(while_making("TLS configuration towards nodes"))
    }

    /// Replaces what is near its end; connections made from now on use the new ones.
    pub fn renew(&self, cluster: &Cluster, env: &Env) -> Result<(), BootstrapError> {
        let issued = Issued::load(&self.authority, cluster, env)?;
        self.api_server.replace(&issued.api_server).map_err(while_making("API server's certificate"))?;
        self.kubelet_client.replace(&issued.kubelet_client).map_err(while_making("kubelet client's certificate"))?;
        issued.write_kubeconfig(&self.authority, cluster)
    }
}

fn pki_folder(cluster: &Cluster) -> PathBuf {
    cluster.data.join(PKI_FOLDER)
}

/// The certificates as they are on disk.
struct Issued {
    api_server: Credential,
    kubelet_client: Credential,
    admin: Credential,
}

impl Issued {
    fn load(authority: &Authority, cluster: &Cluster, env: &Env) -> Result<Issued, BootstrapError> {
        let folder = pki_folder(cluster);
        let get = |file: &str, profile: &Profile, what| {
            authority.load_or_issue(&folder.join(file), profile, env).map_err(while_making(what))
        };
        let api_server = Profile::server("kube-apiserver", cluster.api_names());
        let kubelet_client = Profile::client(KUBELET_CLIENT_USER, None);
        let admin = Profile::client(ADMIN_USER, Some(MASTERS_GROUP));
        Ok(Issued {
            api_server: get("apiserver.pem", &api_server, "API server's certificate")?,
            kubelet_client: get("apiserver-kubelet-client.pem", &kubelet_client, "kubelet client's certificate")?,
            admin: get("admin.pem", &admin, "admin's certificate")?,
        })
    }

    /// Writes the admin's kubeconfig where it is not already what it should be.
    fn write_kubeconfig(&self, authority: &Authority, cluster: &Cluster) -> Result<(), BootstrapError> {
        let what = "admin's kubeconfig";
        let server = format!("https://127.0.0.1:{}", cluster.port);
        let text = kubeconfig(&server, authority.certificate_pem(), ADMIN_USER, &self.admin);
        let path = &cluster.admin_kubeconfig;
        if files::read(path).map_err(while_making(what))?.as_deref() == Some(&text) {
            return Ok(());
        }
        files::write_private(path, text.as_bytes()).map_err(while_making(what))
    }
}

/// Renews certificates in time, until told to stop.
pub async fn keep_certificates(credentials: &Credentials, cluster: &Cluster, env: &Env, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(RENEWAL_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            // Cancel-safe: a token only remembers that it was cancelled.
            () = stop.cancelled() => return,
            // Cancel-safe: a tick that is not taken stays due.
            _ = timer.tick() => {}
        }
        if let Err(error) = credentials.renew(cluster, env) {
            tracing::error!(error = %chain(&error), "cannot renew certificates");
        }
    }
}

/// What a node shows: to the API as itself, to the API as its service proxy, and to the API server that dials it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCredentials {
    pub client: Credential,
    pub proxy: Credential,
    pub serving: Credential,
}

/// What [`NodeCredentials::write`] writes: the files that a node alone starts with.
pub mod node_files {
    /// The node's way to the API as itself.
    pub const CLIENT: &str = "kubelet.kubeconfig";
    /// Its way to the API as its service proxy.
    pub const PROXY: &str = "proxy.kubeconfig";
    /// What its kubelet API shows: certificate and key.
    pub const SERVING: &str = "kubelet-serving.pem";
    /// Who vouches for those that call its kubelet API.
    pub const CA: &str = "ca.crt";
}

fn node_profiles(node: &str, addresses: &[IpAddr]) -> [(&'static str, Profile); 3] {
    let user = format!("{NODE_USER_PREFIX}{node}");
    let names = addresses.iter().map(IpAddr::to_string).chain([node.to_owned()]);
    [
        ("kubelet-client.pem", Profile::client(&user, Some(NODES_GROUP))),
        ("proxy-client.pem", Profile::client("system:kube-proxy", None)),
        ("kubelet-serving.pem", Profile::server(&user, names).in_group(NODES_GROUP)),
    ]
}

/// New credentials for a node that joins.
pub fn node_credentials(
    authority: &Authority,
    node: &str,
    addresses: &[IpAddr],
    env: &Env,
) -> Result<NodeCredentials, PkiError> {
    let [client, proxy, serving] = node_profiles(node, addresses);
    Ok(NodeCredentials {
        client: authority.issue(&client.1, env)?,
        proxy: authority.issue(&proxy.1, env)?,
        serving: authority.issue(&serving.1, env)?,
    })
}

impl NodeCredentials {
    /// Writes them, 0600, for a node that reaches the API at `server`.
    pub fn write(&self, folder: &Path, ca_pem: &str, server: &str) -> Result<(), PkiError> {
        files::private_folder(folder)?;
        for (name, user, credential) in
            [(node_files::CLIENT, "kubelet", &self.client), (node_files::PROXY, "proxy", &self.proxy)]
        {
            files::write_private(&folder.join(name), kubeconfig(server, ca_pem, user, credential).as_bytes())?;
        }
        self.serving.store(&folder.join(node_files::SERVING))?;
        files::write_private(&folder.join(node_files::CA), ca_pem.as_bytes())
    }

    /// The credentials of the node that shares the control service's host, kept in `folder` and renewed there.
    pub fn load_or_issue(
        authority: &Authority,
        folder: &Path,
        node: &str,
        addresses: &[IpAddr],
        env: &Env,
    ) -> Result<NodeCredentials, PkiError> {
        let [client, proxy, serving] = node_profiles(node, addresses)
            .map(|(file, profile)| authority.load_or_issue(&folder.join(file), &profile, env));
        Ok(NodeCredentials { client: client?, proxy: proxy?, serving: serving? })
    }
}
