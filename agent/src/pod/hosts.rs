//! The /etc/hosts of a pod: its own addresses and the aliases of its spec, or the host's file.

use gantry_kube::Object;
use serde_json::Value;

/// The node's file is passed on up to this size.
pub const HOSTS_MAX_BYTES: usize = 1 << 20;
/// As long as Linux lets a hostname be.
const HOSTNAME_MAX_BYTES: usize = 64;

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

/// The hostname of a pod: what its spec says, else its name, as much of it as a label of DNS has room for.
pub fn hostname(pod: &Object) -> String {
    let wanted = pod.str_at("/spec/hostnameOverride");
    if !wanted.is_empty() {
        return wanted.to_owned();
    }
    let name = match pod.str_at("/spec/hostname") {
        "" => pod.name(),
        name => name,
    };
    let short: String = name.chars().take(63).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// What the kernel is told: the hostname, with its domain behind it where the spec says so (setHostnameAsFQDN).
pub fn kernel_hostname(pod: &Object, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = (hostname(pod), domain(pod, cluster_domain));
    if domain.is_empty() || pod.bool_at("/spec/setHostnameAsFQDN") != Some(true) {
        return Ok(hostname);
    }
    let fqdn = format!("{hostname}.{domain}");
    match fqdn.len() {
        0..=HOSTNAME_MAX_BYTES => Ok(fqdn),
        length => Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {fqdn} is too long \
             ({HOSTNAME_MAX_BYTES} characters is the max, {length} characters requested)"
        )),
    }
}

/// The domain of a pod that belongs to a headless service.
pub fn domain(pod: &Object, cluster_domain: &str) -> String {
    match pod.str_at("/spec/subdomain") {
        _ if !pod.str_at("/spec/hostnameOverride").is_empty() => String::new(),
        "" => String::new(),
        subdomain => format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_of_a_pod() {
        let names = |spec: Value| {
            let pod = pod(spec);
            (hostname(&pod), domain(&pod, "c.l"), kernel_hostname(&pod, "c.l").unwrap())
        };
        let said = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(names(json!({})), said("p", "", "p"));
        assert_eq!(names(json!({"setHostnameAsFQDN": true})), said("p", "", "p"));
        let mut full = json!({"hostname": "h", "subdomain": "s"});
        assert_eq!(names(full.clone()), said("h", "s.n.svc.c.l", "h"));
        full["setHostnameAsFQDN"] = json!(true);
        assert_eq!(names(full.clone()), said("h", "s.n.svc.c.l", "h.s.n.svc.c.l"));
        assert_eq!(names(json!({"hostnameOverride": "o.x", "subdomain": "s"})), said("o.x", "", "o.x"));
        full["hostname"] = json!("h".repeat(63));
        let why = kernel_hostname(&pod(full), "c.l").unwrap_err();
        assert!(why.contains("is too long (64 characters is the max, 75 characters requested)"), "{why}");
    }
}
