use bytes::Bytes;
use gantry_cri::archives;
use gantry_cri::archives::import_request::Part;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::image::{ImageError, ImportOptions};
use crate::node::Node;

/// Pieces of the archive between the socket and the spool.
const PIECES_MAX: usize = 16;

pub async fn run(
    node: &Node,
    mut requests: impl Stream<Item = Result<archives::ImportRequest, Status>> + Unpin,
) -> Result<archives::ImportResponse, Status> {
    let first = requests.next().await.transpose()?.and_then(|request| request.part);
    let Some(Part::Options(options)) = first else {
        return Err(Status::invalid_argument("the first message must carry the options"));
    };
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let options = ImportOptions { only: said(options.only), name: said(options.name), pinned: options.pinned };
    let (sink, pieces) = mpsc::channel(PIECES_MAX);
    // The importer ends early on a bad archive; then its answer counts, not that nobody takes the rest.
    let (sent, imported) = tokio::join!(forward(requests, sink), node.images.import_pieces(pieces, options));
    if let (Err(status), Err(_)) = (&sent, &imported) {
        return Err(status.clone());
    }
    let imported = imported.map_err(|error: ImageError| error.status())?;
    let images = imported.iter().map(|image| archives::ImportedImage {
        id: image.id().to_string(),
        repo_tags: image.repo_tags().to_vec(),
        repo_digests: image.repo_digests().to_vec(),
        size: image.size(),
    });
    Ok(archives::ImportResponse { images: images.collect() })
}

async fn forward(
    mut requests: impl Stream<Item = Result<archives::ImportRequest, Status>> + Unpin,
    sink: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    while let Some(request) = requests.next().await {
        match request?.part {
            Some(Part::Data(data)) => {
                if sink.send(data.into()).await.is_err() {
                    return Ok(());
                }
            }
            _ => return Err(Status::invalid_argument("only the archive's bytes may follow the options")),
        }
    }
    Ok(())
}
