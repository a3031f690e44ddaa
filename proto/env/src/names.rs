//! Host names to addresses, without the C library: a static program on a host that has nothing but a kernel has no
//! name service to load.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// The addresses of `host` as `/etc/hosts` and the servers of `/etc/resolv.conf` tell them, IPv4 first; a literal
/// address, also in the brackets of a URL, is its own. Both files are read each time: they change under a running host.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |error| io::Error::other(format!("no address of {host}: {error}"));
    let found = resolver().map_err(failed)?.lookup_ip(host).await.map_err(failed)?;
    Ok(found.iter().map(|address| SocketAddr::new(address, port)).collect())
}

fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    // A host without servers still has its own names.
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn first(host: &str) -> SocketAddr {
        resolve(host, 5000).await.unwrap()[0]
    }

    #[tokio::test]
    async fn literals_and_the_hosts_own_name_need_no_server() {
        assert_eq!(first("192.0.2.1").await, "192.0.2.1:5000".parse().unwrap());
        assert_eq!(first("[2001:db8::1]").await, "[2001:db8::1]:5000".parse().unwrap());
        assert_eq!(first("localhost").await, "127.0.0.1:5000".parse().unwrap());
    }

    #[tokio::test]
    async fn what_cannot_be_resolved_is_named() {
        // RFC 6761: no server is asked for names under `invalid`.
        for host in ["registry.invalid", "not a name", &"x".repeat(300)] {
            let error = resolve(host, 443).await.unwrap_err().to_string();
            assert!(error.contains(&format!("no address of {host}")), "{error}");
        }
    }
}
