//! One question to a container: an HTTP request, a TCP connection, a call over gRPC, a command.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::runtime::Runtime;

/// As much of an answer's body as is read, and of a command's output as is shown.
const BODY_MAX_BYTES: usize = 10 << 10;

pub struct Target<'a> {
    pub pod_ip: &'a str,
    pub container: &'a Value,
    pub container_id: &'a str,
}

/// `Ok` when the container answers as it should; else why not, in the words of an event.
pub async fn ask(runtime: &Runtime, spec: &Value, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    if spec["exec"].is_object() {
        return command(runtime, &spec["exec"], target, timeout).await;
    }
    let asked = async {
        if spec["httpGet"].is_object() {
            http_get(&spec["httpGet"], target).await
        } else if spec["tcpSocket"].is_object() {
            tcp(&spec["tcpSocket"], target).await.map(|_| ())
        } else if spec["grpc"].is_object() {
            let (stream, at) = tcp(&spec["grpc"], target).await?;
            super::grpc::check(stream, &at, spec["grpc"]["service"].as_str().unwrap_or("")).await
        } else {
            Err("the probe names no action".to_owned())
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()),
    }
}

/// A port by its number, or by its name in the container.
pub fn port(value: &Value, container: &Value) -> Option<u16> {
    let by_number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let number = by_number.or_else(|| {
        let mut ports = container["ports"].as_array()?.iter();
        ports.find(|p| p["name"] == *value)?["containerPort"].as_u64()
    });
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

fn address(action: &Value, target: &Target<'_>) -> Result<(String, u16), String> {
    let host = action["host"].as_str().filter(|h| !h.is_empty()).unwrap_or(target.pod_ip).to_owned();
    let port = port(&action["port"], target.container).ok_or_else(|| format!("invalid port {}", action["port"]))?;
    Ok((host, port))
}

async fn tcp(action: &Value, target: &Target<'_>) -> Result<(TcpStream, String), String> {
    let (host, port) = address(action, target)?;
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match connect(&host, port).await {
        Ok(stream) => Ok((stream, shown)),
        Err(error) => Err(format!("dial tcp {shown}: connect: {}", errno_words(&error))),
    }
}

async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect(&*gantry_env::resolve(host, port).await?).await
}

/// `connection refused`, without the number that Rust puts behind it.
fn errno_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

pub async fn http_get(action: &Value, target: &Target<'_>) -> Result<(), String> {
    let scheme = action["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
    let path = action["path"].as_str().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let connected = tcp(action, target).await;
    let shown = connected.as_ref().map(|(_, shown)| shown.clone()).ok();
    let url = |at: &str| format!("{scheme}://{at}{path}");
    let (stream, at) = match connected {
        Ok(pair) => pair,
        Err(error) => {
            let (host, port) = address(action, target)?;
            return Err(format!("Get \"{}\": {error}", url(&format!("{host}:{port}"))));
        }
    };
    let mut request =
        http::Request::builder().uri(&path).header("user-agent", "kube-probe/1.36").header("accept", "*/*");
    let mut host = shown.unwrap_or_default();
    for header in action["httpHeaders"].as_array().into_iter().flatten() {
        let (name, value) = (header["name"].as_str().unwrap_or(""), header["value"].as_str().unwrap_or(""));
        if name.eq_ignore_ascii_case("host") {
            host = value.to_owned();
        } else {
            request = request.header(name, value);
        }
    }
    let request = request.header("host", host).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let status = if scheme == "https" {
        let tls = unverified(stream).await.map_err(|e| format!("Get \"{}\": {e}", url(&at)))?;
        exchange(tls, request).await
    } else {
        exchange(stream, request).await
    };
    match status.map_err(|e| format!("Get \"{}\": {e}", url(&at)))? {
        200..=399 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

/// The status code. A redirect counts as an answer and is not followed.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: http::Request<Empty<Bytes>>,
) -> Result<u16, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let _ = Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await;
        Ok(code)
    };
    // The connection is driven by this task alone, so that it ends with the probe.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        // Both futures live on the stack of this probe, and nothing goes on once one of them is done.
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn command(runtime: &Runtime, action: &Value, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    let words = action["command"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    let words: Vec<String> = words.map(str::to_owned).collect();
    let answer = runtime.exec_sync(target.container_id, words, timeout).await.map_err(|e| e.words())?;
    if answer.exit_code == 0 {
        return Ok(());
    }
    let mut output = answer.stdout;
    output.extend_from_slice(&answer.stderr);
    output.truncate(BODY_MAX_BYTES);
    Err(String::from_utf8_lossy(&output).into_owned())
}

/// The probe asks whether the container answers, not who it is.
async fn unverified(stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let config = gantry_pki::tls::unverified_client_config().map_err(|e| e.to_string())?;
    let peer = stream.peer_addr().map_err(|e| e.to_string())?;
    let name = ServerName::IpAddress(peer.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_and_by_name() {
        let container = json!({"ports": [{"name": "web", "containerPort": 8080}]});
        assert_eq!(port(&json!(80), &container), Some(80));
        assert_eq!(port(&json!("web"), &container), Some(8080));
        assert_eq!(port(&json!("81"), &container), Some(81));
        assert_eq!(port(&json!("none"), &container), None);
    }
}
