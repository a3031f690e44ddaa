//! The cluster's DNS, answered on every node from the same informers as the rules.
//!
//! It listens on a link-local address of the loopback interface that exists for nothing else, on a port of its own: the
//! rules lead the Service's address and port 53 there. So it never competes for port 53 with a resolver that the host
//! runs (on the wildcard address, say), no pod can be told another address than the Service's, and nobody outside the
//! node reaches it. (127.0.0.1 would not do: what comes from a pod is never led to loopback addresses.)

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::{Env, chain};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::Name;
use parking_lot::{Mutex, RwLock};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::directory::Directory;

mod answer;
mod upstream;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Zone, answer};
pub use upstream::UpstreamError;

use upstream::{Transport, Upstream};

/// RFC 1035, 2.3.4, and what EDNS may raise it to without fragments (the DNS flag day's value).
const UDP_PLAIN_MAX_BYTES: usize = 512;
const UDP_EDNS_MAX_BYTES: u16 = 1232;
const UDP_RECEIVE_MAX_BYTES: usize = 4096;
const UDP_QUEUE_BYTES: usize = 1 << 20;
const TCP_CONNECTIONS_MAX: usize = 256;
const TCP_IDLE_MAX: Duration = Duration::from_secs(10);
const FORWARDS_MAX: usize = 1024;
const CACHE_MAX_ENTRIES: usize = 4096;
const CACHE_MAX: Duration = Duration::from_secs(30);
/// ExternalName to ExternalName to …
const ALIASES_MAX: usize = 8;

#[derive(Clone, Debug)]
pub struct Config {
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The address of the Service kube-system/kube-dns.
    pub service_ip: Ipv4Addr,
    /// Where it is answered on this node.
    pub listen: SocketAddrV4,
    pub upstream: UpstreamConfig,
}

/// Who answers for the rest of the world.
#[derive(Clone, Debug)]
pub enum UpstreamConfig {
    /// The name servers of a file like /etc/resolv.conf, read again when it changes.
    ResolvConf(PathBuf),
    Servers(Vec<SocketAddr>),
}

impl Config {
    pub const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 1, 53), 10_053);

    pub fn new(cluster_domain: &str, service_ip: Ipv4Addr) -> Config {
        Config {
            cluster_domain: cluster_domain.trim_matches('.').to_lowercase(),
            service_ip,
            listen: Config::LISTEN,
            upstream: UpstreamConfig::ResolvConf(PathBuf::from("/etc/resolv.conf")),
        }
    }

    /// Whether it can be served at all.
    pub fn check(&self) -> Result<(), DnsError> {
        self.zone().map(|_| ())
    }

    fn zone(&self) -> Result<Zone, DnsError> {
        Zone::new(&self.cluster_domain, self.service_ip).ok_or_else(|| DnsError::Domain(self.cluster_domain.clone()))
    }
}

/// Why DNS could not begin.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("listen on {address} ({transport})")]
    Listen { address: SocketAddrV4, transport: &'static str, source: io::Error },
    #[error("cluster domain {0:?} is not a name")]
    Domain(String),
}

/// The listeners, before they serve.
#[derive(Debug)]
pub struct Dns {
    udp: UdpSocket,
    tcp: TcpListener,
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    zone: Zone,
    directory: Arc<RwLock<Directory>>,
    upstream: Upstream,
    cache: Mutex<HashMap<CacheKey, Cached>>,
    forwards: Arc<Semaphore>,
    env: Env,
}

type CacheKey = (String, u16, bool);

#[derive(Clone, Debug)]
struct Cached {
    message: Message,
    at: Instant,
    until: Instant,
}

fn socket(listen: SocketAddrV4, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        socket.set_recv_buffer_size(UDP_QUEUE_BYTES)?;
    }
    socket.bind(&SocketAddr::V4(listen).into())?;
    if kind == Type::STREAM {
        socket.listen(TCP_CONNECTIONS_MAX as i32)?;
    }
    Ok(socket)
}

impl Dns {
    pub fn bind(config: Config, directory: Arc<RwLock<Directory>>, env: Env) -> Result<Dns, DnsError> {
        let address = config.listen;
        let zone = config.zone()?;
        let listen = |transport| move |source| DnsError::Listen { address, transport, source };
        let udp = socket(address, Type::DGRAM).and_then(|s| UdpSocket::from_std(s.into())).map_err(listen("UDP"))?;
        let tcp = socket(address, Type::STREAM).and_then(|s| TcpListener::from_std(s.into())).map_err(listen("TCP"))?;
        // Asking ourselves, under either name, would go round for ever.
        let own = [(*address.ip()).into(), config.service_ip.into()];
        let server = Server {
            zone,
            directory,
            upstream: Upstream::new(config.upstream, own, env.clone()),
            cache: Mutex::new(HashMap::new()),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            env,
        };
        Ok(Dns { udp, tcp, server: Arc::new(server) })
    }

    pub async fn serve(self, stop: CancellationToken) {
        let udp = serve_udp(Arc::new(self.udp), self.server.clone(), stop.clone());
        let tcp = serve_tcp(self.tcp, self.server, stop.clone());
        stop.run_until_cancelled(async { tokio::join!(udp, tcp) }).await;
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, server: Arc<Server>, stop: CancellationToken) {
    let mut buffer = vec![0; UDP_RECEIVE_MAX_BYTES];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "DNS datagram not received");
                continue;
            }
        };
        let Ok(query) = Message::from_vec(&buffer[..length]) else {
            if let Some(reply) = not_a_query(&buffer[..length]) {
                send(&socket, &reply, peer).await;
            }
            continue;
        };
        if query.metadata.message_type != MessageType::Query {
            continue;
        }
        match server.local(&query) {
            Some(message) => send(&socket, &encode(message, Some(udp_room(&query))), peer).await,
            None => {
                let (server, socket, stop) = (server.clone(), socket.clone(), stop.clone());
                let Ok(permit) = server.forwards.clone().try_acquire_owned() else {
                    let busy = reply(&query, ResponseCode::ServFail);
                    send(&socket, &encode(busy, Some(udp_room(&query))), peer).await;
                    continue;
                };
                tokio::spawn(stop.run_until_cancelled_owned(async move {
                    let message = server.forward(&query, Transport::Udp).await;
                    send(&socket, &encode(message, Some(udp_room(&query))), peer).await;
                    drop(permit);
                }));
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, peer).await {
        debug!(%error, %peer, "DNS answer not sent");
    }
}

async fn serve_tcp(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "DNS connection not accepted");
                // Out of descriptors, most likely: the next try waits for one to come back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            if let Err(error) = serve_stream(stream, &server).await {
                debug!(%error, "DNS connection ended");
            }
            drop(permit);
        }));
    }
}

/// Queries one after the other, each behind its length, until the client is done or idle.
async fn serve_stream(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        };
        let Ok(read) = tokio::time::timeout(TCP_IDLE_MAX, read).await else { return Ok(()) };
        let bytes = match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let answered = match Message::from_vec(&bytes) {
            Err(_) => not_a_query(&bytes).unwrap_or_default(),
            Ok(query) if query.metadata.message_type != MessageType::Query => return Ok(()),
            Ok(query) => {
                let message = match server.local(&query) {
                    Some(message) => message,
                    None => server.forward(&query, Transport::Tcp).await,
                };
                encode(message, None)
            }
        };
        let mut framed = (answered.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&answered);
        tokio::time::timeout(TCP_IDLE_MAX, stream.write_all(&framed)).await.map_err(io::Error::from)??;
    }
}

/// What a client with EDNS (or without) can take in one datagram.
fn udp_room(query: &Message) -> usize {
    match &query.edns {
        Some(edns) => usize::from(edns.max_payload().clamp(UDP_PLAIN_MAX_BYTES as u16, UDP_EDNS_MAX_BYTES)),
        None => UDP_PLAIN_MAX_BYTES,
    }
}

/// FORMERR to whatever has at least a header with an id, and is no answer itself.
fn not_a_query(bytes: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(*bytes.first_chunk::<2>()?);
    let is_response = bytes.get(2)? & 0x80 != 0;
    (!is_response && bytes.len() >= 12)
        .then(|| encode(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr), None))
}

/// An answer without records yet.
fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    // One question always fits the smallest answer; several, which nobody asks in earnest, need not.
    if let [question] = query.queries.as_slice() {
        message.add_query(question.clone());
    }
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_EDNS_MAX_BYTES);
        message.set_edns(edns);
    }
    message
}

/// The message on the wire; where it does not fit into `room`, its first records and the mark that there are more.
fn encode(mut message: Message, room: Option<usize>) -> Vec<u8> {
    let limit = room.unwrap_or(usize::from(u16::MAX));
    loop {
        let bytes = message.to_vec().unwrap_or_default();
        if bytes.len() <= limit {
            return bytes;
        }
        message.metadata.truncation = true;
        message.additionals.clear();
        message.authorities.clear();
        let keep = message.answers.len() * limit / bytes.len().max(1);
        if message.answers.is_empty() {
            return message.truncate().to_vec().unwrap_or_default();
        }
        message.answers.truncate(keep.min(message.answers.len() - 1));
    }
}

/// The answer to what is ours to answer, or to what nobody can.
fn own_answer(query: &Message, directory: &Directory, zone: &Zone, turn: usize) -> Option<Message> {
    if query.metadata.op_code != OpCode::Query {
        return Some(reply(query, ResponseCode::NotImp));
    }
    let [question] = query.queries.as_slice() else { return Some(reply(query, ResponseCode::FormErr)) };
    if query.version() > 0 {
        return Some(reply(query, ResponseCode::BADVERS));
    }
    match answer(question, directory, zone, turn) {
        Answer::Elsewhere | Answer::Alias { .. } => None,
        Answer::Here { code, answers, authorities, additionals } => {
            let mut message = reply(query, code);
            message.metadata.authoritative = code != ResponseCode::ServFail && code != ResponseCode::Refused;
            message.add_answers(answers);
            message.add_authorities(authorities);
            message.add_additionals(additionals);
            Some(message)
        }
    }
}

/// What is sent back for a datagram where no one else is asked: the server without its sockets, its cache and its
/// upstream. Public and pure: a seat for fuzzing.
pub fn answer_datagram(bytes: &[u8], directory: &Directory, zone: &Zone, turn: usize) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(bytes) else { return not_a_query(bytes) };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    own_answer(&query, directory, zone, turn).map(|message| encode(message, Some(udp_room(&query))))
}

impl Server {
    /// The answer, where it takes no one else to give it.
    fn local(&self, query: &Message) -> Option<Message> {
        let turn = self.env.rng.below(u64::from(u32::MAX)) as usize;
        let own = own_answer(query, &self.directory.read(), &self.zone, turn);
        own.or_else(|| self.cached(query))
    }

    /// The answer, from elsewhere in whole or (behind an alias) in part.
    async fn forward(&self, query: &Message, transport: Transport) -> Message {
        let mut aliases = Vec::new();
        let mut question = match query.queries.as_slice() {
            [question] => question.clone(),
            _ => return reply(query, ResponseCode::FormErr),
        };
        for _ in 0..ALIASES_MAX {
            let found = answer(&question, &self.directory.read(), &self.zone, 0);
            match found {
                Answer::Alias { record, target } => {
                    aliases.push(*record);
                    question.set_name(target);
                }
                Answer::Here { code, answers, authorities, .. } => {
                    let mut message = reply(query, code);
                    message.add_answers(aliases.into_iter().chain(answers));
                    message.add_authorities(authorities);
                    return message;
                }
                Answer::Elsewhere if aliases.is_empty() => {
                    return match self.upstream.ask(query, transport).await {
                        Ok(message) => {
                            self.remember(query, &message);
                            self.own(query, message)
                        }
                        Err(error) => self.failed(query, &question.name, &error),
                    };
                }
                Answer::Elsewhere => return self.forward_alias(query, question, aliases).await,
            }
        }
        reply(query, ResponseCode::ServFail)
    }

    /// A stub resolver does not follow aliases: it is given the address behind it too.
    async fn forward_alias(
        &self,
        query: &Message,
        question: hickory_proto::op::Query,
        aliases: Vec<hickory_proto::rr::Record>,
    ) -> Message {
        let mut behind = query.clone();
        let name = question.name.clone();
        behind.queries = vec![question];
        let answered = match self.upstream.ask(&behind, Transport::Udp).await {
            Ok(answer) if answer.metadata.truncation => self.upstream.ask(&behind, Transport::Tcp).await,
            answer => answer,
        };
        match answered {
            Ok(answer) => {
                let mut message = reply(query, answer.metadata.response_code);
                message.add_answers(aliases.into_iter().chain(answer.answers));
                message.add_authorities(answer.authorities);
                self.remember(query, &message);
                message
            }
            Err(error) => {
                // The alias itself is known, whatever lies behind it.
                let mut message = self.failed(query, &name, &error);
                message.metadata.response_code = ResponseCode::NoError;
                message.add_answers(aliases);
                message
            }
        }
    }

    fn failed(&self, query: &Message, name: &Name, error: &UpstreamError) -> Message {
        debug!(%name, error = %chain(error), "name not resolved upstream");
        reply(query, ResponseCode::ServFail)
    }

    /// Someone else's answer under this client's id and EDNS.
    fn own(&self, query: &Message, mut message: Message) -> Message {
        let dress = reply(query, message.metadata.response_code);
        message.metadata.id = dress.metadata.id;
        message.queries = dress.queries;
        message.edns = dress.edns;
        message
    }

    fn cache_key(query: &Message) -> Option<CacheKey> {
        let [question] = query.queries.as_slice() else { return None };
        let signed = query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        Some((question.name.to_lowercase().to_ascii(), question.query_type.into(), signed))
    }

    fn cached(&self, query: &Message) -> Option<Message> {
        let key = Server::cache_key(query)?;
        let now = Instant::now();
        let hit = self.cache.lock().get(&key).filter(|hit| hit.until > now).cloned()?;
        let age = u32::try_from((now - hit.at).as_secs()).unwrap_or(u32::MAX);
        let mut message = self.own(query, hit.message);
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.decrement_ttl(age);
        }
        Some(message)
    }

    fn remember(&self, query: &Message, message: &Message) {
        let definite = matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let shortest = message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min();
        let (Some(key), Some(ttl), true) = (Server::cache_key(query), shortest, definite) else { return };
        let life = Duration::from_secs(u64::from(ttl)).min(CACHE_MAX);
        if life.is_zero() || message.metadata.truncation {
            return;
        }
        let now = Instant::now();
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_MAX_ENTRIES {
            cache.retain(|_, cached| cached.until > now);
        }
        if cache.len() < CACHE_MAX_ENTRIES {
            cache.insert(key, Cached { message: message.clone(), at: now, until: now + life });
        }
    }
}
