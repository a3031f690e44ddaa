//! The generated code is what the generator makes of `proto/etcd.proto`. To make it anew:
//! `GANTRY_REGENERATE=1 cargo test -p gantry-control --test etcd_fresh`.

use std::path::Path;

const KEPT: &str = "src/store/etcd/generated.rs";

#[test]
fn generated_code_is_fresh() {
    // Where the sources are now: a compiled test may have been kept from another checkout.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&root);
    let files = protox::compile(["etcd.proto"], [root.join("proto")]).expect("the proto text compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        .build_client(true)
        .build_server(false)
        .compile_fds(files)
        .expect("the generator takes the descriptors");
    let made = std::fs::read_to_string(out.path().join("etcdserverpb.rs")).expect("one file for the package");
    let kept = root.join(KEPT);
    if std::env::var_os("GANTRY_REGENERATE").is_some() {
        std::fs::write(&kept, &made).expect("generated code can be written");
    }
    let have = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(have == made, "{} is stale: run with GANTRY_REGENERATE=1", kept.display());
}
