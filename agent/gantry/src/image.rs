//! `gantry image`: the images of this machine, asked of its runtime over CRI.

use std::path::{Path, PathBuf};

use gantry_cri::archives::import_request::Part;
use gantry_cri::archives::{ImportOptions, ImportRequest};
use gantry_cri::v1::{ImageFilter, ImageSpec, ListImagesRequest, PullImageRequest, RemoveImageRequest};
use gantry_cri::{ArchivesClient, ImageServiceClient, connect};

use tokio::io::AsyncReadExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::Failure;

/// An archive travels in parts of this size.
const PART_BYTES: usize = 256 << 10;
const PARTS_WAITING: usize = 4;

#[derive(Debug, thiserror::Error)]
#[error("archive {file} cannot be opened", file = file.display())]
struct OpenError {
    file: PathBuf,
    source: std::io::Error,
}

pub async fn list(socket: &Path) -> Result<(), Failure> {
    let request = ListImagesRequest { filter: None::<ImageFilter> };
    let answer = ImageServiceClient::new(connect::unix(socket)).list_images(request).await?.into_inner();
    println!("{:<48} {:<22} {:>10}", "IMAGE", "ID", "SIZE");
    for image in answer.images {
        let names = if image.repo_tags.is_empty() { image.repo_digests.clone() } else { image.repo_tags.clone() };
        for name in names {
            let id = image.id.trim_start_matches("sha256:");
            println!("{name:<48} {:<22} {:>10}", &id[..id.len().min(20)], human(image.size));
        }
    }
    Ok(())
}

pub async fn pull(socket: &Path, reference: &str) -> Result<(), Failure> {
    let image = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(image), ..PullImageRequest::default() };
    let bar = indicatif::ProgressBar::new_spinner().with_message(format!("pulling {reference}"));
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    let answer = ImageServiceClient::new(connect::unix(socket)).pull_image(request).await;
    bar.finish_and_clear();
    println!("{}", answer?.into_inner().image_ref);
    Ok(())
}

/// Streams an OCI or docker archive to the runtime, which checks it as it arrives.
pub async fn import(socket: &Path, file: &Path) -> Result<(), Failure> {
    let mut archive =
        tokio::fs::File::open(file).await.map_err(|source| OpenError { file: file.to_owned(), source })?;
    let (send, receive) = tokio::sync::mpsc::channel(PARTS_WAITING);
    let first = ImportRequest { part: Some(Part::Options(ImportOptions::default())) };
    tokio::spawn(async move {
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
                }
                // An archive that cannot be read to its end is cut, which the runtime notices.
                _ => return,
            }
        }
    });
    let mut archives = ArchivesClient::new(connect::unix(socket));
    for image in archives.import(ReceiverStream::new(receive)).await?.into_inner().images {
        println!("{} {}", image.id, image.repo_tags.join(" "));
    }
    Ok(())
}

pub async fn remove(socket: &Path, reference: &str) -> Result<(), Failure> {
    let image = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
    let request = RemoveImageRequest { image: Some(image) };
    ImageServiceClient::new(connect::unix(socket)).remove_image(request).await?;
    Ok(())
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
