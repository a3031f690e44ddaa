//! Bodies: what comes in is read whole and bounded, what goes out is bytes or a stream of them.

use bytes::Bytes;
use futures::Stream;
use gantry_kube::Status;
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use std::convert::Infallible;
use std::time::Duration;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request bodies of either wire, and response bodies of either wire.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that broke off.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub struct BodyError(#[source] BoxError);

pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;
/// A body that trickles in for longer than this is given up.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(chunks.map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)))).boxed_unsync()
}

/// Takes any body into our type.
pub fn wrap<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|error| BodyError(error.into())).boxed_unsync()
}

/// Reads a request body to its end, or refuses it: 413 past the limit, 408 where it never ends.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(Status::too_large(BODY_MAX_BYTES));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match tokio::time::timeout(BODY_READ_TIMEOUT, Limited::new(body, BODY_MAX_BYTES).collect()).await {
        Err(_) => Err(Status::new(408, "Timeout", "the request body did not arrive in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_MAX_BYTES)),
        Ok(Err(error)) => Err(Status::bad_request(format!("the request body could not be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_past_the_limit_is_413() {
        assert_eq!(read(full(vec![b'x'; BODY_MAX_BYTES + 1])).await.unwrap_err().code, 413);
        let chunks = futures::stream::iter(vec![Bytes::from(vec![b'x'; 1024 * 1024]); 4]);
        assert_eq!(read(stream(chunks)).await.unwrap_err().code, 413);
        assert_eq!(read(full("{}")).await.unwrap(), "{}");
    }
}
