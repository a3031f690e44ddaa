//! Objects in all their encodings, and patches of them.
//!
//! A body that is taken is followed as far as pure code goes: its canonical form is its own canonical form, it can be
//! listed and watched, and everything that reads stored objects can read it.

use std::path::Path;

use gantry_control::auth::Identity;
use gantry_control::registry::decode::{self, Patch, PatchKind};
use gantry_control::registry::deletion::{self, Deletion};
use gantry_control::registry::options::FieldValidation;
use gantry_control::registry::{DeleteOptions, columns, strategy, subresource};
use gantry_control::{http::media::BodyFormat, store};
use gantry_kube::pod::{phase, qos, resources};
use gantry_kube::quantity::Quantity;
use gantry_kube::resource::{
    CONFIG_MAP, DEPLOYMENT, ENDPOINT_SLICE, EVENT, LEASE, NODE, POD, SECRET, SERVICE, TOKEN_REVIEW,
};
use gantry_kube::{Object, Resource, Status, protobuf, time, validation};
use gantry_netproxy::model;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::input::{Input, chosen, hex, texts};

const NOW_SECONDS: i64 = 1_767_323_045;
/// How often an object may hold the size of what it was made from: fields that Kubernetes always writes are most of it.
const GROWTH_MAX: usize = 400;
const GROWTH_FLOOR_BYTES: usize = 16 << 10;
/// Some hundred findings of a KiB each, and what quoting adds.
const WARNINGS_MAX_BYTES: usize = 1 << 20;

fn now() -> Timestamp {
    Timestamp::from_second(NOW_SECONDS).unwrap_or_default()
}

pub(super) fn json_body(data: &[u8]) {
    let mut input = Input(data);
    let resource = input.resource();
    taken(resource, input.0, BodyFormat::Json);
}

pub(super) fn yaml_body(data: &[u8]) {
    let mut input = Input(data);
    let resource = input.resource();
    let Some(object) = taken(resource, input.0, BodyFormat::Yaml) else { return };
    // What goes out as YAML is what was stored.
    let printed = serde_saphyr::to_string(&object.0).expect("an object prints as YAML");
    let read = decode::value(printed.as_bytes(), BodyFormat::Yaml);
    let read = read.unwrap_or_else(|status| panic!("{} in\n{printed}", status.message)).value;
    assert_eq!(read, object.into_value(), "YAML reads back as something else:\n{printed}");
}

pub(super) fn protobuf_body(data: &[u8]) {
    let mut input = Input(data);
    let framed = input.byte() % 2 == 0;
    let resource = input.resource();
    let body = if framed { frame(resource, input.0) } else { input.0.to_vec() };
    taken(resource, &body, BodyFormat::Protobuf);
    let Ok(raw) = protobuf::decode_as(&body, &resource.api_version(), resource.kind) else { return };
    // The same object as JSON has the same canonical form, or the same fault.
    let of_json = decode::decode(resource, None, &raw.to_vec(), BodyFormat::Json, FieldValidation::Warn);
    let of_wire = decode::decode(resource, None, &body, BodyFormat::Protobuf, FieldValidation::Warn);
    match (of_json, of_wire) {
        (Ok(json), Ok(wire)) => assert_eq!(json.object, wire.object),
        (Err(json), Err(wire)) => assert_eq!(json.message, wire.message),
        (json, wire) => panic!("as JSON {json:?}, as protobuf {wire:?}"),
    }
}

pub(super) fn frame(resource: &Resource, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, resource.api_version().as_bytes()), field(2, resource.kind.as_bytes())].concat();
    [protobuf::MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// Decodes a body in every mode; the object, if it is one.
fn taken(resource: &Resource, body: &[u8], format: BodyFormat) -> Option<Object> {
    let read = |validation| decode::decode(resource, None, body, format, validation);
    let (warned, strict) = (read(FieldValidation::Warn), read(FieldValidation::Strict));
    match (&warned, &strict) {
        (Ok(warned), Ok(strict)) => {
            assert!(warned.warnings.is_empty(), "strict takes what warn warns of: {:?}", warned.warnings);
            assert_eq!(warned.object, strict.object);
        }
        (Ok(warned), Err(_)) => assert!(!warned.warnings.is_empty(), "strict refuses what warn says nothing of"),
        (Err(_), Ok(_)) => panic!("strict takes what warn refuses"),
        (Err(_), Err(status)) => answered(status),
    }
    let warned = warned.ok()?;
    let told: usize = warned.warnings.iter().map(String::len).sum();
    assert!(told <= WARNINGS_MAX_BYTES, "{told} bytes of warnings");
    let object = warned.object;
    let most = GROWTH_FLOOR_BYTES + GROWTH_MAX * body.len();
    settled(resource, &object, most);
    Some(object)
}

/// A refusal can be sent.
fn answered(status: &Status) {
    assert!((400..500).contains(&status.code), "a client's fault, and not ours: {status:?}");
    assert!(!status.message.is_empty());
    assert!(serde_json::to_vec(&status.to_value()).is_ok());
}

/// The laws of an object that was taken.
fn settled(resource: &Resource, object: &Object, most_bytes: usize) {
    let bytes = object.to_vec();
    assert!(bytes.len() <= most_bytes, "{} bytes were made, {most_bytes} are allowed", bytes.len());
    let again = decode::decode(resource, None, &bytes, BodyFormat::Json, FieldValidation::Strict);
    let again = again.unwrap_or_else(|status| panic!("what was taken is refused as it is stored: {}", status.message));
    assert_eq!(again.object, *object, "the canonical form is not its own canonical form");
    // Lists and watches put it one and two levels deeper.
    let listed = [b"{\"items\":[", &bytes[..], b"]}"].concat();
    assert!(serde_json::from_slice::<Value>(&listed).is_ok(), "it can be stored, and no longer be listed");
    stored(object);
    read_by_all(resource, object);
}

fn stored(object: &Object) {
    let Ok(encoded) = store::encode(object) else { return };
    let parsed = store::Encoded::parse(encoded.bytes.clone()).expect("what is stored can be read");
    assert_eq!(parsed, encoded);
    let spliced = Object::from_slice(&encoded.splice(7)).expect("what goes out is JSON");
    assert_eq!(spliced.resource_version(), "7");
    assert_eq!(spliced.0.len(), object.0.len());
}

/// Whatever reads stored objects: none of it may mind what is in them.
fn read_by_all(resource: &Resource, object: &Object) {
    let mut made = object.clone();
    strategy::of_built_in(resource).create(&mut made, &Identity::default());
    let mut errors = validation::meta::create(resource, &made);
    errors.extend(validation::create(resource, &made));
    if !errors.is_empty() {
        answered(&Status::invalid(resource, made.name(), &errors));
    }
    validation::update(resource, &made, object);
    validation::meta::update(resource, &made, object);
    let table = columns::of(resource);
    assert_eq!((table.cells)(object, now()).len(), table.columns.len());
    let _ = subresource::scale_of(object, None);
    model::Service::project(object);
    model::Slice::project(object);
    resources::requests(object);
    resources::limits(object);
    qos::class(object);
    phase::phase(
        object,
        object.array_at("/status/containerStatuses"),
        object.array_at("/status/initContainerStatuses"),
    );
    let grace = object.i64_at("/spec/terminationGracePeriodSeconds");
    deleted(resource, object, DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() });
}

/// Marks an object as deleted, and then hurries it.
pub(super) fn deleted(resource: &Resource, object: &Object, options: DeleteOptions) {
    let Deletion::Mark(marked) = deletion::plan(resource, object, &options, now()) else { return };
    assert!(object.deletion_timestamp().is_some() || time::parse(marked.str_at("/metadata/deletionTimestamp")).is_ok());
    for seconds in [1, 0] {
        let hurry = DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() };
        deletion::plan(resource, &marked, &hurry, now());
    }
}

pub(super) fn json_patch(data: &[u8]) {
    patched(PatchKind::Json, data);
}

pub(super) fn merge_patch(data: &[u8]) {
    patched(PatchKind::Merge, data);
}

pub(super) fn strategic_patch(data: &[u8]) {
    patched(PatchKind::Strategic, data);
}

/// The patch, and before it (ended by a NUL) the object, where it is to be another than ours.
fn patched(kind: PatchKind, data: &[u8]) {
    let mut input = Input(data);
    let resource = input.resource();
    let own = if input.0.contains(&0) { input.until(0) } else { &[][..] };
    let old =
        decode::decode(resource, None, own, BodyFormat::Json, FieldValidation::Ignore).map(|decoded| decoded.object);
    let old = old.unwrap_or_else(|_| standing(resource));
    let patch = match Patch::read(kind, input.0) {
        Ok(patch) => patch,
        Err(status) => return answered(&status),
    };
    let definition = (resource.group, resource.version, resource.kind);
    let most = GROWTH_FLOOR_BYTES + GROWTH_MAX * data.len() + old.to_vec().len();
    match patch.raw(definition, &old) {
        Ok(raw) => {
            let most = most + gantry_kube::merge::COPIED_MAX_BYTES;
            assert!(raw.to_vec().len() <= most, "a patch of {} bytes made {}", data.len(), raw.to_vec().len());
            if kind == PatchKind::Merge {
                let twice = patch.raw(definition, &raw).expect("a merge patch applies to what it made");
                assert_eq!(twice, raw, "a merge patch changes what it has made");
            }
        }
        Err(status) => answered(&status),
    }
    match patch.apply(resource, None, &old, FieldValidation::Warn) {
        Ok(decoded) => {
            settled(resource, &decoded.object, most + gantry_kube::merge::COPIED_MAX_BYTES);
            let mut new = decoded.object;
            strategy::of_built_in(resource).update(&mut new, &old);
            validation::update(resource, &new, &old);
            validation::meta::update(resource, &new, &old);
        }
        Err(status) => answered(&status),
    }
}

/// An object of the kind, for patches that bring none.
fn standing(resource: &Resource) -> Object {
    let body = match resource.kind {
        "Pod" => pod(),
        "Deployment" => json!({"metadata": {"name": "d", "namespace": "a", "generation": 3}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
            "spec": pod()["spec"].clone()}}}),
        "Service" => json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.7",
            "selector": {"app": "d"}, "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53,
            "protocol": "UDP"}]}}),
        _ => json!({"metadata": {"name": "o", "namespace": "a", "labels": {"a": "b"}, "finalizers": ["x/a", "x/b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}),
    };
    let read = decode::decode(resource, None, body.to_string().as_bytes(), BodyFormat::Json, FieldValidation::Ignore);
    read.map(|decoded| decoded.object).unwrap_or_default()
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "d"}}, "spec": {
        "nodeName": "n", "terminationGracePeriodSeconds": 30,
        "containers": [
            {"name": "web", "image": "nginx:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "500m", "memory": "1.5Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}},
            {"name": "side", "image": "busybox", "command": ["sleep", "1"], "args": ["a"]},
        ],
        "initContainers": [{"name": "i", "image": "busybox", "restartPolicy": "Always"}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "c", "configMap": {"name": "c"}}],
        "imagePullSecrets": [{"name": "s"}],
    }, "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.3"}], "startTime": "2026-01-02T03:04:05Z",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        "containerStatuses": [{"name": "web", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 137, "finishedAt": "2026-01-02T03:00:00Z"}}}]}})
}

pub(super) fn quantity(data: &[u8]) {
    let mut input = Input(data);
    let (one, other) = (input.text_until(b' '), input.text_until(b' '));
    let (Ok(one), other) = (Quantity::parse(&one), Quantity::parse(&other)) else { return };
    let printed = one.to_string();
    let read = Quantity::parse(&printed).expect("a printed quantity is one");
    assert_eq!(read.to_string(), printed, "the canonical form is not its own canonical form");
    let (value, again) = (one.value(), read.value());
    assert!(value == again, "{printed} is worth {again} and not {value}");
    assert!(one.round_up_milli() >= one || one.is_negative());
    qos::cpu_shares(one.milli_value());
    qos::cpu_quota_micros(one.milli_value());
    let Ok(other) = other else { return };
    let (sum, difference) = (one.add(other), one.sub(other));
    assert_eq!(sum, other.add(one));
    assert!(other.is_negative() || (sum >= one && difference <= one));
    for made in [sum, difference, sum.round_up_milli()] {
        Quantity::parse(&made.to_string()).expect("what was computed can be printed and read");
    }
}

pub(super) fn time(data: &[u8]) {
    let parts = data.first_chunk::<12>().and_then(|bytes| {
        let (seconds, nanos) = bytes.split_first_chunk::<8>()?;
        time::from_parts(i64::from_le_bytes(*seconds), i32::from_le_bytes(nanos.try_into().ok()?))
    });
    let text = String::from_utf8_lossy(data);
    for at in [time::parse(&text).ok(), parts].into_iter().flatten() {
        for printed in [time::seconds(at), time::micros(at)] {
            let read = time::parse(&printed).unwrap_or_else(|error| panic!("printed as what is no time: {error}"));
            let whole = |at: Timestamp| at.as_nanosecond().div_euclid(1_000_000_000);
            assert_eq!(whole(read), whole(at), "{printed}");
        }
        columns::since(&time::seconds(at), now());
    }
}

pub(super) fn static_pod(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(pod) = gantry_agent::source::files::parse(Path::new("/etc/gantry/manifests/p.yaml"), &text, "n") else {
        return;
    };
    assert!(!pod.uid().is_empty() && !pod.namespace().is_empty());
    let again = gantry_agent::source::files::parse(Path::new("/etc/gantry/manifests/p.yaml"), &text, "n");
    assert_eq!(again.map(|pod| pod.uid().to_owned()).ok().as_deref(), Some(pod.uid()));
    read_by_all(&POD, &pod);
}

fn body(resource: &Resource, text: &str) -> Vec<u8> {
    [&[chosen(resource)], text.as_bytes()].concat()
}

/// Lists and maps, one inside the other.
fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{}{}", open.repeat(levels), close.repeat(levels))
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        body(&POD, &pod().to_string()),
        body(&DEPLOYMENT, &standing(&DEPLOYMENT).into_value().to_string()),
        body(&SERVICE, &standing(&SERVICE).into_value().to_string()),
        body(&CONFIG_MAP, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","x":"2"}}"#),
        body(&SECRET, r#"{"metadata":{"name":"s"},"data":{"a":"AA=="},"stringData":{"b":"c"},"type":""}"#),
        body(
            &LEASE,
            r#"{"metadata":{"name":"l"},"spec":{"renewTime":"2026-01-02T03:04:05.000006+02:00","leaseDurationSeconds":40}}"#,
        ),
        body(
            &EVENT,
            r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod"},"firstTimestamp":"2026-01-02T03:04:05Z","count":2}"#,
        ),
        body(
            &ENDPOINT_SLICE,
            r#"{"metadata":{"name":"e","labels":{"kubernetes.io/service-name":"s"}},"addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":null}}]}"#,
        ),
        body(
            &NODE,
            r#"{"metadata":{"name":"n"},"spec":{"taints":[{"key":"a","effect":"NoSchedule","timeAdded":null}]},"status":{"capacity":{"cpu":4,"memory":"8Gi","pods":"110"},"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}"#,
        ),
        body(
            &TOKEN_REVIEW,
            r#"{"spec":{"token":"x"},"metadata":{"managedFields":[{"fieldsV1":{"f:a":{"k":1.5e300}}}]}}"#,
        ),
        // A number of more digits than it has.
        body(
            &TOKEN_REVIEW,
            &format!(
                r#"{{"spec":{{"token":"x"}},"metadata":{{"managedFields":[{{"fieldsV1":{{"f:a":1.53333333333{}1421617040919800490e302}}}}]}}}}"#,
                "0".repeat(77)
            ),
        ),
        // Times whose UTC has no four-digit year.
        body(&EVENT, r#"{"metadata":{"name":"e"},"firstTimestamp":"0000-01-01T00:00:00+23:59"}"#),
        // A binary suffix that no longer fits once the value is whole.
        body(&POD, r#"{"spec":{"containers":[{"resources":{"limits":{"memory":"1000.9765625Ki"}}}]}}"#),
        // A grace period that no calendar holds.
        body(
            &POD,
            r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n","terminationGracePeriodSeconds":9223372036854775807}}"#,
        ),
    ];
    let deep = |levels| nested(r#"{"f:a":"#, "}", levels).replacen("}", "1}", 1);
    for levels in [60, 120, 140] {
        let text = format!(r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{}}}]}}}}"#, deep(levels));
        seeds.push(body(&CONFIG_MAP, &text));
    }
    seeds.push(body(&CONFIG_MAP, &nested("[", "]", 200_000)));
    seeds.push(body(&CONFIG_MAP, &nested(r#"{"a":"#, "}", 100_000)));
    // Many duplicates below one long name.
    let twice: String = (0..200).map(|i| format!(r#""{i}":1,"{i}":2,"#)).collect();
    seeds.push(body(&CONFIG_MAP, &format!(r#"{{"{}":{{{twice}"z":0}}}}"#, "k".repeat(100_000))));
    seeds
}

pub(super) fn yaml_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        body(&POD, &serde_saphyr::to_string(&pod()).unwrap_or_default()),
        body(&CONFIG_MAP, "metadata:\n  name: a\ndata:\n  x: \"1\"\n  y: |\n    two\n    lines\n  z: >-\n    folded\n"),
        body(&CONFIG_MAP, "# a comment\n---\nmetadata: {name: a, labels: {a: \"null\", b: \"0x1f\", c: \"yes\"}}\n"),
        body(&CONFIG_MAP, "metadata: &m\n  name: a\n  labels: &l {a: b}\n  annotations: *l\n"),
        body(&CONFIG_MAP, "metadata:\n  name: a\n  labels:\n    <<: {x: y}\n"),
        body(
            &SECRET,
            "metadata: {name: s}\nstringData: {a: \"1e3\", b: \"-\", c: \"~\", d: \"\", e: \"a: b\", f: \" x \"}\n",
        ),
        body(
            &SECRET,
            "metadata: {name: s}\nstringData: {a: \"\\u2028\\t\\0\\e\", b: \"#x\", c: \"'\", d: \"\\\"\", e: \"!!str\"}\n",
        ),
        body(
            &CONFIG_MAP,
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n",
        ),
        body(
            &CONFIG_MAP,
            "a: .nan\nb: .inf\nc: 0o17\nd: 2026-01-02\ne: 1_000\n? [x, y]\n: z\n1: one\ntrue: t\nnull: n\n",
        ),
    ];
    seeds.push(body(&CONFIG_MAP, &nested("[", "]", 100_000)));
    seeds.push(body(&CONFIG_MAP, &nested("{a: ", "}", 100_000)));
    seeds.push(body(&CONFIG_MAP, &"- ".repeat(100_000)));
    seeds.push(body(&CONFIG_MAP, &(0..400).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>()));
    seeds
}

pub(super) fn protobuf_seeds() -> Vec<Vec<u8>> {
    let raw = |resource: &Resource, bytes: &[u8]| [&[0, chosen(resource)], bytes].concat();
    let mut seeds = vec![
        // What kubectl sends for `create configmap` and `create deployment`, and `auth can-i`.
        [&[1, chosen(&CONFIG_MAP)][..], &hex("6b3873000a0f0a0276311209436f6e6669674d6170121c0a120a02636d12001a0022002a00320038004200120\
             60a01611201621a002200")].concat(),
        [&[1, chosen(&DEPLOYMENT)][..], &hex("6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b0010a1b0a016412001a0022002a003200\
             3800420 05a080a036170701201641282010802120a0a080a036170701201641a6a0a1a0a0012001a0022002a003200380042005a080a036170\
             70120164124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200800100880100900100a201001a003200\
             42004a0052005800600068008201008a01009a0100c20100220 20a00280038001a0c0800100018002000280038001a002200")].concat(),
        raw(&SECRET, &[field(1, &field(1, b"s")), field(2, &[field(1, b"k"), field(2, &[0, 255])].concat())].concat()),
        // A time in the year -9999, and a resource list.
        raw(&EVENT, &field(6, &hex("0880aedb9ca9f8feffff01"))),
        raw(&NODE, &field(3, &field(1, &[field(1, b"cpu"), field(2, &field(1, b"500m"))].concat()))),
    ];
    let crowd = field(3, &field(1, b"x")).repeat(2000);
    seeds.push(raw(&CONFIG_MAP, &field(1, &crowd)));
    // managedFields whose fieldsV1 is JSON of many levels, inside objects inside of objects.
    let managed = |inner: &[u8]| field(1, &field(17, &field(7, &field(1, inner))));
    let mut inner = nested("[", "]", 120).into_bytes();
    for _ in 0..8 {
        inner = frame(&CONFIG_MAP, &managed(&inner));
    }
    seeds.push(raw(&CONFIG_MAP, &managed(&inner)));
    seeds
}

pub(super) fn json_patch_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        body(
            &POD,
            r#"[{"op":"test","path":"/metadata/name","value":"p"},{"op":"replace","path":"/spec/containers/0/image","value":"y"}]"#,
        ),
        body(
            &POD,
            r#"[{"op":"add","path":"/spec/containers/-","value":{"name":"new"}},{"op":"remove","path":"/spec/containers/0"}]"#,
        ),
        body(
            &POD,
            r#"[{"op":"copy","from":"/spec","path":"/metadata/annotations"},{"op":"move","from":"/spec/containers/1","path":"/spec/containers/0"}]"#,
        ),
        body(&POD, r#"[{"op":"add","path":"/metadata/labels/a~1b~0c","value":"x"},{"op":"add","path":"","value":{}}]"#),
        body(
            &POD,
            r#"[{"op":"remove","path":""},{"op":"move","from":"","path":"/a"},{"op":"copy","from":"","path":"/a"}]"#,
        ),
        body(
            &CONFIG_MAP,
            "{\"metadata\":{\"name\":\"c\"},\"data\":{\"a\":\"b\"}}\0[{\"op\":\"move\",\"from\":\"/data/a\",\"path\":\"/data/c\"}]",
        ),
    ];
    let doubling: Vec<String> =
        (0..100).map(|i| format!(r#"{{"op":"copy","from":"","path":"/number-{i}"}}"#)).collect();
    seeds.push(body(&CONFIG_MAP, &format!("[{}]", doubling.join(","))));
    let deeper: Vec<String> = (0..200)
        .map(|i| format!(r#"{{"op":"move","from":"/metadata","path":"/x"}},{{"op":"add","path":"/metadata","value":{{"{i}":1}}}},{{"op":"move","from":"/x","path":"/metadata/{i}"}}"#))
        .collect();
    seeds.push(body(&CONFIG_MAP, &format!("[{}]", deeper.join(","))));
    seeds
}

pub(super) fn merge_patch_seeds() -> Vec<Vec<u8>> {
    vec![
        body(&POD, r#"{"metadata":{"labels":{"app":null,"b":"c"}},"spec":{"containers":[{"name":"web"}]}}"#),
        body(&DEPLOYMENT, r#"{"spec":{"replicas":5,"template":{"spec":{"volumes":null}}},"status":null}"#),
        body(&CONFIG_MAP, r#"{"metadata":{"name":7,"labels":[]},"data":{"a":{"b":null}}}"#),
        body(
            &SERVICE,
            r#"{"spec":{"ports":[{"port":0,"targetPort":null}],"type":"ExternalName","externalName":"a.b."}}"#,
        ),
        body(
            &CONFIG_MAP,
            "{\"data\":{\"a\":\"b\"}}\0{\"data\":{\"a\":null,\"c\":\"d\"},\"kind\":null,\"apiVersion\":null}",
        ),
        body(&CONFIG_MAP, &nested(r#"{"a":"#, "}", 127).replacen("}", "1}", 1)),
    ]
}

pub(super) fn strategic_patch_seeds() -> Vec<Vec<u8>> {
    vec![
        body(&POD, r#"{"spec":{"containers":[{"name":"web","image":"y","env":[{"name":"B","$patch":"delete"}]}]}}"#),
        body(
            &POD,
            r#"{"spec":{"$setElementOrder/containers":[{"name":"side"},{"name":"web"}],"containers":[{"name":"side","args":null}]}}"#,
        ),
        body(
            &POD,
            r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/a"]},"spec":{"volumes":[{"$patch":"replace"},{"name":"z","emptyDir":{}}]}}"#,
        ),
        body(
            &POD,
            r#"{"spec":{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"},"emptyDir":null}]}}"#,
        ),
        body(
            &POD,
            r#"{"spec":{"tolerations":[{"key":"b"}],"imagePullSecrets":[{"name":"t"}],"containers":[{"image":"x"}]}}"#,
        ),
        body(
            &DEPLOYMENT,
            r#"{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"},"template":{"$patch":"merge"}}}"#,
        ),
        body(
            &SERVICE,
            r#"{"spec":{"$setElementOrder/ports":[{"port":53},{"port":80}],"ports":[{"port":80,"nodePort":30080}]}}"#,
        ),
        body(
            &CONFIG_MAP,
            r#"{"metadata":{"$setElementOrder/finalizers":["x/b","x/c"],"finalizers":["x/c"],"ownerReferences":[{"uid":"u","$patch":"delete"}]}}"#,
        ),
        body(&POD, r#"{"$patch":"replace","spec":{"containers":[{"$patch":"delete"}]}}"#),
    ]
}

pub(super) fn quantity_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "500m 1.5Gi",
        "0.3Mi 1e3",
        "1E 12E",
        "-5Gi 2e-3",
        "1000.9765625Ki 1",
        "1e30 -1e30",
        ".5 5.",
        "+0.0000000000001Ki -0.1n",
        "9223372036854775807 1",
        "1e2147483647 1e-2147483648",
        "123456789.123456789123456789Ei 0",
    ])
}

pub(super) fn time_seeds() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.9999999+02:00",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00Z",
        "2016-12-31T23:59:60Z",
    ]);
    for seconds in [0, 1, -62_135_596_800, -377_705_023_201, 253_402_207_200, i64::MIN, i64::MAX] {
        for nanos in [999_999_999, i32::MAX, i32::MIN] {
            seeds.push([&seconds.to_le_bytes()[..], &nanos.to_le_bytes()].concat());
        }
    }
    seeds
}

pub(super) fn static_pod_seeds() -> Vec<Vec<u8>> {
    let mut whole = pod();
    whole["apiVersion"] = json!("v1");
    whole["kind"] = json!("Pod");
    vec![
        serde_saphyr::to_string(&whole).unwrap_or_default().into_bytes(),
        whole.to_string().into_bytes(),
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: []}\nspec: {containers: [{}]}\n".to_vec(),
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [7, null, [], {name: {}}]\nstatus: 3\n"
            .to_vec(),
    ]
}
