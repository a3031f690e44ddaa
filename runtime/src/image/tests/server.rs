//! A registry of a few lines, on loopback, whose every answer can be replaced.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Send so many bytes of the body, then nothing, or the end of the connection.
    pub cut: Option<(usize, bool)>,
    /// Send the body again and again, with a pause after each time.
    pub again: Option<Duration>,
}

impl Reply {
    pub fn new(status: u16, body: &[u8]) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: Vec::new(),
            body: body.to_vec(),
            cut: None,
            again: None,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub fn endless(mut self, pause: Duration) -> Reply {
        self.again = Some(pause);
        self
    }

    pub fn cut(mut self, after: usize, hang: bool) -> Reply {
        self.cut = Some((after, hang));
        self
    }
}

#[derive(Default)]
struct Shelf {
    content: BTreeMap<String, Reply>,
    /// Answers that come before the content, each once.
    scripted: BTreeMap<String, VecDeque<Reply>>,
    asked: Vec<Asked>,
}

struct Asked {
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl Server {
    pub async fn start() -> Server {
        Server::start_at(Ipv4Addr::LOCALHOST.into(), None).await
    }

    pub async fn start_at(ip: IpAddr, tls: Option<rustls::ServerConfig>) -> Server {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let server = Server { address: listener.local_addr().unwrap(), shelf: Arc::default() };
        let (shelf, acceptor) = (Arc::clone(&server.shelf), tls.map(|config| TlsAcceptor::from(Arc::new(config))));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shelf, acceptor) = (Arc::clone(&shelf), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, shelf).await,
                        // A client that breaks the handshake off has seen what it wanted.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, shelf).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn put(&self, path: &str, reply: Reply) {
        self.shelf.lock().content.insert(path.to_owned(), reply);
    }

    /// The next answer to a path, before what is there.
    pub fn script(&self, path: &str, reply: Reply) {
        self.shelf.lock().scripted.entry(path.to_owned()).or_default().push_back(reply);
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Made) {
        let manifest =
            Reply::new(200, &image.manifest).header("content-type", "application/vnd.oci.image.manifest.v1+json");
        self.put(&format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        self.put(&format!("/v2/{repository}/manifests/{}", image.digest()), manifest);
        for blob in [&image.config].into_iter().chain(&image.layers) {
            self.put(&blob_path(repository, blob), Reply::new(200, blob));
        }
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.shelf.lock().asked.iter().filter(|asked| asked.path == path).count()
    }

    /// How many requests there were in all.
    pub fn asked_for_anything(&self) -> usize {
        self.shelf.lock().asked.len()
    }

    /// The query of the last request for a path.
    pub fn query(&self, path: &str) -> Option<String> {
        self.shelf.lock().asked.iter().rev().find(|asked| asked.path == path).unwrap().query.clone()
    }

    /// The headers of the last request for a path.
    pub fn headers(&self, path: &str) -> HeaderMap {
        self.shelf.lock().asked.iter().rev().find(|asked| asked.path == path).unwrap().headers.clone()
    }
}

pub fn blob_path(repository: &str, blob: &[u8]) -> String {
    format!("/v2/{repository}/blobs/{}", Digest::of(blob))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shelf: Arc<Mutex<Shelf>>) {
    let service = service_fn(move |request| {
        let reply = answer(&shelf, &request);
        async move { Ok::<_, Infallible>(reply) }
    });
    // A connection that was cut on purpose ends with an error.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(shelf: &Mutex<Shelf>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut shelf = shelf.lock();
    shelf.asked.push(Asked {
        path: path.clone(),
        query: request.uri().query().map(str::to_owned),
        headers: request.headers().clone(),
    });
    let scripted = shelf.scripted.get_mut(&path).and_then(VecDeque::pop_front);
    let honest = scripted.is_none();
    let reply = scripted.or_else(|| shelf.content.get(&path).cloned()).unwrap_or_else(|| {
        Reply::new(404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to this registry"}]}"#)
    });
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let mut body = reply.body;
    let range = request
        .headers()
        .get("range")
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    if let (Some(from), true, StatusCode::OK) = (range, honest && reply.again.is_none(), reply.status) {
        response =
            response.status(206).header("content-range", format!("bytes {from}-{}/{}", body.len() - 1, body.len()));
        body = body.split_off(from);
    }
    let body: Body = match reply.cut {
        None if reply.again.is_some() => {
            let (piece, pause) = (Bytes::from(body), reply.again.unwrap_or_default());
            let again = futures::stream::unfold(false, move |begun| {
                let piece = piece.clone();
                async move {
                    if begun {
                        tokio::time::sleep(pause).await;
                    }
                    Some((Ok(Frame::data(piece)), true))
                }
            });
            StreamBody::new(again).boxed()
        }
        None => Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed(),
        Some((after, hang)) => {
            let sent = futures::stream::iter([Ok(Frame::data(Bytes::copy_from_slice(&body[..after])))]);
            let rest = futures::stream::once(async move {
                if hang {
                    futures::future::pending::<()>().await;
                }
                // What was sent before must have arrived.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            });
            StreamBody::new(futures::StreamExt::chain(sent, rest)).boxed()
        }
    };
    response.body(body).unwrap()
}
