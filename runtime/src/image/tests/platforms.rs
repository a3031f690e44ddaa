//! Images for other platforms than this machine's: chosen, kept apart, and given on.

use serde_json::json;

use super::super::fixture::descriptor;
use super::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn platform(text: &str) -> Option<Platform> {
    Some(text.parse().unwrap())
}

/// One that this machine is not.
fn foreign() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64/v8" }
}

/// An image that says what it is for, with a file of that name.
fn made_for(text: &str) -> Made {
    let layer = Tar::default().file(&text.replace('/', "-"), b"x").end();
    let made = image(&[layer], gzip);
    let mut config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
    let mut words = text.split('/');
    (config["os"], config["architecture"]) = (words.next().into(), words.next().into());
    config["variant"] = words.next().into();
    with_config(&made, &config)
}

fn with_config(made: &Made, config: &serde_json::Value) -> Made {
    let config = config.to_string().into_bytes();
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &config);
    Made { manifest: manifest.to_string().into_bytes(), config, layers: made.layers.clone() }
}

fn entry(made: &Made, text: &str) -> serde_json::Value {
    let mut words = text.split('/');
    let mut entry = descriptor(MANIFEST, &made.manifest);
    entry["platform"] = json!({"os": words.next(), "architecture": words.next(), "variant": words.next()});
    entry
}

/// Puts an index of these under a tag; its digest is the answer.
fn put_index(server: &Server, tag: &str, entries: &[serde_json::Value]) -> Digest {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let reply = Reply::new(200, index.as_bytes()).header("content-type", INDEX);
    let digest = Digest::of(index.as_bytes());
    server.put(&format!("/v2/a/manifests/{tag}"), reply.clone());
    server.put(&format!("/v2/a/manifests/{digest}"), reply);
    digest
}

#[tokio::test]
async fn an_image_for_another_platform_is_kept_beside_this_machines() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let host = Platform::host().to_string();
    let (own, other, old) = (made_for(&host), made_for(foreign()), made_for("linux/arm/v6"));
    for made in [&own, &other, &old] {
        server.add("a", "unused", made);
    }
    let top = put_index(&server, "1", &[entry(&own, &host), entry(&other, foreign()), entry(&old, "linux/arm/v6")]);
    let name = server.reference("a:1");
    let pull = async |text: &str| images.pull(&name, &Auth::Anonymous, platform(text)).await;
    let brought = pull(foreign()).await.unwrap();
    assert_eq!((brought.id(), brought.repo_tags().len()), (&other.id(), 0));
    assert_eq!(brought.repo_digests(), [server.reference(&format!("a@{}", other.digest()))]);
    assert_eq!(brought.platform(), platform(foreign()));
    // Nobody who means this machine's gets it, and by its manifest or its id anybody does.
    assert!(images.resolve(&name).is_none() && images.resolve(&server.reference(&format!("a@{top}"))).is_none());
    assert_eq!(images.resolve(&brought.repo_digests()[0]).unwrap().id(), &other.id());
    assert_eq!(images.resolve(brought.id().as_str()).unwrap().id(), &other.id());

    assert_eq!(images.pull(&name, &Auth::Anonymous, None).await.unwrap().id(), &own.id());
    assert_eq!(pull(&host).await.unwrap().repo_tags(), std::slice::from_ref(&name), "asked for by its words");
    let newer = pull("linux/arm/v7").await.unwrap();
    assert_eq!((newer.id(), newer.for_platforms()[0].platform.to_string()), (&old.id(), "linux/arm/v6".to_owned()));
    assert_eq!(images.resolve(&name).unwrap().id(), &own.id());
    assert_eq!((images.list().len(), layers_on_disk(state.path())), (3, 3));
    // By the index's digest too.
    let by_digest = server.reference(&format!("a@{top}"));
    let by_digest = images.pull(&by_digest, &Auth::Anonymous, platform(foreign())).await.unwrap();
    assert_eq!(by_digest.for_platforms().len(), 2);

    // A restart knows all of it.
    drop(images);
    let images = open(state.path()).await;
    assert_eq!(images.resolve(&name).unwrap().id(), &own.id());
    let known = images.resolve(other.id().as_str()).unwrap();
    assert_eq!((known.for_platforms()[0].name.as_str(), known.platform()), (name.as_str(), platform(foreign())));
    // An id is one image, a name is those of all platforms.
    assert!(images.remove(old.id().as_str()).await.unwrap());
    assert_eq!(images.list().len(), 2);
    assert!(images.remove(&name).await.unwrap() && !images.remove(&name).await.unwrap());
    assert_eq!((images.list().len(), layers_on_disk(state.path())), (0, 0));
}

#[tokio::test]
async fn a_platform_that_is_not_to_be_had_is_told_of() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = made_for(foreign());
    server.add("a", "alone", &made);
    put_index(&server, "1", &[entry(&made, "linux/s390x"), entry(&made, "linux/arm/v7")]);
    put_index(&server, "unnamed", &[descriptor(MANIFEST, &made.manifest)]);
    let mut silent: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
    (silent["os"], silent["architecture"]) = (serde_json::Value::Null, "".into());
    server.add("a", "silent", &with_config(&made, &silent));
    for (tag, wanted, offered) in [
        ("1", "linux/riscv64", "linux/s390x, linux/arm/v7"),
        ("1", "linux/arm/v6", "linux/s390x, linux/arm/v7"),
        ("1", "windows/s390x", "linux/s390x, linux/arm/v7"),
        // Where no index names a platform, the image itself does.
        ("alone", "linux/riscv64", foreign()),
        ("unnamed", "linux/riscv64", foreign()),
        ("silent", "linux/riscv64", "no platform that it names"),
    ] {
        let name = server.reference(&format!("a:{tag}"));
        let error = images.pull(&name, &Auth::Anonymous, platform(wanted)).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let said = error.status().message().to_owned();
        assert!(said.contains(&format!("{name:?}")), "{said}");
        assert!(said.contains(&format!("no image for platform {wanted}, only for {offered}")), "{said}");
    }
    assert_eq!((images.list().len(), layers_on_disk(state.path())), (0, 0));
    for tag in ["alone", "unnamed"] {
        let name = server.reference(&format!("a:{tag}"));
        let pulled = images.pull(&name, &Auth::Anonymous, platform(foreign())).await.unwrap();
        assert!(pulled.for_platforms().iter().any(|known| known.name == name), "{tag}");
        assert!(images.resolve(&name).is_none(), "{tag}");
    }
}

#[tokio::test]
async fn an_image_for_another_platform_goes_out_and_comes_in() {
    let (state, again, server) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Server::start().await);
    let (images, others) = (open(state.path()).await, open(again.path()).await);
    let host = Platform::host().to_string();
    let (own, other) = (made_for(&host), made_for(foreign()));
    for made in [&own, &other] {
        server.add("a", "unused", made);
    }
    put_index(&server, "1", &[entry(&own, &host), entry(&other, foreign())]);
    let name = server.reference("a:1");
    let names = [name.clone()];
    let id = async |wanted: Option<Platform>| images.export(&names, wanted).await.map(|out| out.images[0].id.clone());
    assert_eq!(id(None).await.unwrap_err().code(), Code::NotFound);
    images.pull(&name, &Auth::Anonymous, platform(foreign())).await.unwrap();
    assert_eq!(id(None).await.unwrap(), other.id(), "the only one");
    images.pull(&name, &Auth::Anonymous, None).await.unwrap();
    assert_eq!(id(None).await.unwrap(), own.id());
    assert_eq!(id(platform(&host)).await.unwrap(), own.id());
    let error = id(platform("linux/s390x")).await.unwrap_err();
    let words = format!("{name:?} is here for {host}, {}, not for linux/s390x", foreign());
    assert!(error.code() == Code::NotFound && error.to_string().contains(&words), "{error}");

    let export = images.export(&names, platform(foreign())).await.unwrap();
    let exported = Exported { id: other.id(), tags: vec![name.clone()], manifest: other.digest(), came_by: None };
    assert_eq!(export.images, [exported]);
    let mut bytes = Vec::new();
    export.write(&mut bytes).unwrap();
    // It is no image of this machine's, and does not become one.
    let error = import(&others, bytes.clone()).await.unwrap_err();
    let words = format!("no image for platform {host}, only for {}", foreign());
    assert!(error.status().message().contains(&words), "{}", error.status().message());
    let take = async |bytes: Vec<u8>, text: &str| {
        let options = ImportOptions { platform: platform(text), ..ImportOptions::default() };
        others.import(std::io::Cursor::new(bytes), options).await
    };
    let taken = take(bytes.clone(), foreign()).await.unwrap().remove(0);
    assert_eq!((taken.id(), taken.repo_tags().len()), (&other.id(), 0));
    assert_eq!((taken.for_platforms()[0].name.as_str(), taken.platform()), (name.as_str(), platform(foreign())));
    assert!(others.resolve(&name).is_none());
    assert!(take(bytes, "linux/s390x").await.is_err());
    // Docker's archives name no platform but in the image.
    let docker = other.docker_archive("b:1");
    let taken = take(docker.clone(), foreign()).await.unwrap().remove(0);
    assert!(taken.for_platforms().iter().any(|known| known.name == "docker.io/library/b:1"));
    let error = take(docker, "linux/s390x").await.unwrap_err().status();
    assert!(error.message().contains(&format!("only for {}", foreign())), "{error}");

    // What else an archive holds is left out, also where no index says what it is for.
    let third = made_for("linux/s390x");
    let mut both = Tar::default();
    let mut entries = Vec::new();
    for (at, made) in [&other, &third].into_iter().enumerate() {
        both = both.file(&format!("{at}.json"), &made.config).file(&format!("{at}.tar"), &made.layers[0]);
        let (config, layer) = (format!("{at}.json"), format!("{at}.tar"));
        entries.push(json!({"Config": config, "RepoTags": ["c:1"], "Layers": [layer]}));
    }
    let both = both.file("manifest.json", json!(entries).to_string().as_bytes()).end();
    let taken = take(both, "linux/s390x").await.unwrap();
    assert_eq!(taken.iter().map(|image| image.id().clone()).collect::<Vec<_>>(), [third.id()]);

    // Two of one name, and none of them this machine's.
    images.remove(own.id().as_str()).await.unwrap();
    server.add("a", "unused", &third);
    put_index(&server, "1", &[entry(&third, "linux/s390x")]);
    images.pull(&name, &Auth::Anonymous, platform("linux/s390x")).await.unwrap();
    let error = id(None).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.to_string().contains("linux/s390x"), "{error}");
    assert_eq!(id(platform("linux/s390x")).await.unwrap(), third.id());
}
