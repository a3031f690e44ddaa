use super::*;
use crate::store::Embedded;
use http_body_util::BodyExt;

async fn health(seeded: bool) -> (Health, CancellationToken) {
    let stop = CancellationToken::new();
    let cache = Cache::start(Arc::new(Embedded::in_memory().unwrap())).await.unwrap();
    let health = Health::new(cache, stop.clone());
    if seeded {
        health.set_seeded();
    }
    (health, stop)
}

async fn read(response: Response<Body>) -> (u16, String) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(health: &Health, endpoint: Endpoint, query: &str) -> (u16, String) {
    read(health.serve(endpoint, &Query::parse(query)).await).await
}

#[tokio::test]
async fn a_word_or_a_line_a_check() {
    let (health, _) = health(true).await;
    assert_eq!(ask(&health, Endpoint::Livez, "").await, (200, "ok".to_owned()));
    let hooks: String = HOOKS.iter().map(|hook| format!("[+]{hook} ok\n")).collect();
    let live = format!("[+]ping ok\n[+]log ok\n[+]etcd ok\n{hooks}livez check passed\n");
    assert_eq!(ask(&health, Endpoint::Livez, "verbose").await, (200, live.clone()));
    assert_eq!(ask(&health, Endpoint::Livez, "verbose=false").await.1, live, "its value is not looked at");
    let ready = ask(&health, Endpoint::Readyz, "verbose=").await.1;
    assert!(
        ready.contains("[+]informer-sync ok\n") && ready.ends_with("[+]shutdown ok\nreadyz check passed\n"),
        "{ready}"
    );
}

#[tokio::test]
async fn what_is_left_out_is_said_and_what_is_not_there_too() {
    let (health, stop) = health(true).await;
    stop.cancel();
    let (code, words) = ask(&health, Endpoint::Readyz, "").await;
    assert_eq!(code, 500);
    assert!(
        words.contains("[-]shutdown failed: reason withheld\n") && words.ends_with("readyz check failed\n"),
        "{words}"
    );
    assert_eq!(ask(&health, Endpoint::Readyz, "exclude=shutdown").await, (200, "ok".to_owned()));
    let (_, words) = ask(&health, Endpoint::Livez, "verbose&exclude=etcd&exclude=zebra&exclude=ape&exclude=ape").await;
    assert!(words.contains("[+]etcd excluded: ok\n"), "{words}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"ape\",\"zebra\"\nlivez check passed\n";
    assert!(words.ends_with(warning), "{words}");
}

#[tokio::test]
async fn a_check_by_itself_says_why_and_all_are_counted() {
    let (health, _) = health(false).await;
    let one = async |endpoint, check: &str| read(health.serve_one(endpoint, check).await.unwrap()).await;
    assert_eq!(one(Endpoint::Healthz, "etcd").await, (200, "ok".to_owned()));
    let unfinished = (500, "internal server error: not finished\n".to_owned());
    assert_eq!(one(Endpoint::Livez, "poststarthook/rbac/bootstrap-roles").await, unfinished);
    for (endpoint, check) in [(Endpoint::Livez, "shutdown"), (Endpoint::Readyz, "etc"), (Endpoint::Readyz, "")] {
        assert_eq!(health.serve_one(endpoint, check).await.unwrap_err().code, 404, "{check:?}");
    }
    let mut text = Text::default();
    health.write(&mut text);
    let text = text.done();
    for line in [
        "kubernetes_healthcheck{name=\"etcd\",type=\"healthz\"} 1",
        "kubernetes_healthcheck{name=\"poststarthook/rbac/bootstrap-roles\",type=\"livez\"} 0",
        "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"healthz\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}
