//! A registry that lies, floods or drips hurts its own pull and nothing else.

use super::super::manifest::LAYERS_MAX;
use super::server::blob_path;
use super::*;

fn endless() -> Reply {
    Reply::new(200, &vec![b' '; 64 << 10]).endless(Duration::ZERO)
}

async fn refused(images: &Images, server: &Server, name: &str) -> (Code, String) {
    let error = images.pull(&server.reference(name), &Auth::Anonymous, None).await.unwrap_err();
    (error.code(), gantry_env::chain(&error).to_string())
}

/// Of a pull that has failed; the threads of its other layers notice that on their own.
async fn nothing_is_left(state: &Path) {
    let trash = || fs::read_dir(state.join("snapshots/trash")).unwrap().count();
    let mut tries = 0;
    while ingests(state) + layers_on_disk(state) + trash() > 0 && tries < 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        tries += 1;
    }
    assert_eq!((layers_on_disk(state), ingests(state), trash()), (0, 0, 0));
    assert_eq!(fs::read_dir(state.join("images/blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let realm = format!("Bearer realm=\"http://{}/token\"", server.address);
    let challenge = Reply::new(401, b"").header("www-authenticate", realm);
    let of = |what: Reply| Reply { status: what.status, ..endless() };
    for (what, path, reply, code, words) in [
        ("layer", blob_path("a", &made.layers[1]), endless(), Code::DataLoss, "more than the"),
        ("configuration", blob_path("a", &made.config), endless(), Code::DataLoss, "image configuration has more than"),
        ("manifest", "/v2/a/manifests/1".to_owned(), endless(), Code::DataLoss, "manifest has more than"),
        ("error", "/v2/a/manifests/1".to_owned(), of(Reply::new(403, b"")), Code::PermissionDenied, "Forbidden"),
        ("token", "/token".to_owned(), endless(), Code::DataLoss, "token has more than"),
    ] {
        server.add("a", "1", &made);
        if what == "token" {
            server.put("/v2/a/manifests/1", challenge.clone());
        }
        server.put(&path, reply);
        let error = refused(&images, &server, "a:1").await;
        assert!(error.0 == code && error.1.contains(words), "{what}: {error:?}");
        nothing_is_left(state.path()).await;
    }
}

#[tokio::test]
async fn what_drips_is_given_up() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let mut config = config(state.path());
    (config.patience.idle, config.patience.pace_bytes) = (Duration::from_millis(100), 4096);
    let images = Images::open(config, Env::system()).await.unwrap();
    let big = Tar::default().file("big", &vec![7; 1 << 20]).end();
    let made = image(&[big], <[u8]>::to_vec);
    let drip = Reply::new(200, &[0; 16]).endless(Duration::from_millis(10));
    for path in [blob_path("a", &made.layers[0]), "/v2/a/manifests/1".to_owned()] {
        server.add("a", "1", &made);
        server.put(&path, drip.clone());
        let asked = server.asked(&path);
        let error = refused(&images, &server, "a:1").await;
        assert!(error.0 == Code::Unavailable && error.1.contains("sent only"), "{path}: {error:?}");
        assert_eq!(server.asked(&path) - asked, 3, "{path}: as often as any other trouble");
        nothing_is_left(state.path()).await;
    }
}

#[tokio::test]
async fn manifests_that_promise_too_much_are_not_followed() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let put = |manifest: &serde_json::Value| {
        let reply = Reply::new(200, manifest.to_string().as_bytes());
        server.put("/v2/a/manifests/1", reply.header("content-type", "application/vnd.oci.image.manifest.v1+json"));
    };
    let honest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = honest.clone();
        change(&mut manifest);
        manifest
    };
    for (what, manifest, words) in [
        (
            "10,000 layers",
            with(&|m| m["layers"] = vec![m["layers"][0].clone(); 10_000].into()),
            "10000 layers, more than",
        ),
        (
            "a few more than there may be",
            with(&|m| m["layers"] = vec![m["layers"][0].clone(); LAYERS_MAX + 1].into()),
            "201 layers, more than",
        ),
        (
            "a layer as large as can be",
            with(&|m| m["layers"][0]["size"] = u64::MAX.into()),
            "layer is 18446744073709551615 bytes long",
        ),
        (
            "a configuration as large as can be",
            with(&|m| m["config"]["size"] = u64::MAX.into()),
            "image configuration is",
        ),
        ("another length", with(&|m| m["layers"][0]["size"] = 1.into()), "more than the 1 bytes"),
        (
            "one layer more than diffIDs",
            with(&|m| m["layers"] = vec![m["layers"][0].clone(); 3].into()),
            "3 layers, the configuration 2",
        ),
        (
            "the layers exchanged",
            with(&|m| m["layers"] = vec![m["layers"][1].clone(), m["layers"][0].clone()].into()),
            "diffID is",
        ),
        ("no layer's type", with(&|m| m["layers"][0]["mediaType"] = "text/html".into()), "\"text/html\""),
    ] {
        server.add("a", "1", &made);
        put(&manifest);
        let error = refused(&images, &server, "a:1").await;
        assert!(error.0 == Code::DataLoss && error.1.contains(words), "{what}: {error:?}");
        nothing_is_left(state.path()).await;
    }
    // An index that is its own entry.
    let index = "application/vnd.oci.image.index.v1+json";
    let entry = fixture::descriptor(index, b"{}");
    let nested = serde_json::json!({"schemaVersion": 2, "mediaType": index, "manifests": [entry]}).to_string();
    for at in ["1".to_owned(), Digest::of(b"{}").to_string()] {
        server.put(&format!("/v2/a/manifests/{at}"), Reply::new(200, nested.as_bytes()).header("content-type", index));
    }
    let error = refused(&images, &server, "a:1").await;
    assert!(error.0 == Code::DataLoss && error.1.contains("digest is"), "{error:?}");
    nothing_is_left(state.path()).await;
}

#[tokio::test]
async fn bombs_of_either_compression_are_stopped() {
    let (state, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let mut config = config(state.path());
    (config.limits.ratio_floor_bytes, config.limits.ratio_max) = (1 << 20, 50);
    let images = Images::open(config, Env::system()).await.unwrap();
    let zeros = Tar::default().file("zeros", &vec![0; 16 << 20]).end();
    let padded = [Tar::default().file("a", b"x").end(), vec![0; 16 << 20]].concat();
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 3).unwrap();
    let gzip_of_gzips = |plain: &[u8]| [gzip(plain), gzip(b"").repeat(1000), gzip(&vec![0; 16 << 20])].concat();
    type Compress<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let bombs: [(&str, &Vec<u8>, Compress<'_>); 4] = [
        ("zstd", &zeros, &zstd),
        ("gzip", &zeros, &gzip),
        ("behind the archive's end", &padded, &zstd),
        ("in parts", &zeros, &gzip_of_gzips),
    ];
    for (what, plain, store) in bombs {
        server.add("bomb", "1", &image(std::slice::from_ref(plain), store));
        let error = refused(&images, &server, "bomb:1").await;
        assert!(error.1.contains("times its size"), "{what}: {error:?}");
        nothing_is_left(state.path()).await;
    }
    // A frame that wants a window of four gigabytes to be decompressed in.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xb0, 0x01, 0, 0][..], &[0; 64]].concat();
    let made = image(&[Tar::default().file("a", b"x").end()], |_| window.clone());
    server.add("window", "1", &made);
    let error = refused(&images, &server, "window:1").await;
    assert!(error.0 == Code::DataLoss || error.0 == Code::InvalidArgument, "{error:?}");
    nothing_is_left(state.path()).await;
}

/// Of two pulls of one layer, one waits for the other: but not for one that drips.
#[tokio::test]
async fn an_honest_pull_goes_on_beside_a_lying_one() {
    let (state, liar, honest) = (tempfile::tempdir().unwrap(), Server::start().await, Server::start().await);
    let mut config = config(state.path());
    config.limits.patience = Duration::from_millis(200);
    let images = Images::open(config, Env::system()).await.unwrap();
    let made = image(&[Tar::default().file("big", &vec![7; 1 << 20]).end()], <[u8]>::to_vec);
    let path = blob_path("a", &made.layers[0]);
    liar.add("a", "1", &made);
    liar.put(&path, Reply::new(200, &made.layers[0][..1]).endless(Duration::from_millis(10)));
    honest.add("a", "1", &made);
    let lied = tokio::spawn({
        let (images, reference) = (images.clone(), liar.reference("a:1"));
        async move { images.pull(&reference, &Auth::Anonymous, None).await }
    });
    while liar.asked(&path) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pulled = images.pull(&honest.reference("a:1"), &Auth::Anonymous, None).await.unwrap();
    assert!(!lied.is_finished());
    lied.abort();
    assert_eq!((images.list().len(), layers_on_disk(state.path())), (1, pulled.layers().len()));
}
