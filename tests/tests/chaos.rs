//! Every fault that has a name strikes a cluster, in an order and at moments that a seed chose; after each, one oracle looks.

use gantry_tests::cluster::{Cluster, with};
use gantry_tests::faults::{ALL, Site};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

const DISK: &str = "size=256m,nr_inodes=20000,mode=0700";

/// `GANTRY_FAULT_SEED` replays a run; `GANTRY_FAULT_ROUNDS` strikes every fault that often.
fn setting(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn after_every_fault_everything_agrees_again() {
    with(async |machine| {
        let seed = setting("GANTRY_FAULT_SEED", rand::random());
        let mut dice = StdRng::seed_from_u64(seed);
        println!("GANTRY_FAULT_SEED={seed}");
        let disk = machine.root().join("var/lib/gantry");
        std::fs::create_dir_all(&disk).unwrap();
        nix::mount::mount(Some("disk"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(DISK)).unwrap();
        let mut site = Site::build(Cluster::apart(machine).await, &disk, StdRng::from_rng(&mut dice)).await;
        for _ in 0..setting("GANTRY_FAULT_ROUNDS", 1) {
            let mut faults = ALL.to_vec();
            faults.shuffle(&mut dice);
            for fault in faults {
                println!("{fault:?}");
                site.strike(fault).await;
                site.settled().await;
            }
        }
        let mut cluster = site.cluster;
        cluster.down().await;
        nix::mount::umount(&disk).unwrap();
        cluster.uninstall().await;
    });
}
