//! Acting as another, where the caller may.

use gantry_kube::Status;
use http::HeaderMap;

use super::router::Server;
use crate::auth::{Identity, impersonation};

pub fn exchange(server: &Server, identity: Identity, headers: &HeaderMap) -> Result<Identity, Status> {
    impersonation::impersonate(&server.authorizer, &identity, headers)
}
