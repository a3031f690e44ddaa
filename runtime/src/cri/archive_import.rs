use bytes::Bytes;
use gantry_cri::archives;
use gantry_cri::archives::import_request::Part;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::image_watch::platform;
use crate::image::{ImageError, Images, ImportOptions};
use crate::node::Node;

/// Pieces of the archive between the socket and the spool.
const PIECES_MAX: usize = 16;

pub async fn run(
    node: &Node,
    requests: impl Stream<Item = Result<archives::ImportRequest, Status>> + Unpin,
) -> Result<archives::ImportResponse, Status> {
    import(&node.images, requests).await
}

async fn import(
    images: &Images,
    mut requests: impl Stream<Item = Result<archives::ImportRequest, Status>> + Unpin,
) -> Result<archives::ImportResponse, Status> {
    let first = requests.next().await.transpose()?.and_then(|request| request.part);
    let Some(Part::Options(options)) = first else {
        return Err(Status::invalid_argument("the first message must carry the options"));
    };
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let options = ImportOptions {
        platform: platform(&options.platform)?,
        only: said(options.only),
        name: said(options.name),
        pinned: options.pinned,
    };
    let (sink, pieces) = mpsc::channel(PIECES_MAX);
    // The importer ends early on a bad archive; then its answer counts, not that nobody takes the rest.
    let (sent, imported) = tokio::join!(forward(requests, sink), images.import_pieces(pieces, options));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Config;
    use gantry_env::Env;

    fn data(bytes: &[u8]) -> Result<archives::ImportRequest, Status> {
        Ok(archives::ImportRequest { part: Some(Part::Data(bytes.to_vec())) })
    }

    fn options() -> Result<archives::ImportRequest, Status> {
        Ok(archives::ImportRequest { part: Some(Part::Options(archives::ImportOptions::default())) })
    }

    #[tokio::test]
    async fn a_stream_that_is_no_archive_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let images = Images::open(Config::below(state.path()), Env::system()).await.unwrap();
        let noise = vec![b'x'; 4096];
        let broken = || Err(Status::cancelled("the client went away"));
        for (what, requests, words) in [
            ("nothing", vec![], "options"),
            ("no options", vec![data(&noise)], "options"),
            ("noise", vec![options(), data(&noise), data(&noise)], "archive"),
            ("options twice", vec![options(), options()], "may follow"),
            ("broken", vec![options(), data(&noise[..100]), broken()], "went away"),
        ] {
            let error = import(&images, tokio_stream::iter(requests)).await.unwrap_err();
            assert!(error.message().contains(words), "{what}: {error}");
        }
        assert!(images.list().is_empty());
        assert_eq!(std::fs::read_dir(state.path().join("images/ingest")).unwrap().count(), 0);
    }
}
