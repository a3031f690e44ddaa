use super::*;
use crate::canonical::{self, Findings};
use crate::protobuf;
use proptest::prelude::*;
use serde_json::json;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn written(value: Value) -> Vec<u8> {
    encode(&object(value)).unwrap()
}

fn len(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn int(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn framed(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [len(1, api_version), len(2, kind)].concat();
    [b"k8s\0".to_vec(), len(1, meta), len(2, message), vec![0x1a, 0, 0x22, 0]].concat()
}

/// An object's metadata with the texts that are always there.
fn meta(name: &str) -> Vec<u8> {
    [len(1, name), len(2, ""), len(3, ""), len(4, ""), len(5, ""), len(6, ""), int(7, 0)].concat()
}

#[test]
fn a_config_map_byte_by_byte() {
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"},
        "data": {"b": "", "a": "1"}, "binaryData": {"x": "AP8="}, "immutable": false});
    let message = [
        len(1, meta("cm")),
        len(2, [len(1, "a"), len(2, "1")].concat()),
        len(2, [len(1, "b"), len(2, "")].concat()),
        len(3, [len(1, "x"), len(2, [0, 255])].concat()),
        // A pointer to false is not the same as none.
        int(4, 0),
    ];
    assert_eq!(written(config_map), framed("v1", "ConfigMap", &message.concat()));
}

#[test]
fn a_lease_with_its_times() {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {
        "renewTime": "1970-01-01T00:00:01.000001Z", "acquireTime": "1970-01-01T00:00:00.000000Z",
        "leaseTransitions": 0, "leaseDurationSeconds": 40}});
    let micro = vec![0x10, 0xe8, 0x07];
    let spec = [int(2, 40), len(3, [int(1, 0), int(2, 0)].concat()), len(4, [int(1, 1), micro].concat()), int(5, 0)];
    let message = [len(1, meta("l")), len(2, spec.concat())].concat();
    assert_eq!(written(lease), framed("coordination.k8s.io/v1", "Lease", &message));
}

#[test]
fn a_refusal_is_a_status() {
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "m",
        "reason": "NotFound", "details": {"name": "n", "kind": "pods", "retryAfterSeconds": 1}, "code": 64});
    let details = [len(1, "n"), len(2, ""), len(3, "pods"), int(5, 1), len(6, "")].concat();
    let message = [
        len(1, [len(1, ""), len(2, ""), len(3, "")].concat()),
        len(2, "Failure"),
        len(3, "m"),
        len(4, "NotFound"),
        len(5, details),
        int(6, 64),
    ];
    assert_eq!(written(status), framed("v1", "Status", &message.concat()));
}

#[test]
fn negative_numbers_are_ten_bytes_and_lists_of_numbers_unpacked() {
    let context = by("io.k8s.api.core.v1.PodSecurityContext", json!({"runAsUser": -1, "supplementalGroups": [1, 300]}));
    let minus_one = [vec![0x10], vec![0xff; 9], vec![1]].concat();
    assert_eq!(context, [minus_one, int(4, 1), vec![0x20, 0xac, 0x02]].concat());
}

#[test]
fn ports_are_numbers_or_names() {
    let port = |port| by("io.k8s.api.core.v1.HTTPGetAction", json!({"port": port}));
    let around = |port: &[Vec<u8>]| [len(1, ""), len(2, port.concat()), len(3, ""), len(4, "")].concat();
    assert_eq!(port(json!(80)), around(&[int(1, 0), int(2, 80), len(3, "")]));
    assert_eq!(port(json!("web")), around(&[int(1, 1), int(2, 0), len(3, "web")]));
    // It is no pointer, so it is there even when it is not.
    assert_eq!(port(Value::Null), around(&[int(1, 0), int(2, 0), len(3, "")]));
}

#[test]
fn a_list_as_a_maps_value_is_a_message() {
    let spec = by(
        "io.k8s.api.authorization.v1.SubjectAccessReviewSpec",
        json!({"user": "u", "extra": {"k": ["a", "b"], "none": []}}),
    );
    let values = [len(1, "a"), len(1, "b")].concat();
    let extra = [len(5, [len(1, "k"), len(2, values)].concat()), len(5, [len(1, "none"), len(2, "")].concat())];
    assert_eq!(spec, [len(3, "u"), extra.concat(), len(6, "")].concat());
}

fn by(name: &'static str, value: Value) -> Vec<u8> {
    let mut out = Tail::default();
    message(schema::by_name(name).unwrap().get(), &object(value).0, &mut out).unwrap();
    out.into_vec()
}

#[test]
fn what_cannot_be_written_is_named() {
    let refused = |value| encode(&object(value)).unwrap_err();
    assert_eq!(
        refused(json!({"apiVersion": "a/v1", "kind": "B"})),
        EncodeError::UnknownKind { api_version: "a/v1".into(), kind: "B".into() }
    );
    assert_eq!(
        refused(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": 1}})),
        EncodeError::FieldType { field: "data", found: "a number" }
    );
    for (field, value) in [("binaryData", json!({"a": "?"})), ("immutable", json!("x")), ("metadata", json!([]))] {
        let error = refused(json!({"apiVersion": "v1", "kind": "ConfigMap", field: value}));
        assert!(matches!(error, EncodeError::FieldType { field: named, .. } if named == field), "{error}");
    }
}

#[test]
fn a_list_is_made_of_the_bodies_of_its_items() {
    let one = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"k": "x".repeat(name.len() * 100)}})
    };
    for names in [&[][..], &["a"], &["a", "bb", "ccc"]] {
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7",
            "continue": "c", "remainingItemCount": 3}, "items": names.iter().map(|name| one(name)).collect::<Vec<_>>()});
        let bodies: Vec<Vec<u8>> = names.iter().map(|name| written(one(name))).collect();
        let raws: Vec<&[u8]> = bodies.iter().map(|body| &body[raw(body).unwrap()]).collect();
        let metadata = list["metadata"].as_object().unwrap();
        let mut made = list_head("v1", "ConfigMapList", metadata, raws.iter().map(|raw| raw.len())).unwrap();
        raws.iter().for_each(|raw| put_item(&mut made, raw));
        put_list_end(&mut made);
        assert_eq!(made, written(list));
    }
}

#[test]
fn metadata_alone_and_events() {
    let body = partial_metadata("meta.k8s.io/v1", &object(json!({"name": "a"})).0).unwrap();
    assert_eq!(body, framed("meta.k8s.io/v1", "PartialObjectMetadata", &len(1, meta("a"))));
    let mut out = vec![9];
    put_event(&mut out, "ADDED", b"body");
    let event = [len(1, "ADDED"), len(2, len(1, "body"))].concat();
    assert_eq!(out, [vec![9, 0, 0, 0, event.len() as u8], event].concat());
    for no_body in [&b""[..], b"k8s\0", b"body", b"k8s\0\x0a\x05\x01", b"k8s\0\x0a\0\x12\0\x1a\0\x22"] {
        assert_eq!(raw(no_body), None);
    }
    assert_eq!(raw(b"k8s\0\x0a\0\x12\0\x1a\0\x22\0"), Some(8..8));
}

/// Bytes to make objects of; when they are used up, whatever is still asked for is left out.
struct Source<'a>(std::slice::Iter<'a, u8>);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn number(&mut self) -> i64 {
        let bytes = self.byte() % 9;
        (0..bytes).fold(0, |number, _| number << 8 | i64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        let chars = self.byte() % 6;
        (0..chars).map(|_| char::from_u32(u32::from(self.byte()) * 7).unwrap_or('x')).collect()
    }

    fn value(&mut self, ty: &'static Ty, depth: usize) -> Value {
        match ty {
            Ty::String => self.text().into(),
            Ty::Int32 => (self.number() as i32).into(),
            Ty::Int64 => self.number().into(),
            Ty::Bool => (self.byte() % 2 == 1).into(),
            Ty::Double => (self.number() as f64 / 16.0).into(),
            Ty::Bytes => STANDARD.encode(self.text()).into(),
            Ty::Quantity => ["0", "1", "500m", "1.5Gi", "3e9", "-7"][usize::from(self.byte() % 6)].into(),
            Ty::Time | Ty::MicroTime => self.time(),
            Ty::IntOrString if self.byte() % 2 == 1 => self.text().into(),
            Ty::IntOrString => (self.number() as i32).into(),
            Ty::Json => json!([self.number(), self.text(), true]),
            Ty::Either(of) if self.byte() % 2 == 1 || depth > 8 => self.value(&of.0, depth + 1),
            Ty::Either(of) => self.value(&of.1, depth + 1),
            Ty::Any => json!({"f:a": {self.text(): {}}, "n": [self.number(), null, 1.5]}),
            Ty::Struct(inner) => self.map(inner.get(), depth + 1).into(),
            // An empty one is the same as none on the wire.
            Ty::List(inner) => (0..=self.byte() % 3).map(|_| self.value(inner, depth)).collect(),
            Ty::Map(inner) => {
                Value::Object((0..=self.byte() % 3).map(|_| (self.text(), self.value(inner, depth))).collect())
            }
        }
    }

    fn time(&mut self) -> Value {
        let seconds = match self.byte() % 4 {
            0 => 0,
            1 => -62_135_596_800,
            _ => self.number() % 62_000_000_000,
        };
        let at = time::from_parts(seconds, (self.number() % 1_000_000_000).unsigned_abs() as i32).unwrap();
        time::micros(at).into()
    }

    fn map(&mut self, ty: &'static Type, depth: usize) -> Map<String, Value> {
        let mut map = Map::new();
        // A schema refers to itself at places.
        for field in ty.fields.iter().filter(|field| depth < 12 && on_wire(ty, field.name)) {
            if self.byte() % 3 == 1 {
                map.insert(field.name.to_owned(), self.value(&field.ty, depth));
            }
        }
        map
    }
}

/// Some fields are in JSON alone: the kind of an object inside another, and alpha fields without a number.
fn on_wire(ty: &'static Type, name: &str) -> bool {
    ty.wire().any(|(_, what)| match what {
        OnWire::Field(field) => field.name == name,
        OnWire::Inlined(inner) => on_wire(inner.get(), name),
    })
}

fn there_and_back(ty: TypeRef, api_version: &str, kind: &str, bytes: &[u8]) {
    let mut object = Object(Source(bytes.iter()).map(ty.get(), 0));
    object.0.insert("apiVersion".into(), api_version.into());
    object.0.insert("kind".into(), kind.into());
    assert_eq!(canonical::normalize(ty, &mut object), Findings::default());
    let body = encode(&object).unwrap_or_else(|error| panic!("{error}: {object:?}"));
    let mut read = protobuf::decode(&body).unwrap_or_else(|error| panic!("{error}: {object:?}"));
    assert_eq!(canonical::normalize(ty, &mut read), Findings::default());
    assert_eq!(read, object);
    assert_eq!(encode(&read).unwrap(), body);
    assert!(raw(&body).is_some_and(|raw| raw.end == body.len() - BODY_END.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        // What has no kind of its own stands in no body of its own.
        for ty in schema::all().filter(|ty| ty.field("kind").is_some()) {
            for kind in &ty.get().kinds {
                let slash = if kind.group.is_empty() { "" } else { "/" };
                there_and_back(ty, &format!("{}{slash}{}", kind.group, kind.version), kind.kind, &bytes);
            }
        }
    }
}
