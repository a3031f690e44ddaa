use std::collections::HashMap;

use gantry_cri::v1;

use super::image_list::describe;
use crate::node::Node;

/// An image that is not here is no error: the answer names none.
pub fn run(node: &Node, request: &v1::ImageStatusRequest) -> v1::ImageStatusResponse {
    let wanted = request.image.as_ref().map_or("", |spec| spec.image.as_str());
    let Some(image) = node.images.resolve(wanted) else {
        return v1::ImageStatusResponse::default();
    };
    let mut info = HashMap::new();
    if request.verbose {
        let layers: Vec<&str> = image.layers().iter().map(|chain| chain.as_str()).collect();
        let config = image.config();
        let text = serde_json::json!({
            "chainIDs": layers,
            "platform": image.platform().map(|platform| platform.to_string()),
            "created": config.created,
            "config": config.run,
        });
        info.insert("info".to_owned(), text.to_string());
    }
    v1::ImageStatusResponse { image: Some(describe(&image)), info }
}
