//! `gantry image prune`: what becomes of the images of a node, by the plan that its agent goes by.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use gantry_agent::eviction::images::report::{Disk, Fate, Report};
use gantry_agent::shutdown::wire::{Images, LINE_MAX_BYTES, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{human, short};
use crate::Failure;

#[derive(Debug, thiserror::Error)]
enum PruneError {
    #[error("no agent runs on this machine (nobody listens on {path}): `gantry image rm` removes images by their names", path = .0.display())]
    NoAgent(PathBuf),
    #[error("the agent cannot be spoken with")]
    Speak(#[source] io::Error),
    #[error("the agent went away, or is of a version that knows nothing of this")]
    Gone,
    #[error("the runtime does not tell of its images")]
    Silent,
    #[error("these images are here still: {0}")]
    Left(String),
}

pub async fn run(socket: &Path, dry_run: bool) -> Result<(), Failure> {
    let report = ask(socket, !dry_run).await?;
    for line in lines(&report, dry_run) {
        println!("{line}");
    }
    if report.failed.is_empty() { Ok(()) } else { Err(PruneError::Left(report.failed.join(", ")).into()) }
}

async fn ask(socket: &Path, remove: bool) -> Result<Report, PruneError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => PruneError::NoAgent(socket.to_owned()),
        _ => PruneError::Speak(error),
    })?;
    let answer = async {
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(&Request::Images { remove })?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(reader.take(LINE_MAX_BYTES)).read_line(&mut answer).await?;
        Ok::<String, io::Error>(answer)
    };
    let answer = answer.await.map_err(PruneError::Speak)?;
    if answer.is_empty() {
        return Err(PruneError::Gone);
    }
    let Images(report) = serde_json::from_str(&answer).map_err(|error| PruneError::Speak(error.into()))?;
    report.ok_or(PruneError::Silent)
}

/// What is told of a report.
fn lines(report: &Report, dry_run: bool) -> Vec<String> {
    let (goes, went) = if dry_run { ("would go", "would be freed") } else { ("gone", "freed") };
    let mut lines = vec![format!("{:<48} {:<14} {:>10}  {}", "IMAGE", "ID", "SIZE", "VERDICT")];
    let mut freed = 0_u64;
    for image in &report.images {
        let name = image.names.first().map_or("<none>", String::as_str);
        let verdict = match &image.fate {
            Fate::Goes if report.failed.contains(&image.id) => "could not be removed".to_owned(),
            Fate::Goes => {
                freed = freed.saturating_add(image.bytes);
                format!(
                    "{goes}{}",
                    if image.by_itself && dry_run { ", by itself too: the disk is too full" } else { "" }
                )
            }
            Fate::Used { by } => format!("kept: used by {}", by.join("; ")),
            Fate::Pinned => "kept: pinned".to_owned(),
            Fate::Young { seconds } => format!("kept: here for too short a time, for {seconds} s yet"),
            Fate::Enough => "kept: there is room enough".to_owned(),
        };
        lines.push(format!("{name:<48} {:<14} {:>10}  {verdict}", short(&image.id, 12), human(image.bytes)));
    }
    lines.push(format!("{went}: {} of layers as they came; layers that other images have stay", human(freed)));
    lines.extend(report.disk.as_ref().map(marks));
    lines
}

fn marks(disk: &Disk) -> String {
    let Disk { used_percent: used, high_percent: high, low_percent: low, wanted_bytes } = disk;
    match wanted_bytes {
        None if *high >= 100 => format!("the images' disk is {used} % full; by itself this node removes none"),
        None => format!("the images' disk is {used} % full: from {high} % on this node removes images by itself"),
        Some(bytes) => {
            format!(
                "the images' disk is {used} % full: this node removes images until {} more are free ({low} %)",
                human(*bytes)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_agent::eviction::images::report::Verdict;

    #[test]
    fn each_image_is_told_of_with_its_reason() {
        let image = |id: &str, fate| Verdict {
            id: format!("sha256:{id}"),
            names: vec![format!("localhost/{id}:1")],
            bytes: 2 << 20,
            by_itself: fate == Fate::Goes,
            fate,
        };
        let disk = Disk { used_percent: 90, high_percent: 85, low_percent: 80, wanted_bytes: Some(1 << 20) };
        let by = vec!["container c of pod default/p".to_owned()];
        let mut report = Report {
            images: vec![image("a", Fate::Goes), image("b", Fate::Used { by }), image("c", Fate::Young { seconds: 7 })],
            disk: Some(disk),
            failed: Vec::new(),
        };
        let told = lines(&report, true);
        for (line, words) in told[1..].iter().zip([
            "would go, by itself too",
            "kept: used by container c of pod default/p",
            "for 7 s yet",
            "would be freed: 2.0 MiB",
            "90 % full: this node removes images until 1.0 MiB more",
        ]) {
            assert!(line.contains(words), "{line}");
        }
        report.failed = vec!["sha256:a".to_owned()];
        let told = lines(&report, false);
        assert!(told[1].contains("could not be removed") && told[4].starts_with("freed: 0 B"), "{told:#?}");
    }
}
