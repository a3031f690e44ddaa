//! Certificates from the authority through a real handshake.

use std::sync::Arc;
use std::time::Duration;

use gantry_env::Env;
use rustls::{ClientConnection, ServerConnection};

use crate::authority::{CA_LIFETIME, LEAF_LIFETIME, request};
use crate::credential::certificates;
use crate::tls::{client_config, server_config};
use crate::{Authority, ClientAuth, Credential, PkiError, Profile, Reloading, Usage};
use crate::{Facts, Peer};

fn env() -> Env {
    Env::system()
}

/// Shuttles bytes until both sides are done, and returns who the server saw.
fn shake(server: rustls::ServerConfig, client: rustls::ClientConfig, name: &str) -> Result<Option<Peer>, String> {
    let mut server = ServerConnection::new(Arc::new(server)).map_err(|e| e.to_string())?;
    let mut client = ClientConnection::new(Arc::new(client), name.to_owned().try_into().map_err(|_| "name")?)
        .map_err(|e| e.to_string())?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).map_err(|e| e.to_string())?;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).map_err(|e| e.to_string())?;
            server.process_new_packets().map_err(|e| e.to_string())?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).map_err(|e| e.to_string())?;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).map_err(|e| e.to_string())?;
            client.process_new_packets().map_err(|e| e.to_string())?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
            assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            return Peer::of_connection(&server).map_err(|e| e.to_string());
        }
    }
    Err("the handshake does not end".to_owned())
}

fn reloading(credential: &Credential) -> Reloading {
    Reloading::new(credential).unwrap()
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let env = env();
    let ca = Authority::create("gantry-ca", &env).unwrap();
    let server = reloading(&ca.issue(&Profile::server("api", ["localhost", "127.0.0.1", "::1"]), &env).unwrap());
    let admin = reloading(&ca.issue(&Profile::client("admin", Some("system:masters")), &env).unwrap());
    let auth = ClientAuth::Optional { ca_pem: ca.certificate_pem() };
    let listen = || server_config(&server, auth, &env.clock).unwrap();
    let dial = |id: Option<&Reloading>| client_config(ca.certificate_pem(), id, &env.clock).unwrap();

    let peer = shake(listen(), dial(Some(&admin)), "localhost").unwrap().unwrap();
    assert_eq!((peer.user.as_str(), peer.groups.as_slice()), ("admin", &["system:masters".to_owned()][..]));
    assert_eq!(peer.fingerprint.len(), 64);
    assert_eq!(shake(listen(), dial(None), "127.0.0.1").unwrap(), None);
    assert!(shake(listen(), dial(None), "elsewhere").unwrap_err().contains("not valid for name"));
}

#[test]
fn another_authoritys_client_and_a_servers_certificate_are_refused() {
    let env = env();
    let (ca, other) = (Authority::create("gantry-ca", &env).unwrap(), Authority::create("gantry-ca", &env).unwrap());
    let server = reloading(&ca.issue(&Profile::server("api", ["localhost"]), &env).unwrap());
    let forged = reloading(&other.issue(&Profile::client("admin", Some("system:masters")), &env).unwrap());
    let as_client = reloading(&ca.issue(&Profile::server("system:masters", ["x"]), &env).unwrap());
    for identity in [forged, as_client] {
        let listen = server_config(&server, ClientAuth::Optional { ca_pem: ca.certificate_pem() }, &env.clock).unwrap();
        let dial = client_config(ca.certificate_pem(), Some(&identity), &env.clock).unwrap();
        assert!(shake(listen, dial, "localhost").is_err());
    }
    let listen = server_config(&server, ClientAuth::Required { ca_pem: ca.certificate_pem() }, &env.clock).unwrap();
    assert!(shake(listen, client_config(ca.certificate_pem(), None, &env.clock).unwrap(), "localhost").is_err());
}

#[test]
fn a_replaced_certificate_serves_the_next_handshake() {
    let env = env();
    let ca = Authority::create("gantry-ca", &env).unwrap();
    let served = reloading(&ca.issue(&Profile::server("one", ["one"]), &env).unwrap());
    let listen = || server_config(&served, ClientAuth::None, &env.clock).unwrap();
    let dial = || client_config(ca.certificate_pem(), None, &env.clock).unwrap();
    let before = listen();
    served.replace(&ca.issue(&Profile::server("two", ["two"]), &env).unwrap()).unwrap();
    assert!(shake(before, dial(), "two").is_ok(), "a configuration made before the exchange serves the new one");
    assert!(shake(listen(), dial(), "one").is_err());
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_before_they_end_and_end_by_our_clock() {
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let env = Env::simulated(start, 1);
    let root = tempfile::tempdir().unwrap();
    let ca = Authority::load_or_create(root.path(), "gantry-ca", &env).unwrap();
    assert_eq!(ca.facts().unwrap().not_after, start + CA_LIFETIME);
    let path = root.path().join("api.pem");
    let profile = Profile::server("api", ["localhost"]);
    let first = ca.load_or_issue(&path, &profile, &env).unwrap();
    assert_eq!(ca.load_or_issue(&path, &profile, &env).unwrap(), first);

    let wider = Profile::server("api", ["localhost", "10.96.0.1"]);
    let second = ca.load_or_issue(&path, &wider, &env).unwrap();
    assert_ne!(second, first, "a new name asks for a new certificate");
    assert_eq!(second.facts().unwrap().names, ["10.96.0.1", "localhost"]);

    tokio::time::advance(LEAF_LIFETIME / 4 * 3).await;
    let third = ca.load_or_issue(&path, &wider, &env).unwrap();
    assert_ne!(third, second, "three quarters of its life are over");
    tokio::time::advance(LEAF_LIFETIME / 2).await;
    assert!(!second.facts().unwrap().is_valid_at(env.clock.now()));
    let serve = server_config(&reloading(&second), ClientAuth::None, &env.clock).unwrap();
    let dial = client_config(ca.certificate_pem(), None, &env.clock).unwrap();
    assert!(shake(serve, dial, "localhost").unwrap_err().contains("expired"));
}

#[test]
fn an_authority_outlives_a_restart_and_refuses_to_lose_its_key() {
    let env = env();
    let root = tempfile::tempdir().unwrap();
    let first = Authority::load_or_create(root.path(), "gantry-ca", &env).unwrap();
    let again = Authority::load_or_create(root.path(), "gantry-ca", &env).unwrap();
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    std::fs::remove_file(root.path().join("ca.key")).unwrap();
    let lost = Authority::load_or_create(root.path(), "gantry-ca", &env);
    assert!(matches!(lost, Err(PkiError::KeyMissing { .. })));

    let other = tempfile::tempdir().unwrap();
    Authority::load_or_create(other.path(), "gantry-ca", &env).unwrap();
    std::fs::copy(other.path().join("ca.key"), root.path().join("ca.key")).unwrap();
    let mixed = Authority::load_or_create(root.path(), "gantry-ca", &env);
    assert!(matches!(mixed, Err(PkiError::Mismatch { .. })), "{mixed:?}");
}

#[test]
fn a_damaged_credential_is_made_anew() {
    let env = env();
    let root = tempfile::tempdir().unwrap();
    let ca = Authority::create("gantry-ca", &env).unwrap();
    let (path, profile) = (root.path().join("a.pem"), Profile::client("a", None));
    let whole = ca.load_or_issue(&path, &profile, &env).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for damage in ["", "nonsense", &text[..text.len() / 2], &text.replace("MI", "MX"), &text[text.len() / 3..]] {
        std::fs::write(&path, damage).unwrap();
        let again = ca.load_or_issue(&path, &profile, &env).unwrap();
        assert!(again != whole && again.certified().is_ok(), "{damage:?}");
        assert_eq!(Credential::load(&path).unwrap().unwrap(), again);
    }
    let stranger = Authority::create("gantry-ca", &env).unwrap();
    assert!(stranger.load_or_issue(&path, &profile, &env).unwrap() != ca.load_or_issue(&path, &profile, &env).unwrap());
}

#[test]
fn a_signing_request_gives_its_key_and_nothing_else() {
    let env = env();
    let ca = Authority::create("gantry-ca", &env).unwrap();
    let (key_pem, csr) = request("system:node:evil", Some("system:masters")).unwrap();
    let mut profile = Profile::client("system:node:a", Some("system:nodes"));
    profile.usage = Usage::Both;
    let certificate_pem = ca.sign(&csr, &profile, &env).unwrap();
    let facts = Facts::of(&certificates(&certificate_pem).unwrap()[0]).unwrap();
    assert_eq!(
        (facts.common_name.as_str(), facts.organizations.as_slice()),
        ("system:node:a", &["system:nodes".to_owned()][..])
    );
    assert!(Credential { certificate_pem, key_pem }.certified().is_ok());
    let broken = csr.replacen("MI", "MH", 1);
    assert!(ca.sign(&broken, &profile, &env).is_err());
    assert!(facts.not_after - Duration::from_secs(1) > env.clock.now());
}

#[test]
fn a_key_in_a_log_shows_nothing() {
    let env = env();
    let ca = Authority::create("gantry-ca", &env).unwrap();
    let credential = ca.issue(&Profile::client("a", None), &env).unwrap();
    assert!(!format!("{credential:?}{ca:?}").contains("PRIVATE"));
}
