use proptest::prelude::*;

use super::super::fixture::{Tar, header, seal};
use super::*;

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut data = Vec::new();
        archive.data().read_to_end(&mut data)?;
        entries.push((entry, data));
    }
    Ok(entries)
}

fn names(bytes: &[u8]) -> Vec<String> {
    read(bytes).unwrap().iter().map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

#[test]
fn reads_plain_entries() {
    let bytes = Tar::default().folder("a/", 0o755).file("a/b", b"hello").symlink("c", "a/b").end();
    let entries = read(&bytes).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((entries[1].1.as_slice(), entries[1].0.mode), (b"hello".as_slice(), 0o644));
    assert_eq!((entries[2].0.kind, entries[2].0.link.as_slice()), (Kind::Symlink, b"a/b".as_slice()));
}

/// CVE-2025-62518: a reader that believes the header's zero sees the inner archive's entries as the outer's.
#[test]
fn the_size_of_an_extended_header_counts() {
    let inner = Tar::default().file("smuggled", b"x").end();
    let size = inner.len().to_string();
    let bytes = Tar::default()
        .pax(&[("size", size.as_bytes())])
        .raw(&header(b'0', "inner.tar", "", 0o644, 0))
        .data(&inner)
        .file("after", b"")
        .end();
    assert_eq!(names(&bytes), ["inner.tar", "after"]);
}

#[test]
fn long_names_come_both_ways() {
    let long = "d/".repeat(120) + "file";
    let gnu =
        Tar::default().entry(b'L', "././@LongLink", "", 0, format!("{long}\0").as_bytes()).file("short", b"1").end();
    let pax = Tar::default().pax(&[("path", long.as_bytes())]).file("short", b"1").end();
    assert_eq!(names(&gnu), [long.as_str()]);
    assert_eq!(names(&pax), [long.as_str()]);
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    let wrong_sum = {
        let mut bytes = Tar::default().file("a", b"").end();
        bytes[0] = b'b';
        bytes
    };
    let two_headers = Tar::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"").end();
    let global_path = Tar::default().entry(b'g', "x", "", 0, b"10 path=a\n").file("c", b"").end();
    let sized_link = {
        let mut header = header(b'2', "a", "b", 0o777, 512);
        seal(&mut header);
        Tar::default().raw(&header).data(&[0; 512]).end()
    };
    let lone_zero = Tar::default().file("a", b"").raw(&[0; 512]).file("b", b"").end();
    let sparse = Tar::default().entry(b'S', "a", "", 0o644, b"").end();
    let sparse_pax = Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("a", b"").end();
    let orphan = Tar::default().pax(&[("path", b"a")]).end();
    let huge_extension = Tar::default().raw(&header(b'x', "a", "", 0, EXTENSION_MAX_BYTES + 1)).end();
    let truncated = Tar::default().raw(&header(b'0', "a", "", 0o644, 1 << 20)).0;
    for (what, bytes) in [
        ("checksum", wrong_sum),
        ("two headers", two_headers),
        ("global path", global_path),
        ("link with a size", sized_link),
        ("lone zero block", lone_zero),
        ("sparse", sparse),
        ("sparse by pax", sparse_pax),
        ("header without entry", orphan),
        ("huge extension", huge_extension),
        ("truncated", truncated),
    ] {
        assert!(read(&bytes).is_err(), "{what} was taken as {:?}", names(&bytes));
    }
}

#[test]
fn an_archive_may_end_without_its_mark() {
    assert_eq!(names(&Tar::default().file("a", b"x").0), ["a"]);
    assert!(names(&[]).is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
    }

    /// Bytes of a valid archive, changed here and there, with valid checksums.
    #[test]
    fn no_changed_archive_makes_it_panic(changes in prop::collection::vec((0_usize..512, any::<u8>()), 0..8), kind in any::<u8>()) {
        let mut block = header(kind, "some/name", "link", 0o755, 3);
        for (at, byte) in changes {
            block[at] = byte;
        }
        seal(&mut block);
        let _ = read(&Tar::default().raw(&block).data(b"abc").file("after", b"x").end());
    }
}
