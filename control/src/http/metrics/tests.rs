use std::time::Duration;

use futures::StreamExt;
use gantry_env::metrics::Text;
use http::{Method, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::*;
use crate::http::body;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;

fn labels(method: Method, uri: &str, applies: bool) -> Labels {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let query = Query::parse(query);
    Labels::of(&method, &RequestInfo::parse(&method, path, &query), &query, applies, || None)
}

fn told(requests: &Requests) -> String {
    let mut text = Text::default();
    requests.write(&mut text);
    text.done()
}

/// The line of `apiserver_request_total` that a request makes.
fn line(method: Method, uri: &str, applies: bool) -> String {
    let requests = Requests::default();
    requests.answered(&labels(method, uri, applies), Response::new(body::full("x")), Instant::now());
    let text = told(&requests);
    let line = text.lines().find(|line| line.starts_with("apiserver_request_total{")).expect("a line");
    line.trim_start_matches("apiserver_request_total").to_owned()
}

fn pairs(verb: &str, scope: &str, of: [&str; 4], dry_run: &str) -> String {
    let [group, version, resource, subresource] = of;
    format!(
        "{{code=\"200\",component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",\
         scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\"}} 1"
    )
}

#[tokio::test]
async fn requests_have_the_labels_of_kubernetes_and_none_of_a_clients() {
    let pods = ["", "v1", "pods", ""];
    let nothing = ["", "", "", ""];
    for (method, uri, expected) in [
        (Method::GET, "/api/v1/namespaces/a/pods/b", pairs("GET", "resource", pods, "")),
        (Method::GET, "/api/v1/namespaces/a/pods", pairs("LIST", "namespace", pods, "")),
        (Method::HEAD, "/api/v1/pods", pairs("LIST", "cluster", pods, "")),
        (Method::GET, "/api/v1/pods?watch=1", pairs("WATCH", "cluster", pods, "")),
        (Method::POST, "/api/v1/namespaces/a/pods?dryRun=All", pairs("POST", "resource", pods, "All")),
        (Method::POST, "/api/v1/namespaces/a/pods?dryRun=All&dryRun=x", pairs("POST", "resource", pods, "invalid")),
        (Method::GET, "/api/v1/namespaces/a/pods/b/log", pairs("CONNECT", "resource", ["", "v1", "pods", "log"], "")),
        (Method::DELETE, "/api/v1/namespaces/a/pods", pairs("DELETE", "namespace", pods, "")),
        (Method::from_bytes(b"BREW").unwrap(), "/apis/mine/v9/pots/x/lid", pairs("other", "resource", nothing, "")),
        (Method::GET, "/api/v1/namespaces/a/pods/b/mine", pairs("GET", "resource", pods, "")),
        (Method::GET, "/readyz/mine", pairs("GET", "", ["", "", "", "/readyz"], "")),
        (Method::GET, "/mine", pairs("GET", "", nothing, "")),
    ] {
        assert_eq!(line(method, uri, false), expected, "{uri}");
    }
    let applied = line(Method::PATCH, "/api/v1/namespaces/a/pods/b", true);
    assert_eq!(applied, pairs("APPLY", "resource", pods, ""));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_measured_to_its_end() {
    let requests = Requests::default();
    let list = labels(Method::GET, "/api/v1/pods", false);
    let began = Instant::now();
    let pieces = futures::stream::iter([vec![b'x'; 700], vec![b'x'; 800]]).map(bytes::Bytes::from);
    let response = requests.answered(&list, Response::new(body::stream(pieces)), began);
    assert!(!told(&requests).contains("apiserver_response_sizes_count"), "it is not over");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1500);
    let text = told(&requests);
    let rest = "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"}";
    for line in [
        format!("apiserver_response_sizes_sum{{{rest} 1500"),
        format!("apiserver_request_sli_duration_seconds_sum{{{rest} 3"),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn what_is_open_and_what_is_under_way_is_told() {
    let requests = Requests::default();
    let watch = labels(Method::GET, "/api/v1/pods?watch=1", false);
    let open = Open::new(requests.series(&watch));
    let gauge = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("apiserver_longrunning_requests{")).map(str::to_owned);
        line.and_then(|line| line.rsplit_once(' ').map(|(_, value)| value.to_owned()))
    };
    assert_eq!(gauge(&told(&requests)).as_deref(), Some("1"));
    drop(open);
    assert_eq!(gauge(&told(&requests)).as_deref(), Some("0"));
    let info = RequestInfo::parse(&Method::GET, "/api/v1/pods", &Query::default());
    drop((requests.enter(&info), requests.enter(&info)));
    let reading = |text: &str, count: u64| {
        let line = format!("apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {count}");
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    };
    reading(&told(&requests), 2);
    reading(&told(&requests), 0);
}

#[tokio::test]
async fn what_is_deprecated_is_told_once_it_is_asked_for() {
    let requests = Requests::default();
    assert!(!told(&requests).contains("apiserver_requested_deprecated_apis{"));
    for uri in ["/api/v1/namespaces/a/endpoints", "/api/v1/namespaces/a/endpoints/b", "/api/v1/pods"] {
        requests.answered(&labels(Method::GET, uri, false), Response::new(body::full("x")), Instant::now());
    }
    let text = told(&requests);
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("apiserver_requested_deprecated_apis{")).collect();
    let expected = "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",\
                    subresource=\"\",version=\"v1\"} 1";
    assert_eq!(lines, [expected]);
}

#[test]
fn users_are_told_apart_where_they_are_few() {
    let access = Access::default();
    for user in [Some("admin"), Some("me@example.org"), Some("x"), Some("y"), None] {
        access.authenticated(user, Duration::ZERO);
    }
    let mut text = Text::default();
    access.write(&mut text);
    let text = text.done();
    for line in [
        "authenticated_user_requests{username=\"admin\"} 1",
        "authenticated_user_requests{username=\"email_id\"} 1",
        "authenticated_user_requests{username=\"other\"} 2",
        "authentication_attempts{result=\"success\"} 4",
        "authentication_attempts{result=\"failure\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}
