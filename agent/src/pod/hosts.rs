//! The /etc/hosts of a pod: its own addresses and the aliases of its spec, or the host's file.

use gantry_kube::Object;
use serde_json::Value;

/// The node's file is passed on up to this size.
pub const HOSTS_MAX_BYTES: usize = 1 << 20;

pub fn content(pod: &Object, ips: &[String], hostname: &str, domain: &str, host_file: &str) -> String {
    let mut out = String::new();
    if pod.bool_at("/spec/hostNetwork").unwrap_or(false) {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(host_file);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n");
        out.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
        out.push_str(
            "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            match domain {
                "" => out.push_str(&format!("{ip}\t{hostname}\n")),
                domain => out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
            }
        }
    }
    let aliases = pod.array_at("/spec/hostAliases");
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names: Vec<&str> = alias["hostnames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        out.push_str(&format!("{}\t{}\n", alias["ip"].as_str().unwrap_or(""), names.join("\t")));
    }
    out
}

/// The hostname of a pod: what its spec says, else its name, as much of it as the kernel takes.
pub fn hostname(pod: &Object) -> String {
    let name = match pod.str_at("/spec/hostname") {
        "" => pod.name(),
        name => name,
    };
    let short: String = name.chars().take(63).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The domain of a pod that belongs to a headless service.
pub fn domain(pod: &Object, cluster_domain: &str) -> String {
    match pod.str_at("/spec/subdomain") {
        "" => String::new(),
        subdomain => format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()),
    }
}
