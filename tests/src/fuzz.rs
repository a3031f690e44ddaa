//! Fuzz targets: one pure function for every format in which bytes come that we did not write.
//!
//! A target takes any bytes and must come back: no panic, no endless loop, no memory that the bytes do not pay for. Where
//! the format has laws, it asserts them: what was made canonical is canonical already, what is printed reads back, what
//! is unpacked stays below its folder. A target shapes its input only as far as it takes to get behind a lock that chance
//! never opens (a checksum, a digest, a signature).
//!
//! Two drivers run the same table, [`TARGETS`]:
//!
//! - `tests/tests/fuzz.rs`, an ordinary test: every seed and a fixed number of mutations of them ([`mutate`]), the same ones
//!   in every run. When it fails, it prints the target and the input in hex.
//! - `tests/fuzz.sh TARGET [SECONDS]`: libFuzzer, led by coverage, from the seeds and from what it found before
//!   (`target/fuzz-corpus/TARGET`). It prints the input that broke a target; `tests/fuzz.sh TARGET replay FILE` runs one again.
//!
//! Besides the seeds both begin with what earlier runs found worth keeping: `tests/corpus/TARGET`, which
//! `tests/fuzz.sh TARGET keep` makes of `target/fuzz-corpus/TARGET`. With `GANTRY_FUZZ_SECONDS` the ordinary test goes on for so
//! long with each target of the runtime's, from that number of its dice on which the time alone ends; `run.sh` says ten.
//!
//! An input that broke something stays: as a seed of its target, with the fix. To add a target: write the function and its
//! seeds beside those of its kind, and give it a line in the table. `rounds` is what it may cost in the ordinary test.

use std::path::{Path, PathBuf};

mod apply;
mod expression;
mod host;
mod image;
mod input;
pub mod mutate;
mod object;
mod request;
mod token;
mod transcoder;
mod unpack;
mod wire;

/// What is fuzzed, under the name that `tests/fuzz.sh` takes.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations in the ordinary test.
    pub rounds: u32,
}

/// What the runtime reads of others' and of its own: each is fuzzed for longer than the rest.
pub const OF_RUNTIME: &[&str] = &[
    "image_reference",
    "image_document",
    "image_config",
    "tar",
    "tar_peer",
    "layer",
    "archive",
    "users",
    "log",
    "spdy",
    "supervisor_frame",
    "launch_file",
    "journal_record",
    "exit_record",
    "seccomp_profile",
    "cdi_specification",
    "oci_hooks",
    "sysctl",
];

impl Target {
    /// What earlier runs found: the inputs that reach what no other does.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        // Whatever the order of the folder is, runs are the same.
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
    }
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>, rounds: u32) -> Target {
    Target { name, run, seeds, rounds }
}

pub const TARGETS: &[Target] = &[
    // What clients send to the API.
    target("json_body", object::json_body, object::json_seeds, 8000),
    target("yaml_body", object::yaml_body, object::yaml_seeds, 1500),
    target("protobuf_body", object::protobuf_body, object::protobuf_seeds, 15_000),
    target("transcoder", transcoder::transcoder, transcoder::seeds, 15_000),
    target("json_patch", object::json_patch, object::json_patch_seeds, 2000),
    target("merge_patch", object::merge_patch, object::merge_patch_seeds, 4000),
    target("strategic_patch", object::strategic_patch, object::strategic_patch_seeds, 4000),
    target("apply", apply::apply, apply::apply_seeds, 1500),
    target("quantity", object::quantity, object::quantity_seeds, 20_000),
    target("time", object::time, object::time_seeds, 20_000),
    target("label_selector", request::label_selector, request::label_selector_seeds, 20_000),
    target("field_selector", request::field_selector, request::field_selector_seeds, 20_000),
    target("request_info", request::request_info, request::request_info_seeds, 10_000),
    target("request_line", request::request_line, request::request_line_seeds, 10_000),
    target("list", request::list, request::list_seeds, 8000),
    target("continue_token", request::continue_token, request::continue_token_seeds, 20_000),
    target("token", token::token, token::seeds, 2000),
    target("cel", expression::cel, expression::cel_seeds, 6000),
    // What registries and archives send to the runtime.
    target("image_reference", image::reference, image::reference_seeds, 20_000),
    target("image_document", image::document, image::document_seeds, 15_000),
    target("image_config", image::config, image::config_seeds, 15_000),
    target("hosts_file", image::hosts_file, image::hosts_file_seeds, 15_000),
    target("registry_challenge", image::challenge, image::challenge_seeds, 20_000),
    target("registry_words", image::words, image::words_seeds, 15_000),
    target("tar", unpack::tar, unpack::tar_seeds, 4000),
    target("layer", unpack::layer, unpack::layer_seeds, 500),
    target("archive", unpack::archive, unpack::archive_seeds, 500),
    target("tar_peer", unpack::peer, unpack::peer_seeds, 150),
    target("users", image::users, image::users_seeds, 15_000),
    // What pods say on the network and on their outputs.
    target("dns", wire::dns, wire::dns_seeds, 20_000),
    target("log", wire::log, wire::log_seeds, 10_000),
    // What clients send to the runtime's streaming server.
    target("spdy", wire::spdy, wire::spdy_seeds, 5000),
    // What our own processes, our disk and the kernel say.
    target("supervisor_frame", wire::supervisor_frame, wire::supervisor_frame_seeds, 20_000),
    target("launch_file", wire::launch_file, wire::launch_file_seeds, 15_000),
    target("journal_record", host::journal_record, host::journal_record_seeds, 15_000),
    target("exit_record", host::exit_record, host::exit_record_seeds, 20_000),
    target("seccomp_profile", host::seccomp_profile, host::seccomp_profile_seeds, 3000),
    target("cdi_specification", host::cdi_specification, host::cdi_specification_seeds, 8000),
    target("oci_hooks", host::oci_hooks, host::oci_hooks_seeds, 8000),
    target("sysctl", host::sysctl, host::sysctl_seeds, 20_000),
    target("store_record", wire::store_record, wire::store_record_seeds, 20_000),
    target("netlink", wire::netlink, wire::netlink_seeds, 20_000),
    target("static_pod", object::static_pod, object::static_pod_seeds, 4000),
];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
