//! What a request says before its body: the path and what it means, the query, the media types, selectors, tokens of
//! lists. Lists and watches themselves run over a store that never changes.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use gantry_control::http::media::{self, Offer};
use gantry_control::http::query::{Query, decode_path_segment};
use gantry_control::http::request_info::RequestInfo;
use gantry_control::registry::decode::PatchKind;
use gantry_control::registry::list::{decode_token, encode_token};
use gantry_control::registry::options::Selection;
use gantry_control::registry::watch::AsStored;
use gantry_control::registry::{DeleteOptions, ListOptions, Registry, ServiceAllocator, WriteOptions};
use gantry_control::store::cache::Cache;
use gantry_control::store::{Embedded, Key};
use gantry_control::trace::Trace;
use gantry_env::Env;
use gantry_kube::resource::{CONFIG_MAP, NODE_METRICS, POD};
use gantry_kube::selector::{FieldSelector, LabelSelector, Requirement};
use gantry_kube::{Object, Ref, Resource};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::Ipv4Net;
use serde_json::json;
use tokio::runtime::Runtime;

use super::input::{Input, texts};
use super::object;

pub(super) fn label_selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(selector) = LabelSelector::parse(&text) else { return };
    let printed = selector.0.iter().map(words).collect::<Vec<_>>().join(",");
    let read = LabelSelector::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
    assert_eq!(read, selector, "{printed:?}");
    let labels = json!({"a": "b", "n": "7", "app": "d", "x/y": ""});
    selector.matches(labels.as_object());
    selector.matches(None);
}

/// A requirement in the one form of it that has no shorter spelling.
fn words(requirement: &Requirement) -> String {
    match requirement {
        Requirement::In(key, values) => format!("{key} in ({})", values.join(",")),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
        Requirement::Exists(key) => key.clone(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
        Requirement::GreaterThan(key, bound) => format!("{key}>{bound}"),
        Requirement::LessThan(key, bound) => format!("{key}<{bound}"),
    }
}

pub(super) fn field_selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(selector) = FieldSelector::parse(&text) else { return };
    // A path that holds the marks themselves is no kind's, and refused for that later.
    if selector.0.iter().all(|r| !r.path.contains(['!', '='])) {
        let word = |mark: bool| if mark { "==" } else { "!=" };
        let terms: Vec<String> = selector.0.iter().map(|r| format!("{}{}{}", r.path, word(r.equal), r.value)).collect();
        assert_eq!(FieldSelector::parse(&terms.join(",")).as_ref(), Ok(&selector), "{terms:?}");
    }
    let object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "hostNetwork": true, "x": [1]}});
    let object = Object::from_value(object).unwrap_or_default();
    let all = selector.matches(&object);
    let each = selector.0.iter().all(|one| FieldSelector(vec![one.clone()]).matches(&object));
    assert_eq!(all, each);
}

/// `METHOD PATH?QUERY`, and headers on the lines after it.
pub(super) fn request_line(data: &[u8]) {
    let mut input = Input(data);
    let method = Method::from_bytes(input.until(b' ')).unwrap_or_default();
    let line = input.text_until(b'\n');
    let (path, query) = line.split_once('?').unwrap_or((&line, ""));
    let query = Query::parse(query);
    let info = RequestInfo::parse(&method, path, &query);
    assert_eq!(info.is_resource, !info.resource.is_empty());
    let resource = Resource::by_plural(&info.group, &info.version, &info.resource).unwrap_or(&POD);
    // Whatever the options are, reading them is no more than a refusal.
    if let Ok(options) = WriteOptions::read(&query, info.verb, &line) {
        assert!(options.manager.len() <= 128 && !options.manager.chars().any(char::is_control));
    }
    for watch in [false, true] {
        let _ = ListOptions::read(&query, resource, None, watch);
    }
    if let Ok(options) = DeleteOptions::read(&query, None) {
        let running =
            json!({"metadata": {"name": "p", "generation": 1, "finalizers": ["a/b"]}, "spec": {"nodeName": "n"}});
        object::deleted(resource, &Object::from_value(running).unwrap_or_default(), options);
    }
    one_name(&info, &query, resource);
    headers(&mut input);
}

/// `METHOD PATH?QUERY`: what is authorised is what is served, however it is written.
pub(super) fn request_info(data: &[u8]) {
    let mut input = Input(data);
    let method = Method::from_bytes(input.until(b' ')).unwrap_or_default();
    let line = String::from_utf8_lossy(input.0).into_owned();
    let (path, query) = line.split_once('?').unwrap_or((&line, ""));
    let query = Query::parse(query);
    let info = RequestInfo::parse(&method, path, &query);
    if !info.is_resource {
        assert!(info.resource.is_empty() && info.name.is_empty() && info.namespace.is_empty());
        assert_eq!(info.path, path);
        return;
    }
    let verbs = ["", "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    assert!(verbs.contains(&info.verb), "{}", info.verb);
    assert!(!info.version.is_empty() && !info.resource.is_empty());
    // Slashes around it, and other spellings of its characters, change nothing of what it is about.
    let escaped = |segment: &str| segment.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let spelled: Vec<String> = path.trim_matches('/').split('/').map(|s| escaped(&decode_path_segment(s))).collect();
    for other in [format!("//{}//", path.trim_matches('/')), format!("/{}", spelled.join("/"))] {
        let again = RequestInfo::parse(&method, &other, &query);
        assert_eq!(RequestInfo { path: path.to_owned(), ..again }, info, "{path} as {other}");
    }
    // What one name is asked for has that name, and a namespace's own name is its namespace.
    assert!(info.subresource.is_empty() || !info.name.is_empty());
    if info.resource == "namespaces"
        && !info.name.is_empty()
        && info.group.is_empty()
        && !info.verb.starts_with("delete")
    {
        assert!(info.namespace == info.name || matches!(info.verb, "list" | "watch"), "{info:?}");
    }
}

pub(super) fn request_info_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "GET /api/v1/namespaces/a/pods/b/log?follow=true",
        "GET /apis/apps/v1/namespaces/a/deployments?watch=0&watch=1",
        "DELETE /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db",
        "POST /api/v1/namespaces/a/status",
        "PUT /api/v1/namespaces/a/finalize",
        "GET /api/v1/namespaces//pods",
        "GET /api/v1/nodes/n/proxy//a/../b",
        "PATCH /apis/g/v/namespaces/%2e%2e/k%2Fl/%00/s",
        "HEAD /api/v1/namespaces",
        "BREW /api/v1/pods/p",
        "GET /healthz/etcd",
        "GET //api//v1",
    ];
    texts(&lines)
}

/// A collection that is authorised as if it were one object holds no other object.
fn one_name(info: &RequestInfo, query: &Query, resource: &'static Resource) {
    let collection = matches!(info.verb, "list" | "watch" | "deletecollection");
    if !collection || info.name.is_empty() {
        return;
    }
    let Ok(selection) = Selection::read(query, resource, None) else { return };
    for other in ["a", "b", "p", "default", "=", "", " ", &format!("={}", info.name), &format!("{} ", info.name)] {
        // The name of a stored object is a DNS name.
        let is_name = other.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && !other.contains(' ');
        if other != info.name && is_name {
            let object = Object::from_value(json!({"metadata": {"name": other}})).unwrap_or_default();
            assert!(!selection.matches(&object), "authorised for {:?}, selects {other:?}", info.name);
        }
    }
}

fn headers(input: &mut Input<'_>) {
    let mut headers = HeaderMap::new();
    while !input.0.is_empty() {
        let line = input.until(b'\n');
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    for offer in [Offer::of(&POD), Offer::of(&NODE_METRICS), Offer::MADE, Offer::MEASURED] {
        let _ = media::negotiate(&headers, offer);
        let _ = media::negotiate_watch(&headers, offer);
    }
    let _ = media::body_format(&headers);
    let _ = PatchKind::of(&media::content_type(&headers).essence);
    let accepted = media::accepted(&headers);
    assert!(!accepted.is_empty());
}

/// A store with two kinds in two namespaces, and the task that would follow its changes.
struct House {
    runtime: Runtime,
    registry: Registry,
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const OBJECTS_EACH: usize = 4;

fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let registry = runtime.block_on(async {
            let store = Arc::new(Embedded::in_memory().expect("a store in memory"));
            let cache = Cache::start(store).await.expect("the cache of an empty store");
            for namespace in NAMESPACES {
                for at in 0..OBJECTS_EACH {
                    let (name, app) = (format!("o{at}"), ["x", "y"][at % 2]);
                    let object = json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
                        "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
                    let object = Object::from_value(object).unwrap_or_default();
                    for resource in [&POD, &CONFIG_MAP] {
                        let written = cache.create(resource, &Ref::new(namespace, &name), &object).await;
                        written.expect("it is made");
                    }
                }
            }
            let env = Env::system();
            let range = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
            let trace = Trace::new(env.clock.clone());
            Registry::new(cache, env, ServiceAllocator::new(range), trace)
        });
        House { runtime, registry }
    })
}

/// A choice of kind and namespace, and a query.
pub(super) fn list(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let resource = if choice & 1 == 0 { &POD } else { &CONFIG_MAP };
    let namespace = [None, Some("a"), Some("b"), Some("none")][usize::from(choice >> 1) % 4];
    let query = Query::parse(&String::from_utf8_lossy(input.0));
    let House { runtime, registry } = house();
    let current = registry.cache().revision();
    // Nobody waits here for revisions that never come.
    let comes = |options: &ListOptions| options.resource_version.is_none_or(|at| at <= current);
    if let Ok(options) = ListOptions::read(&query, resource, None, false)
        && comes(&options)
    {
        runtime.block_on(pages(registry, resource, namespace, &options));
    }
    if let Ok(options) = ListOptions::read(&query, resource, None, true)
        && comes(&options)
    {
        let watching = runtime.block_on(registry.watch(resource, namespace, &options, AsStored));
        drop(watching);
    }
}

/// What is found page by page is what is found at once, and stands in the namespace that was asked for.
async fn pages(registry: &Registry, resource: &'static Resource, namespace: Option<&str>, options: &ListOptions) {
    let Ok(first) = registry.list(resource, namespace, options).await else { return };
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut found = first.items.clone();
    let mut token = first.continue_token;
    let mut turns = 0;
    while let Some(next) = token.take() {
        let query = ListOptions { continue_token: Some(next), resource_version: None, ..options.clone() };
        let page = registry.list(resource, namespace, &query).await.expect("our own token is taken");
        assert!(page.items.len() <= limit);
        assert_eq!(page.revision, first.revision, "all pages stand at one revision");
        found.extend(page.items);
        token = page.continue_token;
        turns += 1;
        assert!(turns <= 2 * OBJECTS_EACH, "the pages do not end");
    }
    for item in &found {
        let object = item.object();
        assert!(namespace.is_none_or(|asked| object.namespace() == asked), "{} in another namespace", object.name());
        assert!(options.selection.matches(&object));
    }
    if options.continue_token.is_none() && options.resource_version.is_none() {
        let whole = ListOptions { limit: 0, ..options.clone() };
        let whole = registry.list(resource, namespace, &whole).await.expect("it was listed before");
        let names = |items: &[Arc<gantry_control::store::Stored>]| -> Vec<String> {
            items.iter().map(|item| item.key().to_string()).collect()
        };
        assert_eq!(names(&found), names(&whole.items));
    }
}

pub(super) fn continue_token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((revision, key)) = decode_token(&text) {
        let printed = encode_token(revision, &key);
        assert_eq!(decode_token(&printed).ok(), Some((revision, key)));
    }
    if let Some(key) = Key::parse(&text) {
        let revision = (!text.is_empty()).then_some(u64::from(text.len() as u32) << 31);
        assert_eq!(decode_token(&encode_token(revision, &key)).ok(), Some((revision, key.clone())));
        assert_eq!(Key::new(key.kind(), &key.reference()), key);
    }
}

pub(super) fn label_selector_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "a=b,c!=d,e in (f, g),h,!i",
        "x/y == z, n>3,n<9",
        "a notin (b),a notin (,b,)",
        "a in ()",
        "app.kubernetes.io/name=web",
        "a=,b==",
        "n>-9223372036854775808",
        "((,),(",
    ])
}

pub(super) fn field_selector_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "metadata.name=a,spec.nodeName!=b",
        "spec.hostNetwork==true",
        "metadata.name===x",
        "=,==,!=",
        "spec.x.0=1,spec.x.18446744073709551616=",
        " metadata.name = a ",
        "a!=b!=c,a=b==c",
        "spec..nodeName=n,.=",
    ])
}

pub(super) fn request_line_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET /api/v1/namespaces/a/pods/b/log?follow=true&tailLines=5",
        "GET /apis/apps/v1/deployments?watch=1&timeoutSeconds=9223372036854775807",
        "GET /api/v1/pods?fieldSelector=metadata.name%3Dx\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5",
        "DELETE /api/v1/namespaces/a/pods?fieldSelector=metadata.name==a,metadata.name!=b&labelSelector=x",
        "DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=9223372036854775807&propagationPolicy=Foreground",
        "DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=-1&orphanDependents=true",
        "PUT /api/v1/namespaces/a/finalize",
        "POST /api/v1/namespaces/a/serviceaccounts/b/token\nContent-Type: application/vnd.kubernetes.protobuf",
        "PATCH /api/v1/namespaces/a%2Fb/pods/%2e%2e?fieldManager=kubectl&fieldValidation=Strict&dryRun=All\nContent-Type: application/strategic-merge-patch+json",
        "GET /api/v1/nodes/n/proxy/a/b/../c",
        "GET //api//v1//pods//?limit=-1&continue=x&resourceVersionMatch=Exact&resourceVersion=5",
        "GET /api/v1/pods?watch&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=t",
        "GET /apis/x\nAccept: ,,;q=NaN,a/b;q=inf",
        "GET /api/v1/%F0%9F%92%A9?%F0=%zz&+=+",
    ])
}

pub(super) fn list_seeds() -> Vec<Vec<u8>> {
    let token = |revision, key: &str| Key::parse(key).map_or(String::new(), |key| encode_token(revision, &key));
    let mut seeds = texts(&[
        "\x00limit=1",
        "\x02limit=3&labelSelector=app%3Dx",
        "\x03fieldSelector=metadata.name%3Do2",
        "\x01resourceVersion=3&resourceVersionMatch=Exact&limit=2",
        "\x04resourceVersion=1",
        "\x06allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "\x00timeoutSeconds=9223372036854775807",
        "\x00resourceVersion=18446744073709551615",
    ]);
    for (revision, key) in
        [(Some(9), "pods/a/o1"), (Some(9), "configmaps/b/o0"), (Some(u64::MAX), "pods/a/o1"), (None, "pods/a/o1")]
    {
        for choice in [0, 2, 5] {
            seeds.push([&[choice], format!("limit=2&continue={}", token(revision, key)).as_bytes()].concat());
        }
    }
    seeds
}

pub(super) fn continue_token_seeds() -> Vec<Vec<u8>> {
    let mut seeds =
        texts(&["configmaps/a/b", "nodes/n", "deployments.apps/a/b", "e30", "eyJydiI6MX0", "//", "a/b/c/d"]);
    seeds.extend(Key::parse("pods/a/b").map(|key| encode_token(Some(7), &key).into_bytes()));
    seeds.extend(Key::parse("pods/\u{1}\"").map(|key| encode_token(Some(u64::MAX), &key).into_bytes()));
    seeds
}
