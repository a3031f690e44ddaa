//! The API servers of a cluster that has several: each keeps a lease with its address, and the service of the API leads to
//! those whose leases go on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions, Query};
use gantry_env::{Env, format_micros};
use gantry_kube::resource::LEASE;
use gantry_kube::{Object, Ref};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Cluster;

const NAMESPACE: &str = "kube-system";
/// The label by which upstream's API servers are found, too.
const LABEL: &str = "apiserver.kubernetes.io/identity";
const ADDRESS: &str = "gantry.dev/api-address";
/// Whose lease does not change for so long is gone; it is renewed three times as often.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// The lease of one who does not come back is removed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// What this API server has seen of all of them, itself included.
pub struct Peers {
    own: String,
    address: SocketAddr,
    hostname: String,
    env: Env,
    seen: BTreeMap<String, (String, Instant)>,
}

impl Peers {
    pub fn new(cluster: &Cluster, env: Env) -> Peers {
        let address = SocketAddr::new(cluster.advertise, cluster.port);
        let digest = Sha256::digest(address.to_string());
        let digits: String = digest.iter().take(13).map(|byte| format!("{byte:02x}")).collect();
        let own = format!("apiserver-{digits}");
        Peers { own, address, hostname: cluster.hostname.clone(), env, seen: BTreeMap::new() }
    }

    /// Renews the own lease, and answers the addresses and the port of the API servers that are there.
    pub async fn turn(&mut self, client: &Client) -> Result<(Vec<IpAddr>, u16), ClientError> {
        self.renew(client).await?;
        let query = Query { label_selector: format!("{LABEL}=kube-apiserver"), ..Query::default() };
        let leases = client.list(&LEASE, Some(NAMESPACE), &query).await?.items;
        let now = Instant::now();
        for lease in self.look(&leases, now) {
            let version = Some(lease.resource_version().to_owned());
            let options = DeleteOptions { resource_version: version, ..DeleteOptions::default() };
            match client.delete(&LEASE, &lease.reference(), &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(behind_one_port(&self.alive(&leases, now)))
    }

    /// Takes the own lease away: nobody is led here any more.
    pub async fn leave(&self, client: &Client) -> Result<(), ClientError> {
        client.delete(&LEASE, &Ref::new(NAMESPACE, self.own.clone()), &DeleteOptions::default()).await
    }

    async fn renew(&self, client: &Client) -> Result<(), ClientError> {
        let at = Ref::new(NAMESPACE, self.own.clone());
        let found = client.find(&LEASE, &at).await?;
        let wanted = self.lease(found.as_ref());
        match found {
            Some(_) => client.update(&LEASE, &wanted).await.map(drop),
            None => client.create(&LEASE, &wanted).await.map(drop),
        }
    }

    fn lease(&self, found: Option<&Object>) -> Object {
        let now = format_micros(self.env.clock.now());
        let mut lease = found.cloned().unwrap_or_else(|| {
            let value = json!({
                "apiVersion": LEASE.api_version(), "kind": LEASE.kind,
                "metadata": {"name": self.own, "namespace": NAMESPACE}, "spec": {"acquireTime": now},
            });
            match value {
                Value::Object(map) => Object(map),
                _ => Object::default(),
            }
        });
        let metadata = lease.map_mut("metadata");
        metadata.insert("labels".to_owned(), json!({LABEL: "kube-apiserver", "kubernetes.io/hostname": self.hostname}));
        metadata.insert("annotations".to_owned(), json!({ADDRESS: self.address.to_string()}));
        let spec = lease.map_mut("spec");
        spec.insert("holderIdentity".to_owned(), json!(format!("{}_{}", self.own, self.hostname)));
        spec.insert("leaseDurationSeconds".to_owned(), json!(SILENT_MAX.as_secs()));
        spec.insert("renewTime".to_owned(), json!(now));
        lease
    }

    /// Notes what has changed; answers the leases of those who are long gone.
    fn look<'a>(&mut self, leases: &'a [Object], now: Instant) -> Vec<&'a Object> {
        let names: Vec<&str> = leases.iter().map(Object::name).collect();
        self.seen.retain(|name, _| names.contains(&name.as_str()));
        for lease in leases {
            let renewed = lease.str_at("/spec/renewTime");
            let seen = self.seen.entry(lease.name().to_owned()).or_insert_with(|| (renewed.to_owned(), now));
            if seen.0 != renewed {
                *seen = (renewed.to_owned(), now);
            }
        }
        leases.iter().filter(|lease| self.silence(lease, now) >= FORGOTTEN_AFTER).collect()
    }

    fn silence(&self, lease: &Object, now: Instant) -> Duration {
        self.seen.get(lease.name()).map_or(Duration::ZERO, |(_, since)| now.duration_since(*since))
    }

    /// The addresses of those whose leases go on. A clock that is off changes nothing: what counts is when a lease was
    /// seen to change.
    fn alive(&self, leases: &[Object], now: Instant) -> Vec<SocketAddr> {
        let alive = leases.iter().filter(|lease| self.silence(lease, now) < SILENT_MAX);
        alive.filter_map(|lease| lease.annotation(ADDRESS)?.parse().ok()).chain([self.address]).collect()
    }
}

/// The addresses that share a port: a service leads to one. Where there are several, that of most of them, so that all
/// API servers say the same.
fn behind_one_port(all: &[SocketAddr]) -> (Vec<IpAddr>, u16) {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in all {
        ports.entry(address.port()).or_default().push(address.ip());
    }
    for addresses in ports.values_mut() {
        addresses.sort();
        addresses.dedup();
    }
    let most = ports.into_iter().max_by_key(|(port, addresses)| (addresses.len(), std::cmp::Reverse(*port)));
    most.map(|(port, addresses)| (addresses, port)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(address: &str) -> Peers {
        let address: SocketAddr = address.parse().unwrap();
        let cluster = Cluster { advertise: address.ip(), port: address.port(), ..Cluster::default() };
        Peers::new(&cluster, Env::simulated(jiff::Timestamp::UNIX_EPOCH, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_falls_silent_is_led_to_no_more() {
        let (mut a, b) = (peers("10.0.0.1:6443"), peers("10.0.0.2:6443"));
        assert_ne!(a.own, b.own);
        let (mut own, other) = (a.lease(None), b.lease(None));
        let both = (vec![a.address.ip(), b.address.ip()], 6443);
        for _ in 0..3 {
            let leases = [own.clone(), other.clone()];
            assert_eq!(a.look(&leases, Instant::now()), Vec::<&Object>::new());
            assert_eq!(behind_one_port(&a.alive(&leases, Instant::now())), both);
            tokio::time::advance(Duration::from_secs(10)).await;
            own = a.lease(Some(&own));
        }
        let leases = [own.clone(), other.clone()];
        a.look(&leases, Instant::now());
        assert_eq!(behind_one_port(&a.alive(&leases, Instant::now())).0, [a.address.ip()]);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        let leases = [a.lease(Some(&own)), other];
        assert_eq!(a.look(&leases, Instant::now()).iter().map(|lease| lease.name()).collect::<Vec<_>>(), [b.own]);
    }

    #[test]
    fn one_service_leads_to_one_port() {
        let all = ["10.0.0.2:6443", "10.0.0.1:6443", "10.0.0.3:7443", "10.0.0.1:6443"].map(|a| a.parse().unwrap());
        assert_eq!(behind_one_port(&all), (vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], 6443));
        let two = ["127.0.0.1:2", "127.0.0.1:1"].map(|a| a.parse().unwrap());
        assert_eq!(behind_one_port(&two), (vec![[127, 0, 0, 1].into()], 1));
    }
}
