//! What the end-to-end tests, the benchmarks and the quickstart share, and what the tests that span crates do: the
//! models that backends are checked against, and the faults they meet.

pub mod agent;
pub mod api;
pub mod cluster;
pub mod disk;
pub mod etcd_cluster;
pub mod fake_cri;
pub mod faults;
pub mod faulty_disk;
pub mod figures;
pub mod fuzz;
pub mod history;
pub mod image;
pub mod kubectl;
pub mod ledger;
pub mod peer;
pub mod raw;
pub mod registry;
pub mod room;
pub mod store_conformance;
pub mod store_model;
pub mod system_calls;
pub mod vm;
pub mod workload;
