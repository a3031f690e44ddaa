//! What a control service must never let happen, against a running one: a module for each row of the security design.

mod house;
mod in_process_identity;
mod node_restriction;
