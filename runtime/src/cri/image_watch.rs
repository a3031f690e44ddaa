use std::sync::Arc;
use std::time::Duration;

use gantry_cri::archives::pull_response::Part;
use gantry_cri::archives::{LayerProgress, PullProgress, PullRequest, PullResponse};
use gantry_cri::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::image_pull;
use super::pages::Streamed;
use crate::image::{self, ImageError, Platform, Progress};
use crate::node::Node;

/// How often whoever watches hears of it.
const TELL_EVERY: Duration = Duration::from_millis(200);
const MESSAGES_WAITING: usize = 4;

/// Pulls while the caller listens: one that goes away ends it, as it ends a PullImage.
pub fn run(node: &Arc<Node>, request: PullRequest) -> Streamed<PullResponse> {
    let (sink, messages) = mpsc::channel(MESSAGES_WAITING);
    let node = Arc::clone(node);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            // Nothing was taken from the channel when this is dropped.
            () = sink.closed() => {}
            // Dropped, it ends its transfers.
            () = pull(&node, request, &sink) => {}
        }
    });
    Box::pin(ReceiverStream::new(messages))
}

async fn pull(node: &Node, request: PullRequest, sink: &mpsc::Sender<Result<PullResponse, Status>>) {
    let progress: Arc<Progress> = Arc::default();
    let image = Some(v1::ImageSpec { image: request.image, ..v1::ImageSpec::default() });
    let platform = match platform(&request.platform) {
        Ok(platform) => platform,
        Err(error) => return drop(sink.send(Err(error.status())).await),
    };
    let request = v1::PullImageRequest { image, ..v1::PullImageRequest::default() };
    let mut pulling = std::pin::pin!(image_pull::watched(node, request, platform, &progress));
    let mut ticks = tokio::time::interval(TELL_EVERY);
    let mut told = Vec::new();
    let ended = loop {
        tokio::select! {
            biased;
            // Polled in place.
            ended = &mut pulling => break ended,
            // A tick that is lost comes again.
            _ = ticks.tick() => {
                let layers = progress.layers();
                if layers != told && sink.send(Ok(message(&layers))).await.is_ok() {
                    told = layers;
                }
            }
        }
    };
    let _ = sink.send(Ok(message(&progress.layers()))).await;
    let ended = ended.map(|response| PullResponse { part: Some(Part::ImageRef(response.image_ref)) });
    let _ = sink.send(ended.map_err(Status::from)).await;
}

/// What a request says; nothing is this machine's.
pub fn platform(text: &str) -> Result<Option<Platform>, ImageError> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse::<Platform>()?)) }
}

fn message(layers: &[image::LayerProgress]) -> PullResponse {
    let layer = |layer: &image::LayerProgress| LayerProgress {
        digest: layer.digest.to_string(),
        size: layer.size,
        done: layer.done,
        finished: layer.finished,
    };
    PullResponse { part: Some(Part::Progress(PullProgress { layers: layers.iter().map(layer).collect() })) }
}
