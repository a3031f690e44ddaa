//! Row 13 of the classes of faults that have bitten others, over CRI: images that lie about what they hold (CVE-2021-41190),
//! that hide, link and declare what is the host's (CVE-2022-23648, CVE-2025-47290). The other rows are in `security`; what a
//! decompression bomb meets, limits being small there, in `image/tests/lies.rs`.

mod ground;

use std::path::Path;

use gantry_cri::v1;
use ground::shelves::{INDEX, MANIFEST, Shelves, architecture, digest, part};
use ground::{Client, Ground, Tar, with};
use serde_json::{Value, json};
use tonic::Code;

const UNTOUCHED: &str = "untouched";

async fn pull(client: &Client, name: &str) -> Result<String, tonic::Status> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    let request = v1::PullImageRequest { image, ..v1::PullImageRequest::default() };
    Ok(client.images.clone().pull_image(request).await?.into_inner().image_ref)
}

/// Names in a folder of the runtime's state.
fn names(ground: &Ground, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(ground.config.state_dir.join(folder)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything that the images take, once the threads of a failed pull have noticed.
async fn kept(ground: &Ground) -> Vec<Vec<String>> {
    let moving = || ["snapshots/ingest", "snapshots/trash", "images/ingest"].map(|folder| names(ground, folder).len());
    for _ in 0..500 * ground::patience() {
        if moving() == [0, 0, 0] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(moving(), [0, 0, 0]);
    ["snapshots", "snapshots/l", "images/blobs/sha256"].map(|folder| names(ground, folder)).to_vec()
}

fn run() -> Value {
    json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]})
}

fn layer(fill: impl FnOnce(&mut Tar)) -> Vec<u8> {
    let mut layer = Tar::default();
    fill(&mut layer);
    layer.finish()
}

/// A folder of the host's, and how an image would lead there.
fn victim(ground: &Ground) -> (std::path::PathBuf, String) {
    let victim = ground.dir.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("file"), UNTOUCHED).unwrap();
    let out = format!("../../../../../../../..{}", victim.display());
    (victim, out)
}

fn is_untouched(victim: &Path) {
    let left: Vec<_> = std::fs::read_dir(victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
    assert_eq!(std::fs::read_to_string(victim.join("file")).unwrap(), UNTOUCHED);
}

#[test]
fn row_13_documents_that_say_two_things_or_too_much_are_refused() {
    with(|ground| async move {
        let mut shelves = Shelves::default();
        let honest =
            shelves.image("a", &["honest"], architecture(), &[layer(|l| ground::file(l, "f", b"x", 0o644))], &run());
        let with = |change: &dyn Fn(&mut Value)| {
            let mut manifest = honest.clone();
            change(&mut manifest);
            manifest
        };
        let entry = part(MANIFEST, honest.to_string().as_bytes());
        let cases = [
            ("both", MANIFEST, with(&|m| m["manifests"] = json!([entry])), "both an index and a manifest"),
            (
                "both-untyped",
                "",
                with(&|m| {
                    m["manifests"] = json!([entry]);
                    m["mediaType"] = Value::Null;
                }),
                "both an index and a manifest",
            ),
            ("envelope", INDEX, honest.clone(), "its envelope"),
            ("no-image", "", with(&|m| m["mediaType"] = "application/vnd.example.chart".into()), "vnd.example.chart"),
            ("old", "", json!({"schemaVersion": 1, "fsLayers": []}), "manifest.v1+json"),
            ("no-layer", "", with(&|m| m["layers"][0]["mediaType"] = "text/html".into()), "\"text/html\""),
            ("long", "", with(&|m| m["annotations"] = json!({"a": "x".repeat(5 << 20)})), "manifest has more than"),
            ("many", "", with(&|m| m["layers"] = vec![m["layers"][0].clone(); 1000].into()), "1000 layers, more than"),
            ("large", "", with(&|m| m["config"]["size"] = (1_u64 << 40).into()), "image configuration is"),
            ("short", "", with(&|m| m["layers"][0]["size"] = 1.into()), "more than the 1 bytes"),
            ("fewer", "", with(&|m| m["layers"] = json!([])), "0 layers, the configuration 1"),
        ];
        for (tag, kind, document, _) in &cases {
            shelves.document("a", &[tag], kind, document);
        }
        // Something else under a digest, of the same length and of another.
        let blob = honest["layers"][0]["digest"].as_str().unwrap().to_owned();
        let size = honest["layers"][0]["size"].as_u64().unwrap() as usize;
        for (repository, bytes) in [("same-length", vec![0; size]), ("longer", vec![0; size + 512])] {
            shelves.document(repository, &["1"], MANIFEST, &honest);
            let config = honest["config"]["digest"].as_str().unwrap();
            let content = shelves.0[&format!("a/blobs/{config}")].1.clone();
            shelves.blob(repository, config, &content);
            shelves.blob(repository, &blob, &bytes);
        }
        let (runtime, client) = ground.serve().await;
        let host = shelves.serve().await;
        let before = kept(&ground).await;
        let lies = [("same-length:1", "digest is"), ("longer:1", "more than the")];
        let documents = cases.iter().map(|(tag, _, _, words)| (format!("a:{tag}"), *words));
        for (name, words) in documents.chain(lies.map(|(name, words)| (name.to_owned(), words))) {
            let error = pull(&client, &format!("{host}/{name}")).await.expect_err(&name);
            assert!(error.code() == Code::DataLoss && error.message().contains(words), "{name}: {error}");
            assert_eq!(kept(&ground).await, before, "{name}");
        }
        pull(&client, &format!("{host}/a:honest")).await.expect("it hurts nobody else");
        ground::finish(runtime).await;
    });
}

#[test]
fn row_13_layers_that_hide_or_link_what_is_not_theirs_are_refused() {
    with(|ground| async move {
        let (victim, out) = victim(&ground);
        let lower = layer(|l| {
            ground::file(l, "mine", b"x", 0o644);
            ground::link(l, "out", &out);
            ground::link(l, "outfile", &format!("{out}/file"));
        });
        let cases: [(&str, Vec<u8>, &str); 11] = [
            ("dot", layer(|l| ground::file(l, "a/.wh..", b"", 0o644)), ".wh.."),
            ("dots", layer(|l| ground::file(l, ".wh...", b"", 0o644)), ".wh..."),
            ("nothing", layer(|l| ground::file(l, ".wh.", b"", 0o644)), ".wh."),
            ("up", layer(|l| ground::file(l, "../.wh.file", b"", 0o644)), "../.wh.file"),
            ("as-on-disk", layer(|l| ground::node(l, "mine", 0, 0)), "device 0/0"),
            (
                "hidden",
                layer(|l| {
                    ground::file(l, ".wh.mine", b"", 0o644);
                    ground::hard_link(l, "again", "mine");
                }),
                "what the layer hides",
            ),
            ("the-hosts", layer(|l| ground::hard_link(l, "x", &victim.join("file").to_string_lossy())), "in no layer"),
            ("through-a-link", layer(|l| ground::hard_link(l, "x", "out/file")), "in no layer"),
            ("a-link", layer(|l| ground::hard_link(l, "x", "outfile")), "not a regular file"),
            ("above", layer(|l| ground::hard_link(l, "x", &format!("{out}/file"))), "\"../"),
            (
                "above-by-a-link",
                layer(|l| {
                    ground::link(l, "up", &out);
                    ground::hard_link(l, "x", "up/file");
                }),
                "in no layer",
            ),
        ];
        let mut shelves = Shelves::default();
        for (tag, upper, _) in &cases {
            shelves.image("a", &[tag], architecture(), &[lower.clone(), upper.clone()], &run());
        }
        let (runtime, client) = ground.serve().await;
        let host = shelves.serve().await;
        let before = kept(&ground).await;
        for (tag, _, words) in cases {
            let error = pull(&client, &format!("{host}/a:{tag}")).await.expect_err(tag);
            assert!(error.code() == Code::InvalidArgument && error.message().contains(words), "{tag}: {error}");
            assert_eq!(kept(&ground).await, before, "{tag}");
            is_untouched(&victim);
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn row_13_what_layers_hide_is_theirs_and_volumes_are_the_containers() {
    with(|ground| async move {
        let (victim, out) = victim(&ground);
        let mut lower = ground::busybox_tar();
        ground::link(&mut lower, "out", &out);
        ground::link(&mut lower, "absolute", &victim.to_string_lossy());
        for name in ["gone", "kept", "opaque/old", "swapped/old"] {
            ground::file(&mut lower, name, b"below", 0o644);
        }
        // Through the links of its own layer, through those of the one below, and past the root.
        let upper = layer(|l| {
            ground::link(l, "own", &out);
            for name in ["own/.wh.file", "out/.wh.file", "absolute/.wh..wh..opq", "out/new", ".wh.gone", ".wh..wh.aufs"]
            {
                ground::file(l, name, b"", 0o644);
            }
            ground::file(l, "opaque/new", b"above", 0o644);
            ground::file(l, "opaque/.wh..wh..opq", b"", 0o644);
            // Hidden, and there again as something else.
            ground::file(l, ".wh.swapped", b"", 0o644);
            ground::link(l, "swapped", &out);
            ground::hard_link(l, "again", "kept");
        });
        let volumes = json!({"/own": {}, "/../../past": {}, "/through/../../out": {}, "/swapped": {}});
        let run = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": volumes});
        let whole = layer(|l| ground::file(l, ".wh..wh..opq", b"", 0o644));
        let mut shelves = Shelves::default();
        shelves.image("a", &["1"], architecture(), &[lower.finish(), upper], &run);
        let base = ground::busybox_tar().finish();
        let old = layer(|l| ground::file(l, "old", b"below", 0o644));
        shelves.image("a", &["root"], architecture(), &[old, whole, base], &json!({"Env": ["PATH=/bin"]}));
        let (runtime, client) = ground.serve().await;
        let host = shelves.serve().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let start = async |name: &str, image: String| {
            pull(&client, &image).await.expect("it is pulled");
            let mut container = ground.container(name, &["sleep", "1000"]);
            container.image = Some(v1::ImageSpec { image, ..v1::ImageSpec::default() });
            client.started(&pod, container, &config).await
        };
        let id = start("c", format!("{host}/a:1")).await;
        let tree = "cd /; for d in own out absolute swapped past; do for f in $d/*; do echo $f; cat $f; done; done 2>/dev/null";
        let said = client.said(&id, tree).await;
        assert!(!said.contains(UNTOUCHED), "what is the host's is read: {said}");
        let said = client.said(&id, "cd /; ls gone opaque; cat kept again").await;
        assert!(said.contains("gone: No such file") && said.contains("opaque:\nnew"), "{said}");
        assert!(said.contains("belowbelow") && !said.contains("old"), "{said}");
        let write =
            "for d in own out absolute swapped past; do echo pwned > /$d/file; echo pwned > /$d/more; done 2>/dev/null";
        client.said(&id, write).await;
        is_untouched(&victim);
        // A root that is opaque hides everything below it.
        let id = start("root", format!("{host}/a:root")).await;
        assert!(client.said(&id, "ls /old").await.contains("No such file"));
        client.remove_pod(&pod).await;
        is_untouched(&victim);
        assert!(!Path::new("/past").exists());
        assert_eq!(names(&ground, "snapshots/c"), Vec::<String>::new());
        ground::finish(runtime).await;
    });
}

/// Who asks for the same at once gets the same, unpacked once; and who lies about it beside them hurts nobody.
#[test]
fn row_13_a_layer_has_one_writer() {
    with(|ground| async move {
        let mut shelves = Shelves::default();
        let shared = layer(|l| {
            for at in 0..200 {
                ground::file(l, &format!("f{at}"), &[at as u8; 4000], 0o644);
            }
        });
        for at in 0..4 {
            let own = layer(|l| ground::file(l, &format!("own{at}"), b"x", 0o644));
            let manifest = shelves.image(&format!("i{at}"), &["1"], architecture(), &[shared.clone(), own], &run());
            let liar = format!("liar{at}");
            shelves.document(&liar, &["1"], MANIFEST, &manifest);
            let config = manifest["config"]["digest"].as_str().unwrap();
            let content = shelves.0[&format!("i{at}/blobs/{config}")].1.clone();
            shelves.blob(&liar, config, &content);
            shelves.blob(&liar, &digest(&shared), &vec![b'x'; shared.len()]);
        }
        let (runtime, client) = ground.serve().await;
        let host = shelves.serve().await;
        let before = kept(&ground).await;
        let mut pulls = tokio::task::JoinSet::new();
        for turn in 0..3 {
            for at in 0..4 {
                let names = [format!("{host}/i{at}:1"), format!("{host}/liar{at}:1")];
                for name in names {
                    let client = client.clone();
                    pulls.spawn(async move { (turn, name.clone(), pull(&client, &name).await) });
                }
            }
        }
        while let Some(pulled) = pulls.join_next().await {
            let (turn, name, ended) = pulled.unwrap();
            // A liar's layer may be here already, from somebody else, by the time that it would be asked for.
            assert!(ended.is_ok() || name.contains("liar"), "{turn} {name}: {ended:?}");
        }
        let after = kept(&ground).await;
        assert_eq!(after[0].len(), before[0].len() + 5, "one shared, four of their own");
        let image = runtime.images().resolve(&format!("{host}/i0:1")).expect("it is here");
        let folder = runtime.images().layers(&image).pop().expect("the lowest");
        for at in 0..200 {
            assert_eq!(std::fs::read(folder.join(format!("f{at}"))).unwrap(), [at as u8; 4000]);
        }
        ground::finish(runtime).await;
    });
}
