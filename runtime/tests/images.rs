//! Images over CRI: what an answer names is what the next request finds.

mod ground;

use gantry_cri::v1;
use ground::{Client, with};

async fn tags(client: &Client) -> Vec<String> {
    let listed = client.images.clone().list_images(v1::ListImagesRequest::default()).await.expect("a list");
    let mut tags: Vec<String> = listed.into_inner().images.into_iter().flat_map(|image| image.repo_tags).collect();
    tags.sort();
    tags
}

async fn remove(client: &Client, name: &str) {
    let image = v1::ImageSpec { image: name.into(), ..v1::ImageSpec::default() };
    client.images.clone().remove_image(v1::RemoveImageRequest { image: Some(image) }).await.expect("it goes");
}

#[test]
fn an_image_that_is_removed_by_one_tag_has_none_left() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let layer = ground::busybox_tar().finish();
        // The same image three times, twice in one repository and once in another registry's.
        let names = ["test.invalid/one:a", "test.invalid/one:b", "other.invalid/deep/two:a"];
        for name in names {
            ground::import_layer(&runtime, name, layer.clone()).await;
        }
        let mut other = ground::busybox_tar();
        ground::file(&mut other, "other", b"", 0o644);
        ground::import_layer(&runtime, "test.invalid/one:other", other.finish()).await;
        let listed = tags(&client).await;
        assert!(names.iter().all(|name| listed.contains(&(*name).to_owned())), "{listed:?}");
        remove(&client, "test.invalid/one:b").await;
        assert_eq!(tags(&client).await, ["test.invalid/one:other"], "another image stays");
        remove(&client, "test.invalid/one:b").await;
        remove(&client, "other.invalid/deep/two:a").await;
        let image = v1::ImageSpec { image: names[2].into(), ..v1::ImageSpec::default() };
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        assert_eq!(client.images.clone().image_status(request).await.unwrap().into_inner().image, None);
        ground::finish(runtime).await;
    });
}
