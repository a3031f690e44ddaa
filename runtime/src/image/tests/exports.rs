//! What goes out comes in again, byte for byte.

use super::*;

async fn archive(images: &Images, names: &[&str]) -> Result<(Vec<Exported>, Vec<u8>), ImageError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let export = images.export(&names, None).await?;
    let mut bytes = Vec::new();
    export.write(&mut bytes)?;
    Ok((export.images.clone(), bytes))
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).unwrap()
}

#[tokio::test]
async fn an_image_comes_back_under_the_digests_that_it_went_by() {
    let (state, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    type Compress = fn(&[u8]) -> Vec<u8>;
    let (images, others) = (open(state.path()).await, open(again.path()).await);
    let stores: [Compress; 3] = [gzip, zstd, <[u8]>::to_vec];
    for (at, store) in stores.into_iter().enumerate() {
        // Layers of their own, so that none is shared.
        let mut layers = two_layers();
        layers[0] = [Tar::default().file(&format!("own{at}"), b"").0, layers[0].clone()].concat();
        let made = image(&layers, store);
        let name = format!("localhost/a:{at}");
        import(&images, made.archive(&name)).await.unwrap();
        let (exported, bytes) = archive(&images, &[&name]).await.unwrap();
        let expected = Exported { id: made.id(), tags: vec![name.clone()], manifest: made.digest(), came_by: None };
        assert_eq!(exported, [expected]);
        assert_eq!(archive(&images, &[made.id().as_str()]).await.unwrap().1, bytes, "the same again, by another name");
        let back = import(&others, bytes).await.unwrap().remove(0);
        assert_eq!((back.id(), back.repo_tags()), (&made.id(), [name].as_slice()));
        assert_eq!(back.repo_digests(), [format!("localhost/a@{}", made.digest())]);
        let kept = |chain: &Digest| fs::read(others.store.snapshots.blob(chain).unwrap().1).unwrap();
        assert_eq!(back.layers().iter().map(kept).collect::<Vec<_>>(), made.layers);
    }
    // All of them at once, and nothing twice.
    let (exported, bytes) =
        archive(&images, &["localhost/a:0", "localhost/a:1", "localhost/a:2", "localhost/a:0"]).await.unwrap();
    assert_eq!(exported.len(), 3);
    let all = tempfile::tempdir().unwrap();
    assert_eq!(import(&open(all.path()).await, bytes).await.unwrap().len(), 3);
}

#[tokio::test]
async fn names_go_as_they_are_asked_for() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    for name in ["localhost/a:1", "localhost/b:2"] {
        import(&images, made.archive(name)).await.unwrap();
    }
    let tags = async |name: &str| archive(&images, &[name]).await.unwrap().0[0].tags.clone();
    assert_eq!(tags("localhost/b:2").await, ["localhost/b:2"]);
    assert_eq!(tags(made.id().as_str()).await, ["localhost/a:1", "localhost/b:2"]);
    let error = archive(&images, &["localhost/c:3"]).await.err().unwrap();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn a_layer_that_came_otherwise_makes_another_manifest_of_the_same_image() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let (first, second) = (image(&two_layers()[..1], gzip), image(&two_layers(), zstd));
    import(&images, first.archive("localhost/a:1")).await.unwrap();
    import(&images, second.archive("localhost/a:2")).await.unwrap();
    let (exported, bytes) = archive(&images, &["localhost/a:2"]).await.unwrap();
    assert_eq!((&exported[0].id, exported[0].came_by.as_ref()), (&second.id(), Some(&second.digest())));
    assert_ne!(exported[0].manifest, second.digest());
    let again = tempfile::tempdir().unwrap();
    let back = import(&open(again.path()).await, bytes).await.unwrap().remove(0);
    assert_eq!(back.id(), &second.id());
    assert_eq!(back.repo_digests(), [format!("localhost/a@{}", exported[0].manifest)]);
}

#[tokio::test]
async fn what_was_not_kept_cannot_go_out() {
    let state = tempfile::tempdir().unwrap();
    let made = image(&two_layers(), gzip);
    let images = Images::open(Config { keeps_blobs: false, ..config(state.path()) }, Env::system()).await.unwrap();
    let kept = import(&images, made.archive("localhost/a:1")).await.unwrap().remove(0);
    assert!(kept.layers().iter().all(|chain| images.store.snapshots.blob(chain).is_none()));
    let error = archive(&images, &["localhost/a:1"]).await.err().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.status().message().contains("was not kept"), "{error}");
    drop(images);
    // A later start keeps what comes from then on.
    let images = open(state.path()).await;
    images.remove("localhost/a:1").await.unwrap();
    let kept = import(&images, made.archive("localhost/a:1")).await.unwrap().remove(0);
    archive(&images, &["localhost/a:1"]).await.unwrap();
    let path = images.store.snapshots.blob(&kept.layers()[1]).unwrap().1;
    let whole = fs::read(&path).unwrap();
    for damaged in [whole[..whole.len() - 1].to_vec(), [&whole[..whole.len() - 1], b"x"].concat()] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(archive(&images, &["localhost/a:1"]).await.err().unwrap().code(), Code::DataLoss);
    }
}

/// Whoever is being given an image keeps its layers here.
#[tokio::test]
async fn an_image_that_goes_out_outlives_its_removal() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    import(&images, image(&two_layers(), gzip).archive("localhost/a:1")).await.unwrap();
    let export = images.export(&["localhost/a:1".to_owned()], None).await.unwrap();
    images.remove("localhost/a:1").await.unwrap();
    let mut bytes = Vec::new();
    export.write(&mut bytes).unwrap();
    drop(export);
    assert_eq!(layers_on_disk(state.path()), 0);
    assert_eq!(import(&images, bytes).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_verifier_that_is_not_there_lets_nothing_in() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    let policy = Policy::of(Some("cosign"));
    let images = Images::open(Config { policy, ..config(state.path()) }, Env::system()).await.unwrap();
    let pulled = images.pull(&server.reference("a:1"), &Auth::Anonymous, None).await.unwrap_err();
    let imported = import(&images, made.archive("localhost/a:1")).await.unwrap_err();
    for error in [pulled, imported] {
        let status = error.status();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().starts_with("SignatureValidationFailed: "), "{status}");
        assert!(
            status.message().contains("\"cosign\"") && status.message().contains(made.digest().as_str()),
            "{status}"
        );
    }
    assert_eq!(server.asked(&server::blob_path("a", &made.layers[0])), 0);
    assert_eq!((layers_on_disk(state.path()), ingests(state.path()), images.list().len()), (0, 0, 0));
}

#[tokio::test]
async fn a_pull_says_how_far_it_is() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let big = Tar::default().file("big", &vec![7; 1 << 20]).end();
    let made = image(&[two_layers()[0].clone(), big], <[u8]>::to_vec);
    server.add("a", "1", &made);
    let path = server::blob_path("a", &made.layers[1]);
    // It stands still in the middle, for longer than it is waited for.
    server.script(&path, Reply::new(200, &made.layers[1]).cut(100_000, true));
    let progress: Arc<Progress> = Arc::default();
    assert!(progress.layers().is_empty());
    let pull = tokio::spawn({
        let (images, progress, reference) = (images.clone(), Arc::clone(&progress), server.reference("a:1"));
        async move { images.pull_watched(&reference, &Auth::Anonymous, None, &progress).await }
    });
    let half = loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let layers = progress.layers();
        if layers.get(1).is_some_and(|layer| layer.done == 100_000) && layers[0].finished {
            break layers;
        }
        assert!(!pull.is_finished(), "{layers:?}");
    };
    assert_eq!((half[1].size, half[1].finished), (made.layers[1].len() as u64, false));
    assert_eq!(half[1].digest, Digest::of(&made.layers[1]));
    pull.await.unwrap().unwrap();
    assert!(progress.layers().iter().all(|layer| layer.finished && layer.done == layer.size));
    // What is here already is done at once.
    let progress: Arc<Progress> = Arc::default();
    images.pull_watched(&server.reference("a:1"), &Auth::Anonymous, None, &progress).await.unwrap();
    assert!(progress.layers().iter().all(|layer| layer.finished && layer.done == layer.size));
}
