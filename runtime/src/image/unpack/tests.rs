use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::super::digest::Digest;
use super::super::disk::open_folder;
use super::super::fixture::{Ground, Tar};
use super::super::usage::measure;
use super::*;

const SMALL: Limits = Limits { entries_max: 1000, data_max_bytes: 1 << 20, names_max_bytes: 64 << 10, hands_max: 0 };

fn unpack_into(ground: &Ground, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
    unpack(bytes, &ground.folder, &ground.aside, &SMALL)
}

/// Nothing may appear beside the folder, whatever the archive says.
fn outside(ground: &Ground) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(ground.all.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn opaque(path: &Path) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value).is_ok_and(|n| &value[..n] == b"y")
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

#[test]
fn names_that_lead_out_are_refused() {
    for path in ["../evil", "a/../../evil", "/../evil"] {
        let ground = Ground::new();
        let error = unpack_into(&ground, &Tar::default().file(path, b"x").end()).unwrap_err();
        assert!(matches!(error, UnpackError::Name(NameError::Escapes(_))), "{path}: {error}");
        assert_eq!(outside(&ground), ["aside", "fs"]);
    }
}

#[test]
fn links_lead_nowhere_but_inside() {
    let ground = Ground::new();
    let victim = ground.all.path().join("victim");
    let absolute = victim.to_str().unwrap();
    let bytes = Tar::default()
        .symlink("up", "../..")
        .file("up/evil", b"x")
        .symlink("abs", absolute)
        .file("abs/evil", b"x")
        .symlink("magic", "/proc/self/root")
        .file("magic/evil", b"x")
        .end();
    unpack_into(&ground, &bytes).unwrap();
    assert_eq!(outside(&ground), ["aside", "fs"]);
    // `up` is the root itself; the others' targets were made inside.
    assert!(ground.path().join("evil").is_file());
    assert!(ground.path().join(absolute.trim_start_matches('/')).join("evil").is_file());
    assert!(ground.path().join("proc/self/root/evil").is_file());
    assert!(!Path::new("/evil").exists());
}

#[test]
fn a_file_replaces_a_link_and_does_not_follow_it() {
    let ground = Ground::new();
    let victim = ground.all.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let bytes = Tar::default().symlink("a", victim.to_str().unwrap()).file("a", b"evil").end();
    unpack_into(&ground, &bytes).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    assert_eq!(fs::read_to_string(ground.path().join("a")).unwrap(), "evil");
}

#[test]
fn hard_links_name_files_of_the_layer() {
    let ground = Ground::new();
    let bytes = Tar::default().file("a", b"1").hard_link("b", "/a").symlink("s", "a").hard_link("t", "s").end();
    unpack_into(&ground, &bytes).unwrap();
    let inode = |name: &str| fs::symlink_metadata(ground.path().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(inode("s"), inode("t"));
    // The host's shadow file is not in the layer: the link waits for the layers below, and is in none.
    let ground = Ground::new();
    let unpacked = unpack_into(&ground, &Tar::default().hard_link("x", "/etc/shadow").end()).unwrap();
    assert!(unpacked.needs_lowers());
    let error = settle(unpacked, &ground.folder, &[]).unwrap_err();
    assert!(error.to_string().contains("in no layer"), "{error}");
    assert!(!ground.path().join("x").exists());
    let ground = Ground::new();
    assert!(
        unpack_into(&ground, &Tar::default().symlink("up", "../../../../etc").hard_link("x", "up/shadow").end())
            .is_ok()
    );
    assert!(!ground.path().join("x").exists());
    for target in ["../../etc/shadow", "", "."] {
        assert!(unpack_into(&Ground::new(), &Tar::default().hard_link("x", target).end()).is_err(), "{target:?}");
    }
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let ground = Ground::new();
    let bytes = Tar::default()
        .file("d/.wh.gone", b"")
        .file("kept", b"new")
        .file(".wh.kept", b"")
        .file(".wh.again", b"")
        .folder("again/", 0o755)
        .file("again/x", b"1")
        .folder("later/", 0o755)
        .file(".wh.later", b"")
        .file("opq/.wh..wh..opq", b"")
        .file("opq/y", b"2")
        .file(".wh..wh.plnk", b"")
        .end();
    unpack_into(&ground, &bytes).unwrap();
    let path = |name: &str| ground.path().join(name);
    assert!(is_whiteout(&path("d/gone")));
    assert_eq!(fs::read_to_string(path("kept")).unwrap(), "new");
    assert!(opaque(&path("again")) && path("again/x").is_file());
    assert!(opaque(&path("later")));
    assert!(opaque(&path("opq")) && path("opq/y").is_file());
    assert!(!path(".wh..wh.plnk").exists() && !path("opq/.wh..wh..opq").exists());
    for trick in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        assert!(unpack_into(&Ground::new(), &Tar::default().file(trick, b"").end()).is_err(), "{trick}");
    }
    let linked = Tar::default().file(".wh.a", b"").hard_link("b", "a").end();
    assert!(unpack_into(&Ground::new(), &linked).is_err(), "a link to a whiteout");
    assert!(unpack_into(&Ground::new(), &Tar::default().device(b'3', "w", 0, 0).end()).is_err(), "a device 0/0");
}

#[test]
fn attributes_of_the_overlay_are_refused() {
    for attribute in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.whiteout"] {
        let key = format!("SCHILY.xattr.{attribute}");
        let bytes = Tar::default().pax(&[(&key, b"y")]).folder("d/", 0o755).end();
        let error = unpack_into(&Ground::new(), &bytes).unwrap_err();
        assert!(error.to_string().contains(attribute), "{error}");
    }
}

#[test]
fn modes_owners_times_and_capabilities_are_kept() {
    let ground = Ground::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = Tar::default()
        .pax(&[
            ("uid", b"1000"),
            ("gid", b"2000"),
            ("mtime", b"1234567890.5"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.x", b"1"),
        ])
        .entry(b'0', "suid", "", 0o6755, b"x")
        .pax(&[("mtime", b"1000000000")])
        .folder("d/", 0o1777)
        .file("d/x", b"")
        .device(b'3', "null", 1, 3)
        .entry(b'6', "fifo", "", 0o622, b"")
        .end();
    unpack_into(&ground, &bytes).unwrap();
    let stat = |name: &str| fs::symlink_metadata(ground.path().join(name)).unwrap();
    let suid = stat("suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid()), (0o6755, 1000, 2000));
    assert_eq!((suid.mtime(), suid.mtime_nsec()), (1_234_567_890, 500_000_000));
    let mut value = [0_u8; 64];
    let n = rustix::fs::getxattr(ground.path().join("suid"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], &capability);
    assert_eq!((stat("d").mode() & 0o7777, stat("d").mtime()), (0o1777, 1_000_000_000));
    assert_eq!((stat("null").rdev(), stat("fifo").mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o622));
    assert!(stat("fifo").file_type().is_fifo());
}

#[test]
fn a_removal_that_was_cut_short_is_no_hindrance_to_the_next() {
    let ground = Ground::new();
    let below = |path: &str| ground.all.path().join(path);
    // Moved up beside it, and not emptied.
    for path in ["fs/a/b/c", "fs/d/e", "fs.1/f/g", "fs.2/h"] {
        fs::create_dir_all(below(path)).unwrap();
    }
    for name in ["fs", "fs.1", "fs.2"] {
        remove_tree(open_folder(ground.all.path()).unwrap(), name.as_bytes()).unwrap();
    }
    assert_eq!(outside(&ground), ["aside"]);
}

#[test]
fn a_wide_tree_is_removed_by_many_and_a_failure_ends_them_all() {
    let ground = Ground::new();
    let removed = || remove_tree(open_folder(ground.all.path()).unwrap(), b"fs");
    for at in 0..60 {
        let folder = ground.path().join(format!("d{}/e{at}", at % 7));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..if at == 3 { 5000 } else { 30 } {
            fs::write(folder.join(file.to_string()), b"").unwrap();
        }
    }
    let kept = fs::File::open(ground.path().join("d3/e3/2500")).unwrap();
    let flags = rustix::fs::ioctl_getflags(&kept);
    // Where files can be made to stay.
    if let Ok(flags) = flags
        && rustix::fs::ioctl_setflags(&kept, flags | rustix::fs::IFlags::IMMUTABLE).is_ok()
    {
        assert!(removed().is_err());
        rustix::fs::ioctl_setflags(&kept, flags).unwrap();
    }
    for left in outside(&ground).iter().filter(|name| *name != "aside") {
        remove_tree(open_folder(ground.all.path()).unwrap(), left.as_bytes()).unwrap();
    }
    removed().unwrap();
    assert_eq!(outside(&ground), ["aside"]);
}

#[test]
fn bombs_are_bounded() {
    let mut many = Tar::default();
    for at in 0..1001 {
        many = many.file(&format!("f{at}"), b"");
    }
    assert!(matches!(unpack_into(&Ground::new(), &many.end()), Err(UnpackError::TooManyEntries(1000))));
    let big = Tar::default().file("a", &vec![0; 700 << 10]).file("b", &vec![0; 700 << 10]).end();
    assert!(matches!(unpack_into(&Ground::new(), &big), Err(UnpackError::TooMuchData(_))));
    // One entry that implies many folders.
    let deep = "d/".repeat(1500);
    let deep = Tar::default().pax(&[("path", format!("{deep}x").as_bytes())]).file("x", b"").end();
    let ground = Ground::new();
    assert!(matches!(unpack_into(&ground, &deep), Err(UnpackError::TooManyEntries(_))));
    remove_tree(open_folder(ground.all.path()).unwrap(), b"fs").unwrap();
    assert!(!ground.path().exists());
    // Holes take no room, and count all the same.
    let hole: &[(&str, &[u8])] = &[("GNU.sparse.size", b"2000000"), ("GNU.sparse.map", b"0,1")];
    let sparse = Tar::default().pax(hole).file("hole", b"x").end();
    assert!(matches!(unpack_into(&Ground::new(), &sparse), Err(UnpackError::TooMuchData(_))));
    let long = "x".repeat(5000);
    assert!(
        unpack_into(&Ground::new(), &Tar::default().pax(&[("path", long.as_bytes())]).file("x", b"").end()).is_err()
    );
}

#[test]
fn a_folder_deeper_than_a_path_is_removed() {
    let ground = Ground::new();
    let step = "d/".repeat(200);
    let mut tar = Tar::default();
    // Each link stands for two hundred folders: the depth is beyond any path.
    tar = tar.pax(&[("path", step.as_bytes())]).folder("x", 0o755);
    let limits = Limits { entries_max: 1_000_000, data_max_bytes: 1 << 20, names_max_bytes: 16 << 20, hands_max: 1 };
    let mut at = step.trim_end_matches('/').to_owned();
    for link in 0..12 {
        tar = tar.pax(&[("linkpath", format!("/{at}").as_bytes())]).symlink(&format!("l{link}"), "x");
        at = format!("l{link}/{}", step.trim_end_matches('/'));
        tar = tar.pax(&[("path", format!("{at}/").as_bytes())]).folder("x", 0o755);
    }
    unpack(tar.end().as_slice(), &ground.folder, &ground.aside, &limits).unwrap();
    remove_tree(open_folder(ground.all.path()).unwrap(), b"fs").unwrap();
    assert_eq!(outside(&ground), ["aside"]);
}

#[test]
fn a_wide_layer_with_links_to_links_is_unpacked() {
    const FILES: usize = 20_000;
    let mut tar = Tar::default();
    for at in 0..FILES {
        tar = tar.file(&format!("wide/{at}"), b"x");
    }
    // Each a hard link to the one before it.
    for at in 0..100 {
        let target = if at == 0 { "wide/0".to_owned() } else { format!("link{}", at - 1) };
        tar = tar.hard_link(&format!("link{at}"), &target);
    }
    let ground = Ground::new();
    let limits = Limits { entries_max: FILES as u64 + 200, ..SMALL };
    unpack(tar.end().as_slice(), &ground.folder, &ground.aside, &limits).unwrap();
    assert_eq!(fs::read_dir(ground.path().join("wide")).unwrap().count(), FILES);
    assert_eq!(fs::metadata(ground.path().join("link99")).unwrap().nlink(), 101);
}

#[test]
fn what_is_below_is_adopted() {
    let lower = Ground::new();
    let bytes = Tar::default()
        .folder("tmp/", 0o1777)
        .pax(&[("uid", b"7"), ("SCHILY.xattr.user.a", b"b")])
        .file("etc/conf", b"below")
        .end();
    unpack_into(&lower, &bytes).unwrap();
    let upper = Ground::new();
    let linked = Tar::default().file("tmp/x", b"").hard_link("tmp/copy", "etc/conf").hard_link("tmp/again", "etc/conf");
    let unpacked = unpack_into(&upper, &linked.end()).unwrap();
    settle(unpacked, &upper.folder, &[lower.folder]).unwrap();
    assert_eq!(fs::metadata(upper.path().join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let copy = upper.path().join("tmp/copy");
    assert_eq!((fs::read_to_string(&copy).unwrap().as_str(), fs::metadata(&copy).unwrap().uid()), ("below", 7));
    assert_eq!(fs::metadata(&copy).unwrap().ino(), fs::metadata(upper.path().join("tmp/again")).unwrap().ino());
    let mut value = [0_u8; 8];
    assert_eq!(rustix::fs::getxattr(&copy, "user.a", &mut value).unwrap(), 1, "attributes come along");
}

/// What a tree looks like, to compare two of them.
fn look(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let kind = stat.file_type();
            let content = if kind.is_file() {
                // A hash: sparse files are long.
                format!("{} {} links {}", Digest::of(&fs::read(&path).unwrap()), stat.len(), stat.nlink())
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let line = format!("{:o} {} {} {} {content}", stat.mode(), stat.uid(), stat.gid(), stat.mtime());
            if kind.is_dir() {
                waiting.push(path);
            }
            seen.insert(name, line);
        }
    }
    seen
}

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    /// Runs of data at these pages, and pages in all.
    Sparse(std::collections::BTreeSet<u16>, u16),
    Folder(u32),
    Link(String),
    Fifo,
    HardLink(prop::sample::Index),
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..1500), 0_u32..0o7777).prop_map(|(data, mode)| Node::File(data, mode)),
        (prop::collection::btree_set(0_u16..400, 0..40), 0_u16..500)
            .prop_map(|(pages, size)| Node::Sparse(pages, size)),
        (0o700_u32..0o1777).prop_map(|mode| Node::Folder(mode | 0o700)),
        "[a-z./]{1,120}".prop_map(Node::Link),
        Just(Node::Fifo),
        any::<prop::sample::Index>().prop_map(Node::HardLink),
    ]
}

/// Makes a tree of nodes, each under one of the folders before it, with names short and long.
fn grow(root: &Path, nodes: &[(Node, prop::sample::Index, bool)]) {
    use std::os::unix::fs::PermissionsExt;
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    for (at, (node, parent, long)) in nodes.iter().enumerate() {
        let name = if *long { format!("{at}-{}", "n".repeat(150)) } else { format!("{at}é") };
        let path = folders[parent.index(folders.len())].join(name);
        match node {
            Node::File(data, mode) => {
                fs::write(&path, data).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path);
            }
            Node::Sparse(pages, size) => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(u64::from(*size) * 4096 + 7).unwrap();
                for page in pages {
                    crate::image::copy::write_at(&file, &[page.to_le_bytes()[0] | 1; 4096], u64::from(*page) * 4096)
                        .unwrap();
                }
                files.push(path);
            }
            Node::Folder(mode) => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                folders.push(path);
            }
            Node::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Node::Fifo => {
                rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap()
            }
            Node::HardLink(_) if files.is_empty() => {}
            Node::HardLink(of) => fs::hard_link(&files[of.index(files.len())], &path).unwrap(),
        }
    }
}

/// How GNU tar is told to pack: its formats, and those of sparse files.
const FORMATS: &[&[&str]] = &[
    &["--format=gnu"],
    &["--format=pax"],
    &["--format=gnu", "--sparse"],
    &["--format=pax", "--sparse-version=0.0"],
    &["--format=pax", "--sparse-version=0.1"],
    &["--format=pax", "--sparse-version=1.0"],
];

/// Entries that meet each other: the same names again, by two paths of one folder, hidden, linked.
fn crowded() -> impl Strategy<Value = Vec<(u8, String, String, Vec<u8>)>> {
    // `l` is a link to `d0`.
    let folder = || prop::sample::select(vec!["d0", "d1", "d2", "l", "d0/e", "l/e", "implied"]);
    let file = move || (folder(), 0..60_u8).prop_map(|(folder, n)| format!("{folder}/{n}"));
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let entry = prop_oneof![
        40 => (file(), data).prop_map(|(path, data)| (b'0', path, String::new(), data)),
        1 => (folder(), 0..9_u8).prop_map(|(folder, n)| (b'5', format!("{folder}/f{n}"), String::new(), Vec::new())),
        1 => (folder(), 0..9_u8).prop_map(|(folder, n)| (b'0', format!("{folder}/f{n}"), String::new(), b"f".to_vec())),
        1 => file().prop_map(|path| (b'2', path, "0".to_owned(), Vec::new())),
        1 => (folder(), 0..60_u8).prop_map(|(at, n)| (b'0', format!("{at}/.wh.{n}"), String::new(), Vec::new())),
        2 => (file(), file()).prop_filter("itself", |(link, to)| link != to).prop_map(|(link, to)| (b'1', link, to, Vec::new())),
    ];
    prop::collection::vec(entry, 0..1500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// However many make a layer's files, they are the same.
    #[test]
    fn many_hands_make_what_one_makes(entries in crowded(), hands_max in 1..4_usize) {
        let mut tar = Tar::default().folder("d0/", 0o755).symlink("l", "d0");
        for (kind, path, link, data) in &entries {
            tar = tar.entry(*kind, path, link, 0o640, data);
        }
        let bytes = tar.end();
        let limits = |hands_max| Limits { entries_max: 10_000, hands_max, ..SMALL };
        let (one, many) = (Ground::new(), Ground::new());
        let alone = unpack(bytes.as_slice(), &one.folder, &one.aside, &limits(0));
        let shared = unpack(bytes.as_slice(), &many.folder, &many.aside, &limits(hands_max));
        prop_assert_eq!(alone.is_ok(), shared.is_ok(), "{:?} {:?}", alone.err(), shared.err());
        if shared.is_ok() {
            // A folder that no entry names, and what hides, have the time of their making.
            let timeless = |root: &Path| -> BTreeMap<String, String> {
                let cut = |line: String| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
                let is_timeless = |line: &str| line.starts_with('4') || line.starts_with("20000 ");
                look(root).into_iter().map(|(name, line)| (name, if is_timeless(&line) { cut(line) } else { line })).collect()
            };
            let (one, many) = (timeless(&one.path()), timeless(&many.path()));
            let only = |these: &BTreeMap<String, String>, those: &BTreeMap<String, String>| -> Vec<String> {
                let lines = these.iter().filter(|(name, line)| those.get(*name) != Some(line));
                lines.map(|(name, line)| format!("{name}: {line}")).collect()
            };
            prop_assert_eq!(only(&one, &many), only(&many, &one));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// What GNU tar packs, in any of its formats, is unpacked as GNU tar unpacks it.
    #[test]
    fn agrees_with_gnu_tar(nodes in prop::collection::vec((node(), any::<prop::sample::Index>(), any::<bool>()), 0..24), format in prop::sample::select(FORMATS)) {
        let work = tempfile::tempdir().unwrap();
        let tree = work.path().join("tree");
        let theirs = work.path().join("theirs");
        for folder in [&tree, &theirs] {
            fs::create_dir(folder).unwrap();
        }
        grow(&tree, &nodes);
        let archive = Command::new("tar").args(format).arg("-C").arg(&tree).args(["-cf", "-", "."]).output().unwrap().stdout;
        fs::write(work.path().join("a.tar"), &archive).unwrap();
        let status = Command::new("tar").arg("-C").arg(&theirs).args(["-xpf"]).arg(work.path().join("a.tar")).status().unwrap();
        prop_assert!(status.success());
        let ground = Ground::new();
        let unpacked = unpack(archive.as_slice(), &ground.folder, &ground.aside, &Limits::default()).unwrap();
        prop_assert!(!unpacked.needs_lowers());
        prop_assert_eq!(look(&ground.path()), look(&theirs));
        if format.len() > 1 {
            // A hole that became data would show.
            prop_assert!(measure(open_folder(&ground.path()).unwrap()).bytes <= measure(open_folder(&theirs).unwrap()).bytes);
        }
    }

    /// Whatever the names and targets are, nothing appears outside.
    #[test]
    fn nothing_escapes(entries in prop::collection::vec((prop::sample::select(vec![b'0', b'1', b'2', b'5', b'6']), "[ab./]{1,12}", "(/|\\.\\./)?[ab./]{1,12}"), 1..20)) {
        let ground = Ground::new();
        let before = look(ground.all.path()).len();
        let mut tar = Tar::default();
        for (kind, path, link) in entries {
            tar = tar.entry(kind, &path, &link, 0o644, if kind == b'0' { b"x" } else { b"" });
        }
        let _ = unpack_into(&ground, &tar.end());
        prop_assert_eq!(outside(&ground), ["aside", "fs"]);
        prop_assert!(before == 2);
    }
}
