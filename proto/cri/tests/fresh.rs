//! `src/generated.rs` is what the generator makes of `proto/runtime.proto`. To make it anew:
//! `GANTRY_REGENERATE=1 cargo test -p gantry-cri --test fresh`.

use std::path::Path;

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(["runtime.proto"], [root.join("proto")]).expect("the proto text compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_client(true)
        .build_server(true)
        .compile_fds(files)
        .expect("the generator takes the descriptors");
    let made = std::fs::read_to_string(out.path().join("runtime.v1.rs")).expect("one file for the package");
    let kept = root.join("src/generated.rs");
    if std::env::var_os("GANTRY_REGENERATE").is_some() {
        std::fs::write(&kept, &made).expect("generated.rs can be written");
    }
    let have = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(have == made, "src/generated.rs is stale: run with GANTRY_REGENERATE=1");
}
