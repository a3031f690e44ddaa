//! What is done with stores: snapshots while a control service runs, restores, copies from one backend to the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_client::{Client, Query};
use gantry_control::auth::Identity;
use gantry_control::control::STORE_FILE;
use gantry_control::http::paths::SNAPSHOT;
use gantry_control::store::encrypted::{self, Rules};
use gantry_control::store::etcd::{Filling, OpenError};
use gantry_control::store::fill::{self, FillError};
use gantry_control::store::snapshot::{Saving, SnapshotError, Summary};
use gantry_control::store::{Etcd, Item, Revision, Store, StoreError};
use gantry_control::{Control, StoreConfig};
use gantry_kube::resource::{CONFIG_MAP, SECRET};
use gantry_kube::{Object, Ref};
use gantry_tests::api;
use gantry_tests::etcd_cluster::{EtcdCluster, newest_program};
use serde_json::json;

async fn start(folder: &Path, store: StoreConfig) -> (Control, Client) {
    let control = Control::start(gantry_control::Config { store, ..api::config(folder, false) }).await.unwrap();
    // Over the wire, as the command does it.
    let client = Client::connect(&folder.join("admin.kubeconfig"), "test").await.unwrap();
    (control, client)
}

fn config_map(name: &str, turn: u64) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"turn": turn.to_string(), "filler": "x".repeat(700)},
    }))
    .unwrap()
}

async fn save(client: &Client, file: &Path) -> Summary {
    let mut pieces = client.pieces(SNAPSHOT).await.unwrap();
    let mut saving = Saving::begin(file).unwrap();
    while let Some(piece) = pieces.next().await.unwrap() {
        saving.write(&piece).unwrap();
    }
    saving.finish().unwrap()
}

/// Everything but revisions, and what a store notes of its own.
fn contents(items: &[Item]) -> Vec<(String, String)> {
    let seen = items.iter().filter(|item| item.key.kind() != "compactions.internal.gantry");
    seen.map(|item| (item.key.to_string(), String::from_utf8_lossy(&item.value).into_owned())).collect()
}

async fn everything(store: &dyn Store, at: Option<Revision>) -> Vec<Item> {
    store.list("", "", usize::MAX, at).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_under_load_is_restored_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (control, client) = start(folder.path(), StoreConfig::Embedded).await;
    for n in 0..500 {
        client.create(&CONFIG_MAP, &config_map(&format!("c{n:03}"), 0)).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let at = Ref::new("default", format!("c{:03}", (turn * 4 + writer) % 500));
                    let mut found = client.get(&CONFIG_MAP, &at).await.unwrap();
                    found.map_mut("data").insert("turn".to_owned(), json!(turn.to_string()));
                    client.update(&CONFIG_MAP, &found).await.unwrap();
                }
            })
        })
        .collect();
    let file = folder.path().join("saved");
    let summary = save(&client, &file).await;
    stop.store(true, Ordering::Relaxed);
    for writer in load {
        writer.await.unwrap();
    }
    let before = everything(&*control.router().server().backend, Some(summary.revision)).await;
    let newest = control.router().server().backend.current().await.unwrap();
    assert!(newest > summary.revision, "there was no load");
    assert_eq!(before.len() as u64, summary.records);

    // It has every secret: whoever may not read those does not get it.
    let somebody = Identity::new("somebody", ["system:authenticated"]);
    let refused = Client::new(control.client(somebody), "test").pieces(SNAPSHOT).await.err();
    assert_eq!(refused.and_then(|error| error.status().map(|status| status.code)), Some(403));

    // Not while it runs, and not over what is there.
    let path = folder.path().join("control").join(STORE_FILE);
    assert!(matches!(fill::restore(&file, &path, false).await, Err(FillError::Exists { .. })));
    let running = fill::restore(&file, &path, true).await;
    assert!(matches!(running, Err(FillError::Target(StoreError::InUse { .. }))), "{running:?}");
    control.stop().await;

    // A damaged snapshot is refused by name, and what is there stays.
    let mut bytes = std::fs::read(&file).unwrap();
    let name = b"configmaps/default/c123";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + name.len() + 100] ^= 1;
    let damaged = folder.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    match fill::restore(&damaged, &path, true).await {
        Err(FillError::Snapshot { source: SnapshotError::Record { key, .. }, .. }) => {
            assert_eq!(key, "configmaps/default/c123");
        }
        other => panic!("{other:?}"),
    }
    assert!(everything(&*fill::open_file(&path).unwrap(), None).await.len() > 500);

    assert_eq!(fill::restore(&file, &path, true).await.unwrap(), summary);
    assert!(path.with_extension("replaced").exists());
    let restored = fill::open_file(&path).unwrap();
    let after = everything(&*restored, None).await;
    assert_eq!(contents(&after), contents(&before));
    assert!(after.iter().all(|item| item.revision > newest), "a revision was there before");
    drop(restored);

    // It goes on, and whoever watched before is told to list again.
    let (control, client) = start(folder.path(), StoreConfig::Embedded).await;
    let query = Query { resource_version: newest.to_string(), ..Query::default() };
    let mut watch = client.watch(&CONFIG_MAP, Some("default"), &query, 10).await;
    let told = match &mut watch {
        Ok(watch) => watch.next().await.err(),
        Err(_) => watch.err(),
    };
    assert!(told.is_some_and(|error| error.is_gone()));
    client.create(&CONFIG_MAP, &config_map("new", 0)).await.unwrap();
    control.stop().await;
}

/// Whatever is cut off, nothing half filled is taken for a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_move_to_etcd_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, true).unwrap();
    let config = cluster.config("").unwrap();
    let path = folder.path().join("control").join(STORE_FILE);
    let (control, client) = start(folder.path(), StoreConfig::Embedded).await;
    for n in 0..50 {
        client.create(&CONFIG_MAP, &config_map(&format!("c{n}"), 0)).await.unwrap();
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
        "stringData": {"a": "b"}});
    client.create(&SECRET, &Object::from_value(secret).unwrap()).await.unwrap();
    let running = fill::open_file(&path).err();
    assert!(matches!(running, Some(FillError::Source(StoreError::InUse { .. }))), "{running:?}");
    control.stop().await;

    let source = fill::open_file(&path).unwrap();
    let (before, newest) = (everything(&*source, None).await, source.current().await.unwrap());
    // One that was cut off is no store, and can be made again.
    let filling = Filling::begin(&config, newest, false).await.unwrap();
    drop(filling);
    let refused = Etcd::open(&config).await.err();
    assert!(matches!(refused, Some(OpenError::Store(StoreError::Foreign { .. }))), "{refused:?}");
    let summary = fill::copy_to_etcd(&*source, &config, false).await.unwrap();
    assert_eq!(summary.records as usize, contents(&before).len());
    drop(source);
    let again = fill::copy_to_etcd(&*fill::open_file(&path).unwrap(), &config, false).await;
    assert!(matches!(again, Err(FillError::Etcd(OpenError::Store(StoreError::Foreign { .. })))), "{again:?}");

    let moved = Etcd::open(&config).await.unwrap();
    let there = everything(&moved, None).await;
    assert_eq!(contents(&there), contents(&before));
    assert!(there.iter().all(|item| item.revision > newest), "a revision was there before");
    gone(&moved, newest).await;

    let (control, client) = start(folder.path(), StoreConfig::Etcd(config.clone())).await;
    client.create(&CONFIG_MAP, &config_map("in-etcd", 1)).await.unwrap();
    control.stop().await;
    let (there, newest) = (everything(&moved, None).await, moved.current().await.unwrap());
    let refused = fill::copy_to_file(&moved, &path, false).await;
    assert!(matches!(refused, Err(FillError::Exists { .. })));
    fill::copy_to_file(&moved, &path, true).await.unwrap();
    let back = fill::open_file(&path).unwrap();
    let home = everything(&*back, None).await;
    assert_eq!(contents(&home), contents(&there));
    assert!(home.iter().all(|item| item.revision > newest));
    gone(&*back, newest).await;
    drop(back);
    let (control, client) = start(folder.path(), StoreConfig::Embedded).await;
    assert!(client.find(&CONFIG_MAP, &Ref::new("default", "in-etcd")).await.unwrap().is_some());
    control.stop().await;

    // Over what is there: whoever still runs there lists again.
    let mut watch = moved.watch("", moved.current().await.unwrap()).await.unwrap();
    let newest = moved.current().await.unwrap();
    fill::copy_to_etcd(&*fill::open_file(&path).unwrap(), &config, true).await.unwrap();
    let ended = watch.next().await;
    assert!(matches!(ended, Err(StoreError::Compacted { .. })), "{ended:?}");
    assert!(everything(&moved, None).await.iter().all(|item| item.revision > newest));
}

const SECRET_VALUE: &str = "the launch code";

fn encryption(providers: &str) -> Option<Arc<Rules>> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
         resources: [{{resources: [secrets], providers: [{providers}]}}]"
    );
    Some(Arc::new(encrypted::config::parse(&text).unwrap()))
}

fn aes(keys: &[(&str, &str)]) -> String {
    let keys: Vec<String> = keys.iter().map(|(name, secret)| format!("{{name: {name}, secret: {secret}}}")).collect();
    format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
}

fn holds(bytes: &[u8]) -> bool {
    // A secret's data are base64.
    ["the launch code", "dGhlIGxhdW5jaCBjb2Rl"]
        .iter()
        .any(|text| bytes.windows(text.len()).any(|w| w == text.as_bytes()))
}

async fn secret(client: &Client, name: &str) -> String {
    let found = client.get(&SECRET, &Ref::new("default", name)).await.unwrap();
    found.str_at("/data/code").to_owned()
}

/// From a start without encryption over two keys to the second key alone, on either backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_encrypted_at_rest_and_keys_are_exchanged() {
    let one = ("one", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let two = ("two", "YWJjZGVmZ2hpamtsbW5vcA==");
    let steps = [
        None,
        encryption(&format!("{}, {{identity: {{}}}}", aes(&[one]))),
        encryption(&aes(&[one, two])),
        encryption(&aes(&[two, one])),
        encryption(&aes(&[two])),
    ];
    let folder = tempfile::tempdir().unwrap();
    let cluster = EtcdCluster::start(folder.path(), &newest_program(), 1, false).unwrap();
    let config = cluster.config("").unwrap();
    for store in [StoreConfig::Embedded, StoreConfig::Etcd(config.clone())] {
        let place = folder.path().join(if matches!(store, StoreConfig::Embedded) { "embedded" } else { "etcd" });
        std::fs::create_dir_all(&place).unwrap();
        for (turn, encryption) in steps.iter().enumerate() {
            let config = gantry_control::Config {
                store: store.clone(),
                encryption: encryption.clone(),
                ..api::config(&place, false)
            };
            let control = Control::start(config).await.unwrap();
            let client = Client::connect(&place.join("admin.kubeconfig"), "test").await.unwrap();
            let made = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"code": SECRET_VALUE},
                "metadata": {"name": format!("s{turn}"), "namespace": "default"}});
            client.create(&SECRET, &Object::from_value(made).unwrap()).await.unwrap();
            for name in 0..=turn {
                assert_eq!(secret(&client, &format!("s{name}")).await, "dGhlIGxhdW5jaCBjb2Rl");
            }
            // What was written before is written anew.
            let raw = control.router().server().backend.clone();
            let first = [
                "",
                "k8s:enc:aesgcm:v1:one:",
                "k8s:enc:aesgcm:v1:one:",
                "k8s:enc:aesgcm:v1:two:",
                "k8s:enc:aesgcm:v1:two:",
            ][turn];
            let rewritten = async {
                while !raw
                    .list("secrets/default/s", "", 99, None)
                    .await
                    .unwrap()
                    .items
                    .iter()
                    .all(|item| item.value.starts_with(first.as_bytes()))
                {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), rewritten).await.expect("it is not rewritten");
            drop(raw);
            let file = place.join("saved");
            save(&client, &file).await;
            assert_eq!(holds(&std::fs::read(&file).unwrap()), turn == 0, "the snapshot of turn {turn}");
            control.stop().await;
        }
        // A control service that has not the key says which object it cannot read.
        let config = gantry_control::Config {
            store: store.clone(),
            encryption: encryption(&aes(&[one])),
            ..api::config(&place, false)
        };
        let refused = Control::start(config).await.err().expect("it started");
        let text = gantry_env::chain(&refused).to_string();
        assert!(text.contains("secrets/default/s0") && text.contains("\"two\""), "{text}");
    }
    // The last pages of the file that had it in the clear are reused in time; what a store has had encrypted from its
    // first day is nowhere on the disk.
    let place = folder.path().join("fresh");
    let config = gantry_control::Config { encryption: encryption(&aes(&[two])), ..api::config(&place, false) };
    let control = Control::start(config).await.unwrap();
    let client = Client::connect(&place.join("admin.kubeconfig"), "test").await.unwrap();
    let made = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"code": SECRET_VALUE},
        "metadata": {"name": "s", "namespace": "default"}});
    client.create(&SECRET, &Object::from_value(made).unwrap()).await.unwrap();
    client.create(&CONFIG_MAP, &config_map("in-the-clear", 7)).await.unwrap();
    control.stop().await;
    let disk = std::fs::read(place.join("control").join(STORE_FILE)).unwrap();
    assert!(!holds(&disk), "the secret is on the disk");
    assert!(disk.windows(12).any(|window| window == b"in-the-clear"), "the file is not where the objects are");
}

async fn gone(store: &dyn Store, revision: Revision) {
    let watch = store.watch("", revision).await.err();
    assert!(matches!(watch, Some(StoreError::Compacted { .. })), "{watch:?}");
}
