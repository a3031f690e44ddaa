use gantry_cri::v1;

use crate::node::{Node, NodeError};

pub async fn run(node: &Node, request: v1::RemoveImageRequest) -> Result<v1::RemoveImageResponse, NodeError> {
    let image = request.image.ok_or(NodeError::Missing("image"))?;
    node.images.remove(&image.image).await?;
    Ok(v1::RemoveImageResponse {})
}
