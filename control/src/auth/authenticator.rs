//! From a connection's certificate or a request's bearer token to an identity.

use std::sync::Arc;

use gantry_kube::Status;
use gantry_pki::Peer;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::token::ISSUER;
use super::{Identity, Tokens};

/// What a client that shows nothing may ask for.
const ANONYMOUS_PATHS: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// Decides who asks. Identity headers (`X-Remote-User` and the like) are not read: there is no front proxy to trust.
#[derive(Clone, Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
}

impl Authenticator {
    pub fn new(tokens: Arc<Tokens>) -> Authenticator {
        Authenticator { tokens }
    }

    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// The identity behind a request: the certificate that the handshake verified, else a bearer token, else nobody, who
    /// may see the health paths and nothing more. A token that does not hold is never taken for nobody.
    pub fn authenticate(&self, peer: Option<&Peer>, headers: &HeaderMap, path: &str) -> Result<Identity, Status> {
        if let Some(peer) = peer {
            return Ok(Identity::of_peer(peer));
        }
        match bearer(headers)? {
            Some(token) => self.tokens.verify(token, &[ISSUER]).map(|verified| verified.identity).map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                Status::unauthorized()
            }),
            None if is_anonymous_path(path) => Ok(Identity::anonymous()),
            None => Err(Status::unauthorized()),
        }
    }
}

fn is_anonymous_path(path: &str) -> bool {
    ANONYMOUS_PATHS
        .iter()
        .any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The token of the one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Status::unauthorized());
    }
    let text = value.to_str().map_err(|_| Status::unauthorized())?.trim();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        // Basic and the like are not spoken here, and a bearer without a token is no credential.
        _ => Err(Status::unauthorized()),
    }
}
