use base64::Engine;
use gantry_cri::v1;

use crate::image::Auth;
use crate::node::{Node, NodeError};

pub async fn run(node: &Node, request: v1::PullImageRequest) -> Result<v1::PullImageResponse, NodeError> {
    let image = request.image.ok_or(NodeError::Missing("image"))?;
    let auth = auth(request.auth.unwrap_or_default())?;
    let pulled = node.images.pull(&image.image, &auth, None).await?;
    Ok(v1::PullImageResponse { image_ref: pulled.id().to_string() })
}

fn auth(config: v1::AuthConfig) -> Result<Auth, NodeError> {
    if !config.registry_token.is_empty() {
        return Ok(Auth::Registry(config.registry_token));
    }
    if !config.identity_token.is_empty() {
        return Ok(Auth::Identity(config.identity_token));
    }
    if !config.username.is_empty() {
        return Ok(Auth::Basic { username: config.username, password: config.password });
    }
    if config.auth.is_empty() {
        return Ok(Auth::Anonymous);
    }
    // The value itself is a secret: it stays out of the error.
    let why = "it is not base64 of user:password";
    let bad = || NodeError::Invalid { what: "auth", value: "(hidden)".to_owned(), why };
    let bytes = base64::engine::general_purpose::STANDARD.decode(&config.auth).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    Ok(Auth::Basic { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}
