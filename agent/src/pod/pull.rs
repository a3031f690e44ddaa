//! Bringing an image to the node, as the pull policy says, with the credentials that the pod names.

use std::sync::Arc;

use base64::Engine;
use gantry_cri::v1::AuthConfig;
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use serde_json::Value;
use tokio::time::Instant;

use super::env::data_of;
use super::want::{PullPolicy, WantedImage};
use crate::events::Kind;
use crate::runtime::RuntimeError;
use crate::shared::Shared;

/// Why there is no image: the reason and the words of the container's status.
#[derive(Debug)]
pub struct PullError {
    pub reason: &'static str,
    pub message: String,
}

/// How a runtime's answer begins where a policy refuses the image (k8s.io/cri-api/pkg/errors).
const UNSIGNED: &str = "SignatureValidationFailed";

/// The image's id on this node.
pub async fn ensure(
    shared: &Arc<Shared>,
    pod: &Arc<Object>,
    container: &str,
    wanted: &WantedImage,
) -> Result<String, PullError> {
    let image = &wanted.reference;
    let name = Some(container);
    if wanted.pull != PullPolicy::Always {
        let found = shared.runtime.image(image).await.map_err(|error| inspect_failed(image, &error))?;
        if let Some(found) = found {
            let words = format!("Container image \"{image}\" already present on machine");
            shared.events.pod(pod, name, Kind::Normal, "Pulled", words);
            return Ok(found.image_ref);
        }
    }
    if wanted.pull == PullPolicy::Never {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        shared.events.pod(pod, name, Kind::Warning, "ErrImageNeverPull", message.clone());
        return Err(PullError { reason: "ErrImageNeverPull", message });
    }
    let waiting_since = Instant::now();
    let _turn = shared.pulls.acquire().await;
    shared.events.pod(pod, name, Kind::Normal, "Pulling", format!("Pulling image \"{image}\""));
    let since = Instant::now();
    match pull(shared, pod, image).await {
        Ok(image_ref) => {
            let size = shared.runtime.image(&image_ref).await.ok().flatten().map_or(0, |f| f.size_bytes);
            let words = format!(
                "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {size} bytes.",
                millis_text(since.elapsed().as_millis()),
                millis_text(waiting_since.elapsed().as_millis()),
            );
            shared.events.pod(pod, name, Kind::Normal, "Pulled", words);
            Ok(image_ref)
        }
        Err(error) => {
            let message = error.words();
            let words = format!("Failed to pull image \"{image}\": {message}");
            shared.events.pod(pod, name, Kind::Warning, "Failed", words);
            let reason = match error.status.code() {
                _ if message.starts_with(UNSIGNED) => UNSIGNED,
                tonic::Code::InvalidArgument => "InvalidImageName",
                _ => "ErrImagePull",
            };
            shared.events.pod(pod, name, Kind::Warning, "Failed", format!("Error: {reason}"));
            Err(PullError { reason, message })
        }
    }
}

fn inspect_failed(image: &str, error: &RuntimeError) -> PullError {
    let reason = match error.status.code() {
        tonic::Code::InvalidArgument => "InvalidImageName",
        _ => "ImageInspectError",
    };
    PullError { reason, message: format!("Failed to inspect image \"{image}\": {}", chain(error)) }
}

/// `512ms`, `1.234s`: as Go prints a duration.
fn millis_text(millis: u128) -> String {
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

/// Tries the pod's credentials for the image's registry one after the other, and none where there are none.
async fn pull(shared: &Arc<Shared>, pod: &Object, image: &str) -> Result<String, RuntimeError> {
    let registry = registry_of(image);
    let mut credentials = Vec::new();
    for reference in pod.array_at("/spec/imagePullSecrets") {
        let at = Ref::new(pod.namespace(), reference["name"].as_str().unwrap_or(""));
        if let Ok(Some(secret)) = shared.client.find(&resource::SECRET, &at).await {
            credentials.extend(credentials_for(&secret, registry));
        }
    }
    let mut last = None;
    for auth in credentials {
        match shared.runtime.pull(image, Some(auth)).await {
            Ok(image_ref) => return Ok(image_ref),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => shared.runtime.pull(image, None).await,
    }
}

/// `docker.io` unless the first part of the name is a host.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The entries of a `kubernetes.io/dockerconfigjson` secret that are for `registry`.
fn credentials_for(secret: &Object, registry: &str) -> Vec<AuthConfig> {
    let Some(bytes) = data_of(secret).remove(".dockerconfigjson") else { return Vec::new() };
    let Ok(config) = serde_json::from_slice::<Value>(&bytes) else { return Vec::new() };
    let mut out = Vec::new();
    for (server, entry) in config["auths"].as_object().into_iter().flatten() {
        let bare = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or(bare);
        if host != registry && !(registry == "docker.io" && host == "index.docker.io") {
            continue;
        }
        let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
        let (mut username, mut password) = (text("username"), text("password"));
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
        if let Some((user, word)) = String::from_utf8_lossy(&decoded).split_once(':') {
            (username, password) = (user.to_owned(), word.to_owned());
        }
        out.push(AuthConfig { username, password, server_address: server.clone(), ..AuthConfig::default() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_go_to_their_registry_alone() {
        let engine = base64::engine::general_purpose::STANDARD;
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": engine.encode("a:b")},
            "r.example:5000": {"username": "c", "password": "d"},
        }});
        let data = engine.encode(config.to_string());
        let secret = Object::from_value(json!({"kind": "Secret", "data": {".dockerconfigjson": data}})).unwrap();
        let user = |registry: &str| credentials_for(&secret, registry).first().map(|c| c.username.clone());
        assert_eq!(user(registry_of("nginx")), Some("a".into()));
        assert_eq!(user(registry_of("r.example:5000/x/y:1")), Some("c".into()));
        assert_eq!(user("ghcr.io"), None);
    }
}
