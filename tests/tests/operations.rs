//! How an API server is looked after: its checks, its numbers and its configuration, as probes and Prometheus ask for them.

use gantry_control::auth::Identity;
use gantry_tests::api::Api;
use serde_json::json;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_ask_for_checks() {
    let api = Api::start_without_loops().await;
    for endpoint in ["livez", "readyz", "healthz"] {
        let word = api.get(&format!("/{endpoint}")).await;
        assert_eq!((word.code, word.text().as_str()), (200, "ok"), "{endpoint}");
        assert_eq!(word.headers["content-type"], "text/plain; charset=utf-8");
        let all = api.get(&format!("/{endpoint}?verbose&exclude=etcd&exclude=shiny")).await.text();
        assert!(all.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{all}");
        assert!(all.contains("[+]poststarthook/rbac/bootstrap-roles ok\n"), "{all}");
        let end = format!("no matches for \"shiny\"\n{endpoint} check passed\n");
        assert!(all.ends_with(&end), "{all}");
        assert_eq!(api.get(&format!("/{endpoint}/etcd")).await.text(), "ok");
        assert_eq!(api.get(&format!("/{endpoint}/poststarthook/rbac/bootstrap-roles")).await.text(), "ok");
        assert_eq!(api.get(&format!("/{endpoint}/shiny")).await.code, 404);
    }
    assert_eq!(api.get("/readyz/informer-sync").await.code, 200);
    assert_eq!(api.get("/livez/informer-sync").await.code, 404);
    let told = api.get("/metrics/slis").await.text();
    assert!(told.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n"), "{told}");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_asks_for_numbers() {
    let api = Api::start().await;
    assert_eq!(api.post(CONFIG_MAPS, &json!({"metadata": {"name": "x"}})).await.code, 201);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await.code, 200);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(api.post("/api/v1/namespaces/default/pods", &pod).await.code, 201);
    assert_eq!(api.anonymous("/api/v1/pods", None).await.code, 401);
    let has = |text: &str, line: &str| assert!(text.lines().any(|l| l.starts_with(line)), "no {line} in\n{text}");
    // There is no node: the scheduler looks at the pod, and parks it.
    let text = loop {
        let answer = api.get("/metrics").await;
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text();
        if text.lines().any(|line| line == "scheduler_pending_pods{queue=\"unschedulable\"} 1") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    for line in [
        "# TYPE apiserver_request_total counter",
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} ",
        "apiserver_request_total{code=\"401\",",
        "apiserver_request_duration_seconds_bucket{",
        "apiserver_request_sli_duration_seconds_count{",
        "apiserver_response_sizes_sum{",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 0",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} ",
        "apiserver_current_inqueue_requests{request_kind=\"mutating\"} 0",
        "authentication_attempts{result=\"failure\"} 1",
        "authenticated_user_requests{username=\"other\"} ",
        "authorization_attempts_total{result=\"allowed\"} ",
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ",
        "apiserver_watch_events_sizes_count{group=\"\",resource=\"pods\",version=\"v1\"} ",
        "apiserver_tls_handshake_errors_total ",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\"} ",
        "etcd_requests_total{group=\"rbac.authorization.k8s.io\",operation=\"create\",resource=\"clusterroles\"} ",
        "apiserver_storage_objects{resource=\"clusterroles.rbac.authorization.k8s.io\"} ",
        "apiserver_resource_objects{group=\"\",resource=\"pods\"} 1",
        "apiserver_watch_cache_resource_version{group=\"\",resource=\"pods\"} ",
        "apiserver_watch_cache_events_received_total{group=\"\",resource=\"pods\"} ",
        "rest_client_requests_total{code=\"200\",host=\"in-process\",method=\"GET\"} ",
        "workqueue_adds_total{name=\"namespace\"} ",
        "workqueue_depth{name=\"serviceaccount\"} 0",
        "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"unschedulable\"} ",
        "scheduler_scheduling_attempt_duration_seconds_count{profile=\"default-scheduler\",result=\"unschedulable\"} ",
        "scheduler_pod_scheduling_attempts_count 0",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_max_fds ",
        "kubernetes_build_info{",
    ] {
        has(&text, line);
    }
    // No sample stands twice, and each family is told once.
    let mut names: Vec<&str> =
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let open = api
        .get_as("/metrics", "application/openmetrics-text;version=1.0.0;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1")
        .await;
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE apiserver_request counter\n"));
    let plain = api.get_as("/metrics", "text/plain, application/openmetrics-text;q=0.5").await;
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_and_numbers_are_for_those_who_may_see_them() {
    let api = Api::start_without_loops().await;
    let told = api.get("/configz").await.json();
    assert_eq!(told["kube-apiserver"]["service-cluster-ip-range"], "10.96.0.0/16");
    assert_eq!(told["kube-apiserver"]["max-requests-inflight"], 400);
    assert_eq!(told["kube-controller-manager"]["cluster-cidr"], "10.244.0.0/16");
    let user = || Identity::new("u", ["system:authenticated"]);
    let monitor = || Identity::new("m", ["system:authenticated", "system:monitoring"]);
    for path in ["/configz", "/metrics", "/metrics/slis"] {
        assert_eq!(api.get_by(user(), path).await.code, 403, "{path}");
    }
    assert_eq!(api.get_by(monitor(), "/metrics").await.code, 200);
    assert_eq!(api.get_by(monitor(), "/metrics/slis").await.code, 200);
    assert_eq!(api.get_by(monitor(), "/configz").await.code, 403);
    api.stop().await;
}
