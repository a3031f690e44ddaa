//! The resolvers that the host itself asks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_env::Env;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::UpstreamConfig;

/// A client asks again after five seconds: all tries together stay below.
const TRY_MAX: Duration = Duration::from_millis(1500);
const SERVERS_MAX: usize = 3;
const RESOLV_CONF_MAX_BYTES: u64 = 64 << 10;
const DATAGRAM_MAX_BYTES: usize = 4096;
const DNS_PORT: u16 = 53;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Why nobody else knew either.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the host has no name server to ask (other than this one)")]
    NoServer,
    #[error("encode the query")]
    Encode(#[source] hickory_proto::ProtoError),
    #[error("name server {server}")]
    Io { server: SocketAddr, source: io::Error },
    #[error("name server {server} did not answer in {TRY_MAX:?}")]
    Silent { server: SocketAddr },
}

#[derive(Debug)]
pub struct Upstream {
    config: UpstreamConfig,
    own: [IpAddr; 2],
    env: Env,
    read: Mutex<Option<(SystemTime, Vec<SocketAddr>)>>,
}

/// The `nameserver` lines.
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address = words.next()?.split('%').next()?.parse::<IpAddr>().ok()?;
        is_server.then(|| SocketAddr::new(address, DNS_PORT))
    };
    text.lines().filter_map(server).collect()
}

fn read_servers(path: &Path) -> io::Result<Vec<SocketAddr>> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(RESOLV_CONF_MAX_BYTES).read_to_string(&mut text)?;
    Ok(parse(&text))
}

impl Upstream {
    pub fn new(config: UpstreamConfig, own: [IpAddr; 2], env: Env) -> Upstream {
        Upstream { config, own, env, read: Mutex::new(None) }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let listed = match &self.config {
            UpstreamConfig::Servers(servers) => servers.clone(),
            UpstreamConfig::ResolvConf(path) => {
                let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
                let mut read = self.read.lock();
                match (&*read, changed) {
                    (Some((at, servers)), Some(changed)) if *at == changed => servers.clone(),
                    (_, changed) => {
                        let servers = read_servers(path).unwrap_or_default();
                        *read = changed.map(|changed| (changed, servers.clone()));
                        servers
                    }
                }
            }
        };
        listed.into_iter().filter(|server| !self.own.contains(&server.ip())).take(SERVERS_MAX).collect()
    }

    /// The first server's answer that comes in time and says more than that the server has failed or will not.
    pub async fn ask(&self, query: &Message, transport: Transport) -> Result<Message, UpstreamError> {
        let mut last = UpstreamError::NoServer;
        let mut no_help = None;
        for server in self.servers() {
            let mut query = query.clone();
            // Not the client's id: whoever could guess that one could answer in the server's place.
            query.metadata.id = self.env.rng.below(1 << 16) as u16;
            query.metadata.recursion_desired = true;
            let bytes = query.to_vec().map_err(UpstreamError::Encode)?;
            let exchange = async {
                match transport {
                    Transport::Udp => over_udp(server, &query, &bytes).await,
                    Transport::Tcp => over_tcp(server, &query, &bytes).await,
                }
            };
            match tokio::time::timeout(TRY_MAX, exchange).await {
                Ok(Ok(message)) if helps(&message) => return Ok(message),
                Ok(Ok(message)) => no_help = Some(message),
                Ok(Err(source)) => last = UpstreamError::Io { server, source },
                Err(_) => last = UpstreamError::Silent { server },
            }
        }
        no_help.ok_or(last)
    }
}

/// Another server may know better than one that fails, refuses, or does not understand.
fn helps(answer: &Message) -> bool {
    let no = [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr];
    !no.contains(&answer.metadata.response_code)
}

fn is_answer(query: &Message, answer: &Message) -> bool {
    answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer this question is not waited for less.
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && is_answer(query, &answer)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if is_answer(query, &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers one question with `code`.
    async fn server(code: ResponseCode) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..length]).unwrap();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = code;
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        });
        address
    }

    async fn asked(codes: &[ResponseCode]) -> ResponseCode {
        let mut servers = Vec::new();
        for code in codes {
            servers.push(server(*code).await);
        }
        let upstream =
            Upstream::new(UpstreamConfig::Servers(servers), ["192.0.2.1".parse().unwrap(); 2], Env::system());
        let query = Message::query();
        upstream.ask(&query, Transport::Udp).await.unwrap().metadata.response_code
    }

    #[tokio::test]
    async fn a_server_that_fails_is_not_the_last_word() {
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        assert_eq!(asked(&[ServFail, NoError]).await, NoError);
        assert_eq!(asked(&[Refused, ServFail, NXDomain]).await, NXDomain);
        assert_eq!(asked(&[ServFail, Refused]).await, Refused);
    }

    #[test]
    fn only_name_servers_are_read_and_never_ourselves() {
        let text =
            "# x\nnameserver 10.96.0.10\nsearch a\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(parse(text).len(), 3);
        let own = ["10.96.0.10".parse().unwrap(), "169.254.1.53".parse().unwrap()];
        let upstream = Upstream::new(UpstreamConfig::Servers(parse(text)), own, Env::system());
        assert_eq!(upstream.servers()[0], "192.0.2.53:53".parse().unwrap());
    }
}
