//! Acting as another, where the caller may.

use gantry_kube::Status;
use http::HeaderMap;

use super::router::Server;
use crate::auth::{Action, Identity, impersonation};

/// `action` is what the request is about: some may act as another for that alone.
pub fn exchange(
    server: &Server,
    identity: Identity,
    headers: &HeaderMap,
    action: &Action<'_>,
) -> Result<Identity, Status> {
    impersonation::impersonate(&server.authorizer, &identity, headers, action)
}
