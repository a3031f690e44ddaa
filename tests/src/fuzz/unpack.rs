//! Archives: read as tar, unpacked as layers below a folder, and imported. Nothing may appear beside that folder.
//!
//! An archive comes in one of three ways, as the first byte says: as it is; with its checksums put right, which chance
//! never does; or as a script, a line an entry, which is made into an archive. A script's line is
//! `TYPE path TAB link TAB data`; the data of an extended header are its records, parted by commas, and those of a device
//! are its numbers.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gantry_runtime::image::import::survey;
use gantry_runtime::image::layer::{Expected, LayerLimits, apply, decompress};
use gantry_runtime::image::tar::{Archive, EXTENSION_MAX_BYTES, Kind};
use gantry_runtime::image::unpack::{Limits, parse_name, remove_tree, settle};
use gantry_runtime::image::{Digest, ImportOptions};
use serde_json::json;

use super::input::{Input, texts};

const BLOCK_BYTES: usize = 512;
const PLAIN_MAX_BYTES: u64 = 4 << 20;
const DATA_MAX_BYTES: u64 = 1 << 20;
/// What an absolute name in a seed would make, if one ever got out.
const OUTSIDE: &str = "/gantry-fuzz-evil";

const AS_IT_IS: u8 = 0;
const SEALED: u8 = 1;
const SCRIPT: u8 = 2;
const GZIP: u8 = 4;

fn limits() -> LayerLimits {
    let unpack = Limits { entries_max: 300, data_max_bytes: DATA_MAX_BYTES, names_max_bytes: 64 << 10, hands_max: 1 };
    LayerLimits { unpack, ratio_max: 200, ratio_floor_bytes: 64 << 10, ..LayerLimits::default() }
}

/// The archive that an input stands for.
fn archive_of(input: &mut Input<'_>) -> Vec<u8> {
    let way = input.byte();
    let bytes = match way & 3 {
        SEALED => sealed(input.0),
        SCRIPT => scripted(input.0),
        _ => input.0.to_vec(),
    };
    if way & GZIP == 0 { bytes } else { gzip(&bytes) }
}

pub(super) fn tar(data: &[u8]) {
    let bytes = archive_of(&mut Input(data));
    let mut archive = Archive::new(&bytes[..]);
    let (mut entries, mut read) = (0, 0);
    while let Ok(Some(entry)) = archive.next_entry() {
        entries += 1;
        assert!(entries <= bytes.len() / BLOCK_BYTES, "more entries than headers");
        assert!(matches!(entry.kind, Kind::File) || entry.size == 0);
        assert!(entry.mode <= 0o7777 && entry.mtime.1 < 1_000_000_000);
        let named =
            entry.path.len() + entry.link.len() + entry.xattrs.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        assert!(named as u64 <= 4 * EXTENSION_MAX_BYTES);
        if let Ok(name) = parse_name(&entry.path) {
            assert!(name.components().all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0)));
        }
        // Every other file is skipped instead.
        if entries % 2 == 0 {
            let stored = entry.sparse.iter().flatten().map(|run| run.bytes).sum::<u64>();
            assert!(entry.sparse.is_none() || stored <= entry.size);
            let mut content = Vec::new();
            if entry.size <= PLAIN_MAX_BYTES && archive.content(&entry).read_to_end(&mut content).is_ok() {
                assert_eq!(content.len() as u64, entry.size);
                let zeros = content.iter().filter(|byte| **byte == 0).count() as u64;
                assert!(entry.sparse.is_none() || zeros >= entry.size - stored, "holes are zeros");
                read += if entry.sparse.is_some() { stored as usize } else { content.len() };
            }
        }
    }
    assert!(read <= bytes.len());
}

/// Folders to unpack into, and what must stay as it is.
struct Ground {
    all: tempfile::TempDir,
    below: OwnedFd,
    lower: Vec<(PathBuf, u32, u64)>,
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("a folder that was just made").into()
}

impl Ground {
    fn new() -> Ground {
        let all = tempfile::tempdir().expect("a folder to unpack below");
        let lower = all.path().join("lower");
        fs::create_dir_all(lower.join("usr/bin")).expect("the folder of a layer below");
        fs::write(lower.join("usr/bin/tool"), b"tool").expect("a file of a layer below");
        for (name, target) in [("bin", "usr/bin"), ("up", "../.."), ("victim", "../victim"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, lower.join(name)).expect("a link of a layer below");
        }
        fs::write(all.path().join("victim"), b"victim").expect("a file to be left alone");
        let below = open(all.path());
        let mut ground = Ground { all, below, lower: Vec::new() };
        ground.lower = ground.lower_now();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.all.path().join(name)
    }

    fn lower_now(&self) -> Vec<(PathBuf, u32, u64)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.path("lower")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.path().symlink_metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
                found.push((entry.path(), metadata.mode(), metadata.nlink() * 1000 + metadata.len() % 1000));
            }
        }
        found.sort();
        found
    }

    fn make(&self, name: &str) -> OwnedFd {
        fs::create_dir(self.path(name)).expect("it was removed before");
        open(&self.path(name))
    }

    /// Removes what was made, and looks at all that must be as it was.
    fn clear(&self, names: &[&str]) {
        for name in names {
            remove_tree(&self.below, name.as_bytes()).expect("whatever was unpacked can be removed");
        }
        let mut left: Vec<String> = fs::read_dir(self.all.path())
            .expect("the folder is there")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["lower", "victim"], "something appeared beside the folder, or stayed");
        assert_eq!(fs::read(self.path("victim")).ok().as_deref(), Some(&b"victim"[..]));
        let links = self.path("victim").metadata().map(|metadata| (metadata.nlink(), metadata.mode() & 0o7777));
        assert_eq!(links.ok(), Some((1, 0o644)));
        assert_eq!(self.lower_now(), self.lower, "a layer below was changed");
        assert!(!Path::new(OUTSIDE).exists());
    }
}

thread_local! {
    /// A thread's own, made anew after a panic.
    static GROUND: RefCell<Option<Ground>> = const { RefCell::new(None) };
}

fn on_ground(run: impl FnOnce(&Ground)) {
    let ground = GROUND.with_borrow_mut(Option::take).unwrap_or_else(Ground::new);
    run(&ground);
    GROUND.with_borrow_mut(|slot| *slot = Some(ground));
}

pub(super) fn layer(data: &[u8]) {
    let stored = archive_of(&mut Input(data));
    let mut plain = Vec::new();
    let whole =
        decompress(&stored[..]).is_ok_and(|stream| stream.take(PLAIN_MAX_BYTES).read_to_end(&mut plain).is_ok());
    let diff_id = Digest::of(if whole { &plain } else { b"" });
    let blob = Some((Digest::of(&stored), stored.len() as u64));
    on_ground(|ground| {
        let (folder, aside) = (ground.make("fs"), ground.make("aside"));
        let applied = apply(&stored[..], &Expected { blob, diff_id }, &folder, &aside, &limits());
        if let Ok(unpacked) = applied {
            assert!(unpacked.data_bytes <= DATA_MAX_BYTES);
            let lowers = [open(&ground.path("lower"))];
            let _ = settle(unpacked, &folder, &lowers);
        }
        drop((folder, aside));
        ground.clear(&["fs", "aside"]);
    });
}

/// A choice of options, and an archive to import: as it is, or as the texts that an archive is made of.
pub(super) fn archive(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let bytes = if choice & 1 == 0 { archive_of(&mut input) } else { layout(input.0) };
    let options = ImportOptions {
        only: (choice & 2 != 0).then(|| "localhost/a:1".to_owned()),
        name: (choice & 4 != 0).then(|| "b".to_owned()),
        pinned: false,
        platform: (choice & 8 != 0).then(|| "linux/arm64".parse().expect("it is one")),
    };
    on_ground(|ground| {
        let found = survey(&ground.path("spool"), &bytes[..], &options, &limits());
        if let (Ok(found), Some(_)) = (found, &options.name) {
            assert_eq!(found.len(), 1, "one name for several images");
        }
        ground.clear(&[]);
    });
}

/// GNU tar makes of an archive what we make of it, where both take it: names, kinds, modes, contents, links. Left out is what
/// means something else in a layer (whiteouts), and what the two handle differently on purpose: names that lead out.
pub(super) fn peer(data: &[u8]) {
    let plain = scripted(data);
    let lines = data.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let plain_name = |name: &[u8]| {
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_');
        !name.is_empty() && name[0] != b'/' && name.len() < 100 && name.iter().all(good)
    };
    let is_common = |line: &[u8]| {
        let mut fields = Input(&line[1..]);
        let (path, link) = (fields.until(b'\t'), fields.until(b'\t'));
        plain_name(path) && (link.is_empty() || plain_name(link)) && matches!(line[0], b'0' | b'1' | b'2' | b'5')
    };
    if !lines.clone().all(is_common) {
        return;
    }
    on_ground(|ground| {
        let (folder, aside, theirs) = (ground.make("fs"), ground.make("aside"), ground.make("theirs"));
        let expected = Expected { blob: None, diff_id: Digest::of(&plain) };
        let ours = apply(&plain[..], &expected, &folder, &aside, &limits());
        let settled = ours.is_ok_and(|unpacked| settle(unpacked, &folder, &[]).is_ok());
        // What was replaced is still a name of what it was linked with.
        remove_tree(&ground.below, b"aside").expect("whatever was unpacked can be removed");
        if settled && untarred(&plain, &ground.path("theirs")) {
            let (ours, theirs) = (tree(&ground.path("fs")), tree(&ground.path("theirs")));
            assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(data));
        }
        drop((folder, aside, theirs));
        ground.clear(&["fs", "aside", "theirs"]);
    });
}

fn untarred(archive: &[u8], folder: &Path) -> bool {
    let mut command = std::process::Command::new("tar");
    command.args(["--extract", "--preserve-permissions", "--warning=none", "--directory"]).arg(folder);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("GNU tar");
    let fed = std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), archive);
    // One that has seen enough reads no more.
    drop(fed);
    child.wait().is_ok_and(|status| status.success())
}

/// Everything below a folder: its path, kind and mode, what it holds or leads to, and how many names it has.
fn tree(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>, u64)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let content = match metadata.file_type() {
                kind if kind.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => {
                    fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes()).unwrap_or_default()
                }
                _ => fs::read(&path).unwrap_or_default(),
            };
            let names = if metadata.is_dir() { 0 } else { metadata.nlink() };
            let relative = path.strip_prefix(folder).map(Path::to_owned).unwrap_or_default();
            found.push((relative, metadata.mode(), content, names));
        }
    }
    found.sort();
    found
}

// ---- making archives --------------------------------------------------------------------------------------------

fn seal(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Every header with its right checksum, going from header to header as a reader would.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    let mut at = 0;
    while at + BLOCK_BYTES <= bytes.len() {
        let header = &mut bytes[at..at + BLOCK_BYTES];
        if header.iter().any(|b| *b != 0) {
            seal(header);
        }
        let size = std::str::from_utf8(&header[124..135]).ok().and_then(|text| usize::from_str_radix(text, 8).ok());
        at += BLOCK_BYTES + size.unwrap_or(0).min(bytes.len()).next_multiple_of(BLOCK_BYTES);
    }
    bytes
}

fn header(kind: u8, path: &[u8], link: &[u8], size: usize) -> [u8; BLOCK_BYTES] {
    let mut header = [0_u8; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8], most: usize| {
        let length = text.len().min(most);
        header[at..at + length].copy_from_slice(&text[..length]);
    };
    put(0, path, 100);
    put(100, b"0000755", 7);
    put(108, b"0000000", 7);
    put(116, b"0000000", 7);
    put(124, format!("{size:011o}").as_bytes(), 11);
    put(136, b"00000000000", 11);
    put(157, link, 100);
    put(257, b"ustar\x0000", 8);
    header[156] = kind;
    seal(&mut header);
    header
}

fn entry(out: &mut Vec<u8>, kind: u8, path: &[u8], link: &[u8], data: &[u8]) {
    out.extend_from_slice(&header(kind, path, link, data.len()));
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
}

fn scripted(script: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in script.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = Input(&line[1..]);
        let (path, link, data) = (fields.until(b'\t'), fields.until(b'\t'), fields.0);
        match line[0] {
            b'x' | b'g' => entry(&mut out, line[0], path, link, &records(data)),
            b'3' | b'4' => {
                entry(&mut out, line[0], path, link, b"");
                let at = out.len() - BLOCK_BYTES;
                let mut numbers = data.split(|b| *b == b',');
                for (field, number) in [(329, numbers.next()), (337, numbers.next())] {
                    let number = number.unwrap_or_default();
                    let length = number.len().min(7);
                    out[at + field..at + field + length].copy_from_slice(&number[..length]);
                }
                seal(&mut out[at..]);
            }
            kind => entry(&mut out, kind, path, link, data),
        }
    }
    out.resize(out.len() + 2 * BLOCK_BYTES, 0);
    out
}

/// PAX records, each with its length; a semicolon stands for a comma in one.
fn records(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in data.split(|b| *b == b',').filter(|record| !record.is_empty()) {
        let record: Vec<u8> = record.iter().map(|byte| if *byte == b';' { b',' } else { *byte }).collect();
        let rest = record.len() + 2;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} ").as_bytes());
        out.extend_from_slice(&record);
        out.push(b'\n');
    }
    out
}

/// gzip without compression (RFC 1951, 3.2.4).
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let pieces: Vec<&[u8]> = if plain.is_empty() { vec![plain] } else { plain.chunks(usize::from(u16::MAX)).collect() };
    for (at, piece) in pieces.iter().enumerate() {
        let length = piece.len() as u16;
        out.push(u8::from(at + 1 == pieces.len()));
        out.extend_from_slice(&[length.to_le_bytes(), (!length).to_le_bytes()].concat());
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&crc32fast::hash(plain).to_le_bytes());
    out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    out
}

/// An archive of an index, a manifest, a configuration, a layer and docker's description, parted by lines of three
/// dashes. Where one speaks of another, the digest and the size stand as words.
fn layout(data: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split("\n---\n");
    let mut next = || parts.next().unwrap_or("").to_owned();
    let (mut index, mut manifest, mut config, layer, mut docker) = (next(), next(), next(), next(), next());
    let fill = |text: &mut String, name: &str, of: &str| {
        let digest = Digest::of(of.as_bytes());
        let named = text.replace(&format!("${name}_SIZE"), &of.len().to_string());
        let named = named.replace(&format!("${name}_HEX"), digest.hex());
        *text = named.replace(&format!("${name}"), digest.as_str());
    };
    fill(&mut config, "LAYER", &layer);
    fill(&mut manifest, "LAYER", &layer);
    fill(&mut manifest, "CONFIG", &config);
    fill(&mut index, "CONFIG", &config);
    fill(&mut index, "MANIFEST", &manifest);
    fill(&mut docker, "CONFIG", &config);
    fill(&mut docker, "LAYER", &layer);
    let mut out = Vec::new();
    for blob in [&manifest, &config, &layer] {
        let name = format!("blobs/sha256/{}", Digest::of(blob.as_bytes()).hex());
        entry(&mut out, b'0', name.as_bytes(), b"", blob.as_bytes());
    }
    entry(&mut out, b'2', b"link/layer.tar", b"../layer.tar", b"");
    entry(&mut out, b'0', b"layer.tar", b"", layer.as_bytes());
    for (name, content) in [("index.json", &index), ("manifest.json", &docker)] {
        if !content.is_empty() {
            entry(&mut out, b'0', name.as_bytes(), b"", content.as_bytes());
        }
    }
    out.resize(out.len() + 2 * BLOCK_BYTES, 0);
    out
}

// ---- seeds ------------------------------------------------------------------------------------------------------

fn scripts() -> Vec<String> {
    let long = "n/".repeat(120);
    let attributes: String = (0..40).map(|i| format!("SCHILY.xattr.user.{i}=v,")).collect();
    let mut scripts: Vec<String> = [
        "5usr\n5usr/bin\n0usr/bin/tool\t\tcontent\n2bin\tusr/bin\n0bin/other\t\tx\n1hard\tusr/bin/tool\n",
        "0../gantry-fuzz-evil\t\tx\n",
        "2up\t../..\n0up/gantry-fuzz-evil\t\tx\n2abs\t/\n0abs/gantry-fuzz-evil\t\tx\n2magic\t/proc/self/root\n0magic/tmp/gantry-fuzz-evil\n",
        "2victim\t../victim\n1hard\tvictim\n0victim\t\toverwritten\n",
        "5a\n5a/b\n0a/b/c\t\tx\n0a\t\tnow a file\n5a\n0.wh.b\n0a/.wh..wh..opq\n0a/.wh.b\n",
        "2a\tb\n2b\ta\n0a/x\t\tloop\n",
        "2lib\tusr/lib\n0lib/x\t\timplied\n1lib/y\tbin/tool\n1z\tusr/bin/tool\n",
        "xPax\t\tpath=deep/name,size=3,mtime=-1.5,uid=1000,SCHILY.xattr.user.a=b\n0short\t\tabc\n",
        "xPax\t\tpath=../gantry-fuzz-evil,linkpath=/etc/passwd\n2l\tx\n",
        "xPax\t\tSCHILY.xattr.trusted.overlay.redirect=/etc,SCHILY.xattr.security.capability=x\n0f\n",
        "xPax\t\tGNU.sparse.size=20,GNU.sparse.map=3;2;10;1\n0f\t\tabc\n1g\tf\n",
        "xPax\t\tGNU.sparse.size=20,GNU.sparse.numblocks=1,GNU.sparse.offset=3,GNU.sparse.numbytes=3\n0f\t\tabc\n",
        "6fifo\n3null\t\t1,3\n4disk\t\t8,0\n3hide\t\t0,0\n",
        "5a\n1a\ta\n1b\ta\n2c\ta\n1d\tc\n0c\t\tx\n0a/../b\t\tx\n",
        "gGlobal\t\tcomment=x\n0a\n0a/\n0./\n5.\n2.\t.\n",
        "5.wh.\n0.wh..\n0.wh...\n0.wh..wh.plnk\n0a/.wh.a/b\n",
        "0b\t\tx\n2a\t.\n1a/b\tb\n0a/b\t\ty\n5a/a/a/c\n0.wh.a\n",
    ]
    .map(str::to_owned)
    .to_vec();
    scripts.push(format!("L@\t\t{long}\n0x\t\tlong\nK@\t\t{long}\n2y\tx\n"));
    scripts.push(format!("xPax\t\t{attributes}\n0many\n"));
    scripts.push(format!("5{}\n0{}x\t\tdeep\n", "d/".repeat(49), "d/".repeat(49)));
    scripts
}

fn archives() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = scripts().iter().map(|script| [&[SCRIPT], script.as_bytes()].concat()).collect();
    let whole = scripted(scripts()[0].as_bytes());
    seeds.push([&[AS_IT_IS], &whole[..]].concat());
    seeds.push([&[SEALED], &whole[..]].concat());
    seeds.push([&[AS_IT_IS], &gzip(&whole)[..]].concat());
    seeds.push([&[SCRIPT | GZIP], scripts()[7].as_bytes()].concat());
    // A zstd frame of one raw block, and one that asks for the largest window.
    seeds.push([&[AS_IT_IS][..], &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x21, 0, 0], b"data"].concat());
    seeds.push([&[AS_IT_IS][..], &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x21, 0, 0], b"data"].concat());
    // A sparse file of the old format, its map in the header.
    let mut sparse = header(b'S', b"sparse", b"", 3);
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[386..410].copy_from_slice(b"00000000004\x0000000000003\0");
    sparse[483..495].copy_from_slice(b"00000000020\0");
    seal(&mut sparse);
    seeds.push([&[AS_IT_IS], &sparse[..], b"abc", &[0; BLOCK_BYTES - 3]].concat());
    // A size in base 256, larger than any.
    let mut large = header(b'0', b"large", b"", 0);
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut large);
    seeds.push([&[SEALED], &large[..]].concat());
    seeds
}

pub(super) fn tar_seeds() -> Vec<Vec<u8>> {
    let mut seeds = archives();
    // Very many attributes of one entry: reading them must not take the square of their number.
    let attributes: String = (0..40_000).map(|i| format!("SCHILY.xattr.{i}=,")).collect();
    seeds.push([&[SCRIPT], format!("xPax\t\t{attributes}\n0many\n").as_bytes()].concat());
    seeds
}

pub(super) fn peer_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "5usr\n5usr/bin\n0usr/bin/tool\t\tcontent\n2bin\tusr/bin\n0bin/other\t\tx\n1hard\tusr/bin/tool\n",
        "0a/b/c\t\tx\n0a/b/c\t\ty\n5a/b\n5a\n",
        "0a\t\tx\n1b\ta\n0a\t\ty\n2a\tb\n",
        "5d\n2l\td\n5l\n0l/x\t\tin which\n",
        "2l\td\n5d\n0l/x\t\tthrough\n1d/y\tl/x\n",
        "0f\t\tx\n5f\n0f/g\t\ty\n",
        "2a\tb\n1c\ta\n2b\tc\n",
    ])
}

pub(super) fn layer_seeds() -> Vec<Vec<u8>> {
    archives()
}

pub(super) fn archive_seeds() -> Vec<Vec<u8>> {
    let manifest = json!({"schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "$CONFIG", "size": "#CONFIG_SIZE#"},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "$LAYER", "size": "#LAYER_SIZE#"}]});
    let config = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["$LAYER"]}}"#;
    let entry = |annotations: &str| {
        format!(
            r##"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$MANIFEST","size":"#MANIFEST_SIZE#"{annotations}}}"##
        )
    };
    let named = r#","annotations":{"org.opencontainers.image.ref.name":"localhost/a:1"}"#;
    let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let docker = r#"[{"Config":"blobs/sha256/$CONFIG_HEX","RepoTags":["localhost/a:1"],"Layers":["link/layer.tar"]}]"#;
    let nested =
        r##"{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"$MANIFEST","size":"#MANIFEST_SIZE#"}"##;
    let whole = |choice: u8, index: &str, manifest: &str, docker: &str| {
        let text = [index, manifest, config, "layer", docker].join("\n---\n");
        // Sizes are numbers, which the words for them are not.
        let text = text.replace("\"#", "$").replace("#\"", "");
        [&[choice], text.as_bytes()].concat()
    };
    let manifest = manifest.to_string();
    let mut seeds = vec![
        whole(1, &index(&[entry(named)]), &manifest, ""),
        whole(3, &index(&[entry(named), entry("")]), &manifest, docker),
        whole(5, "", &manifest, docker),
        whole(7, &index(&[entry(named)]), &manifest, docker),
        whole(1, &index(&[nested.to_owned()]), &index(&[nested.to_owned()]), ""),
        whole(1, &index(&[entry(r#","platform":{"os":"linux","architecture":"z80"}"#)]), &manifest, ""),
    ];
    seeds.extend(archives().iter().map(|archive| [&[0], &archive[..]].concat()));
    let raw = texts(&[
        "\x00\x022index.json\tindex.json\n",
        "\x00\x022index.json\ta\n2a\t../../etc/passwd\n0b\t\tx\n",
        "\x00\x020a\t\tx\n0a\t\ty\n1c\ta\n0index.json\t\t{}\n",
    ]);
    seeds.extend(raw);
    seeds
}
