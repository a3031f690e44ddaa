//! `gantry image`: the images of this machine, asked of its runtime over CRI and, for what becomes of them, of its agent.

use std::path::Path;

use gantry_cri::v1::{Image, ImageFilter, ImageSpec, ListImagesRequest, RemoveImageRequest};
use gantry_cri::{ImageServiceClient, connect, for_platforms};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

pub mod archive;
pub mod prune;
pub mod pull;

pub async fn list(socket: &Path) -> Result<(), Failure> {
    let request = ListImagesRequest { filter: None::<ImageFilter> };
    let answer = ImageServiceClient::new(connect::unix(socket)).list_images(request).await?.into_inner();
    for line in lines(&answer.images) {
        println!("{line}");
    }
    Ok(())
}

/// A line for each name. A platform is told of where it is another than this machine's.
fn lines(images: &[Image]) -> Vec<String> {
    let line = |name: &str, id: &str, size: &str, platform: &str| {
        format!("{name:<48} {id:<22} {size:>10}  {platform}").trim_end().to_owned()
    };
    let mut lines = vec![line("IMAGE", "ID", "SIZE", "PLATFORM")];
    for image in images {
        let mut names: Vec<(&str, &str)> = image.repo_tags.iter().map(|tag| (tag.as_str(), "")).collect();
        names.extend(for_platforms(image));
        if names.is_empty() {
            names.extend(image.repo_digests.iter().map(|digest| (digest.as_str(), "")));
        }
        let (id, size) = (short(&image.id, 20), human(image.size));
        lines.extend(names.into_iter().map(|(name, platform)| line(name, id, &size, platform)));
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_told_of_where_it_is_anothers() {
        let told = "localhost/a:1 linux/arm64/v8\nlocalhost/b:1 linux/arm64/v8".to_owned();
        let annotations = [(gantry_cri::FOR_PLATFORMS.to_owned(), told)].into();
        let spec = Some(ImageSpec { annotations, ..ImageSpec::default() });
        let own = Image { repo_tags: vec!["localhost/a:1".into()], size: 2048, ..Image::default() };
        let foreign = Image { spec, repo_digests: vec!["localhost/a@sha256:1".into()], ..Image::default() };
        let by_digest = Image { repo_digests: vec!["localhost/c@sha256:2".into()], ..Image::default() };
        let told = lines(&[own, foreign, by_digest]);
        let words = told.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(
            words[1..].iter().map(|words| words[0]).collect::<Vec<_>>(),
            ["localhost/a:1", "localhost/a:1", "localhost/b:1", "localhost/c@sha256:2"]
        );
        assert!(told[1].ends_with("2.0 KiB") && told[2].ends_with("  linux/arm64/v8"), "{told:#?}");
    }
}
