use gantry_cri::v1;

use crate::node::Node;

/// No such image is an empty answer, not an error.
pub fn run(node: &Node, request: &v1::ImageStatusRequest) -> v1::ImageStatusResponse {
    let wanted = request.image.as_ref().map_or("", |i| i.image.as_str());
    let image = node.images.resolve(wanted).map(|image| super::image_list::of(&image));
    v1::ImageStatusResponse { image, info: Default::default() }
}
