use std::io::{self, Write};
use std::sync::Arc;

use gantry_cri::archives::export_response::Part;
use gantry_cri::archives::{ExportRequest, ExportResponse, ExportedImage, ExportedImages};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::image_watch::platform;
use super::pages::Streamed;
use crate::image::{Exported, ImageError};
use crate::node::Node;

/// An archive travels in parts of this size.
const PART_BYTES: usize = 256 << 10;
const PARTS_WAITING: usize = 4;

type Sink = mpsc::Sender<Result<ExportResponse, Status>>;

/// Writes as fast as the caller reads, and ends with the caller.
pub async fn run(node: &Arc<Node>, request: ExportRequest) -> Result<Streamed<ExportResponse>, Status> {
    if request.images.is_empty() {
        return Err(Status::invalid_argument("no image is named"));
    }
    let platform = platform(&request.platform)?;
    let export = node.images.export(&request.images, platform).await.map_err(|error: ImageError| error.status())?;
    let (sink, parts) = mpsc::channel(PARTS_WAITING);
    tokio::task::spawn_blocking(move || {
        let images = export.images.iter().map(describe).collect();
        let mut parts = Parts { sink: &sink, buffer: Vec::with_capacity(PART_BYTES) };
        let written = parts.send(Part::Images(ExportedImages { images })).map_err(|_| ImageError::NobodyReads);
        match written.and_then(|()| export.write(&mut parts)) {
            Ok(()) | Err(ImageError::NobodyReads) => {}
            Err(error) => drop(sink.blocking_send(Err(error.status()))),
        }
    });
    Ok(Box::pin(ReceiverStream::new(parts)))
}

fn describe(image: &Exported) -> ExportedImage {
    ExportedImage {
        id: image.id.to_string(),
        repo_tags: image.tags.clone(),
        manifest: image.manifest.to_string(),
        came_by: image.came_by.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

struct Parts<'s> {
    sink: &'s Sink,
    buffer: Vec<u8>,
}

impl Parts<'_> {
    fn send(&self, part: Part) -> io::Result<()> {
        let response = ExportResponse { part: Some(part) };
        self.sink.blocking_send(Ok(response)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == PART_BYTES {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART_BYTES));
        self.send(Part::Data(data))
    }
}
