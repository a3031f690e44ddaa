//! /etc/resolv.conf, /etc/hostname and /etc/hosts of a pod. The kubelet mounts its own /etc/hosts over ours.

use gantry_cri::v1::{DnsConfig, PodSandboxConfig};

/// The text of resolv.conf; None when the host's is to be used.
pub fn resolv_conf(dns: &DnsConfig) -> Option<String> {
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return None;
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Some(text)
}

/// The pod's own name; that of the host where it was given none.
pub fn hostname(config: &PodSandboxConfig) -> String {
    if config.hostname.is_empty() {
        nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    }
}

pub fn hosts(hostname: &str, ip: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if !ip.is_empty() && !hostname.is_empty() {
        text.push_str(&format!("{ip}\t{hostname}\n"));
    }
    text
}

/// A line break in a name or an option would be a line of its own in the file.
pub fn has_line_break(config: &PodSandboxConfig) -> bool {
    let dns = config.dns_config.clone().unwrap_or_default();
    let mut texts = dns.servers.iter().chain(&dns.searches).chain(&dns.options).chain([&config.hostname]);
    texts.any(|text| text.contains(['\n', '\r', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_of_a_pod() {
        assert_eq!(resolv_conf(&DnsConfig::default()), None);
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns).as_deref(), Some(text));
    }
}
