//! What the host is called and how it is reached.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the host's name {0:?} is not a node name (RFC 1123 subdomain, lower case); give one with --node-name")]
    Name(String),
    #[error("no route leads out of this host, so its address cannot be told; give it with --node-ip")]
    Address(#[source] std::io::Error),
}

pub fn node_name(given: Option<&str>) -> Result<String, HostError> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase(),
    };
    let good = !name.is_empty() && name.len() <= 253 && name.split('.').all(gantry_kube::selector::is_dns_label);
    if good { Ok(name) } else { Err(HostError::Name(name)) }
}

/// The address that packets to elsewhere carry. No packet is sent: connecting a datagram socket only asks for the route.
pub fn node_ip(given: Option<IpAddr>) -> Result<IpAddr, HostError> {
    if let Some(ip) = given {
        return Ok(ip);
    }
    // 192.0.2.0/24 is reserved for documentation: only the default route can lead there.
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().map_err(HostError::Address)
}

/// What Kubernetes gives its node agents. Containers have scores of their own.
const OOM_SCORE_ADJ: i32 = -999;

/// When the host's memory runs out, whoever keeps its pods goes last: daemons, and the supervisors that they start. Without
/// CAP_SYS_RESOURCE, or where a lower score was given from outside, it stays as it is.
pub fn spare_from_oom() {
    let file = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if now.is_some_and(|now| now > OOM_SCORE_ADJ)
        && let Err(error) = std::fs::write(file, OOM_SCORE_ADJ.to_string())
    {
        tracing::warn!(%error, "this process may be the first that the kernel kills when memory runs out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_kubernetes_refuses_is_refused_here() {
        assert_eq!(node_name(Some("worker-1.example")).unwrap(), "worker-1.example");
        assert!(node_name(Some("Worker_1")).is_err());
    }
}
