//! Images over CRI: what an answer names is what the next request finds.

mod ground;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use gantry_cri::archives::{ExportRequest, PullRequest, export_response, pull_response};
use gantry_cri::{ArchivesClient, v1};
use ground::{Client, with};
use serde_json::json;
use sha2::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

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

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", sha2::Sha256::digest(bytes))
}

/// A registry of these answers, by path.
async fn registry(answers: BTreeMap<String, Vec<u8>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers = Arc::new(answers);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    asked.push(byte);
                }
                let asked = String::from_utf8_lossy(&asked).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or_default();
                let (status, body) = answers.get(path).map_or(("404 Not Found", &[][..]), |body| ("200 OK", body));
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
            });
        }
    });
    address
}

#[test]
fn a_pull_is_watched_and_what_came_goes_out_again() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut layer = ground::busybox_tar();
        ground::file(&mut layer, "own", b"x", 0o644);
        let layer = layer.finish();
        let config =
            json!({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"diff_ids": [digest(&layer)]}});
        let config = config.to_string().into_bytes();
        let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", &config), "layers": [blob("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let at = |blob: &[u8]| format!("/v2/a/blobs/{}", digest(blob));
        let address = registry(BTreeMap::from([
            ("/v2/a/manifests/1".to_owned(), manifest.clone()),
            (at(&config), config.clone()),
            (at(&layer), layer.clone()),
        ]))
        .await;
        let mut archives = ArchivesClient::new(runtime.channel());
        let name = format!("{address}/a:1");
        let mut messages = archives.pull(PullRequest { image: name.clone() }).await.expect("a stream").into_inner();
        let (mut last, mut image) = (None, String::new());
        while let Some(message) = messages.message().await.expect("it is pulled") {
            match message.part.expect("a part") {
                pull_response::Part::Progress(progress) => last = Some(progress),
                pull_response::Part::ImageRef(id) => image = id,
            }
        }
        assert_eq!(image, digest(&config));
        let layers = last.expect("it told").layers;
        let told = layers.iter().map(|l| (l.digest.clone(), l.size, l.done, l.finished)).collect::<Vec<_>>();
        assert_eq!(told, [(digest(&layer), layer.len() as u64, layer.len() as u64, true)]);

        let request = ExportRequest { images: vec![name.clone()] };
        let mut parts = archives.export(request).await.expect("a stream").into_inner();
        let (mut exported, mut bytes) = (Vec::new(), Vec::new());
        while let Some(part) = parts.message().await.expect("it is exported") {
            match part.part.expect("a part") {
                export_response::Part::Images(images) => exported = images.images,
                export_response::Part::Data(data) => bytes.extend(data),
            }
        }
        assert_eq!((exported[0].manifest.clone(), exported[0].came_by.as_str()), (digest(&manifest), ""));
        remove(&client, &name).await;
        assert!(!tags(&client).await.contains(&name));
        runtime.images().import(std::io::Cursor::new(bytes), Default::default()).await.expect("it imports");
        assert!(tags(&client).await.contains(&name));

        // Errors are those of PullImage, and of nobody's image.
        let mut messages =
            archives.pull(PullRequest { image: format!("{address}/none:1") }).await.expect("a stream").into_inner();
        let error = loop {
            if let Err(error) = messages.message().await {
                break error;
            }
        };
        assert_eq!(error.code(), Code::NotFound, "{error}");
        for (images, code) in [(vec![], Code::InvalidArgument), (vec!["none".to_owned()], Code::NotFound)] {
            assert_eq!(archives.export(ExportRequest { images }).await.expect_err("refused").code(), code);
        }
        ground::finish(runtime).await;
    });
}
