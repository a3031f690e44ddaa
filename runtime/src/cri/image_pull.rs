use std::sync::Arc;

use gantry_cri::v1;

use crate::image::{Auth, ImageError, Platform, Progress, Reference};
use crate::node::{Node, NodeError};

pub async fn run(node: &Node, request: v1::PullImageRequest) -> Result<v1::PullImageResponse, NodeError> {
    watched(node, request, None, &Arc::default()).await
}

/// The same for a platform of one's own, which CRI has no field for, and `progress` says meanwhile how far it is.
pub async fn watched(
    node: &Node,
    request: v1::PullImageRequest,
    platform: Option<Platform>,
    progress: &Arc<Progress>,
) -> Result<v1::PullImageResponse, NodeError> {
    let wanted = request.image.as_ref().map_or("", |spec| spec.image.as_str());
    let reference: Reference = wanted.parse().map_err(ImageError::from)?;
    let auth = request.auth.as_ref().map_or(Auth::Anonymous, |config| credentials(config, &reference));
    let image = node.images.pull_watched(wanted, &auth, platform, progress).await?;
    Ok(v1::PullImageResponse { image_ref: image.id().to_string() })
}

/// The fields of an AuthConfig, the first that says something. Credentials that name another registry than the image's
/// are not for it.
fn credentials(config: &v1::AuthConfig, reference: &Reference) -> Auth {
    let server = server_host(&config.server_address);
    if !server.is_empty() && server != reference.domain() && server != reference.endpoint() {
        return Auth::Anonymous;
    }
    if !config.username.is_empty() {
        return Auth::Basic { username: config.username.clone(), password: config.password.clone() };
    }
    if !config.identity_token.is_empty() {
        return Auth::Identity(config.identity_token.clone());
    }
    if !config.auth.is_empty() {
        return Auth::from_encoded(&config.auth).unwrap_or_default();
    }
    if !config.registry_token.is_empty() {
        return Auth::Registry(config.registry_token.clone());
    }
    Auth::Anonymous
}

/// The host of a server address, which may be a whole URL; docker's old one means docker.io.
fn server_host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(server: &str) -> v1::AuthConfig {
        let (username, server_address) = ("me".to_owned(), server.to_owned());
        v1::AuthConfig { username, server_address, ..v1::AuthConfig::default() }
    }

    #[test]
    fn credentials_are_for_their_registry() {
        let hub: Reference = "busybox".parse().unwrap();
        let own: Reference = "localhost:5000/a".parse().unwrap();
        let given = Auth::Basic { username: "me".into(), password: String::new() };
        assert_eq!(credentials(&basic("https://index.docker.io/v1/"), &hub), given);
        assert_eq!(credentials(&basic("registry-1.docker.io"), &hub), given);
        assert_eq!(credentials(&basic(""), &own), given);
        assert_eq!(credentials(&basic("http://localhost:5000"), &own), given);
        assert_eq!(credentials(&basic("https://index.docker.io/v1/"), &own), Auth::Anonymous);
        let encoded = v1::AuthConfig { auth: "bWU6".into(), ..v1::AuthConfig::default() };
        assert_eq!(credentials(&encoded, &own), given);
        assert_eq!(credentials(&v1::AuthConfig::default(), &own), Auth::Anonymous);
    }
}
