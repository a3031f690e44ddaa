use super::*;

#[tokio::test]
async fn both_kinds_of_archives_are_imported() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let layout = import(&images, made.archive("localhost/a:oci")).await.unwrap().remove(0);
    assert_eq!((layout.id(), layout.repo_tags()), (&made.id(), ["localhost/a:oci".to_owned()].as_slice()));
    assert_eq!(layout.repo_digests(), [format!("localhost/a@{}", made.digest())]);
    let docker = image(&two_layers(), <[u8]>::to_vec);
    let docker = import(&images, docker.docker_archive("a:docker")).await.unwrap().remove(0);
    assert_eq!(docker.repo_tags(), ["localhost/a:oci", "docker.io/library/a:docker"]);
    assert_eq!(docker.run().user, "1:2");
    let compressed = import(&images, gzip(&made.archive("localhost/a:gz"))).await.unwrap().remove(0);
    assert!(compressed.repo_tags().contains(&"localhost/a:gz".to_owned()));
    assert_eq!(ingests(state.path()), 0);
}

#[tokio::test]
async fn one_image_can_be_chosen_and_named() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let bytes = image(&two_layers(), gzip).archive("localhost/a:1");
    let wanted = |only: &str| ImportOptions { only: Some(only.into()), ..ImportOptions::default() };
    let error = images.import(std::io::Cursor::new(bytes.clone()), wanted("b")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.status().message().contains("localhost/a:1"), "{}", error.status().message());
    images.import(std::io::Cursor::new(bytes.clone()), wanted("localhost/a:1")).await.unwrap();
    let options = ImportOptions { name: Some("demo".into()), pinned: true, ..ImportOptions::default() };
    images.import(std::io::Cursor::new(bytes), options).await.unwrap();
    let named = images.resolve("demo").unwrap();
    assert!(named.pinned() && named.repo_tags().len() == 2);
    assert_eq!(images.remove("demo").await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_lying_archive_is_refused_whole() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let honest = image(&two_layers(), gzip);
    let mut other_layer = honest.clone();
    other_layer.layers[1] = gzip(&Tar::default().file("evil", b"x").end());
    let mut wrong_diff_id = honest.clone();
    wrong_diff_id.config = String::from_utf8(honest.config.clone())
        .unwrap()
        .replace(Digest::of(&two_layers()[1]).as_str(), Digest::of(b"another").as_str())
        .into_bytes();
    wrong_diff_id.manifest = String::from_utf8(honest.manifest.clone())
        .unwrap()
        .replace(honest.id().as_str(), wrong_diff_id.id().as_str())
        .replace(&honest.config.len().to_string(), &wrong_diff_id.config.len().to_string())
        .into_bytes();
    let not_whole = {
        let bytes = honest.archive("localhost/a:1");
        bytes[..bytes.len() / 2].to_vec()
    };
    let neither = Tar::default().file("x", b"").end();
    for (what, bytes, words) in [
        ("another layer", other_layer.archive("localhost/a:1"), "holds no"),
        ("another diffID", wrong_diff_id.archive("localhost/a:1"), "diffID is"),
        ("half", not_whole, "ends in the middle"),
        ("neither", neither, "neither"),
        ("nothing", Vec::new(), "neither"),
        ("noise", b"\x1f\x8bnoise".to_vec(), "archive"),
    ] {
        let error = import(&images, bytes).await.unwrap_err();
        let message = error.status().message().to_owned();
        assert!(message.contains(words), "{what}: {message}");
        assert_eq!((ingests(state.path()), layers_on_disk(state.path()), images.list().len()), (0, 0, 0), "{what}");
    }
}
