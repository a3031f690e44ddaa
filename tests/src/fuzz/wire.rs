//! What comes in packets, frames and records: from pods, from our own processes, from the disk, from the kernel.

use std::io::Cursor;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use gantry_agent::log as log_record;
use gantry_agent::server::log_file::{Render, Wanted, tail_start};
use gantry_base::codec::{Appended, Wire};
use gantry_base::frame::{self, Unit};
use gantry_base::launch::{CgroupWrite, Hook, Ids, ImageVolume, Process, Refined, Rlimit, Root, StartHooks, Volume};
use gantry_base::{DecodeError, Event, ExitRecord, Id, Launch, Request};
use gantry_control::store::Key;
use gantry_control::store::embedded::record::{self, Place};
use gantry_kube::Object;
use gantry_netlink::{conntrack, message, nft};
use gantry_netproxy::directory::Directory;
use gantry_netproxy::dns::{Zone, answer_datagram};
use gantry_netproxy::model::{Service, Slice};
use gantry_runtime::spdy;
use serde_json::json;

use super::input::{Input, hex, texts};

/// What is read can be written, and is then read as the same; what follows it is a newer writer's. Fields that an older writer
/// did not know are written as they were taken to be, which takes `appended` bytes at most.
fn wire<T: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8], appended: usize) {
    let mut rest = bytes;
    let read: Result<T, DecodeError> = T::take(&mut rest);
    let Ok(value) = read else { return };
    let mut written = Vec::new();
    value.put(&mut written);
    assert!(written.len() <= bytes.len() - rest.len() + appended, "more was written than was read");
    let again = T::take(&mut &written[..]);
    assert_eq!(again.as_ref(), Ok(&value));
    written.extend_from_slice(b"more");
    assert_eq!(T::take(&mut &written[..]).as_ref(), Ok(&value), "an appended field confuses an older reader");
}

pub(super) fn supervisor_frame(data: &[u8]) {
    if let Ok(request) = frame::decode::<Request>(data) {
        assert_eq!(frame::decode::<Request>(&frame::encode(&request)), Ok(request));
    }
    if let Ok(event) = frame::decode::<Event>(data) {
        assert_eq!(frame::decode::<Event>(&frame::encode(&event)), Ok(event));
    }
    wire::<Request>(data, 0);
    wire::<Event>(data, 0);
}

pub(super) fn launch_file(data: &[u8]) {
    // The length of an empty list, a number, that there are no users; the lengths of three lists and two texts; and that nothing is
    // made directly.
    wire::<Launch>(data, 2 * size_of::<u32>() + size_of::<u8>() + 5 * size_of::<u32>() + size_of::<u8>());
    wire::<Ids>(data, 0);
    wire::<ExitRecord>(data, 0);
}

/// A record as it is; and one whose checksum is right, so that what lies behind it is reached.
pub(super) fn store_record(data: &[u8]) {
    let place = Place::new(u64::from(data.first().copied().unwrap_or(0)), data.len() % 128);
    assert_eq!(Place::unpack(place.packed()), place);
    let mut sealed = [&[0; 4], data].concat();
    let crc = crc32fast::hash(&[&place.packed().to_le_bytes(), data].concat());
    sealed[..4].copy_from_slice(&crc.to_le_bytes());
    for bytes in [data, &sealed] {
        let Ok(found) = record::decode(place, bytes) else { continue };
        let Some(key) = Key::parse(found.key) else { continue };
        let mut written = Vec::new();
        record::encode(&mut written, place, &key, found.value.map(Bytes::copy_from_slice).as_ref());
        assert_eq!(record::decode(place, &written).ok(), Some(found));
        for other in [Place::new(place.revision + 1, 0), Place::new(place.revision, usize::from(place.number ^ 1))] {
            assert!(record::decode(other, bytes).is_err(), "a record is taken in another's place");
        }
    }
}

/// Frames as they come, and what they are when written: the same, but for pieces of one frame's data.
pub(super) fn spdy(data: &[u8]) {
    let read = |bytes: &[u8]| {
        let (mut decoder, mut frames) = (spdy::Decoder::default(), Vec::new());
        // Cut in two, wherever that falls.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        for part in [head, tail] {
            decoder.feed(part);
            while let Ok(Some(frame)) = decoder.next_frame() {
                frames.push(frame);
            }
        }
        frames
    };
    let frames = read(data);
    let (mut encoder, mut written) = (spdy::Encoder::default(), BytesMut::new());
    for frame in &frames {
        if let spdy::Frame::SynStream { headers, .. } | spdy::Frame::SynReply { headers, .. } = frame {
            assert!(headers.0.iter().all(|(name, _)| !name.bytes().any(|b| b.is_ascii_uppercase())), "{headers:?}");
        }
        encoder.encode(frame, &mut written).expect("what was read can be written");
    }
    let payload = |frames: &[spdy::Frame]| {
        let of = |frame: &spdy::Frame| match frame {
            spdy::Frame::Data { bytes, .. } => bytes.to_vec(),
            _ => Vec::new(),
        };
        frames.iter().flat_map(of).collect::<Vec<u8>>()
    };
    let others = |frames: Vec<spdy::Frame>| {
        let kept = frames.into_iter().filter(|f| !matches!(f, spdy::Frame::Data { .. }));
        kept.collect::<Vec<_>>()
    };
    let again = read(&written);
    assert_eq!(payload(&again), payload(&frames));
    assert_eq!(others(again), others(frames));
}

pub(super) fn spdy_seeds() -> Vec<Vec<u8>> {
    let streams = [("error", 1), ("stdin", 3), ("stdout", 5), ("resize", 7)].map(|(kind, stream)| {
        let headers = [("streamtype", kind), ("port", "80"), ("requestid", "0")].into();
        spdy::Frame::SynStream { stream, fin: false, unidirectional: false, headers }
    });
    let more = [
        spdy::Frame::Ping(1),
        spdy::Frame::Settings(vec![spdy::Setting { flags: 0, id: 7, value: 65_536 }]),
        spdy::Frame::SynReply { stream: 2, fin: false, headers: spdy::Headers::default() },
        spdy::Frame::Data { stream: 3, fin: false, bytes: Bytes::from_static(b"echo hello\n") },
        spdy::Frame::Data { stream: 3, fin: true, bytes: Bytes::new() },
        spdy::Frame::WindowUpdate { stream: 5, delta: 1 << 20 },
        spdy::Frame::Headers { stream: 5, fin: false, headers: [("a", "b")].into() },
        spdy::Frame::RstStream { stream: 3, status: 5 },
        spdy::Frame::GoAway { last: 7, status: 0 },
    ];
    let written = |frames: &[spdy::Frame]| {
        let (mut encoder, mut bytes) = (spdy::Encoder::default(), BytesMut::new());
        for frame in frames {
            encoder.encode(frame, &mut bytes).expect("it can be written");
        }
        bytes.to_vec()
    };
    let mut seeds = vec![written(&streams), written(&[&streams[..], &more].concat())];
    seeds.extend(more.iter().map(|frame| written(std::slice::from_ref(frame))));
    seeds
}

/// A choice of options, and a log.
pub(super) fn log(data: &[u8]) {
    let mut input = Input(data);
    let (flags, number) = (input.byte(), u64::from(input.byte()));
    let bytes = input.0;
    let wanted = Wanted {
        timestamps: flags & 1 != 0,
        since: (flags & 2 != 0).then(|| jiff::Timestamp::from_second(1_767_323_045).unwrap_or_default()),
        tail_lines: None,
        limit_bytes: (flags & 4 != 0).then_some(number),
        follow: false,
    };
    let render = |step: usize| {
        let (mut render, mut out) = (Render::new(&wanted), Vec::new());
        for part in bytes.chunks(step) {
            if render.push(part, &mut out) {
                break;
            }
        }
        out
    };
    let whole = render(bytes.len().max(1));
    assert!(whole.len() <= bytes.len() && wanted.limit_bytes.is_none_or(|limit| whole.len() as u64 <= limit));
    for step in [1, 7, 64] {
        assert_eq!(render(step), whole, "in pieces of {step}");
    }
    let start = tail_start(&mut Cursor::new(bytes), number).expect("memory can be read");
    let start = usize::try_from(start).expect("within the log");
    let tail = &bytes[start..];
    assert!(start == 0 || start == bytes.len() || bytes[start - 1] == b'\n');
    let lines = tail.split_inclusive(|b| *b == b'\n').count() as u64;
    assert!(if start == 0 { lines <= number || number == 0 } else { lines == number }, "{lines} lines, not {number}");
    assert!(log_record::plain_text(bytes).len() <= bytes.len() + 1);
}

struct Names {
    directory: Directory,
    zone: Zone,
}

fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut directory = Directory::default();
        let object = |value| Object::from_value(value).unwrap_or_default();
        for service in [
            json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"clusterIP": "10.96.0.7",
                "ports": [{"name": "http", "port": 80}]}}),
            json!({"metadata": {"namespace": "a", "name": "db"}, "spec": {"clusterIP": "None"}}),
            json!({"metadata": {"namespace": "a", "name": "out"}, "spec": {"type": "ExternalName", "externalName": "x.org"}}),
        ] {
            let service = Service::project(&object(service));
            directory.set_service(service.at.clone(), Some(Arc::new(service)));
        }
        let endpoints: Vec<_> =
            (0..120).map(|i| json!({"addresses": [format!("10.244.1.{i}")], "hostname": format!("db-{i}")})).collect();
        let slice = Slice::project(&object(json!({"metadata": {"namespace": "a", "name": "db-1",
            "labels": {"kubernetes.io/service-name": "db"}}, "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432}], "endpoints": endpoints})));
        directory.set_slice(slice.at.clone(), Some(Arc::new(slice)));
        directory.set_complete();
        Names { directory, zone: Zone::new("cluster.local", Ipv4Addr::new(10, 96, 0, 10)).expect("a zone") }
    })
}

pub(super) fn dns(data: &[u8]) {
    let Names { directory, zone } = names();
    let answer = |directory: &Directory| answer_datagram(data, directory, zone, data.len());
    for reply in [answer(directory), answer(&Directory::default())].into_iter().flatten() {
        assert!(reply.len() >= 12 && reply[..2] == data[..2], "an answer has the question's id");
        assert!(reply[2] & 0x80 != 0, "an answer is marked as one");
        // Without an additional record there is no EDNS, and no more room than RFC 1035 gives.
        let room = if data[10..12] == [0, 0] { 512 } else { 1232 };
        assert!(reply.len() <= room, "{} bytes in a room of {room}", reply.len());
        assert_eq!(answer_datagram(&reply, directory, zone, 0), None, "two servers would talk for ever");
    }
}

pub(super) fn netlink(data: &[u8]) {
    let (mut messages, mut attributes) = (0, 0);
    for message in message::messages(data) {
        messages += 1;
        let Some(message) = message else { break };
        assert!(message.payload.len() <= data.len());
        for skip in [0, 4, 16] {
            let Some(body) = message.payload.get(skip..) else { continue };
            attributes += message::attributes(body).inspect(|(_, value)| assert!(value.len() < body.len())).count();
            conntrack::flow(body);
            let mut elements = Vec::new();
            nft::read_elements(body, &mut elements);
            assert!(elements.len() <= body.len() / 4 + 1);
        }
    }
    assert!(messages <= data.len() / 16 + 1 && attributes <= 3 * (data.len() / 4 + 1));
    nft::comment(data);
    conntrack::flow(data);
}

pub(super) fn supervisor_frame_seeds() -> Vec<Vec<u8>> {
    let id = || Id::parse("0af3").expect("an id");
    let unit = || Unit { id: id(), log_path: "/l".to_owned(), tty: true, stdin: false, cgroup: "/g".to_owned() };
    let requests = [
        Request::Describe { seq: 1 },
        Request::Start { seq: 2, unit: unit() },
        Request::Exec { seq: 3, container: id(), exec: id(), tty: true },
        Request::Signal { seq: u64::MAX, container: id(), signal: -9 },
        Request::Adopt { seq: 4, unit: unit(), pid: i32::MAX },
        Request::CloseStdin { seq: 5, container: id() },
    ];
    let events = [
        Event::Failed { seq: 1, message: "no".to_owned() },
        Event::Started { seq: 2, unit: unit(), pid: 3, start_ticks: 4 },
        Event::ExecExited { exec: id(), code: 137 },
        Event::Running { unit: unit(), pid: 5, start_ticks: 6 },
    ];
    requests.iter().map(frame::encode).chain(events.iter().map(frame::encode)).collect()
}

pub(super) fn launch_file_seeds() -> Vec<Vec<u8>> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let launch = Launch {
        root: Root { lower: texts(&["/a", "/b"]), upper: "/u".to_owned(), work: "/w".to_owned(), read_only: false },
        volumes: vec![Volume { source: "/s".to_owned(), destination: "/d".to_owned(), ..Volume::default() }],
        process: Process {
            args: texts(&["sh", "-c", ""]),
            env: texts(&["A=b"]),
            rlimits: vec![Rlimit { resource: 7, soft: 1, hard: 2 }],
            oom_score_adj: Some(-997),
            seccomp: vec![1, 2, 3],
            umask: Some(0o22),
            ..Process::default()
        },
        before_start: vec![CgroupWrite { path: "cpu.max".to_owned(), value: "max".to_owned() }],
        images: Appended(vec![ImageVolume { volume: 0, layers: texts(&["/l"]), sub_path: "p".to_owned() }]),
        refined: Appended(vec![Refined { volume: 0, attributes: 2, shallow: true, early: true }]),
        start_hooks: Appended(StartHooks {
            hooks: vec![Hook {
                path: "/h".to_owned(),
                args: texts(&["h"]),
                env: Some(texts(&["A=b"])),
                timeout_seconds: 1,
            }],
            others: texts(&["prestart \"/p\""]),
            container: "c".to_owned(),
            bundle: "/b".to_owned(),
        }),
        ..Launch::default()
    };
    let ids = Ids { uid: 1, gid: 2, groups: vec![2, 3], home: "/".to_owned() };
    let exit = ExitRecord { code: 137, finished_at_ns: 1, unknown: false };
    fn put(value: &impl Wire) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }
    vec![put(&launch), put(&Launch::default()), put(&ids), put(&exit), vec![0xff; 64]]
}

pub(super) fn store_record_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (key, value) in [("pods/a/b", Some("{\"metadata\":{\"name\":\"b\"}}")), ("nodes/n", None)] {
        let mut bytes = Vec::new();
        if let Some(key) = Key::parse(key) {
            record::encode(&mut bytes, Place::new(7, 3), &key, value.map(Bytes::from).as_ref());
        }
        // With its own checksum, and without one, for the target to add.
        seeds.push(bytes[4..].to_vec());
        seeds.push(bytes);
    }
    seeds.extend([vec![1, 0xff, 0xff], vec![2, 1, 0, b'a'], vec![0, 1, 0, 0xff, b'x']]);
    seeds
}

pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "\x00\x022026-01-02T03:04:05.000000006Z stdout F one\n2026-01-02T03:04:06Z stderr P two \n2026-01-02T03:04:07Z stderr F and a half\n",
        "\x01\x01t stdout F \nt stdout P:x a\nt stdout F b",
        "\x07\x052026-01-02T03:04:05Z stdout F a\n9999-99-99 stdout F b\n\n\n",
        "\x04\x00\n\n\nt stdout P \nt stderr",
        "\x02\x092026-01-02T03:04:05.5+02:00 stdout F x\nt stdin F x\n \n  \n   \n",
    ])
}

/// A question as a resolver sends it.
fn question(name: &[&str], kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&[kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    if let Some(room) = edns {
        out.extend_from_slice(&[&[0, 0, 41][..], &room.to_be_bytes(), &[0, 0, 0, 0, 0, 0]].concat());
    }
    out
}

pub(super) fn dns_seeds() -> Vec<Vec<u8>> {
    let zone = ["cluster", "local"];
    let of = |name: &[&str], kind, edns| question(&[name, &zone].concat(), kind, edns);
    let mut seeds = vec![
        of(&["web", "a", "svc"], 1, None),
        of(&["db", "a", "svc"], 1, Some(4096)),
        of(&["_sql", "_tcp", "db", "a", "svc"], 33, Some(1232)),
        of(&["_sql", "_tcp", "db", "a", "svc"], 255, None),
        of(&["out", "a", "svc"], 5, None),
        of(&["10-244-1-1", "a", "pod"], 1, Some(0)),
        of(&["dns-version"], 16, None),
        of(&[], 6, None),
        of(&["no", "such"], 28, Some(65_535)),
        question(&["7", "0", "96", "10", "in-addr", "arpa"], 12, None),
        question(&["example", "org"], 1, Some(512)),
    ];
    // A name that points at itself, another operation, another class, two questions, EDNS of a later version.
    seeds.push(hex("123401000001000000000000c00c00010001"));
    seeds.push(hex("1234290000010000000000000161000001 0001"));
    // Many questions, which do not fit an answer.
    let long = "a".repeat(60);
    let mut many = question(&[&long], 1, None);
    many[5] = 12;
    seeds.push([&many[..12], &many[12..].repeat(12)].concat());
    let mut other = of(&["web", "a", "svc"], 1, Some(512));
    let length = other.len();
    other[length - 5] = 1;
    seeds.push(other);
    seeds
}

/// An attribute of a message.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = [&((value.len() + 4) as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn datagram(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [header, &attributes.concat()].concat();
    let length = (body.len() + 16) as u32;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[2, 0], &7_u32.to_ne_bytes(), &[0; 4], &body].concat()
}

pub(super) fn netlink_seeds() -> Vec<Vec<u8>> {
    let nested = |kind: u16, inner: &[Vec<u8>]| attribute(kind | 0x8000, &inner.concat());
    let tuple = |kind| {
        let ip = nested(1, &[attribute(1, &[10, 0, 0, 1]), attribute(2, &[10, 0, 0, 2])]);
        let ports = nested(2, &[attribute(1, &[6]), attribute(2, &[0, 80]), attribute(3, &[1, 0])]);
        nested(kind, &[ip, ports])
    };
    let flow = datagram(0x100, &[2, 0, 0, 0], &[tuple(1), tuple(2), attribute(3, &[0, 0, 0, 0x20])]);
    let element = nested(
        1,
        &[
            nested(1, &[attribute(1, &[10, 0, 0, 1])]),
            nested(2, &[attribute(1, &[1, 2])]),
            attribute(4, &5_u64.to_be_bytes()),
        ],
    );
    let set = datagram(0xa0c, &[1, 0, 0, 0], &[attribute(1, b"gantry\0"), nested(3, &[element.clone(), element])]);
    let error = datagram(2, &i32::MIN.to_ne_bytes(), &[]);
    let done = datagram(3, &[0; 4], &[]);
    vec![flow.clone(), set.clone(), [flow, set, error, done].concat(), vec![0; 32], hex("0003616263000104 0005")]
}
