//! Addresses that no registry may lead this machine to: its own, and those of its link alone (where clouds keep the
//! machine's credentials). Pure.

use std::net::{IpAddr, SocketAddr};

/// Whose address it is that only this machine can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inward {
    Loopback,
    Link,
}

fn inward(address: IpAddr) -> Option<Inward> {
    match address.to_canonical() {
        // Connecting to the unspecified address is connecting to oneself.
        address if address.is_loopback() || address.is_unspecified() => Some(Inward::Loopback),
        IpAddr::V4(v4) if v4.is_link_local() => Some(Inward::Link),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Inward::Link),
        _ => None,
    }
}

pub fn is_inward(address: SocketAddr) -> bool {
    inward(address.ip()).is_some()
}

/// Those of `addresses` that a registry at `registry` may lead to: an inward one only where it is itself.
pub fn admitted(addresses: &[SocketAddr], registry: &[SocketAddr]) -> Vec<SocketAddr> {
    let there: Vec<Inward> = registry.iter().filter_map(|address| inward(address.ip())).collect();
    let fits = |address: &&SocketAddr| inward(address.ip()).is_none_or(|kind| there.contains(&kind));
    addresses.iter().filter(fits).copied().collect()
}

/// A host that no packet leaves the machine for.
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|address| SocketAddr::new(address.parse().unwrap(), 443)).collect()
    }

    #[test]
    fn loopback_is_what_stays_here() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:80"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.example.com", "10.0.0.1", "127.0.0.1.example.com", "[::2]:80", "registry:5000"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn nobody_leads_to_where_he_is_not() {
        for (to, registry, admitted_ones) in [
            ("192.0.2.1", "192.0.2.9", "192.0.2.1"),
            ("192.0.2.1", "127.0.0.1", "192.0.2.1"),
            ("127.0.0.1", "192.0.2.9", ""),
            ("127.8.0.1 ::1 0.0.0.0 :: ::ffff:127.0.0.1", "192.0.2.9 2001:db8::1", ""),
            ("169.254.169.254 fe80::1 ::ffff:169.254.169.254", "192.0.2.9", ""),
            // A private network is where registries are.
            ("10.0.0.1 fd00::1", "192.0.2.9", "10.0.0.1 fd00::1"),
            ("127.0.0.1 ::1", "127.0.0.5", "127.0.0.1 ::1"),
            ("169.254.1.1", "169.254.7.7", "169.254.1.1"),
            // Being on loopback is no leave to ask the link's servers.
            ("169.254.169.254", "127.0.0.1", ""),
            ("127.0.0.1", "169.254.7.7", ""),
            ("127.0.0.1 192.0.2.1", "192.0.2.9", "192.0.2.1"),
            ("127.0.0.1", "", ""),
        ] {
            let got = admitted(&addresses(to), &addresses(registry));
            assert_eq!(got, addresses(admitted_ones), "{to} from {registry}");
        }
    }
}
