//! Images as CRI's published validation suite asks for them: pulled from a registry of the test's own by tag and by digest,
//! found by every name that they have, and gone at once.

mod ground;

use gantry_cri::v1;
use ground::shelves::{Shelves, architecture, digest};
use ground::{Client, Ground, with};
use serde_json::json;
use tonic::Code;

/// An image of one file, by these tags of a repository. The manifest's digest is the answer.
fn put(shelves: &mut Shelves, repository: &str, tags: &[&str], file: &str, user: &str) -> String {
    let mut layer = ground::base_layer();
    ground::file(&mut layer, file, file.as_bytes(), 0o644);
    let run = json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"], "User": user});
    digest(shelves.image(repository, tags, architecture(), &[layer.finish()], &run).to_string().as_bytes())
}

async fn pull(client: &Client, name: &str) -> Result<String, tonic::Status> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    let request = v1::PullImageRequest { image, ..v1::PullImageRequest::default() };
    Ok(client.images.clone().pull_image(request).await?.into_inner().image_ref)
}

async fn status(client: &Client, name: &str) -> Option<v1::Image> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    let request = v1::ImageStatusRequest { image, verbose: false };
    client.images.clone().image_status(request).await.expect("an answer").into_inner().image
}

async fn list(client: &Client, name: &str) -> Vec<v1::Image> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    let request = v1::ListImagesRequest { filter: Some(v1::ImageFilter { image }) };
    client.images.clone().list_images(request).await.expect("a list").into_inner().images
}

async fn remove(client: &Client, name: &str) -> Result<(), tonic::Status> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    client.images.clone().remove_image(v1::RemoveImageRequest { image }).await.map(drop)
}

/// A runtime that trusts a registry with these images.
async fn start(ground: &mut Ground, shelves: Shelves) -> (gantry_runtime::Runtime, Client, String) {
    let host = shelves.serve().await;
    ground.config.insecure_registries.push(host.clone());
    let (runtime, client) = ground.serve().await;
    (runtime, client, host)
}

#[test]
fn an_image_is_pulled_by_tag_by_digest_and_by_neither() {
    with(|mut ground| async move {
        let mut shelves = Shelves::default();
        put(&mut shelves, "tagged", &["v1"], "a", "");
        put(&mut shelves, "plain", &["latest"], "b", "");
        let by_digest = put(&mut shelves, "exact", &[], "c", "");
        let (runtime, client, host) = start(&mut ground, shelves).await;
        let cases = [
            (format!("{host}/tagged:v1"), vec![format!("{host}/tagged:v1")]),
            (format!("{host}/plain"), vec![format!("{host}/plain:latest")]),
            (format!("{host}/exact@{by_digest}"), Vec::new()),
        ];
        for (name, tags) in &cases {
            assert_eq!(status(&client, name).await, None, "{name} is not here yet, which is no error");
            let id = pull(&client, name).await.unwrap();
            let image = status(&client, name).await.expect("it is here");
            assert_eq!((&image.id, &image.repo_tags), (&id, tags));
            assert!(image.size > 0 && image.repo_digests.len() == 1, "{image:?}");
            for other in image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]) {
                assert_eq!(status(&client, other).await.as_ref(), Some(&image), "by {other}");
                assert_eq!(list(&client, other).await, std::slice::from_ref(&image), "by {other}");
            }
            assert_eq!(pull(&client, name).await.unwrap(), id, "again");
        }
        assert_eq!(status(&client, &cases[2].0).await.unwrap().repo_digests, [cases[2].0.clone()]);
        // Each is one, beside the one that the ground has brought.
        assert_eq!(list(&client, "").await.len(), 4);
        for (name, _) in &cases {
            remove(&client, name).await.unwrap();
            assert_eq!((status(&client, name).await, list(&client, name).await), (None, Vec::new()));
        }
        assert_eq!(list(&client, "").await.len(), 1);
        let absent = pull(&client, &format!("{host}/tagged:nowhere")).await.expect_err("there is none");
        assert_eq!(absent.code(), Code::NotFound, "{absent}");
        assert!(absent.message().contains("tagged:nowhere"), "{absent}");
        let bad = pull(&client, "Not A Name").await.expect_err("it is none");
        assert_eq!(bad.code(), Code::InvalidArgument, "{bad}");
        ground::finish(runtime).await;
    });
}

#[test]
fn one_image_is_one_by_whatever_names_it_came() {
    with(|mut ground| async move {
        let mut shelves = Shelves::default();
        for repository in ["one", "deep/two"] {
            put(&mut shelves, repository, &["a", "b", "c"], "same", "");
        }
        let (runtime, client, host) = start(&mut ground, shelves).await;
        let names: Vec<String> =
            ["one:a", "one:b", "one:c", "deep/two:a"].map(|name| format!("{host}/{name}")).to_vec();
        let mut ids = Vec::new();
        for name in &names {
            ids.push(pull(&client, name).await.unwrap());
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let mut tags = list(&client, &names[0]).await.remove(0).repo_tags;
        tags.sort();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(tags, sorted);

        // The kubelet starts a container by what the pull has told it.
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = ground.plain_container("c", &[]);
        container.image = Some(v1::ImageSpec {
            image: ids[0].clone(),
            user_specified_image: names[1].clone(),
            ..v1::ImageSpec::default()
        });
        let id = client.started(&pod, container, &config).await;
        assert_eq!(client.status(&id).await.image_id, ids[0]);
        let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().containers[0].image_id, ids[0]);

        // Ten at once, by different names: nobody fails, and none of them is left.
        let mut removals = tokio::task::JoinSet::new();
        for n in 0..10 {
            let (client, name) = (client.clone(), names[n % names.len()].clone());
            removals.spawn(async move { remove(&client, &name).await });
        }
        while let Some(removed) = removals.join_next().await {
            removed.unwrap().expect("it is gone, or goes");
        }
        for name in names.iter().chain([&ids[0]]) {
            assert_eq!((status(&client, name).await, list(&client, name).await), (None, Vec::new()), "{name}");
        }
        assert_eq!(client.said(&id, "cat /same").await, "same", "who runs has it still");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn an_image_says_whose_it_is() {
    with(|mut ground| async move {
        let mut shelves = Shelves::default();
        let cases =
            [("1002", Some(1002), ""), ("web", None, "web"), ("1003:logs", Some(1003), ""), ("web:4", None, "web")];
        for (n, (user, ..)) in cases.iter().enumerate() {
            put(&mut shelves, &format!("user{n}"), &["v1"], &format!("f{n}"), user);
        }
        let (runtime, client, host) = start(&mut ground, shelves).await;
        for (n, (user, uid, username)) in cases.into_iter().enumerate() {
            let name = format!("{host}/user{n}:v1");
            pull(&client, &name).await.unwrap();
            let image = status(&client, &name).await.unwrap();
            assert_eq!((image.uid.map(|uid| uid.value), image.username.as_str()), (uid, username), "{user}");
        }
        ground::finish(runtime).await;
    });
}
