//! The members of an etcd cluster: a channel to each, and one that is asked until it fails.
//!
//! What may be asked twice is asked of the next member; a write that was sent is not sent again: whether it was done is
//! then unknown, and the caller is told so.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, ConnectError, Status};
use tower::service_fn;

use super::rpc::ResponseHeader;
use crate::store::StoreError;

/// How long one member has for an answer: longer than etcd's own bound on a request, which is told by name.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How often all members are tried in turn, and the pause between two turns: an election takes a second or two.
const TURNS_MAX: usize = 12;
const PAUSE: Duration = Duration::from_millis(250);
/// A connection of which nothing is heard is asked whether it lives. etcd counts more than one in five seconds as abuse.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_WITHIN: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 2379;
/// The authority of the requests is never resolved: the connector decides where the bytes go.
const AUTHORITY: &str = "http://etcd.invalid";

/// Why an endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("no etcd server is named")]
    None,
    #[error("{url:?} is not the URL of an etcd server, http:// or https:// with a host and a port")]
    Url { url: String },
    #[error("{url} needs the certificate authority that vouches for it")]
    NoAuthority { url: String },
}

pub struct Members {
    members: Vec<Member>,
    preferred: AtomicUsize,
    /// The cluster that answered first. A member of another one is no member.
    cluster: OnceLock<u64>,
}

pub struct Member {
    pub url: String,
    pub channel: Channel,
}

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    Yes,
    No,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Failure {
    Compacted,
    Future,
    /// The answer has more bytes than are taken.
    AnswerTooLarge,
    RequestTooLarge,
    Store(StoreError),
}

/// What a member said instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {said}")]
struct Said {
    url: String,
    said: String,
}

/// An answer, and its header.
pub trait Answer {
    fn header(&self) -> Option<&ResponseHeader>;
}

impl Members {
    pub fn new(urls: &[String], tls: Option<&rustls::ClientConfig>) -> Result<Members, EndpointError> {
        let members = urls.iter().map(|url| member(url, tls)).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(EndpointError::None);
        }
        Ok(Members { members, preferred: AtomicUsize::new(0), cluster: OnceLock::new() })
    }

    /// The member that is asked at present, and its number.
    pub fn preferred(&self) -> (usize, &Member) {
        let number = self.preferred.load(Ordering::Relaxed) % self.members.len();
        (number, &self.members[number])
    }

    pub fn member(&self, number: usize) -> &Member {
        &self.members[number]
    }

    /// This member has failed: the next one is asked from now on, if nobody has said so already.
    pub fn distrust(&self, number: usize) {
        let next = (number + 1) % self.members.len();
        let _ = self.preferred.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks one member after another until one answers, or until there is no sense in asking.
    pub async fn ask<Q, A, F, R>(&self, doing: &'static str, repeat: Repeat, request: Q, ask: F) -> Result<A, Failure>
    where
        Q: Clone,
        A: Answer,
        F: Fn(Channel, Q) -> R,
        R: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut tries = 0;
        loop {
            let (number, member) = self.preferred();
            let status = match timeout(ANSWER_WITHIN, ask(member.channel.clone(), request.clone())).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    self.check(&member.url, answer.header()).map_err(Failure::Store)?;
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
            };
            let source = Arc::new(Said { url: member.url.clone(), said: status.message().to_owned() });
            match verdict(&status, repeat) {
                Verdict::Failed(failure) => return Err(failure),
                Verdict::Refused => return Err(Failure::Store(StoreError::Io { doing, source })),
                Verdict::Unknown => {
                    self.distrust(number);
                    return Err(Failure::Store(StoreError::Unknown { source }));
                }
                Verdict::Next => self.distrust(number),
            }
            tries += 1;
            if tries >= TURNS_MAX * self.members.len() {
                return Err(Failure::Store(StoreError::Unreachable { servers: self.to_string(), source }));
            }
            if tries % self.members.len() == 0 {
                sleep(PAUSE).await;
            }
        }
    }

    /// Whether this is an answer of the cluster that was there before: its revisions are of no use to another's.
    pub fn check(&self, url: &str, header: Option<&ResponseHeader>) -> Result<(), StoreError> {
        let Some(found) = header.map(|header| header.cluster_id) else { return Ok(()) };
        let known = *self.cluster.get_or_init(|| found);
        if known == found {
            return Ok(());
        }
        let why = format!("it belongs to the etcd cluster {found:x}, not to {known:x}");
        Err(StoreError::Foreign { place: url.to_owned(), why })
    }
}

/// Names all of them.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.members.iter().map(|member| &*member.url).collect();
        f.write_str(&urls.join(", "))
    }
}

enum Verdict {
    Failed(Failure),
    Refused,
    /// The next member may do better.
    Next,
    /// It may have been done.
    Unknown,
}

/// What a status means. A write is asked again only where it is certain that nobody took it.
fn verdict(status: &Status, repeat: Repeat) -> Verdict {
    let says = |text| status.message().contains(text);
    match status.code() {
        Code::OutOfRange if says("has been compacted") => Verdict::Failed(Failure::Compacted),
        Code::OutOfRange if says("future revision") => Verdict::Failed(Failure::Future),
        Code::OutOfRange if says("message length too large") => match repeat {
            Repeat::Yes => Verdict::Failed(Failure::AnswerTooLarge),
            Repeat::No => Verdict::Unknown,
        },
        Code::ResourceExhausted if says("database space exceeded") => {
            Verdict::Failed(Failure::Store(StoreError::NoSpace))
        }
        Code::ResourceExhausted if says("larger than max") => Verdict::Failed(Failure::RequestTooLarge),
        Code::ResourceExhausted if says("too many requests") => Verdict::Next,
        Code::InvalidArgument if says("request is too large") => Verdict::Failed(Failure::RequestTooLarge),
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::NotFound
        | Code::AlreadyExists => Verdict::Refused,
        _ if repeat == Repeat::Yes || was_not_sent(status) => Verdict::Next,
        _ => Verdict::Unknown,
    }
}

/// There was no connection on which it could have been sent.
fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn member(url: &str, tls: Option<&rustls::ClientConfig>) -> Result<Member, EndpointError> {
    let bad = || EndpointError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?.to_owned();
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => {
            let mut config = tls.ok_or_else(|| EndpointError::NoAuthority { url: url.to_owned() })?.clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(bare).map_err(|_| bad())?))
        }
        _ => return Err(bad()),
    };
    let connector = service_fn(move |_: Uri| {
        let (host, tls) = (host.clone(), tls.clone());
        async move {
            match timeout(CONNECT_WITHIN, connect(&host, port, tls)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {host}:{port}"))),
            }
        }
    });
    let channel = Endpoint::from_static(AUTHORITY)
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_WITHIN)
        .connect_with_connector_lazy(connector);
    Ok(Member { url: url.to_owned(), channel })
}

/// A connection, plain or not.
trait Wire: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Wire for T {}

async fn connect(host: &str, port: u16, tls: Option<(TlsConnector, ServerName<'static>)>) -> io::Result<Box<dyn Wire>> {
    let addresses = gantry_env::resolve(host, port).await?;
    let tcp = TcpStream::connect(&*addresses).await?;
    tcp.set_nodelay(true)?;
    match tls {
        None => Ok(Box::new(tcp)),
        Some((connector, name)) => Ok(Box::new(connector.connect(name, tcp).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(urls: &[&str]) -> Result<Members, EndpointError> {
        Members::new(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>(), None)
    }

    #[tokio::test]
    async fn what_is_no_server_is_refused_by_name() {
        assert_eq!(names(&[]).err(), Some(EndpointError::None));
        for url in ["", "etcd", "ftp://a:1", "unix:///x"] {
            assert_eq!(names(&[url]).err(), Some(EndpointError::Url { url: url.to_owned() }), "{url}");
        }
        let https = "https://a:1".to_owned();
        assert_eq!(names(&[&https]).err(), Some(EndpointError::NoAuthority { url: https }));
    }

    #[tokio::test]
    async fn who_fails_is_passed_over_once() {
        let members = names(&["http://a:1", "http://b:1"]).unwrap();
        assert_eq!((members.preferred().0, members.to_string()), (0, "http://a:1, http://b:1".to_owned()));
        members.distrust(0);
        members.distrust(0);
        assert_eq!(members.preferred().0, 1, "two who saw the same failure skip one member");
        let header = |cluster_id| ResponseHeader { cluster_id, ..ResponseHeader::default() };
        members.check("a", Some(&header(1))).unwrap();
        members.check("b", Some(&header(1))).unwrap();
        assert!(matches!(members.check("b", Some(&header(2))), Err(StoreError::Foreign { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_repeated_only_where_nobody_took_it() {
        let said = |code, text: &str| verdict(&Status::new(code, text), Repeat::No);
        assert!(matches!(said(Code::Unavailable, "etcdserver: request timed out"), Verdict::Unknown));
        assert!(matches!(said(Code::Unavailable, "etcdserver: leader changed"), Verdict::Unknown));
        assert!(matches!(said(Code::DeadlineExceeded, ""), Verdict::Unknown));
        assert!(matches!(said(Code::Cancelled, ""), Verdict::Unknown));
        assert!(matches!(said(Code::PermissionDenied, ""), Verdict::Refused));
        assert!(matches!(said(Code::ResourceExhausted, "etcdserver: too many requests"), Verdict::Next));
        let full = said(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(full, Verdict::Failed(Failure::Store(StoreError::NoSpace))));
        let read = verdict(&Status::unavailable("etcdserver: leader changed"), Repeat::Yes);
        assert!(matches!(read, Verdict::Next));
        let mut refused = Status::unavailable("tcp connect error");
        refused.set_source(Arc::new(ConnectError("connection refused".into())));
        assert!(matches!(verdict(&refused, Repeat::No), Verdict::Next));
    }
}
