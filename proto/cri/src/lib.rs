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
