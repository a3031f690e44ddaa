use std::time::Duration;

use http::StatusCode;

use super::super::digest::Digest;
use super::connect::ConnectError;
use super::hosts::load::LoadError;

const WORDS_MAX_CHARS: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot reach registry {host}")]
    Connection {
        host: String,
        #[source]
        source: Box<hyper_util::client::legacy::Error>,
    },
    #[error("registry {host} did not answer within {after:?}")]
    Silent { host: String, after: Duration },
    #[error("the registry sent nothing for {after:?}")]
    Stalled { after: Duration },
    #[error("the registry sent only {bytes} bytes in {within:?}")]
    Slow { bytes: u64, within: Duration },
    #[error("the registry's answer broke off")]
    Broken(#[source] hyper::Error),
    #[error("registry {host}: not found: {words}")]
    NotFound { host: String, words: String },
    #[error("registry {host}: unauthorized: {words}")]
    Unauthorized { host: String, words: String },
    #[error("registry {host}: access denied: {words}")]
    Denied { host: String, words: String },
    #[error("registry {host}: too many requests: {words}")]
    TooManyRequests { host: String, words: String, after: Option<Duration> },
    #[error("registry {host} is in trouble ({status}): {words}")]
    Server { host: String, status: StatusCode, words: String, after: Option<Duration> },
    #[error("registry {host} answered {status}: {words}")]
    Status { host: String, status: StatusCode, words: String },
    #[error("digest is {actual}, not {wanted}")]
    Digest { wanted: Digest, actual: Digest },
    #[error("the registry sent {actual} of {wanted} bytes")]
    Shorter { wanted: u64, actual: u64 },
    #[error("the registry sent more than the {wanted} bytes that the manifest says")]
    Longer { wanted: u64 },
    #[error("{what} has more than {max} bytes")]
    TooLong { what: &'static str, max: u64 },
    #[error("the registry sent another range than was asked for: {0:?}")]
    Range(String),
    #[error("more than {0} redirects")]
    Redirects(usize),
    #[error("redirect to {0:?} is not followed")]
    Redirect(String),
    #[error("token server {0:?} is not used")]
    Realm(String),
    #[error("token server {0} sent no token")]
    Token(String),
    #[error("{0:?} is no URL")]
    Url(String),
    #[error("registry led elsewhere")]
    Inward(#[source] Box<ConnectError>),
    #[error("settings of the registry")]
    Hosts(#[from] LoadError),
    #[error("no host of the registry's hosts.toml is able to do this")]
    NoHost,
    #[error("reading the registry's settings was interrupted")]
    Interrupted,
}

impl RegistryError {
    pub(super) fn answered(host: String, status: StatusCode, words: String, after: Option<Duration>) -> RegistryError {
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, words },
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { host, words },
            StatusCode::FORBIDDEN => RegistryError::Denied { host, words },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { host, words, after },
            _ if status.is_server_error() => RegistryError::Server { host, status, words, after },
            _ => RegistryError::Status { host, status, words },
        }
    }

    pub(super) fn unreached(host: String, source: hyper_util::client::legacy::Error) -> RegistryError {
        let connecting = std::error::Error::source(&source).and_then(|cause| cause.downcast_ref::<ConnectError>());
        match connecting {
            Some(ConnectError::Inward { host, address }) => {
                let inward = ConnectError::Inward { host: host.clone(), address: *address };
                RegistryError::Inward(Box::new(inward))
            }
            _ => RegistryError::Connection { host, source: Box::new(source) },
        }
    }

    /// How much this says about the image, of several hosts' errors: nothing, that it is not there, or why one cannot
    /// have it.
    pub fn tells(&self) -> u8 {
        match self {
            RegistryError::Connection { .. } | RegistryError::Silent { .. } => 0,
            RegistryError::NotFound { .. } => 1,
            _ => 2,
        }
    }

    /// Whether whoever should have answered is not there: what is asked next will fare no better.
    pub(super) fn is_down(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } => source.is_connect(),
            RegistryError::Silent { .. } => true,
            _ => false,
        }
    }

    /// Whether asking again may help.
    pub fn retryable(&self) -> bool {
        match self {
            // A port where nobody listens is an answer; so is a name that does not exist.
            RegistryError::Connection { source, .. } => !source.is_connect(),
            RegistryError::Silent { .. }
            | RegistryError::Stalled { .. }
            | RegistryError::Slow { .. }
            | RegistryError::Broken(_)
            | RegistryError::TooManyRequests { .. }
            | RegistryError::Server { .. }
            | RegistryError::Shorter { .. } => true,
            RegistryError::NotFound { .. }
            | RegistryError::Unauthorized { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Status { .. }
            | RegistryError::Digest { .. }
            | RegistryError::Longer { .. }
            | RegistryError::TooLong { .. }
            | RegistryError::Range(_)
            | RegistryError::Redirects(_)
            | RegistryError::Redirect(_)
            | RegistryError::Realm(_)
            | RegistryError::Token(_)
            | RegistryError::Inward(_)
            | RegistryError::Hosts(_)
            | RegistryError::NoHost
            | RegistryError::Interrupted
            | RegistryError::Url(_) => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::TooManyRequests { after, .. } | RegistryError::Server { after, .. } => *after,
            _ => None,
        }
    }

    pub fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            RegistryError::NotFound { .. } => Code::NotFound,
            RegistryError::Unauthorized { .. } => Code::Unauthenticated,
            RegistryError::Denied { .. } => Code::PermissionDenied,
            RegistryError::Digest { .. }
            | RegistryError::Shorter { .. }
            | RegistryError::Longer { .. }
            | RegistryError::Range(_)
            | RegistryError::TooLong { .. } => Code::DataLoss,
            RegistryError::Connection { .. }
            | RegistryError::Silent { .. }
            | RegistryError::Stalled { .. }
            | RegistryError::Slow { .. }
            | RegistryError::Broken(_)
            | RegistryError::TooManyRequests { .. }
            | RegistryError::Server { .. } => Code::Unavailable,
            RegistryError::Status { .. }
            | RegistryError::Redirects(_)
            | RegistryError::Redirect(_)
            | RegistryError::Realm(_)
            | RegistryError::Inward(_)
            | RegistryError::Hosts(_)
            | RegistryError::NoHost
            | RegistryError::Token(_) => Code::FailedPrecondition,
            RegistryError::Interrupted => Code::Internal,
            RegistryError::Url(_) => Code::InvalidArgument,
        }
    }
}

/// The registry's own words: the messages of the distribution API's error document, or the text as it is.
pub fn words(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        errors: Vec<Message>,
        /// What token servers say.
        details: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said = match serde_json::from_slice::<Document>(body) {
        Ok(document) if !document.errors.is_empty() => {
            let said: Vec<String> = document
                .errors
                .iter()
                .map(|error| match (error.code.is_empty(), error.message.is_empty()) {
                    (false, false) => format!("{}: {}", error.code, error.message),
                    _ => format!("{}{}", error.code, error.message),
                })
                .collect();
            said.join("; ")
        }
        Ok(Document { details: Some(details), .. }) => details,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let said: String = said.chars().take(WORDS_MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let said = said.trim();
    if said.is_empty() { status.canonical_reason().unwrap_or("no words").to_owned() } else { said.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_speaks_for_itself() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(words(StatusCode::NOT_FOUND, body), "MANIFEST_UNKNOWN: manifest unknown");
        assert_eq!(
            words(StatusCode::UNAUTHORIZED, br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(words(StatusCode::BAD_GATEWAY, b""), "Bad Gateway");
        assert_eq!(words(StatusCode::BAD_GATEWAY, b"<html>\noh\x1b[31m"), "<html> oh [31m");
    }
}
