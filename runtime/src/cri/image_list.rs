use gantry_cri::v1;

use crate::image::Image;
use crate::node::Node;

pub fn run(node: &Node, request: &v1::ListImagesRequest) -> v1::ListImagesResponse {
    let wanted = request.filter.as_ref().and_then(|f| f.image.as_ref()).map_or("", |i| i.image.as_str());
    let images = if wanted.is_empty() { node.images.list() } else { node.images.resolve(wanted).into_iter().collect() };
    v1::ListImagesResponse { images: images.iter().map(|i| of(i)).collect() }
}

/// An image as CRI shows it.
pub fn of(image: &Image) -> v1::Image {
    let user = image.run().user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    v1::Image {
        id: image.id().to_string(),
        repo_tags: image.repo_tags().to_vec(),
        repo_digests: image.repo_digests().to_vec(),
        size: image.size(),
        uid: uid.map(|value| v1::Int64Value { value }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: image.pinned(),
    }
}
