//! Subresources that are more than a part of their object: scale, binding, eviction, token, log and the streams.

use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource, Status, resource};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::Body;
use super::media::{self, BodyFormat, Offer};
use super::resources::{Write, made, no_such_path, place, read_apply};
use super::router::{Call, Server};
use crate::registry::DeleteOptions;
use crate::registry::apply::{Configuration, SCALE as SCALE_RESOURCE};
use crate::registry::decode::{self, APPLY_PATCH, Patch, PatchKind};
use crate::registry::subresource::scale_of;

const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");
const BINDING: (&str, &str, &str) = ("", "v1", "Binding");
const EVICTION: (&str, &str, &str) = ("policy", "v1", "Eviction");
/// As clients that are older than policy/v1 name it.
const OLD_EVICTION: (&str, &str, &str) = ("policy", "v1beta1", "Eviction");

pub async fn serve(
    server: Arc<Server>,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    match call.info.subresource.as_str() {
        "scale" => scale(&server, resource, call, received).await,
        "binding" => binding(&server, call, received).await,
        "eviction" => eviction(&server, call, received).await,
        "token" => super::reviews::token(&server, call, received).await,
        "log" => super::kubelet::log(&server, call).await,
        "proxy" => super::proxy::serve(server, resource, call).await,
        "exec" => super::kubelet::exec(server, call).await,
        "attach" => super::kubelet::attach(server, call).await,
        "portforward" => super::kubelet::port_forward(server, call).await,
        _ => Err(no_such_path()),
    }
}

fn success(code: StatusCode) -> Object {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()});
    Object::from_value(status).unwrap_or_default()
}

async fn scale(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let at = place(resource, &call);
    media::negotiate(&call.parts.headers, Offer::MADE)?;
    if call.info.verb == "get" {
        let stored = server.registry.get(resource, &at)?;
        let object = server.registry.object(resource, &stored).await?;
        let custom = server.registry.custom(resource)?;
        let scale = scale_of(&object, custom.as_ref().and_then(|custom| custom.scale.as_ref()))?;
        return made(&call.parts.headers, StatusCode::OK, &scale);
    }
    if call.info.verb == "update" {
        let format = media::body_format(&call.parts.headers)?;
        let write = Write::read(call, format, received).await?;
        let wanted = decode::decode_as(SCALE, &write.bytes, format)?;
        let answer = server.registry.scale(&write.writer(), resource, &at, |_| Ok(wanted.clone())).await?;
        return write.made(StatusCode::OK, &answer.object());
    }
    if media::content_type(&call.parts.headers).essence == APPLY_PATCH {
        let (write, force) = read_apply(call, received).await?;
        let configuration = Configuration::read(&SCALE_RESOURCE, None, &at, &write.bytes, force)?;
        let answer = server.registry.apply_scale(&write.writer(), resource, &at, &configuration).await?;
        return write.made(StatusCode::OK, &answer.object());
    }
    let kind = PatchKind::of(&media::content_type(&call.parts.headers).essence)?;
    let write = Write::read(call, BodyFormat::Json, received).await?;
    let patch = Patch::read(kind, &write.bytes)?;
    let patched = |scale: &Object| decode::canonical_as(SCALE, patch.raw(SCALE, scale)?);
    let answer = server.registry.scale(&write.writer(), resource, &at, patched).await?;
    write.made(StatusCode::OK, &answer.object())
}

/// `POST …/pods/NAME/binding`.
async fn binding(server: &Server, call: Call, received: Timestamp) -> Result<Response<Body>, Status> {
    let at = place(&resource::POD, &call);
    bind(server, call, received, Some(at)).await
}

/// `POST …/bindings`: the body names the pod.
pub async fn bindings(server: &Server, call: Call, received: Timestamp) -> Result<Response<Body>, Status> {
    if call.info.verb != "create" || !call.info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    bind(server, call, received, None).await
}

async fn bind(server: &Server, call: Call, received: Timestamp, at: Option<Ref>) -> Result<Response<Body>, Status> {
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::MADE)?;
    let write = Write::read(call, format, received).await?;
    let binding = decode::decode_as(BINDING, &write.bytes, format)?;
    let at = at.unwrap_or_else(|| Ref::new(write.call.info.namespace.as_str(), binding.name()));
    if !binding.name().is_empty() && binding.name() != at.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    server.registry.bind(&write.writer(), &at, binding).await?;
    write.made(StatusCode::CREATED, &success(StatusCode::CREATED))
}

/// A delete with the options that it carries, if the disruption budgets allow it.
async fn eviction(server: &Server, call: Call, received: Timestamp) -> Result<Response<Body>, Status> {
    let at = place(&resource::POD, &call);
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::MADE)?;
    let write = Write::read(call, format, received).await?;
    let eviction = decode::decode_as(EVICTION, &write.bytes, format).or_else(|refused| {
        let old = decode::decode_as(OLD_EVICTION, &write.bytes, format).map_err(|_| refused)?;
        decode::canonical_as(EVICTION, old)
    })?;
    if !eviction.name().is_empty() && eviction.name() != at.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = match eviction.get("/deleteOptions") {
        Some(Value::Object(map)) => DeleteOptions::read(&write.call.query, Some(&map.clone().into()))?,
        _ => DeleteOptions::default(),
    };
    let options = DeleteOptions { dry_run: options.dry_run || write.options.dry_run, ..options };
    server.registry.evict(&write.writer(), &at, eviction, &options).await?;
    write.made(StatusCode::CREATED, &success(StatusCode::CREATED))
}
