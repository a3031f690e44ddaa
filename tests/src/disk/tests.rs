use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;

const SECTORS: u64 = 16;

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, count: u64, durable: bool },
    Flush,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..SECTORS, 1_u64..6, prop::bool::weighted(0.1));
    prop_oneof![
        6 => write.prop_map(|(at, count, durable)| Step::Write { at, count: count.min(SECTORS - at), durable }),
        1 => Just(Step::Flush),
        1 => Just(Step::Look),
    ]
}

fn sector(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(SECTOR_BYTES / 8)
}

fn server(seed: u64) -> (Server, UnixStream) {
    let medium = tempfile::tempfile().unwrap();
    medium.set_len(SECTORS * SECTOR_BYTES as u64).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cache = Cache::new(StdRng::seed_from_u64(seed));
    (Server { socket: ours, medium, cache, ailments: Arc::default() }, theirs)
}

fn on(sector: u64, count: u64, what: What) -> Request {
    let bytes = SECTOR_BYTES as u64;
    Request { what, cookie: *b"01234567", offset: sector * bytes, length: (count * bytes) as u32 }
}

fn seen(server: &mut Server) -> Vec<u8> {
    let mut all = vec![0; SECTORS as usize * SECTOR_BYTES];
    server.answer(on(0, SECTORS, What::Read), &mut all).unwrap();
    all
}

proptest! {
    /// With the power on nobody sees the cache; with the power off each sector is as it was at the last flush, or as any
    /// write since has left it.
    #[test]
    fn a_loss_of_power_takes_nothing_that_was_flushed(steps in prop::collection::vec(step(), 1..60), seed: u64) {
        let (mut server, _theirs) = server(seed);
        let mut now = vec![0; SECTORS as usize];
        let mut may_be: BTreeMap<u64, Vec<u64>> = (0..SECTORS).map(|at| (at, vec![0])).collect();
        for (n, step) in (1..).zip(steps) {
            match step {
                Step::Write { at, count, durable } => {
                    let mut data = sector(n).repeat(count as usize);
                    server.answer(on(at, count, What::Write { durable }), &mut data).unwrap();
                    for at in at..at + count {
                        now[at as usize] = n;
                        let values = may_be.entry(at).or_default();
                        if durable {
                            values.clear();
                        }
                        values.push(n);
                    }
                }
                Step::Flush => {
                    server.answer(on(0, 0, What::Flush), &mut []).unwrap();
                    may_be = (0..).zip(&now).map(|(at, n)| (at, vec![*n])).collect();
                }
                Step::Look => prop_assert_eq!(seen(&mut server), now.iter().flat_map(|n| sector(*n)).collect::<Vec<_>>()),
            }
        }
        let mut left = vec![0; SECTORS as usize * SECTOR_BYTES];
        server.medium.read_exact_at(&mut left, 0).unwrap();
        for (at, found) in (0..).zip(left.chunks(SECTOR_BYTES)) {
            let possible = may_be[&at].iter().any(|n| sector(*n) == found);
            prop_assert!(possible, "sector {at} is none of {:?}", may_be[&at]);
        }
    }
}

/// What a disk holds back is lost in part: else the test above would prove nothing.
#[test]
fn some_writes_wait_some_do_not_and_some_are_torn() {
    let (mut server, _theirs) = server(1);
    let mut kinds = [false; 3];
    for n in 1..100 {
        server.answer(on(0, 8, What::Write { durable: false }), &mut sector(n).repeat(8)).unwrap();
        let mut left = vec![0; 8 * SECTOR_BYTES];
        server.medium.read_exact_at(&mut left, 0).unwrap();
        match left.chunks(SECTOR_BYTES).filter(|found| **found == sector(n)).count() {
            0 => kinds[0] = true,
            8 => kinds[1] = true,
            _ => kinds[2] = true,
        }
    }
    assert_eq!(kinds, [true; 3]);
}

#[test]
fn a_disk_that_ails_says_so_and_keeps_what_it_has() {
    let (mut server, _theirs) = server(2);
    let write = on(3, 1, What::Write { durable: false });
    server.answer(write, &mut sector(7)).unwrap();
    *server.ailments.lock() = Ailments { refuses_writes: true, ..Ailments::default() };
    server.answer(write, &mut sector(8)).unwrap_err();
    server.answer(on(0, 0, What::Flush), &mut []).unwrap_err();
    assert_eq!(&seen(&mut server)[3 * SECTOR_BYTES..4 * SECTOR_BYTES], sector(7));
    *server.ailments.lock() = Ailments { fails_reads: true, ..Ailments::default() };
    server.answer(on(3, 1, What::Read), &mut sector(0)).unwrap_err();
    server.answer(on(0, 0, What::Flush), &mut []).unwrap();
}

/// The kernel's bytes, by hand.
#[test]
fn the_wire_is_the_kernels() {
    let (server, mut theirs) = server(3);
    let disk = std::thread::spawn(move || server.serve());
    let ask = |theirs: &mut UnixStream, flags_and_kind: u32, offset: u64, length: u32| {
        theirs.write_all(&0x2560_9513_u32.to_be_bytes()).unwrap();
        theirs.write_all(&flags_and_kind.to_be_bytes()).unwrap();
        theirs.write_all(b"a cookie").unwrap();
        theirs.write_all(&offset.to_be_bytes()).unwrap();
        theirs.write_all(&length.to_be_bytes()).unwrap();
    };
    let answered = |theirs: &mut UnixStream| {
        let mut head = [0; 16];
        theirs.read_exact(&mut head).unwrap();
        assert_eq!((&head[..4], &head[8..]), (&0x6744_6698_u32.to_be_bytes()[..], &b"a cookie"[..]));
        u32::from_be_bytes(head[4..8].try_into().unwrap())
    };
    ask(&mut theirs, 1 << 16 | 1, 512, 512);
    theirs.write_all(&sector(9)).unwrap();
    assert_eq!(answered(&mut theirs), 0);
    ask(&mut theirs, 3, 0, 0);
    assert_eq!(answered(&mut theirs), 0);
    ask(&mut theirs, 0, 512, 512);
    assert_eq!(answered(&mut theirs), 0);
    let mut data = [0; 512];
    theirs.read_exact(&mut data).unwrap();
    assert_eq!(data, sector(9)[..]);
    // Past its end.
    ask(&mut theirs, 0, SECTORS * 512, 512);
    assert_eq!(answered(&mut theirs), 5);
    ask(&mut theirs, 2, 0, 0);
    disk.join().unwrap().unwrap();
}
