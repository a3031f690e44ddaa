//! Channels to a runtime: over its unix socket, or over a duplex stream inside one process.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// The authority is never resolved: the connector decides where the bytes go.
const AUTHORITY: &str = "http://cri.invalid";

/// How much an in-process connection buffers in each direction.
const DUPLEX_BUFFER_BYTES: usize = 256 << 10;

/// A channel to the socket at `path`, connected at first use and again whenever it broke.
pub fn unix(path: &Path) -> Channel {
    let path: PathBuf = path.to_owned();
    Endpoint::from_static(AUTHORITY).connect_with_connector_lazy(service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

/// A channel whose connections are handed to `accept`, the other end of a server's incoming streams.
pub fn in_process(accept: mpsc::Sender<DuplexStream>) -> Channel {
    Endpoint::from_static(AUTHORITY).connect_with_connector_lazy(service_fn(move |_: Uri| {
        let accept = accept.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(DUPLEX_BUFFER_BYTES);
            match accept.send(theirs).await {
                Ok(()) => Ok(TokioIo::new(ours)),
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
            }
        }
    }))
}
