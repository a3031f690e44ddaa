//! Proxies as the environment names them: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, or the same in lower case, by the rules
//! of Go's programs (`golang.org/x/net/http/httpproxy`), which whoever sets them has in mind.

use std::io;
use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderValue, Uri};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::auth;

const ANSWER_MAX_BYTES: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
#[error("{variable} is not http://[user:password@]host[:port]")]
pub struct ProxyError {
    variable: &'static str,
}

/// Which proxy is asked for which URL.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub authority: Authority,
    /// Of the credentials in the proxy's URL.
    pub authorization: Option<HeaderValue>,
}

/// One entry of NO_PROXY.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Net(IpNet),
    Host { name: HostPattern, port: Option<u16> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Address(IpAddr),
    /// Itself and what is below it.
    Domain(String),
    /// What is below it alone.
    Below(String),
}

impl Proxies {
    /// `variable` gives what the environment says under a name.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, ProxyError> {
        let either = |name: &'static str| {
            let said = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            said.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let proxy = |name: &'static str| match either(name) {
            None => Ok(None),
            Some(text) => parse(&text).map(Some).ok_or(ProxyError { variable: name }),
        };
        let except = either("NO_PROXY").unwrap_or_default();
        let except = except.split(',').filter_map(|entry| exception(&entry.trim().to_ascii_lowercase())).collect();
        Ok(Proxies { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, except })
    }

    /// None is to be reached directly: what stays on this machine, too.
    pub fn of(&self, url: &Uri) -> Option<&Proxy> {
        let plain = url.scheme_str() == Some("http");
        let proxy = if plain { self.http.as_ref()? } else { self.https.as_ref()? };
        let host = url.host()?.to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(&host);
        let address = bare.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if bare == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let port = url.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let direct = self.except.iter().any(|exception| exception.holds(bare, address, port));
        (!direct).then_some(proxy)
    }
}

fn parse(text: &str) -> Option<Proxy> {
    // No scheme means http, as people write it.
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => text,
    };
    let (credentials, host) = match rest.trim_end_matches('/').rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, rest.trim_end_matches('/')),
    };
    let authorization = match credentials {
        None => None,
        Some(credentials) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            Some(auth::basic(&unescaped(user)?, &unescaped(password)?)?)
        }
    };
    let authority: Authority = host.parse().ok()?;
    Some(Proxy { authority, authorization }).filter(|proxy| !proxy.authority.host().is_empty())
}

/// `%40` and the like.
fn unescaped(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Ok(net) = entry.parse::<IpNet>() {
        return Some(Exception::Net(net));
    }
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let (host, port) = match entry.rsplit_once(':') {
        // The colons of an IPv6 address are no port's.
        Some((host, port)) if bare(entry).is_none() => (host, Some(port.parse().ok()?)),
        _ => (entry, None),
    };
    let name = match (bare(host), host.strip_prefix("*.").or_else(|| host.strip_prefix('.'))) {
        (Some(address), _) => HostPattern::Address(address.to_canonical()),
        (None, Some(domain)) => HostPattern::Below(domain.to_owned()),
        (None, None) => HostPattern::Domain(host.to_owned()),
    };
    (!host.is_empty()).then_some(Exception::Host { name, port })
}

impl Exception {
    fn holds(&self, host: &str, address: Option<IpAddr>, to: u16) -> bool {
        let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match self {
            Exception::All => true,
            Exception::Net(net) => address.is_some_and(|address| net.contains(&address)),
            Exception::Host { port: Some(port), .. } if *port != to => false,
            Exception::Host { name: HostPattern::Address(own), .. } => address == Some(*own),
            Exception::Host { name: HostPattern::Domain(domain), .. } => host == domain || below(domain),
            Exception::Host { name: HostPattern::Below(domain), .. } => below(domain),
        }
    }
}

/// Asks a proxy for a tunnel (RFC 9110, 9.3.6) to `to`, a host and its port.
pub async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, to: &str) -> io::Result<()> {
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend([b"Proxy-Authorization: ", authorization.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // What comes behind the head is TLS's, and comes only once we have spoken: a byte at a time takes none of it.
        head.push(stream.read_u8().await?);
        if head.len() > ANSWER_MAX_BYTES {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
    }
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    match line.split_once(' ') {
        Some((version, status)) if version.starts_with("HTTP/1.") && status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("the proxy answered {:?}", line.chars().take(200).collect::<String>()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxies::new(find).unwrap()
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&url.parse().unwrap()).map(|proxy| proxy.authority.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = proxies(&[("HTTP_PROXY", "http://p:1"), ("https_proxy", " q:2 ")]);
        assert_eq!(through(&both, "http://r/v2").as_deref(), Some("p:1"));
        assert_eq!(through(&both, "https://r/v2").as_deref(), Some("q:2"));
        let upper = proxies(&[("HTTPS_PROXY", "u:1"), ("https_proxy", "l:1")]);
        assert_eq!((through(&upper, "https://r").as_deref(), through(&upper, "http://r")), (Some("u:1"), None));
        for own in ["https://localhost:5000", "https://127.0.0.1", "https://[::1]:80", "https://[::ffff:127.0.0.1]"] {
            assert_eq!(through(&upper, own), None, "{own}");
        }
        let secret = proxies(&[("HTTPS_PROXY", "http://me:p%40w@p:1/")]);
        let proxy = secret.of(&"https://r".parse().unwrap()).unwrap();
        assert_eq!(proxy.authority, "p:1");
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic bWU6cEB3");
        assert!(!format!("{secret:?}").contains("bWU6"));
        for wrong in ["socks5://p:1", "https://p:1", "http://", "a b", "http://me:%zz@p:1"] {
            let error = Proxies::new(|name| (name == "HTTPS_PROXY").then(|| wrong.to_owned())).unwrap_err();
            assert!(error.to_string().starts_with("HTTPS_PROXY is not"), "{wrong}");
            assert!(!error.to_string().contains("me:"), "{error}");
        }
    }

    #[test]
    fn exceptions_are_reached_directly() {
        let all =
            "10.0.0.0/8, 192.0.2.7,example.com,.below.org,*.star.org,port.net:8443,[2001:db8::1]:443,fd00::/8,,bad:x";
        let proxies = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", all)]);
        for direct in [
            "https://10.1.2.3",
            "https://192.0.2.7:5000",
            "https://example.com",
            "https://A.Example.com",
            "https://a.below.org",
            "https://a.star.org",
            "https://port.net:8443",
            "https://[2001:db8::1]",
            "https://[fd00::1]",
        ] {
            assert_eq!(through(&proxies, direct), None, "{direct}");
        }
        for proxied in [
            "https://11.1.2.3",
            "https://192.0.2.8",
            "https://notexample.com",
            "https://example.com.evil.org",
            "https://below.org",
            "https://star.org",
            "https://port.net",
            "https://[2001:db8::1]:444",
            "https://bad",
        ] {
            assert_eq!(through(&proxies, proxied).as_deref(), Some("p:1"), "{proxied}");
        }
        let none = super::tests::proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "*")]);
        assert_eq!(through(&none, "https://example.com"), None);
    }
}
