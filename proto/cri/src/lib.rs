//! The Container Runtime Interface, `runtime.v1`, as types, client and server. The text of the interface is
//! `proto/runtime.proto`; `src/generated.rs` is made from it and checked in (the test `fresh` compares), so that a build
//! needs no generator. The agent is a client of it, the runtime a server; in one process the same calls run over a
//! duplex stream, see [`connect`].

#![forbid(unsafe_code)]

pub mod connect;
pub mod psi;

/// Everything of `runtime.v1`: messages, clients and servers.
#[allow(clippy::all, deprecated, missing_docs, rustdoc::all)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated.rs");
}

/// Our own addition to the socket, `gantry.runtime.v1`: images from archives.
#[allow(clippy::all, deprecated, missing_docs, rustdoc::all)]
#[rustfmt::skip]
pub mod archives {
    include!("generated_archives.rs");
}

/// An annotation of an image's spec: the names by which it was brought for another platform than this machine's, each in a
/// line of its own with that platform after a space: `docker.io/library/busybox:1 linux/arm64/v8`.
pub const FOR_PLATFORMS: &str = "gantry.dev/for-platforms";

/// The names that an image has for other platforms, with these.
pub fn for_platforms(image: &v1::Image) -> Vec<(&str, &str)> {
    let told = image.spec.as_ref().and_then(|spec| spec.annotations.get(FOR_PLATFORMS));
    told.map(String::as_str).unwrap_or_default().lines().filter_map(|line| line.split_once(' ')).collect()
}

/// What people call an image: its tags; those of other platforms, with these; or else its digests.
pub fn names(image: &v1::Image) -> Vec<String> {
    let mut names = image.repo_tags.clone();
    names.extend(for_platforms(image).into_iter().map(|(name, platform)| format!("{name} ({platform})")));
    if names.is_empty() { image.repo_digests.clone() } else { names }
}

pub use archives::archives_client::ArchivesClient;
pub use archives::archives_server::{Archives, ArchivesServer};
pub use v1::image_service_client::ImageServiceClient;
pub use v1::image_service_server::{ImageService, ImageServiceServer};
pub use v1::runtime_service_client::RuntimeServiceClient;
pub use v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};

/// The version that `Version` answers with, and that a client should expect.
pub const API_VERSION: &str = "v1";

/// The largest message either side accepts; what containerd and the kubelet use.
pub const MESSAGE_MAX_BYTES: usize = 16 << 20;
