//! The cheapest client that there can be, so that the load takes little of the machine: bare hyper over TLS, one connection a
//! client, HTTP/2 as client-go speaks it or HTTP/1.1.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_control::bootstrap::credentials::ADMIN_USER;
use gantry_env::Env;
use gantry_pki::{Authority, Credential, Profile, Reloading, tls};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

/// What a connection may have on its way: more than the longest list, so that its size is not what is measured.
const WINDOW_BYTES: u32 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Version::Http1 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// Who connects to a server, and how.
#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    version: Version,
    tls: TlsConnector,
    bearer: Option<String>,
}

/// An ordinary user, to whom RBAC applies.
pub const USER: &str = "bench";

impl Wire {
    /// Of [`USER`] where `folder` is that of the control service.
    pub fn new(folder: &Path, address: SocketAddr, version: Version) -> Result<Wire, Failure> {
        let env = Env::system();
        let authority = Authority::load_or_create(&pki(folder), "", &env)?;
        Wire::with(&authority, Some(&authority.issue(&Profile::client(USER, None), &env)?), address, version)
    }

    /// Of the administrator, who tells what [`USER`] may do.
    pub fn admin(folder: &Path, address: SocketAddr) -> Result<Wire, Failure> {
        let authority = Authority::load_or_create(&pki(folder), "", &Env::system())?;
        let admin = Credential::load(&pki(folder).join("admin.pem"))?.ok_or(format!("{ADMIN_USER} has no key"))?;
        Wire::with(&authority, Some(&admin), address, Version::Http1)
    }

    fn with(
        authority: &Authority,
        credential: Option<&Credential>,
        address: SocketAddr,
        version: Version,
    ) -> Result<Wire, Failure> {
        let identity = credential.map(Reloading::new).transpose()?;
        let mut config = tls::client_config(authority.certificate_pem(), identity.as_ref(), &Env::system().clock)?;
        config.alpn_protocols = vec![match version {
            Version::Http1 => b"http/1.1".to_vec(),
            Version::Http2 => b"h2".to_vec(),
        }];
        Ok(Wire { address, version, tls: TlsConnector::from(Arc::new(config)), bearer: None })
    }

    /// Of a service account, by its token.
    pub fn by_token(folder: &Path, address: SocketAddr, version: Version, token: &str) -> Result<Wire, Failure> {
        let authority = Authority::load_or_create(&pki(folder), "", &Env::system())?;
        let wire = Wire::with(&authority, None, address, version)?;
        Ok(Wire { bearer: Some(format!("Bearer {token}")), ..wire })
    }

    pub async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await?;
        let io = TokioIo::new(stream);
        let sender = match self.version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, address: self.address, bearer: self.bearer.clone() })
    }

    pub async fn connections(&self, count: usize) -> Result<Vec<Connection>, Failure> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.connect().await?);
        }
        Ok(connections)
    }
}

pub fn pki(folder: &Path) -> std::path::PathBuf {
    folder.join("control/pki")
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One client's connection.
pub struct Connection {
    sender: Sender,
    address: SocketAddr,
    bearer: Option<String>,
}

impl Connection {
    /// The head of an answer; its body is still to come.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let request = request.uri(path).header(HOST, self.address.to_string());
                sender.send_request(request.body(Full::new(body))?).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let request = request.uri(format!("https://{}{path}", self.address));
                sender.send_request(request.body(Full::new(body))?).await?
            }
        };
        Ok(response)
    }

    /// Sends, and reads the answer to its last byte; how many there were.
    pub async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wanted: StatusCode,
    ) -> Result<usize, Failure> {
        let mut response = self.send(method, path, body).await?;
        if response.status() != wanted {
            let (status, said) = (response.status(), response.into_body().collect().await?.to_bytes());
            return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&said)).into());
        }
        let mut bytes = 0;
        while let Some(frame) = response.body_mut().frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(bytes)
    }

    pub async fn get(&mut self, path: &str) -> Result<usize, Failure> {
        self.exchange(Method::GET, path, Bytes::new(), StatusCode::OK).await
    }

    /// The whole of an answer.
    pub async fn read(&mut self, path: &str) -> Result<Bytes, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        Ok(self.send(method, path, body).await?.into_body().collect().await?.to_bytes())
    }

    pub async fn create(&mut self, path: &str, body: Bytes) -> Result<usize, Failure> {
        self.exchange(Method::POST, path, body, StatusCode::CREATED).await
    }
}
