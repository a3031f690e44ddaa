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

fn contents(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        archive.content(&entry).read_to_end(&mut content)?;
        entries.push((entry, content));
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
    let sparse_of_star = Tar::default().entry(b'S', "a", "", 0o644, b"").end();
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
        ("star's sparse file", sparse_of_star),
        ("a sparse file of no size", sparse_pax),
        ("header without entry", orphan),
        ("huge extension", huge_extension),
        ("truncated", truncated),
    ] {
        assert!(read(&bytes).is_err(), "{what} was taken as {:?}", names(&bytes));
    }
}

/// A header of the old format: places in it, then those of the blocks after it, then the runs.
fn old_sparse(size: u64, places: &[(u64, u64)], data: &[u8]) -> Tar {
    let place = |(offset, bytes): &(u64, u64)| format!("{offset:011o}\0{bytes:011o}\0").into_bytes();
    let mut block = header(b'S', "sparse", "", 0o644, data.len() as u64);
    block[257..265].copy_from_slice(b"ustar  \0");
    let (here, beyond) = places.split_at(places.len().min(4));
    for (at, place) in here.iter().map(place).enumerate() {
        block[386 + at * 24..386 + (at + 1) * 24].copy_from_slice(&place);
    }
    block[482] = u8::from(!beyond.is_empty());
    block[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    seal(&mut block);
    let mut tar = Tar::default().raw(&block);
    let blocks: Vec<_> = beyond.chunks(21).collect();
    for (at, chunk) in blocks.iter().enumerate() {
        let mut block = [0; 512];
        for (at, place) in chunk.iter().map(place).enumerate() {
            block[at * 24..(at + 1) * 24].copy_from_slice(&place);
        }
        block[504] = u8::from(at + 1 < blocks.len());
        tar = tar.raw(&block);
    }
    tar.data(data)
}

#[test]
fn sparse_files_are_read_in_every_format() {
    let expected = [&[0; 3][..], b"ab", &[0; 5], b"c", &[0; 9]].concat();
    let ahead = [b"2\n3\n2\n10\n1\n".to_vec(), vec![0; 512 - 11], b"abc".to_vec()].concat();
    let pax = |records: &[(&str, &[u8])], data: &[u8]| Tar::default().pax(records).file("packed", data).end();
    let sized: (&str, &[u8]) = ("GNU.sparse.size", b"20");
    for (what, name, bytes) in [
        ("old", "sparse", old_sparse(20, &[(3, 2), (10, 1), (20, 0)], b"abc").end()),
        (
            "0.0",
            "packed",
            pax(
                &[
                    sized,
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"3"),
                    ("GNU.sparse.numbytes", b"2"),
                    ("GNU.sparse.offset", b"10"),
                    ("GNU.sparse.numbytes", b"1"),
                ],
                b"abc",
            ),
        ),
        ("0.1", "real", pax(&[sized, ("GNU.sparse.name", b"real"), ("GNU.sparse.map", b"3,2,10,1,20,0")], b"abc")),
        (
            "1.0",
            "real",
            pax(
                &[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"real"),
                    ("GNU.sparse.realsize", b"20"),
                ],
                &ahead,
            ),
        ),
    ] {
        let entries = contents(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(entries.len(), 1, "{what}");
        let (entry, content) = &entries[0];
        assert_eq!((entry.path.as_slice(), entry.size, content), (name.as_bytes(), 20, &expected), "{what}");
        let runs = [Segment { offset: 3, bytes: 2 }, Segment { offset: 10, bytes: 1 }];
        assert_eq!(entry.sparse.as_deref(), Some(runs.as_slice()), "{what}");
    }
    let many: Vec<(u64, u64)> = (0..60).map(|at| (at * 2, 1)).collect();
    let entries = contents(&old_sparse(120, &many, &[7; 60]).file("after", b"x").end()).unwrap();
    assert_eq!(entries[0].1, [7, 0].repeat(60));
    assert_eq!(entries[1].1, b"x");
    let hole = contents(&old_sparse(1000, &[(1000, 0)], b"").end()).unwrap();
    assert_eq!(hole[0].1, [0; 1000]);
}

#[test]
fn a_map_that_does_not_add_up_is_refused() {
    let old = |size, places: &[(u64, u64)], data: &[u8]| old_sparse(size, places, data).end();
    let pax = |records: &[(&str, &[u8])], data: &[u8]| Tar::default().pax(records).file("f", data).end();
    let map = |map: &[u8]| pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", map)], b"abc");
    let one: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"20")];
    let ahead = |text: &str| pax(&one, &[text.as_bytes(), &vec![0; 512 - text.len()], b"abc"].concat());
    let huge = u64::MAX >> 1;
    for (what, bytes) in [
        ("overlapping", old(20, &[(3, 2), (4, 1)], b"abc")),
        ("backwards", old(20, &[(10, 2), (3, 1)], b"abc")),
        ("beyond the file", old(4, &[(3, 2), (10, 1)], b"abc")),
        ("more data than runs", old(20, &[(3, 2)], b"abc")),
        ("less data than runs", old(20, &[(3, 4)], b"abc")),
        ("a map that goes on beyond the archive", old_sparse(120, &[(0, 1); 60], b"").0[..600].to_vec()),
        ("a run that ends beyond any file", map(format!("{},{huge},{huge},{huge},{huge},3", 0).as_bytes())),
        ("half a pair", map(b"3,2,10")),
        ("no numbers", map(b"a,b")),
        (
            "two maps",
            pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"3,3"), ("GNU.sparse.map", b"3,3")], b"abc"),
        ),
        (
            "two sizes",
            pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.realsize", b"21"), ("GNU.sparse.map", b"3,3")], b"abc"),
        ),
        (
            "a size beyond any file",
            pax(&[("GNU.sparse.size", b"18446744073709551615"), ("GNU.sparse.map", b"3,3")], b"abc"),
        ),
        (
            "a count that is wrong",
            pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"3,3")], b"abc"),
        ),
        ("a length without a place", pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.numbytes", b"3")], b"abc")),
        (
            "a format to come",
            pax(
                &[
                    ("GNU.sparse.size", b"20"),
                    ("GNU.sparse.major", b"2"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.map", b"3,3"),
                ],
                b"abc",
            ),
        ),
        (
            "a record to come",
            pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"3,3"), ("GNU.sparse.new", b"1")], b"abc"),
        ),
        ("a map ahead and one in records", pax(&[one[0], one[1], one[2], ("GNU.sparse.map", b"3,3")], b"abc")),
        ("a map ahead that is not there", pax(&one, b"abc")),
        ("a map ahead that promises too much", ahead("99999999999\n")),
        ("a number ahead without end", ahead(&"1".repeat(500))),
        ("a map ahead that is not whole", ahead("2\n3\n")),
        (
            "a folder",
            Tar::default().pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"20,0")]).folder("d/", 0o755).end(),
        ),
        (
            "two formats",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"3,3")])
                .raw(&old(20, &[(3, 3)], b"abc"))
                .0,
        ),
        ("a global map", Tar::default().entry(b'g', "x", "", 0, b"22 GNU.sparse.size=20\n").file("c", b"").end()),
    ] {
        assert!(contents(&bytes).is_err(), "{what} was taken as {:?}", names(&bytes));
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
        let _ = contents(&bytes);
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
