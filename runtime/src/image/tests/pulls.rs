use serde_json::json;

use super::super::fixture::descriptor;
use super::server::blob_path;
use super::*;

async fn pull(images: &Images, server: &Server, name: &str) -> Result<Arc<Image>, ImageError> {
    images.pull(&server.reference(name), &Auth::Anonymous, None).await
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).unwrap()
}

#[tokio::test]
async fn pulls_by_tag_and_by_digest() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    for (name, made) in [
        ("g", image(&two_layers(), gzip)),
        ("z", image(&two_layers(), zstd)),
        ("p", image(&two_layers(), <[u8]>::to_vec)),
    ] {
        server.add(name, "1", &made);
        let pulled = pull(&images, &server, &format!("{name}:1")).await.unwrap();
        assert_eq!(pulled.id(), &made.id());
        assert!(pulled.repo_tags().contains(&server.reference(&format!("{name}:1"))));
        let digest = server.reference(&format!("{name}@{}", made.digest()));
        assert!(pulled.repo_digests().contains(&digest));
        assert_eq!(images.resolve(&digest).unwrap().id(), &made.id());
        let again = images.pull(&digest, &Auth::Anonymous, None).await.unwrap();
        assert_eq!(again.id(), pulled.id());
    }
    // All three are the same two layers.
    assert_eq!(layers_on_disk(state.path()), 2);
}

#[tokio::test]
async fn an_index_leads_to_the_platform() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("multi", "unused", &made);
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &made.manifest);
    entry["platform"] = json!({"os": "linux", "architecture": Platform::host().architecture});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    server.put(
        "/v2/multi/manifests/1",
        Reply::new(200, index.as_bytes()).header("content-type", "application/vnd.oci.image.index.v1+json"),
    );
    let pulled = pull(&images, &server, "multi:1").await.unwrap();
    // The index's digest is what a user pins.
    assert_eq!(pulled.repo_digests(), [server.reference(&format!("multi@{}", Digest::of(index.as_bytes())))]);
    let other = Platform { os: "linux".into(), architecture: "vax".into(), variant: None };
    let error = images.pull(&server.reference("multi:1"), &Auth::Anonymous, Some(other)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.status().message().contains("linux/vax"));
}

#[tokio::test]
async fn the_registrys_words_are_passed_on() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let error = pull(&images, &server, "none:1").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.status().message().contains("manifest unknown to this registry"), "{}", error.status().message());
    server.put("/v2/secret/manifests/1", Reply::new(403, br#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#));
    let error = pull(&images, &server, "secret:1").await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.status().message().contains("not for you"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = images.pull(&format!("{nobody}/a:1"), &Auth::Anonymous, None).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.status().message().contains("Connection refused"), "{}", error.status().message());
    let error = images.pull("Not A Name", &Auth::Anonymous, None).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_lying_registry_gets_nothing_onto_the_disk() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let layer = &made.layers[1];
    let evil = gzip(&Tar::default().file("evil", b"x").end());
    let mut flipped = layer.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = layer.clone();
    longer.push(0);
    for (what, lie) in [
        ("another layer", evil),
        ("one bit", flipped),
        ("one byte more", longer),
        ("one byte less", layer[..layer.len() - 1].to_vec()),
        ("nothing", Vec::new()),
    ] {
        server.add("a", "1", &made);
        server.put(&blob_path("a", layer), Reply::new(200, &lie));
        let error = pull(&images, &server, "a:1").await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{what}: {}", error.status().message());
        assert_eq!((images.list().len(), layers_on_disk(state.path()), ingests(state.path())), (0, 0, 0), "{what}");
    }
    // A manifest and a configuration under digests that are not theirs.
    server.add("a", "1", &made);
    let wrong = Digest::of(b"wrong");
    server.put(&format!("/v2/a/manifests/{wrong}"), Reply::new(200, &made.manifest));
    let error = pull(&images, &server, &format!("a@{wrong}")).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    server.put(&blob_path("a", &made.config), Reply::new(200, b"{}"));
    assert_eq!(pull(&images, &server, "a:1").await.unwrap_err().code(), Code::DataLoss);
    let endless = Reply::new(200, &vec![b' '; manifest::MANIFEST_MAX_BYTES as usize + 1]);
    server.put("/v2/a/manifests/1", endless);
    assert_eq!(pull(&images, &server, "a:1").await.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test]
async fn a_bomb_is_stopped() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let mut config = config(state.path());
    (config.limits.ratio_floor_bytes, config.limits.ratio_max) = (1 << 20, 50);
    let images = Images::open(config, Env::system()).await.unwrap();
    let bomb = image(&[Tar::default().file("zeros", &vec![0; 8 << 20]).end()], gzip);
    server.add("bomb", "1", &bomb);
    let error = pull(&images, &server, "bomb:1").await.unwrap_err();
    assert!(error.status().message().contains("times its size"), "{}", error.status().message());
    assert_eq!(ingests(state.path()), 0);
}

#[tokio::test]
async fn a_registry_in_trouble_is_asked_again() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    server.script("/v2/a/manifests/1", Reply::new(429, b"slow down").header("retry-after", "0"));
    server.script("/v2/a/manifests/1", Reply::new(503, b""));
    let path = blob_path("a", &made.layers[0]);
    let whole = Reply::new(200, &made.layers[0]).header("content-length", made.layers[0].len().to_string());
    // It breaks, it stands still, and then it knows no ranges.
    server.script(&path, whole.clone().cut(20, false));
    server.script(&path, whole.clone().cut(30, true));
    server.script(&path, whole.clone());
    pull(&images, &server, "a:1").await.unwrap();
    assert_eq!(server.asked("/v2/a/manifests/1"), 3);
    assert_eq!(server.asked(&path), 3);
    assert!(server.headers(&path).contains_key("range"));
    let down = Reply::new(500, b"on fire");
    server.put("/v2/a/manifests/2", down);
    let error = pull(&images, &server, "a:2").await.unwrap_err();
    assert_eq!((error.code(), server.asked("/v2/a/manifests/2")), (Code::Unavailable, 3));
    assert!(error.status().message().contains("on fire"));
}

#[tokio::test]
async fn a_transfer_is_taken_up_where_it_broke() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    let path = blob_path("a", &made.layers[0]);
    let whole = Reply::new(200, &made.layers[0]).header("content-length", made.layers[0].len().to_string());
    server.script(&path, whole.cut(50, false));
    pull(&images, &server, "a:1").await.unwrap();
    let range = server.headers(&path).get("range").unwrap().to_str().unwrap().to_owned();
    assert_eq!(range, "bytes=50-");
}

/// Nothing is asked for that has come: a registry would have no such range.
#[tokio::test]
async fn a_connection_that_breaks_behind_the_last_byte_has_brought_all() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    let path = blob_path("a", &made.layers[0]);
    server.script(&path, Reply::new(200, &made.layers[0]).cut(made.layers[0].len(), false));
    pull(&images, &server, "a:1").await.unwrap();
    assert_eq!(server.asked(&path), 1);
}

/// Whoever takes a transfer up may be another than who began it: the digest is that of all of it.
#[tokio::test]
async fn what_goes_on_otherwise_than_it_began_is_refused() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let layer = &made.layers[0];
    let path = blob_path("a", layer);
    let begin = Reply::new(200, layer).header("content-length", layer.len().to_string()).cut(50, false);
    let rest = |from: usize, content: Vec<u8>| {
        let range = format!("bytes {from}-{}/{}", layer.len() - 1, layer.len());
        Reply::new(206, &content).header("content-range", range)
    };
    for (what, reply, words) in [
        ("other bytes", rest(50, vec![0; layer.len() - 50]), "digest is"),
        ("another place", rest(40, layer[40..].to_vec()), "another range"),
        ("no place", Reply::new(206, &layer[50..]), "another range"),
        ("more", rest(50, [&layer[50..], b"x"].concat()), "more than the"),
        ("no such range", Reply::new(416, b""), "another range"),
    ] {
        server.add("a", "1", &made);
        server.script(&path, begin.clone());
        server.script(&path, reply);
        let error = pull(&images, &server, "a:1").await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{what}");
        assert!(error.status().message().contains(words), "{what}: {}", error.status().message());
        assert_eq!((images.list().len(), layers_on_disk(state.path())), (0, 0), "{what}");
    }
}

#[tokio::test]
async fn a_registry_says_when_to_come_again() {
    const DAY: Duration = Duration::from_secs(86_400);
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let mut config = config(state.path());
    config.patience.attempts = 1;
    let images = Images::open(config, Env::system()).await.unwrap();
    let tomorrow = Env::system().clock.now() + DAY;
    let date = tomorrow.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (status, said) in [(429, date.clone()), (503, date), (429, "86400".to_owned()), (503, "86400".to_owned())] {
        server.put("/v2/a/manifests/1", Reply::new(status, b"later").header("retry-after", said.clone()));
        let error = pull(&images, &server, "a:1").await.unwrap_err();
        let ImageError::Registry { source, .. } = &error else { panic!("{error}") };
        let after = source.retry_after().expect("it was said");
        assert!(after > DAY / 2 && after <= DAY, "{status} {said}: {after:?}");
        assert_eq!(error.code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn credentials_go_to_the_registry_and_its_token_server_only() {
    let (state, server, elsewhere) = (tempfile::tempdir().unwrap(), Server::start().await, Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", server.address);
    server.script("/v2/a/manifests/1", Reply::new(401, b"").header("www-authenticate", realm.clone()));
    server.put("/token", Reply::new(200, br#"{"token":"t0k"}"#));
    let path = blob_path("a", &made.layers[0]);
    server.put(&path, Reply::new(307, b"").header("location", format!("http://{}/cdn", elsewhere.address)));
    elsewhere.put("/cdn", Reply::new(200, &made.layers[0]));
    let auth = Auth::Basic { username: "me".into(), password: "pw".into() };
    images.pull(&server.reference("a:1"), &auth, None).await.unwrap();
    assert_eq!(server.headers("/token")["authorization"], "Basic bWU6cHc=");
    assert_eq!(server.headers("/v2/a/manifests/1")["authorization"], "Bearer t0k");
    assert_eq!(server.headers(&path)["authorization"], "Bearer t0k");
    assert!(!elsewhere.headers("/cdn").contains_key("authorization"));
    // Refused all the same.
    for _ in 0..2 {
        server.script(
            "/v2/a/manifests/2",
            Reply::new(401, br#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#)
                .header("www-authenticate", "Basic realm=\"x\""),
        );
    }
    let error = images.pull(&server.reference("a:2"), &auth, None).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.status().message().contains("wrong password"));
    assert!(!error.status().message().contains("pw "), "no secret in a message");
}

#[tokio::test]
async fn redirects_end() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    server.put("/v2/a/manifests/1", Reply::new(302, b"").header("location", "/v2/a/manifests/1"));
    let error = pull(&images, &server, "a:1").await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { source: RegistryError::Redirects(_), .. }));
    server.put("/v2/b/manifests/1", Reply::new(302, b"").header("location", "file:///etc/shadow"));
    let error = pull(&images, &server, "b:1").await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { source: RegistryError::Redirect(_), .. }));
}

#[tokio::test]
async fn pulls_of_one_layer_unpack_it_once() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let shared = Tar::default().file("shared", &vec![1; 1 << 20]).end();
    let mut made = Vec::new();
    for at in 0..4 {
        let own = Tar::default().file(&format!("own{at}"), b"").end();
        let image = image(&[shared.clone(), own], gzip);
        server.add(&format!("i{at}"), "1", &image);
        made.push(image);
    }
    let pulls = (0..4).map(|at| {
        let (images, server) = (&images, &server);
        async move { pull(images, server, &format!("i{at}:1")).await }
    });
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let times: usize = (0..4).map(|at| server.asked(&blob_path(&format!("i{at}"), &made[0].layers[0]))).sum();
    assert_eq!(times, 1);
    assert_eq!(layers_on_disk(state.path()), 5);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_leaves_nothing() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    server.add("a", "1", &made);
    let path = blob_path("a", &made.layers[1]);
    server.script(&path, Reply::new(200, &made.layers[1]).cut(30, true));
    let waited = tokio::time::timeout(Duration::from_millis(200), pull(&images, &server, "a:1")).await;
    assert!(waited.is_err());
    // The unpacker's thread notices that its stream has ended.
    let mut tries = 0;
    while ingests(state.path()) + layers_on_disk(state.path()) > 0 && tries < 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        tries += 1;
    }
    assert_eq!((ingests(state.path()), layers_on_disk(state.path())), (0, 0));
    pull(&images, &server, "a:1").await.unwrap();
}
