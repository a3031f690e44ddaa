//! Values at rest, keys that are exchanged, and what nobody can open.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::store::embedded::{Commits, MemoryDisk};
use crate::store::{Cache, Embedded};

const OLD: &str = "name: old, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const NEW: &str = "name: new, secret: YWJjZGVmZ2hpamtsbW5vcA==";
const PRECIOUS: &str = "a very precious value";

fn configuration(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: [{providers}]\n"
    )
}

fn rules(providers: &str) -> Arc<Rules> {
    Arc::new(config::parse(&configuration(providers)).unwrap())
}

fn aes(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{{{key}}}")).collect();
    format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn object(name: &str) -> Bytes {
    format!(r#"{{"metadata":{{"name":"{name}"}},"data":"{PRECIOUS}"}}"#).into()
}

async fn put(store: &dyn Store, text: &str) -> Revision {
    let key = key(text);
    let value = object(&key.reference().name);
    store.write(vec![], vec![Op::Put { key, value }]).await.unwrap()
}

fn holds(disk: &MemoryDisk) -> bool {
    memchr::memmem::find(&disk.contents(), PRECIOUS.as_bytes()).is_some()
}

#[tokio::test]
async fn the_disk_does_not_have_what_the_store_answers() {
    let disk = Arc::new(MemoryDisk::default());
    let raw: Arc<dyn Store> = Arc::new(Embedded::open(disk.clone(), Commits::Inline).unwrap());
    let store = Encrypted::new(raw.clone(), rules(&aes(&[OLD])));
    put(&store, "secrets/a/b").await;
    let second = put(&store, "secrets/a/b").await;
    assert!(!holds(&disk), "the secret is on the disk");
    let stored = raw.get(&key("secrets/a/b"), None).await.unwrap().unwrap().value;
    assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:old:"));
    assert_eq!(store.get(&key("secrets/a/b"), None).await.unwrap().unwrap().value, object("b"));
    assert_eq!(store.list("secrets/", "", 9, Some(1)).await.unwrap().items[0].value, object("b"));
    let refused = vec![Compare { key: key("secrets/a/b"), expect: Expect::Absent }];
    let ops = vec![Op::Put { key: key("secrets/a/b"), value: object("b") }];
    let Err(StoreError::Conflict(conflict)) = store.write(refused, ops).await else { panic!("written twice") };
    assert_eq!(conflict.current, Some(Versioned { value: object("b"), revision: second }));
    let batch = store.watch("", 0).await.unwrap().next().await.unwrap();
    let values: Vec<_> = batch.changes.into_iter().map(|change| (change.value, change.previous)).collect();
    assert_eq!(values, [(Some(object("b")), None), (Some(object("b")), Some(1))]);
    // No two are alike, and what is of another kind is as it is.
    assert_ne!(raw.get(&key("secrets/a/b"), Some(1)).await.unwrap().unwrap().value, stored);
    put(&store, "configmaps/a/b").await;
    assert!(holds(&disk));
}

#[tokio::test]
async fn keys_are_exchanged_by_configuration() {
    let raw: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
    put(&*raw, "secrets/a/plain").await;
    let from_old = Encrypted::new(raw.clone(), rules(&format!("{}, {{identity: {{}}}}", aes(&[OLD]))));
    put(&from_old, "secrets/a/old").await;
    assert_eq!(from_old.list("", "", 9, None).await.unwrap().items.len(), 2);
    let both = Encrypted::new(raw.clone(), rules(&format!("{}, {{identity: {{}}}}", aes(&[NEW, OLD]))));
    put(&both, "secrets/a/new").await;
    assert_eq!(both.rewrite().await.unwrap(), 2);
    assert_eq!(both.rewrite().await.unwrap(), 0, "a second time there is nothing to do");
    let only_new = Encrypted::new(raw.clone(), rules(&aes(&[NEW])));
    let page = only_new.list("", "", 9, None).await.unwrap();
    assert_eq!(
        page.items.iter().map(|item| item.value.clone()).collect::<Vec<_>>(),
        ["new", "old", "plain"].map(object)
    );
    // And back to none.
    let none = Encrypted::new(raw.clone(), rules(&format!("{{identity: {{}}}}, {}", aes(&[NEW]))));
    assert_eq!(none.rewrite().await.unwrap(), 3);
    assert_eq!(raw.get(&key("secrets/a/old"), None).await.unwrap().unwrap().value, object("old"));
}

#[tokio::test]
async fn what_nobody_can_open_is_named_and_never_missing() {
    let raw: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
    put(&Encrypted::new(raw.clone(), rules(&aes(&[OLD]))), "secrets/a/b").await;
    let impostor = OLD.replace("MDEy", "MDEx");
    for (providers, why) in [
        (aes(&[NEW]), "the key \"old\" of aesgcm"),
        (format!("{{identity: {{}}}}, {}", aes(&[NEW])), "the key \"old\" of aesgcm"),
        (aes(&[&impostor]), "does not open it"),
    ] {
        let store = Encrypted::new(raw.clone(), rules(&providers));
        let get = store.get(&key("secrets/a/b"), None).await.unwrap_err();
        let list = store.list("", "", 9, None).await.unwrap_err();
        let watch = store.watch("", 0).await.unwrap().next().await.unwrap_err();
        let start = Cache::start(Arc::new(store)).await.err().unwrap();
        for error in [get, list, watch, start] {
            let text = error.to_string();
            assert!(text.contains("secrets/a/b") && text.contains(why), "{text}");
        }
    }
    // Without any configuration the value is no less encrypted.
    let bare = Encrypted::new(raw.clone(), Arc::default());
    assert!(matches!(bare.get(&key("secrets/a/b"), None).await, Err(StoreError::Sealed { .. })));
    // One that was put in the place of another does not open.
    let value = raw.get(&key("secrets/a/b"), None).await.unwrap().unwrap().value;
    raw.write(vec![], vec![Op::Put { key: key("secrets/a/c"), value }]).await.unwrap();
    let store = Encrypted::new(raw.clone(), rules(&aes(&[OLD])));
    let moved = store.get(&key("secrets/a/c"), None).await.unwrap_err().to_string();
    assert!(moved.contains("secrets/a/c") && moved.contains("does not open it"), "{moved}");
    // What is in the clear is not taken where that is not foreseen.
    put(&*raw, "secrets/a/d").await;
    let plain = store.get(&key("secrets/a/d"), None).await.unwrap_err().to_string();
    assert!(plain.contains("not encrypted"), "{plain}");
}

#[test]
fn keys_of_every_size_open_what_they_have_sealed() {
    for bytes in [16, 24, 32] {
        use base64::Engine;
        let secret = base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
        let rules = rules(&aes(&[&format!("name: k, secret: {secret}")]));
        let place = key("secrets/a/b");
        for length in [0, 1, 15, 16, 4096] {
            let value = Bytes::from(vec![b'{'; length]);
            let sealed = rules.seal(&place, value.clone()).unwrap();
            assert_eq!(rules.open(&place, sealed.clone()).unwrap(), value);
            for at in 0..sealed.len().min(80) {
                let mut bad = sealed.to_vec();
                bad[at] ^= 1;
                assert!(rules.open(&place, bad.into()).is_err(), "byte {at}");
                assert!(rules.open(&place, sealed.slice(..at)).is_err(), "cut at {at}");
            }
        }
    }
}

#[test]
fn the_first_rule_that_names_a_kind_is_that_kinds() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [events]\n  providers: [{{identity: {{}}}}]\n\
         - resources: ['*.apps', pandas.bears.example]\n  providers: [{}]\n\
         - resources: ['*.']\n  providers: [{}]\n",
        aes(&[NEW]),
        aes(&[OLD]),
    );
    let rules = config::parse(&text).unwrap();
    let first = |kind: &str| {
        let sealed = rules.seal(&key(&format!("{kind}/a/b")), Bytes::from("{}")).unwrap();
        String::from_utf8_lossy(&sealed[..sealed.len().min(21)]).into_owned()
    };
    assert_eq!(first("events"), "{}");
    assert_eq!(first("deployments.apps"), "k8s:enc:aesgcm:v1:new");
    assert_eq!(first("pandas.bears.example"), "k8s:enc:aesgcm:v1:new");
    assert_eq!(first("secrets"), "k8s:enc:aesgcm:v1:old");
    assert_eq!(first("events.events.k8s.io"), "{}");
    let all = config::parse(&text.replace("'*.'", "'*.*'")).unwrap();
    let own = key("compactions.internal.gantry/marks");
    assert_eq!(all.seal(&own, Bytes::from("{}")).unwrap(), "{}");
    assert!(all.seal(&key("leases.coordination.k8s.io/a/b"), Bytes::from("{}")).unwrap().len() > 2);
}

#[test]
fn a_configuration_that_is_not_understood_is_refused_by_name() {
    let refused = |text: &str| config::parse(text).unwrap_err().to_string();
    for (providers, field) in [
        ("{aescbc: {keys: []}}".to_owned(), "resources[0].providers[0].aescbc"),
        ("{kms: {}}".to_owned(), "resources[0].providers[0].kms"),
        ("{rot13: {}}".to_owned(), "resources[0].providers[0].rot13"),
        ("{}".to_owned(), "resources[0].providers[0]"),
        ("{identity: {a: b}}".to_owned(), "resources[0].providers[0].identity.a"),
        ("{aesgcm: {keys: []}}".to_owned(), "resources[0].providers[0].aesgcm.keys"),
        (aes(&[OLD, OLD]), "resources[0].providers[0].aesgcm.keys[1].name"),
        (aes(&["name: 'a:b', secret: ''"]), "resources[0].providers[0].aesgcm.keys[0].name"),
        (aes(&["name: a, secret: '!'"]), "resources[0].providers[0].aesgcm.keys[0].secret"),
        (aes(&["name: a, secret: YWJj"]), "has 3"),
        (String::new(), "resources[0].providers"),
    ] {
        let error = refused(&configuration(&providers));
        assert!(error.contains(field), "{providers}: {error}");
    }
    let good = configuration("{identity: {}}");
    for (from, to, field) in [
        ("apiserver.config.k8s.io/v1", "v1", "apiVersion"),
        ("EncryptionConfiguration", "Secret", "kind"),
        ("secrets", "'*'", "resources[0].resources[0]"),
        ("[secrets]", "[secrets, secrets]", "resources[0].resources[1]"),
        ("[secrets]", "[]", "resources[0].resources"),
        ("resources:\n", "resource:\n", "resource"),
    ] {
        let error = refused(&good.replacen(from, to, 1));
        assert!(error.contains(field), "{to}: {error}");
    }
    assert!(refused("{").contains("not YAML"));
    assert!(!refused(&configuration(&aes(&["name: a, secret: YWJj"]))).contains("YWJj"), "a secret is told");
}
