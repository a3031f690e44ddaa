use serde_json::json;

use super::*;

fn descriptor(media_type: &str, platform: Option<(&str, &str, Option<&str>)>) -> serde_json::Value {
    let mut value = json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1});
    if let Some((os, architecture, variant)) = platform {
        value["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
    }
    value
}

fn parse(value: &serde_json::Value, outside: Option<&str>) -> Result<Document, ManifestError> {
    parse_document(&serde_json::to_vec(value).unwrap(), outside)
}

fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
}

#[test]
fn a_document_with_two_faces_is_refused() {
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", None);
    let config = descriptor("application/vnd.oci.image.config.v1+json", None);
    let both = json!({"schemaVersion": 2, "manifests": [], "config": config, "layers": [layer]});
    assert!(matches!(parse(&both, None), Err(ManifestError::Ambiguous)));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    assert!(matches!(parse(&manifest, None), Ok(Document::Manifest(_))));
    assert!(matches!(parse(&manifest, Some(OCI_INDEX)), Err(ManifestError::Ambiguous)));
    let named = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
    assert!(parse(&named, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).is_ok());
    assert!(matches!(parse(&named, Some(OCI_INDEX)), Err(ManifestError::MediaTypesDiffer { .. })));
    let old = json!({"schemaVersion": 1, "fsLayers": []});
    assert!(parse(&old, None).unwrap_err().to_string().contains("manifest.v1+json"));
}

#[test]
fn a_layer_of_an_unknown_kind_is_refused_by_name() {
    let config = descriptor("application/vnd.oci.image.config.v1+json", None);
    let layer = descriptor("application/vnd.example.helm.chart", None);
    let error = parse(&json!({"schemaVersion": 2, "config": config, "layers": [layer]}), None).unwrap_err();
    assert!(error.to_string().contains("vnd.example.helm.chart"));
}

#[test]
fn the_platform_decides() {
    let entries = json!([
        descriptor(OCI_MANIFEST, Some(("linux", "arm", Some("v6")))),
        descriptor(OCI_MANIFEST, Some(("linux", "arm", Some("v7")))),
        descriptor(OCI_MANIFEST, Some(("linux", "arm64", Some("v8")))),
        descriptor(OCI_MANIFEST, Some(("windows", "amd64", None))),
        descriptor(OCI_MANIFEST, Some(("linux", "amd64", None))),
        descriptor(OCI_MANIFEST, Some(("unknown", "unknown", None))),
    ]);
    let entries: Vec<Descriptor> = serde_json::from_value(entries).unwrap();
    let chosen = |text: &str| {
        choose(&entries, &platform(text)).map(|entry| entries.iter().position(|other| other == entry).unwrap())
    };
    assert_eq!(chosen("linux/amd64").unwrap(), 4);
    assert_eq!(chosen("linux/arm/v7").unwrap(), 1);
    assert_eq!(chosen("linux/arm64/v8").unwrap(), 2);
    assert_eq!(chosen("linux/arm64").unwrap(), 2);
    let error = chosen("linux/s390x").unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/amd64"), "{error}");
}

#[test]
fn go_writes_null_for_nothing() {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": null, "Cmd": ["sh"], "Entrypoint": null, "Volumes": {"/data": {}}, "Labels": null,
                   "User": "", "Unknown": 1},
        "rootfs": {"type": "layers", "diff_ids": null},
    });
    let config = parse_config(&serde_json::to_vec(&config).unwrap()).unwrap();
    assert_eq!(config.run.cmd, ["sh"]);
    assert!(config.run.env.is_empty() && config.diff_ids.is_empty());
    assert!(config.run.volumes.contains_key("/data"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = parse_document(&bytes, None);
        let _ = parse_config(&bytes);
    }
}
