//! HTTP by hand over TLS: for what no client library would send.

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_pki::tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Of an answer, what is kept.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// A server, and who speaks to it.
pub struct Raw {
    pub address: SocketAddr,
    pub token: String,
}

impl Raw {
    /// A connection that speaks this protocol (`h2`, `http/1.1`).
    pub async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut config = tls::unverified_client_config().expect("a TLS configuration");
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a TLS connection")
    }

    /// `METHOD PATH` with more lines, and a body as it is: the code and the body of the answer.
    pub async fn send(&self, line: &str, more: &str, body: &[u8]) -> (u16, String) {
        let token = &self.token;
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{more}\r\n"
        );
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    /// Any bytes: the code is 0 where nothing comes back that has one.
    pub async fn exchange(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect("http/1.1").await;
        // A server that has heard enough may close before it has heard all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
    }
}
