use super::*;
use crate::canonical;
use proptest::prelude::*;
use serde_json::json;

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = vec![];
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn len(number: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(u64::from(number) << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn int(number: u32, value: i64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value as u64)].concat()
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [len(1, api_version), len(2, kind)].concat();
    [MAGIC.to_vec(), len(1, meta), len(2, raw), len(3, ""), len(4, "")].concat()
}

fn decoded(api_version: &str, kind: &str, raw: &[u8]) -> Value {
    decode(&body(api_version, kind, raw)).unwrap().into_value()
}

#[test]
fn a_config_map() {
    let metadata = [len(1, "cm"), len(3, "ns"), len(8, ""), len(11, [len(1, "a"), len(2, "b")].concat())].concat();
    let raw = [
        len(1, metadata),
        len(2, [len(1, "k"), len(2, "v")].concat()),
        len(2, [len(1, "empty"), len(2, "")].concat()),
        len(3, [len(1, "bin"), len(2, [0u8, 255])].concat()),
    ]
    .concat();
    assert_eq!(
        decoded("v1", "ConfigMap", &raw),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "ns", "labels": {"a": "b"}},
            "data": {"k": "v", "empty": ""}, "binaryData": {"bin": "AP8="}})
    );
}

/// Bodies as kubectl 1.32 sends them for `create configmap`, `create deployment` and `auth can-i`.
#[test]
fn what_kubectl_sends() {
    let sent = |hex: &str| {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let mut object = decode(&bytes).unwrap();
        let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
        let ty = crate::schema::for_kind(group, version, object.kind()).unwrap();
        assert_eq!(canonical::normalize(ty, &mut object), canonical::Findings::default());
        object.into_value()
    };
    assert_eq!(
        sent(concat!(
            "6b3873000a0f0a0276311209436f6e6669674d6170121c0a120a02636d12001a0022002a0032003800420012060a0161",
            "1201621a002200",
        )),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "b"}})
    );
    assert_eq!(
        sent(concat!(
            "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b0010a1b0a016412001a0022002a003200380042",
            "005a080a036170701201641282010802120a0a080a036170701201641a6a0a1a0a0012001a0022002a00320038004200",
            "5a080a03617070120164124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200",
            "800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a0028003800",
            "1a0c0800100018002000280038001a002200",
        )),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "strategy": {}, "template": {
                "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx",
                    "ports": [{"containerPort": 80}], "resources": {}}]}}}, "status": {}})
    );
    assert_eq!(
        sent(concat!(
            "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a65637441636365",
            "7373526576696577123c0a100a0012001a0022002a00320038004200121e0a1c0a0764656661756c7412036765741a00",
            "22002a04706f647332003a001a08080012001a0020001a002200",
        )),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
            "status": {"allowed": false}})
    );
}

#[test]
fn scalars_inlined_messages_and_lists() {
    let probe = [len(1, len(2, [len(1, "/"), len(2, [int(1, 0), int(2, 80)].concat())].concat())), int(3, 5)].concat();
    let container =
        [len(1, "c"), len(8, len(1, [len(1, "cpu"), len(2, len(1, "500m"))].concat())), len(10, probe), int(18, 0)]
            .concat();
    let volume = [len(1, "v"), len(2, len(2, ""))].concat();
    let security = [int(4, 7), int(4, -1), len(4, [varint(8), varint(9)].concat())].concat();
    let spec = [len(2, container), len(1, volume), int(4, 0), len(14, security)].concat();
    let mut pod = decode(&body("v1", "Pod", &len(2, spec))).unwrap();
    assert_eq!(
        pod.get("/spec").unwrap(),
        &json!({
            "volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
            "securityContext": {"supplementalGroups": [7, -1, 8, 9]},
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}, "tty": false,
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 5}}],
        })
    );
    let ty = crate::schema::for_kind("", "v1", "Pod").unwrap();
    assert_eq!(canonical::normalize(ty, &mut pod), canonical::Findings::default());
    assert!(pod.get("/spec/containers/0/tty").is_none());
}

#[test]
fn times_and_ports() {
    let time = |seconds, nanos| [int(1, seconds), int(2, nanos)].concat();
    let lease = len(2, [len(4, time(1_700_000_000, 5_000)), len(3, time(0, 0)), len(1, "me")].concat());
    assert_eq!(
        decoded("coordination.k8s.io/v1", "Lease", &lease)["spec"],
        json!({"renewTime": "2023-11-14T22:13:20.000005Z", "acquireTime": "1970-01-01T00:00:00.000000Z",
            "holderIdentity": "me"})
    );
    for none in [vec![], time(-62_135_596_800, 0)] {
        assert_eq!(decoded("coordination.k8s.io/v1", "Lease", &len(2, len(4, none)))["spec"], json!({}));
    }
    let port = |target: Vec<u8>| len(2, len(1, [int(3, 80), len(4, target)].concat()));
    let service = |target| decoded("v1", "Service", &port(target))["spec"]["ports"][0]["targetPort"].clone();
    assert_eq!(service([int(1, 1), len(3, "web")].concat()), "web");
    assert_eq!(service([int(1, 0), int(2, 8080)].concat()), 8080);
    assert_eq!(service(vec![]), 0);
}

#[test]
fn the_bodies_that_are_no_objects_of_the_store() {
    let options = [int(1, 0), len(2, len(1, "uid")), len(4, "Background")].concat();
    assert_eq!(
        decoded("apps/v1", "DeleteOptions", &options),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "uid"},
            "propagationPolicy": "Background"})
    );
    assert_eq!(decoded("autoscaling/v1", "Scale", &len(2, int(1, 3)))["spec"], json!({"replicas": 3}));
    let review = len(2, len(1, [len(1, "ns"), len(2, "get"), len(5, "pods")].concat()));
    assert_eq!(
        decoded("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review)["spec"]["resourceAttributes"],
        json!({"namespace": "ns", "verb": "get", "resource": "pods"})
    );
    let extra = len(5, [len(1, "k"), len(2, [len(1, "a"), len(1, "b")].concat())].concat());
    assert_eq!(
        decoded("authorization.k8s.io/v1", "SubjectAccessReview", &len(2, [extra, len(3, "me")].concat()))["spec"],
        json!({"user": "me", "extra": {"k": ["a", "b"]}})
    );
    let token = len(2, [len(1, "aud"), int(4, 600)].concat());
    assert_eq!(
        decoded("authentication.k8s.io/v1", "TokenRequest", &token)["spec"],
        json!({"audiences": ["aud"], "expirationSeconds": 600})
    );
}

#[test]
fn a_body_may_leave_its_kind_to_the_endpoint() {
    let nameless = [MAGIC.to_vec(), len(2, int(1, 5))].concat();
    assert_eq!(
        decode_as(&nameless, "v1", "DeleteOptions").unwrap().into_value(),
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5})
    );
    assert!(matches!(decode(&nameless), Err(ProtobufError::UnknownKind { .. })));
}

#[test]
fn extensions_are_json_or_objects() {
    let data = |raw: Vec<u8>| decoded("apps/v1", "ControllerRevision", &len(2, len(1, raw)))["data"].clone();
    assert_eq!(data(br#"{"a": 1}"#.to_vec()), json!({"a": 1}));
    assert_eq!(data(body("v1", "Namespace", &[])), json!({"apiVersion": "v1", "kind": "Namespace"}));
    let mut nested = body("v1", "Namespace", &[]);
    for _ in 0..70 {
        nested = body("apps/v1", "ControllerRevision", &len(2, len(1, nested)));
    }
    assert_eq!(decode(&nested), Err(ProtobufError::Depth));
}

#[test]
fn what_is_no_body_is_refused_by_name() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    assert_eq!(decode(b""), Err(ProtobufError::Magic));
    assert_eq!(
        decode(&body("v1", "Nonsense", &[])),
        Err(ProtobufError::UnknownKind { api_version: "v1".into(), kind: "Nonsense".into() })
    );
    let pod = |raw: &[u8]| decode(&body("v1", "Pod", raw)).unwrap_err();
    assert_eq!(pod(&[0x0a, 5]), ProtobufError::Truncated);
    assert_eq!(pod(&[0x0b]), ProtobufError::WireType(3));
    assert_eq!(pod(&[0xff; 12]), ProtobufError::Varint);
    assert_eq!(pod(&int(1, 1)), ProtobufError::FieldType("metadata"));
    assert_eq!(pod(&len(1, len(1, [0xffu8]))), ProtobufError::Utf8("name"));
    let crowd = len(2, [2u8 << 3 | 2, 0].repeat(MAPS_MAX));
    assert_eq!(pod(&crowd), ProtobufError::TooMany);
    let gzip = [MAGIC.to_vec(), len(3, "gzip")].concat();
    assert_eq!(decode(&gzip), Err(ProtobufError::Encoding("gzip".into())));
}

#[test]
fn numbers_that_nobody_knows_are_skipped() {
    let raw = [
        int(99, 1),
        len(500, "x"),
        [varint(70 << 3 | 1), vec![0; 8]].concat(),
        [varint(71 << 3 | 5), vec![0; 4]].concat(),
    ]
    .concat();
    assert_eq!(decoded("v1", "Pod", &raw), json!({"apiVersion": "v1", "kind": "Pod"}));
}

#[test]
fn a_choice_is_what_the_wire_has_of_it() {
    let string = len(5, "string");
    let schema = [
        len(8, len(1, "[1]")),
        len(24, len(1, &string)),
        len(29, [len(1, "a"), len(2, len(24, [len(2, &string), len(2, &string)].concat()))].concat()),
        len(30, [int(1, 1), len(2, &string)].concat()),
        len(32, [len(1, "b"), len(2, len(2, "c"))].concat()),
        len(33, int(1, 0)),
    ]
    .concat();
    let version = [len(1, "v1"), len(4, len(1, schema))].concat();
    let read = decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", &len(2, len(7, version)));
    let wanted = json!({
        "default": [1],
        "items": {"type": "string"},
        "properties": {"a": {"items": [{"type": "string"}, {"type": "string"}]}},
        "additionalProperties": {"type": "string"},
        "dependencies": {"b": ["c"]},
        "additionalItems": false,
    });
    assert_eq!(read["spec"]["versions"][0]["schema"]["openAPIV3Schema"], wanted);
}

/// The published round-trip fixtures: each object as JSON and as protobuf.
#[test]
#[ignore = "needs the sources of k8s.io/api 0.36: set KUBERNETES_API_SOURCE to their folder"]
fn the_published_fixtures_read_the_same_from_both_encodings() {
    let folder = std::env::var("KUBERNETES_API_SOURCE").expect("KUBERNETES_API_SOURCE names the folder");
    let folder = std::path::Path::new(&folder).join("testdata/HEAD");
    let mut compared = 0;
    for ty in crate::schema::all() {
        for kind in &ty.get().kinds {
            let group = if kind.group.is_empty() { "core" } else { kind.group };
            let path = folder.join(format!("{group}.{}.{}.json", kind.version, kind.kind));
            let Ok(text) = std::fs::read(&path) else { continue };
            let mut from_json = Object::from_slice(&text).unwrap();
            let body = std::fs::read(path.with_extension("pb")).unwrap();
            // A watch's event does not say that it is one, in neither encoding.
            let bare = kind.kind == "WatchEvent";
            let mut from_wire = if bare { decode_as(&body, "v1", kind.kind) } else { decode(&body) }
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            if bare {
                from_wire.0.retain(|field, _| matches!(field.as_str(), "type" | "object"));
            }
            assert_eq!(canonical::normalize(ty, &mut from_json), canonical::Findings::default(), "{kind:?}");
            assert_eq!(canonical::normalize(ty, &mut from_wire), canonical::Findings::default(), "{kind:?}");
            assert_eq!(from_json, from_wire, "{kind:?}");
            let written = encode::encode(&from_json).unwrap();
            // `stringData` never goes out: it is in `data` then.
            if kind.kind != "Secret" {
                let published = std::fs::read(path.with_extension("pb")).unwrap();
                assert!(written == published, "{kind:?}:\n{written:02x?}\n{published:02x?}");
            }
            // What Go has printed is canonical already, but for its nulls (a disruption budget maps names to null times) and stringData.
            let mut printed = Object::from_slice(&text).unwrap().into_value();
            strip_nulls(&mut printed);
            if !matches!(kind.kind, "Secret" | "PodDisruptionBudget") {
                assert_eq!(from_json.into_value(), printed, "{kind:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 30, "only {compared} fixtures found");
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0usize..6) {
        let kind = [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Secret"), ("v1", "DeleteOptions"), ("v1", "Node"),
            ("apps/v1", "ControllerRevision")][which];
        let _ = decode(&bytes);
        let _ = decode(&[&MAGIC[..], &bytes].concat());
        let _ = decode(&body(kind.0, kind.1, &bytes));
    }

    #[test]
    fn shaped_bytes_never_panic(fields in prop::collection::vec((1u32..20, 0u8..3, prop::collection::vec(any::<u8>(), 0..8)), 0..20)) {
        let mut raw = vec![];
        for (number, kind, bytes) in fields {
            raw = match kind {
                0 => [raw, int(number, bytes.len() as i64 - 4)].concat(),
                1 => [raw, len(number, bytes)].concat(),
                _ => len(number, raw),
            };
        }
        if let Ok(mut pod) = decode(&body("v1", "Pod", &raw)) {
            canonical::normalize(crate::schema::for_kind("", "v1", "Pod").unwrap(), &mut pod);
        }
    }
}
