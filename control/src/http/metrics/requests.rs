//! Requests by what they are about: how many, how long, how large, and how many are under way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gantry_env::metrics::{Gauge, Histogram, Text};
use http::Method;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::custom::Custom;
use crate::http::body::{Body, BodyError};
use crate::http::discovery;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;

/// The buckets of Kubernetes' own histograms of the same names.
const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const ANSWER_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Paths that are no resources and are told apart.
const PATHS: &[&str] = &["/healthz", "/livez", "/metrics", "/readyz", "/version", "/openapi", "/api", "/apis"];
/// Kinds whose use is told of, and the release in which they go, where that is known.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[("", "v1", "endpoints", ""), ("", "v1", "componentstatuses", "")];
const COMPONENT: (&str, &str) = ("component", "apiserver");

/// What a request is called. Everything here is out of our own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    resource: &'static str,
    subresource: &'static str,
    verb: &'static str,
    scope: &'static str,
    group: &'static str,
    version: &'static str,
    dry_run: &'static str,
}

impl Labels {
    /// `custom` finds the custom kind that the request is about, where it is about none of ours.
    pub fn of(
        method: &Method,
        info: &RequestInfo,
        query: &Query,
        applies: bool,
        custom: impl FnOnce() -> Option<Custom>,
    ) -> Labels {
        let built_in = discovery::built_in(&info.group, &info.version, &info.resource);
        let custom = if info.is_resource && built_in.is_none() { custom() } else { None };
        let resource = built_in.or(custom.as_ref().map(|custom| custom.resource));
        let subresource = match resource {
            Some(_) if info.subresource.is_empty() => "",
            Some(resource) => {
                discovery::find(resource, custom.as_deref(), &info.subresource).map_or("", |sub| sub.name)
            }
            None if info.is_resource => "",
            None => PATHS.iter().copied().find(|path| is_below(&info.path, path)).unwrap_or(""),
        };
        Labels {
            verb: verb(method, info, applies),
            dry_run: dry_run(query),
            group: resource.map_or("", |r| r.group),
            version: resource.map_or("", |r| r.version),
            resource: resource.map_or("", |r| r.plural),
            subresource,
            scope: scope(info),
        }
    }

    /// What fields of a log say.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    pub fn resource(&self) -> &'static str {
        self.resource
    }

    fn pairs(&self) -> [(&'static str, &'static str); 7] {
        [
            COMPONENT,
            ("group", self.group),
            ("resource", self.resource),
            ("scope", self.scope),
            ("subresource", self.subresource),
            ("verb", self.verb),
            ("version", self.version),
        ]
    }

    fn pairs_with_dry_run(&self) -> [(&'static str, &'static str); 8] {
        let [component, group, resource, scope, subresource, verb, version] = self.pairs();
        [component, ("dry_run", self.dry_run), group, resource, scope, subresource, verb, version]
    }
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn verb(method: &Method, info: &RequestInfo, applies: bool) -> &'static str {
    if info.is_resource && matches!(info.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy") {
        return "CONNECT";
    }
    match *method {
        Method::GET if info.verb == "watch" => "WATCH",
        Method::GET | Method::HEAD if matches!(scope(info), "namespace" | "cluster") => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH if applies => "APPLY",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    if !info.name.is_empty() || info.verb == "create" {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else if info.is_resource {
        "cluster"
    } else {
        ""
    }
}

fn dry_run(query: &Query) -> &'static str {
    let mut values = query.all("dryRun").peekable();
    if values.peek().is_none() {
        return "";
    }
    if values.all(|value| value == "All") { "All" } else { "invalid" }
}

/// The requests of one name.
#[derive(Debug)]
pub struct Series {
    codes: Mutex<BTreeMap<u16, u64>>,
    seconds: Histogram,
    sli_seconds: Histogram,
    bytes: Histogram,
    open: Gauge,
}

impl Series {
    fn new() -> Series {
        Series {
            codes: Mutex::default(),
            seconds: Histogram::new(REQUEST_SECONDS),
            sli_seconds: Histogram::new(SLI_SECONDS),
            bytes: Histogram::new(ANSWER_BYTES),
            open: Gauge::default(),
        }
    }

    fn answered(&self, code: u16) {
        *self.codes.lock().entry(code).or_default() += 1;
    }

    fn took(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.sli_seconds.observe(took.as_secs_f64());
    }
}

/// A long-running request, for as long as it is held.
#[derive(Debug)]
pub struct Open(Arc<Series>);

impl Open {
    pub fn new(series: Arc<Series>) -> Open {
        series.open.inc();
        Open(series)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

/// How many requests of a kind are carried out, and the most since that was last asked.
#[derive(Debug, Default)]
pub struct Busy {
    now: AtomicI64,
    most: AtomicI64,
}

impl Busy {
    fn enter(&self) -> impl Drop + '_ {
        struct Leave<'a>(&'a AtomicI64);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Leave(&self.now)
    }

    fn take_most(&self) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        self.most.swap(now, Ordering::Relaxed).max(now)
    }
}

/// All requests of a server.
#[derive(Debug, Default)]
pub struct Requests {
    series: RwLock<BTreeMap<Labels, Arc<Series>>>,
    reading: Busy,
    writing: Busy,
}

impl Requests {
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.series.read().get(labels) {
            return series.clone();
        }
        self.series.write().entry(*labels).or_insert_with(|| Arc::new(Series::new())).clone()
    }

    /// Counts a short request for as long as what comes back is held.
    pub fn enter(&self, info: &RequestInfo) -> impl Drop + '_ {
        let reads = matches!(info.verb, "get" | "list" | "head" | "options");
        if reads { self.reading.enter() } else { self.writing.enter() }
    }

    /// Counts a request whose answer begins. One that is not yet whole is counted on, to its end.
    pub fn answered(&self, labels: &Labels, response: http::Response<Body>, began: Instant) -> http::Response<Body> {
        let series = self.series(labels);
        series.answered(response.status().as_u16());
        // What is still being made has no size that is known.
        let whole = response.body().size_hint().exact();
        let reads = matches!(labels.verb, "GET" | "LIST");
        if matches!(labels.verb, "WATCH" | "CONNECT") {
            return response;
        }
        match whole {
            None if reads => response.map(|inner| Sized { inner, series, bytes: 0, began }.boxed_unsync()),
            whole => {
                series.took(began.elapsed());
                if let Some(bytes) = whole.filter(|_| reads) {
                    series.bytes.observe(bytes as f64);
                }
                response
            }
        }
    }

    pub fn write(&self, text: &mut Text) {
        let all = self.series.read().clone();
        text.family("apiserver_request_total", "counter", "Requests by verb, kind and code");
        for (labels, series) in &all {
            let [component, rest @ ..] = labels.pairs_with_dry_run();
            for (code, count) in series.codes.lock().clone() {
                let code = code.to_string();
                let [a, b, c, d, e, f, g] = rest;
                text.count("apiserver_request_total", &[("code", &code), component, a, b, c, d, e, f, g], count);
            }
        }
        text.family(
            "apiserver_request_duration_seconds",
            "histogram",
            "How long answers took, long-running ones excepted",
        );
        for (labels, series) in all.iter().filter(|(_, series)| series.seconds.count() > 0) {
            text.histogram("apiserver_request_duration_seconds", &labels.pairs_with_dry_run(), &series.seconds);
        }
        // Of the others a dry run is no part of the name.
        let plain = || all.iter().filter(|(labels, _)| labels.dry_run.is_empty());
        text.family("apiserver_request_sli_duration_seconds", "histogram", "The same of what was no dry run");
        for (labels, series) in plain().filter(|(_, series)| series.sli_seconds.count() > 0) {
            text.histogram("apiserver_request_sli_duration_seconds", &labels.pairs(), &series.sli_seconds);
        }
        text.family("apiserver_response_sizes", "histogram", "How large answers to reads were, in bytes");
        for (labels, series) in plain().filter(|(_, series)| series.bytes.count() > 0) {
            text.histogram("apiserver_response_sizes", &labels.pairs(), &series.bytes);
        }
        text.family("apiserver_longrunning_requests", "gauge", "Watches and streams that are open");
        for (labels, series) in plain().filter(|(labels, _)| matches!(labels.verb, "WATCH" | "CONNECT")) {
            text.sample("apiserver_longrunning_requests", &labels.pairs(), series.open.get() as f64, None);
        }
        deprecated(text, all.keys());
        self.write_busy(text);
    }

    fn write_busy(&self, text: &mut Text) {
        let name = "apiserver_current_inflight_requests";
        text.family(name, "gauge", "The most requests that were carried out at a time since this was last asked");
        for (kind, busy) in [("mutating", &self.writing), ("readOnly", &self.reading)] {
            text.sample(name, &[("request_kind", kind)], busy.take_most() as f64, None);
        }
    }
}

fn deprecated<'a>(text: &mut Text, asked: impl Iterator<Item = &'a Labels>) {
    let name = "apiserver_requested_deprecated_apis";
    text.family(name, "gauge", "Deprecated kinds that were asked for");
    let mut known: Vec<(&Labels, &str)> = asked
        .filter_map(|labels| {
            let kind = (labels.group, labels.version, labels.resource);
            let (.., removed) =
                DEPRECATED.iter().find(|(group, version, plural, _)| (*group, *version, *plural) == kind)?;
            Some((labels, *removed))
        })
        .collect();
    known.dedup_by_key(|(labels, _)| (labels.resource, labels.subresource));
    for (labels, removed) in known {
        let (group, version) = (("group", labels.group), ("version", labels.version));
        let kind = [("resource", labels.resource), ("subresource", labels.subresource)];
        text.sample(name, &[group, ("removed_release", removed), kind[0], kind[1], version], 1.0, None);
    }
}

/// An answer whose size is known when its last piece has gone.
struct Sized {
    inner: Body,
    series: Arc<Series>,
    bytes: u64,
    began: Instant,
}

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Sized {
    fn drop(&mut self) {
        self.series.took(self.began.elapsed());
        self.series.bytes.observe(self.bytes as f64);
    }
}
