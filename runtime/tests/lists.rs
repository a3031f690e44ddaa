//! Lists and statistics over CRI: filtered, in one message and in parts; and what a caller asks for in vain.

mod ground;

use std::collections::HashMap;

use gantry_cri::v1;
use ground::{Client, Ground, with};
use tonic::{Code, Response, Status, Streaming};

const CONTAINERS: usize = 120;

/// All messages of a stream, which has an end.
async fn all<T>(stream: Result<Response<Streaming<T>>, Status>) -> Vec<T> {
    let mut stream = stream.expect("a stream").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        messages.push(message);
    }
    messages
}

fn sorted(ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().collect();
    ids.sort();
    ids
}

/// Two pods: one with a container that runs, the other with more containers than one message carries.
async fn made(ground: &Ground, client: &Client) -> (String, String, String) {
    let (few, many) = (ground.pod("few"), ground.pod("many"));
    let (small, big) = (client.run_pod(&few).await, client.run_pod(&many).await);
    let mut container = ground.container("runs", &["sleep", "1000"]);
    container.labels = HashMap::from([("app".to_owned(), "runs".to_owned())]);
    let running = client.create(&small, container, &few).await.expect("created");
    client.start(&running).await.expect("started");
    for n in 0..CONTAINERS {
        client.create(&big, ground.container(&format!("c{n}"), &["true"]), &many).await.expect("created");
    }
    (small, big, running)
}

#[test]
fn a_list_in_parts_is_the_list() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut cri = client.runtime.clone();
        assert_eq!(all(cri.stream_containers(v1::StreamContainersRequest::default()).await).await, [], "none yet");
        let (small, big, running) = made(&ground, &client).await;

        let listed = cri.list_containers(v1::ListContainersRequest::default()).await.unwrap().into_inner().containers;
        let parts = all(cri.stream_containers(v1::StreamContainersRequest::default()).await).await;
        assert!(parts.len() > 1, "more than one message");
        let streamed = parts.into_iter().flat_map(|part| part.containers).collect::<Vec<_>>();
        assert_eq!(streamed.len(), CONTAINERS + 1);
        assert_eq!(sorted(streamed.iter().map(|c| c.id.clone())), sorted(listed.into_iter().map(|c| c.id)));
        let filter = v1::ContainerFilter {
            state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
            ..v1::ContainerFilter::default()
        };
        let parts = all(cri.stream_containers(v1::StreamContainersRequest { filter: Some(filter) }).await).await;
        let ids: Vec<&String> = parts.iter().flat_map(|part| &part.containers).map(|c| &c.id).collect();
        assert_eq!(ids, [&running]);

        let parts = all(cri.stream_pod_sandboxes(v1::StreamPodSandboxesRequest::default()).await).await;
        let pods = parts.into_iter().flat_map(|part| part.pod_sandboxes).map(|pod| pod.id);
        assert_eq!(sorted(pods), sorted([small.clone(), big.clone()]));
        let filter = v1::PodSandboxFilter { id: big.clone(), ..v1::PodSandboxFilter::default() };
        let parts = all(cri.stream_pod_sandboxes(v1::StreamPodSandboxesRequest { filter: Some(filter) }).await).await;
        assert_eq!(parts.iter().flat_map(|part| &part.pod_sandboxes).map(|pod| &pod.id).collect::<Vec<_>>(), [&big]);

        let parts = all(client.images.clone().stream_images(v1::StreamImagesRequest::default()).await).await;
        assert_eq!(parts.iter().flat_map(|part| &part.images).flat_map(|i| &i.repo_tags).count(), 1);
        ground::finish(runtime).await;
    });
}

#[test]
fn statistics_in_parts_are_the_statistics() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut cri = client.runtime.clone();
        let (small, big, running) = made(&ground, &client).await;
        // Of those that run.
        for (label, expected) in [("runs", vec![running.clone()]), ("walks", Vec::new())] {
            let label_selector = HashMap::from([("app".to_owned(), label.to_owned())]);
            let filter = v1::ContainerStatsFilter { label_selector, ..v1::ContainerStatsFilter::default() };
            let request = v1::StreamContainerStatsRequest { filter: Some(filter) };
            let parts = all(cri.stream_container_stats(request).await).await;
            let stats: Vec<v1::ContainerStats> = parts.into_iter().flat_map(|part| part.container_stats).collect();
            let ids: Vec<String> = stats.iter().map(|s| s.attributes.clone().unwrap_or_default().id).collect();
            assert_eq!(ids, expected);
            for stats in stats {
                assert!(stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).is_some_and(|nanos| nanos.value > 0));
            }
        }
        let parts = all(cri.stream_pod_sandbox_stats(v1::StreamPodSandboxStatsRequest::default()).await).await;
        let pods: Vec<v1::PodSandboxStats> = parts.into_iter().flat_map(|part| part.pod_sandbox_stats).collect();
        let id = |pod: &v1::PodSandboxStats| pod.attributes.clone().unwrap_or_default().id;
        assert_eq!(sorted(pods.iter().map(id)), sorted([small.clone(), big]));
        let of_small = pods.iter().find(|pod| id(pod) == small).and_then(|pod| pod.linux.as_ref()).unwrap();
        assert_eq!(of_small.containers.len(), 1);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_checkpoint_is_refused_for_what_it_lacks() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("c", &["sleep", "1000"]), &config).await.unwrap();
        let checkpoint = async |id: &str| {
            let location = ground.dir.path().join("checkpoint.tar").to_string_lossy().into_owned();
            let request = v1::CheckpointContainerRequest { container_id: id.to_owned(), location, timeout: 0 };
            client.runtime.clone().checkpoint_container(request).await.expect_err("refused")
        };
        assert_eq!(checkpoint("nobody").await.code(), Code::NotFound);
        let error = checkpoint(&id).await;
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("not running"), "{error}");
        client.start(&id).await.unwrap();
        let error = checkpoint(&id).await;
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|folder| folder.join("criu").exists()) {
            assert_eq!(error.code(), Code::Unimplemented, "{error}");
        } else {
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            assert!(error.message().contains("criu binary not found"), "{error}");
        }
        assert!(!ground.dir.path().join("checkpoint.tar").exists());
        assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerRunning);
        ground::finish(runtime).await;
    });
}

/// Not there without the kernel's or the hardware's doing: pressure is v2's, and the device below the folders of a test may count
/// nothing.
const MAY_BE_ABSENT: [&str; 5] =
    ["container_pressure_", "container_hugetlb_", "container_blkio_", "container_fs_reads_", "container_fs_writes_"];

#[test]
fn metrics_have_the_names_and_labels_that_were_promised() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut cri = client.runtime.clone();
        let descriptors = cri.list_metric_descriptors(v1::ListMetricDescriptorsRequest {}).await.unwrap();
        let descriptors = descriptors.into_inner().descriptors;
        let keys: HashMap<&str, &[String]> =
            descriptors.iter().map(|d| (d.name.as_str(), d.label_keys.as_slice())).collect();
        assert_eq!(keys.len(), descriptors.len(), "no name twice");
        assert!(descriptors.iter().all(|d| !d.help.is_empty() && d.label_keys.len() >= 5));

        let mut config = ground.pod("measured");
        let options = config.linux.as_mut().and_then(|l| l.security_context.as_mut()?.namespace_options.as_mut());
        options.expect("it has them").network = v1::NamespaceMode::Pod as i32;
        let pod = client.run_pod(&config).await;
        let script = "dd if=/dev/zero of=/written bs=64k count=16; while :; do :; done";
        let mut container = ground.container("busy", &["sh", "-c", script]);
        container.linux.as_mut().expect("it has one").resources = Some(v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 1024,
            memory_limit_in_bytes: 64 << 20,
            ..v1::LinuxContainerResources::default()
        });
        let id = client.create(&pod, container, &config).await.unwrap();
        client.start(&id).await.unwrap();
        let read = async || {
            let listed = client.runtime.clone().list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await;
            let listed = listed.unwrap().into_inner().pod_metrics;
            assert_eq!(listed.iter().map(|m| &m.pod_sandbox_id).collect::<Vec<_>>(), [&pod]);
            assert_eq!(listed[0].container_metrics.len(), 1);
            listed[0].clone()
        };
        let value = |metrics: &[v1::Metric], name: &str| {
            metrics.iter().find(|m| m.name == name).and_then(|m| m.value).map(|v| v.value)
        };
        // A second of the processor, and all that it writes.
        let metrics = loop {
            let metrics = read().await;
            let of_container = &metrics.container_metrics[0].metrics;
            let written = value(of_container, "container_fs_usage_bytes").is_some_and(|bytes| bytes >= 1 << 20);
            if written && value(of_container, "container_cpu_usage_seconds_total").is_some_and(|used| used >= 1) {
                break metrics;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let of_container = &metrics.container_metrics[0].metrics;
        assert_eq!(metrics.container_metrics[0].container_id, id);
        for metric in metrics.metrics.iter().chain(of_container) {
            let keys = keys.get(metric.name.as_str()).unwrap_or_else(|| panic!("{} was not promised", metric.name));
            assert_eq!(metric.label_values.len(), keys.len(), "{metric:?}");
            assert_eq!(metric.label_values[..2], ["measured".to_owned(), "default".to_owned()], "{metric:?}");
            let counts = metric.name.ends_with("_total") || metric.name == "container_memory_failcnt";
            assert_eq!(metric.metric_type() == v1::MetricType::Counter, counts, "{metric:?}");
        }
        let told: std::collections::BTreeSet<&str> =
            metrics.metrics.iter().chain(of_container).map(|m| m.name.as_str()).collect();
        let absent = |name: &&str| !told.contains(name) && !MAY_BE_ABSENT.iter().any(|may| name.starts_with(may));
        assert_eq!(keys.keys().copied().filter(absent).collect::<Vec<_>>(), Vec::<&str>::new());
        for (name, expected) in [
            ("container_spec_cpu_period", 100_000),
            ("container_spec_cpu_quota", 50_000),
            ("container_spec_cpu_shares", 1024),
            ("container_spec_memory_limit_bytes", 64 << 20),
            ("container_processes", 1),
            ("container_threads", 1),
            ("container_sockets", 0),
        ] {
            assert_eq!(value(of_container, name), Some(expected), "{name}");
        }
        let started = value(of_container, "container_start_time_seconds").unwrap();
        assert!(started > 0 && started <= value(of_container, "container_last_seen").unwrap());
        let open = value(of_container, "container_file_descriptors");
        assert!(open.is_some_and(|open| open >= 3), "{open:?}");
        let busy = of_container.iter().find(|m| m.name == "container_memory_rss").unwrap();
        assert_eq!(busy.label_values[2..], ["busy".to_owned(), id.clone(), ground::IMAGE.to_owned()]);
        let link = metrics.metrics.iter().find(|m| m.name == "container_network_receive_bytes_total").unwrap();
        assert_eq!(link.label_values[2..], ["".to_owned(), pod.clone(), "".to_owned(), "eth0".to_owned()]);

        let parts = all(cri.stream_pod_sandbox_metrics(v1::StreamPodSandboxMetricsRequest {}).await).await;
        assert_eq!(
            parts.iter().flat_map(|p| &p.pod_sandbox_metrics).map(|m| &m.pod_sandbox_id).collect::<Vec<_>>(),
            [&pod]
        );
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
