//! Kubernetes objects as Gantry sees them, and every rule about them that needs no clock, no network and no disk.
//!
//! An object is its whole JSON map ([`Object`]): unknown to us or not, no field is lost on the way through. What we know
//! about kinds stands in two tables: [`resource`] (how a kind is named and served) and [`schema`] (which fields it has,
//! how they default and how they merge). Rules that the control service and the agent must agree on live here once.

#![forbid(unsafe_code)]

pub mod apply;
pub mod canonical;
pub mod cel;
pub mod cron;
pub mod custom;
pub mod defaults;
pub mod field;
pub mod flow_control;
pub mod merge;
pub mod object;
pub mod openapi;
pub mod pod;
pub mod pod_security;
pub mod protobuf;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod storage;
pub mod time;
pub mod validation;
pub mod versions;

pub use field::FieldError;
pub use object::{Object, Ref};
pub use resource::Resource;
pub use status::Status;
