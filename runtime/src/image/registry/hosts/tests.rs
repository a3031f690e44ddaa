use proptest::prelude::*;

use super::load::load;
use super::*;

fn file(text: &str) -> HostsFile {
    parse(text, Path::new("/c")).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn shown_root(root: &ApiRoot) -> String {
    format!("{}://{}{}", if root.plain { "http" } else { "https" }, root.authority, root.path)
}

fn hosts(domain: &str, endpoint: &str, plain: bool, text: &str) -> Vec<(String, bool)> {
    let hosts = resolve(domain, &endpoint.parse().unwrap(), plain, file(text));
    hosts.iter().map(|host| (shown_root(&host.root), host.own)).collect()
}

#[test]
fn every_key_is_read() {
    let read = file(
        r#"
        server = "https://registry-1.docker.io"
        [host."https://mirror.example:5000"]
          capabilities = ["PULL", "referrers"]
          ca = ["ca.pem", "/abs/ca.pem"]
          client = [["client.cert", "client.key"], "both.pem"]
          skip_verify = true
          dial_timeout = "1m0.5s"
          unknown = "of a later version"
          [host."https://mirror.example:5000".header]
            x-one = "a"
            X-Many = ["b", "c"]
        [host."plain.example"]
          ca = "one.pem"
          client = "both.pem"
        "#,
    );
    let [(root, mirror), (second, plain)] = &read.mirrors[..] else { panic!("{read:?}") };
    assert_eq!(
        (shown_root(root), shown_root(second)),
        ("https://mirror.example:5000/v2".into(), "https://plain.example/v2".into())
    );
    assert_eq!(mirror.capabilities, Capabilities { pull: true, resolve: false });
    assert_eq!(mirror.tls.ca_files, [PathBuf::from("/c/ca.pem"), "/abs/ca.pem".into()]);
    let both = ClientPair { certificate: "/c/both.pem".into(), key: None };
    let pair = ClientPair { certificate: "/c/client.cert".into(), key: Some("/c/client.key".into()) };
    assert_eq!(mirror.tls.clients, [pair, both.clone()]);
    assert_eq!((mirror.tls.skip_verify, mirror.dial_timeout), (Some(true), Some(Duration::from_millis(60_500))));
    assert_eq!(mirror.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["b", "c"]);
    assert!(!format!("{mirror:?}").contains("\"a\""), "a header's value is nobody's to read");
    assert_eq!((&plain.tls.clients[..], plain.capabilities), (&[both][..], Capabilities::default()));
    assert_eq!(read.server.as_ref().map(shown_root).as_deref(), Some("https://registry-1.docker.io/v2"));
}

#[test]
fn hosts_stay_in_the_order_of_the_file() {
    // A host's own tables are no further hosts, wherever they stand.
    let text = "[host.\"z\"]\n[host.\"a\"]\n[host.\"m\"]\n[host.\"a\".header]\nx = \"y\"\n";
    let roots: Vec<String> = file(text).mirrors.iter().map(|(root, _)| root.authority.to_string()).collect();
    assert_eq!(roots, ["z", "a", "m"]);
}

#[test]
fn urls_become_roots_of_the_api() {
    for (url, override_path, root) in [
        ("https://m", false, "https://m/v2"),
        ("http://m/", false, "http://m/v2"),
        ("m:5000", false, "https://m:5000/v2"),
        ("https://m/v2", false, "https://m/v2"),
        ("https://m/v2/", false, "https://m/v2"),
        ("https://m/a//b/./c/../v2", false, "https://m/a/b/v2"),
        ("https://m/a", false, "https://m/a/v2"),
        ("https://m/a/", true, "https://m/a"),
        ("https://m", true, "https://m"),
        ("https://m/../..", true, "https://m"),
        ("https://[::1]:5000/x", true, "https://[::1]:5000/x"),
    ] {
        assert_eq!(shown_root(&api_root(url, override_path).unwrap()), root, "{url}");
    }
    for wrong in [
        "",
        "https://",
        "ftp://m",
        "https://u:p@m",
        "https://m?x=y",
        "https://m#x",
        "https://m:99999",
        "https://m:",
        "a b",
        "file:///etc",
    ] {
        assert!(api_root(wrong, false).is_err(), "{wrong:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (text, wrong) in [
        ("server = 1", "\"server\" is not a string"),
        ("host = 1", "\"host\" is not a table"),
        ("[host]\n\"https://m\" = 1", "\"https://m\" is not a table"),
        ("capabilities = \"pull\"", "\"capabilities\" is not a list of strings"),
        ("capabilities = [\"pul\"]", "\"pul\" is no capability (pull, resolve, push, referrers)"),
        ("ca = 1", "\"ca\" is not a string or a list of strings"),
        ("ca = [1]", "\"ca\" is not a string or a list of strings"),
        ("client = [[\"a\"]]", "\"client\" is not a file, a list of files, or a list of pairs of files"),
        ("client = [[\"a\", \"b\", \"c\"]]", "\"client\" is not a file, a list of files, or a list of pairs of files"),
        ("skip_verify = \"true\"", "\"skip_verify\" is not true or false"),
        ("override_path = 1", "\"override_path\" is not true or false"),
        ("dial_timeout = 3", "\"dial_timeout\" is not a duration in quotes"),
        ("dial_timeout = \"3\"", "\"3\" is no duration"),
        ("[header]\nx = 1", "\"x\" is not a string or a list of strings"),
        ("[header]\n\"x y\" = \"1\"", "header \"x y\" cannot be set"),
        ("[header]\nx = \"a\\nb: c\"", "header \"x\" cannot be set"),
        ("[header]\nHost = \"other\"", "header \"Host\" cannot be set"),
        ("[host.\"https://m\"]\n[host.\"https://m\"]", "line 2: duplicate key"),
    ] {
        assert_eq!(parse(text, Path::new("/c")).unwrap_err().to_string(), wrong, "{text}");
    }
    let many: String = (0..=HOSTS_MAX).map(|at| format!("[host.\"m{at}\"]\n")).collect();
    assert_eq!(parse(&many, Path::new("/c")), Err(HostsError::TooMany(HOSTS_MAX + 1)));
}

#[test]
fn durations_are_gos() {
    for (text, millis) in
        [("3s", 3000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("+2s", 2000), (".5s", 500)]
    {
        assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for wrong in ["", "3", "s", "-3s", "3 s", "1d", "0s", "1..2s", "1e3s", "99999999999999999999h"] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
}

#[test]
fn the_registry_itself_comes_last() {
    let hub = |text| hosts("docker.io", "registry-1.docker.io", false, text);
    let own = |root: &str| (root.to_owned(), true);
    let other = |root: &str| (root.to_owned(), false);
    assert_eq!(hub(""), [own("https://registry-1.docker.io/v2")]);
    assert_eq!(hub("[host.\"m\"]"), [other("https://m/v2"), own("https://registry-1.docker.io/v2")]);
    assert_eq!(hub("server = \"s\"\n[host.\"m\"]"), [other("https://m/v2"), other("https://s/v2")]);
    assert_eq!(hub("server = \"https://docker.io\""), [own("https://docker.io/v2")]);
    let port = |text| hosts("r:443", "r:443", false, text);
    assert_eq!(port("server = \"https://R\""), [own("https://R/v2")]);
    assert_eq!(port("server = \"https://r:5000\""), [other("https://r:5000/v2")]);
    // Plain text is for whom nothing else is said of.
    assert_eq!(hosts("localhost:5000", "localhost:5000", true, ""), [own("http://localhost:5000/v2")]);
    for tls in ["ca = \"x\"", "skip_verify = true", "client = \"x\"", "server = \"https://localhost:5000\""] {
        assert_eq!(hosts("localhost:5000", "localhost:5000", true, tls), [own("https://localhost:5000/v2")], "{tls}");
    }
    // The top of the file is about a server of its own; the registry itself is able to do everything.
    let able = resolve("r", &"r".parse().unwrap(), false, file("capabilities = [\"push\"]"));
    assert_eq!(able[0].settings.capabilities, Capabilities::default());
}

#[test]
fn a_registrys_folder_is_the_first_that_is_there() {
    let root = tempfile::tempdir().unwrap();
    let roots = [root.path().join("absent"), root.path().to_owned()];
    let server = |domain: &str| {
        let server = load(&roots, domain).unwrap().server;
        server.map(|root| root.authority.to_string())
    };
    let put = |folder: &str| {
        std::fs::create_dir(root.path().join(folder)).unwrap();
        std::fs::write(
            root.path().join(folder).join("hosts.toml"),
            format!("server = \"{}\"", folder.trim_start_matches('_').replace(':', ".")),
        )
        .unwrap();
    };
    assert_eq!(server("r:5000"), None);
    put("_default");
    put("r:5000");
    assert_eq!(server("r:5000").as_deref(), Some("r.5000"));
    put("r_5000_");
    assert_eq!(server("r:5000").as_deref(), Some("r_5000_"));
    assert_eq!(server("r:5001").as_deref(), Some("default"));
    put("docker.io");
    assert_eq!(server("docker.io").as_deref(), Some("docker.io"));
    put("[::1]_80_");
    assert!(load(&roots, "[::1]:80").is_err(), "it was read, and names no host");
    // A folder that is there says that nothing is to be said, and a pipe keeps nobody waiting.
    std::fs::create_dir(root.path().join("bare")).unwrap();
    assert_eq!(load(&roots, "bare").unwrap(), HostsFile::default());
    nix::unistd::mkfifo(&root.path().join("bare/hosts.toml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(load(&roots, "bare"), Err(load::LoadError::NoFile(_))));
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "(\\[|\\]|host|server|header|\\.|\"|=|\n|ca|client|[a-z:/ ]{0,3}){0,60}") {
        let _ = parse(&text, Path::new("/c"));
    }

    #[test]
    fn what_is_written_is_read(
        names in proptest::collection::hash_set("[a-z]{1,8}(\\.[a-z]{1,5})?(:[1-9][0-9]{0,3})?", 0..8),
        plain in any::<bool>(),
        pull in any::<bool>(),
        seconds in 1..100u64,
    ) {
        let scheme = if plain { "http" } else { "https" };
        let able = if pull { "pull" } else { "resolve" };
        let text: String = names
            .iter()
            .map(|name| format!("[host.\"{scheme}://{name}\"]\ncapabilities = [\"{able}\"]\ndial_timeout = \"{seconds}s\"\n"))
            .collect();
        let read = file(&text);
        prop_assert_eq!(read.mirrors.len(), names.len());
        for ((root, settings), name) in read.mirrors.iter().zip(&names) {
            prop_assert_eq!(shown_root(root), format!("{scheme}://{name}/v2"));
            prop_assert_eq!(settings.capabilities, Capabilities { pull, resolve: !pull });
            prop_assert_eq!(settings.dial_timeout, Some(Duration::from_secs(seconds)));
        }
        // Whatever a file says, somebody is asked, and at most one of them knows the registry's credentials' due.
        let all = resolve("r.example", &"r.example".parse().unwrap(), false, read);
        prop_assert_eq!(all.len(), names.len() + 1);
        prop_assert!(all.last().unwrap().own);
    }
}
