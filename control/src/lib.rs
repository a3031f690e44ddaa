//! The control service: everything between `kubectl apply` and a bound pod.
//!
//! A request comes in at [`http`], is authenticated and authorised by [`auth`], admitted by [`admission`], and carried
//! out by the generic verbs of [`registry`] on the [`store`], whose cache feeds every list and watch. [`controllers`] and
//! the [`scheduler`] are ordinary clients of that API; where several control services share a store, [`election`] says which
//! of them runs those. [`usage`] knows what nodes and pods use.

#![forbid(unsafe_code)]

pub mod admission;
pub mod auth;
pub mod bootstrap;
pub mod control;
pub mod controllers;
pub mod custom;
pub mod election;
pub mod http;
pub mod registry;
pub mod scheduler;
pub mod store;
pub mod trace;
pub mod usage;
mod webhook;

pub use control::{Config, Control, ControlError, StoreConfig};
