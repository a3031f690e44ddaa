//! Every fault that has a name strikes a cluster, in an order and at moments that a seed chose; after each, one oracle looks.
//! `GANTRY_FAULT_SEED` replays a run, `GANTRY_FAULT_ROUNDS` says how many rounds, `GANTRY_FAULTS=DiskSlow,DiskFull` which faults.

use gantry_tests::cluster::{Cluster, with};
use gantry_tests::disk::Disk;
use gantry_tests::faults::{Fault, Site, drawn, named};
use gantry_tests::vm;
use gantry_tests::workload::setting;
use nix::mount::{MsFlags, mount, umount};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// The size of Gantry's disk, which is full soon and has few inodes.
const DISK_BYTES: u64 = 256 << 20;
const INODES: u32 = 20_000;
/// On a host, where other tests wait, and in a machine of our own.
const ROUNDS: [u64; 2] = [1, 2];

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
        let asked = std::env::var("GANTRY_FAULTS").ok();
        let (possible, not): (Vec<Fault>, Vec<Fault>) =
            named(asked.as_deref()).iter().partition(|fault| site.can(**fault));
        if !not.is_empty() {
            println!("SKIPPED, they need a machine of our own: {not:?}");
        }
        for round in 0..setting("GANTRY_FAULT_ROUNDS", ROUNDS[usize::from(vm::here().is_some())]) {
            for fault in drawn(&possible, round, &mut dice) {
                println!("{fault:?}");
                let begun = Instant::now();
                site.strike(fault).await;
                site.settled().await;
                println!("  all agrees again after {:.1} s", begun.elapsed().as_secs_f64());
            }
        }
        let mut cluster = site.cluster;
        cluster.down().await;
        umount(&state).unwrap();
        cluster.uninstall().await;
    });
}
