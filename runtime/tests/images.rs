//! Images over CRI: what an answer names is what the next request finds.

mod ground;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use gantry_cri::archives::{ExportRequest, PullRequest, export_response, pull_response};
use gantry_cri::{ArchivesClient, v1};
use ground::shelves::{INDEX, MANIFEST, Shelves, architecture, part};
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
        let mut messages = archives
            .pull(PullRequest { image: name.clone(), platform: String::new() })
            .await
            .expect("a stream")
            .into_inner();
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

        let request = ExportRequest { images: vec![name.clone()], platform: String::new() };
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
        let mut messages = archives
            .pull(PullRequest { image: format!("{address}/none:1"), ..PullRequest::default() })
            .await
            .expect("a stream")
            .into_inner();
        let error = loop {
            if let Err(error) = messages.message().await {
                break error;
            }
        };
        assert_eq!(error.code(), Code::NotFound, "{error}");
        for (images, code) in [(vec![], Code::InvalidArgument), (vec!["none".to_owned()], Code::NotFound)] {
            assert_eq!(
                archives
                    .export(ExportRequest { images, ..ExportRequest::default() })
                    .await
                    .expect_err("refused")
                    .code(),
                code
            );
        }
        ground::finish(runtime).await;
    });
}

/// A program of a machine that this one is not, as far as a kernel looks.
fn foreign_program() -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let mut elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], &2u16.to_le_bytes(), &machine.to_le_bytes()].concat();
    elf.extend_from_slice(&1u32.to_le_bytes());
    elf.resize(4096, 0);
    elf
}

async fn pulled(
    archives: &mut ArchivesClient<tonic::transport::Channel>,
    image: &str,
    platform: &str,
) -> Result<String, tonic::Status> {
    let request = PullRequest { image: image.into(), platform: platform.into() };
    let mut messages = archives.pull(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        if let Some(pull_response::Part::ImageRef(id)) = message.part {
            return Ok(id);
        }
    }
    panic!("it ended without an image");
}

#[test]
fn an_image_for_another_platform_is_kept_apart_and_the_kernel_says_whether_it_runs() {
    with(|ground| async move {
        let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
        let own_program = std::fs::read("/bin/busybox").expect("busybox-static");
        let mut shelves = Shelves::default();
        let mut entries = Vec::new();
        for (architecture, program) in [(architecture(), own_program), (other, foreign_program())] {
            let mut layer = ground::Tar::default();
            ground::folder(&mut layer, "bin", 0o755);
            ground::file(&mut layer, "bin/sleep", &program, 0o755);
            let run = json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000"]});
            let manifest = shelves.image("a", &[], architecture, &[layer.finish()], &run);
            let mut entry = part(MANIFEST, manifest.to_string().as_bytes());
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entries.push(entry);
        }
        shelves.document("a", &["1"], INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
        let name = format!("{}/a:1", shelves.serve().await);
        let (runtime, client) = ground.start().await;
        let mut archives = ArchivesClient::new(runtime.channel());
        for (platform, code, words) in [
            ("linux", Code::InvalidArgument, "\"linux\" is neither OS/ARCH nor OS/ARCH/VARIANT"),
            ("linux/riscv64", Code::NotFound, "no image for platform linux/riscv64, only for linux/"),
        ] {
            let error = pulled(&mut archives, &name, platform).await.expect_err("refused");
            assert!(error.code() == code && error.message().contains(words), "{error}");
        }
        let foreign = pulled(&mut archives, &name, &format!("linux/{other}")).await.expect("it is pulled");
        let status = async |name: &str| {
            let image = Some(v1::ImageSpec { image: name.into(), ..v1::ImageSpec::default() });
            let request = v1::ImageStatusRequest { image, verbose: false };
            client.images.clone().image_status(request).await.expect("an answer").into_inner().image
        };
        assert_eq!(status(&name).await, None, "who asks for it by name has it pulled for this machine");
        let image = status(&foreign).await.expect("it is here");
        assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (0, 1));
        let told = gantry_cri::for_platforms(&image);
        assert!(told[0].0 == name && told[0].1.starts_with(&format!("linux/{other}")), "{told:?}");
        let own = pulled(&mut archives, &name, "").await.expect("it is pulled");
        assert_eq!(status(&name).await.expect("it is here").id, own);
        assert_eq!(status(&image.repo_digests[0]).await.expect("it is here").id, foreign);

        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let of = |image: &str| {
            let mut container = ground.container(&image[7..15], &[]);
            container.image = Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() });
            container
        };
        client.started(&pod, of(&own), &config).await;
        let id = client.create(&pod, of(&foreign), &config).await.expect("it is made");
        let error = client.start(&id).await.expect_err("the kernel refuses it");
        let words = format!("the container's image is for linux/{other}");
        assert!(error.message().contains(&words) && error.message().contains("and this machine is linux/"), "{error}");
        assert!(error.message().contains("xec format error"), "{error}");
        let ended = client.status(&id).await;
        assert_eq!(ended.exit_code, 128);
        client.remove_pod(&pod).await;

        remove(&client, &name).await;
        assert_eq!((status(&own).await, status(&foreign).await), (None, None));
        ground::finish(runtime).await;
    });
}
