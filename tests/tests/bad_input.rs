//! What no well-meaning client sends: each is refused with the code, reason and words of Kubernetes, costs no more than its
//! bound, and keeps nobody else from being served.

use bytes::Bytes;
use gantry_tests::api::{Answer, Api};
use gantry_tests::raw::Raw;
use http_body_util::{Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// No refusal is longer, whatever was sent.
const REFUSAL_MAX_BYTES: usize = 64 << 10;

/// The answer is this refusal, in this form, and short.
fn refused(answer: &Answer, code: u16, reason: &str, words: &str, what: &str) {
    let shown: String = answer.text().chars().take(600).collect();
    assert_eq!(answer.code, code, "{what}: {shown}");
    assert!(answer.body.len() <= REFUSAL_MAX_BYTES, "{what}: {} bytes", answer.body.len());
    let status = answer.json();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{what}: {shown}");
    assert_eq!((&status["reason"], &status["code"]), (&json!(reason), &json!(code)), "{what}: {shown}");
    assert!(status["message"].as_str().is_some_and(|message| message.contains(words)), "{what}: {shown}");
}

/// Somebody else is served all the while.
async fn serves(api: &Api) {
    assert_eq!(api.get(CONFIG_MAPS).await.code, 200);
    let good = json!({"metadata": {"generateName": "good-"}, "data": {"k": "v"}});
    assert_eq!(api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &good).await.code, 201);
}

async fn made(api: &Api) -> String {
    let object = json!({"metadata": {"name": "x"}, "data": {"k": "v"}});
    assert_eq!(api.post(CONFIG_MAPS, &object).await.code, 201);
    format!("{CONFIG_MAPS}/x")
}

/// Somebody with a token, who may do everything.
async fn raw(api: &Api) -> Raw {
    assert_eq!(
        api.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "raw"}})).await.code,
        201
    );
    let binding = json!({"metadata": {"name": "raw"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "raw", "namespace": "default"}]});
    let bound = api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.text());
    let token = api.post("/api/v1/namespaces/default/serviceaccounts/raw/token", &json!({"spec": {}})).await.json();
    Raw { address: api.control().address(), token: token["status"]["token"].as_str().expect("a token").to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_objects() {
    let api = Api::start_without_loops().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    let text = |text: &str| text.as_bytes().to_vec();
    let unrecognized = "the object provided is unrecognized";
    for (what, content_type, body, words) in [
        ("nothing", JSON, Vec::new(), unrecognized),
        ("cut JSON", JSON, text(r#"{"metadata":{"name":"x""#), unrecognized),
        ("more than one", JSON, text(r#"{"metadata":{"name":"x"}} {}"#), unrecognized),
        ("an array", JSON, text("[]"), unrecognized),
        ("a word", JSON, text("null"), unrecognized),
        ("deep arrays", JSON, deep("[", "]"), unrecognized),
        ("deep objects", JSON, deep(r#"{"a":"#, "}"), unrecognized),
        ("a number past all", JSON, text(r#"{"metadata":{"name":"x","generation":1e999999}}"#), unrecognized),
        ("a number for a word", JSON, text(r#"{"metadata":{"name":9}}"#), "cannot be handled as a ConfigMap"),
        (
            "a number for a truth",
            JSON,
            text(r#"{"immutable":123456789012345678901234567890}"#),
            "cannot be handled as a ConfigMap",
        ),
        ("half an escape", JSON, text(r#"{"metadata":{"name":"\ud800"}}"#), unrecognized),
        ("YAML as JSON", JSON, text("metadata:\n  name: x\n"), unrecognized),
        ("cut YAML", YAML, text("metadata: ["), unrecognized),
        ("tabs in YAML", YAML, text("metadata:\n\tname: x\n"), unrecognized),
        ("no text as YAML", YAML, b"metadata: {name: \xff\xfe}".to_vec(), unrecognized),
        ("deep YAML", YAML, deep("[", "]"), unrecognized),
        ("a cycle in YAML", YAML, text("&a [*a]"), unrecognized),
        ("aliases that stand for more and more", YAML, bomb(), unrecognized),
        ("no protobuf", PROTOBUF, text("{}"), unrecognized),
        ("cut protobuf", PROTOBUF, b"k8s\0\x0a".to_vec(), unrecognized),
        ("protobuf that lies of its length", PROTOBUF, b"k8s\0\x12\xff\xff\xff\xff\x0fx".to_vec(), unrecognized),
        ("a length past all", PROTOBUF, b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(), unrecognized),
        ("a varint without end", PROTOBUF, [&b"k8s\0"[..], &[0xff; 4096]].concat(), unrecognized),
        ("a group", PROTOBUF, b"k8s\0\x0b\x0b\x0b".to_vec(), unrecognized),
        ("deep protobuf", PROTOBUF, protobuf(&nested(2000)), ""),
    ] {
        let answer = api.send_bytes("POST", CONFIG_MAPS, body, &[("content-type", content_type)]).await;
        refused(&answer, 400, "BadRequest", words, what);
    }
    serves(&api).await;
    // Bytes that are no text stand for the character that says so, as in Go.
    let odd = api
        .send_bytes(
            "POST",
            CONFIG_MAPS,
            b"{\"metadata\":{\"name\":\"odd\"},\"data\":{\"a\":\"\xff\"}}".to_vec(),
            &[("content-type", JSON)],
        )
        .await;
    assert_eq!((odd.code, odd.json()["data"]["a"].as_str()), (201, Some("\u{fffd}")), "{}", odd.text());
    api.stop().await;
}

/// Nine lists, each of nine times the one before it.
fn bomb() -> Vec<u8> {
    let mut text = "l0: &l0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let below = vec![format!("*l{}", level - 1); 9].join(",");
        text.push_str(&format!("l{level}: &l{level} [{below}]\n"));
    }
    text.into_bytes()
}

/// A field with this number and these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// The envelope of a ConfigMap.
fn protobuf(raw: &[u8]) -> Vec<u8> {
    let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    [&b"k8s\0"[..], &field(1, &kind), &field(2, raw)].concat()
}

/// A message in the place of the metadata, in the place of the metadata of which …
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(b"\x0a\x01".to_vec(), |inner, _| field(1, &inner))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_much() {
    let api = Api::start_without_loops().await;
    let limit = "Request entity too large: limit is 3145728";
    let metadata = field(1, &field(1, b"x"));
    // One entry of `data`, as often as fits; and the same of a list.
    let entries = [metadata.clone(), field(2, b"\x0a\x00").repeat(90_000)].concat();
    let owners = field(13, b"").repeat(900_000);
    for (what, content_type, body, code, reason, words) in [
        ("more than the limit", JSON, vec![b'x'; 4 << 20], 413, "RequestEntityTooLarge", limit),
        ("just more than that", JSON, vec![b' '; (3 << 20) + 1], 413, "RequestEntityTooLarge", limit),
        ("nothing at all", PROTOBUF, b"k8s\0".to_vec(), 422, "Invalid", "name or generateName is required"),
        ("very many entries of a map", PROTOBUF, protobuf(&entries), 422, "Invalid", "data"),
        ("very many items of a list", PROTOBUF, protobuf(&field(1, &owners)), 400, "BadRequest", "more than"),
    ] {
        let answer = api.send_bytes("POST", CONFIG_MAPS, body, &[("content-type", content_type)]).await;
        refused(&answer, code, reason, words, what);
    }
    // Very many fields that nobody knows are warned of, within bounds.
    let shiny: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":1")).collect();
    let body = format!("{{\"metadata\":{{\"name\":\"shiny\"}},{}}}", shiny.join(","));
    let warned = api.post_text(CONFIG_MAPS, &body, JSON).await;
    assert_eq!(warned.code, 201);
    assert!(
        warned.warnings.len() <= 100 && warned.warnings.iter().all(|w| w.len() < 1000),
        "{}",
        warned.warnings.len()
    );
    let strict = api.post_text(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), &body, JSON).await;
    refused(&strict, 400, "BadRequest", "strict decoding error: unknown field", "very many unknown fields");
    let twice = vec!["\"k\":\"v\""; 200_000].join(",");
    let body = format!("{{\"metadata\":{{\"name\":\"twice\"}},\"data\":{{{twice}}}}}");
    let strict = api.post_text(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), &body, JSON).await;
    refused(&strict, 400, "BadRequest", "duplicate field \"data.k\"", "a field that is there very often");
    serves(&api).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_another_type() {
    let api = Api::start_without_loops().await;
    let at = made(&api).await;
    let unknown = "the body of the request was in an unknown format - accepted media types include: ";
    for (method, path, content_type) in [
        ("POST", CONFIG_MAPS, "text/plain"),
        ("POST", CONFIG_MAPS, "application/cbor"),
        ("POST", CONFIG_MAPS, "application/x-www-form-urlencoded"),
        ("PUT", &at, "image/png"),
        ("DELETE", &at, "text/html"),
        ("PATCH", &at, JSON),
        ("PATCH", &at, "application/apply-patch+cbor"),
        ("PATCH", &at, "application/json-patch+json-seq"),
        ("PATCH", &format!("{at}/status"), "x"),
    ] {
        if path.ends_with("/status") {
            // A ConfigMap has none: that it is not there is said first.
            refused(&api.send(method, path, "{}", content_type).await, 404, "NotFound", "", path);
            continue;
        }
        let answer = api.send(method, path, "{}", content_type).await;
        refused(&answer, 415, "UnsupportedMediaType", unknown, &format!("{method} {content_type}"));
    }
    for accept in ["text/html", "application/cbor", "application/json;as=Shiny;v=v1;g=meta.k8s.io", ";;;", "a/b;q=NaN"]
    {
        let answer = api.get_as(&at, accept).await;
        refused(&answer, 406, "NotAcceptable", "only the following media types are accepted", accept);
    }
    for accept in ["*/*;q=0.1, text/html", "application/*", ",,application/json", "application/json;q=x"] {
        assert_eq!(api.get_as(&at, accept).await.code, 200, "{accept}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_that_blow_up() {
    let api = Api::start_without_loops().await;
    let at = made(&api).await;
    let doubling: Vec<Value> = (0..40)
        .map(|n| json!({"op": "copy", "from": if n == 0 { "/data".into() } else { format!("/metadata/annotations/a{}", n - 1) },
            "path": format!("/metadata/annotations/a{n}")}))
        .collect();
    let grow: Vec<Value> = [
        json!({"op": "add", "path": "/data/big", "value": "x".repeat(200_000)}),
        json!({"op": "add", "path": "/metadata/annotations", "value": {}}),
    ]
    .into_iter()
    .chain((0..40).map(|n| json!({"op": "copy", "from": "/data/big", "path": format!("/data/b{n}")})))
    .collect();
    let many = vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001];
    let deepen: Vec<Value> =
        std::iter::once(json!({"op": "add", "path": "/metadata/annotations", "value": {}}))
            .chain((0..500).map(
                |n| json!({"op": "add", "path": format!("/metadata/annotations{}", "/a".repeat(n + 1)), "value": {}}),
            ))
            .collect();
    let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let too_large = "Request entity too large: ";
    let unprocessable = "the server rejected our request due to an error in our request";
    for (what, content_type, body, code, reason, words) in [
        (
            "too many operations",
            JSON_PATCH,
            json!(many).to_string(),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
        ("copies of something large", JSON_PATCH, json!(grow).to_string(), 413, "RequestEntityTooLarge", too_large),
        ("copies of what is not there", JSON_PATCH, json!(doubling).to_string(), 422, "Invalid", unprocessable),
        ("deeper and deeper", JSON_PATCH, json!(deepen).to_string(), 422, "Invalid", unprocessable),
        (
            "a test that fails",
            JSON_PATCH,
            r#"[{"op":"test","path":"/kind","value":"Pod"}]"#.to_owned(),
            422,
            "Invalid",
            unprocessable,
        ),
        (
            "a path that is not there",
            JSON_PATCH,
            r#"[{"op":"remove","path":"/none"}]"#.to_owned(),
            422,
            "Invalid",
            unprocessable,
        ),
        (
            "an operation that is none",
            JSON_PATCH,
            r#"[{"op":"shine","path":"/kind"}]"#.to_owned(),
            400,
            "BadRequest",
            "",
        ),
        ("no array", JSON_PATCH, "{}".to_owned(), 400, "BadRequest", ""),
        ("a cut patch", JSON_PATCH, "[{".to_owned(), 400, "BadRequest", ""),
        ("a deep merge", MERGE_PATCH, deep.clone(), 400, "BadRequest", ""),
        ("a merge that is no object", MERGE_PATCH, "[1]".to_owned(), 400, "BadRequest", ""),
        ("a cut merge", MERGE_PATCH, r#"{"data":"#.to_owned(), 400, "BadRequest", ""),
        ("a deep strategic merge", STRATEGIC, deep, 400, "BadRequest", ""),
        ("a merge of another kind", MERGE_PATCH, r#"{"kind":"Pod"}"#.to_owned(), 400, "BadRequest", ""),
        (
            "a merge of another type",
            MERGE_PATCH,
            r#"{"data":[1]}"#.to_owned(),
            400,
            "BadRequest",
            "cannot be handled as a ConfigMap",
        ),
    ] {
        let answer = api.send("PATCH", &at, &body, content_type).await;
        refused(&answer, code, reason, words, what);
    }
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(api.post(DEPLOYMENTS, &deployment).await.code, 201);
    let env: Vec<Value> = (0..20_000).map(|n| json!({"name": format!("v{n}"), "$patch": "delete"})).collect();
    let order: Vec<Value> = (0..20_000).map(|n| json!({"name": format!("v{n}")})).collect();
    let container = json!({"name": "c", "env": env, "$setElementOrder/env": order});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let huge = api.send("PATCH", &format!("{DEPLOYMENTS}/d"), &patch.to_string(), STRATEGIC).await;
    assert_eq!(huge.code, 200, "{:.600}", huge.text());
    serves(&api).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_methods_that_lead_nowhere() {
    let api = Api::start_without_loops().await;
    let at = made(&api).await;
    let missing = "the server could not find the requested resource";
    let long = "n".repeat(20_000);
    let gets = [
        (format!("{CONFIG_MAPS}/%00"), 404, "NotFound", "not found"),
        (format!("{CONFIG_MAPS}/%ff"), 404, "NotFound", "not found"),
        (format!("{CONFIG_MAPS}/{long}"), 404, "NotFound", "not found"),
        (format!("{CONFIG_MAPS}/%2E%2E"), 400, "BadRequest", "Name parameter invalid: \"..\": may not be '..'"),
        (format!("{CONFIG_MAPS}/%2e"), 400, "BadRequest", "Name parameter invalid: \".\": may not be '.'"),
        (format!("{CONFIG_MAPS}/a%25b"), 400, "BadRequest", "may not contain '%'"),
        (format!("{CONFIG_MAPS}/a%2Fb"), 400, "BadRequest", "may not contain '/'"),
        (format!("{CONFIG_MAPS}/%zz"), 400, "BadRequest", "invalid URL escape \"%zz\""),
        (format!("{CONFIG_MAPS}/a%2"), 400, "BadRequest", "invalid URL escape \"%2\""),
        ("/api/v1//configmaps".to_owned(), 404, "NotFound", missing),
        ("/api/v1/namespaces//configmaps".to_owned(), 404, "NotFound", missing),
        ("/api//v1".to_owned(), 404, "NotFound", missing),
        ("/api/v1/namespaces/default/../kube-system/configmaps".to_owned(), 404, "NotFound", missing),
        ("/apis/shiny/v1/things".to_owned(), 404, "NotFound", missing),
        ("/api/v2/pods".to_owned(), 404, "NotFound", missing),
        (format!("{at}/shiny"), 404, "NotFound", missing),
        (format!("{at}/status"), 404, "NotFound", missing),
        (format!("{PODS}/a/log/b"), 404, "NotFound", missing),
        ("/readyz/shiny".to_owned(), 404, "NotFound", missing),
        ("/metrics/shiny".to_owned(), 404, "NotFound", missing),
    ];
    for (path, code, reason, words) in gets {
        refused(&api.get(&path).await, code, reason, words, &path[..path.len().min(200)]);
    }
    let not_allowed = "the server does not allow this method on the requested resource";
    for (method, path) in [
        ("POST", at.as_str()),
        ("PUT", CONFIG_MAPS),
        ("PATCH", CONFIG_MAPS),
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps"),
        ("OPTIONS", at.as_str()),
        ("TRACE", at.as_str()),
        ("BREW", at.as_str()),
        ("POST", "/version"),
        ("DELETE", "/readyz"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("DELETE", "/api/v1/namespaces/default/finalize"),
    ] {
        refused(
            &api.send(method, path, "", "").await,
            405,
            "MethodNotAllowed",
            not_allowed,
            &format!("{method} {path}"),
        );
    }
    let head = api.send("HEAD", &at, "", "").await;
    assert_eq!((head.code, head.body.len()), (200, 0));
    serves(&api).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_ask_for_nothing() {
    let api = Api::start_without_loops().await;
    let at = made(&api).await;
    let list = |field: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {field}");
    let lists = [
        ("limit=abc", 400, "BadRequest", "strconv.ParseInt: parsing \"abc\": invalid syntax".to_owned()),
        ("limit=99999999999999999999", 400, "BadRequest", "value out of range".to_owned()),
        ("timeoutSeconds=1.5", 400, "BadRequest", "strconv.ParseInt: parsing \"1.5\": invalid syntax".to_owned()),
        ("continue=garbage", 400, "BadRequest", "invalid continue token: continue key is not valid".to_owned()),
        ("continue=%20", 400, "BadRequest", "invalid continue token".to_owned()),
        ("continue=e30&resourceVersion=5", 400, "BadRequest", "specifying resource version is not allowed when using continue".to_owned()),
        ("resourceVersion=abc", 400, "BadRequest",
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax".to_owned()),
        ("resourceVersion=-1", 400, "BadRequest", "strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned()),
        ("resourceVersionMatch=Exact", 422, "Invalid", list("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, "Invalid", list("resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        ("resourceVersion=5&resourceVersionMatch=Newest", 422, "Invalid", list("resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\"")),
        ("sendInitialEvents=true", 422, "Invalid", list("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")),
        ("watch=1&sendInitialEvents=true", 422, "Invalid", list("resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
        ("watch=1&resourceVersion=abc", 422, "Invalid", "resourceVersion: Invalid value: \"abc\"".to_owned()),
        ("labelSelector=a%20b%20c", 400, "BadRequest", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
        ("labelSelector=%3D%3D", 400, "BadRequest", String::new()),
        ("labelSelector=a%20in%20(((", 400, "BadRequest", String::new()),
        ("fieldSelector=spec.shiny%3D1", 400, "BadRequest", "field label not supported: spec.shiny".to_owned()),
        ("fieldSelector=metadata.name", 400, "BadRequest", "invalid selector: 'metadata.name'; can't understand 'metadata.name'".to_owned()),
        ("timeout=abc", 400, "BadRequest", "invalid timeout specified in the request URL - time: invalid duration \"abc\"".to_owned()),
        ("timeout=10", 400, "BadRequest", "time: missing unit in duration \"10\"".to_owned()),
    ];
    for (query, code, reason, words) in lists {
        refused(&api.get(&format!("{CONFIG_MAPS}?{query}")).await, code, reason, &words, query);
    }
    // What means nothing here is passed over, and so is what cannot be read.
    for query in [
        "shiny=1",
        "limit=-1",
        "limit=%zz",
        "dryRun=All",
        "fieldValidation=Foo",
        "watch=false&limit=1",
        "a;b=c",
        "&&=&",
    ] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}?{query}")).await.code, 200, "{query}");
    }
    let long = "m".repeat(129);
    let body = json!({"metadata": {"name": "y"}}).to_string();
    for (query, words) in [
        ("dryRun=foo".to_owned(), "dryRun: Unsupported value: [\"foo\"]: supported values: \"All\""),
        ("dryRun=".to_owned(), "dryRun: Unsupported value: [\"\"]: supported values: \"All\""),
        (
            "fieldValidation=Foo".to_owned(),
            "fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (format!("fieldManager={long}"), "fieldManager: Too long: may not be more than 128 bytes"),
        (
            "fieldManager=a%00".to_owned(),
            "fieldManager: Invalid value: \"a\\u0000\": invalid character U+0000 (at position 1)",
        ),
    ] {
        for (method, path, kind) in [("POST", CONFIG_MAPS, "Create"), ("PUT", &at, "Update"), ("PATCH", &at, "Patch")] {
            let content_type = if method == "PATCH" { MERGE_PATCH } else { JSON };
            let answer = api.send(method, &format!("{path}?{query}"), &body, content_type).await;
            let words = format!("{kind}Options.meta.k8s.io \"\" is invalid: {words}");
            refused(&answer, 422, "Invalid", &words, &format!("{method} {query}"));
        }
    }
    let forced = api.send("PATCH", &format!("{at}?force=true"), "{}", MERGE_PATCH).await;
    let words = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
    refused(&forced, 422, "Invalid", words, "force");
    for (query, code, reason, words) in [
        (
            "propagationPolicy=Foo",
            422,
            "Invalid",
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Foo\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            "propagationPolicy=Orphan&orphanDependents=true",
            422,
            "Invalid",
            "orphanDependents and deletionPropagation cannot be both set",
        ),
        ("dryRun=foo", 422, "Invalid", "dryRun: Unsupported value"),
        ("gracePeriodSeconds=x", 400, "BadRequest", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        refused(&api.send("DELETE", &format!("{at}?{query}"), "", "").await, code, reason, words, query);
    }
    for (body, code, reason) in [
        (json!({"propagationPolicy": "Foo"}), 422, "Invalid"),
        (json!({"gracePeriodSeconds": "x"}), 400, "BadRequest"),
        (json!({"kind": "Pod"}), 400, "BadRequest"),
    ] {
        refused(&api.delete(&at, &body).await, code, reason, "", &body.to_string());
    }
    // Less than nothing is as soon as possible.
    assert_eq!(api.delete(&format!("{at}?gracePeriodSeconds=-1"), &json!({})).await.code, 200);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_trickle_and_flood() {
    let api = Api::start_without_loops().await;
    let raw = raw(&api).await;
    let (code, body) = raw.send("GET /version", "no header\r\n", b"").await;
    assert_eq!(code, 400, "{body}");
    let headers: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let (code, _) = raw.send("GET /version", &headers, b"").await;
    assert_eq!(code, 431, "very many headers");
    let (code, _) = raw.send("GET /version", &format!("x: {}\r\n", "y".repeat(2 << 20)), b"").await;
    assert!(code == 431 || code == 0, "a header without end: {code}");
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", &[0; 4096]] {
        let (code, _) = raw.exchange(bytes).await;
        assert!(matches!(code, 0 | 400), "{bytes:?}: {code}");
    }
    // One that begins another protocol, and goes.
    let mut stream = raw.connect("http/1.1").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it takes what comes");
    drop(stream);
    // A body that does not come costs its own request alone, and no longer than that may take.
    let path = format!("POST {CONFIG_MAPS}?timeout=1s");
    let (code, body) = raw.send(&path, "content-type: application/json\r\ncontent-length: 100\r\n", b"{").await;
    let status: Value = serde_json::from_str(&body).unwrap_or_default();
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{body}");
    assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    // One that says that it is larger than may be is refused before it comes.
    let large = "content-type: application/json\r\ncontent-length: 999999999999\r\n";
    let mut stream = raw.connect("http/1.1").await;
    let head = format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{large}\r\n", raw.token);
    stream.write_all(head.as_bytes()).await.expect("it takes the head");
    stream.write_all(b"{").await.expect("it takes the beginning");
    serves(&api).await;
    let mut answer = String::new();
    // It is given a while to send what it began with; then it hears why that was in vain.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // A chunk that is none.
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let (code, _) = raw.send(&format!("POST {CONFIG_MAPS}"), chunked, b"zz\r\n{}\r\n0\r\n\r\n").await;
    assert!(matches!(code, 400 | 0), "{code}");
    serves(&api).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_its_own_connection() {
    let api = Api::start_without_loops().await;
    let raw = raw(&api).await;
    let io = TokioIo::new(raw.connect("h2").await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for _ in 0..5000 {
        let mut sender = sender.clone();
        if sender.ready().await.is_err() {
            break;
        }
        let request = http::Request::get("https://localhost/api/v1/pods?watch=1")
            .header("authorization", format!("Bearer {}", raw.token))
            .body(Empty::new())
            .expect("a request");
        // Sent, and given up before it is answered.
        let mut asked = Box::pin(sender.send_request(request));
        let _ = futures::poll!(&mut asked);
        tokio::task::yield_now().await;
    }
    drop(sender);
    let _ = connection.await;
    serves(&api).await;
    // Whether the server ended it or bore with it: nothing of it is left.
    let open = async || {
        let text = api.get("/metrics").await.text();
        let lines = text.lines().filter(|line| line.starts_with("apiserver_longrunning_requests{"));
        lines.filter(|line| line.contains("resource=\"pods\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    while !open().await.iter().all(|line| line.ends_with(" 0")) {
        tokio::task::yield_now().await;
    }
    // Bodies that are announced and never come, as many as a connection may have streams.
    let io = TokioIo::new(raw.connect("h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://localhost{CONFIG_MAPS}"))
        .header("authorization", format!("Bearer {}", raw.token))
        .header("content-type", JSON)
        .body(Full::from("{}"))
        .expect("a request");
    sender.ready().await.expect("another connection is served");
    assert_eq!(sender.send_request(request).await.expect("an answer").status(), 422);
    serves(&api).await;
    api.stop().await;
}
