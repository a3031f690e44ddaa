//! The house keeps its own rules: which crate may know which, and how large a room may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// A file without its tests is split before it reaches this.
const FILE_MAX_LINES: usize = 800;
/// The layout's top level is fixed; new things find a room in it.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "rust-toolchain.toml",
    "agent",
    "runtime",
    "netproxy",
    "control",
    "proto",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// Which of our crates each of our crates may depend on (ARCHITECTURE: the crates).
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let proto = ["gantry-base", "gantry-env", "gantry-pki", "gantry-cri", "gantry-kube", "gantry-client"];
    let composer: Vec<&str> = proto
        .iter()
        .copied()
        .chain(["gantry-netlink", "gantry-runtime", "gantry-netproxy", "gantry-agent", "gantry-control"])
        .collect();
    BTreeMap::from([
        ("gantry-base", vec![]),
        ("gantry-env", vec![]),
        ("gantry-netlink", vec![]),
        ("gantry-pki", vec!["gantry-env"]),
        ("gantry-cri", vec![]),
        ("gantry-kube", vec![]),
        ("gantry-client", vec!["gantry-env", "gantry-kube"]),
        ("gantry-supervisor", vec!["gantry-base"]),
        ("gantry-runtime", vec!["gantry-base", "gantry-env", "gantry-cri", "gantry-netlink"]),
        ("gantry-netproxy", vec!["gantry-base", "gantry-env", "gantry-kube", "gantry-client", "gantry-netlink"]),
        ("gantry-agent", proto.to_vec()),
        ("gantry-control", vec!["gantry-base", "gantry-env", "gantry-pki", "gantry-kube", "gantry-client"]),
        ("gantry", composer.clone()),
        ("gantry-tests", composer),
    ])
}

#[test]
fn every_crate_knows_only_whom_it_may() {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().expect("cargo metadata answers");
    let allowed = allowed();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(may) = allowed.get(name) else {
            broken.push(format!("{name} has no place in the house: add it to the table here and to ARCHITECTURE"));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = dependency.path.is_some();
            if ours && dependency.kind == DependencyKind::Normal && !may.contains(&dependency.name.as_str()) {
                broken.push(format!("{name} must not know {}", dependency.name));
            }
            if !ours && dependency.req.to_string() == "*" {
                broken.push(format!("{name} takes any version of {}", dependency.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The supervisor is small because nothing heavy can get in.
#[test]
fn the_supervisor_has_no_async_runtime_and_no_rpc() {
    let metadata = MetadataCommand::new().current_dir(root()).exec().expect("cargo metadata answers");
    let resolve = metadata.resolve.expect("a resolved graph");
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let start =
        metadata.packages.iter().find(|p| p.name.as_str() == "gantry-supervisor").expect("the supervisor is a package");
    let (mut seen, mut todo) = (BTreeSet::new(), vec![&start.id]);
    while let Some(id) = todo.pop() {
        let Some(node) = resolve.nodes.iter().find(|n| &n.id == id) else { continue };
        for dep in node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal)) {
            if seen.insert(&dep.pkg) {
                todo.push(&dep.pkg);
            }
        }
    }
    let heavy: Vec<&str> = seen
        .iter()
        .map(|id| names[*id])
        .filter(|n| ["tokio", "tonic", "hyper", "rustls", "kube"].contains(n))
        .collect();
    assert!(heavy.is_empty(), "the supervisor links {heavy:?}");
}

#[test]
fn the_top_level_is_fixed() {
    let out = std::process::Command::new("git").args(["ls-tree", "--name-only", "HEAD"]).current_dir(root()).output();
    let Some(out) = out.ok().filter(|o| o.status.success()) else { return };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let strange: Vec<&str> =
        text.lines().filter(|name| !name.starts_with('.') && *name != "tests" && !TOP_LEVEL.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?} stand at the top level");
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, out);
        } else if name.ends_with(".rs") && !name.starts_with("generated") {
            out.push(path);
        }
    }
}

#[test]
fn no_room_is_too_large() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut large = Vec::new();
    for path in files.iter().filter(|p| !p.ends_with("tests.rs") && !p.components().any(|c| c.as_os_str() == "tests")) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or("");
        if body.lines().count() > FILE_MAX_LINES {
            large.push(format!("{} has {} lines", path.display(), body.lines().count()));
        }
    }
    assert!(large.is_empty(), "{}", large.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_runtime_alone() {
    for name in [
        "proto/base",
        "proto/env",
        "proto/pki",
        "proto/cri",
        "proto/kube",
        "proto/client",
        "netproxy",
        "agent",
        "control",
    ] {
        let lib = std::fs::read_to_string(root().join(name).join("src/lib.rs")).expect("every crate has a lib.rs");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} may use unsafe code");
    }
}

#[test]
fn nothing_is_left_to_do_without_an_owner() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut found = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (n, line) in text.lines().enumerate() {
            if marks.iter().any(|m| line.contains(m)) {
                found.push(format!("{}:{}", path.display(), n + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
