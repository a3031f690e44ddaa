//! What registries and images say in text: names, documents, challenges, and the users that an image knows.

use std::path::Path;

use gantry_base::launch::User;
use gantry_runtime::image::manifest::{self, Descriptor, Document, LAYERS_MAX, Platform};
use gantry_runtime::image::registry::{Challenge, hosts, parse_challenge, parse_token, token_request};
use gantry_runtime::image::{Auth, Digest, Reference, registry};
use http::uri::Authority;
use http::{StatusCode, Uri};
use serde_json::json;

use super::input::{Input, texts};

/// The supervisor is a program and no library; what it reads of an image is pure, and of one file.
#[path = "../../../runtime/supervisor/src/users.rs"]
mod supervisor_users;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const PASSWORD: &str = "our own, not the realm's";
const WORDS_MAX_CHARS: usize = 500;

pub(super) fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(reference) = text.parse::<Reference>() else { return };
    let printed = reference.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&reference), "{printed}");
    let parts = reference.path().split('/');
    assert!(parts.into_iter().all(|part| !part.is_empty() && part != "." && part != ".."), "{printed}");
    assert!(reference.tag().is_some() || reference.digest().is_some());
    // It becomes the host of a URL, and must be that host and nothing more.
    let host: Authority = reference.endpoint().parse().unwrap_or_else(|error| panic!("{printed}: {error}"));
    assert_eq!(host.as_str(), reference.endpoint());
    let port = host.port().map(|port| format!(":{}", port.as_str())).unwrap_or_default();
    assert_eq!(format!("{}{port}", host.host()), reference.endpoint(), "{printed}");
    assert!(!reference.wanted().contains('/') && !reference.wanted().contains('?'), "{printed}");
}

/// A registry's hosts.toml.
pub(super) fn hosts_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(file) = hosts::parse(&text, Path::new("/certs.d/r")) else { return };
    let tls = file.mirrors.iter().map(|(_, settings)| settings).chain([&file.server_settings]).map(|s| &s.tls);
    for tls in tls {
        assert!(tls.ca_files.iter().all(|path| path.is_absolute()), "{tls:?}");
    }
    let endpoint = Authority::from_static("registry-1.docker.io");
    let mirrors = file.mirrors.len();
    let all = hosts::resolve("docker.io", &endpoint, false, file);
    assert_eq!(all.len(), mirrors + 1, "somebody is always there to be asked");
    for host in all {
        let root = &host.root;
        assert!(root.path.is_empty() || (root.path.starts_with('/') && !root.path.ends_with('/')), "{root:?}");
        assert!(root.path.split('/').all(|part| part != "." && part != ".."), "{root:?}");
        // What is put behind it stays a path, and is asked of this host.
        let url: Uri = format!("https://{}{}/a/manifests/1", root.authority, root.path).parse().expect("a URL");
        assert_eq!((url.authority(), url.query()), (Some(&root.authority), None));
        assert!(!root.authority.as_str().contains('@'), "{root:?}");
        assert!(
            !host.own
                || ["docker.io", "registry-1.docker.io"].contains(&root.authority.host().to_ascii_lowercase().as_str())
        );
    }
}

pub(super) fn hosts_file_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "server = \"https://registry-1.docker.io\"\n[host.\"https://mirror.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"ca.pem\"\n  client = [[\"client.cert\", \"client.key\"]]\n  skip_verify = false\n  dial_timeout = \"1m30s\"\n  [host.\"https://mirror.example:5000\".header]\n    x-team = [\"red\", \"blue\"]\n",
        "server = \"http://[::1]:5000/cache/hub/\"\noverride_path = true\nca = [\"/a\", \"b\"]\nclient = \"both.pem\"\n[header]\nauthorization = \"Basic x\"\n",
        "[host.b]\n[host.a]\nclient = [\"x\"]\n[host]\nc = {capabilities = [\"PUSH\"]}\n",
        "server = \"https://docker.io:443/../v2#\"",
    ])
}

/// A document, behind the line of its envelope's media type.
pub(super) fn document(data: &[u8]) {
    let mut input = Input(data);
    let outside = input.text_until(b'\n');
    let Ok(document) = manifest::parse_document(input.0, Some(&outside)) else { return };
    let printed = match &document {
        Document::Index(entries) => {
            for platform in [Platform::host(), arm()] {
                if let Ok(chosen) = manifest::choose(entries, &platform) {
                    assert!(entries.contains(chosen));
                }
            }
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries})
        }
        Document::Manifest(manifest) => {
            assert!(manifest.layers.len() <= LAYERS_MAX && manifest.config.size <= manifest::CONFIG_MAX_BYTES);
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": manifest.config, "layers": manifest.layers})
        }
    };
    let again = manifest::parse_document(printed.to_string().as_bytes(), None).expect("it is still of its kind");
    assert_eq!(again, document);
}

fn arm() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "arm".to_owned(), variant: Some("v7".to_owned()) }
}

pub(super) fn config(data: &[u8]) {
    let Ok(config) = manifest::parse_config(data) else { return };
    let printed = json!({"os": config.os, "architecture": config.architecture, "created": config.created,
        "config": config.run, "rootfs": {"diff_ids": config.diff_ids}});
    let again = manifest::parse_config(printed.to_string().as_bytes()).expect("it is still a configuration");
    assert_eq!(again, config);
    config.diff_ids.iter().fold(None, |chain: Option<Digest>, diff_id| Some(Digest::chain(chain.as_ref(), diff_id)));
}

pub(super) fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    Auth::from_encoded(&text);
    let Some(Challenge::Bearer { realm, service, scope }) = parse_challenge(&text) else { return };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let optional = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(",{name}={}", quoted(value))).unwrap_or_default()
    };
    let printed =
        format!("Bearer realm={}{}{}", quoted(&realm), optional("service", &service), optional("scope", &scope));
    let read = parse_challenge(&printed);
    assert_eq!(
        read.as_ref(),
        Some(&Challenge::Bearer { realm: realm.clone(), service: service.clone(), scope: scope.clone() })
    );
    let secret = Auth::Basic { username: "me".to_owned(), password: PASSWORD.to_owned() };
    for auth in [Auth::Anonymous, secret, Auth::Identity("refresh".to_owned())] {
        let scope = scope.as_deref().unwrap_or("repository:a:pull");
        let Some(request) = token_request(&realm, service.as_deref(), scope, &auth) else { continue };
        let uri = request.uri();
        assert!(matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some(), "{uri}");
        // A password travels in a header, and never where logs and proxies keep it.
        assert!(!uri.to_string().contains(PASSWORD));
    }
}

/// What a registry says when it refuses, and what a token server answers.
pub(super) fn words(data: &[u8]) {
    let said = registry::words(StatusCode::UNAUTHORIZED, data);
    assert!(!said.is_empty() && said.chars().count() <= WORDS_MAX_CHARS);
    assert!(!said.chars().any(char::is_control), "{said:?}");
    assert!(parse_token(data).is_none_or(|token| !token.is_empty()));
}

/// A user, a NUL, /etc/passwd, a NUL, /etc/group.
pub(super) fn users(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let (name, passwd, group) = (input.text_until(0), input.text_until(0), input.text_until(0));
    let gid = (flags & 1 != 0).then_some(2000);
    let user = User { name, gid, extra_gids: vec![3000], merge_groups: flags & 2 != 0 };
    let Ok(ids) = supervisor_users::resolve(&user, &passwd, &group) else { return };
    let plain = |id: u32| id <= i32::MAX as u32;
    assert!(plain(ids.uid) && plain(ids.gid), "{ids:?}");
    assert!(ids.groups.contains(&ids.gid) && ids.groups.contains(&3000) && ids.groups.is_sorted());
    assert!(ids.groups.iter().all(|group| plain(*group)), "{ids:?}");
    assert!(!ids.home.is_empty());
}

pub(super) fn reference_seeds() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "busybox",
        "user/app:v1",
        "localhost:5000/a/b__c/d--e.f_g:tag",
        "index.docker.io/library/busybox",
        "[::1]:5000/a/b:c",
        "[::1]x/a",
        "[::1]@evil.example/a",
        "Registry.Example:0443/a",
        "a.b:65536/c",
        "192.0.2.1/x:1.0.0-rc.1",
    ]);
    seeds.push(format!("busybox:1@{DIGEST}").into_bytes());
    seeds.push(format!("a.b/{}@{DIGEST}", "c/".repeat(120)).into_bytes());
    seeds
}

fn descriptor(media_type: &str) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": DIGEST, "size": 2, "annotations": null,
        "platform": {"os": "linux", "architecture": "arm", "variant": "v6"}})
}

pub(super) fn document_seeds() -> Vec<Vec<u8>> {
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
    let manifest = json!({"schemaVersion": 2, "config": descriptor("x"), "layers": [layer, layer]});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json"), {"digest": DIGEST, "size": 0}]});
    let ambiguous = json!({"schemaVersion": 2, "manifests": [], "layers": []});
    let parsed: Result<Descriptor, _> = serde_json::from_value(descriptor("y"));
    let mut seeds = vec![
        format!("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8\n{manifest}"),
        format!("\n{index}"),
        format!("application/json\n{ambiguous}"),
        format!("\n{{\"schemaVersion\":1,\"fsLayers\":[],\"config\":{}}}", json!(parsed.ok())),
    ];
    seeds.push(format!("\n{}", json!({"schemaVersion": 2, "config": descriptor("x"), "layers": vec![layer; 201]})));
    seeds.into_iter().map(String::into_bytes).collect()
}

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    let config = json!({"os": "linux", "architecture": "amd64", "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["A=b"], "Cmd": null, "Entrypoint": ["sh"], "User": "1:2", "WorkingDir": "/", "Labels": {"a": "b"},
            "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM"},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]}, "history": [{"empty_layer": true}]});
    let mut seeds = texts(&[r#"{"rootfs":{"diff_ids":null}}"#, r#"{"os":null,"config":null,"rootfs":{}}"#]);
    seeds.push(config.to_string().into_bytes());
    seeds
}

pub(super) fn challenge_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#,
        r#"Bearer realm="https://a/t?x=1", error="invalid_token" scope=a"#,
        r#"bearer realm=http://[::1]:5000/token,service="a \"b\" \\""#,
        r#"Basic realm="x""#,
        r#"Bearer realm="unfinished"#,
        r#"Bearer realm="http://user:secret@host/",,,realm=file:///etc/passwd"#,
        "bWU6YTpi",
        "Bearer =,=,realm==",
    ])
}

pub(super) fn words_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}},{}]}"#,
        r#"{"details":"incorrect username or password","errors":[]}"#,
        r#"{"token":"a","access_token":"b"}"#,
        r#"{"token":"","access_token":null}"#,
        "<html>\noh\x1b[31m",
        r#"{"errors":[{"message":"\u0007\u2028"}]}"#,
    ])
}

pub(super) fn users_seeds() -> Vec<Vec<u8>> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\nbig:x:4294967295:4294967295::\nbroken\n";
    let group = "root:x:0:\nweb:x:34:\nlogs:x:4:daemon, web\nhuge:x:4294967295:web\n";
    let names = ["web", "", "1000", "web:logs", "0:77", ":", "big", "2147483648", "web:huge", "33:"];
    let seed = |(at, name): (usize, &&str)| [&[at as u8], format!("{name}\0{passwd}\0{group}").as_bytes()].concat();
    names.iter().enumerate().map(seed).collect()
}
