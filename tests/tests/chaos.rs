//! Every fault that has a name strikes a cluster, in an order and at moments that a seed chose; after each, one oracle looks.

use gantry_tests::cluster::{Cluster, with};
use gantry_tests::disk::Disk;
use gantry_tests::faults::{ALL, Fault, Site};
use gantry_tests::vm;
use gantry_tests::workload::setting;
use nix::mount::{MsFlags, mount, umount};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The size of Gantry's disk, which is full soon and has few inodes.
const DISK_BYTES: u64 = 256 << 20;
const INODES: u32 = 20_000;

#[test]
fn after_every_fault_everything_agrees_again() {
    let seed = setting("GANTRY_FAULT_SEED", rand::random());
    let mut dice = StdRng::seed_from_u64(seed);
    println!("GANTRY_FAULT_SEED={seed}");
    let disk = vm::here().map(|here| {
        let disk = Disk::attach(&here.shared.join("disk"), DISK_BYTES, StdRng::from_rng(&mut dice)).unwrap();
        disk.format(INODES);
        disk
    });
    with(async |machine| {
        let state = machine.root().join("var/lib/gantry");
        std::fs::create_dir_all(&state).unwrap();
        match &disk {
            Some(disk) => disk.mount(&state).unwrap(),
            None => {
                let data = format!("size={DISK_BYTES},nr_inodes={INODES},mode=0700");
                mount(Some("disk"), &state, Some("tmpfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
            }
        }
        let mut site = Site::build(Cluster::apart(machine).await, &state, disk, StdRng::from_rng(&mut dice)).await;
        let (possible, not): (Vec<Fault>, Vec<Fault>) = ALL.iter().partition(|fault| site.can(**fault));
        if !not.is_empty() {
            println!("SKIPPED, they need a machine of our own: {not:?}");
        }
        for _ in 0..setting("GANTRY_FAULT_ROUNDS", 1) {
            let mut faults = possible.clone();
            faults.shuffle(&mut dice);
            for fault in faults {
                println!("{fault:?}");
                site.strike(fault).await;
                site.settled().await;
            }
        }
        let mut cluster = site.cluster;
        cluster.down().await;
        umount(&state).unwrap();
        cluster.uninstall().await;
    });
}
