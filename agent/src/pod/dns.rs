//! Which resolver a pod is given: the cluster's, the node's, or what its spec spells out.

use std::net::IpAddr;

use gantry_cri::v1::DnsConfig;
use gantry_kube::Object;
use serde_json::Value;

/// What glibc and musl read at most.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX_CHARACTERS: usize = 2048;

/// The node's side of it.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    pub cluster_servers: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The text of the host's resolv.conf.
    pub host: String,
}

/// The servers, search domains and options of a resolv.conf.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or("").split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                config.searches = words.filter(|w| *w != ".").map(str::to_owned).collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

pub fn config(pod: &Object, node: &NodeDns) -> DnsConfig {
    let host = parse_resolv_conf(&node.host);
    let on_host_network = pod.bool_at("/spec/hostNetwork").unwrap_or(false);
    let mut config = match pod.str_at("/spec/dnsPolicy") {
        "None" => DnsConfig::default(),
        "Default" => host,
        "ClusterFirst" | "" if on_host_network => host,
        _ if node.cluster_servers.is_empty() => host,
        _ => {
            let (namespace, domain) = (pod.namespace(), &node.cluster_domain);
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(host.searches);
            DnsConfig {
                servers: node.cluster_servers.iter().map(IpAddr::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    if let Some(own) = pod.get("/spec/dnsConfig") {
        append(&mut config, own);
    }
    deduplicate(&mut config.servers);
    deduplicate(&mut config.searches);
    config.servers.truncate(SERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    while config.searches.iter().map(|s| s.len() + 1).sum::<usize>() > SEARCH_LIST_MAX_CHARACTERS {
        config.searches.pop();
    }
    config
}

fn append(config: &mut DnsConfig, own: &Value) {
    let texts = |key: &str| -> Vec<String> {
        own[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    config.servers.extend(texts("nameservers"));
    config.searches.extend(texts("searches"));
    for option in own["options"].as_array().into_iter().flatten() {
        let Some(name) = option["name"].as_str() else { continue };
        // An option of the pod replaces the one of the same name.
        config.options.retain(|o| o.split(':').next() != Some(name));
        config.options.push(match option["value"].as_str() {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
}

fn deduplicate(list: &mut Vec<String>) {
    let mut known = std::collections::BTreeSet::new();
    list.retain(|item| known.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(spec: Value) -> DnsConfig {
        let node = NodeDns {
            cluster_servers: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            host: "# hi\nnameserver 1.1.1.1\nsearch example.org\noptions edns0\n".into(),
        };
        config(&Object::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap(), &node)
    }

    #[test]
    fn policies() {
        let cluster = of(json!({"dnsPolicy": "ClusterFirst"}));
        assert_eq!(cluster.servers, ["10.96.0.10"]);
        assert_eq!(cluster.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]);
        assert_eq!(cluster.options, ["ndots:5"]);
        assert_eq!(of(json!({"dnsPolicy": "Default"})).servers, ["1.1.1.1"]);
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true})).servers, ["1.1.1.1"]);
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true})).servers, ["10.96.0.10"]);
        let none = of(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}));
        assert_eq!((none.servers, none.searches.len()), (vec!["9.9.9.9".to_owned()], 0));
    }

    #[test]
    fn options_of_the_pod_replace_their_namesakes() {
        let own = of(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}));
        assert_eq!(own.options, ["ndots:2", "rotate"]);
    }
}
