//! `/configz`: how the components were told to work.

use serde_json::{Value, json};

use super::{deadline, inflight, listener};
use crate::auth::token::ISSUER;
use crate::control::Config;
use crate::registry::watch;
use crate::scheduler;

/// Under the names of the flags by which the components of Kubernetes are told the same.
pub fn of(config: &Config) -> Value {
    json!({
        "kube-apiserver": {
            "advertise-address": config.advertise.to_string(),
            "bind-address": config.listen.ip().to_string(),
            "secure-port": config.listen.port(),
            "service-cluster-ip-range": config.service_cidr.to_string(),
            "service-account-issuer": ISSUER,
            "authorization-mode": "Node,RBAC",
            "storage-backend": "embedded",
            "request-timeout": format!("{}s", deadline::REQUEST_TIMEOUT.as_secs()),
            "min-request-timeout": watch::TIMEOUT_DEFAULT_SECONDS,
            "max-requests-inflight": inflight::READS_MAX,
            "max-mutating-requests-inflight": inflight::WRITES_MAX,
            "http2-max-streams-per-connection": listener::H2_STREAMS_MAX,
        },
        "kube-controller-manager": {
            "enabled": config.run_controllers,
            "cluster-cidr": config.pod_cidr.to_string(),
            "node-cidr-mask-size": config.node_cidr_mask,
        },
        "kube-scheduler": {"enabled": config.run_controllers, "profiles": [{"schedulerName": scheduler::NAME}]},
        "kube-dns": {"clusterDomain": config.cluster_domain},
    })
}
