//! What containers left when they ended: their termination files, or for failed ones, where the spec says so, the log's end.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use gantry_kube::Object;

use super::cri::log_folder;
use super::seen::{Container, Seen, State};
use crate::files::open_regular;

const MAX_BYTES: u64 = 4096;

pub fn add(seen: &mut Seen, log_dir: &Path, pod: &Object) {
    for container in seen.containers.iter_mut().filter(|c| c.state == State::Exited && c.message.is_empty()) {
        let mut text = file(container);
        if text.is_empty() && container.termination_from_log && container.exit_code != 0 {
            let folder = log_dir.join(log_folder(pod)).join(&container.name);
            text = log_end(&folder.join(format!("{}.log", container.attempt)));
        }
        container.message = String::from_utf8_lossy(&text).into_owned();
    }
}

fn file(container: &Container) -> Vec<u8> {
    let mut text = Vec::new();
    if !container.termination_log.is_empty()
        && let Ok(file) = open_regular(Path::new(&container.termination_log))
    {
        let _ = file.take(MAX_BYTES).read_to_end(&mut text);
    }
    text
}

fn log_end(path: &Path) -> Vec<u8> {
    let Ok(mut file) = open_regular(path) else { return Vec::new() };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)));
    let mut raw = Vec::new();
    let _ = file.take(MAX_BYTES).read_to_end(&mut raw);
    crate::log::plain_text(&raw)
}
