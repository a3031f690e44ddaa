//! Resource requests: from the verb and the path to the registry, and back to bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use gantry_kube::{FieldError, Object, Ref, Resource, Status, resource};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::body::{self, Body};
use super::inflight::Share;
use super::media::{self, BodyFormat, Form, Offer, Wanted};
use super::request_info::RequestInfo;
use super::router::{Call, Server, action};
use super::shape::{self, Rows, WatchShape};
use super::{discovery, respond, subresources, usage};
use crate::registry::apply::Configuration;
use crate::registry::decode::{self, APPLY_PATCH, Patch, PatchKind};
use crate::registry::update::Part;
use crate::registry::{Answer, DeleteOptions, ListOptions, WriteOptions, Writer, delete::Deleted, deletion, encoded};

/// The path names nothing that is served.
pub fn no_such_path() -> Status {
    // Clients look into the details of such an answer (kubectl debug does), which must be there.
    let details = serde_json::json!({});
    Status { details, ..Status::new(404, "NotFound", "the server could not find the requested resource") }
}

/// Clients take the code for a server that does not know it; people read which one it was.
fn not_served(plural: &str, subresource: &str) -> Status {
    let status = no_such_path();
    let message = format!("{}: {plural}/{subresource} is not served", status.message);
    Status { message, ..status }
}

pub async fn serve(server: Arc<Server>, call: Call) -> Result<Response<Body>, Status> {
    let received = server.registry.env().clock.now();
    if (call.info.group.as_str(), call.info.resource.as_str()) == ("", "bindings") {
        return subresources::bindings(&server, call, received).await;
    }
    if call.info.group == usage::GROUP {
        return usage::serve(&server, call).await;
    }
    let info = &call.info;
    let resource = resource_of(&server, info).ok_or_else(no_such_path)?;
    check_place(resource, &call)?;
    if *resource == resource::COMPONENT_STATUS {
        return super::component_status::serve(&server, &call);
    }
    if resource.virtual_only {
        return super::reviews::serve(&server, resource, call).await;
    }
    let verbs = if info.subresource.is_empty() {
        discovery::verbs(resource)
    } else {
        let sub = discovery::find(resource, server.registry.custom(resource)?.as_deref(), &info.subresource)
            .ok_or_else(|| not_served(&info.resource, &info.subresource))?;
        if !info.rest.is_empty() && sub.name != "proxy" {
            return Err(no_such_path());
        }
        sub.verbs
    };
    if !verbs.contains(&info.verb) {
        return Err(Status::method_not_allowed());
    }
    let warning = ask_custom(&server, resource, info.verb)?;
    if !matches!(info.subresource.as_str(), "" | "status" | "approval" | "finalize" | "ephemeralcontainers" | "resize")
    {
        return subresources::serve(server, resource, call, received).await;
    }
    let mut answer = match info.verb {
        "get" => get(&server, resource, &call).await,
        "list" => list(&server, resource, &call).await,
        "watch" => watch(&server, resource, call).await,
        "create" => create(&server, resource, call, received).await,
        "update" => update(&server, resource, call, received).await,
        "patch" => patch(&server, resource, call, received).await,
        "delete" => delete(&server, resource, call, received).await,
        "deletecollection" => delete_collection(&server, resource, call, received).await,
        _ => Err(Status::method_not_allowed()),
    }?;
    respond::add_warnings(answer.headers_mut(), warning.as_slice());
    Ok(answer)
}

/// What a request is about: a built-in kind, or one that a definition brings.
fn resource_of(server: &Server, info: &RequestInfo) -> Option<&'static Resource> {
    let custom = || server.registry.kinds().table().by_plural(&info.group, &info.version, &info.resource);
    Resource::by_plural(&info.group, &info.version, &info.resource).or_else(|| custom().map(|custom| custom.resource))
}

/// What whoever asks for a custom kind is warned of. Nothing new is made of a kind that is going.
fn ask_custom(server: &Server, resource: &Resource, verb: &str) -> Result<Option<String>, Status> {
    let Some(custom) = server.registry.custom(resource)? else { return Ok(None) };
    if custom.definition.terminating && verb == "create" {
        let message = format!("{verb} not allowed while custom resource definition is terminating");
        return Err(Status { message, ..Status::method_not_allowed() });
    }
    Ok(custom.warning.clone())
}

/// Namespaced kinds are named within a namespace, the others without one, and a collection is not put or patched.
fn check_place(resource: &Resource, call: &Call) -> Result<(), Status> {
    let info = &call.info;
    let in_namespace = !info.namespace.is_empty() && *resource != resource::NAMESPACE;
    let named = !info.name.is_empty() && !matches!(info.verb, "list" | "watch" | "deletecollection");
    if in_namespace != resource.namespaced && (in_namespace || named) {
        return Err(no_such_path());
    }
    check_name(&info.name)?;
    match info.verb {
        "create" if named && info.subresource.is_empty() => Err(Status::method_not_allowed()),
        "create" if resource.namespaced && !in_namespace => Err(Status::method_not_allowed()),
        "deletecollection" if resource.namespaced && !in_namespace => Err(Status::method_not_allowed()),
        "update" | "patch" if !named => Err(Status::method_not_allowed()),
        _ => Ok(()),
    }
}

/// What cannot be a segment of a path names nothing.
fn check_name(name: &str) -> Result<(), Status> {
    let why = match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        name => {
            ['/', '%'].into_iter().filter(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
        }
    };
    if why.is_empty() {
        return Ok(());
    }
    Err(Status::bad_request(format!("Name parameter invalid: {name:?}: {}", why.join(";"))))
}

/// Where the request's object stands.
pub fn place(resource: &Resource, call: &Call) -> Ref {
    let namespace = if resource.namespaced { call.info.namespace.as_str() } else { "" };
    Ref::new(namespace, call.info.name.as_str())
}

fn namespace<'a>(resource: &Resource, call: &'a Call) -> Option<&'a str> {
    Some(call.info.namespace.as_str()).filter(|ns| resource.namespaced && !ns.is_empty())
}

fn send(call_headers: &HeaderMap, wanted: Wanted, content: Bytes) -> Response<Body> {
    respond::maybe_gzip(content, wanted.content_type(), respond::takes_gzip(call_headers))
}

async fn get(server: &Server, resource: &'static Resource, call: &Call) -> Result<Response<Body>, Status> {
    let wanted = media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let stored = server.registry.get(resource, &place(resource, call))?;
    server.registry.prepare(resource, std::slice::from_ref(&stored)).await?;
    let now = server.registry.env().clock.now();
    let rows = Rows::read(&call.query, server.registry.custom(resource)?)?;
    let content = shape::object(resource, &Answer::Stored(stored), wanted, &rows, now)?;
    Ok(send(&call.parts.headers, wanted, content))
}

async fn list(server: &Server, resource: &'static Resource, call: &Call) -> Result<Response<Body>, Status> {
    let wanted = media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let custom = server.registry.custom(resource)?;
    let options = ListOptions::read(&call.query, resource, custom.as_ref(), false)?;
    let rows = Rows::read(&call.query, custom)?;
    let listed = server.registry.list(resource, namespace(resource, call), &options).await?;
    let gzip = respond::takes_gzip(&call.parts.headers);
    if wanted == Wanted::JSON && listed.bytes() >= respond::STREAMED_MIN_BYTES {
        return Ok(respond::streamed(listed.chunks(resource), wanted.content_type(), gzip));
    }
    if wanted.format == BodyFormat::Protobuf {
        let list = shape::protobuf_list(resource, &listed, wanted.form).await?;
        if list.bytes() >= respond::STREAMED_MIN_BYTES {
            return Ok(respond::streamed(list.chunks(), wanted.content_type(), gzip));
        }
        return Ok(send(&call.parts.headers, wanted, list.whole()));
    }
    let now = server.registry.env().clock.now();
    let content = shape::list(resource, &listed, wanted, &rows, now)?;
    Ok(send(&call.parts.headers, wanted, content))
}

async fn watch(server: &Arc<Server>, resource: &'static Resource, mut call: Call) -> Result<Response<Body>, Status> {
    let wanted = media::negotiate_watch(&call.parts.headers, Offer::of(resource))?;
    let custom = server.registry.custom(resource)?;
    let options = ListOptions::read(&call.query, resource, custom.as_ref(), true)?;
    let clock = server.registry.env().clock.clone();
    let rows = Rows::read(&call.query, custom)?;
    let shape = WatchShape { resource, wanted, rows, clock, headers: true };
    let shape = server.metrics.watch_events.counted(resource, shape);
    let watching = server.registry.watch(resource, namespace(resource, &call), &options, shape).await?;
    let stop = server.stop.clone();
    let chunks = watching.into_stream().take_until(stop.cancelled_owned());
    let mut response = Response::new(body::holding(body::stream(chunks), call.seat.take()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(wanted.format.watch_content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// A write's body, options and warnings.
pub struct Write {
    pub bytes: Bytes,
    pub format: BodyFormat,
    pub options: WriteOptions,
    pub warnings: Mutex<Vec<String>>,
    pub received: Timestamp,
    pub call: Taken,
    /// Its place among the requests, and that of its body.
    _shares: [Share; 2],
}

/// What is left of a call once its body is read.
pub struct Taken {
    pub parts: http::request::Parts,
    pub info: super::request_info::RequestInfo,
    pub query: super::query::Query,
    pub identity: crate::auth::Identity,
}

impl Write {
    pub async fn read(call: Call, format: BodyFormat, received: Timestamp) -> Result<Write, Status> {
        let options = WriteOptions::read(&call.query, call.info.verb, call.user_agent())?;
        let Call { parts, body, query, info, identity, bounds, .. } = call;
        let (bytes, room) = body.read(&bounds).await?;
        let shares = [room, bounds.seat_for_write().await?];
        let call = Taken { parts, info, query, identity };
        Ok(Write { bytes, format, options, warnings: Mutex::default(), received, call, _shares: shares })
    }

    pub fn writer(&self) -> Writer<'_> {
        Writer {
            identity: &self.call.identity,
            options: &self.options,
            received: self.received,
            warnings: &self.warnings,
        }
    }

    pub fn answer(
        &self,
        server: &Server,
        resource: &Resource,
        code: StatusCode,
        answer: &Answer,
    ) -> Result<Response<Body>, Status> {
        let wanted = media::negotiate(&self.call.parts.headers, Offer::of(resource))?;
        let now = server.registry.env().clock.now();
        let rows = Rows::read(&self.call.query, server.registry.custom(resource)?)?;
        let content = shape::object(resource, answer, wanted, &rows, now)?;
        Ok(self.finish(respond::bytes(code, wanted.content_type(), content)))
    }

    /// An answer with an object that was made for it.
    pub fn made(&self, code: StatusCode, object: &Object) -> Result<Response<Body>, Status> {
        Ok(self.finish(made(&self.call.parts.headers, code, object)?))
    }

    pub fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        respond::add_warnings(response.headers_mut(), &self.warnings.lock());
        response
    }
}

/// An object that was made for an answer, in the encoding that is wanted.
pub fn made(asked: &HeaderMap, code: StatusCode, object: &Object) -> Result<Response<Body>, Status> {
    let format = media::format_of_made(asked.get_all(header::ACCEPT).iter());
    Ok(respond::bytes(code, format.content_type(), encoded::made(object, format)?))
}

async fn create(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let write = Write::read(call, format, received).await?;
    let custom = server.registry.custom(resource)?;
    let decoded = decode::decode(resource, custom.as_ref(), &write.bytes, format, write.options.validation)?;
    *write.warnings.lock() = decoded.warnings;
    let namespace = if resource.namespaced { write.call.info.namespace.as_str() } else { "" };
    let answer = server.registry.create(&write.writer(), resource, namespace, decoded.object).await?;
    write.answer(server, resource, StatusCode::CREATED, &answer)
}

fn part(subresource: &str) -> Part {
    match subresource {
        "status" => Part::Status,
        "approval" => Part::Approval,
        "finalize" => Part::Finalize,
        "ephemeralcontainers" => Part::EphemeralContainers,
        "resize" => Part::Resize,
        _ => Part::Main,
    }
}

async fn update(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let (at, part) = (place(resource, &call), part(&call.info.subresource));
    let write = Write::read(call, format, received).await?;
    let custom = server.registry.custom(resource)?;
    let decoded = decode::decode(resource, custom.as_ref(), &write.bytes, format, write.options.validation)?;
    *write.warnings.lock() = decoded.warnings;
    let answer = server.registry.update(&write.writer(), resource, &at, part, decoded.object).await?;
    write.answer(server, resource, StatusCode::OK, &answer)
}

async fn patch(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let media_type = media::content_type(&call.parts.headers).essence;
    if media_type == APPLY_PATCH {
        return apply(server, resource, call, received).await;
    }
    let kind = PatchKind::of(&media_type)?;
    if call.query.bool("force").is_some() {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid_options("PatchOptions", &[error]));
    }
    media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let (at, part) = (place(resource, &call), part(&call.info.subresource));
    let write = Write::read(call, BodyFormat::Json, received).await?;
    let patch = Patch::read(kind, &write.bytes)?;
    let custom = server.registry.custom(resource)?;
    let mut warnings = Vec::new();
    let answer = server
        .registry
        .modify(&write.writer(), resource, &at, part, |old| {
            let decoded = patch.apply(resource, custom.as_ref(), old, write.options.validation)?;
            warnings = decoded.warnings;
            Ok(decoded.object)
        })
        .await?;
    write.warnings.lock().splice(0..0, warnings);
    write.answer(server, resource, StatusCode::OK, &answer)
}

/// The body and options of an apply, and whether it is to take what others own.
pub(super) async fn read_apply(call: Call, received: Timestamp) -> Result<(Write, bool), Status> {
    let force = call.query.flag("force");
    if call.query.get("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid_options("PatchOptions", &[error]));
    }
    let mut write = Write::read(call, BodyFormat::Yaml, received).await?;
    write.options.applied = true;
    Ok((write, force))
}

/// Server-side apply: PATCH with a whole configuration.
async fn apply(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let (at, part) = (place(resource, &call), part(&call.info.subresource));
    let (write, force) = read_apply(call, received).await?;
    let custom = server.registry.custom(resource)?;
    let configuration = Configuration::read(resource, custom, &at, &write.bytes, force)?;
    let may_create = || {
        let create = RequestInfo { verb: "create", ..write.call.info.clone() };
        server.authorizer.check(&write.call.identity, &action(&create))
    };
    let applied = server.registry.apply(&write.writer(), resource, &at, part, &configuration, may_create).await?;
    let (answer, made) = applied;
    write.answer(server, resource, if made { StatusCode::CREATED } else { StatusCode::OK }, &answer)
}

/// The options of a delete: its body may be empty, JSON, YAML or protobuf.
fn delete_options(write: &Write) -> Result<DeleteOptions, Status> {
    let body = if write.bytes.is_empty() {
        None
    } else {
        Some(decode::decode_as(("", "v1", "DeleteOptions"), &write.bytes, write.format)?)
    };
    DeleteOptions::read(&write.call.query, body.as_ref())
}

async fn delete(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let at = place(resource, &call);
    let format = media::body_format(&call.parts.headers)?;
    media::negotiate(&call.parts.headers, Offer::of(resource))?;
    let write = Write::read(call, format, received).await?;
    let options = delete_options(&write)?;
    match server.registry.delete(&write.writer(), resource, &at, &options).await? {
        Deleted::Pending(answer) => write.answer(server, resource, StatusCode::OK, &answer),
        // Pods are answered with what they were, as upstream does; the others with a Status.
        Deleted::Gone(object) if *resource == resource::POD => {
            write.answer(server, resource, StatusCode::OK, &Answer::Made((*object).clone()))
        }
        Deleted::Gone(object) => write.made(StatusCode::OK, &deletion::success(resource, &object)),
    }
}

async fn delete_collection(
    server: &Server,
    resource: &'static Resource,
    call: Call,
    received: Timestamp,
) -> Result<Response<Body>, Status> {
    let body_format = media::body_format(&call.parts.headers)?;
    let wanted = media::negotiate(&call.parts.headers, Offer::of(resource))?;
    // A list of what is gone has one form.
    let format = if wanted.form == Form::Object { wanted.format } else { BodyFormat::Json };
    let selected = ListOptions::read(&call.query, resource, server.registry.custom(resource)?.as_ref(), false)?;
    let write = Write::read(call, body_format, received).await?;
    let options = delete_options(&write)?;
    let namespace = Some(write.call.info.namespace.as_str()).filter(|ns| resource.namespaced && !ns.is_empty());
    let (listed, deleted) =
        server.registry.delete_collection(&write.writer(), resource, namespace, &selected, &options).await?;
    let items: Vec<serde_json::Value> =
        deleted.iter().map(|answer| serde_json::from_slice(&answer.json_as(resource)).unwrap_or_default()).collect();
    let list = serde_json::json!({"apiVersion": resource.api_version(), "kind": format!("{}List", resource.kind),
        "metadata": listed.metadata(), "items": items});
    let content = encoded::made(&Object::from_value(list).map_err(Status::internal)?, format)?;
    Ok(write.finish(respond::bytes(StatusCode::OK, format.content_type(), content)))
}
