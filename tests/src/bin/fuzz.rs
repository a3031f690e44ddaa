//! libFuzzer over one of the fuzz targets: `GANTRY_FUZZ_TARGET` names it, the arguments are libFuzzer's own. The first
//! folder among them is the corpus; the target's seeds are written there. `tests/fuzz.sh` builds and runs it.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use gantry_tests::fuzz::{self, Target};

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("GANTRY_FUZZ_TARGET").unwrap_or_default();
        fuzz::find(&name).unwrap_or_else(|| {
            let known: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("GANTRY_FUZZ_TARGET is {name:?}, and not one of: {}", known.join(" "));
            std::process::exit(2)
        })
    })
}

/// Before libFuzzer reads the corpus.
fn write_seeds() {
    let seeds = (target().seeds)();
    let Some(corpus) = std::env::args().skip(1).find(|argument| Path::new(argument).is_dir()) else { return };
    for (at, seed) in seeds.iter().enumerate() {
        let path = Path::new(&corpus).join(format!("seed-{at}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("seed {} is left out: {error}", path.display());
        }
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |data: &[u8]| (target().run)(data));
