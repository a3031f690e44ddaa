//! Whether anybody still asks for something on a connection. A peer that only answers our pings holds a place that another
//! may need.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::{Body, BodyError};

/// What one connection has to do.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Requests whose answers have not gone out to their end.
    open: AtomicUsize,
    /// Requests so far.
    begun: AtomicU64,
}

impl Idle {
    pub fn begin(self: &Arc<Idle>) -> Turn {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }

    /// Comes back when there was nothing to do for that long. It looks only so often: requests wake nobody.
    pub async fn outlasts(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            let open = self.open.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            if open == 0 && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

/// A request, until its answer has gone out.
#[derive(Debug)]
pub(super) struct Turn(Arc<Idle>);

impl Turn {
    pub fn with(self, body: Body) -> Held {
        Held { body, _turn: self }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that keeps its connection from being idle.
pub(super) struct Held {
    body: Body,
    _turn: Turn,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body;
    use tokio::time::Instant;

    const TIME: Duration = Duration::from_secs(90);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nobody_asks() {
        let idle = Arc::new(Idle::default());
        let began = Instant::now();
        idle.outlasts(TIME).await;
        assert_eq!(began.elapsed().as_secs(), 90);
        let asks = {
            let idle = idle.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    drop(idle.begin());
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            })
        };
        tokio::task::yield_now().await;
        let began = Instant::now();
        idle.outlasts(TIME).await;
        assert!((540 + 90..=540 + 180).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        asks.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_goes_on_keeps_its_connection() {
        let idle = Arc::new(Idle::default());
        let watch = idle.begin().with(body::full("x"));
        let long = tokio::time::timeout(TIME * 100, idle.outlasts(TIME)).await;
        assert!(long.is_err());
        drop(watch);
        tokio::time::timeout(TIME * 3, idle.outlasts(TIME)).await.expect("it is idle then");
    }
}
