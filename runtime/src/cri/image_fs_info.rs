use gantry_cri::v1;

use crate::image::Usage;
use crate::node::{Node, NodeError};

pub async fn run(node: &Node) -> Result<v1::ImageFsInfoResponse, NodeError> {
    let info = node.images.fs_info().await?;
    let mountpoint = info.mountpoint.to_string_lossy().into_owned();
    let timestamp = node.now_ns();
    let usage = |used: &Usage| v1::FilesystemUsage {
        timestamp,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.clone() }),
        used_bytes: Some(v1::UInt64Value { value: used.bytes }),
        inodes_used: Some(v1::UInt64Value { value: used.inodes }),
    };
    Ok(v1::ImageFsInfoResponse {
        image_filesystems: vec![usage(&info.images)],
        container_filesystems: vec![usage(&info.containers)],
    })
}
