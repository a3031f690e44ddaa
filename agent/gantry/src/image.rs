//! `gantry image`: the images of this machine, asked of its runtime over CRI and, for what becomes of them, of its agent.

use std::path::Path;

use gantry_cri::v1::{ImageFilter, ImageSpec, ListImagesRequest, RemoveImageRequest};
use gantry_cri::{ImageServiceClient, connect};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

pub mod archive;
pub mod prune;
pub mod pull;

pub async fn list(socket: &Path) -> Result<(), Failure> {
    let request = ListImagesRequest { filter: None::<ImageFilter> };
    let answer = ImageServiceClient::new(connect::unix(socket)).list_images(request).await?.into_inner();
    println!("{:<48} {:<22} {:>10}", "IMAGE", "ID", "SIZE");
    for image in answer.images {
        let names = if image.repo_tags.is_empty() { image.repo_digests.clone() } else { image.repo_tags.clone() };
        for name in names {
            println!("{name:<48} {:<22} {:>10}", short(&image.id, 20), human(image.size));
        }
    }
    Ok(())
}

pub async fn remove(socket: &Path, references: &[String]) -> Result<(), Failure> {
    let mut images = ImageServiceClient::new(connect::unix(socket));
    for reference in references {
        let image = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
        images.remove_image(RemoveImageRequest { image: Some(image) }).await?;
    }
    Ok(())
}

fn short(digest: &str, digits: usize) -> &str {
    let hex = digest.trim_start_matches("sha256:");
    &hex[..hex.len().min(digits)]
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A bar of bytes with their rate; nothing where no terminal is.
fn bar(name: &str, bytes: u64) -> ProgressBar {
    let template = "{prefix:>12} {bar:30} {bytes:>10}/{total_bytes} {binary_bytes_per_sec:>12} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_prefix(name.to_owned())
}
