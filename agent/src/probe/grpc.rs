//! The health protocol of gRPC (`grpc.health.v1`), as much of it as a probe asks: one `Check`.

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Of `HealthCheckResponse.ServingStatus`, by number.
const STATUSES: [&str; 4] = ["UNKNOWN", SERVING, "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: &str = "SERVING";

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `Ok` when the server says of the service that it serves.
pub async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let answer = ask(stream, authority, service).await.map_err(|status| match status.code() {
        Code::Unimplemented => {
            format!("error: this server does not implement the grpc health protocol ({CHECK}): {}", status.message())
        }
        _ => format!("error: health rpc probe failed: {}", status.message()),
    })?;
    let known = usize::try_from(answer.status).ok().and_then(|number| STATUSES.get(number).copied());
    match known {
        Some(SERVING) => Ok(()),
        known => {
            let word = known.map_or_else(|| answer.status.to_string(), str::to_owned);
            Err(format!("service unhealthy (responded with {word:?})"))
        }
    }
}

async fn ask(stream: TcpStream, authority: &str, service: &str) -> Result<HealthCheckResponse, Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(gantry_env::chain(&error));
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(unavailable)?;
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let taken = stream.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection is gone"));
        std::future::ready(taken)
    });
    let channel: Channel = endpoint.connect_with_connector(connector).await.map_err(unavailable)?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(unavailable)?;
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    Ok(client.unary(request, PathAndQuery::from_static(CHECK), codec).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one connection: the bytes of the answer's message, if it has one, and gRPC's status.
    async fn asked(message: Option<&'static [u8]>, status: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), CHECK);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", status.parse().unwrap());
                let frames = message.map(|bytes| Frame::data(Bytes::from_static(bytes)));
                let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
                let response = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        };
        let server = tokio::spawn(serve);
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = check(stream, &address.to_string(), "s").await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn only_what_serves_is_well() {
        assert_eq!(asked(Some(&[0, 0, 0, 0, 2, 8, 1]), "0").await, Ok(()));
        let ill = asked(Some(&[0, 0, 0, 0, 2, 8, 2]), "0").await.unwrap_err();
        assert_eq!(ill, "service unhealthy (responded with \"NOT_SERVING\")");
        let unknown = asked(Some(&[0, 0, 0, 0, 0]), "0").await.unwrap_err();
        assert_eq!(unknown, "service unhealthy (responded with \"UNKNOWN\")");
        let other = asked(Some(&[0, 0, 0, 0, 2, 8, 9]), "0").await.unwrap_err();
        assert_eq!(other, "service unhealthy (responded with \"9\")");
        let none = asked(None, "12").await.unwrap_err();
        assert!(none.contains("does not implement the grpc health protocol"), "{none}");
        let not_found = asked(None, "5").await.unwrap_err();
        assert!(not_found.starts_with("error: health rpc probe failed"), "{not_found}");
    }

    #[tokio::test]
    async fn who_speaks_something_else_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(check(stream, &address.to_string(), "").await.is_err());
        server.await.unwrap();
    }
}
