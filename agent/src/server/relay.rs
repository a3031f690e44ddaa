//! Exec, attach and port-forward: asked of the runtime, and then bytes both ways, untouched, once the runtime has switched
//! protocols.

use std::time::Duration;

use gantry_cri::RuntimeServiceClient;
use gantry_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use gantry_env::chain;
use gantry_kube::Status;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use super::{Body, Config, ContainerRef, body};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream on which nothing moves for so long is ended; what the kubelet's default is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
const REFUSAL_MAX_BYTES: usize = 64 << 10;
const COMMAND_MAX_ARGS: usize = 4096;
const COPY_BUFFER_BYTES: usize = 32 << 10;

/// The pairs of a query string, decoded.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(key), decode(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub async fn exec(
    config: &Config,
    container: ContainerRef,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let container = running(container)?;
    let Asked { command, stdin, stdout, stderr, tty } = parse(request.uri().query().unwrap_or(""))?;
    if command.is_empty() || command.len() > COMMAND_MAX_ARGS {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    let wanted = ExecRequest { container_id: container, cmd: command, stdin, stdout, stderr, tty };
    let answer = RuntimeServiceClient::new(config.cri.clone()).exec(wanted).await.map_err(|s| refused(&s))?;
    splice(&answer.into_inner().url, request).await
}

pub async fn attach(
    config: &Config,
    container: ContainerRef,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let container_id = running(container)?;
    let Asked { command, stdin, stdout, stderr, tty } = parse(request.uri().query().unwrap_or(""))?;
    if !command.is_empty() {
        return Err(Status::bad_request("attach runs no command: parameter \"command\" is not supported"));
    }
    let wanted = AttachRequest { container_id, stdin, tty, stdout, stderr };
    let answer = RuntimeServiceClient::new(config.cri.clone()).attach(wanted).await.map_err(|s| refused(&s))?;
    splice(&answer.into_inner().url, request).await
}

/// The ports are named within the stream.
pub async fn port_forward(
    config: &Config,
    pod_sandbox_id: String,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let wanted = PortForwardRequest { pod_sandbox_id, port: Vec::new() };
    let answer = RuntimeServiceClient::new(config.cri.clone()).port_forward(wanted).await.map_err(|s| refused(&s))?;
    splice(&answer.into_inner().url, request).await
}

fn running(container: ContainerRef) -> Result<String, Status> {
    if container.running {
        return Ok(container.id);
    }
    Err(Status::bad_request(format!("container {} is not running", container.id)))
}

fn refused(status: &tonic::Status) -> Status {
    match status.code() {
        tonic::Code::NotFound => Status::new(404, "NotFound", status.message().to_owned()),
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
            Status::bad_request(status.message().to_owned())
        }
        _ => Status::internal(status.message()),
    }
}

#[derive(Debug, Default)]
struct Asked {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// The kubelet's names for the streams are `input`, `output`, `error`; the API's own are taken too.
fn parse(query: &str) -> Result<Asked, Status> {
    let mut asked = Asked::default();
    for (key, value) in query_pairs(query) {
        let on = matches!(value.as_str(), "1" | "true");
        match key.as_str() {
            "command" => asked.command.push(value),
            "input" | "stdin" => asked.stdin = on,
            "output" | "stdout" => asked.stdout = on,
            "error" | "stderr" => asked.stderr = on,
            "tty" => asked.tty = on,
            "container" => {}
            _ => return Err(Status::bad_request(format!("stream parameter {key:?} is not supported"))),
        }
    }
    if asked.tty {
        asked.stderr = false;
    }
    if !(asked.stdin || asked.stdout || asked.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(asked)
}

/// Opens the runtime's stream with the caller's own upgrade headers and, if it switches, joins the two.
async fn splice(url: &str, mut request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let uri: Uri =
        url.parse().map_err(|_| Status::internal(format!("the runtime gave {url:?} as the address of a stream")))?;
    let unreachable =
        |why: &dyn std::fmt::Display| Status::internal(format!("the runtime's stream cannot be opened: {why}"));
    // The runtime's streams are on this host; whatever else it names is not followed.
    let address: std::net::SocketAddr = uri
        .authority()
        .and_then(|a| a.as_str().parse().ok())
        .filter(|a: &std::net::SocketAddr| a.ip().is_loopback())
        .ok_or_else(|| {
            Status::internal(format!("the runtime gave {url:?} as the address of a stream, which is not on this host"))
        })?;
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|e| unreachable(&e))?
        .map_err(|e| unreachable(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "runtime stream ended");
        }
    });
    let mut forward = Request::new(Empty::<Bytes>::new());
    *forward.method_mut() = if request.method() == Method::POST { Method::POST } else { Method::GET };
    *forward.uri_mut() = uri.path_and_query().map(|p| Uri::from(p.clone())).unwrap_or_default();
    *forward.headers_mut() = upgrade_headers(request.headers());
    if let Ok(host) = address.to_string().parse() {
        forward.headers_mut().insert(header::HOST, host);
    }
    let answer = sender.send_request(forward).await.map_err(|e| unreachable(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let words = Limited::new(answer.into_body(), REFUSAL_MAX_BYTES)
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default();
        let mut refused = Response::new(body(words));
        *refused.status_mut() = if status.is_client_error() { status } else { StatusCode::BAD_GATEWAY };
        return Ok(refused);
    }
    let mut switched = Response::new(body(Bytes::new()));
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = upgrade_headers(answer.headers());
    let ours = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (ours, theirs) = match tokio::try_join!(ours, hyper::upgrade::on(answer)) {
            Ok(both) => both,
            Err(error) => {
                debug!(error = %chain(&error), "stream was not upgraded");
                return;
            }
        };
        join(TokioIo::new(ours), TokioIo::new(theirs)).await;
    });
    Ok(switched)
}

/// Only what belongs to the upgrade travels on: no credentials, no cookies.
fn upgrade_headers(headers: &HeaderMap) -> HeaderMap {
    let travels = |name: &&http::HeaderName| {
        *name == header::UPGRADE
            || *name == header::CONNECTION
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str() == "x-stream-protocol-version"
    };
    let mut out = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| travels(name)) {
        out.append(name.clone(), value.clone());
    }
    out
}

/// Copies both ways until both sides are done, or nothing moves for [`IDLE_TIMEOUT`].
async fn join(a: impl AsyncRead + AsyncWrite, b: impl AsyncRead + AsyncWrite) {
    let ((a_read, a_write), (b_read, b_write)) = (tokio::io::split(a), tokio::io::split(b));
    tokio::join!(copy(a_read, b_write), copy(b_read, a_write));
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let n = match tokio::time::timeout(IDLE_TIMEOUT, from.read(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => n,
            _ => break,
        };
        if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_that_are_asked_for() {
        let asked = parse("command=sh&command=-c&command=echo%20%2Bhi&input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(asked.command, ["sh", "-c", "echo +hi"]);
        assert!(asked.stdin && asked.stdout && asked.tty && !asked.stderr);
        assert!(parse("command=a").unwrap_err().message.contains("stdin"));
        assert!(parse("command=a&output=1&shell=bash").unwrap_err().message.contains("shell"));
    }

    #[test]
    fn credentials_do_not_travel_on() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer x".parse().unwrap());
        headers.insert("sec-websocket-key", "k".parse().unwrap());
        headers.insert("upgrade", "websocket".parse().unwrap());
        assert_eq!(upgrade_headers(&headers).len(), 2);
    }

    #[tokio::test]
    async fn each_side_ends_by_itself() {
        let (client, near) = tokio::io::duplex(64);
        let (far, server) = tokio::io::duplex(64);
        let relay = tokio::spawn(join(near, far));
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (mut server_read, mut server_write) = tokio::io::split(server);
        client_write.write_all(b"question").await.unwrap();
        client_write.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server_read.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        server_write.write_all(b"answer").await.unwrap();
        server_write.shutdown().await.unwrap();
        heard.clear();
        client_read.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
        relay.await.unwrap();
    }
}
