//! Kinds that are answered and never stored: reviews and token requests.

use gantry_kube::{Resource, Status, defaults};
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::body::Body;
use super::media::{self, Offer};
use super::resources::{Write, place};
use super::router::{Call, Server};
use crate::auth::review;
use crate::registry::decode;

pub async fn serve(server: &Server, resource: &'static Resource, call: Call) -> Result<Response<Body>, Status> {
    if call.info.verb != "create" || !call.info.subresource.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let received = server.registry.env().clock.now();
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::MADE)?;
    let write = Write::read(call, format, received).await?;
    let decoded = decode::decode(resource, None, &write.bytes, format, write.options.validation)?;
    *write.warnings.lock() = decoded.warnings;
    let (identity, body) = (&write.call.identity, &decoded.object);
    let authorizer = &server.authorizer;
    let answer = match resource.kind {
        "TokenReview" => review::token(server.authenticator.tokens(), body)?,
        "SelfSubjectReview" => review::self_subject(identity, body),
        "SubjectAccessReview" => review::subject_access(authorizer, body)?,
        "SelfSubjectAccessReview" => review::self_subject_access(authorizer, identity, body)?,
        "LocalSubjectAccessReview" => review::local_subject_access(authorizer, &write.call.info.namespace, body)?,
        "SelfSubjectRulesReview" => review::self_subject_rules(authorizer, identity, body)?,
        _ => return Err(super::resources::no_such_path()),
    };
    write.made(StatusCode::CREATED, &answer)
}

/// `POST …/serviceaccounts/NAME/token`.
pub async fn token(server: &Server, call: Call, received: Timestamp) -> Result<Response<Body>, Status> {
    let at = place(&gantry_kube::resource::SERVICE_ACCOUNT, &call);
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::MADE)?;
    let write = Write::read(call, format, received).await?;
    let mut body = decode::decode_as(("authentication.k8s.io", "v1", "TokenRequest"), &write.bytes, format)?;
    defaults::token_request(&mut body);
    let differs = |own: &str, asked: &str| !own.is_empty() && own != asked;
    if differs(body.name(), &at.name) || differs(body.namespace(), &at.namespace) {
        let own = body.reference();
        return Err(Status::bad_request(format!("the TokenRequest is for {own}, the URL names {at}")));
    }
    server.registry.admit_token(&write.writer(), &at, &mut body)?;
    let answer = server.authenticator.tokens().request(&at.namespace, &at.name, &body, write.options.dry_run)?;
    write.made(StatusCode::CREATED, &answer)
}
