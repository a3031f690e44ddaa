//! etcd alone: durable puts over plain gRPC.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// The fields of etcd's `PutRequest` that a create needs.
#[derive(Clone, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Whatever else `PutResponse` says is skipped.
#[derive(Clone, prost::Message)]
struct PutAnswer {}

#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("etcd cannot be started")]
    Start(#[from] io::Error),
    #[error("etcd does not answer")]
    Connect(#[from] tonic::transport::Error),
    #[error("a put failed")]
    Put(#[from] Box<tonic::Status>),
}

/// Durable puts a second of a real etcd over plain gRPC, from `clients` connections, `count` in all, with values of
/// `bytes`; its files are made under `folder`. None where etcd is not installed.
pub async fn etcd_puts(folder: &Path, clients: usize, count: usize, bytes: usize) -> Result<Option<f64>, EtcdError> {
    let folder = tempfile::tempdir_in(folder)?;
    let [client, peer] = free_ports()?.map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = tokio::process::Command::new("etcd");
    command.arg("--data-dir").arg(folder.path()).args(["--name", "bench"]);
    command.args(["--logger", "zap", "--log-outputs", "/dev/null"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=bench={peer}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        started => started?,
    };
    let rate = measure(&client, clients, count, bytes).await;
    child.kill().await?;
    rate.map(Some)
}

async fn measure(url: &str, clients: usize, count: usize, bytes: usize) -> Result<f64, EtcdError> {
    let mut channels = Vec::new();
    for _ in 0..clients {
        channels.push(connect(url).await?);
    }
    // The first put waits until the only member has elected itself.
    put(&channels[0], "warm".to_owned(), bytes).await?;
    let start = Instant::now();
    let puts = channels.iter().enumerate().map(|(n, channel)| async move {
        for i in (n..count).step_by(clients) {
            put(channel, format!("/registry/configmaps/bench/c-{i}"), bytes).await?;
        }
        Ok::<_, EtcdError>(())
    });
    futures::future::try_join_all(puts).await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn connect(url: &str) -> Result<Channel, EtcdError> {
    let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match endpoint.connect().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            done => return Ok(done?),
        }
    }
}

async fn put(channel: &Channel, key: String, bytes: usize) -> Result<(), EtcdError> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let request = tonic::Request::new(Put { key: key.into_bytes(), value: vec![b'x'; bytes] });
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    grpc.unary(request, path, ProstCodec::<Put, PutAnswer>::default()).await.map_err(Box::new)?;
    Ok(())
}

/// Ports that were free a moment ago.
fn free_ports() -> io::Result<[u16; 2]> {
    let take = || std::net::TcpListener::bind("127.0.0.1:0");
    let (first, second) = (take()?, take()?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
