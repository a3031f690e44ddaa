//! Over TLS to an API server, as a kubeconfig says.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::ServiceBuilder;

use crate::Client;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("kubeconfig {path}")]
    Kubeconfig {
        path: String,
        #[source]
        source: Box<KubeconfigError>,
    },
    #[error("credentials of {path}")]
    Credentials {
        path: String,
        #[source]
        source: Box<kube::Error>,
    },
}

impl Client {
    /// A client of the server that the current context of a kubeconfig names. Nothing is sent yet. `manager` is the
    /// field manager of what the client writes.
    pub async fn connect(kubeconfig: &Path, manager: &str) -> Result<Client, ConnectError> {
        let path = || kubeconfig.display().to_string();
        let unread = |source| ConnectError::Kubeconfig { path: path(), source: Box::new(source) };
        let unfit = |source| ConnectError::Credentials { path: path(), source: Box::new(source) };
        let read = Kubeconfig::read_from(kubeconfig).map_err(unread)?;
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(unread)?;

        let addresses = async |name: Name| gantry_env::resolve(name.as_str(), 0).await.map(Vec::into_iter);
        let mut http = HttpConnector::new_with_resolver(tower::service_fn(addresses));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = config.rustls_https_connector_with_connector(http).map_err(unfit)?;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(unfit)?)
            .map_err(tower::BoxError::from)
            .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https));
        Ok(Client::new(kube::Client::new(service, config.default_namespace), manager))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let Err(error) = Client::connect(Path::new("/nowhere/kubeconfig"), "test").await else { panic!("connected") };
        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }
}
