//! Bodies: what comes in is read whole and bounded, what goes out is bytes or a stream of them.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::Stream;
use gantry_kube::Status;
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full, LengthLimitError, Limited, StreamBody};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::inflight::{Bounds, Share};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request bodies of either wire, and response bodies of either wire.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that broke off.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub struct BodyError(#[source] BoxError);

pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(chunks.map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)))).boxed_unsync()
}

/// Pieces that are made when they are sent. Between two of them whatever else waits has its turn: a worker that always has the next
/// piece at hand would look only now and then whether somebody asks for something.
pub fn pieces(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    stream(futures::stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.next()?;
        tokio::task::yield_now().await;
        Some((chunk, chunks))
    }))
}

/// Takes any body into our type.
pub fn wrap<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|error| BodyError(error.into())).boxed_unsync()
}

/// A body that is compressed as it passes.
pub fn gzipped(body: Body) -> Body {
    use futures::StreamExt;
    let mut packer = Some(Packer::default());
    let pieces = BodyDataStream::new(body).map(Some).chain(futures::stream::once(std::future::ready(None)));
    let packed = pieces.filter_map(move |piece| {
        std::future::ready(match piece {
            Some(Ok(piece)) => packer.as_mut().and_then(|packer| packer.push(&piece)).map(Ok),
            Some(Err(error)) => {
                // What follows would make a whole of what broke off.
                packer = None;
                Some(Err(error))
            }
            None => packer.take().and_then(Packer::finish).map(Ok),
        })
    });
    StreamBody::new(packed.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// gzip, piece by piece.
pub struct Packer(GzEncoder<Vec<u8>>);

impl Default for Packer {
    fn default() -> Packer {
        Packer(GzEncoder::new(Vec::new(), Compression::new(1)))
    }
}

impl Packer {
    /// Takes a piece in; what has come out so far, if it is anything. Writing to memory cannot fail.
    pub fn push(&mut self, piece: &[u8]) -> Option<Bytes> {
        self.0.write_all(piece).ok()?;
        Some(std::mem::take(self.0.get_mut())).filter(|packed| !packed.is_empty()).map(Into::into)
    }

    /// The rest.
    pub fn finish(self) -> Option<Bytes> {
        self.0.finish().ok().map(Into::into)
    }
}

/// Takes any body into our type, holding a share for as long as it lives.
pub fn holding<B>(body: B, share: Share) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    wrap(body.map_frame(move |frame| {
        let _ = &share;
        frame
    }))
}

/// What is still read of a body that is refused: a client that is cut off in the middle of sending sees a broken
/// connection instead of the answer.
const DRAIN_MAX_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's body until somebody reads it.
#[derive(Clone)]
pub struct Unread(Arc<Mutex<Option<Body>>>);

impl Unread {
    pub fn new(body: Body) -> Unread {
        Unread(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().take()
    }

    /// The body as it comes, however long it is: for those who pass it on.
    pub fn pass_on(&self) -> Body {
        self.take().unwrap_or_else(|| full(Bytes::new()))
    }

    /// Reads the body to its end, or refuses it: 413 past the limit, 429 where there is no room for it. The room is taken for as long as the share lives.
    pub async fn read(&self, bounds: &Bounds) -> Result<(Bytes, Share), Status> {
        let Some(mut body) = self.take() else { return Ok((Bytes::new(), None)) };
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
            drain(body).await;
            return Err(Status::too_large(BODY_MAX_BYTES));
        }
        let told = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let share = match bounds.room(told.unwrap_or(BODY_MAX_BYTES).min(BODY_MAX_BYTES)).await {
            Ok(share) => share,
            Err(status) => {
                drain(body).await;
                return Err(status);
            }
        };
        // How long that may take is the request's deadline.
        match Limited::new(&mut body, BODY_MAX_BYTES).collect().await {
            Ok(collected) => Ok((collected.to_bytes(), share)),
            Err(error) if error.is::<LengthLimitError>() => {
                drain(body).await;
                Err(Status::too_large(BODY_MAX_BYTES))
            }
            Err(error) => Err(Status::bad_request(format!("the request body could not be read: {error}"))),
        }
    }

    /// Takes what nobody read off the wire.
    pub async fn discard(&self) {
        if let Some(body) = self.take() {
            drain(body).await;
        }
    }
}

async fn drain(mut body: Body) {
    let rest = async {
        let mut left = DRAIN_MAX_BYTES;
        while left > 0 {
            let Some(Ok(frame)) = body.frame().await else { break };
            left = left.saturating_sub(frame.data_ref().map_or(1, Bytes::len));
        }
    };
    // Whatever a slow client still sends after this is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;
    use crate::http::query::Query;
    use crate::http::request_info::RequestInfo;

    #[tokio::test]
    async fn between_two_pieces_others_have_their_turn() {
        let mut body = pieces((0..3).map(|i| Bytes::from(vec![i])));
        for wanted in 0..3 {
            let mut frame = body.frame();
            assert!(futures::poll!(&mut frame).is_pending(), "piece {wanted} came at once");
            let sent = frame.await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(sent, vec![wanted]);
        }
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_413() {
        let info = RequestInfo::parse(&http::Method::POST, "/api/v1/namespaces/a/pods", &Query::default());
        let bounds = Bounds::new(&Arc::default(), &info, &Identity::anonymous(), false);
        let read = async |body| Unread::new(body).read(&bounds).await.map(|(bytes, _)| bytes);
        assert_eq!(read(full(vec![b'x'; BODY_MAX_BYTES + 1])).await.unwrap_err().code, 413);
        let chunks = futures::stream::iter(vec![Bytes::from(vec![b'x'; 1024 * 1024]); 4]);
        assert_eq!(read(stream(chunks)).await.unwrap_err().code, 413);
        assert_eq!(read(full("{}")).await.unwrap(), "{}");
    }
}
