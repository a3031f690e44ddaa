//! What the end-to-end tests, the benchmarks and the quickstart share.

pub mod image;
