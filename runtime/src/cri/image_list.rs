use std::collections::HashMap;

use gantry_cri::{FOR_PLATFORMS, v1};

use crate::image::{ForPlatform, Image};
use crate::node::Node;

pub fn run(node: &Node, request: &v1::ListImagesRequest) -> v1::ListImagesResponse {
    v1::ListImagesResponse { images: filtered(node, request.filter.as_ref()) }
}

/// What the filter names, or all.
pub fn filtered(node: &Node, filter: Option<&v1::ImageFilter>) -> Vec<v1::Image> {
    let wanted = filter.and_then(|filter| filter.image.as_ref()).map_or("", |spec| spec.image.as_str());
    if wanted.is_empty() {
        return node.images.list().iter().map(|image| describe(image)).collect();
    }
    node.images.resolve(wanted).iter().map(|image| describe(image)).collect()
}

pub fn describe(image: &Image) -> v1::Image {
    let (uid, username) = user(&image.run().user);
    let mut annotations = HashMap::new();
    if !image.for_platforms().is_empty() {
        let told = |name: &ForPlatform| format!("{} {}", name.name, name.platform);
        let lines: Vec<String> = image.for_platforms().iter().map(told).collect();
        annotations.insert(FOR_PLATFORMS.to_owned(), lines.join("\n"));
    }
    v1::Image {
        id: image.id().to_string(),
        repo_tags: image.repo_tags().to_vec(),
        repo_digests: image.repo_digests().to_vec(),
        size: image.size(),
        uid: uid.map(|value| v1::Int64Value { value }),
        username,
        spec: Some(v1::ImageSpec { image: image.id().to_string(), annotations, ..v1::ImageSpec::default() }),
        pinned: image.pinned(),
    }
}

/// The image's user as a number or a name, its group left out: what runAsNonRoot is decided by.
fn user(user: &str) -> (Option<i64>, String) {
    let user = user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        assert_eq!(user("1000:1000"), (Some(1000), String::new()));
        assert_eq!(user("nobody:nogroup"), (None, "nobody".to_owned()));
        assert_eq!(user(""), (None, String::new()));
    }
}
