//! `gantry image pull`: a bar for each layer on a terminal, a line for each elsewhere.

use std::path::Path;

use gantry_cri::archives::pull_response::Part;
use gantry_cri::archives::{LayerProgress, PullRequest};
use gantry_cri::v1::{ImageSpec, PullImageRequest};
use gantry_cri::{ArchivesClient, ImageServiceClient, connect};
use gantry_runtime::image::Platform;
use indicatif::{MultiProgress, ProgressBar};
use tonic::Code;
use tonic::transport::Channel;

use super::{bar, human, short};
use crate::Failure;

const DIGITS: usize = 12;

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the runtime went away before {0:?} was here")]
    Cut(String),
    #[error("{failed} of {all} images could not be pulled")]
    Some { failed: usize, all: usize },
    #[error("the runtime on this socket pulls for no platform but its own")]
    NoPlatforms,
}

/// One after the other; one that fails is told of, and the next has its turn.
pub async fn run(socket: &Path, references: &[String], platform: Option<&Platform>) -> Result<(), Failure> {
    let channel = connect::unix(socket);
    if let [only] = references {
        return pull(&channel, only, platform).await;
    }
    let mut failed = 0;
    for reference in references {
        if let Err(error) = pull(&channel, reference, platform).await {
            eprintln!("gantry: {reference}: {}", gantry_env::chain(error.as_ref()));
            failed += 1;
        }
    }
    let all = references.len();
    if failed == 0 { Ok(()) } else { Err(PullError::Some { failed, all }.into()) }
}

async fn pull(channel: &Channel, reference: &str, platform: Option<&Platform>) -> Result<(), Failure> {
    let platform = platform.map(ToString::to_string).unwrap_or_default();
    eprintln!("pulling {}", [reference, &platform].join(" ").trim_end());
    let request = PullRequest { image: reference.to_owned(), platform: platform.clone() };
    let mut messages = match ArchivesClient::new(channel.clone()).pull(request).await {
        Ok(messages) => messages.into_inner(),
        Err(status) if status.code() == Code::Unimplemented && !platform.is_empty() => {
            return Err(PullError::NoPlatforms.into());
        }
        // A runtime that does not tell how far it is.
        Err(status) if status.code() == Code::Unimplemented => return plain(channel, reference).await,
        Err(status) => return Err(status.into()),
    };
    let mut shown = Shown::default();
    while let Some(message) = messages.message().await? {
        match message.part {
            Some(Part::Progress(progress)) => shown.show(&progress.layers),
            Some(Part::ImageRef(image)) => {
                println!("{image}");
                return Ok(());
            }
            None => {}
        }
    }
    Err(PullError::Cut(reference.to_owned()).into())
}

async fn plain(channel: &Channel, reference: &str) -> Result<(), Failure> {
    let image = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(image), ..PullImageRequest::default() };
    println!("{}", ImageServiceClient::new(channel.clone()).pull_image(request).await?.into_inner().image_ref);
    Ok(())
}

/// What was shown of the layers, by their place.
#[derive(Default)]
struct Shown {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    lines: Vec<bool>,
}

impl Shown {
    fn show(&mut self, layers: &[LayerProgress]) {
        if self.all.is_hidden() {
            for line in lines(&mut self.lines, layers) {
                eprintln!("{line}");
            }
            return;
        }
        for (at, layer) in layers.iter().enumerate() {
            if at == self.bars.len() {
                self.bars.push(self.all.add(bar(short(&layer.digest, DIGITS), layer.size)));
            }
            let bar = &self.bars[at];
            bar.set_position(layer.done);
            if layer.finished && !bar.is_finished() {
                bar.finish_with_message("done");
            } else if layer.done == layer.size && !layer.finished {
                bar.set_message("unpacking");
            }
        }
    }
}

/// A line for each layer that is finished and was not told of.
fn lines(told: &mut Vec<bool>, layers: &[LayerProgress]) -> Vec<String> {
    told.resize(layers.len(), false);
    let mut lines = Vec::new();
    for (layer, told) in layers.iter().zip(told.iter_mut()) {
        if layer.finished && !std::mem::replace(told, true) {
            lines.push(format!("layer {} ({}) is here", short(&layer.digest, DIGITS), human(layer.size)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_is_told_of_once() {
        let layer = |digest: &str, finished| LayerProgress { digest: digest.into(), size: 2048, done: 0, finished };
        let mut told = Vec::new();
        assert!(lines(&mut told, &[]).is_empty());
        assert!(lines(&mut told, &[layer("sha256:aa", false), layer("sha256:bb", false)]).is_empty());
        let first = lines(&mut told, &[layer("sha256:aa", false), layer("sha256:bb", true)]);
        assert_eq!(first, ["layer bb (2.0 KiB) is here"]);
        let second = lines(&mut told, &[layer("sha256:aa", true), layer("sha256:bb", true)]);
        assert_eq!(second, ["layer aa (2.0 KiB) is here"]);
    }
}
