//! The document: what is counted, and what can be seen when somebody asks.

use std::path::Path;

use gantry_env::metrics::{self, Text};

use crate::http::paths;
use crate::http::router::Server;
use crate::store::cache::KindFigures;

/// Everything that the server counts, and the process that it is.
pub fn text(server: &Server, mut text: Text) -> String {
    let counted = &server.metrics;
    build(&mut text);
    counted.requests.write(&mut text);
    server.inflight.write(&mut text);
    counted.access.write(&mut text);
    counted.watch_events.write(&mut text);
    text.family("apiserver_tls_handshake_errors_total", "counter", "Connections whose TLS handshake failed");
    text.count("apiserver_tls_handshake_errors_total", &[], counted.tls_handshake_errors.get());
    server.registry.admissions().write(&mut text);
    counted.store.write(&mut text);
    kinds(&mut text, &server.registry.cache().figures());
    counted.clients.write(&mut text);
    counted.scheduler.write(&mut text);
    metrics::process(&mut text, Path::new("/proc"), rustix::param::page_size());
    text.done()
}

fn build(text: &mut Text) {
    let version = paths::version();
    let of = |key: &str| version[key].as_str().unwrap_or("").to_owned();
    let known = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let values: Vec<(&str, String)> = known.iter().map(|(label, key)| (*label, of(key))).collect();
    let labels: Vec<(&str, &str)> = values.iter().map(|(label, value)| (*label, value.as_str())).collect();
    text.family("kubernetes_build_info", "gauge", "The version whose API this is, and the build");
    text.sample("kubernetes_build_info", &labels, 1.0, None);
}

/// What the cache holds, kind by kind.
fn kinds(text: &mut Text, all: &[KindFigures]) {
    text.family("apiserver_storage_objects", "gauge", "Objects that are stored");
    for kind in all {
        text.count("apiserver_storage_objects", &[("resource", &kind.name)], kind.objects as u64);
    }
    let mut one = |name: &str, kind: &str, help: &str, value: &dyn Fn(&KindFigures) -> u64| {
        text.family(name, kind, help);
        for kind in all {
            let (plural, group) = kind.name.split_once('.').unwrap_or((&kind.name, ""));
            text.count(name, &[("group", group), ("resource", plural)], value(kind));
        }
    };
    one("apiserver_resource_objects", "gauge", "Objects that are stored", &|kind| kind.objects as u64);
    let last = "The revision of the last change that the cache has seen";
    one("apiserver_watch_cache_resource_version", "gauge", last, &|kind| kind.last);
    let events = "Changes that the cache has seen";
    one("apiserver_watch_cache_events_received_total", "counter", events, &|kind| kind.events);
    let capacity = "How many past changes the cache keeps at most";
    one("apiserver_watch_cache_capacity", "gauge", capacity, &|kind| kind.capacity as u64);
    let ended = "Watches that were too slow and have to list again";
    one("apiserver_terminated_watchers_total", "counter", ended, &|kind| kind.too_slow);
}
