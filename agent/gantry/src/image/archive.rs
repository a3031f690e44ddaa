//! `gantry image import` and `export`: archives, streamed from and to a file.

use std::io;
use std::path::{Path, PathBuf};

use gantry_cri::archives::export_response::Part as Exported;
use gantry_cri::archives::import_request::Part;
use gantry_cri::archives::{ExportRequest, ExportedImage, ImportOptions, ImportRequest};
use gantry_cri::{ArchivesClient, connect};
use gantry_runtime::image::Platform;
use indicatif::ProgressBar;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{bar, human};
use crate::Failure;

/// An archive travels in parts of this size.
const PART_BYTES: usize = 256 << 10;
const PARTS_WAITING: usize = 4;

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("archive {file} cannot be opened", file = file.display())]
    Open { file: PathBuf, source: io::Error },
    #[error("archive {file} cannot be written", file = file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// Streams OCI or docker archives to the runtime, which checks them as they arrive.
pub async fn import(socket: &Path, files: &[PathBuf], platform: Option<&Platform>) -> Result<(), Failure> {
    let options = ImportOptions { platform: said(platform), ..ImportOptions::default() };
    let mut archives = ArchivesClient::new(connect::unix(socket));
    for file in files {
        let open = |source| FileError::Open { file: file.clone(), source };
        let archive = tokio::fs::File::open(file).await.map_err(open)?;
        let bytes = archive.metadata().await.map_err(open)?.len();
        eprintln!("importing {} ({})", file.display(), human(bytes));
        let (send, receive) = tokio::sync::mpsc::channel(PARTS_WAITING);
        let bar = bar("", bytes);
        tokio::spawn(feed(archive, options.clone(), send, bar.clone()));
        let imported = archives.import(ReceiverStream::new(receive)).await;
        bar.finish_and_clear();
        for image in imported?.into_inner().images {
            println!("{} {}", image.id, image.repo_tags.join(" "));
        }
    }
    Ok(())
}

fn said(platform: Option<&Platform>) -> String {
    platform.map(ToString::to_string).unwrap_or_default()
}

async fn feed(
    mut archive: tokio::fs::File,
    options: ImportOptions,
    send: tokio::sync::mpsc::Sender<ImportRequest>,
    bar: ProgressBar,
) {
    let first = ImportRequest { part: Some(Part::Options(options)) };
    if send.send(first).await.is_err() {
        return;
    }
    loop {
        let mut data = Vec::with_capacity(PART_BYTES);
        match (&mut archive).take(PART_BYTES as u64).read_to_end(&mut data).await {
            Ok(n) if n > 0 => {
                if send.send(ImportRequest { part: Some(Part::Data(data)) }).await.is_err() {
                    return;
                }
                bar.inc(n as u64);
            }
            // An archive that cannot be read to its end is cut, which the runtime notices.
            _ => return bar.set_message("unpacking"),
        }
    }
}

/// Writes an archive as it comes. One that is not whole is not left over.
pub async fn export(
    socket: &Path,
    references: Vec<String>,
    platform: Option<&Platform>,
    output: &Path,
) -> Result<(), Failure> {
    let mut archives = ArchivesClient::new(connect::unix(socket));
    let request = ExportRequest { images: references, platform: said(platform) };
    let mut parts = archives.export(request).await?.into_inner();
    if output == Path::new("-") {
        return write(&mut parts, &mut tokio::io::stdout(), output).await;
    }
    let open = |source| FileError::Open { file: output.to_owned(), source };
    let mut file = tokio::fs::File::create(output).await.map_err(open)?;
    let written = write(&mut parts, &mut file, output).await;
    if written.is_err() && file.metadata().await.is_ok_and(|metadata| metadata.is_file()) {
        let _ = tokio::fs::remove_file(output).await;
    }
    written
}

async fn write(
    parts: &mut Streaming<gantry_cri::archives::ExportResponse>,
    out: &mut (impl AsyncWrite + Unpin),
    output: &Path,
) -> Result<(), Failure> {
    let failed = |source| FileError::Write { file: output.to_owned(), source };
    while let Some(message) = parts.message().await? {
        match message.part {
            Some(Exported::Images(exported)) => exported.images.iter().for_each(tell),
            Some(Exported::Data(data)) => out.write_all(&data).await.map_err(failed)?,
            None => {}
        }
    }
    Ok(out.flush().await.map_err(failed)?)
}

/// The archive may be on the standard output.
fn tell(image: &ExportedImage) {
    eprintln!("{} {}", image.id, image.repo_tags.join(" "));
    if !image.came_by.is_empty() {
        eprintln!(
            "  its layers are kept as another image brought them: its manifest is {} in the archive, and was {}",
            image.manifest, image.came_by
        );
    }
}
