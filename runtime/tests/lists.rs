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
