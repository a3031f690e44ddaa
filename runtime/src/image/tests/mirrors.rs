//! Pulls by the settings of a registry's folder.

use std::path::PathBuf;

use gantry_pki::{Authority, ClientAuth, Profile, Reloading, tls};

use super::server::blob_path;
use super::*;

/// A machine with a folder of registries' settings.
struct Machine {
    state: tempfile::TempDir,
    images: Images,
}

impl Machine {
    async fn new() -> Machine {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("certs.d")).unwrap();
        let registry_config_paths = vec![state.path().join("absent"), state.path().join("certs.d")];
        let config = Config { registry_config_paths, ..config(state.path()) };
        let images = Images::open(config, Env::system()).await.unwrap();
        Machine { state, images }
    }

    fn folder(&self, registry: &str) -> PathBuf {
        let folder = self.state.path().join("certs.d").join(registry);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn hosts(&self, registry: &str, text: &str) {
        fs::write(self.folder(registry).join("hosts.toml"), text).unwrap();
    }

    async fn pull(&self, reference: &str) -> Result<Arc<Image>, ImageError> {
        self.images.pull(reference, &Auth::Anonymous, None).await
    }

    async fn refused(&self, reference: &str) -> (Code, String) {
        let error = self.pull(reference).await.unwrap_err();
        (error.code(), gantry_env::chain(&error).to_string())
    }
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

fn made() -> Made {
    image(&two_layers(), gzip)
}

/// Where nobody listens.
fn nobody() -> String {
    format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[tokio::test]
async fn a_mirror_serves_a_registry_that_cannot_be_reached() {
    let (machine, mirror, made) = (Machine::new().await, Server::start().await, made());
    mirror.add("library/a", "1", &made);
    // Read at each pull: the first one knows nothing of it.
    let reference = "registry.invalid:5000/library/a:1";
    assert_eq!(machine.refused(reference).await.0, Code::Unavailable);
    machine.hosts(
        "registry.invalid_5000_",
        &format!("[host.\"{}\"]\n[host.\"{0}\".header]\nx-team = \"red\"", url(&mirror)),
    );
    let pulled = machine.pull(reference).await.unwrap();
    assert_eq!(pulled.repo_tags(), [reference]);
    for path in ["/v2/library/a/manifests/1".to_owned(), blob_path("library/a", &made.layers[0])] {
        assert_eq!(mirror.query(&path).as_deref(), Some("ns=registry.invalid:5000"));
        assert_eq!(mirror.headers(&path)["x-team"], "red");
    }
}

#[tokio::test]
async fn hosts_are_asked_in_the_order_of_the_file_until_one_has_it() {
    let (machine, made) = (Machine::new().await, made());
    let (first, second, own) = (Server::start().await, Server::start().await, Server::start().await);
    first.put("/v2/a/manifests/1", Reply::new(503, b"not today"));
    own.add("a", "1", &made);
    machine.hosts(
        &own.address.to_string(),
        &format!("[host.\"{}\"]\n[host.\"{}\"]\n[host.\"{}\"]", nobody(), url(&first), url(&second)),
    );
    machine.pull(&own.reference("a:1")).await.unwrap();
    // Once each: nobody is waited for while another has it.
    assert_eq!((first.asked("/v2/a/manifests/1"), second.asked("/v2/a/manifests/1")), (1, 1));
    assert_eq!(own.query("/v2/a/manifests/1"), None, "the registry itself knows whose images it has");
    assert!(!own.headers("/v2/a/manifests/1").contains_key("x-team"));
    // A layer that a mirror breaks off is finished by whoever has it.
    let layer = blob_path("b", &made.layers[0]);
    first.add("b", "1", &made);
    own.add("b", "1", &made);
    let whole = Reply::new(200, &made.layers[0]).header("content-length", made.layers[0].len().to_string());
    first.script(&layer, whole.cut(20, false));
    first.script(&layer, Reply::new(404, b""));
    let other = Machine::new().await;
    other.hosts(&own.address.to_string(), &format!("[host.\"{}\"]", url(&first)));
    other.pull(&own.reference("b:1")).await.unwrap();
    assert_eq!(own.headers(&layer)["range"], "bytes=20-");
}

#[tokio::test]
async fn a_mirror_that_sends_something_else_is_passed_over() {
    let (mirror, own, made) = (Server::start().await, Server::start().await, made());
    let layers: Vec<String> = made.layers.iter().map(|layer| blob_path("a", layer)).collect();
    own.add("a", "1", &made);
    mirror.add("a", "1", &made);
    let wrong = vec![0; made.layers[0].len()];
    mirror.put(&layers[0], Reply::new(200, &wrong));
    let hosts = format!("[host.\"{}\"]", url(&mirror));
    let machine = Machine::new().await;
    machine.hosts(&own.address.to_string(), &hosts);
    machine.pull(&own.reference("a:1")).await.unwrap();
    assert_eq!((mirror.asked(&layers[0]), own.asked(&layers[0])), (1, 1));
    // Begun by the liar, ended by the honest one, and then had from that one alone.
    let machine = Machine::new().await;
    machine.hosts(&own.address.to_string(), &hosts);
    let length = wrong.len().to_string();
    mirror.script(&layers[0], Reply::new(200, &wrong).header("content-length", length).cut(20, false));
    mirror.script(&layers[0], Reply::new(404, b""));
    machine.pull(&own.reference("a:1")).await.unwrap();
    assert_eq!(own.asked(&layers[0]), 3);
    assert!(!own.headers(&layers[0]).contains_key("range"));
    // Where both lie, nobody is asked for ever.
    let machine = Machine::new().await;
    machine.hosts(&own.address.to_string(), &hosts);
    own.put(&layers[0], Reply::new(200, &wrong));
    let (code, said) = machine.refused(&own.reference("a:1")).await;
    assert!(code == Code::DataLoss && said.contains("digest is"), "{said}");
    assert_eq!(own.asked(&layers[0]), 4);
}

#[tokio::test]
async fn a_mirror_in_trouble_is_asked_again_where_nobody_else_has_it() {
    let (machine, mirror, made) = (Machine::new().await, Server::start().await, made());
    mirror.add("a", "1", &made);
    let layer = blob_path("a", &made.layers[1]);
    for path in ["/v2/a/manifests/1", &layer] {
        mirror.script(path, Reply::new(503, b"not yet"));
        mirror.script(path, Reply::new(429, b"slow down").header("retry-after", "0"));
    }
    machine.hosts("registry.invalid", &format!("server = \"{}\"\n[host.\"{}\"]", nobody(), url(&mirror)));
    machine.pull("registry.invalid/a:1").await.unwrap();
    assert_eq!((mirror.asked("/v2/a/manifests/1"), mirror.asked(&layer)), (3, 3));
    // Patience ends.
    mirror.put("/v2/b/manifests/1", Reply::new(503, b"never"));
    let (code, said) = machine.refused("registry.invalid/b:1").await;
    assert!(code == Code::Unavailable && said.contains("never"), "{said}");
    assert_eq!(mirror.asked("/v2/b/manifests/1"), 3);
}

#[tokio::test]
async fn the_error_that_says_most_is_told() {
    let (machine, own) = (Machine::new().await, Server::start().await);
    let registry = own.address.to_string();
    own.put("/v2/a/manifests/1", Reply::new(403, b"not for you"));
    machine.hosts(&registry, &format!("[host.\"{}\"]", nobody()));
    let (code, said) = machine.refused(&own.reference("a:1")).await;
    assert!(code == Code::PermissionDenied && said.contains("not for you"), "{said}");
    // Of two that say as much, the first.
    let mirror = Server::start().await;
    mirror.put("/v2/a/manifests/1", Reply::new(403, b"nor for you"));
    machine.hosts(&registry, &format!("[host.\"{}\"]", url(&mirror)));
    let (_, said) = machine.refused(&own.reference("a:1")).await;
    assert!(said.contains("nor for you"), "{said}");
}

#[tokio::test]
async fn a_mirror_is_asked_for_what_it_is_able_to_do() {
    let (machine, mirror, own, made) = (Machine::new().await, Server::start().await, Server::start().await, made());
    mirror.add("a", "1", &made);
    own.add("a", "1", &made);
    let registry = own.address.to_string();
    machine.hosts(&registry, &format!("[host.\"{}\"]\ncapabilities = [\"pull\"]", url(&mirror)));
    machine.pull(&own.reference("a:1")).await.unwrap();
    let layer = blob_path("a", &made.layers[0]);
    assert_eq!((mirror.asked("/v2/a/manifests/1"), own.asked("/v2/a/manifests/1")), (0, 1));
    assert_eq!((mirror.asked(&layer), own.asked(&layer)), (1, 0));
    let file = format!("server = \"{}\"\ncapabilities = [\"push\"]", url(&mirror));
    machine.hosts(&registry, &file);
    let (code, said) = machine.refused(&own.reference("a:1")).await;
    assert!(code == Code::FailedPrecondition && said.contains("no host"), "{said}");
}

#[tokio::test]
async fn a_server_takes_the_place_of_the_registry_under_a_path_of_its_own() {
    let (machine, server, made) = (Machine::new().await, Server::start().await, made());
    server.add("a", "1", &made);
    for blob in made.layers.iter().chain([&made.config]) {
        server.put(&blob_path("a", blob).replace("/v2", "/cache/hub"), Reply::new(200, blob));
        server.put(&blob_path("a", blob).replace("/v2", "/proxy/v2"), Reply::new(200, blob));
    }
    let manifest = Reply::new(200, &made.manifest);
    server.put("/cache/hub/a/manifests/1", manifest.clone());
    server.put("/proxy/v2/a/manifests/2", manifest);
    machine.hosts("one.invalid", &format!("server = \"{}/cache//hub/\"\noverride_path = true", url(&server)));
    machine.hosts("_default", &format!("server = \"{}/proxy\"", url(&server)));
    machine.pull("one.invalid/a:1").await.unwrap();
    machine.pull("two.invalid/a:2").await.unwrap();
    assert_eq!(server.query("/proxy/v2/a/manifests/2").as_deref(), Some("ns=two.invalid"));
    // docker.io is not where its name says.
    machine.hosts("docker.io", &format!("server = \"{}\"", url(&server)));
    server.add("library/a", "latest", &made);
    machine.pull("a").await.unwrap();
    assert_eq!(server.query("/v2/library/a/manifests/latest").as_deref(), Some("ns=docker.io"));
}

#[tokio::test]
async fn credentials_are_for_no_mirror() {
    let (machine, mirror, own, made) = (Machine::new().await, Server::start().await, Server::start().await, made());
    for server in [&mirror, &own] {
        server.add("a", "1", &made);
        let asks = Reply::new(401, b"").header("www-authenticate", "Basic realm=\"x\"");
        server.script("/v2/a/manifests/1", asks);
    }
    machine.hosts(&own.address.to_string(), &format!("[host.\"{}\"]", url(&mirror)));
    let auth = Auth::Basic { username: "me".into(), password: "pw".into() };
    machine.images.pull(&own.reference("a:1"), &auth, None).await.unwrap();
    assert!(!mirror.headers("/v2/a/manifests/1").contains_key("authorization"));
    assert_eq!(own.headers("/v2/a/manifests/1")["authorization"], "Basic bWU6cHc=");
    // Nor is a token that comes with the pull, nor the password for a token server that a mirror names.
    let realm = format!("Bearer realm=\"http://{}/token\"", mirror.address);
    mirror.script("/v2/b/manifests/1", Reply::new(401, b"").header("www-authenticate", realm));
    mirror.put("/token", Reply::new(200, br#"{"token":"anonymous"}"#));
    mirror.add("b", "1", &made);
    machine.images.pull(&own.reference("b:1"), &auth, None).await.unwrap();
    assert!(!mirror.headers("/token").contains_key("authorization"));
    assert_eq!(mirror.headers("/v2/b/manifests/1")["authorization"], "Bearer anonymous");
    mirror.add("c", "1", &made);
    let token = Auth::Registry("t0k".into());
    machine.images.pull(&own.reference("c:1"), &token, None).await.unwrap();
    assert!(!mirror.headers("/v2/c/manifests/1").contains_key("authorization"));
    // A mirror that is the registry itself is one that they are for.
    own.add("d", "1", &made);
    machine.hosts(&own.address.to_string(), &format!("server = \"{}\"\n[host.\"{}\"]", nobody(), url(&own)));
    machine.images.pull(&own.reference("d:1"), &token, None).await.unwrap();
    assert_eq!(own.headers("/v2/d/manifests/1")["authorization"], "Bearer t0k");
}

#[tokio::test]
async fn headers_stay_with_their_host() {
    let (machine, mirror, elsewhere, made) =
        (Machine::new().await, Server::start().await, Server::start().await, made());
    mirror.add("a", "1", &made);
    let layer = blob_path("a", &made.layers[0]);
    mirror.put(&layer, Reply::new(307, b"").header("location", format!("{}/cdn", url(&elsewhere))));
    elsewhere.put("/cdn", Reply::new(200, &made.layers[0]));
    let text =
        format!("[host.\"{}\".header]\nauthorization = \"Basic c2VjcmV0\"\nuser-agent = [\"mine\"]", url(&mirror));
    machine.hosts("registry.invalid", &text);
    machine.pull("registry.invalid/a:1").await.unwrap();
    let headers = mirror.headers(&layer);
    assert_eq!(
        (&headers["authorization"], &headers["user-agent"]),
        (&"Basic c2VjcmV0".parse().unwrap(), &"mine".parse().unwrap())
    );
    let headers = elsewhere.headers("/cdn");
    assert!(!headers.contains_key("authorization") && headers["user-agent"] != "mine");
}

#[tokio::test]
async fn settings_that_cannot_be_used_fail_the_pull_by_name() {
    let (machine, own) = (Machine::new().await, Server::start().await);
    own.add("a", "1", &made());
    let registry = own.address.to_string();
    for (text, why) in [
        ("server = \"x", "line 1"),
        ("capabilities = [\"pull\", \"fly\"]", "\"fly\" is no capability"),
        ("[host.\"ftp://x\"]", "\"ftp://x\" is no URL"),
        ("# secret\n[header]\nx-token = \"s3cret\" oops", "line 3"),
    ] {
        machine.hosts(&registry, text);
        let (code, said) = machine.refused(&own.reference("a:1")).await;
        assert_eq!(code, Code::FailedPrecondition, "{said}");
        assert!(said.contains(why) && said.contains("hosts.toml") && !said.contains("s3cret"), "{said}");
    }
    machine.hosts(&registry, &"#".repeat(1 << 20));
    let (_, said) = machine.refused(&own.reference("a:1")).await;
    assert!(said.contains("more than"), "{said}");
    assert_eq!(own.asked_for_anything(), 0);
    machine.hosts(&registry, "");
    machine.pull(&own.reference("a:1")).await.unwrap();
}

/// An authority, and a server that shows a certificate of it; `clients` are asked for one, too.
async fn tls_server(clients: bool) -> (Authority, Server) {
    let env = Env::system();
    let authority = Authority::create("registries", &env).unwrap();
    let serving = authority.issue(&Profile::server("registry", ["127.0.0.1"]), &env).unwrap();
    let wanted = match clients {
        true => ClientAuth::Required { ca_pem: authority.certificate_pem() },
        false => ClientAuth::None,
    };
    let config = tls::server_config(&Reloading::new(&serving).unwrap(), wanted, &env.clock).unwrap();
    let server = Server::start_at([127, 0, 0, 1].into(), Some(config)).await;
    (authority, server)
}

#[tokio::test]
async fn a_registry_is_trusted_by_its_own_authority() {
    let (machine, (authority, server), made) = (Machine::new().await, tls_server(false).await, made());
    server.add("a", "1", &made);
    let url = format!("https://{}", server.address);
    machine.hosts("one.invalid", &format!("server = \"{url}\""));
    let (code, said) = machine.refused("one.invalid/a:1").await;
    assert!(code == Code::Unavailable && said.contains("UnknownIssuer"), "{said}");
    // Relative to the file's folder.
    fs::write(machine.folder("one.invalid").join("ca.pem"), authority.certificate_pem()).unwrap();
    machine.hosts("one.invalid", &format!("server = \"{url}\"\nca = [\"ca.pem\"]"));
    machine.pull("one.invalid/a:1").await.unwrap();
    // It is that registry's authority, and nobody else's.
    machine.hosts("two.invalid", &format!("server = \"{url}\""));
    assert!(machine.refused("two.invalid/a:1").await.1.contains("UnknownIssuer"));
    machine.hosts("two.invalid", &format!("server = \"{url}\"\nskip_verify = true"));
    machine.pull("two.invalid/a:1").await.unwrap();
    machine.hosts("two.invalid", &format!("server = \"{url}\"\nca = \"gone.pem\""));
    let (_, said) = machine.refused("two.invalid/a:1").await;
    assert!(said.contains("two.invalid/gone.pem"), "{said}");
    // Docker's layout, and a registry on loopback that has certificates and so speaks TLS.
    let folder = machine.folder(&server.address.to_string());
    fs::write(folder.join("ca.crt"), authority.certificate_pem()).unwrap();
    fs::write(folder.join("notes.txt"), "not ours").unwrap();
    machine.pull(&server.reference("a:1")).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_host_alone() {
    let (machine, (authority, server), made) = (Machine::new().await, tls_server(true).await, made());
    server.add("a", "1", &made);
    let env = Env::system();
    let me = authority.issue(&Profile::client("me", None), &env).unwrap();
    let stranger = Authority::create("strangers", &env).unwrap().issue(&Profile::client("me", None), &env).unwrap();
    let folder = machine.folder("one.invalid");
    fs::write(folder.join("ca.pem"), authority.certificate_pem()).unwrap();
    fs::write(folder.join("me.pem"), &me.certificate_pem).unwrap();
    fs::write(folder.join("me.key"), &me.key_pem).unwrap();
    fs::write(folder.join("both.pem"), format!("{}{}", me.certificate_pem, me.key_pem)).unwrap();
    fs::write(folder.join("stranger.pem"), format!("{}{}", stranger.certificate_pem, stranger.key_pem)).unwrap();
    let start = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", server.address);
    for (client, fits) in [
        ("", false),
        ("client = \"both.pem\"", true),
        ("client = [[\"me.pem\", \"me.key\"]]", true),
        ("client = [\"stranger.pem\"]", false),
        // Of two, the one that the server can check.
        ("client = [\"stranger.pem\", [\"me.pem\", \"me.key\"]]", true),
    ] {
        machine.hosts("one.invalid", &format!("{start}{client}"));
        assert_eq!(machine.pull("one.invalid/a:1").await.is_ok(), fits, "{client}");
    }
    machine.hosts("one.invalid", &format!("{start}client = \"me.pem\""));
    let (_, said) = machine.refused("one.invalid/a:1").await;
    assert!(said.contains("key in") && said.contains("me.pem"), "{said}");
    // Docker's layout, with the key beside it and in it.
    let folder = machine.folder(&server.address.to_string());
    fs::write(folder.join("ca.crt"), authority.certificate_pem()).unwrap();
    fs::write(folder.join("a.cert"), &me.certificate_pem).unwrap();
    fs::write(folder.join("a.key"), &me.key_pem).unwrap();
    machine.pull(&server.reference("a:1")).await.unwrap();
    // The registry leads to a host of the same authority: it is trusted, and not shown the certificate.
    let other = tls::server_config(
        &Reloading::new(&authority.issue(&Profile::server("cdn", ["localhost"]), &env).unwrap()).unwrap(),
        ClientAuth::Required { ca_pem: authority.certificate_pem() },
        &env.clock,
    )
    .unwrap();
    let other = Server::start_at([127, 0, 0, 1].into(), Some(other)).await;
    let moved = format!("https://localhost:{}/moved", other.address.port());
    server.put("/v2/b/manifests/1", Reply::new(307, b"").header("location", moved));
    let (_, said) = machine.refused(&server.reference("b:1")).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    assert_eq!(other.asked_for_anything(), 0);
}

#[tokio::test]
async fn a_mirror_that_is_down_is_passed_over_for_the_rest_of_a_pull() {
    let (machine, own, made) = (Machine::new().await, Server::start().await, made());
    own.add("a", "1", &made);
    // A listener that accepts and never says a word, so that each question to it would take its time.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("[host.\"http://{}\"]\ndial_timeout = \"1s\"", silent.local_addr().unwrap());
    machine.hosts(&own.address.to_string(), &text);
    machine.pull(&own.reference("a:1")).await.unwrap();
    let mut connections = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), silent.accept()).await {
        connections += 1;
    }
    assert_eq!(connections, 1);
}
